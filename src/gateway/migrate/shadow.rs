//! A copy of a request for the side that does not serve, and the comparison of the two answers. It runs beside the request
//! with a slot and a deadline of its own: the real answer neither waits for it nor fails with it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::Edge;
use super::super::ask::Question;
use super::{http_old, moved};
use crate::bus::{Headers, Request};
use crate::envelope::Verified;
use crate::fault::{Fault, Reason, Source};
use crate::limits::{Slot, WHOLE};
use crate::snapshot::{Method, Migration, Old, Route, Shadow, Side};
use crate::telemetry::ShadowResult;
use crate::transcode::{self, Scratch, TranscodeError};

/// Tells both kinds of old side, and workers, that the answer goes to nobody.
const SHADOW: &str = "Tidegate-Shadow";
/// Answers above this size together are compared on the pool of threads, so that no request waits meanwhile.
const ASIDE_BYTES: usize = 64 * 1024;
/// What stands in the report for one side that failed, or for two that did so differently.
const ERROR: &str = "(error)";

/// A side's answer, as far as it is compared.
enum Told {
    Reply(Bytes),
    /// A worker's own error, by the name of its code.
    Refusal(String),
    /// Nobody answered, or nothing that can be read.
    Nothing,
}

impl Told {
    fn of(result: Result<Bytes, &Fault>) -> Told {
        match result {
            Ok(payload) => Told::Reply(payload),
            Err(fault) if fault.why() == Reason::None && fault.source() == Source::Upstream => {
                Told::Refusal(fault.code_name().to_owned())
            }
            Err(_) => Told::Nothing,
        }
    }
}

/// A copy on its way; it waits for the real answer.
pub(super) struct Copy(oneshot::Sender<Told>);

impl Copy {
    /// The real answer is there.
    pub(super) fn compare(self, result: Result<Bytes, &Fault>) {
        let _ = self.0.send(Told::of(result));
    }
}

/// A copy as it is sent.
enum Outgoing {
    Bus(Headers, Bytes),
    Http(http_old::HttpRequest),
}

/// Everything that a copy needs once its request is gone.
struct Sent {
    edge: Arc<Edge>,
    route: Arc<Route>,
    migration: Arc<Migration>,
    to: Side,
    request_id: String,
    _slot: Slot,
}

/// Sends a copy of a request, where its route wants one and a slot is free.
pub(super) fn begin(
    edge: &Arc<Edge>,
    route: &Arc<Route>,
    migration: &Arc<Migration>,
    serving: Side,
    caller: Option<&Verified>,
    question: &Question<'_>,
) -> Option<Copy> {
    let shadow = migration.shadow.as_ref()?;
    let to = if serving == Side::Old { Side::New } else { Side::Old };
    if shadow.to.is_some_and(|only| only != to) || fastrand::u32(0..WHOLE) >= shadow.share {
        return None;
    }
    let sent = shadow
        .slots
        .take()
        .and_then(|slot| Some((slot, outgoing(edge, route, migration, shadow, to, caller, question)?)));
    let Some((slot, outgoing)) = sent else {
        count(migration, shadow, ShadowResult::Dropped);
        return None;
    };
    let (tell, told) = oneshot::channel();
    let request_id = question.inbound.request_id.clone();
    let sent =
        Sent { edge: edge.clone(), route: route.clone(), migration: migration.clone(), to, request_id, _slot: slot };
    tokio::spawn(run(sent, outgoing, told));
    Some(Copy(tell))
}

fn outgoing(
    edge: &Edge,
    route: &Route,
    migration: &Migration,
    shadow: &Shadow,
    to: Side,
    caller: Option<&Verified>,
    question: &Question<'_>,
) -> Option<Outgoing> {
    let mut headers = question.headers.and_room_for(1);
    headers.set("Tidegate-Timeout", itoa::Buffer::new().format(shadow.timeout.as_millis().max(1)));
    headers.push(SHADOW, "1");
    match (to, &migration.old) {
        (Side::Old, Old::Http(old)) => {
            let request = http_old::request(edge, route, old, caller, question.inbound, &headers, &question.payload);
            request.ok().map(|request| Outgoing::Http(request.with(SHADOW, "1")))
        }
        _ => Some(Outgoing::Bus(headers, question.payload.clone())),
    }
}

