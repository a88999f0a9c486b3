//! Watches and log readers on JetStream: an ordered consumer each, which the client makes anew after a lost
//! connection, behind the last message that it delivered.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::{Info, Message, StreamMessage};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::super::{Change, Logged, Seen, StoreError};
use super::bucket::{JetStreamBucket, is_deleted};
use super::{ANSWER_MAX, unavailable};
use crate::bus::{Headers, Subject};

/// Step by which the silence at a start is counted.
const QUIET_STEP: Duration = Duration::from_millis(250);

/// A watch on a bucket.
pub(in crate::store) struct JetStreamWatch {
    messages: Ordered,
    prefix: usize,
    /// Nothing once `Current` has been told.
    start: Option<Start>,
    /// Revision of the last write that it has come to, told or not.
    pub(super) revision: u64,
    pub is_reset: bool,
}

/// What was there when a watch began is being told.
struct Start {
    /// The consumer that it began with; one that the client makes anew delivers other messages.
    consumer: String,
    /// Messages that this consumer found.
    left: u64,
    /// How long it was waited for the next message, in steps: who waits may give up and begin again.
    quiet: Duration,
    /// Keys told, where a deletion is told only of these; it may come while others are still to be told.
    told: Option<HashSet<String>>,
}

impl JetStreamWatch {
    pub(super) async fn open(
        context: &Context,
        bucket: &JetStreamBucket,
        filter: String,
        after: Option<u64>,
        is_reset: bool,
    ) -> Result<JetStreamWatch, StoreError> {
        let policy = match after {
            Some(revision) => DeliverPolicy::ByStartSequence { start_sequence: revision + 1 },
            None => DeliverPolicy::LastPerSubject,
        };
        let (messages, consumer, left) = open(context, &bucket.stream, filter, policy).await?;
        let start = Start { consumer, left, quiet: Duration::ZERO, told: after.is_none().then(HashSet::new) };
        let prefix = bucket.prefix.len();
        Ok(JetStreamWatch { messages, prefix, start: Some(start), revision: 0, is_reset })
    }

    pub(crate) async fn next(&mut self) -> Result<Seen, StoreError> {
        loop {
            let message = match &mut self.start {
                Some(Start { left: 0, .. }) => {
                    self.start = None;
                    return Ok(Seen::Current);
                }
                // What was there may have gone meanwhile, so that nothing comes in its place.
                Some(start) => match timeout(QUIET_STEP, next(&mut self.messages)).await {
                    Ok(message) => message?,
                    Err(_) if start.is_quiet_for_too_long() => return Err(unavailable("what was there has gone")),
                    Err(_) => continue,
                },
                None => next(&mut self.messages).await?,
            };
            let info = message.info().map_err(unavailable)?;
            let change = self.change(&message, &info);
            self.revision = info.stream_sequence;
            if self.start.as_mut().is_none_or(|start| start.tells(&change, &info)) {
                return Ok(Seen::Change(change));
            }
        }
    }

    fn change(&self, message: &Message, info: &Info<'_>) -> Change {
        let is_deleted = message.headers.as_ref().is_some_and(is_deleted);
        Change {
            key: message.subject.get(self.prefix..).unwrap_or_default().to_owned(),
            value: (!is_deleted).then(|| message.payload.clone()),
            revision: info.stream_sequence,
            created_ms: millis(info.published),
        }
    }
}

impl Start {
    fn is_quiet_for_too_long(&mut self) -> bool {
        self.quiet += QUIET_STEP;
        self.quiet >= ANSWER_MAX
    }

    /// Counts a message; whether it is told.
    fn tells(&mut self, change: &Change, info: &Info<'_>) -> bool {
        self.quiet = Duration::ZERO;
        self.left = match info.pending {
            0 => 0,
            _ if info.consumer == self.consumer => self.left.saturating_sub(1),
            _ => u64::MAX,
        };
        let Some(told) = &mut self.told else { return true };
        match change.value {
            None => told.remove(&change.key),
            Some(_) => {
                told.insert(change.key.clone());
                true
            }
        }
    }
}

/// A reader of a log.
pub(in crate::store) struct JetStreamReader(Ordered);

impl JetStreamReader {
    pub(super) async fn open(
        context: &Context,
        stream: &Stream,
        filter: &str,
        after: u64,
    ) -> Result<JetStreamReader, StoreError> {
        let policy = DeliverPolicy::ByStartSequence { start_sequence: after + 1 };
        Ok(JetStreamReader(open(context, stream, filter.to_owned(), policy).await?.0))
    }

    pub(crate) async fn next(&mut self) -> Result<Logged, StoreError> {
        logged(&next(&mut self.0).await?)
    }
}

/// A message that a consumer delivered, as an event.
pub(super) fn logged(message: &Message) -> Result<Logged, StoreError> {
    let info = message.info().map_err(unavailable)?;
    Ok(Logged {
        sequence: info.stream_sequence,
        created_ms: millis(info.published),
        subject: Subject::new(message.subject.to_string()).map_err(unavailable)?,
        headers: message.headers.as_ref().map(headers).unwrap_or_default(),
        payload: message.payload.clone(),
    })
}

/// A message as the server keeps it, as an event.
pub(super) fn kept(message: StreamMessage) -> Result<Logged, StoreError> {
    Ok(Logged {
        sequence: message.sequence,
        created_ms: millis(message.time),
        subject: Subject::new(message.subject.to_string()).map_err(unavailable)?,
        headers: headers(&message.headers),
        payload: message.payload,
    })
}

/// A consumer, its name, and how many messages it found.
async fn open(
    context: &Context,
    stream: &Stream,
    filter_subject: String,
    deliver_policy: DeliverPolicy,
) -> Result<(Ordered, String, u64), StoreError> {
    let config = OrderedConfig {
        deliver_subject: context.client().new_inbox(),
        filter_subject,
        deliver_policy,
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
    let (name, pending) = (consumer.cached_info().name.clone(), consumer.cached_info().num_pending);
    Ok((consumer.messages().await.map_err(unavailable)?, name, pending))
}

async fn next(messages: &mut Ordered) -> Result<Message, StoreError> {
    match messages.next().await {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(unavailable(error)),
        None => Err(unavailable("the connection has been closed")),
    }
}

/// Milliseconds since 1970.
fn millis(at: DateTime) -> i64 {
    (at.unix_timestamp_nanos() / 1_000_000) as i64
}

fn headers(map: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len());
    for (name, values) in map.iter() {
        for value in values {
            headers.push(name, value);
        }
    }
    headers
}
