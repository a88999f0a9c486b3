//! The answers of one route: what it gives, and every error that it can end in.

use std::collections::BTreeMap;

use super::json::Json;
use super::schemas::{Direction, Schemas, reference};
use crate::envelope::ErrorPlan;
use crate::fault::{Code, Reason};
use crate::gateway::catalogue::{ENTRIES, Entry};
use crate::gateway::respond;
use crate::route::BodyOutline;
use crate::snapshot::{ErrorStyle, Route, Streaming};
use crate::transcode::{MessageId, Tables};

/// Error answers that many routes share, by name.
#[derive(Default)]
pub(super) struct Errors {
    rows: BTreeMap<String, Json>,
}

impl Errors {
    pub(super) fn into_components(self) -> Json {
        Json::Object(self.rows.into_iter().collect())
    }

    /// A reference to an answer; equal ones are one.
    fn reference(&mut self, base: &str, answer: Json) -> Json {
        let names = std::iter::once(base.to_owned()).chain((2..).map(|count| format!("{base}-{count}")));
        for name in names {
            match self.rows.get(&name) {
                Some(known) if *known != answer => continue,
                Some(_) => {}
                None => drop(self.rows.insert(name.clone(), answer)),
            }
            return Json::new().with("$ref", format!("#/components/responses/{name}"));
        }
        Json::new()
    }
}

/// `responses` of an operation.
pub(super) fn of(route: &Route, schemas: &mut Schemas<'_>, errors: &mut Errors) -> Json {
    let mut rows: BTreeMap<String, Json> = BTreeMap::new();
    rows.insert("200".to_owned(), success(route, schemas));
    if route.method.streaming != Streaming::Unary && matches!(&*route.verb, "GET" | "*") {
        let text = "The stream was over at `Last-Event-ID`: do not come back for it.";
        rows.insert("204".to_owned(), Json::new().with("description", text));
    }
    let style = route.policies.error_style;
    for (status, problems) in by_status(route) {
        let base = format!("{}-{status}", style_name(style));
        rows.insert(status.to_string(), errors.reference(&base, error(route, status, &problems)));
    }
    let other = Json::new().with("description", "Any other error.").with("content", content_of(style));
    let base = format!("{}-default", style_name(style));
    rows.insert("default".to_owned(), errors.reference(&base, other));
    Json::Object(rows.into_iter().collect())
}

fn success(route: &Route, schemas: &mut Schemas<'_>) -> Json {
    let method = &route.method;
    let form = &route.policies.json_out;
    let mut content = Json::new();
    if method.streaming != Streaming::Server {
        if route.is_raw {
            content.set("*/*", Json::new());
        } else {
            content.set("application/json", Json::new().with("schema", reply(route, schemas)));
            content.set("application/x-protobuf", Json::new());
        }
    }
    if method.streaming != Streaming::Unary {
        let hidden = error_field(&method.envelope.chunk.error);
        let chunk = schemas.message(method.chunk, form, Direction::Out, hidden);
        events(&chunk, route.policies.error_style, &mut content);
    }
    let text = match method.streaming {
        Streaming::Unary => "The reply.",
        Streaming::Server => "Events, each as soon as it is there.",
        Streaming::OnRequest => "The reply; events where the request asks for a stream.",
    };
    Json::new().with("description", text).with("headers", success_headers(route)).with("content", content)
}

/// The reply, or what of it is the body.
fn reply(route: &Route, schemas: &mut Schemas<'_>) -> Json {
    let method = &route.method;
    let form = &route.policies.json_out;
    match route.response_body {
        Some(field) => {
            let tables: &Tables = &method.tables;
            schemas.value(tables.message(method.reply).field(field), form, Direction::Out)
        }
        None => schemas.message(method.reply, form, Direction::Out, error_field(&method.envelope.reply_error)),
    }
}

/// The messages that are described without their error field.
pub(super) fn without_error(route: &Route) -> impl Iterator<Item = MessageId> {
    let method = &route.method;
    let reply = error_field(&method.envelope.reply_error).map(|_| method.reply);
    reply.into_iter().chain(error_field(&method.envelope.chunk.error).map(|_| method.chunk))
}

