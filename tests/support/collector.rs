//! An OpenTelemetry collector on a free port: keeps the spans that it is sent, read by the standard's own .proto.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub kind: String,
    /// 32 hex digits.
    pub trace: String,
    /// 16 hex digits.
    pub span: String,
    /// 16 hex digits, or nothing where it begins the trace.
    pub parent: String,
    pub state: String,
    /// Nanoseconds.
    pub took: u64,
    pub attributes: BTreeMap<String, String>,
    /// What went wrong; nothing where it went well.
    pub error: Option<String>,
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    spans: Vec<Span>,
    /// Attributes of the resources.
    resources: Vec<BTreeMap<String, String>>,
    headers: Vec<HeaderMap>,
    statuses: Vec<u16>,
}

impl Collector {
    /// Starts one that answers with these statuses in turn, and then with 200; gives its address, too.
    pub async fn start(statuses: &[u16]) -> (Collector, String) {
        let collector = Collector::default();
        collector.0.lock().unwrap().statuses = statuses.to_vec();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/opentelemetry");
        let set = protox::compile(["opentelemetry/proto/collector/trace/v1/trace_service.proto"], [root]).unwrap();
        let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
        let request = "opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest";
        let request = pool.get_message_by_name(request).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taking = collector.clone();
        let handler = move |headers: HeaderMap, body: Bytes| async move {
            let message = DynamicMessage::decode(request, body).unwrap();
            assert!(message.unknown_fields().next().is_none(), "fields that the standard has not");
            taking.take(headers, &serde_json::to_value(&message).unwrap())
        };
        let router = Router::new().route("/v1/traces", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("http://{address}"))
    }

    fn take(&self, headers: HeaderMap, message: &Value) -> StatusCode {
        let mut state = self.0.lock().unwrap();
        let status = if state.statuses.is_empty() { 200 } else { state.statuses.remove(0) };
        state.headers.push(headers);
        if status == 200 {
            for group in list(&message["resourceSpans"]) {
                let resource = attributes(&group["resource"]);
                let service = resource["service.name"].clone();
                state.resources.push(resource);
                for scope in list(&group["scopeSpans"]) {
                    state.spans.extend(list(&scope["spans"]).iter().map(|span| span_of(&service, span)));
                }
            }
        }
        StatusCode::from_u16(status).unwrap()
    }

    /// The spans that have come.
    pub fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().spans.clone()
    }

    /// Attributes of the processes, as often as they came.
    pub fn resources(&self) -> Vec<BTreeMap<String, String>> {
        self.0.lock().unwrap().resources.clone()
    }

    /// The headers of each request.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.0.lock().unwrap().headers.clone()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    let text = |row: &Value| match &row["value"] {
        Value::Object(value) => value.values().next().map(|value| value.as_str().unwrap().to_owned()),
        _ => None,
    };
    let rows = list(&value["attributes"]).iter();
    rows.map(|row| (row["key"].as_str().unwrap().to_owned(), text(row).unwrap())).collect()
}

fn span_of(service: &str, span: &Value) -> Span {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let hex = |name: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text(name)).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let at = |name: &str| text(name).parse::<u64>().unwrap();
    let status = &span["status"];
    let is_error = status["code"] == "STATUS_CODE_ERROR";
    Span {
        service: service.to_owned(),
        name: text("name"),
        kind: text("kind").trim_start_matches("SPAN_KIND_").to_owned(),
        trace: hex("traceId"),
        span: hex("spanId"),
        parent: hex("parentSpanId"),
        state: text("traceState"),
        took: at("endTimeUnixNano") - at("startTimeUnixNano"),
        attributes: attributes(span),
        error: is_error.then(|| status["message"].as_str().unwrap_or_default().to_owned()),
    }
}
