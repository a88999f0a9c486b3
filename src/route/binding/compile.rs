//! An HTTP rule compiled against its message: every path resolved, every field claimed once.

use http::HeaderName;

use super::{BindingError, Body, BodyRule, Capture, FIELD_MASK, HEADERS_MAX, HTTP_BODY, Place};
use crate::route::template::{PathTemplate, Segment};
use crate::transcode::table::{Cardinality, Shape};
use crate::transcode::{self, BodyPlan, Claim, Claims, FieldPath, JsonIn, MessageId, Root, Tables};

/// Collects the claims of a rule while its parts are compiled.
pub(super) struct Compiler<'a> {
    tables: &'a Tables,
    message: MessageId,
    claims: Claims,
    context: Option<&'a FieldPath>,
}

impl<'a> Compiler<'a> {
    /// A compiler for which the context is claimed already.
    pub(super) fn new(tables: &'a Tables, message: MessageId, context: Option<&'a FieldPath>) -> Compiler<'a> {
        let mut claims = Claims::new();
        if let Some(context) = context {
            claims.claim(tables, context, Claim::Always);
        }
        Compiler { tables, message, claims, context }
    }

    /// Resolves a field and claims it; the context field belongs to the gateway alone.
    fn take(&mut self, text: &str, who: &str, claim: Claim) -> Result<FieldPath, BindingError> {
        let path = FieldPath::resolve(self.tables, self.message, text)
            .map_err(|error| BindingError::new(format!("{who} `{text}`: {error}")))?;
        if self.context.is_some_and(|context| context.steps()[0] == path.steps()[0]) {
            let text = format!("{who} `{text}`: this field carries the caller context, which only the gateway writes");
            return Err(BindingError::new(text));
        }
        if self.claims.covers(&path, u32::MAX) {
            return Err(BindingError::new(format!("{who} `{text}`: this field is bound twice")));
        }
        if let Some(other) = self.claims.excluded_by(self.tables, &path, u32::MAX) {
            let text = format!("{who} `{text}`: excluded by `{other}`, a bound member of the same oneof");
            return Err(BindingError::new(text));
        }
        self.claims.claim(self.tables, &path, claim);
        Ok(path)
    }

    pub(super) fn captures(&mut self, template: &PathTemplate) -> Result<Vec<Capture>, BindingError> {
        let mut captures = Vec::new();
        for variable in &template.variables {
            let path = self.take(&variable.field, "path variable", Claim::Always)?;
            let field = path.field(self.tables);
            let is_text = !matches!(field.spec.cardinality, Cardinality::Single)
                || field.message().is_some_and(|id| self.tables.message(id).shape == Shape::Plain);
            if is_text {
                let text =
                    format!("path variable `{}`: a list, map or message cannot be a part of a path", variable.field);
                return Err(BindingError::new(text));
            }
            let segments = &template.segments[variable.from..variable.to];
            captures.push(Capture {
                path,
                from: Place::new(template, variable.from),
                to: Place::new(template, variable.to),
                is_multi: segments.len() > 1 || segments.contains(&Segment::Many),
            });
        }
        Ok(captures)
    }

    pub(super) fn presets(&mut self, presets: &[(String, String)]) -> Result<Vec<u8>, BindingError> {
        let mut bytes = Vec::new();
        for (name, text) in presets {
            let path = self.take(name, "preset", Claim::Always)?;
            transcode::text_to_wire(self.tables, &path, text, &mut bytes)
                .map_err(|what| BindingError::new(format!("preset `{name}`: {what}")))?;
        }
        Ok(bytes)
    }

    pub(super) fn headers(
        &mut self,
        headers: &[(String, String)],
    ) -> Result<Vec<(HeaderName, FieldPath)>, BindingError> {
        if headers.len() > HEADERS_MAX {
            return Err(BindingError::new(format!("a rule binds at most {HEADERS_MAX} headers")));
        }
        let mut bound = Vec::new();
        for (index, (header, field)) in headers.iter().enumerate() {
            let name = HeaderName::from_bytes(header.to_ascii_lowercase().as_bytes())
                .map_err(|_| BindingError::new(format!("`{header}` is no header name")))?;
            bound.push((name, self.take(field, "header field", Claim::WhenHeader(index as u8))?));
        }
        Ok(bound)
    }

    /// The one field mask of the message, where the body is a field of it.
    pub(super) fn mask(&self, body: &Body) -> Option<FieldPath> {
        if !matches!(body, Body::Field(_)) {
            return None;
        }
        let table = self.tables.message(self.message);
        let mut masks = table.fields.iter().filter(|field| {
            field.message().is_some_and(|id| &*self.tables.message(id).name == FIELD_MASK)
                && field.spec.cardinality == Cardinality::Single
        });
        let (first, second) = (masks.next(), masks.next());
        let first = first.filter(|_| second.is_none())?;
        FieldPath::resolve(self.tables, self.message, &first.spec.name).ok()
    }

    /// The body's rule, and the claims that hold for the query.
    pub(super) fn body(
        self,
        body: &Body,
        lift: Option<&str>,
        options: JsonIn,
    ) -> Result<(BodyRule, Claims), BindingError> {
        let mut query_claims = self.claims.clone();
        let is_raw = |id: MessageId| &*self.tables.message(id).name == HTTP_BODY;
        let rule = match body {
            Body::None => BodyRule::None,
            Body::All if is_raw(self.message) => BodyRule::Raw(None),
            Body::All => BodyRule::Json(BodyPlan {
                root: Root::Message(self.message),
                options,
                claims: self.claims,
                lift: lift.map(Into::into),
            }),
            Body::Field(name) => {
                let path = FieldPath::resolve(self.tables, self.message, name)
                    .map_err(|error| BindingError::new(format!("body `{name}`: {error}")))?;
                let [(message, field)] = *path.steps() else {
                    return Err(BindingError::new(format!(
                        "body `{name}`: only a field of the request itself can be the body"
                    )));
                };
                if self.context.is_some_and(|context| context.steps()[0] == path.steps()[0]) {
                    let text =
                        format!("body `{name}`: this field carries the caller context, which only the gateway writes");
                    return Err(BindingError::new(text));
                }
                query_claims.claim(self.tables, &path, Claim::Always);
                match path.field(self.tables).message().filter(|id| is_raw(*id)) {
                    Some(_) => BodyRule::Raw(Some(path)),
                    None => BodyRule::Json(BodyPlan {
                        root: Root::Field(message, field),
                        options,
                        claims: self.claims,
                        lift: None,
                    }),
                }
            }
        };
        Ok((rule, query_claims))
    }
}
