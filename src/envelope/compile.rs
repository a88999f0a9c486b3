//! A style compiled for one method: names become field numbers, once.

use std::fmt;
use std::sync::Arc;

use super::style::{ChunkStyle, ErrorForm, InBandError, Source, Style};
use crate::transcode::table::{Cardinality, Field, Kind, Shape};
use crate::transcode::{EnumId, FieldPath, MessageId, Tables};

/// Why a style does not fit a method's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StyleError(pub String);

impl fmt::Display for StyleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A style for one method.
#[derive(Debug)]
pub struct Envelope {
    /// As declared.
    pub style: Arc<Style>,
    /// Context of the request, where its message has the field.
    pub context: Option<ContextPlan>,
    /// Number of the context field in the reply.
    pub reply_context: Option<u32>,
    /// Error of the reply.
    pub reply_error: ErrorPlan,
    /// Place and error of a chunk.
    pub chunk: ChunkPlan,
    /// Field numbers of the boolean by which a request asks for a stream, and whether it is a `BoolValue`.
    pub stream_when: Option<(Vec<u32>, bool)>,
}

/// The context field of a request.
#[derive(Debug)]
pub struct ContextPlan {
    /// Path of the field, for claims.
    pub path: FieldPath,
    /// Its number.
    pub number: u32,
    /// Its message.
    pub message: MessageId,
    /// Its fields in order of numbers.
    pub fields: Vec<ContextField>,
    /// Its labels.
    pub labels: Option<LabelsPlan>,
    /// Number of the field that a new id fills first: what a reply is recognised by.
    pub request_id: Option<u32>,
}

/// One field of the context.
#[derive(Debug)]
pub struct ContextField {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// A `google.protobuf.Timestamp`; text otherwise.
    pub is_time: bool,
    /// Where its value comes from.
    pub sources: Vec<Source>,
}

/// The labels of the context.
#[derive(Debug)]
pub struct LabelsPlan {
    /// Number of the map field.
    pub number: u32,
    /// Prefix of headers in lower case.
    pub header_prefix: Option<String>,
    /// Most labels from a client.
    pub max: usize,
    /// Names that a client cannot set.
    pub reserved: Vec<String>,
    /// Labels that the gateway sets.
    pub set: Vec<(String, Source)>,
}

/// How a reply says that it failed.
#[derive(Debug)]
pub enum ErrorPlan {
    /// By a field.
    InBand {
        /// Number of the field.
        field: u32,
        /// Number of its code, and the enum.
        code: (u32, EnumId),
        /// Number of its text.
        message: u32,
        /// Number of its details.
        details: Option<u32>,
        /// Other scalar fields become details.
        copies_rest: bool,
    },
    /// By headers.
    Headers,
    /// By headers and a `google.rpc.Status`.
    Status,
}

/// How a chunk says its place.
#[derive(Debug)]
pub struct ChunkPlan {
    /// Number of the index field.
    pub index: Option<u32>,
    /// Number of the field of the last chunk.
    pub last: Option<u32>,
    /// Number of the resume point.
    pub id: Option<u32>,
    /// Number of the context field.
    pub context: Option<u32>,
    /// Its error.
    pub error: ErrorPlan,
}

impl Envelope {
    /// The envelope of what is neither asked nor answered.
    pub(crate) fn bare() -> Envelope {
        let style =
            Style { name: "bare".to_owned(), context: None, error: ErrorForm::Headers, chunk: ChunkStyle::default() };
        let error = || ErrorPlan::Headers;
        Envelope {
            style: Arc::new(style),
            context: None,
            reply_context: None,
            reply_error: error(),
            chunk: ChunkPlan { index: None, last: None, id: None, context: None, error: error() },
            stream_when: None,
        }
    }

    /// Compiles a style. A message without the context, error or chunk fields is fine: it simply has none.
    pub fn compile(
        tables: &Tables,
        style: &Arc<Style>,
        request: MessageId,
        reply: MessageId,
        chunk: Option<MessageId>,
    ) -> Result<Envelope, StyleError> {
        let context = match &style.context {
            Some(_) => context_plan(tables, style, request)?,
            None => None,
        };
        let number_of = |message: MessageId, name: Option<&String>| {
            name.and_then(|name| field_named(tables, message, name)).map(|field| field.spec.number)
        };
        let context_field = style.context.as_ref().map(|context| &context.field);
        let item = chunk.unwrap_or(reply);
        Ok(Envelope {
            reply_context: number_of(reply, context_field),
            reply_error: error_plan(tables, style, reply)?,
            chunk: ChunkPlan {
                index: number_of(item, style.chunk.index.as_ref()),
                last: number_of(item, style.chunk.last.as_ref()),
                id: number_of(item, style.chunk.id.as_ref()),
                context: number_of(item, context_field),
                error: error_plan(tables, style, item)?,
            },
            stream_when: stream_when(tables, style, request),
            context,
            style: style.clone(),
        })
    }

