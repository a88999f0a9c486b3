//! Faults → HTTP answers: the only place that knows statuses. Three styles, one row a reason.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderName, Method, Response, StatusCode};

use super::body::Answer;
use crate::envelope::Envelope;
use crate::fault::{Code, Fault, Reason, Source};
use crate::snapshot::ErrorStyle;
use crate::telemetry::Outcome;
use crate::transcode::json_string;

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Seconds to wait where an unavailable method does not say.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(5);
/// Seconds to wait where all stream slots are taken.
const STREAMS_RETRY: Duration = Duration::from_secs(10);

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Answer> {
    let mut answer = Response::new(Answer::Full(None));
    *answer.status_mut() = status;
    answer
}

/// Status of each code (google/rpc/code.proto).
fn status_of_code(code: Code) -> u16 {
    match code {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted | Code::Conflict => 409,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

/// A reason's token, and the status where it is not its code's.
fn row_of(reason: Reason) -> (&'static str, Option<u16>) {
    match reason {
        Reason::None => ("", None),
        Reason::RouteNotFound => ("route_not_found", None),
        Reason::MethodNotAllowed => ("method_not_allowed", Some(405)),
        Reason::BadRequest => ("bad_request", Some(400)),
        Reason::UriTooLong => ("uri_too_long", Some(414)),
        Reason::HeadersTooLarge => ("headers_too_large", Some(431)),
        Reason::ExpectationFailed => ("expectation_failed", Some(417)),
        Reason::RequestTimeout => ("request_timeout", Some(408)),
        Reason::BodyTooLarge => ("body_too_large", Some(413)),
        Reason::UnsupportedMediaType => ("unsupported_media_type", Some(415)),
        Reason::NotAcceptable => ("not_acceptable", Some(406)),
        Reason::NotImplemented => ("not_implemented", Some(501)),
        Reason::MalformedBody => ("malformed_body", None),
        Reason::MalformedParameter => ("malformed_parameter", None),
        Reason::ConflictingFields => ("conflicting_fields", None),
        Reason::CredentialMissing => ("credential_missing", None),
        Reason::CredentialInvalid => ("credential_invalid", None),
        Reason::RateLimited => ("rate_limited", None),
        Reason::TooManyCalls => ("too_many_calls", None),
        Reason::TooManyStreams => ("too_many_streams", None),
        Reason::BreakerOpen => ("breaker_open", None),
        Reason::NoResponders => ("no_responders", None),
        Reason::BusDown => ("bus_down", None),
        Reason::UpstreamTimeout => ("upstream_timeout", None),
        Reason::MalformedReply => ("malformed_reply", Some(502)),
        Reason::BrokenStream => ("broken_stream", Some(502)),
        Reason::StreamIdle => ("stream_idle", None),
        Reason::SlowConsumer => ("slow_consumer", None),
        Reason::Draining => ("draining", None),
        Reason::Panicked => ("panicked", None),
    }
}

/// The token of a reason; of a code, in lower case, where the code says it all.
pub(super) fn token_of(reason: Reason, code: &str) -> String {
    match row_of(reason).0 {
        "" => code.to_ascii_lowercase(),
        token => token.to_owned(),
    }
}

/// The `type` of RFC 9457: a name, whose last part is the token.
pub(super) fn type_of(token: &str) -> String {
    format!("urn:tidegate:problem:{}", token.replace('_', "-"))
}

/// The HTTP status of a kind of fault, where no house style says otherwise.
pub(super) fn status_of_kind(reason: Reason, code: Code) -> u16 {
    row_of(reason).1.unwrap_or_else(|| status_of_code(code))
}

/// The HTTP status of a fault; the house style of the worker that answered has the last word.
pub(super) fn status_of(fault: &Fault, envelope: Option<&Envelope>) -> StatusCode {
    let by_style =
        envelope.filter(|_| fault.why() == Reason::None).and_then(|envelope| envelope.status_of(fault.code_name()));
    let by_service =
        fault.details().iter().find(|row| row.0 == "service_error_code").and_then(|row| row.1.parse().ok());
    let status = by_style.or(row_of(fault.why()).1).or(by_service).unwrap_or_else(|| status_of_code(fault.code()));
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A fault's token.
pub(super) fn kind_of(fault: &Fault) -> String {
    token_of(fault.why(), fault.code_name())
}

/// How a fault counts.
pub(super) fn outcome_of(fault: &Fault) -> Outcome {
    match (fault.why(), fault.source()) {
        (Reason::RateLimited | Reason::TooManyCalls | Reason::TooManyStreams, _) => Outcome::Limited,
        (_, Source::Client) => Outcome::Client,
        // A worker's own word that the request is wrong is no failure of it: alerts look at those.
        (Reason::None, Source::Upstream) if status_of_code(fault.code()) < 500 => Outcome::Client,
        (_, Source::Upstream) => Outcome::Upstream,
        (_, Source::Us) => Outcome::Internal,
    }
}

/// The media type of a style's bodies.
pub(super) fn error_type(style: ErrorStyle) -> &'static str {
    match style {
        ErrorStyle::Problem => "application/problem+json",
        ErrorStyle::Google | ErrorStyle::Legacy => "application/json",
    }
}

/// A fault as an answer.
pub(super) fn fault(
    fault: &Fault,
    style: ErrorStyle,
    envelope: Option<&Envelope>,
    request_id: &str,
) -> Response<Answer> {
    let status = status_of(fault, envelope);
    let mut body = Vec::with_capacity(256);
    error_body(fault, status, style, request_id, &mut body);
    let mut answer = Response::new(Answer::full(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(error_type(style)));
    if let Some(after) = retry_after(fault, status) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000).max(1) as u64));
    }
    if fault.why() == Reason::RateLimited
        && let Some(limit) = fault.details().iter().find(|row| row.0 == "limit").and_then(|row| row.1.parse().ok())
    {
        rate_limit(&mut answer, limit, 0, fault.retry());
    }
    let headers = answer.headers_mut();
    if let Some((_, allow)) = fault.details().iter().find(|row| row.0 == "allow")
        && let Ok(value) = HeaderValue::from_str(allow)
    {
        headers.insert(header::ALLOW, value);
    }
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750 §3: without a credential, nothing but what to send.
        let is_invalid = fault.why() == Reason::CredentialInvalid;
        let challenge = if is_invalid { "Bearer error=\"invalid_token\"" } else { "Bearer" };
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if fault.why() == Reason::RequestTimeout {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10): what is left of a bucket, and in how
/// many seconds the next token comes.
pub(super) fn rate_limit(answer: &mut Response<Answer>, limit: u32, remaining: u32, after: Option<Duration>) {
    let seconds = after.map(|after| after.as_millis().div_ceil(1000).max(1) as u64);
    let rows = [
        (&RATE_LIMIT, short_text("\"default\";r=", u64::from(remaining), seconds)),
        (&RATE_LIMIT_POLICY, short_text("\"default\";q=", u64::from(limit), None)),
    ];
    for (name, value) in rows {
        answer.headers_mut().insert(name, value);
    }
}

