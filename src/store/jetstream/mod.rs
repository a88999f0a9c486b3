//! The store on JetStream: buckets are its key-value streams, logs its streams. Nothing is kept here but handles and,
//! where a bucket is listed, a mirror of it.

mod bucket;
mod consumer;
mod log;
mod mirror;
mod provision;
mod watch;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::header::{HeaderMap, HeaderValue};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError, PublishErrorKind};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::Mutex;

use super::{BucketConfig, ConsumerConfig, LogConfig, Resource, StoreError, VALUE_BYTES_MAX};

pub(super) use bucket::JetStreamBucket;
pub(super) use consumer::{JetStreamConsumer, JetStreamTicket};
pub(super) use watch::{JetStreamReader, JetStreamWatch};

/// Longest wait for an answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How often the server is asked for or to make a stream or consumer, and the pause in between.
const PATIENCE: usize = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// Most appends and writes that wait for an answer.
const ACKS_MAX: usize = 4_096;

/// Bytes of the largest message of a bucket: headers count, too, so it lies above that of a value.
const BUCKET_MESSAGE_MAX: i32 = VALUE_BYTES_MAX as i32 + 4_096;

/// The engine.
pub(super) struct JetStreamStore {
    context: Context,
    buckets: Mutex<HashMap<&'static str, Arc<JetStreamBucket>>>,
    /// Makes what is missing.
    creates: bool,
}

impl JetStreamStore {
    pub(crate) fn new(client: async_nats::Client, creates: bool) -> Arc<JetStreamStore> {
        let context =
            ContextBuilder::new().timeout(ANSWER_MAX).ack_timeout(ANSWER_MAX).max_ack_inflight(ACKS_MAX).build(client);
        Arc::new(JetStreamStore { context, buckets: Mutex::default(), creates })
    }

    /// The same on the same connection, which makes nothing.
    pub(crate) fn without_creating(&self) -> Arc<JetStreamStore> {
        JetStreamStore::new(self.context.client(), false)
    }

    pub(crate) async fn bucket(&self, config: BucketConfig) -> Result<Arc<JetStreamBucket>, StoreError> {
        let mut buckets = self.buckets.lock().await;
        if let Some(bucket) = buckets.get(config.name) {
            return Ok(bucket.clone());
        }
        let name = format!("KV_{}", config.name);
        let stream = match self.stream(&name).await {
            Err(StoreError::NoLog(_)) if self.creates => {
                self.provide(&Resource::Bucket(config.clone())).await?;
                self.stream(&name).await
            }
            Err(StoreError::NoLog(_)) => Err(StoreError::NoBucket(config.name.to_owned())),
            found => found,
        }?;
        let bucket = Arc::new(JetStreamBucket::new(self.context.clone(), stream, &config));
        buckets.insert(config.name, bucket.clone());
        Ok(bucket)
    }

    pub(crate) async fn provide_log(&self, config: LogConfig) -> Result<(), StoreError> {
        if !self.creates {
            return self.look_for(config.name).await;
        }
        match self.stream(config.name).await {
            Err(StoreError::NoLog(_)) => self.provide(&Resource::Log(config)).await,
            found => found.map(drop),
        }
    }

    pub(crate) async fn provide_consumer(&self, config: ConsumerConfig) -> Result<(), StoreError> {
        if !self.creates {
            // Only who reads a consumer may look at it; it notices when it opens it.
            return Ok(());
        }
        match self.consumer(config.log, config.name).await {
            Err(StoreError::NoConsumer { .. }) => self.provide(&Resource::Consumer(config)).await,
            found => found.map(drop),
        }
    }

    /// Fails where there is no log of that name. Any service may read the names, but few may read the settings.
    async fn look_for(&self, log: &str) -> Result<(), StoreError> {
        connected(&self.context)?;
        let names = self.context.stream_names();
        let found = names.try_any(|name| std::future::ready(name == log)).await.map_err(unavailable)?;
        if found { Ok(()) } else { Err(StoreError::NoLog(log.to_owned())) }
    }

    /// Makes what is missing, unless somebody else has made it meanwhile.
    async fn provide(&self, resource: &Resource) -> Result<(), StoreError> {
        match self.create(resource, self.replicas_default()).await {
            Err(StoreError::Conflict) => Ok(()),
            other => other,
        }
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

/// Asks again where the server does not answer in time: in a cluster what has just been made has no leader for a moment.
/// For what may be done twice.
async fn patiently<T, Fut>(act: impl Fn() -> Fut) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    for _ in 1..PATIENCE {
        match act().await {
            Err(StoreError::Unavailable(text)) => tracing::debug!(text, "the store is asked again"),
            other => return other,
        }
        tokio::time::sleep(PAUSE).await;
    }
    act().await
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
