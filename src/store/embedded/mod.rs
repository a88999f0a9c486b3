//! The store inside one process: buckets and logs in memory, with the same revisions, ages and replays as JetStream, and
//! on disk as well where it has a folder.

mod bucket;
mod consumer;
mod disk;
mod journal;
mod log;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{Appended, BucketConfig, ConsumerConfig, Event, LogConfig, LogFigures, Logged, Resource, StoreError};
use crate::bus::{Bus, Headers, Message, Subject};

pub(super) use bucket::{EmbeddedBucket, EmbeddedWatch};
pub(super) use consumer::{EmbeddedConsumer, EmbeddedTicket};
pub(super) use log::EmbeddedReader;

use disk::Disk;
use journal::Backing;
use log::EmbeddedLog;

/// The engine.
pub(super) struct EmbeddedStore {
    bus: Bus,
    backing: Backing,
    buckets: Mutex<HashMap<&'static str, Arc<EmbeddedBucket>>>,
    logs: Mutex<Vec<Arc<EmbeddedLog>>>,
}

impl EmbeddedStore {
    pub(crate) fn in_memory(bus: Bus) -> Arc<EmbeddedStore> {
        EmbeddedStore::new(bus, Backing::default())
    }

    pub(crate) fn on_disk(bus: Bus, folder: &Path) -> Result<Arc<EmbeddedStore>, StoreError> {
        Ok(EmbeddedStore::new(bus, Backing(Some(Arc::new(Disk::open(folder)?)))))
    }

    fn new(bus: Bus, backing: Backing) -> Arc<EmbeddedStore> {
        Arc::new(EmbeddedStore { bus, backing, buckets: Mutex::default(), logs: Mutex::default() })
    }

    pub(crate) fn bucket(&self, config: BucketConfig) -> Result<Arc<EmbeddedBucket>, StoreError> {
        let mut buckets = locked(&self.buckets);
        if let Some(bucket) = buckets.get(config.name) {
            return Ok(bucket.clone());
        }
        let name = config.name;
        let bucket = EmbeddedBucket::new(config, self.backing.clone())?;
        buckets.insert(name, bucket.clone());
        Ok(bucket)
    }

    pub(crate) fn has(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Log(log) => self.log(log.name).is_ok(),
            Resource::Consumer(consumer) => self.log(consumer.log).is_ok_and(|log| log.has_consumer(consumer.name)),
            Resource::Bucket(bucket) => locked(&self.buckets).contains_key(bucket.name),
        }
    }

    pub(crate) fn provide_log(&self, config: LogConfig) -> Result<(), StoreError> {
        let mut logs = locked(&self.logs);
        if logs.iter().any(|known| known.config.name == config.name) {
            return Ok(());
        }
        let log = EmbeddedLog::new(config, self.backing.clone())?;
        if let Some(other) = logs.iter().find(|known| known.overlaps(&log)) {
            let names = (log.config.name, other.config.name);
            return Err(StoreError::Refused(format!("logs `{}` and `{}` take the same subjects", names.0, names.1)));
        }
        logs.push(log);
        Ok(())
    }

    pub(crate) async fn append(&self, event: Event) -> Result<Appended, StoreError> {
        let log = locked(&self.logs).iter().find(|log| log.takes(event.subject.as_str())).cloned();
        let log = log.ok_or_else(|| StoreError::NoLog(event.subject.as_str().to_owned()))?;
        let mut headers = event.headers;
        headers.push("Nats-Msg-Id", event.id.clone());
        let message = Message { subject: event.subject, reply: None, headers, payload: event.payload };
        let appended = log.append(&event.id, message.clone()).await?;
        self.publish(message).await?;
        Ok(appended)
    }

    /// Tells whoever listens, and the log that keeps advisories where there is one.
    async fn advise(&self, kind: &str, advisory: consumer::Advisory<'_>) -> Result<(), StoreError> {
        let internal = |text: String| StoreError::Refused(text);
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.{kind}.{}.{}", advisory.stream, advisory.consumer);
        let subject = Subject::new(subject).map_err(|error| internal(error.to_string()))?;
        let payload = serde_json::to_vec(&advisory).map_err(|error| internal(error.to_string()))?;
        let message = Message { subject, reply: None, headers: Headers::new(), payload: payload.into() };
        let log = locked(&self.logs).iter().find(|log| log.takes(message.subject.as_str())).cloned();
        if let Some(log) = log {
            log.append(&uuid::Uuid::new_v4().to_string(), message.clone()).await?;
        }
        self.publish(message).await
    }

    async fn publish(&self, message: Message) -> Result<(), StoreError> {
        self.bus.publish(message).await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    pub(crate) fn read_log(&self, name: &str, filter: &str, after: u64) -> Result<EmbeddedReader, StoreError> {
        self.log(name)?.read(filter, after)
    }

    pub(crate) async fn event(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        self.log(log)?.event(sequence).await
    }

    pub(crate) async fn event_after(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        self.log(log)?.event_after(sequence).await
    }

    pub(crate) async fn remove_event(&self, log: &str, sequence: u64) -> Result<bool, StoreError> {
        self.log(log)?.remove(sequence).await
    }

    pub(crate) fn log_figures(&self, log: &str) -> Result<LogFigures, StoreError> {
        Ok(self.log(log)?.figures())
    }

    pub(crate) fn provide_consumer(&self, config: ConsumerConfig) -> Result<(), StoreError> {
        self.log(config.log)?.provide_consumer(config)
    }

    pub(crate) fn consumer(self: &Arc<Self>, log: &str, name: &str) -> Result<EmbeddedConsumer, StoreError> {
        EmbeddedConsumer::new(self.clone(), self.log(log)?, name)
    }

    fn log(&self, name: &str) -> Result<Arc<EmbeddedLog>, StoreError> {
        let log = locked(&self.logs).iter().find(|log| log.config.name == name).cloned();
        log.ok_or_else(|| StoreError::NoLog(name.to_owned()))
    }
}

/// A lock is never held across a call that could panic with half a change made, so a poisoned one is still whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now in milliseconds since 1970: ages go on while the process is away. Readings that go backwards are lifted to the
/// last one, so that the order of records is that of their ages.
fn now_ms() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    LAST.fetch_max(now, Ordering::Relaxed).max(now)
}

/// True for what has reached an age.
fn is_older(created_ms: i64, now_ms: i64, age: Duration) -> bool {
    u128::try_from(now_ms - created_ms).is_ok_and(|passed| passed >= age.as_millis())
}
