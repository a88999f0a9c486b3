//! The life of a request, top to bottom.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{HeaderName, HeaderValue};
use http::{Method as Verb, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::accept::ReplyForm;
use super::ask::{Question, Until};
use super::body::Answer;
use super::in_flight::InFlight;
use super::inbound::{Inbound, Peer, X_REQUEST_ID, read_body};
use super::record::Record;
use super::{Edge, ask, auth, context, cors, credit, events, migrate, openapi, respond};
use crate::bus::{Headers, Reply};
use crate::envelope::Verified;
use crate::fault::{Code, Fault, Reason};
use crate::limits::{Admitted, Slot};
use crate::route::{Content, Lookup, Parts, Segments};
use crate::snapshot::{LimitKey, Route, Snapshot, Streaming};
use crate::telemetry::{self, Outcome};
use crate::transcode::{self, Scratch};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Answers one request.
pub(super) async fn answer(edge: &Arc<Edge>, request: Request<Incoming>, peer: Peer) -> Response<Answer> {
    let snapshot = edge.live.pin();
    let (head, body) = request.into_parts();
    let inbound = Inbound::read(head, peer, &edge.config.trusted);
    if let Some(answer) = cors::preflight(&snapshot, &inbound) {
        let mut answer = finish(answer, &inbound);
        Record::begin(edge, &inbound, None).answered(&mut answer, None);
        return answer;
    }
    let route = match find(&snapshot, &inbound, edge.config.limits.headers) {
        Ok(found) => found,
        Err(missing) => {
            let published = openapi::published(&snapshot, &inbound.head).await;
            let (answer, fault) = match published.and_then(|description| description.ok_or(missing)) {
                Ok(description) => (description, None),
                Err(fault) => {
                    metrics::counter!(telemetry::UNROUTED).increment(1);
                    (respond::fault(&fault, snapshot.error_style, None, &inbound.request_id), Some(fault))
                }
            };
            let mut answer = finish(answer, &inbound);
            if let Some(cors) = &snapshot.cors {
                cors::allow(cors, &inbound.head.headers, std::iter::empty(), &mut answer);
            }
            Record::begin(edge, &inbound, None).answered(&mut answer, fault.as_ref());
            return answer;
        }
    };
    let in_flight = InFlight::new(&route.0.metrics.in_flight);
    let mut record = Record::begin(edge, &inbound, Some(&route.0));
    let serving = serve(edge, &snapshot, &route.0, &route.1, &inbound, body, &mut record);
    let served = AssertUnwindSafe(serving).catch_unwind().await;
    let result = served.unwrap_or_else(|_| Err(panicked(&route.0)));
    drop(in_flight);
    let took = inbound.received.elapsed();
    let (answer, fault) = match result {
        Ok(answer) => {
            route.0.metrics.ended(Outcome::Ok, took);
            (answer, None)
        }
        Err(fault) => {
            route.0.metrics.ended(respond::outcome_of(&fault), took);
            if let Some(internal) = fault.internal_text() {
                tracing::debug!(route = %route.0.template, request_id = inbound.request_id, internal, "fault");
            }
            let (style, envelope) = (route.0.policies.error_style, Some(&route.0.method.envelope));
            (respond::fault(&fault, style, envelope, &inbound.request_id), Some(fault))
        }
    };
    let mut answer = finish(answer, &inbound);
    if let Some(cors) = &route.0.policies.cors {
        let own = route.0.headers_out.iter().map(|(_, name)| name);
        cors::allow(cors, &inbound.head.headers, own, &mut answer);
    }
    record.answered(&mut answer, fault.as_ref());
    answer
}

/// A defect of ours: the request fails, the process lives.
#[cold]
fn panicked(route: &Route) -> Fault {
    tracing::error!(route = %route.template, "a request panicked");
    Fault::ours(Code::Internal, "the gateway failed on this request").reason(Reason::Panicked)
}

/// From the route to the answer: every step makes a value from the one before, and may fail.
async fn serve(
    edge: &Arc<Edge>,
    snapshot: &Arc<Snapshot>,
    route: &Arc<Route>,
    segments: &Segments,
    inbound: &Inbound,
    body: Incoming,
    record: &mut Record,
) -> Result<Response<Answer>, Fault> {
    let timeout = inbound.timeout(route.policies.timeout)?;
    let deadline = inbound.received + timeout;
    let permit = admit(edge, route, inbound)?;
    let caller = auth::caller(edge, route, inbound, deadline).await?;
    let verified = caller.as_ref().map(|caller| &*caller.verified);
    let body = if route.binding.has_body() {
        let progress = edge.config.limits.body_progress;
        read_body(body, route.policies.body_max, inbound.received, progress, deadline).await?
    } else {
        Bytes::new()
    };
    record.body(body.len());
    let bound = bind(snapshot, route, segments, inbound, verified, &body)?;
    let goes = migrate::destination(route, inbound, verified, &bound.payload);
    let asked = Instant::now();
    if goes.is_on_bus(bound.wants_stream) {
        record.call(inbound, goes.method, asked);
    }
    let left = deadline.saturating_duration_since(asked);
    // Where a slow body has taken most of the time, silence in the rest of it says nothing of the worker.
    let until = Until { deadline, is_routes: timeout == route.policies.timeout && left >= timeout / 2 };
    let headers = bus_headers(route, inbound, record, verified, &bound, left);
    if bound.wants_stream {
        drop(permit);
        let slots = stream_slots(snapshot, route)?;
        let passed = ask::admit(edge, goes.breaker)?;
        let (subject, payload) = (goes.method.subject.clone(), bound.payload);
        let opened = events::open(edge, snapshot, route, inbound, subject, headers, payload, deadline, slots, caller);
        let stream = opened.await;
        passed.ended(stream.as_ref().err(), until);
        goes.ended(edge, route, stream.as_ref().err(), until);
        return stream;
    }
    let form = if route.is_raw { ReplyForm::Json } else { ReplyForm::of(&inbound.head.headers)? };
    let question = Question { inbound, headers, payload: bound.payload, asked, until };
    let reply = match &route.migration {
        None => ask::ask(edge, goes.method, goes.breaker, route.policies.retries, question).await,
        // On the heap: most routes have none.
        Some(migration) => Box::pin(migrate::ask(edge, route, migration, goes, verified, question)).await,
    };
    record.called(reply.as_ref().err());
    let reply = reply?;
    let mut answer = print(route, form, &reply)?;
    if !route.is_raw {
        respond::vary_by_accept(&inbound.head.method, &mut answer);
    }
    if let Some(admitted) = permit.admitted {
        respond::rate_limit(&mut answer, admitted.limit, admitted.remaining, None);
    }
    Ok(answer)
}

/// What a request was admitted with; dropping it frees its call slot.
struct Permit {
    admitted: Option<Admitted>,
    _slot: Option<Slot>,
}

/// The route, and where its captures are.
pub(super) fn find(snapshot: &Snapshot, inbound: &Inbound, fields_max: usize) -> Result<(Arc<Route>, Segments), Fault> {
    inbound.check_http2(fields_max)?;
    let path = inbound.head.uri.path();
    let missing = || Fault::client(Code::NotFound, "no route has this path").reason(Reason::RouteNotFound);
    let segments = Segments::split(path).ok_or_else(missing)?;
    match snapshot.tree.find(inbound.head.method.as_str(), path, &segments) {
        Lookup::Found(id) => Ok((snapshot.route(id).clone(), segments)),
        Lookup::Missing => Err(missing()),
        Lookup::WrongVerb(allow) => {
            let allow = allow.join(", ");
            let text = format!("this path takes {allow}");
            Err(Fault::client(Code::Unimplemented, text).reason(Reason::MethodNotAllowed).detail("allow", allow))
        }
    }
}

/// Takes a token and a call slot; the earliest refusal is the cheapest.
fn admit(edge: &Edge, route: &Route, inbound: &Inbound) -> Result<Permit, Fault> {
    let mut admitted = None;
    if let Some((key, bucket)) = &route.policies.bucket {
        let now = inbound.received.saturating_duration_since(edge.started);
        let taken = match key {
            LimitKey::Route => bucket.take(now),
            LimitKey::Client => bucket.take_for(inbound.client, now),
        };
        admitted = Some(taken.map_err(|refusal| {
            Fault::client(Code::ResourceExhausted, "too many requests: slow down")
                .reason(Reason::RateLimited)
                .retry_after(refusal.retry_after)
                .detail("limit", refusal.limit.to_string())
                .detail("retry_after_ms", refusal.retry_after.as_millis().to_string())
        })?);
    }
    let Some(slots) = &route.policies.call_slots else { return Ok(Permit { admitted, _slot: None }) };
    let full = || {
        Fault::client(Code::ResourceExhausted, "too many calls in flight on this route")
            .reason(Reason::TooManyCalls)
            .retry_after(Duration::from_secs(1))
    };
    let slot = slots.take().ok_or_else(full)?;
    Ok(Permit { admitted, _slot: Some(slot) })
}

/// A slot of the route and one of the process.
fn stream_slots(snapshot: &Snapshot, route: &Route) -> Result<Vec<Slot>, Fault> {
    let mut taken = Vec::with_capacity(2);
    for slots in route.policies.stream_slots.iter().chain([&snapshot.stream_slots]) {
        taken.push(slots.take().ok_or_else(|| {
            Fault::client(Code::ResourceExhausted, "too many open streams").reason(Reason::TooManyStreams)
        })?);
    }
    Ok(taken)
}

/// A request's bytes, ready for the bus.
pub(super) struct Bound {
    pub(super) payload: Bytes,
    lifted: Option<String>,
    pub(super) wants_stream: bool,
}

/// `body ++ path ++ query ++ presets ++ headers ++ context`.
pub(super) fn bind(
    snapshot: &Snapshot,
    route: &Route,
    segments: &Segments,
    inbound: &Inbound,
    caller: Option<&Verified>,
    body: &[u8],
) -> Result<Bound, Fault> {
    let content = if route.binding.has_body() { inbound.content()? } else { Content::Json };
    let parts = Parts {
        path: inbound.head.uri.path(),
        segments,
        query: inbound.head.uri.query(),
        headers: &inbound.head.headers,
        content,
        body,
    };
    let envelope = &route.method.envelope;
    let mut payload = Vec::with_capacity(body.len() + 320);
    let bound = route.binding.bind(&snapshot.tables, &parts, &mut payload)?;
    let wants_stream = match route.method.streaming {
        Streaming::Server => {
            envelope.ask_for_stream(&mut payload);
            true
        }
        Streaming::OnRequest => envelope.wants_stream(&payload),
        Streaming::Unary => false,
    };
    if let Some(plan) = &envelope.context {
        context::write(plan, snapshot, inbound, caller, bound.lifted.as_deref(), &mut payload)?;
    }
    Ok(Bound { payload: payload.into(), lifted: bound.lifted, wants_stream })
}

/// The headers that a worker gets; none of the client's own are among them.
fn bus_headers(
    route: &Route,
    inbound: &Inbound,
    record: &Record,
    caller: Option<&Verified>,
    bound: &Bound,
    left: Duration,
) -> Headers {
    let mut headers = route.method.request_headers.and_room_for(6);
    headers.push("traceparent", record.traceparent().as_deref().unwrap_or(inbound.trace.parent()));
    if let Some(state) = &inbound.trace.state {
        headers.push("tracestate", state);
    }
    headers.push("Tidegate-Timeout", itoa::Buffer::new().format(left.as_millis().max(1)));
    headers.push("Tidegate-Call", &inbound.request_id);
    let key = match &route.method.envelope.context {
        Some(plan) => context::idempotency_key(plan, inbound, bound.lifted.as_deref()),
        None => inbound.text(&IDEMPOTENCY_KEY),
    };
    // An empty key names no call: a worker would run each repeat anew.
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        headers.push("Nats-Msg-Id", key);
    }
    if let (None, Some(caller)) = (&route.method.envelope.context, caller) {
        auth::tell(caller, &mut headers);
    }
    if bound.wants_stream {
        headers.push("Tidegate-Window", credit::WINDOW);
    }
    headers
}

