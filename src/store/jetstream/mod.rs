//! The store on JetStream: buckets are its key-value streams, logs its streams. Nothing is kept here but handles and,
//! where a bucket is listed, a mirror of it.

mod bucket;
mod consumer;
mod log;
mod mirror;
mod watch;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::{kv, stream};
use bytes::Bytes;
use tokio::sync::Mutex;

use super::{BucketConfig, StoreError, VALUE_BYTES_MAX};

pub(super) use bucket::JetStreamBucket;
pub(super) use consumer::{JetStreamConsumer, JetStreamTicket};
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
