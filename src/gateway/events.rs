//! A worker's stream as Server-Sent Events or NDJSON.
//!
//! No header is sent before the first chunk is there, or the worker's word that the stream has begun, so that an early
//! error has a real status. From then on the body owns everything: the slots, the subscription, the credit. Dropping it, for whatever reason, cancels the worker. It
//! ends in exactly one of: the last chunk, `error`, `end`, client gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, Method as Verb, Response, StatusCode};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream as _;
use tokio_stream::wrappers::WatchStream;

use super::auth::{self, Caller};
use super::body::Answer;
use super::credit::Credit;
use super::frames::Form;
use super::inbound::Inbound;
use super::record::Record;
use super::socket::Socket;
use super::{Edge, respond};
use crate::bus::{Delivery, Headers, Limits, Message, StreamError, Subject, Subscription};
use crate::envelope::{ErrorPlan, SERVICE_ERROR_CODE, STREAM_BEGUN};
use crate::fault::{Code, Fault, Reason};
use crate::limits::Slot;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry;
use crate::transcode::{self, Scratch};

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Asks for a stream, waits until it has begun, and answers with it as a body.
#[allow(clippy::too_many_arguments, reason = "everything that the body will own comes in here")]
pub(super) async fn open(
    edge: &Arc<Edge>,
    snapshot: &Arc<Snapshot>,
    route: &Arc<Route>,
    inbound: &Inbound,
    subject: Subject,
    headers: Headers,
    payload: Bytes,
    deadline: Instant,
    slots: Vec<Slot>,
    caller: Option<Caller>,
) -> Result<Response<Answer>, Fault> {
    let form = Form::of(inbound)?;
    let subscription = edge.bus.open_stream(subject, headers, payload, Limits::STREAM).await?;
    let mut events = Box::new(Events::new(edge, snapshot, route, inbound, subscription, form, slots));
    events.revoked = caller.map(|caller| Box::pin(auth::until_revoked(edge.clone(), caller)) as Revoked);
    let first = tokio::time::timeout_at(deadline.into(), events.first()).await;
    let first = first.unwrap_or_else(|_| {
        Err(Fault::upstream(Code::DeadlineExceeded, "the worker sent no chunk in time").reason(Reason::UpstreamTimeout))
    });
    let first = first.inspect_err(|fault| events.give_up(fault))?;
    if first.as_ref().is_some_and(|first| is_resume_at_the_end(inbound, first)) {
        events.end = Some("resumed_at_end");
        return Ok(respond::empty(StatusCode::NO_CONTENT));
    }
    events.ready.extend(form.greeting());
    // Without a chunk, its silence counts from here.
    match first {
        Some(first) => events.take(first),
        None => events.idle.set(sleep(route.policies.stream_idle)),
    }
    let mut answer = respond::stream(Answer::Events(events), form.content_type());
    respond::vary_by_accept(&inbound.head.method, &mut answer);
    Ok(answer)
}

/// An EventSource that comes back for a stream that is over is told to stop (204).
fn is_resume_at_the_end(inbound: &Inbound, first: &Opened) -> bool {
    let last = inbound.text(&LAST_EVENT_ID).and_then(|text| text.trim().parse::<u64>().ok());
    let is_behind = matches!((last, first.id), (Some(last), Some(id)) if id <= last);
    first.is_last && inbound.head.method == Verb::GET && is_behind
}

/// What a message of a stream is.
enum Sign {
    /// The worker is still there.
    Beat,
    /// There is nothing to send yet, and nothing to refuse any more.
    Begun,
    Chunk(Opened),
}

/// A chunk, checked and printed.
struct Opened {
    /// The event's id.
    id: Option<u64>,
    json: Option<Vec<u8>>,
    is_last: bool,
    size: u64,
}

/// Ends once the caller's credential does.
type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of a stream's answer.
pub(super) struct Events {
    edge: Arc<Edge>,
    route: Arc<Route>,
    generation: u64,
    request_id: String,
    subscription: Subscription,
    form: Form,
    ready: VecDeque<Bytes>,
    /// Why the stream is over, once it is.
    end: Option<&'static str>,
    expected: u64,
    credit: Credit,
    idle: Pin<Box<Sleep>>,
    keep_alive: Pin<Box<Sleep>>,
    draining: WatchStream<bool>,
    changes: WatchStream<u64>,
    revoked: Option<Revoked>,
    /// The client's HTTP/1 connection: hyper does not look for its end while an answer is on the way.
    socket: Option<Arc<Socket>>,
    /// What is written down once the stream is over.
    pub(super) record: Record,
    bytes_out: u64,
    _slots: Vec<Slot>,
}