/// The reply as the client wants it.
fn print(route: &Route, form: ReplyForm, reply: &Reply) -> Result<Response<Answer>, Fault> {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    let (tables, method) = (&route.method.tables, &route.method);
    let malformed = |error: transcode::TranscodeError| {
        Fault::upstream(Code::Internal, "the worker's reply does not decode")
            .reason(Reason::MalformedReply)
            .internal(error.to_string())
    };
    let mut answer = if route.is_raw {
        raw_answer(&raw_part(route, &reply.payload).map_err(malformed)?)
    } else if form == ReplyForm::Protobuf {
        transcode::check(tables, method.reply, &reply.payload).map_err(malformed)?;
        let mut answer = Response::new(Answer::full(reply.payload.clone()));
        answer.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        answer
    } else {
        let mut json = Vec::with_capacity(reply.payload.len() * 2 + 64);
        let options = &route.policies.json_out;
        SCRATCH
            .with_borrow_mut(|scratch| match route.response_body {
                Some(field) => {
                    transcode::field_to_json(tables, method.reply, field, options, &reply.payload, scratch, &mut json)
                }
                None => transcode::wire_to_json(tables, method.reply, options, &reply.payload, scratch, &mut json),
            })
            .map_err(malformed)?;
        respond::json(json)
    };
    for (field, name) in &route.headers_out {
        let field = tables.message(method.reply).field(*field);
        if let Some(value) = transcode::wire::scalar_text(&reply.payload, field.spec.number, field.spec.kind)
            && let Ok(value) =
                HeaderValue::from_str(&if *name == http::header::ETAG { format!("\"{value}\"") } else { value })
        {
            answer.headers_mut().insert(name.clone(), value);
        }
    }
    Ok(answer)
}

