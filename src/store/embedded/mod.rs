//! The store inside one process: buckets and logs in memory, with the same revisions, ages and replays as JetStream.

mod bucket;
mod log;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::{Appended, BucketConfig, Event, LogConfig, StoreError};
use crate::bus::{Bus, Message};

pub(super) use bucket::{EmbeddedBucket, EmbeddedWatch};
pub(super) use log::{EmbeddedLog, EmbeddedReader};

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

    pub(crate) fn provide_log(&self, config: &LogConfig) -> Result<(), StoreError> {
        let mut logs = locked(&self.logs);
        if !logs.iter().any(|log| log.name() == config.name) {
            logs.push(EmbeddedLog::new(config)?);
        }
        Ok(())
    }

    pub(crate) async fn append(&self, event: Event) -> Result<Appended, StoreError> {
        let log = locked(&self.logs).iter().find(|log| log.takes(event.subject.as_str())).cloned();
        let log = log.ok_or_else(|| StoreError::NoLog(event.subject.as_str().to_owned()))?;
        let mut headers = event.headers;
        headers.push("Nats-Msg-Id", event.id.clone());
        let message = Message { subject: event.subject, reply: None, headers, payload: event.payload };
        let appended = log.append(&event.id, message.clone());
        self.bus.publish(message).await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(appended)
    }

    pub(crate) fn read_log(&self, name: &str, filter: &str, after: u64) -> Result<EmbeddedReader, StoreError> {
        let log = locked(&self.logs).iter().find(|log| log.name() == name).cloned();
        log.ok_or_else(|| StoreError::NoLog(name.to_owned()))?.read(filter, after)
    }
}

/// A lock is never held across a call that could panic with half a change made, so a poisoned one is still whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