/// Waits for both answers and compares them.
async fn run(sent: Sent, outgoing: Outgoing, told: oneshot::Receiver<Told>) {
    let Some(shadow) = &sent.migration.shadow else { return };
    let (copied, served) = tokio::join!(answer(&sent, shadow, outgoing), told);
    let copied = Told::of(copied.as_ref().map(Bytes::clone));
    // Whoever asked has gone, or was answered by nobody.
    let served = served.unwrap_or(Told::Nothing);
    let result = match (&served, &copied) {
        (_, Told::Nothing) => Ok((ShadowResult::Failed, Vec::new())),
        (Told::Nothing, _) => Ok((ShadowResult::Dropped, Vec::new())),
        (Told::Reply(a), Told::Reply(b)) => compared(&sent, a.clone(), b.clone()).await.map(result_of),
        (Told::Refusal(a), Told::Refusal(b)) if a == b => Ok((ShadowResult::Same, Vec::new())),
        _ => Ok((ShadowResult::Different, vec![ERROR.to_owned()])),
    };
    let (result, fields) = result.unwrap_or((ShadowResult::Failed, Vec::new()));
    if result == ShadowResult::Different {
        let bodies = shadow.keeps_bodies.then(|| match sent.to {
            Side::Old => (text(&sent.route, &copied), text(&sent.route, &served)),
            Side::New => (text(&sent.route, &served), text(&sent.route, &copied)),
        });
        sent.migration.metrics.shadowed(result);
        shadow.report.differs(sent.edge.started.elapsed(), &sent.request_id, fields, bodies);
    } else {
        count(&sent.migration, shadow, result);
    }
    if matches!(result, ShadowResult::Same | ShadowResult::Different) {
        let (is_different, now) = (result == ShadowResult::Different, sent.edge.started.elapsed());
        let change = sent.migration.cutover.compared(sent.migration.rule.as_ref(), is_different, now);
        moved(&sent.route, &sent.migration, change.as_ref());
    }
}

fn count(migration: &Migration, shadow: &Shadow, result: ShadowResult) {
    migration.metrics.shadowed(result);
    shadow.report.count(result);
}

/// What the side of a copy answers.
async fn answer(sent: &Sent, shadow: &Shadow, outgoing: Outgoing) -> Result<Bytes, Fault> {
    let (headers, payload) = match (outgoing, &sent.migration.old) {
        (Outgoing::Http(request), Old::Http(old)) => {
            let deadline = Instant::now() + shadow.timeout;
            return http_old::answer(&sent.route, old, request, deadline).await.map(|reply| reply.payload);
        }
        (Outgoing::Bus(headers, payload), _) => (headers, payload),
        (Outgoing::Http(_), Old::Subject { .. }) => {
            return Err(Fault::ours(crate::fault::Code::Internal, "no such side"));
        }
    };
    let method: &Method = match (&sent.migration.old, sent.to) {
        (Old::Subject { method, .. }, Side::Old) => method,
        _ => &sent.route.method,
    };
    // The reply subject is used once: the answer to the request itself has the same ids.
    let request = Request { subject: method.subject.clone(), headers, payload, timeout: shadow.timeout, proof: None };
    let reply = sent.edge.bus.request(request).await?;
    method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload)?;
    Ok(reply.payload)
}

fn result_of(fields: Vec<String>) -> (ShadowResult, Vec<String>) {
    (if fields.is_empty() { ShadowResult::Same } else { ShadowResult::Different }, fields)
}

async fn compared(sent: &Sent, one: Bytes, other: Bytes) -> Result<Vec<String>, TranscodeError> {
    let (method, migration) = (sent.route.method.clone(), sent.migration.clone());
    // Lists without an order are paired off, which takes its time.
    let is_ordered = migration.shadow.as_ref().is_none_or(|shadow| shadow.sameness.unordered.is_empty());
    let size = one.len() + other.len();
    let compare = move || {
        let Some(shadow) = &migration.shadow else { return Ok(Vec::new()) };
        transcode::differences(&method.tables, method.reply, &shadow.sameness, &one, &other)
    };
    if size <= ASIDE_BYTES && is_ordered {
        return compare();
    }
    // A panic there is a defect of ours; the request has its answer already.
    tokio::task::spawn_blocking(compare).await.unwrap_or_else(|_| Ok(vec![ERROR.to_owned()]))
}

/// An answer as the report shows it.
fn text(route: &Route, told: &Told) -> String {
    let payload = match told {
        Told::Reply(payload) => payload,
        Told::Refusal(code) => return format!("error {code}"),
        Told::Nothing => return String::new(),
    };
    let (method, mut json) = (&route.method, Vec::new());
    let (options, scratch) = (&route.policies.json_out, &mut Scratch::default());
    match transcode::wire_to_json(&method.tables, method.reply, options, payload, scratch, &mut json) {
        Ok(()) => String::from_utf8_lossy(&json).into_owned(),
        Err(error) => error.to_string(),
    }
}
