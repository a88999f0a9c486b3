//! The store on JetStream: buckets are its key-value streams, logs its streams. Nothing is kept here but handles and,
//! where a bucket is listed, a mirror of it.

mod bucket;
mod mirror;
mod watch;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::header::{HeaderMap, HeaderName, HeaderValue, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::{kv, stream};
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{Appended, BucketConfig, Event, LogConfig, StoreError, VALUE_BYTES_MAX};

pub(super) use bucket::JetStreamBucket;
pub(super) use watch::{JetStreamReader, JetStreamWatch};

/// Longest wait for an answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Most appends and writes that wait for an answer.
const ACKS_MAX: usize = 4_096;

/// The engine.
pub(super) struct JetStreamStore {
    context: Context,
    buckets: Mutex<HashMap<&'static str, Arc<JetStreamBucket>>>,
}

impl JetStreamStore {
    pub(crate) fn new(client: async_nats::Client) -> Arc<JetStreamStore> {
        let context =
            ContextBuilder::new().timeout(ANSWER_MAX).ack_timeout(ANSWER_MAX).max_ack_inflight(ACKS_MAX).build(client);
        Arc::new(JetStreamStore { context, buckets: Mutex::default() })
    }

    pub(crate) async fn bucket(&self, config: BucketConfig) -> Result<Arc<JetStreamBucket>, StoreError> {
        let mut buckets = self.buckets.lock().await;
        if let Some(bucket) = buckets.get(config.name) {
            return Ok(bucket.clone());
        }
        connected(&self.context)?;
        let stream = match self.context.get_stream(format!("KV_{}", config.name)).await {
            Ok(stream) => stream,
            Err(_) => self.create_bucket(&config).await?,
        };
        let bucket = Arc::new(JetStreamBucket::new(self.context.clone(), stream, &config));
        buckets.insert(config.name, bucket.clone());
        Ok(bucket)
    }

    async fn create_bucket(&self, config: &BucketConfig) -> Result<stream::Stream, StoreError> {
        let created = kv::Config {
            bucket: config.name.to_owned(),
            history: i64::from(config.history.max(1)),
            max_age: config.ttl.unwrap_or_default(),
            // Headers count, too, so the stream's own limit lies above that of a value.
            max_value_size: VALUE_BYTES_MAX as i32 + 4_096,
            num_replicas: 1,
            ..kv::Config::default()
        };
        Ok(self.context.create_key_value(created).await.map_err(unavailable)?.stream)
    }

    pub(crate) async fn provide_log(&self, config: &LogConfig) -> Result<(), StoreError> {
        connected(&self.context)?;
        let config = stream::Config {
            name: config.name.to_owned(),
            subjects: config.subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            max_age: config.max_age,
            duplicate_window: config.duplicate_window,
            max_message_size: VALUE_BYTES_MAX as i32,
            allow_direct: true,
            ..stream::Config::default()
        };
        self.context.get_or_create_stream(config).await.map(drop).map_err(unavailable)
    }

    pub(crate) async fn append(&self, event: Event) -> Result<Appended, StoreError> {
        let mut headers = HeaderMap::new();
        for (name, value) in event.headers.iter() {
            headers.append(HeaderName::from_str(name).map_err(unavailable)?, header(value)?);
        }
        headers.insert(NATS_MESSAGE_ID, header(&event.id)?);
        let subject = event.subject.as_str().to_owned();
        let ack = publish(&self.context, subject.clone(), headers, event.payload).await.map_err(|error| {
            if error.kind() == PublishErrorKind::StreamNotFound { StoreError::NoLog(subject) } else { refused(&error) }
        })?;
        Ok(Appended { sequence: ack.sequence, is_duplicate: ack.duplicate })
    }

    pub(crate) async fn read_log(&self, name: &str, filter: &str, after: u64) -> Result<JetStreamReader, StoreError> {
        connected(&self.context)?;
        let stream = self.context.get_stream(name).await.map_err(|_| StoreError::NoLog(name.to_owned()))?;
        JetStreamReader::open(&self.context, &stream, filter, after).await
    }
}

/// Publishes and waits for the stream's word.
async fn publish(
    context: &Context,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<async_nats::jetstream::publish::PublishAck, PublishError> {
    if let Err(error) = connected(context) {
        return Err(PublishError::with_source(PublishErrorKind::BrokenPipe, error));
    }
    context.publish_with_headers(subject, headers, payload).await?.await
}

/// Fails at once where the client would wait for a connection.
fn connected(context: &Context) -> Result<(), StoreError> {
    match context.client().connection_state() {
        ConnectionState::Connected => Ok(()),
        _ => Err(StoreError::Unavailable("not connected".to_owned())),
    }
}

/// The fallible form: the infallible one panics on line ends.
fn header(value: &str) -> Result<HeaderValue, StoreError> {
    HeaderValue::from_str(value).map_err(unavailable)
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// What a refused publish means.
fn refused(error: &PublishError) -> StoreError {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match error.kind() {
        PublishErrorKind::WrongLastSequence => StoreError::Conflict,
        _ if text.contains("maximum") || text.contains("insufficient") => StoreError::Full(text),
        _ => StoreError::Unavailable(text),
    }
}