/// `{before}{number}`, and `;t={seconds}` where they are known: written on the stack, as it is on every answer.
fn short_text(before: &str, number: u64, seconds: Option<u64>) -> HeaderValue {
    let (mut text, mut len) = ([0; 80], 0);
    let mut add = |part: &str| {
        text[len..len + part.len()].copy_from_slice(part.as_bytes());
        len += part.len();
    };
    add(before);
    add(itoa::Buffer::new().format(number));
    if let Some(seconds) = seconds {
        add(";t=");
        add(itoa::Buffer::new().format(seconds));
    }
    HeaderValue::from_bytes(&text[..len]).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn retry_after(fault: &Fault, status: StatusCode) -> Option<Duration> {
    match (fault.retry(), status.as_u16()) {
        (Some(after), 429 | 503) => Some(after),
        (None, 429) if fault.why() == Reason::TooManyStreams => Some(STREAMS_RETRY),
        (None, 429) => Some(Duration::from_secs(1)),
        (None, 503) => Some(UNAVAILABLE_RETRY),
        _ => None,
    }
}

/// A whole HTTP/1.1 answer that closes the connection, for requests that never reach a route.
pub(super) fn raw(fault: &Fault) -> Vec<u8> {
    let status = status_of(fault, None);
    let mut body = Vec::new();
    error_body(fault, status, ErrorStyle::Problem, &uuid::Uuid::new_v4().hyphenated().to_string(), &mut body);
    let allow = fault.details().iter().find(|row| row.0 == "allow").map(|row| format!("allow: {}\r\n", row.1));
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
        allow.unwrap_or_default(),
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// Appends a fault's body in a style.
pub(super) fn error_body(fault: &Fault, status: StatusCode, style: ErrorStyle, request_id: &str, out: &mut Vec<u8>) {
    match style {
        ErrorStyle::Problem => problem(fault, status, request_id, out),
        ErrorStyle::Google => google(fault, status, request_id, out),
        ErrorStyle::Legacy => legacy(fault, request_id, out),
    }
}

/// RFC 9457.
fn problem(fault: &Fault, status: StatusCode, request_id: &str, out: &mut Vec<u8>) {
    let token = row_of(fault.why()).0;
    out.extend_from_slice(b"{\"type\":");
    json_string(&type_of(&kind_of(fault)), out);
    member("title", status.canonical_reason().unwrap_or("Error"), out);
    out.extend_from_slice(format!(",\"status\":{}", status.as_u16()).as_bytes());
    member("detail", fault.message(), out);
    member("code", fault.code_name(), out);
    if !token.is_empty() {
        member("reason", token, out);
    }
    member("request_id", request_id, out);
    if !fault.violations().is_empty() {
        out.extend_from_slice(b",\"errors\":[");
        for (index, violation) in fault.violations().iter().enumerate() {
            out.extend_from_slice(if index > 0 { b",{\"field\":" } else { b"{\"field\":" });
            json_string(&violation.field, out);
            member("description", &violation.description, out);
            if let Some(offset) = violation.offset {
                out.extend_from_slice(format!(",\"offset\":{offset}").as_bytes());
            }
            out.push(b'}');
        }
        out.push(b']');
    }
    if fault.details().iter().any(is_shown) {
        out.extend_from_slice(b",\"details\":");
        pairs(fault.details().iter().filter(|row| is_shown(row)).map(|row| (&*row.0, &*row.1)), out);
    }
    out.push(b'}');
}

/// The JSON form of Google's APIs (AIP-193): `google.rpc.Status` inside `error`, its details typed.
fn google(fault: &Fault, status: StatusCode, request_id: &str, out: &mut Vec<u8>) {
    let token = row_of(fault.why()).0;
    out.extend_from_slice(format!("{{\"error\":{{\"code\":{}", status.as_u16()).as_bytes());
    member("message", fault.message(), out);
    member("status", fault.code_name(), out);
    out.extend_from_slice(b",\"details\":[");
    if !token.is_empty() {
        out.extend_from_slice(b"{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":");
        json_string(&token.to_ascii_uppercase(), out);
        out.extend_from_slice(b",\"domain\":\"tidegate\",\"metadata\":");
        pairs(fault.details().iter().filter(|row| is_shown(row)).map(|row| (&*row.0, &*row.1)), out);
        out.extend_from_slice(b"},");
    }
    if !fault.violations().is_empty() {
        out.extend_from_slice(b"{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\",\"fieldViolations\":[");
        for (index, violation) in fault.violations().iter().enumerate() {
            out.extend_from_slice(if index > 0 { b",{\"field\":" } else { b"{\"field\":" });
            json_string(&violation.field, out);
            member("description", &violation.description, out);
            out.push(b'}');
        }
        out.extend_from_slice(b"]},");
    }
    if let Some(after) = retry_after(fault, status) {
        out.extend_from_slice(b"{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":");
        json_string(&format!("{}.{:03}s", after.as_secs(), after.subsec_millis()), out);
        out.extend_from_slice(b"},");
    }
    out.extend_from_slice(b"{\"@type\":\"type.googleapis.com/google.rpc.RequestInfo\"");
    member("requestId", request_id, out);
    out.push(b'}');
    out.extend_from_slice(b"]}}");
}

/// `{"error":{"code":…,"message":…,"details":{…}},"request_id":…}`.
fn legacy(fault: &Fault, request_id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":{\"code\":");
    json_string(fault.code_name(), out);
    member("message", fault.message(), out);
    let token = row_of(fault.why()).0;
    let mut rows: Vec<(&str, &str)> = Vec::new();
    if let Some(violation) = fault.violations().first() {
        rows.push(("field", &violation.field));
    }
    if !token.is_empty() {
        rows.push(("reason", token));
    }
    rows.extend(fault.details().iter().filter(|row| is_shown(row)).map(|row| (&*row.0, &*row.1)));
    if !rows.is_empty() {
        out.extend_from_slice(b",\"details\":");
        pairs(rows.into_iter(), out);
    }
    out.push(b'}');
    member("request_id", request_id, out);
    out.push(b'}');
}

/// `allow` is a header, not a detail.
fn is_shown(row: &(std::borrow::Cow<'static, str>, String)) -> bool {
    row.0 != "allow"
}

fn member(name: &str, text: &str, out: &mut Vec<u8>) {
    out.push(b',');
    json_string(name, out);
    out.push(b':');
    json_string(text, out);
}

fn pairs<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in rows.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json_string(key, out);
        out.push(b':');
        json_string(value, out);
    }
    out.push(b'}');
}

/// A JSON answer.
pub(super) fn json(body: impl Into<Bytes>) -> Response<Answer> {
    let mut answer = Response::new(Answer::full(body.into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The answer of a stream, which nothing on its way may keep or hold back.
pub(super) fn stream(body: Answer, content_type: &'static str) -> Response<Answer> {
    let mut answer = Response::new(body);
    let head = answer.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    head.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// Says that the form of an answer goes by `Accept`, where a cache may keep it: of other verbs than these none does.
pub(super) fn vary_by_accept(verb: &Method, answer: &mut Response<Answer>) {
    if matches!(*verb, Method::GET | Method::HEAD) {
        answer.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    }
}
