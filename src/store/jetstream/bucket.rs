//! A bucket on JetStream: reads by the leader or by any replica, writes that name the revision they expect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::super::{BucketConfig, Change, Entry, Expected, Keys, Seen, StoreError};
use super::mirror::Mirror;
use super::watch::JetStreamWatch;
use super::{connected, header, publish, refused, unavailable};

/// Header that says what a record is, and its values for a deleted one.
pub(super) const OPERATION: &str = "KV-Operation";
const DELETED: [&str; 2] = ["DEL", "PURGE"];

/// A bucket.
pub(in crate::store) struct JetStreamBucket {
    context: Context,
    pub(super) stream: Stream,
    /// `$KV.{name}.`
    pub(super) prefix: String,
    pub(super) ttl: Option<std::time::Duration>,
    mirror: OnceCell<Arc<Mirror>>,
    /// Revision of this process's last write, for lists.
    written: AtomicU64,
}

impl JetStreamBucket {
    pub(super) fn new(context: Context, stream: Stream, config: &BucketConfig) -> JetStreamBucket {
        JetStreamBucket {
            context,
            stream,
            prefix: format!("$KV.{}.", config.name),
            ttl: config.ttl,
            mirror: OnceCell::new(),
            written: 0.into(),
        }
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.newest(key).await?.filter(|message| !is_deleted(&message.headers)).map(|message| entry(key, message)))
    }

    pub(crate) async fn get_cached(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        connected(&self.context)?;
        match self.stream.direct_get_last_for_subject(format!("{}{key}", self.prefix)).await {
            Ok(message) => Ok((!is_deleted(&message.headers)).then(|| entry(key, message))),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    pub(crate) async fn newest_revision(&self) -> Result<u64, StoreError> {
        Ok(self.last_under(">").await?.map_or(0, |message| message.sequence))
    }

    pub(crate) async fn write(&self, key: &str, value: Option<Bytes>, expected: Expected) -> Result<u64, StoreError> {
        let revision = match expected {
            Expected::Any => None,
            Expected::Absent => Some(0),
            Expected::Revision(revision) => Some(revision),
        };
        let written = match self.write_at(key, value.clone(), revision).await {
            // A deleted record has a revision, too: it is expected instead.
            Err(StoreError::Conflict) if expected == Expected::Absent => {
                let newest = self.newest(key).await?;
                let revision = match newest {
                    Some(message) if is_deleted(&message.headers) => message.sequence,
                    _ => return Err(StoreError::Conflict),
                };
                self.write_at(key, value, Some(revision)).await?
            }
            other => other?,
        };
        self.written.fetch_max(written, Ordering::Relaxed);
        Ok(written)
    }

    pub(crate) async fn list(self: &Arc<Self>, keys: &Keys, after: u64) -> Result<Vec<Entry>, StoreError> {
        let mirror = self.mirror.get_or_try_init(|| Mirror::start(self)).await?;
        mirror.list(keys, self.written().max(after)).await
    }

    /// Revision of this process's last write.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) async fn watch(&self, keys: &Keys, after: Option<u64>) -> Result<JetStreamWatch, StoreError> {
        connected(&self.context)?;
        let after = after.filter(|revision| *revision > 0);
        let kept = match after {
            Some(revision) => match self.stream.get_raw_message(revision).await {
                Ok(_) => Some(revision),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => return Err(unavailable(error)),
            },
            None => None,
        };
        let filter = match keys {
            Keys::One(key) => format!("{}{key}", self.prefix),
            Keys::Under(tokens) => format!("{}{tokens}.>", self.prefix),
            Keys::All => format!("{}>", self.prefix),
        };
        JetStreamWatch::open(&self.context, self, filter, kept, after.is_some() && kept.is_none()).await
    }

    pub(crate) async fn history(&self, key: &str) -> Result<Vec<Change>, StoreError> {
        connected(&self.context)?;
        let filter = format!("{}{key}", self.prefix);
        // Everything behind revision 0.
        let mut watch = JetStreamWatch::open(&self.context, self, filter, Some(0), false).await?;
        let mut changes = Vec::new();
        while let Seen::Change(change) = watch.next().await? {
            changes.push(change);
        }
        Ok(changes)
    }

    /// The newest record of a key, as the leader has it, deleted or not.
    async fn newest(&self, key: &str) -> Result<Option<StreamMessage>, StoreError> {
        self.last_under(&format!("{}{key}", self.prefix)).await
    }

    /// The last message on a subject, as the leader has it.
    async fn last_under(&self, subject: &str) -> Result<Option<StreamMessage>, StoreError> {
        connected(&self.context)?;
        match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn write_at(&self, key: &str, value: Option<Bytes>, revision: Option<u64>) -> Result<u64, StoreError> {
        let mut headers = HeaderMap::new();
        if let Some(revision) = revision {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, header(&revision.to_string())?);
        }
        if value.is_none() {
            headers.insert(OPERATION, DELETED[0]);
        }
        let subject = format!("{}{key}", self.prefix);
        match publish(&self.context, subject, headers, value.unwrap_or_default()).await {
            Ok(ack) => Ok(ack.sequence),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => Err(unavailable("no such bucket")),
            Err(error) => Err(refused(&error)),
        }
    }
}

pub(super) fn is_deleted(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some_and(|operation| DELETED.contains(&operation.as_str()))
}

fn entry(key: &str, message: StreamMessage) -> Entry {
    Entry {
        key: key.to_owned(),
        revision: message.sequence,
        created_ms: (message.time.unix_timestamp_nanos() / 1_000_000) as i64,
        value: message.payload,
    }
}
