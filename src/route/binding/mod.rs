//! One HTTP rule compiled against its request message: `body ++ path ++ query ++ presets ++ headers`, each part an
//! encoding of the same message, with claims that keep them apart.

mod compile;
mod fields;
mod outline;
mod parts;

use http::{HeaderMap, HeaderName};

use super::percent;
use super::segments::Segments;
use super::template::PathTemplate;
use crate::fault::{Code, Fault, Reason, Violation};
use crate::transcode::{
    self, BodyPlan, Claims, FieldPath, JsonIn, Lifted, MaskPaths, MessageId, QueryBinder, Tables, Unknown,
};
use compile::Compiler;
pub use fields::BoundFields;

pub use outline::BodyOutline;

/// Full name of the message that carries a raw body.
pub const HTTP_BODY: &str = "google.api.HttpBody";
const FIELD_MASK: &str = "google.protobuf.FieldMask";
/// Most headers that one rule binds.
const HEADERS_MAX: usize = 32;

/// What of the message is the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: what the path does not bind comes from the query.
    None,
    /// Everything that nothing else binds.
    All,
    /// This field.
    Field(String),
}

/// An HTTP rule as written.
#[derive(Clone, Debug)]
pub struct HttpRule {
    /// Method in upper case, or `*`.
    pub verb: String,
    /// Path template.
    pub template: String,
    /// What the body is.
    pub body: Body,
    /// The reply's field that is the answer's body; the whole reply without it.
    pub response_body: Option<String>,
    /// Constant values of fields: path and text.
    pub presets: Vec<(String, String)>,
    /// Request headers that fill fields: header and path.
    pub headers: Vec<(String, String)>,
}

/// Why a rule does not fit its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingError {
    /// What is wrong, and what to do.
    pub text: String,
    /// Byte in the template, where the fault is there.
    pub template_column: Option<usize>,
}

impl BindingError {
    fn new(text: impl Into<String>) -> BindingError {
        BindingError { text: text.into(), template_column: None }
    }
}

/// How the body's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// JSON.
    Json,
    /// Protobuf of the request message, or of the body field.
    Protobuf,
    /// A form, which `curl -d` calls everything: JSON where it looks like JSON, refused otherwise.
    Form,
    /// Any other type, as named.
    Other(&'a str),
}

/// The parts of a request that a binding joins.
pub struct Parts<'a> {
    /// Path without query.
    pub path: &'a str,
    /// Its segments.
    pub segments: &'a Segments,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Type of the body.
    pub content: Content<'a>,
    /// The body.
    pub body: &'a [u8],
}

/// What binding found besides the bytes.
#[derive(Debug, Default)]
pub struct Bound {
    /// Text of the body member that the house style takes out.
    pub lifted: Lifted,
}

/// A rule that fits.
#[derive(Debug)]
pub struct Binding {
    message: MessageId,
    captures: Vec<Capture>,
    /// The last segment ends with a custom verb.
    has_verb: bool,
    body: BodyRule,
    query_claims: Claims,
    /// The body may set every field, so that no query parameter can.
    is_body_all: bool,
    presets: Vec<u8>,
    headers: Vec<(HeaderName, FieldPath)>,
    /// PATCH: the mask that the body's fields fill when it is not given.
    mask: Option<FieldPath>,
    ignores_unknown: bool,
}

/// A variable: its field, and which of the path's segments it takes.
#[derive(Debug)]
struct Capture {
    path: FieldPath,
    from: Place,
    to: Place,
    is_multi: bool,
}

/// A position between segments. Behind a `**` it is counted from the end.
#[derive(Clone, Copy, Debug)]
enum Place {
    FromStart(usize),
    FromEnd(usize),
}

impl Place {
    fn new(template: &PathTemplate, index: usize) -> Place {
        match template.many() {
            Some(many) if index > many => Place::FromEnd(template.segments.len() - index),
            _ => Place::FromStart(index),
        }
    }

    fn index(self, count: usize) -> usize {
        match self {
            Place::FromStart(index) => index,
            Place::FromEnd(index) => count.saturating_sub(index),
        }
    }
}

#[derive(Debug)]
enum BodyRule {
    None,
    Json(BodyPlan),
    /// `google.api.HttpBody`: of the whole message, or of the field with these bytes of nesting.
    Raw(Option<FieldPath>),
}

impl Binding {
    /// Compiles a rule. `context` is the field that the gateway writes; `lift` the body member that feeds it.
    pub fn compile(
        tables: &Tables,
        message: MessageId,
        rule: &HttpRule,
        context: Option<&FieldPath>,
        lift: Option<&str>,
        options: JsonIn,
    ) -> Result<(PathTemplate, Binding), BindingError> {
        let template = PathTemplate::parse(&rule.template)
            .map_err(|error| BindingError { text: error.text, template_column: Some(error.column) })?;
        let mut compiler = Compiler::new(tables, message, context);
        let captures = compiler.captures(&template)?;
        let presets = compiler.presets(&rule.presets)?;
        let headers = compiler.headers(&rule.headers)?;
        let mask = if rule.verb == "PATCH" { compiler.mask(&rule.body) } else { None };
        let (body, query_claims) = compiler.body(&rule.body, lift, options)?;
        let binding = Binding {
            message,
            captures,
            has_verb: template.verb.is_some(),
            body,
            query_claims,
            is_body_all: rule.body == Body::All,
            presets,
            headers,
            mask,
            ignores_unknown: options.unknown == Unknown::Ignore,
        };
        Ok((template, binding))
    }

