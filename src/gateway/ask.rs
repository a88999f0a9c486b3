//! A worker asked as its route allows: behind the breaker of its subject, and again where that is safe.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Edge;
use super::inbound::Inbound;
use crate::bus::{BusError, Headers, Reply, Request};
use crate::fault::{Code, Fault, Reason};
use crate::limits::Pass;
use crate::snapshot::{Method, SubjectBreaker};
use crate::telemetry;

/// The pause before the first repeat, at most; it doubles (full jitter).
const PAUSE: Duration = Duration::from_millis(50);

/// Until when a reply is waited for.
#[derive(Clone, Copy)]
pub(super) struct Until {
    pub(super) deadline: Instant,
    /// It is the route's own time, most of it at least, and none that the client has chosen.
    pub(super) is_routes: bool,
}

/// A request, ready for whoever answers it.
pub(super) struct Question<'i> {
    pub(super) inbound: &'i Inbound,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
    /// This moment.
    pub(super) asked: Instant,
    pub(super) until: Until,
}

/// Asks, and opens what comes back.
pub(super) async fn ask(
    edge: &Edge,
    method: &Method,
    breaker: Option<&SubjectBreaker>,
    retries: u32,
    question: Question<'_>,
) -> Result<Reply, Fault> {
    if breaker.is_none() && retries == 0 {
        return once(edge, method, question).await;
    }
    let Question { inbound, headers, payload, mut asked, until } = question;
    let is_repeatable = method.is_repeatable || headers.get("Nats-Msg-Id").is_some();
    for repeat in 0.. {
        let passed = admit(edge, breaker)?;
        let (headers, payload) = (headers.and_room_for(0), payload.clone());
        let result = once(edge, method, Question { inbound, headers, payload, asked, until }).await;
        passed.ended(result.as_ref().err(), until);
        let Err(fault) = result else { return result };
        // Where nobody was there, nothing has happened.
        let is_safe = fault.why() == Reason::NoResponders || is_repeatable && fault.why() == Reason::BusDown;
        let pause = Duration::from_millis(fastrand::u64(0..=(PAUSE * (1 << repeat)).as_millis() as u64));
        let left = until.deadline.saturating_duration_since(Instant::now());
        if !is_safe || repeat >= retries || pause >= left {
            return Err(fault);
        }
        metrics::counter!(telemetry::BUS_REPEATS, "subject" => method.subject.as_str().to_owned()).increment(1);
        tokio::time::sleep(pause).await;
        asked = Instant::now();
    }
    Err(Fault::ours(Code::Internal, "a request was repeated without end"))
}

/// A request that its breaker has let through, or one without a breaker.
pub(super) struct Passed<'r> {
    edge: &'r Edge,
    guard: Option<(Pass<'r>, &'r SubjectBreaker)>,
}

/// Refuses where the breaker of the subject is open.
pub(super) fn admit<'r>(edge: &'r Edge, breaker: Option<&'r SubjectBreaker>) -> Result<Passed<'r>, Fault> {
    let Some(breaker) = breaker else { return Ok(Passed { edge, guard: None }) };
    match breaker.breaker.admit(edge.started.elapsed()) {
        Ok(pass) => Ok(Passed { edge, guard: Some((pass, breaker)) }),
        Err(wait) => Err(Fault::upstream(Code::Unavailable, "the service does not answer: requests to it are paused")
            .reason(Reason::BreakerOpen)
            .retry_after(wait)),
    }
}

impl Passed<'_> {
    /// Tells the breaker how it ended.
    pub(super) fn ended(self, fault: Option<&Fault>, until: Until) {
        let Some((pass, breaker)) = self.guard else { return };
        pass.ended(fault, until.is_routes, self.edge.started.elapsed());
        breaker.show();
    }
}

/// Asks once, and opens the answer.
async fn once(edge: &Edge, method: &Method, question: Question<'_>) -> Result<Reply, Fault> {
    let Question { inbound, headers, payload, asked, until } = question;
    let id = inbound.request_id.as_str();
    // A reply proves itself by the token that it echoes, or by the request id inside it.
    let proof = |reply: &Reply| match reply.headers.get("Tidegate-Call") {
        Some(call) => call == id,
        None => method.envelope.answers(id, &reply.payload),
    };
    let request = Request {
        subject: method.subject.clone(),
        headers,
        payload,
        timeout: until.deadline.saturating_duration_since(asked),
        proof: method.replies.is_proven().then_some(&proof),
    };
    let reply = edge.bus.request(request).await;
    method.metrics.ended(BusError::outcome(&reply), asked.elapsed());
    let reply = reply.inspect_err(|error| {
        if let BusError::Unproven(_) = error {
            method.replies.give_up();
        }
    })?;
    if reply.mismatches > 0 {
        method.replies.give_up();
    } else if !method.replies.is_proven() && reply.headers.get("Tidegate-Call") == Some(id) {
        method.replies.prove();
    }
    method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload)?;
    Ok(reply)
}
