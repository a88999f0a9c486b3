//! The store as floors above see it: buckets of keys with revisions, and logs of events. Two engines behind one seam:
//! JetStream, and an embedded one for a single process, in memory or on disk. Knows nothing of protobuf or the game.

mod consumer;
mod embedded;
mod error;
mod jetstream;
mod key;
mod log;
mod provision;
mod redis_tier;
mod tier;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::bus::Bus;

pub use consumer::{Consumer, ConsumerConfig, Job, UNANSWERED_MAX};
pub use error::StoreError;
pub use key::{KEY_MAX, Keys, interned, key, key_token};
pub use log::{
    Appended, ConsumerFigures, Discard, Event, LOG_BYTES_MAX, LOG_EVENTS_MAX, LogConfig, LogFigures, LogReader, Logged,
    Retention,
};
pub use provision::{Difference, Replicas, Resource, Step};
pub use tier::Tier;

/// Largest value: with its headers it fits a message of one MiB.
pub const VALUE_BYTES_MAX: usize = 960 * 1024;
/// Longest wait for an answer of a cache's server, where nothing else is said: about what it costs to do without.
pub const CACHE_PATIENCE: Duration = Duration::from_millis(50);
/// Most keys of one embedded bucket.
pub const BUCKET_KEYS_MAX: usize = 1_000_000;
/// Most bytes of one embedded bucket, values of kept revisions included.
pub const BUCKET_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A bucket to open.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Its name, `tg_state`.
    pub name: &'static str,
    /// Age at which a record goes.
    pub ttl: Option<Duration>,
    /// Revisions kept of each key, 1 to 64.
    pub history: u8,
}

/// A live record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// Its revision: grows with every write to the bucket.
    pub revision: u64,
    /// When it was written, milliseconds since 1970.
    pub created_ms: i64,
}

/// What must be there for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// Nothing, or a deleted record.
    Absent,
    /// The record of this revision.
    Revision(u64),
}

/// A write that a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// The new value; nothing where the record was deleted.
    pub value: Option<Bytes>,
    /// Its revision.
    pub revision: u64,
    /// When it was written, milliseconds since 1970.
    pub created_ms: i64,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A value that was there, or a write.
    Change(Change),
    /// Everything that was there when the watch began has been told. Once.
    Current,
}

/// A store. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    /// Where the shared tier of caches is, where that is not in buckets.
    cache: Option<Arc<redis_tier::RedisCache>>,
}

#[derive(Clone)]
enum Engine {
    Embedded(Arc<embedded::EmbeddedStore>),
    JetStream(Arc<jetstream::JetStreamStore>),
}

/// A bucket. Cloning shares it.
#[derive(Clone)]
pub struct Bucket(BucketEngine);

#[derive(Clone)]
enum BucketEngine {
    Embedded(Arc<embedded::EmbeddedBucket>),
    JetStream(Arc<jetstream::JetStreamBucket>),
}

/// Writes to keys, as they come. Slow readers miss revisions that were replaced meanwhile, never the newest one.
pub struct Watch(WatchEngine);

enum WatchEngine {
    Embedded(embedded::EmbeddedWatch),
    JetStream(Box<jetstream::JetStreamWatch>),
}

impl Store {
    /// The store that belongs to a bus: JetStream on NATS, the embedded one in memory in a single process.
    pub fn of(bus: &Bus) -> Store {
        Store::over(match bus.nats_client() {
            Some(nats) => Engine::JetStream(jetstream::JetStreamStore::new(nats.client().clone(), true)),
            None => Engine::Embedded(embedded::EmbeddedStore::in_memory(bus.clone())),
        })
    }

    /// The embedded store of a single process, kept in a folder that is made where there is none: what it has
    /// acknowledged is there after a crash. Fails with [`StoreError::NotOpened`] where another process has the folder,
    /// or what is in it is damaged or not ours.
    pub fn on_disk(bus: &Bus, folder: &Path) -> Result<Store, StoreError> {
        Ok(Store::over(Engine::Embedded(embedded::EmbeddedStore::on_disk(bus.clone(), folder)?)))
    }

    /// The same store, which makes nothing: what is not there is an error. For programs whose user on the server may
    /// not make it.
    #[must_use]
    pub fn without_creating(&self) -> Store {
        let engine = match &self.engine {
            // In one process nobody else could make it.
            Engine::Embedded(_) => self.engine.clone(),
            Engine::JetStream(store) => Engine::JetStream(store.without_creating()),
        };
        Store { engine, cache: self.cache.clone() }
    }

    /// The same store, whose caches share a Redis or Valkey server (`redis://user:password@host:6379/0`, `rediss://`
    /// with TLS, `?prefix=` for what keys begin with) instead of buckets, and wait no longer than `patience` for it. The server need not be there: then
    /// caches only have their own memory. To be called within a runtime. Fails with [`StoreError::Refused`] where the
    /// URL is none.
    pub fn with_cache(&self, url: &str, patience: Duration) -> Result<Store, StoreError> {
        Ok(Store { engine: self.engine.clone(), cache: Some(redis_tier::RedisCache::open(url, patience)?) })
    }

