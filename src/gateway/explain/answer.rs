//! Which field of a request message comes from where, and what a refusal looks like.

use http::StatusCode;
use serde::Serialize;

use super::Inbound;
use super::respond;
use crate::envelope::{ContextPlan, Source};
use crate::fault::Fault;
use crate::route::Segments;
use crate::snapshot::Route;
use crate::transcode::{self, Scratch};

/// A field and what sets it.
#[derive(Debug, Serialize)]
pub struct BoundField {
    /// Path of the field; `*` for all that nothing else sets.
    pub field: String,
    /// `path`, `query`, `preset`, `header`, `body` or `context`.
    pub from: &'static str,
    /// The parameter, the header, or the sources in the order in which they are tried.
    pub source: String,
    /// What this request gives; `None` where it gives nothing.
    pub value: Option<String>,
}

/// A refusal of the gateway itself.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Code as the body names it.
    pub code: String,
    /// Reason token; of the code, where the code says it all.
    pub reason: String,
    /// Text for the caller.
    pub message: String,
    /// Verbs that the path has, with 405.
    pub allow: Option<String>,
}

impl Refused {
    pub(super) fn new(fault: &Fault, status: StatusCode) -> Refused {
        Refused {
            status: status.as_u16(),
            code: fault.code_name().to_owned(),
            reason: respond::token_of(fault.why(), fault.code_name()),
            message: fault.message().to_owned(),
            allow: fault.details().iter().find(|row| row.0 == "allow").map(|row| row.1.clone()),
        }
    }
}

/// Row by row, in the order in which the parts are joined.
pub(super) fn bindings(route: &Route, segments: &Segments, inbound: &Inbound, body: &[u8]) -> Vec<BoundField> {
    let tables = &route.method.tables;
    let fields = route.binding.fields(tables);
    let mut rows = Vec::new();
    let captured = route.binding.captured(inbound.head.uri.path(), segments);
    for (field, value) in fields.path.iter().zip(captured) {
        let source = format!("{{{field}}}");
        rows.push(BoundField { field: field.clone(), from: "path", source, value: Some(value.into_owned()) });
    }
    for (header, field) in fields.headers {
        let value =
            inbound.head.headers.get(&header).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        rows.push(BoundField { field, from: "header", source: header, value });
    }
    if let Some(value) = preset_text(route, &fields.presets) {
        rows.push(BoundField {
            field: "*".to_owned(),
            from: "preset",
            source: "constants".to_owned(),
            value: Some(value),
        });
    }
    if !fields.body.is_empty() {
        let source = if fields.is_raw_body { "the body as it is" } else { "the body" }.to_owned();
        let value = (!body.is_empty()).then(|| format!("{} bytes", body.len()));
        rows.push(BoundField { field: fields.body, from: "body", source, value });
    }
    for pair in inbound.head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (field, source) = (name.to_owned(), format!("?{name}="));
        rows.push(BoundField { field, from: "query", source, value: Some(value.to_owned()) });
    }
    if fields.takes_query && inbound.head.uri.query().is_none() {
        let source = "a parameter a field".to_owned();
        rows.push(BoundField { field: "*".to_owned(), from: "query", source, value: None });
    }
    if let Some(plan) = &route.method.envelope.context {
        context(plan, &route.method.envelope.style.context, &mut rows);
    }
    rows
}

/// The constants as JSON.
fn preset_text(route: &Route, presets: &[u8]) -> Option<String> {
    if presets.is_empty() {
        return None;
    }
    let (method, mut json) = (&route.method, Vec::new());
    let options = &route.policies.json_out;
    transcode::wire_to_json(&method.tables, method.request, options, presets, &mut Scratch::default(), &mut json)
        .ok()?;
    String::from_utf8(json).ok()
}

fn context(plan: &ContextPlan, style: &Option<crate::envelope::ContextStyle>, rows: &mut Vec<BoundField>) {
    let around = style.as_ref().map_or("", |style| style.field.as_str());
    for field in &plan.fields {
        let source = if field.is_time { "now".to_owned() } else { sources(&field.sources) };
        rows.push(BoundField { field: format!("{around}.{}", field.name), from: "context", source, value: None });
    }
    let labels = style.as_ref().and_then(|style| style.labels.as_ref());
    if let (Some(plan), Some(style)) = (&plan.labels, labels) {
        let name = format!("{around}.{}", style.field);
        if let Some(prefix) = &plan.header_prefix {
            let source = format!("headers `{prefix}…`, at most {}", plan.max);
            rows.push(BoundField { field: format!("{name}[…]"), from: "context", source, value: None });
        }
        for (key, source) in &plan.set {
            let source = sources(std::slice::from_ref(source));
            rows.push(BoundField { field: format!("{name}[{key}]"), from: "context", source, value: None });
        }
    }
}

/// `traceparent, else header x-trace-id, else a new id`.
fn sources(sources: &[Source]) -> String {
    let words: Vec<String> = sources
        .iter()
        .map(|source| match source {
            Source::Generated => "a new id".to_owned(),
            Source::Traceparent => "the trace id of traceparent".to_owned(),
            Source::Header { name, is_trusted: true, .. } => format!("header {name} of a trusted peer"),
            Source::Header { name, .. } => format!("header {name}"),
            Source::Value(text) => format!("`{text}`"),
            Source::CallerUser => "the credential's user".to_owned(),
            Source::CallerTenant => "the credential's tenant".to_owned(),
            Source::CallerRole => "the credential's role".to_owned(),
            Source::Now => "now".to_owned(),
            Source::BodyMember(name) => format!("member `{name}` of the body"),
        })
        .collect();
    words.join(", else ")
}
