//! One HTTP rule compiled against its request message: `body ++ path ++ query ++ presets ++ headers`, each part an
//! encoding of the same message, with claims that keep them apart.

use http::{HeaderMap, HeaderName};

use super::percent;
use super::template::{PathTemplate, Segment};
use super::tree::Segments;
use crate::fault::{Code, Fault, Reason, Violation};
use crate::transcode::table::{Cardinality, Shape};
use crate::transcode::{
    self, BodyPlan, Claim, Claims, ErrorKind, FieldPath, JsonIn, Lifted, MaskPaths, MessageId, QueryBinder, Root,
    Tables, TranscodeError, Unknown,
};

/// Full name of the message that carries a raw body.
const HTTP_BODY: &str = "google.api.HttpBody";
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
    /// The custom verb behind the last segment.
    verb: Option<String>,
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
        let mut compiler = Compiler { tables, message, claims: Claims::new(), context };
        if let Some(context) = context {
            compiler.claims.claim(tables, context, Claim::Always);
        }
        let captures = compiler.captures(&template)?;
        let presets = compiler.presets(&rule.presets)?;
        let headers = compiler.headers(&rule.headers)?;
        let mask = if rule.verb == "PATCH" { compiler.mask(&rule.body) } else { None };
        let (body, query_claims) = compiler.body(&rule.body, lift, options)?;
        let binding = Binding {
            message,
            captures,
            verb: template.verb.clone(),
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
        let mut mask = self.mask.as_ref().map(|_| MaskPaths::default());
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
                bind_header(tables, parts.headers, name, path, out)?;
            }
        }
        if let (Some(path), Some(mask)) = (&self.mask, mask.filter(|_| !has_mask)) {
            let text = mask.paths.join(",");
            if transcode::text_to_wire(tables, path, &text, out).is_err() {
                return Err(Fault::client(Code::InvalidArgument, "the body's fields make no field mask"));
            }
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
                raw_body(tables, path.as_ref(), content, parts.body, out);
                Ok(None)
            }
            (BodyRule::Json(plan), Content::Protobuf) => {
                binary_body(tables, plan, parts.body, out)?;
                Ok(None)
            }
            (BodyRule::Json(plan), Content::Json) => {
                if parts.body.is_empty() {
                    return Ok(None);
                }
                transcode::json_to_wire(tables, plan, active, parts.body, out, mask).map_err(|error| body_fault(&error))
            }
            (BodyRule::Json(_), Content::Other(name)) => Err(Fault::client(
                Code::InvalidArgument,
                format!("content type `{name}`: send `application/json` or `application/x-protobuf`"),
            )
            .reason(Reason::UnsupportedMediaType)),
        }
    }

    fn bind_capture(
        &self,
        tables: &Tables,
        parts: &Parts<'_>,
        capture: &Capture,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let count = parts.segments.len();
        let to = capture.to.index(count);
        let mut text = &parts.path[parts.segments.range(capture.from.index(count), to)];
        if let Some(verb) = self.verb.as_deref().filter(|_| to == count) {
            text = text.strip_suffix(verb).and_then(|text| text.strip_suffix(':')).unwrap_or(text);
        }
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

/// A header's text; the quotes of an entity tag are taken off (RFC 9110 §8.8.3).
fn bind_header(
    tables: &Tables,
    headers: &HeaderMap,
    name: &HeaderName,
    path: &FieldPath,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let fault = |what: &str| {
        let violation = Violation { field: path.name(tables), description: what.to_owned(), offset: None };
        Fault::client(Code::InvalidArgument, format!("header `{name}`: {what}"))
            .reason(Reason::MalformedParameter)
            .violation(violation)
    };
    let text = headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(|| fault("expected plain text"))?;
    let text = text.trim().strip_prefix("W/").unwrap_or(text.trim());
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    transcode::text_to_wire(tables, path, text, out).map_err(|what| fault(&what))
}

/// A JSON body's error as the caller sees it.
fn body_fault(error: &TranscodeError) -> Fault {
    let reason = if error.kind() == ErrorKind::Conflict { Reason::ConflictingFields } else { Reason::MalformedBody };
    let violation =
        Violation { field: error.path(), description: error.text().to_owned(), offset: Some(error.offset()) };
    Fault::client(Code::InvalidArgument, error.to_string()).reason(reason).violation(violation)
}

/// A protobuf body as it is, without the fields that something else sets.
fn binary_body(tables: &Tables, plan: &BodyPlan, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let fault = |error: TranscodeError| {
        Fault::client(Code::InvalidArgument, format!("the body is no valid protobuf: {error}"))
            .reason(Reason::MalformedBody)
    };
    let (message, field) = match plan.root {
        Root::Message(message) => (message, None),
        Root::Field(message, field) => match tables.message(message).field(field).message() {
            Some(inner) => (inner, Some(tables.message(message).field(field))),
            None => {
                let text = "this body is a single value, which has no protobuf form of its own: send JSON";
                return Err(Fault::client(Code::InvalidArgument, text).reason(Reason::UnsupportedMediaType));
            }
        },
    };
    let mut kept = Vec::with_capacity(body.len());
    let table = tables.message(message);
    let claimed: Vec<u32> = match plan.root {
        Root::Message(_) => plan.claims.whole_fields().map(|id| table.field(id).spec.number).collect(),
        Root::Field(..) => Vec::new(),
    };
    let mut reader = transcode::wire::WireReader::new(body);
    loop {
        let start = reader.at();
        let Some(record) = reader.record().map_err(fault)? else { break };
        if !claimed.contains(&record.number) {
            kept.extend_from_slice(&body[start..reader.at()]);
        }
    }
    transcode::check(tables, message, &kept).map_err(fault)?;
    match field {
        Some(field) => {
            out.extend_from_slice(field.tag());
            transcode::wire::put_varint(kept.len() as u64, out);
            out.extend_from_slice(&kept);
        }
        None => out.extend_from_slice(&kept),
    }
    Ok(())
}

/// The body as `google.api.HttpBody`: content type (number 1) and data (number 2).
fn raw_body(tables: &Tables, path: Option<&FieldPath>, content: Content<'_>, body: &[u8], out: &mut Vec<u8>) {
    let name = match content {
        Content::Json => "application/json",
        Content::Protobuf => "application/x-protobuf",
        Content::Other(name) => name,
    };
    let mut message = Vec::with_capacity(body.len() + name.len() + 12);
    transcode::wire::put_bytes(1, name.as_bytes(), &mut message);
    transcode::wire::put_bytes(2, body, &mut message);
    match path {
        Some(path) => transcode::wire::put_bytes(path.field(tables).spec.number, &message, out),
        None => out.extend_from_slice(&message),
    }
}

/// Collects the claims of a rule while its parts are compiled.
struct Compiler<'a> {
    tables: &'a Tables,
    message: MessageId,
    claims: Claims,
    context: Option<&'a FieldPath>,
}

impl Compiler<'_> {
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

    fn captures(&mut self, template: &PathTemplate) -> Result<Vec<Capture>, BindingError> {
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

    fn presets(&mut self, presets: &[(String, String)]) -> Result<Vec<u8>, BindingError> {
        let mut bytes = Vec::new();
        for (name, text) in presets {
            let path = self.take(name, "preset", Claim::Always)?;
            transcode::text_to_wire(self.tables, &path, text, &mut bytes)
                .map_err(|what| BindingError::new(format!("preset `{name}`: {what}")))?;
        }
        Ok(bytes)
    }

    fn headers(&mut self, headers: &[(String, String)]) -> Result<Vec<(HeaderName, FieldPath)>, BindingError> {
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
    fn mask(&self, body: &Body) -> Option<FieldPath> {
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
    fn body(self, body: &Body, lift: Option<&str>, options: JsonIn) -> Result<(BodyRule, Claims), BindingError> {
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