    fn over(engine: Engine) -> Store {
        Store { engine, cache: None }
    }

    /// The bucket of that name, made where there is none yet.
    pub async fn bucket(&self, config: BucketConfig) -> Result<Bucket, StoreError> {
        Ok(Bucket(match &self.engine {
            Engine::Embedded(store) => BucketEngine::Embedded(store.bucket(config)?),
            Engine::JetStream(store) => BucketEngine::JetStream(store.bucket(config).await?),
        }))
    }
}

impl Bucket {
    /// The live record of a key, as the leader has it: a caller reads its own write on any replica.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        key::check(key)?;
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.get(key).await,
            BucketEngine::JetStream(bucket) => bucket.get(key).await,
        }
    }

    /// The live record of a key, as any replica has it: cheaper, and a moment behind.
    pub async fn get_cached(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        key::check(key)?;
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.get(key).await,
            BucketEngine::JetStream(bucket) => bucket.get_cached(key).await,
        }
    }

    /// Revision of the newest write, as the leader has it; 0 where there is none, or where it was purged.
    pub async fn newest_revision(&self) -> Result<u64, StoreError> {
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.newest_revision().await,
            BucketEngine::JetStream(bucket) => bucket.newest_revision().await,
        }
    }

    /// True where a read costs no way to a server and back.
    pub fn is_near(&self) -> bool {
        matches!(self.0, BucketEngine::Embedded(_))
    }

    /// Writes a value and returns its revision. Fails with [`StoreError::Conflict`] where something else is there.
    pub async fn put(&self, key: &str, value: Bytes, expected: Expected) -> Result<u64, StoreError> {
        key::check(key)?;
        check_size(value.len())?;
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.write(key, Some(value), expected).await,
            BucketEngine::JetStream(bucket) => bucket.write(key, Some(value), expected).await,
        }
    }

    /// Deletes a record and returns the revision of the deletion: revisions never go back.
    pub async fn delete(&self, key: &str, expected: Expected) -> Result<u64, StoreError> {
        key::check(key)?;
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.write(key, None, expected).await,
            BucketEngine::JetStream(bucket) => bucket.write(key, None, expected).await,
        }
    }

    /// Every revision of a key that is kept, deletions included, the oldest first.
    pub async fn history(&self, key: &str) -> Result<Vec<Change>, StoreError> {
        key::check(key)?;
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.history(key).await,
            BucketEngine::JetStream(bucket) => bucket.history(key).await,
        }
    }

    /// The live records of some keys in order of keys: this process's own writes are in it, others' after a moment.
    pub async fn list(&self, keys: &Keys) -> Result<Vec<Entry>, StoreError> {
        self.list_behind(keys, 0).await
    }

    /// The same, not before what anybody has written up to the revision `after` is in it.
    pub async fn list_behind(&self, keys: &Keys, after: u64) -> Result<Vec<Entry>, StoreError> {
        keys.check()?;
        match &self.0 {
            BucketEngine::Embedded(bucket) => bucket.list(keys).await,
            BucketEngine::JetStream(bucket) => bucket.list(keys, after).await,
        }
    }

    /// Watches keys: first what is there, then each write. With `after`, only what was written behind that revision,
    /// or everything where that revision is no longer kept ([`Watch::is_reset`]).
    pub async fn watch(&self, keys: Keys, after: Option<u64>) -> Result<Watch, StoreError> {
        keys.check()?;
        Ok(Watch(match &self.0 {
            BucketEngine::Embedded(bucket) => WatchEngine::Embedded(bucket.clone().watch(keys, after).await?),
            BucketEngine::JetStream(bucket) => WatchEngine::JetStream(Box::new(bucket.watch(&keys, after).await?)),
        }))
    }
}

impl Watch {
    /// The next write, as soon as there is one. Can be dropped while it waits.
    pub async fn next(&mut self) -> Result<Seen, StoreError> {
        match &mut self.0 {
            WatchEngine::Embedded(watch) => watch.next().await,
            WatchEngine::JetStream(watch) => watch.next().await,
        }
    }

    /// The revision asked for is no longer kept, so the watch began with what is there.
    pub fn is_reset(&self) -> bool {
        match &self.0 {
            WatchEngine::Embedded(watch) => watch.is_reset,
            WatchEngine::JetStream(watch) => watch.is_reset,
        }
    }
}

fn check_size(size: usize) -> Result<(), StoreError> {
    if size > VALUE_BYTES_MAX { Err(StoreError::TooLarge { size, max: VALUE_BYTES_MAX }) } else { Ok(()) }
}