    /// The HTTP status that the style gives a code's name.
    pub fn status_of(&self, code: &str) -> Option<u16> {
        match &self.style.error {
            ErrorForm::InBand(error) => error.codes.iter().find(|row| row.0 == code).map(|row| row.1),
            _ => None,
        }
    }
}

fn field_named<'t>(tables: &'t Tables, message: MessageId, name: &str) -> Option<&'t Field> {
    let table = tables.message(message);
    table.field_by_name(name.as_bytes()).map(|id| table.field(id))
}

fn context_plan(tables: &Tables, style: &Style, request: MessageId) -> Result<Option<ContextPlan>, StyleError> {
    let Some(context) = &style.context else { return Ok(None) };
    let Some(field) = field_named(tables, request, &context.field) else { return Ok(None) };
    let place = format!("style `{}`: `{}`", style.name, context.field);
    let message = match field.message() {
        Some(message) if field.spec.cardinality == Cardinality::Single => message,
        _ => return Err(StyleError(format!("{place} of `{}` is no single message", tables.message(request).name))),
    };
    let mut fields = Vec::new();
    for (name, sources) in &context.fields {
        let Some(inner) = field_named(tables, message, name) else {
            return Err(StyleError(format!("{place}: `{}` has no field `{name}`", tables.message(message).name)));
        };
        let is_time = inner.message().is_some_and(|id| tables.message(id).shape == Shape::Timestamp);
        if !is_time && inner.spec.kind != Kind::String {
            return Err(StyleError(format!("{place}: `{name}` is neither text nor a `google.protobuf.Timestamp`")));
        }
        fields.push(ContextField { name: name.clone(), number: inner.spec.number, is_time, sources: sources.clone() });
    }
    fields.sort_by_key(|field| field.number);
    let labels = match &context.labels {
        Some(labels) => {
            let map = field_named(tables, message, &labels.field);
            let Some(map) = map.filter(|map| map.spec.cardinality == Cardinality::Map) else {
                return Err(StyleError(format!("{place}: `{}` is no map of the context", labels.field)));
            };
            Some(LabelsPlan {
                number: map.spec.number,
                header_prefix: labels.header_prefix.as_ref().map(|prefix| prefix.to_ascii_lowercase()),
                max: labels.max,
                reserved: labels.reserved.clone(),
                set: labels.set.clone(),
            })
        }
        None => None,
    };
    let request_id = fields.iter().find(|field| field.sources.first() == Some(&Source::Generated));
    Ok(Some(ContextPlan {
        path: FieldPath::resolve(tables, request, &context.field).map_err(|error| StyleError(error.to_string()))?,
        number: field.spec.number,
        message,
        request_id: request_id.map(|field| field.number),
        fields,
        labels,
    }))
}

fn error_plan(tables: &Tables, style: &Style, message: MessageId) -> Result<ErrorPlan, StyleError> {
    let error = match &style.error {
        ErrorForm::Headers => return Ok(ErrorPlan::Headers),
        ErrorForm::Status => return Ok(ErrorPlan::Status),
        ErrorForm::InBand(error) => error,
    };
    let Some(field) = field_named(tables, message, &error.field) else { return Ok(ErrorPlan::Headers) };
    let place = format!("style `{}`: `{}` of `{}`", style.name, error.field, tables.message(message).name);
    let Some(inner) = field.message() else { return Err(StyleError(format!("{place} is no message"))) };
    in_band(tables, error, field.spec.number, inner).map_err(|what| StyleError(format!("{place}: {what}")))
}

fn in_band(tables: &Tables, error: &InBandError, field: u32, inner: MessageId) -> Result<ErrorPlan, String> {
    let named = |name: &str| field_named(tables, inner, name).ok_or_else(|| format!("it has no field `{name}`"));
    let code = named(&error.code)?;
    let Kind::Enum(codes) = code.spec.kind else { return Err(format!("`{}` is no enum", error.code)) };
    let message = named(&error.message)?;
    if message.spec.kind != Kind::String {
        return Err(format!("`{}` is no text", error.message));
    }
    let details = match &error.details {
        Some(name) => Some(named(name)?.spec.number),
        None => None,
    };
    Ok(ErrorPlan::InBand {
        field,
        code: (code.spec.number, codes),
        message: message.spec.number,
        details,
        copies_rest: error.copies_rest,
    })
}

fn stream_when(tables: &Tables, style: &Style, request: MessageId) -> Option<(Vec<u32>, bool)> {
    let path = FieldPath::resolve(tables, request, style.chunk.stream_when.as_ref()?).ok()?;
    let leaf = path.field(tables);
    let is_wrapper = leaf.message().is_some_and(|id| tables.message(id).shape == Shape::Wrapper);
    if leaf.spec.kind != Kind::Bool && !is_wrapper {
        return None;
    }
    let numbers = path.steps().iter().map(|(message, field)| tables.message(*message).field(*field).spec.number);
    Some((numbers.collect(), is_wrapper))
}