/// Number of the error field, which a message that says no error does not have.
fn error_field(plan: &ErrorPlan) -> Option<u32> {
    match plan {
        ErrorPlan::InBand { field, .. } => Some(*field),
        ErrorPlan::Headers | ErrorPlan::Status => None,
    }
}

/// The two forms of a stream. What an event holds stands in `x-itemSchema`: `itemSchema` comes with OpenAPI 3.2.
fn events(chunk: &Json, style: ErrorStyle, content: &mut Json) {
    let object = |name: &str, value: Json| {
        Json::new()
            .with("type", "object")
            .with("properties", Json::new().with(name, value))
            .with("required", vec![name])
    };
    let reason = Json::new().with("type", "string").with("enum", vec!["draining", "reloaded", "revoked"]);
    let end = object("reason", reason);
    let data = |schema: Json| {
        Json::new().with("type", "string").with("contentMediaType", "application/json").with("contentSchema", schema)
    };
    let event = |name: &str, text: &str, payload: Json| {
        let properties = Json::new().with("event", Json::new().with("const", name)).with("data", data(payload));
        Json::new()
            .with("description", text)
            .with("type", "object")
            .with("properties", properties)
            .with("required", vec!["event", "data"])
    };
    let unnamed = Json::new()
        .with("description", "One chunk; `id` is what `Last-Event-ID` sends back.")
        .with("type", "object")
        .with(
            "properties",
            Json::new().with("id", Json::new().with("type", "string")).with("data", data(chunk.clone())),
        )
        .with("required", vec!["data"]);
    let failed = reference(schema_name(style));
    let kinds = vec![
        unnamed,
        event("error", "The stream failed; nothing comes behind it.", failed.clone()),
        event("end", "The gateway ends the stream: come back after the pause that `retry` says.", end.clone()),
    ];
    let text = "Server-Sent Events: `data:` lines of JSON, `id:` their position, comments that fill silence.";
    let schema = Json::new().with("type", "string").with("description", text);
    content.set(
        "text/event-stream",
        Json::new().with("schema", schema).with("x-itemSchema", Json::new().with("oneOf", kinds)),
    );
    let text = "One JSON text a line; empty lines fill silence.";
    let schema = Json::new().with("type", "string").with("description", text);
    let lines = Json::new().with("anyOf", vec![chunk.clone(), failed, object("end", end)]);
    content.set("application/x-ndjson", Json::new().with("schema", schema).with("x-itemSchema", lines));
}

fn success_headers(route: &Route) -> Json {
    let component = |name: &str| Json::new().with("$ref", format!("#/components/headers/{name}"));
    let mut headers = Json::new().with("X-Request-Id", component("RequestId"));
    if route.policies.bucket.is_some() {
        headers.set("RateLimit", component("RateLimit"));
        headers.set("RateLimit-Policy", component("RateLimitPolicy"));
    }
    let table = route.method.tables.message(route.method.reply);
    for (field, name) in &route.headers_out {
        let is_tag = *name == http::header::ETAG;
        let field = &table.field(*field).spec.name;
        let text = if is_tag { format!("The reply's `{field}`, quoted.") } else { format!("The reply's `{field}`.") };
        let shown = if is_tag { "ETag" } else { name.as_str() };
        headers.set(shown, Json::new().with("description", text).with("schema", Json::new().with("type", "string")));
    }
    headers
}

/// The headers of answers, as components.
pub(super) fn headers() -> Json {
    let header = |text: &str, schema: Json| Json::new().with("description", text).with("schema", schema);
    let text = || Json::new().with("type", "string");
    let seconds = Json::new().with("type", "integer").with("minimum", 1);
    Json::new()
        .with("RequestId", header("The client's id of the request, else the gateway's.", text()))
        .with("RetryAfter", header("Seconds to wait before the next try.", seconds))
        .with(
            "RateLimit",
            header("What is left of the token bucket, and in how many seconds the next token comes.", text()),
        )
        .with("RateLimitPolicy", header("What the token bucket holds.", text()))
        .with("Challenge", header("What kind of credential is wanted (RFC 6750).", text()))
}

