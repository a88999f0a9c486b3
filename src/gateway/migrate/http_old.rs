//! An old HTTP system: the request message as JSON by `POST`, its JSON answer as the reply's bytes. Whatever it is asked
//! for comes back as from a worker, so the client's answer has one form, whoever serves.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName};

use super::super::Edge;
use super::super::ask::Question;
use super::super::inbound::Inbound;
use crate::bus::{Headers, Reply};
use crate::envelope::{SERVICE_ERROR, SERVICE_ERROR_CODE, Verified};
use crate::fault::{Code, Fault, Reason};
use crate::snapshot::{HttpOld, Method, Route};
use crate::transcode::{self, Scratch};

/// Counts the ways of a request through gateways.
static HOPS: HeaderName = HeaderName::from_static("tidegate-hops");
/// How often a request may come back to a gateway that has sent it to an old system.
const HOPS_MAX: u8 = 3;
/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Connections to one old system that wait for the next request.
const IDLE: usize = 64;
/// Largest answer that is read.
const ANSWER_MAX: usize = 8 * 1024 * 1024;

/// Connections to all old systems; made with the first request to one.
#[derive(Default)]
pub(in crate::gateway) struct OldSystems(OnceLock<Option<reqwest::Client>>);

impl OldSystems {
    fn client(&self) -> Result<&reqwest::Client, Fault> {
        let client = self.0.get_or_init(|| {
            // What it says is the answer: no redirect is followed, no proxy of the environment asked.
            let builder = reqwest::Client::builder()
                .connect_timeout(CONNECT_MAX)
                .pool_max_idle_per_host(IDLE)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy();
            builder.build().inspect_err(|error| tracing::error!(%error, "no HTTP client for old systems")).ok()
        });
        client.as_ref().ok_or_else(|| Fault::ours(Code::Internal, "there is no HTTP client for the old system"))
    }
}

/// A request for an old system, ready to be sent.
pub(super) struct HttpRequest(reqwest::RequestBuilder);

impl HttpRequest {
    /// The same with one more header.
    pub(super) fn with(self, name: &str, value: &str) -> HttpRequest {
        HttpRequest(self.0.header(name, value))
    }
}

/// Asks the old system, and opens what comes back.
pub(super) async fn ask(
    edge: &Edge,
    route: &Route,
    old: &HttpOld,
    caller: Option<&Verified>,
    question: Question<'_>,
) -> Result<Reply, Fault> {
    let Question { inbound, headers, payload, until, .. } = question;
    let request = request(edge, route, old, caller, inbound, &headers, &payload)?;
    answer(route, old, request, until.deadline).await
}

/// The request as it is sent.
pub(super) fn request(
    edge: &Edge,
    route: &Route,
    old: &HttpOld,
    caller: Option<&Verified>,
    inbound: &Inbound,
    headers: &Headers,
    payload: &[u8],
) -> Result<HttpRequest, Fault> {
    let mut url = old.url.to_string();
    if old.keeps_path {
        // A URL's parser takes `\` for a slash, and so climbs over what stands before it.
        url.push_str(&inbound.head.uri.path().replace('\\', "%5C"));
    }
    let hops = inbound.text(&HOPS).and_then(|hops| hops.parse::<u8>().ok()).unwrap_or(0);
    if hops >= HOPS_MAX {
        return Err(Fault::ours(Code::Internal, "the old system leads back to this gateway"));
    }
    let mut request = edge
        .old
        .client()?
        .post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(&HOPS, u32::from(hops) + 1);
    for (name, from) in [
        ("traceparent", "traceparent"),
        ("tracestate", "tracestate"),
        ("idempotency-key", "Nats-Msg-Id"),
        ("x-request-id", "Tidegate-Call"),
        ("x-timeout-ms", "Tidegate-Timeout"),
    ] {
        if let Some(value) = headers.get(from) {
            request = request.header(name, value);
        }
    }
    if let Some(value) = inbound.head.headers.get(header::AUTHORIZATION) {
        request = request.header(header::AUTHORIZATION, value);
    }
    for (name, verified) in
        [("x-user-id", caller.map(|caller| &caller.user)), ("x-tenant-id", caller.map(|caller| &caller.tenant))]
    {
        // The old system believes these; so they come from a credential, or from a peer that is trusted.
        let given = inbound.head.headers.get(name).filter(|_| inbound.is_trusted).and_then(|value| value.to_str().ok());
        if let Some(value) = verified.map(String::as_str).or(given).filter(|value| !value.is_empty()) {
            request = request.header(name, value);
        }
    }
    Ok(HttpRequest(request.body(json(route, payload)?)))
}