    /// True where the binding reads a body.
    pub fn has_body(&self) -> bool {
        !matches!(self.body, BodyRule::None)
    }

    /// True where the body may be of any type.
    pub fn takes_any_content(&self) -> bool {
        matches!(self.body, BodyRule::Raw(_))
    }

    /// Appends the request message's bytes.
    pub fn bind(&self, tables: &Tables, parts: &Parts<'_>, out: &mut Vec<u8>) -> Result<Bound, Fault> {
        let active = self.active(parts.headers);
        // Of a binary body no mask is made: absent, it stands for all that is there.
        let makes_mask = self.mask.is_some() && parts.content != Content::Protobuf;
        let mut mask = makes_mask.then(MaskPaths::default);
        let lifted = self.bind_body(tables, parts, active, mask.as_mut(), out)?;
        for capture in &self.captures {
            self.bind_capture(tables, parts, capture, out)?;
        }
        let mut has_mask = false;
        if let Some(query) = parts.query.filter(|query| !query.is_empty()) {
            has_mask = self.bind_query(tables, query, active, out)?;
        }
        out.extend_from_slice(&self.presets);
        for (index, (name, path)) in self.headers.iter().enumerate() {
            if active >> index & 1 == 1 {
                parts::bind_header(tables, parts.headers, name, path, out)?;
            }
        }
        if let (Some(path), Some(mask)) = (&self.mask, mask.filter(|_| !has_mask))
            && transcode::text_to_wire(tables, path, &mask.paths.join(","), out).is_err()
        {
            return Err(Fault::client(Code::InvalidArgument, "the body's fields make no field mask"));
        }
        Ok(Bound { lifted })
    }

    /// A bit for each bound header that the request carries.
    fn active(&self, headers: &HeaderMap) -> u32 {
        let present = self.headers.iter().enumerate().filter(|(_, (name, _))| headers.contains_key(name));
        present.fold(0, |bits, (index, _)| bits | 1 << index)
    }

    fn bind_body(
        &self,
        tables: &Tables,
        parts: &Parts<'_>,
        active: u32,
        mask: Option<&mut MaskPaths>,
        out: &mut Vec<u8>,
    ) -> Result<Lifted, Fault> {
        match (&self.body, parts.content) {
            (BodyRule::None, _) => Ok(None),
            (BodyRule::Raw(path), content) => {
                parts::raw_body(tables, path.as_ref(), content, parts.body, out);
                Ok(None)
            }
            (BodyRule::Json(plan), Content::Protobuf) => {
                parts::binary_body(tables, plan, active, parts.body, out)?;
                Ok(None)
            }
            (BodyRule::Json(plan), Content::Json | Content::Form) => {
                if parts.content == Content::Form && !parts::looks_like_json(parts.body) {
                    return Err(parts::unsupported("application/x-www-form-urlencoded"));
                }
                if parts.body.is_empty() {
                    return Ok(None);
                }
                transcode::json_to_wire(tables, plan, active, parts.body, out, mask)
                    .map_err(|error| parts::body_fault(&error))
            }
            (BodyRule::Json(_), Content::Other(name)) => Err(parts::unsupported(name)),
        }
    }

    fn bind_capture(
        &self,
        tables: &Tables,
        parts: &Parts<'_>,
        capture: &Capture,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let text = self.capture_text(parts.path, parts.segments, capture);
        let fault = |what: &str| {
            let name = capture.path.name(tables);
            let violation = Violation { field: name.clone(), description: what.to_owned(), offset: None };
            Fault::client(Code::InvalidArgument, format!("path variable `{name}`: {what}"))
                .reason(Reason::MalformedParameter)
                .violation(violation)
        };
        let text = percent::decode(text, capture.is_multi, false, true).map_err(|error| fault(error.text()))?;
        transcode::text_to_wire(tables, &capture.path, &text, out).map_err(|what| fault(&what))
    }

    /// What a variable takes of a path, as it stands there.
    fn capture_text<'p>(&self, path: &'p str, segments: &Segments, capture: &Capture) -> &'p str {
        let count = segments.len();
        let to = capture.to.index(count);
        let text = &path[segments.range(capture.from.index(count), to)];
        if self.has_verb && to == count { text.rsplit_once(':').map_or(text, |(head, _)| head) } else { text }
    }

    /// Returns whether the query gave the field mask.
    fn bind_query(&self, tables: &Tables, query: &str, active: u32, out: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut binder = QueryBinder::new(tables, self.message, &self.query_claims, active, self.ignores_unknown);
        binder.covers_all = self.is_body_all;
        let mut has_mask = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| percent::decode(text, false, true, false);
            let (name, value) = match (decode(name), decode(value)) {
                (Ok(name), Ok(value)) => (name, value),
                (Err(error), _) | (_, Err(error)) => {
                    let text = format!("query parameter `{name}`: {}", error.text());
                    return Err(Fault::client(Code::InvalidArgument, text).reason(Reason::MalformedParameter));
                }
            };
            has_mask |= self.mask.as_ref().is_some_and(|mask| mask.name(tables) == name);
            binder.bind(&name, &value, out).map_err(|error| {
                let reason = if error.is_conflict { Reason::ConflictingFields } else { Reason::MalformedParameter };
                let field = error.parameter.clone();
                let violation = Violation { field, description: error.text.clone(), offset: None };
                Fault::client(Code::InvalidArgument, error.to_string()).reason(reason).violation(violation)
            })?;
        }
        Ok(has_mask)
    }
}