impl Events {
    fn new(
        edge: &Arc<Edge>,
        snapshot: &Snapshot,
        route: &Arc<Route>,
        inbound: &Inbound,
        subscription: Subscription,
        form: Form,
        slots: Vec<Slot>,
    ) -> Events {
        route.metrics.streams.increment(1.0);
        Events {
            edge: edge.clone(),
            route: route.clone(),
            generation: snapshot.generation,
            request_id: inbound.request_id.clone(),
            subscription,
            form,
            ready: VecDeque::new(),
            end: None,
            expected: 0,
            credit: Credit::default(),
            idle: Box::pin(sleep(route.policies.stream_idle)),
            keep_alive: Box::pin(sleep(edge.config.keep_alive)),
            // The present values count, too: a change may have come between the request and its stream.
            draining: WatchStream::new(edge.is_draining.subscribe()),
            changes: WatchStream::new(edge.live.changes()),
            revoked: None,
            socket: inbound.socket.clone(),
            record: Record::none(),
            bytes_out: 0,
            _slots: slots,
        }
    }

    /// The first chunk, or nothing where the stream begins without one; heartbeats before it do not count.
    async fn first(&mut self) -> Result<Option<Opened>, Fault> {
        loop {
            let delivery = match self.subscription.next().await {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(lost(error)),
                None => return Err(lost(StreamError::Disconnected)),
            };
            match self.open(&delivery)? {
                Sign::Beat => {}
                Sign::Begun => return Ok(None),
                Sign::Chunk(opened) => return Ok(Some(opened)),
            }
        }
    }

    /// Checks one message of the stream.
    fn open(&mut self, delivery: &Delivery) -> Result<Sign, Fault> {
        let method = &self.route.method;
        if delivery.is_no_responders {
            return Err(crate::bus::BusError::NoResponders.into());
        }
        self.credit.note_control(delivery);
        if delivery.payload.is_empty() && delivery.headers.get("Stream-Heartbeat").is_some() {
            let has_begun = delivery.headers.get(STREAM_BEGUN).is_some();
            return Ok(if has_begun { Sign::Begun } else { Sign::Beat });
        }
        // Where the style has an error field, the field decides: it says more than the headers beside it.
        let is_in_band = matches!(method.envelope.chunk.error, ErrorPlan::InBand { .. });
        if !is_in_band && delivery.headers.get(SERVICE_ERROR_CODE).is_some() {
            let header = |name: &str| delivery.headers.get(name);
            method.envelope.open_reply(&method.tables, method.chunk, header, &delivery.payload)?;
        }
        let chunk = method.envelope.open_chunk(&method.tables, method.chunk, &delivery.payload)?;
        let sequence = delivery.headers.get("Tidegate-Seq").and_then(|text| text.parse().ok());
        let index = chunk.index.or(sequence);
        if index.is_some_and(|index| index != self.expected) {
            let internal = format!("chunk {} came where {} was expected", index.unwrap_or(0), self.expected);
            return Err(Fault::upstream(Code::Internal, "the worker's stream has a gap")
                .reason(Reason::BrokenStream)
                .internal(internal));
        }
        self.expected += 1;
        if let Some(fault) = chunk.fault {
            return Err(fault);
        }
        let is_end = delivery.headers.get("Tidegate-End").is_some();
        let json = if is_end && delivery.payload.is_empty() { None } else { Some(self.print(&delivery.payload)?) };
        Ok(Sign::Chunk(Opened {
            id: chunk.id.filter(|id| *id > 0).or(index),
            json,
            is_last: chunk.is_last || is_end,
            size: delivery.payload.len() as u64,
        }))
    }

    fn print(&self, payload: &[u8]) -> Result<Vec<u8>, Fault> {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        let (method, options) = (&self.route.method, &self.route.policies.json_out);
        let mut json = Vec::with_capacity(payload.len() * 2 + 64);
        SCRATCH
            .with_borrow_mut(|scratch| {
                transcode::wire_to_json(&method.tables, method.chunk, options, payload, scratch, &mut json)
            })
            .map_err(|error| {
                Fault::upstream(Code::Internal, "the worker's chunk does not decode")
                    .reason(Reason::MalformedReply)
                    .internal(error.to_string())
            })?;
        Ok(json)
    }

    /// Puts a chunk out, and gives credit for those that are gone.
    fn take(&mut self, opened: Opened) {
        self.idle.set(sleep(self.route.policies.stream_idle));
        self.credit.note_taken(opened.size);
        if let Some(json) = opened.json {
            self.route.metrics.chunks.increment(1);
            self.ready.push_back(self.form.chunk(opened.id, &json));
        }
        if opened.is_last {
            self.end = Some("final");
        } else if let Some(message) = self.credit.due() {
            self.send(message);
        }
    }