/// The errors that a route can end in, by status.
fn by_status(route: &Route) -> BTreeMap<u16, Vec<&'static Entry>> {
    let mut rows: BTreeMap<u16, Vec<&Entry>> = BTreeMap::new();
    for problem in ENTRIES.iter().filter(|problem| is_possible(problem, route)) {
        let by_style = route.method.envelope.status_of(problem.code.name()).filter(|_| problem.reason == Reason::None);
        rows.entry(by_style.unwrap_or_else(|| problem.status())).or_default().push(problem);
    }
    rows
}

/// True where a request that has reached the route can end in it.
fn is_possible(problem: &Entry, route: &Route) -> bool {
    let is_stream = route.method.streaming != Streaming::Unary;
    let body = route.binding.body_outline();
    match problem.reason {
        Reason::None => worker_codes(route).is_none_or(|names| names.contains(&problem.code)),
        Reason::MalformedParameter
        | Reason::ConflictingFields
        | Reason::NoResponders
        | Reason::BusDown
        | Reason::UpstreamTimeout
        | Reason::MalformedReply
        | Reason::Panicked
        | Reason::BodyTooLarge => true,
        Reason::BadRequest | Reason::RequestTimeout => !matches!(body, BodyOutline::None),
        Reason::UnsupportedMediaType | Reason::MalformedBody => matches!(body, BodyOutline::Message(_)),
        Reason::NotAcceptable => is_stream || !route.is_raw,
        Reason::CredentialMissing => route.policies.auth.as_ref().is_some_and(|auth| auth.is_required),
        Reason::CredentialInvalid => route.policies.auth.is_some(),
        Reason::RateLimited => route.policies.bucket.is_some(),
        Reason::TooManyCalls => route.policies.call_slots.is_some(),
        Reason::TooManyStreams | Reason::BrokenStream => is_stream,
        // Before a route is found, behind an answer's head, or inside of workers.
        Reason::RouteNotFound
        | Reason::MethodNotAllowed
        | Reason::UriTooLong
        | Reason::HeadersTooLarge
        | Reason::ExpectationFailed
        | Reason::NotImplemented
        | Reason::BreakerOpen
        | Reason::StreamIdle
        | Reason::SlowConsumer
        | Reason::Draining => false,
    }
}

/// The codes that a worker's error can have, where its house style has an enum of them.
fn worker_codes(route: &Route) -> Option<Vec<Code>> {
    let ErrorPlan::InBand { code, .. } = &route.method.envelope.reply_error else { return None };
    let table = route.method.tables.enumeration(code.1);
    Some(table.values().filter_map(|(name, _)| Code::from_name(name)).collect())
}

fn error(route: &Route, status: u16, problems: &[&Entry]) -> Json {
    let rows: Vec<String> =
        problems.iter().map(|problem| format!("- `{}`: {}", token(problem), problem.meaning)).collect();
    let component = |name: &str| Json::new().with("$ref", format!("#/components/headers/{name}"));
    let mut headers = Json::new().with("X-Request-Id", component("RequestId"));
    match status {
        401 => headers.set("WWW-Authenticate", component("Challenge")),
        429 => {
            headers.set("Retry-After", component("RetryAfter"));
            if route.policies.bucket.is_some() {
                headers.set("RateLimit", component("RateLimit"));
                headers.set("RateLimit-Policy", component("RateLimitPolicy"));
            }
        }
        503 => headers.set("Retry-After", component("RetryAfter")),
        _ => {}
    }
    Json::new()
        .with("description", rows.join("\n"))
        .with("headers", headers)
        .with("content", content_of(route.policies.error_style))
}

/// As the body says it: the reason, or the code.
fn token(problem: &Entry) -> String {
    if problem.reason == Reason::None { problem.code.name().to_owned() } else { problem.token() }
}

