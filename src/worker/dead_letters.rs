//! Dead letters: copies of events that a consumer gave up, kept for people to look at and to send again. Two ways lead
//! here, and one id keeps them from making two copies: the consumer itself, and the store's advisory where the
//! consumer died over the event. Work that nobody takes at all comes by way of `work_queues`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use super::consume::{Consume, Setback};
use super::context::Context;
use super::service::Service;
use super::types::Timestamp;
use super::work_queues::WorkQueues;
use crate::bus::{Headers, Subject};
use crate::fault::{Code, Fault};
use crate::store::{Event, Logged, Store, StoreError};
use crate::telemetry::{DEAD_LETTERS, EVENTS_HANDLED};

/// The log of dead letters.
pub const LOG: &str = "DLQ";
/// Reason of an event that was ended because its copy is a dead letter already.
pub const ENDED: &str = "dlq";
/// Reason of a copy whose event was gone before anybody could read it.
pub const EXPIRED: &str = "expired";

/// How the subject of an advisory begins that says that an event was ended.
const TERMINATED: &str = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.";
/// Reasons that a NATS server gives where it found an unanswered event gone from its log, whatever took it out
/// (`consumer.go`). A node that comes back says so of all that it had not heard an answer to when it went.
const GONE: [&str; 2] = ["Unacknowledged message was deleted", "Message deleted by stream limits"];

/// Longest reason in bytes.
const REASON_MAX: usize = 1_024;
/// What the copy says of itself.
const STREAM: &str = "Dlq-Stream";
const CONSUMER: &str = "Dlq-Consumer";
const SEQUENCE: &str = "Dlq-Sequence";
const SUBJECT: &str = "Dlq-Subject";
const DELIVERIES: &str = "Dlq-Deliveries";
const REASON: &str = "Dlq-Reason";
const TIME: &str = "Dlq-Time";
const ORIGINAL_ID: &str = "Dlq-Original-Msg-Id";
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Interval at which dead letters are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// Counts the dead letters there are for as long as the service runs (`tidegate_dlq_messages`), as one of its tasks. All
/// replicas count the same ones.
pub async fn count(context: Context) {
    let waiting = metrics::gauge!(DEAD_LETTERS);
    loop {
        match context.store().log_figures(LOG).await {
            Ok(figures) => waiting.set(figures.events as f64),
            Err(error) => tracing::debug!(%error, "the dead letters are not counted"),
        }
        tokio::select! {
            () = tokio::time::sleep(COUNTED) => {}
            _ = context.until_cancelled() => return,
        }
    }
}

/// Why an event is given up, and by whom.
pub(super) struct GivenUp<'a> {
    pub(super) log: &'a str,
    pub(super) consumer: &'a str,
    pub(super) sequence: u64,
    pub(super) deliveries: u32,
    pub(super) reason: &'a str,
}

/// Keeps a copy of an event, or of what is known of one that is gone; false where there is one already, which changes
/// nothing.
pub(super) async fn keep(
    store: &Store,
    given_up: &GivenUp<'_>,
    event: Option<&Logged>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let GivenUp { log, consumer, sequence, deliveries, .. } = given_up;
    let subject = Subject::new(format!("dlq.{log}.{consumer}")).map_err(|error| refused(&error))?;
    let id = format!("{log}:{consumer}:{sequence}");
    let headers = headers(given_up, *deliveries, event, now_ms);
    let payload = event.map_or_else(Bytes::new, |event| event.payload.clone());
    Ok(!store.append(Event { subject, id, headers, payload }).await?.is_duplicate)
}

/// [`keep`], counted as an ending of the event that its consumer had nothing to do with.
pub(super) async fn keep_and_count(
    store: &Store,
    given_up: &GivenUp<'_>,
    event: Option<&Logged>,
    now_ms: i64,
) -> Result<(), StoreError> {
    if keep(store, given_up, event, now_ms).await? {
        let consumer = given_up.consumer.to_owned();
        metrics::counter!(EVENTS_HANDLED, "consumer" => consumer, "outcome" => "dead_letter").increment(1);
    }
    Ok(())
}

