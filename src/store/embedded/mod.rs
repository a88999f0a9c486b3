//! The store inside one process: buckets and logs in memory, with the same revisions, ages and replays as JetStream.

mod bucket;
mod consumer;
mod log;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Appended, BucketConfig, ConsumerConfig, Event, LogConfig, LogFigures, Logged, Resource, StoreError};
use crate::bus::{Bus, Headers, Message, Subject};

pub(super) use bucket::{EmbeddedBucket, EmbeddedWatch};
pub(super) use consumer::{EmbeddedConsumer, EmbeddedTicket};
pub(super) use log::EmbeddedReader;

use log::EmbeddedLog;

/// The engine.
pub(super) struct EmbeddedStore {
    bus: Bus,
    buckets: Mutex<HashMap<&'static str, Arc<EmbeddedBucket>>>,
    logs: Mutex<Vec<Arc<EmbeddedLog>>>,
}

impl EmbeddedStore {
    pub(crate) fn new(bus: Bus) -> Arc<EmbeddedStore> {
        Arc::new(EmbeddedStore { bus, buckets: Mutex::default(), logs: Mutex::default() })
    }

    pub(crate) fn bucket(&self, config: BucketConfig) -> Arc<EmbeddedBucket> {
        let mut buckets = locked(&self.buckets);
        buckets.entry(config.name).or_insert_with(|| EmbeddedBucket::new(config)).clone()
    }

    pub(crate) fn has(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Log(log) => self.log(log.name).is_ok(),
            Resource::Consumer(consumer) => self.log(consumer.log).is_ok_and(|log| log.has_consumer(consumer.name)),
            Resource::Bucket(bucket) => locked(&self.buckets).contains_key(bucket.name),
        }
    }

    pub(crate) fn provide_log(&self, config: LogConfig) -> Result<(), StoreError> {
        let log = EmbeddedLog::new(config)?;
        let mut logs = locked(&self.logs);
        if logs.iter().any(|known| known.config.name == log.config.name) {
            return Ok(());
        }
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
        let appended = log.append(&event.id, message.clone())?;
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
            log.append(&uuid::Uuid::new_v4().to_string(), message.clone())?;
        }
        self.publish(message).await
    }

    async fn publish(&self, message: Message) -> Result<(), StoreError> {
        self.bus.publish(message).await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    pub(crate) fn read_log(&self, name: &str, filter: &str, after: u64) -> Result<EmbeddedReader, StoreError> {
        self.log(name)?.read(filter, after)
    }

    pub(crate) fn event(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        Ok(self.log(log)?.event(sequence))
    }

    pub(crate) fn event_after(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        Ok(self.log(log)?.event_after(sequence))
    }

    pub(crate) fn remove_event(&self, log: &str, sequence: u64) -> Result<bool, StoreError> {
        self.log(log)?.remove(sequence)
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

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