fn content_of(style: ErrorStyle) -> Json {
    Json::new().with(respond::error_type(style), Json::new().with("schema", reference(schema_name(style))))
}

fn style_name(style: ErrorStyle) -> &'static str {
    match style {
        ErrorStyle::Problem => "problem",
        ErrorStyle::Google => "google",
        ErrorStyle::Legacy => "legacy",
    }
}

/// The schema of a style's body.
fn schema_name(style: ErrorStyle) -> &'static str {
    match style {
        ErrorStyle::Problem => "tidegate.Problem",
        ErrorStyle::Google => "tidegate.GoogleError",
        ErrorStyle::Legacy => "tidegate.LegacyError",
    }
}

/// The schemas of error bodies, for the styles that are used.
pub(super) fn error_schemas(styles: &[ErrorStyle]) -> Vec<(String, Json)> {
    let mut rows: Vec<(String, Json)> = Vec::new();
    for style in styles {
        let schema = match style {
            ErrorStyle::Problem => problem_schema(),
            ErrorStyle::Google => google_schema(),
            ErrorStyle::Legacy => legacy_schema(),
        };
        if !rows.iter().any(|row| row.0 == schema_name(*style)) {
            rows.push((schema_name(*style).to_owned(), schema));
        }
    }
    rows
}

fn object(text: &str, properties: Json, required: &[&str]) -> Json {
    let required = Some(required.to_vec()).filter(|required| !required.is_empty());
    Json::new()
        .with_text("description", text)
        .with("type", "object")
        .with("properties", properties)
        .with_some("required", required)
}

fn text(about: &str) -> Json {
    Json::new().with("type", "string").with_text("description", about)
}

fn details() -> Json {
    Json::new().with("type", "object").with("additionalProperties", text(""))
}

fn list(items: Json) -> Json {
    Json::new().with("type", "array").with("items", items)
}

fn problem_schema() -> Json {
    let offset = Json::new().with("type", "integer").with("description", "Byte of the body.");
    let wrong = Json::new()
        .with("field", text("Dotted path of the field."))
        .with("description", text("What is wrong with it."))
        .with("offset", offset);
    let properties = Json::new()
        .with("type", text("`urn:tidegate:problem:` and the reason.").with("format", "uri"))
        .with("title", text("The status in words."))
        .with("status", Json::new().with("type", "integer"))
        .with("detail", text("What went wrong, for people."))
        .with("code", text("As `google.rpc.Code` names it, or the house style."))
        .with("reason", text("What exactly happened, for programs.").with("enum", reasons()))
        .with("request_id", text("For reports."))
        .with("errors", list(object("", wrong, &["field", "description"])))
        .with("details", details());
    object("An error (RFC 9457).", properties, &["type", "title", "status", "detail", "code", "request_id"])
        .with("title", "Problem")
}

fn google_schema() -> Json {
    let detail = object("", Json::new().with("@type", text("")), &["@type"]).with("additionalProperties", true);
    let inner = Json::new()
        .with("code", Json::new().with("type", "integer").with("description", "The HTTP status."))
        .with("message", text("What went wrong, for people."))
        .with("status", text("As `google.rpc.Code` names it."))
        .with("details", list(detail).with("description", "Of google/rpc/error_details.proto."));
    let inner = object("", inner, &["code", "message", "status", "details"]);
    object("An error (AIP-193).", Json::new().with("error", inner), &["error"]).with("title", "GoogleError")
}

fn legacy_schema() -> Json {
    let inner = Json::new()
        .with("code", text("As the house style names it."))
        .with("message", text("What went wrong, for people."))
        .with(
            "details",
            details().with("description", "`reason` says what exactly happened, `field` which field it is."),
        );
    let inner = object("", inner, &["code", "message"]);
    let properties = Json::new().with("error", inner).with("request_id", text("For reports."));
    object("An error.", properties, &["error", "request_id"]).with("title", "LegacyError")
}

fn reasons() -> Vec<String> {
    ENTRIES.iter().filter(|problem| problem.reason != Reason::None).map(Entry::token).collect()
}