/// Keeps a copy of an event that a receiver of pushes has not answered, under `dlq.{pusher}.{receiver}`.
pub async fn keep_unanswered(
    context: &Context,
    pusher: &str,
    receiver: &str,
    event: &Logged,
    tries: u32,
) -> Result<(), Fault> {
    let reason = "the receiver has not answered";
    let given_up = GivenUp { log: pusher, consumer: receiver, sequence: event.sequence, deliveries: tries, reason };
    keep(context.store(), &given_up, Some(event), context.now_ms()).await?;
    Ok(())
}

fn headers(given_up: &GivenUp<'_>, deliveries: u32, event: Option<&Logged>, now_ms: i64) -> Headers {
    // Ours come first: there is room for a certain number only.
    let mut headers = Headers::with_capacity(16);
    headers.push(STREAM, given_up.log);
    headers.push(CONSUMER, given_up.consumer);
    headers.push(SEQUENCE, given_up.sequence.to_string());
    headers.push(DELIVERIES, deliveries.to_string());
    headers.push(REASON, one_line(given_up.reason));
    headers.push(TIME, Timestamp::from_millis(now_ms).to_string());
    let Some(event) = event else { return headers };
    headers.push(SUBJECT, event.subject.as_str());
    for (name, value) in event.headers.iter() {
        if name.eq_ignore_ascii_case(MESSAGE_ID) {
            headers.push(ORIGINAL_ID, value);
        } else if !is_order_to_the_store(name) && !is_ours(name) {
            headers.push(name, value);
        }
    }
    headers
}

/// True for headers that told the store what to do with the original, and would make it refuse a copy.
fn is_order_to_the_store(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("nats-expected-") || name == "nats-ttl" || name == "nats-rollup"
}

fn is_ours(name: &str) -> bool {
    name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("dlq-"))
}

/// A text as a header's value.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line = String::new();
    for letter in clean {
        if line.len() + letter.len_utf8() > REASON_MAX {
            break;
        }
        line.push(letter);
    }
    line
}

/// What happened to a dead letter that was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It is in its log again.
    Sent {
        /// Where it was published.
        subject: String,
        /// Its position there.
        sequence: u64,
    },
    /// There is no dead letter at this position.
    Missing,
    /// Its event was gone before it could be read, so there is nothing to send.
    Empty,
}

/// Sends a dead letter again to where its event was published, then takes it out of the log. All consumers of that
/// subject get it, under a new id. Fails with the store's error; the dead letter stays then.
pub async fn redrive(store: &Store, sequence: u64) -> Result<Redriven, StoreError> {
    let Some(letter) = store.event(LOG, sequence).await? else { return Ok(Redriven::Missing) };
    let Some(subject) = letter.headers.get(SUBJECT) else { return Ok(Redriven::Empty) };
    let subject = Subject::new(subject).map_err(|error| refused(&error))?;
    let mut headers = Headers::with_capacity(16);
    for (name, value) in letter.headers.iter().filter(|(name, _)| !is_ours(name)) {
        if !name.eq_ignore_ascii_case(MESSAGE_ID) {
            headers.push(name, value);
        }
    }
    // The same each time, so that a repeat after a lost answer does not send it twice.
    let id = format!("redrive:{}:{sequence}", letter.created_ms);
    let event = Event { subject: subject.clone(), id, headers, payload: letter.payload };
    let sequence_there = store.append(event).await?.sequence;
    store.remove_event(LOG, sequence).await?;
    Ok(Redriven::Sent { subject: subject.as_str().to_owned(), sequence: sequence_there })
}

fn refused(error: &crate::bus::SubjectError) -> StoreError {
    StoreError::Refused(error.to_string())
}

/// What the store says of an event that it gave up.
#[derive(Deserialize)]
struct Advisory {
    stream: String,
    consumer: String,
    stream_seq: u64,
    #[serde(default)]
    deliveries: u32,
    reason: Option<String>,
}

impl Advisory {
    /// True where a reader said that the event is to be given up, false where the store found so by itself.
    fn is_of_a_reader(&self, subject: &Subject) -> bool {
        let found_gone = self.reason.as_deref().is_some_and(|reason| GONE.contains(&reason));
        subject.as_str().starts_with(TERMINATED) && !found_gone
    }
}