    /// Ends the stream with an error event.
    fn fail(&mut self, fault: &Fault) {
        self.give_up(fault);
        self.record.failed(fault);
        let status = respond::status_of(fault, Some(&self.route.method.envelope));
        let mut body = Vec::with_capacity(256);
        respond::error_body(fault, status, self.route.policies.error_style, &self.request_id, &mut body);
        self.ready.push_back(self.form.error(&body));
    }

    /// Ends the stream over a fault. A worker that did not say so itself may still be at work, and is told.
    fn give_up(&mut self, fault: &Fault) {
        match fault.why() {
            Reason::None | Reason::NoResponders | Reason::BusDown => {}
            Reason::UpstreamTimeout | Reason::StreamIdle => self.tell("Tidegate-Cancel", "deadline"),
            _ => self.tell("Tidegate-Cancel", "client_gone"),
        }
        self.end = Some("error");
    }

    /// Ends the stream because of us; the client comes back after a while of its own.
    fn finish(&mut self, reason: &'static str) {
        self.tell("Tidegate-Cancel", reason);
        self.ready.push_back(self.form.end(reason));
        self.end = Some(reason);
    }

    /// Stops the worker without a word to the client.
    fn cancel(&mut self, reason: &'static str) {
        self.tell("Tidegate-Cancel", reason);
        self.end = Some(reason);
    }

    /// A control message to the worker, where it has said where to.
    fn tell(&self, name: &'static str, value: &str) {
        if let Some(message) = self.credit.control(name, value) {
            self.send(message);
        }
    }

    fn send(&self, message: Message) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let bus = self.edge.bus.clone();
        runtime.spawn(async move {
            let _ = bus.publish(message).await;
        });
    }

    /// True where the route is gone, or our generation too old.
    fn is_outdated(&self) -> bool {
        let snapshot = self.edge.live.pin();
        let is_there = snapshot.routes.iter().any(|route| {
            route.verb == self.route.verb
                && route.template == self.route.template
                && route.method.name == self.route.method.name
        });
        !is_there || self.generation < *self.edge.live.floor().borrow()
    }

    /// The next frame; `None` once the stream is over.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.keep_alive.set(sleep(self.edge.config.keep_alive));
                self.bytes_out += frame.len() as u64;
                return Poll::Ready(Some(frame));
            }
            if self.end.is_some() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(Some(is_draining)) = Pin::new(&mut self.draining).poll_next(context) {
                if is_draining {
                    self.finish("draining");
                }
                continue;
            }
            if let Poll::Ready(Some(generation)) = Pin::new(&mut self.changes).poll_next(context) {
                if generation != self.generation && self.is_outdated() {
                    self.finish("reloaded");
                }
                continue;
            }
            if self.revoked.as_mut().is_some_and(|revoked| revoked.as_mut().poll(context).is_ready()) {
                self.finish("revoked");
                continue;
            }
            match self.subscription.poll_next(context) {
                Poll::Ready(Some(Ok(delivery))) => {
                    match self.open(&delivery) {
                        Ok(Sign::Chunk(opened)) => self.take(opened),
                        Ok(Sign::Beat | Sign::Begun) => self.idle.set(sleep(self.route.policies.stream_idle)),
                        Err(fault) => self.fail(&fault),
                    }
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    if let (StreamError::Overflow, Some(socket)) = (error, &self.socket) {
                        socket.end_behind_this_answer();
                    }
                    self.fail(&lost(error));
                }
                Poll::Ready(None) => self.fail(&lost(StreamError::Disconnected)),
                Poll::Pending if self.idle.as_mut().poll(context).is_ready() => {
                    self.fail(
                        &Fault::upstream(Code::DeadlineExceeded, "the worker's stream stalled")
                            .reason(Reason::StreamIdle),
                    );
                }
                Poll::Pending if self.keep_alive.as_mut().poll(context).is_ready() => {
                    self.ready.push_back(self.form.keep_alive());
                }
                Poll::Pending if self.socket.as_ref().is_some_and(|socket| socket.is_gone(context)) => {
                    self.cancel("client_gone");
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A subscription that ended before its stream.
fn lost(error: StreamError) -> Fault {
    match error {
        StreamError::Overflow => {
            Fault::client(Code::ResourceExhausted, "the client reads more slowly than the stream comes")
                .reason(Reason::SlowConsumer)
        }
        StreamError::Disconnected => crate::bus::BusError::Disconnected.into(),
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.route.metrics.streams.decrement(1.0);
        let end = self.end.unwrap_or("client_gone");
        if self.end.is_none() {
            self.tell("Tidegate-Cancel", "client_gone");
        }
        self.record.streamed(end, self.credit.chunks(), self.bytes_out);
        let route = format!("{} {}", self.route.verb, self.route.template);
        metrics::counter!(telemetry::STREAM_ENDS, "route" => route, "end" => end).increment(1);
    }
}
