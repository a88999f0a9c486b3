//! Watches and log readers on JetStream: an ordered consumer each, which the client makes anew after a lost
//! connection, behind the last message that it delivered.

use async_nats::HeaderMap;
use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::{Message, StreamMessage};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt as _;

use super::super::{Change, Logged, Seen, StoreError};
use super::bucket::{JetStreamBucket, is_deleted};
use super::unavailable;
use crate::bus::{Headers, Subject};

/// A watch on a bucket.
pub(in crate::store) struct JetStreamWatch {
    messages: Ordered,
    prefix: usize,
    /// Messages of the start that are still to come; nothing once `Current` has been told.
    pending: Option<u64>,
    /// Deleted records are told only once everything that is there has been, or where the watch goes on.
    skips_deleted: bool,
    pub is_reset: bool,
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
        let (messages, pending) = open(context, &bucket.stream, filter, policy).await?;
        let prefix = bucket.prefix.len();
        Ok(JetStreamWatch { messages, prefix, pending: Some(pending), skips_deleted: after.is_none(), is_reset })
    }

    pub(crate) async fn next(&mut self) -> Result<Seen, StoreError> {
        loop {
            if self.pending == Some(0) {
                self.pending = None;
                self.skips_deleted = false;
                return Ok(Seen::Current);
            }
            let message = next(&mut self.messages).await?;
            let change = self.change(&message)?;
            let is_skipped = self.skips_deleted && change.value.is_none();
            self.pending = self.pending.map(|pending| pending.saturating_sub(1));
            if !is_skipped {
                return Ok(Seen::Change(change));
            }
        }
    }

    fn change(&self, message: &Message) -> Result<Change, StoreError> {
        let info = message.info().map_err(unavailable)?;
        let is_deleted = message.headers.as_ref().is_some_and(is_deleted);
        Ok(Change {
            key: message.subject.get(self.prefix..).unwrap_or_default().to_owned(),
            value: (!is_deleted).then(|| message.payload.clone()),
            revision: info.stream_sequence,
            created_ms: millis(info.published),
        })
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

async fn open(
    context: &Context,
    stream: &Stream,
    filter_subject: String,
    deliver_policy: DeliverPolicy,
) -> Result<(Ordered, u64), StoreError> {
    let config = OrderedConfig {
        deliver_subject: context.client().new_inbox(),
        filter_subject,
        deliver_policy,
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
    let pending = consumer.cached_info().num_pending;
    Ok((consumer.messages().await.map_err(unavailable)?, pending))
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