/// The bytes of a `google.api.HttpBody`: the reply, or what of it is the answer's body; parts of a split one merge as
/// they follow.
fn raw_part(route: &Route, payload: &Bytes) -> Result<Bytes, transcode::TranscodeError> {
    transcode::check(&route.method.tables, route.method.reply, payload)?;
    let Some(field) = route.response_body else { return Ok(payload.clone()) };
    let number = route.method.tables.message(route.method.reply).field(field).spec.number;
    let mut part = Bytes::new();
    let mut reader = transcode::wire::WireReader::new(payload);
    while let Some(record) = reader.record()? {
        if record.number == number {
            let next = payload.slice(record.from..record.to);
            part = if part.is_empty() { next } else { [part, next].concat().into() };
        }
    }
    Ok(part)
}

/// A `google.api.HttpBody` as it is.
fn raw_answer(payload: &Bytes) -> Response<Answer> {
    let (mut kind, mut data) = ("application/octet-stream".to_owned(), Bytes::new());
    let mut reader = transcode::wire::WireReader::new(payload);
    while let Ok(Some(record)) = reader.record() {
        match record.number {
            1 if record.to > record.from => {
                kind = String::from_utf8_lossy(&payload[record.from..record.to]).into_owned();
            }
            2 => data = payload.slice(record.from..record.to),
            _ => {}
        }
    }
    let mut answer = Response::new(Answer::full(data));
    if let Ok(value) = HeaderValue::from_str(&kind) {
        answer.headers_mut().insert(http::header::CONTENT_TYPE, value);
    }
    answer
}

/// What every answer has: the request's id, and no body for HEAD.
fn finish(mut answer: Response<Answer>, inbound: &Inbound) -> Response<Answer> {
    let id = inbound.client_request_id().unwrap_or(&inbound.request_id);
    if let Ok(value) = HeaderValue::from_str(id) {
        answer.headers_mut().insert(&X_REQUEST_ID, value);
    }
    if inbound.head.method == Verb::HEAD || answer.status() == StatusCode::NO_CONTENT {
        *answer.body_mut() = Answer::Full(None);
    }
    answer
}
