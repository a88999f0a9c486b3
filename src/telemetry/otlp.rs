//! Spans as OpenTelemetry's protocol carries them (opentelemetry-proto 1.x, `trace_service.proto`): bytes only, sending
//! them is somebody else's work.

use prost::Message;

use super::trace::{SpanRecord, SpanValue};

/// What all spans of a process share, by the names of the semantic conventions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `service.name` of spans that no service of the process has as its own.
    pub service: String,
    /// That name counts for the spans of services, too: somebody has set it by hand.
    pub is_service_fixed: bool,
    /// Everything else.
    pub attributes: Vec<(String, String)>,
}

/// An `ExportTraceServiceRequest`, its spans together by service.
pub fn encode(spans: Vec<SpanRecord>, resource: &Resource) -> Vec<u8> {
    let mut resource_spans: Vec<(String, Vec<Span>)> = Vec::new();
    for record in spans {
        let own = record.service.as_deref().filter(|_| !resource.is_service_fixed);
        let service = own.unwrap_or(&resource.service).to_owned();
        let span = Span::from(record);
        match resource_spans.iter_mut().find(|group| group.0 == service) {
            Some(group) => group.1.push(span),
            None => resource_spans.push((service, vec![span])),
        }
    }
    let resource_spans = resource_spans.into_iter().map(|(service, spans)| ResourceSpans {
        resource: Some(resource_of(service, resource)),
        scope_spans: vec![ScopeSpans {
            scope: Some(Scope { name: "tidegate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }),
            spans,
        }],
    });
    ExportRequest { resource_spans: resource_spans.collect() }.encode_to_vec()
}

/// How many spans a collector refused, and why, as its answer says; nothing where it took all.
pub fn refused(answer: &[u8]) -> Option<(i64, String)> {
    let partial = ExportAnswer::decode(answer).ok()?.partial_success?;
    (partial.rejected_spans > 0).then_some((partial.rejected_spans, partial.error_message))
}

fn resource_of(service: String, resource: &Resource) -> ResourceMessage {
    let own = [("service.name".to_owned(), service)];
    let all = own.into_iter().chain(resource.attributes.iter().cloned());
    ResourceMessage { attributes: all.map(|(key, text)| KeyValue::new(key, any_value::Value::Text(text))).collect() }
}

impl From<SpanRecord> for Span {
    fn from(record: SpanRecord) -> Span {
        let attributes = record.attributes.into_iter().map(|(name, value)| {
            let value = match value {
                SpanValue::Text(text) => any_value::Value::Text(text),
                SpanValue::Number(number) => any_value::Value::Number(number),
            };
            KeyValue::new(name.to_owned(), value)
        });
        Span {
            trace_id: record.position.trace.to_be_bytes().to_vec(),
            span_id: record.position.span.to_be_bytes().to_vec(),
            trace_state: record.state,
            parent_span_id: record.parent.map(|span| span.to_be_bytes().to_vec()).unwrap_or_default(),
            flags: u32::from(record.position.is_sampled),
            name: record.name,
            kind: record.kind as i32,
            start: record.start,
            end: record.end,
            attributes: attributes.collect(),
            status: record.error.map(|message| Status { message, code: Status::ERROR }),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<ResourceMessage>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMessage {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

impl Status {
    const ERROR: i32 = 2;
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

impl KeyValue {
    fn new(key: String, value: any_value::Value) -> KeyValue {
        KeyValue { key, value: Some(AnyValue { value: Some(value) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "any_value::Value", tags = "1, 3")]
    value: Option<any_value::Value>,
}

mod any_value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int64, tag = "3")]
        Number(i64),
    }
}

#[derive(Clone, PartialEq, Message)]
struct ExportAnswer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}