/// Adds the reader of advisories (`MAX_DELIVERIES`, `MSG_TERMINATED`) to the one service that may read every log. It
/// makes dead letters of events that the store gave up, and takes them out of work queues, which would keep them though
/// nobody gets them any more. Work that nobody has done becomes a dead letter before it is too old, so that an event
/// that is gone from its work queue meanwhile, though the store reports it, is none: it has been acknowledged.
#[must_use]
pub fn reading_advisories(service: Service, advisories: impl Into<Consume>, work_queues: WorkQueues) -> Service {
    let work_queues = Arc::new(work_queues);
    let watched = work_queues.clone();
    let watch = move |context: Context| {
        let watched = watched.clone();
        async move { watched.watch(&context).await }
    };
    service.task("work-queues", watch).consumer(advisories, move |context, advisory| {
        let work_queues = work_queues.clone();
        async move { read_advisory(&context, &advisory, &work_queues).await }
    })
}

/// Keeps a copy of the event that an advisory is about, then takes it out of its log where that is a work queue.
async fn read_advisory(context: &Context, logged: &Logged, work_queues: &WorkQueues) -> Result<(), Setback> {
    let advisory: Advisory = serde_json::from_slice(&logged.payload).map_err(|error| {
        Setback::Never(Fault::upstream(Code::Internal, "an advisory does not decode").internal(error.to_string()))
    })?;
    let is_copied = advisory.reason.as_deref() == Some(ENDED);
    // A dead letter of a dead letter would come back for ever.
    let is_about_us = advisory.stream == LOG;
    if is_copied || is_about_us {
        return Ok(());
    }
    let (store, now_ms) = (context.store(), context.now_ms());
    let event = match store.event(&advisory.stream, advisory.stream_seq).await {
        Err(StoreError::NoLog(_)) => None,
        found => found.map_err(Fault::from)?,
    };
    let Advisory { stream, consumer, stream_seq: sequence, deliveries, .. } = &advisory;
    if event.is_none()
        && !advisory.is_of_a_reader(&logged.subject)
        && work_queues.was_dealt_with(stream, logged.created_ms, now_ms)
    {
        tracing::info!(log = stream, consumer, sequence, "work that the store reports as gone has been done");
        return Ok(());
    }
    let reason = match (&event, &advisory.reason) {
        (None, _) => EXPIRED,
        (Some(_), Some(reason)) if !reason.is_empty() => reason,
        (Some(_), Some(_)) => "terminated",
        (Some(_), None) => "max_deliveries",
    };
    let given_up = GivenUp { log: stream, consumer, sequence: *sequence, deliveries: *deliveries, reason };
    keep_and_count(store, &given_up, event.as_ref(), now_ms).await.map_err(Fault::from)?;
    if event.is_some() && work_queues.contains(stream) {
        store.remove_event(stream, *sequence).await.map_err(Fault::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_what_it_is_a_copy_of_and_orders_nothing() {
        let mut original = Headers::new();
        for (name, value) in
            [("Nats-Msg-Id", "7"), ("Event-Type", "x"), ("Nats-Expected-Stream", "A"), ("Dlq-Reason", "old")]
        {
            original.push(name, value);
        }
        let subject = Subject::new("evt.a.b.v1").unwrap();
        let event = Logged { subject, headers: original, payload: Bytes::new(), sequence: 3, created_ms: 0 };
        let given_up = GivenUp { log: "A", consumer: "c", sequence: 3, deliveries: 5, reason: "first line\nsecond" };
        let headers = headers(&given_up, 5, Some(&event), 0);
        let all: Vec<(&str, &str)> = headers.iter().collect();
        let expected = [
            ("Dlq-Stream", "A"),
            ("Dlq-Consumer", "c"),
            ("Dlq-Sequence", "3"),
            ("Dlq-Deliveries", "5"),
            ("Dlq-Reason", "first line second"),
            ("Dlq-Time", "1970-01-01T00:00:00Z"),
            ("Dlq-Subject", "evt.a.b.v1"),
            ("Dlq-Original-Msg-Id", "7"),
            ("Event-Type", "x"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let line = one_line(&"ä".repeat(REASON_MAX));
        assert_eq!(line.len(), REASON_MAX);
        assert_eq!(line, "ä".repeat(REASON_MAX / 2));
    }
}