/// The request message as JSON, in the route's own form.
fn json(route: &Route, payload: &[u8]) -> Result<Vec<u8>, Fault> {
    let (method, mut out) = (&route.method, Vec::with_capacity(payload.len() * 2 + 64));
    let (options, scratch) = (&route.policies.json_out, &mut Scratch::default());
    transcode::wire_to_json(&method.tables, method.request, options, payload, scratch, &mut out).map_err(|error| {
        Fault::client(Code::InvalidArgument, "the request has no JSON form that the old system could read")
            .reason(Reason::MalformedBody)
            .internal(error.to_string())
    })?;
    Ok(out)
}

/// Sends a request and reads its answer, all until the deadline.
pub(super) async fn answer(
    route: &Route,
    old: &HttpOld,
    request: HttpRequest,
    deadline: Instant,
) -> Result<Reply, Fault> {
    let came = tokio::time::timeout_at(deadline.into(), whole(request)).await;
    let (status, body) = came.unwrap_or_else(|_| {
        Err(Fault::upstream(Code::DeadlineExceeded, "the old system did not answer in time")
            .reason(Reason::UpstreamTimeout))
    })?;
    let payload = read(&route.method, old, status, &body)?;
    Ok(Reply { headers: Headers::new(), payload, mismatches: 0 })
}

async fn whole(request: HttpRequest) -> Result<(u16, Bytes), Fault> {
    let mut answer = request.0.send().await.map_err(|error| unanswered(&error))?;
    let (status, mut body) = (answer.status().as_u16(), BytesMut::new());
    while let Some(piece) = answer.chunk().await.map_err(|error| unanswered(&error))? {
        if body.len() + piece.len() > ANSWER_MAX {
            let text = format!("more than {ANSWER_MAX} bytes");
            return Err(malformed(text));
        }
        body.extend_from_slice(&piece);
    }
    Ok((status, body.freeze()))
}

/// The reply's bytes of a JSON answer, or the error that it is: inside of the reply as the house style says, or by its
/// status. Old systems also send errors with status 200.
fn read(method: &Method, old: &HttpOld, status: u16, body: &[u8]) -> Result<Bytes, Fault> {
    if !(200..300).contains(&status) && status < 400 {
        return Err(malformed(format!("status {status}")));
    }
    let is_error = status >= 400;
    let mut payload = Vec::with_capacity(body.len());
    let bound = transcode::json_to_wire(&method.tables, &old.reply, 0, body, &mut payload, None);
    if let Err(error) = bound {
        if !is_error {
            return Err(malformed(error.to_string()));
        }
        payload.clear();
    }
    let (number, text) = (status.to_string(), format!("the old system answered with status {status}"));
    let header = |name: &str| match name {
        SERVICE_ERROR_CODE if is_error => Some(number.as_str()),
        SERVICE_ERROR if is_error => Some(text.as_str()),
        _ => None,
    };
    method.envelope.open_reply(&method.tables, method.reply, header, &payload)?;
    Ok(payload.into())
}

fn malformed(internal: String) -> Fault {
    Fault::upstream(Code::Internal, "the old system's answer does not decode")
        .reason(Reason::MalformedReply)
        .internal(internal)
}

fn unanswered(error: &reqwest::Error) -> Fault {
    let fault = Fault::upstream(Code::Unavailable, "the old system does not answer").internal(error.to_string());
    // Nobody there: nothing has happened.
    if error.is_connect() { fault.reason(Reason::NoResponders) } else { fault }
}
