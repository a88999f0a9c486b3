//! A cache in two tiers for what is dear to make and may be a moment old: this process's memory, and one behind it that
//! all replicas share, a bucket or Redis. Equal requests that come while one is being made wait for that one. It is
//! never in the way: where the shared tier does not answer, the value is made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Counter;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::Context;
use super::repeat::{canonical_request, hex};
use crate::fault::{Code, Fault, Source};
use crate::store::{BucketConfig, Store, StoreError, Tier, key_token};
use crate::telemetry::{CACHE_FAILURES, CACHE_READS};

/// A cache to open.
pub struct CacheConfig {
    /// Its name in metrics.
    pub name: &'static str,
    /// The tier that all replicas share, where that is a bucket; on Redis its name.
    pub bucket: BucketConfig,
    /// How long this process goes without a look at the shared tier: what another replica drops is gone here by then.
    pub local_ttl: Duration,
    /// Most values of this process.
    pub local_max: usize,
}

/// Values of one kind. Cloning shares them.
pub struct Cache<V>(Arc<Inner<V>>);

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Cache<V> {
        Cache(self.0.clone())
    }
}

struct Inner<V> {
    tier: Tier,
    local_ttl: Duration,
    local_max: usize,
    local: Mutex<HashMap<String, Local<V>>>,
    flights: Mutex<HashMap<String, watch::Receiver<Option<Landed<V>>>>>,
    /// How often something was dropped.
    drops: AtomicU64,
    reads: [Counter; 4],
    failures: Counter,
}

struct Local<V> {
    value: Arc<V>,
    tag: String,
    until_ms: i64,
}

/// How the making of a value ended, for those that wait for it.
type Landed<V> = Result<Arc<V>, Arc<Fault>>;

/// What the store holds.
#[derive(Serialize, Deserialize)]
struct Record<V> {
    schema: u32,
    tag: String,
    expires_at_ms: i64,
    value: V,
}

/// What a value is kept under: the tenant, and a hash of everything that the value depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey(String);

/// How a value is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'t> {
    /// For how long; the bucket's own age is a bound to it.
    pub ttl: Duration,
    /// What it is dropped by.
    pub tag: &'t str,
}

/// A value that was made.
pub struct Made<V> {
    /// The value.
    pub value: V,
    /// False for one that only its caller, and those who wait for it, should get.
    pub is_kept: bool,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process's memory.
    Local,
    /// The shared tier.
    Store,
    /// An equal request that was on its way.
    Joined,
    /// It was made for this request.
    Made,
}

/// Labels of [`Origin`], in its order.
const ORIGINS: [&str; 4] = ["local", "store", "joined", "made"];

impl CacheKey {
    /// The key of the request that is being answered: method, tenant, user and canonical bytes.
    pub fn of_request(context: &Context) -> Result<CacheKey, Fault> {
        let subject = context.method().subject.as_str().as_bytes();
        let request = canonical_request(context)?;
        Ok(CacheKey::of_parts(context, &[subject, context.user().as_bytes(), &request]))
    }

    /// A key of parts that the service names, in the caller's tenant.
    pub fn of_parts(context: &Context, parts: &[&[u8]]) -> CacheKey {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        CacheKey(format!("{}.{}", key_token(context.tenant()), hex(&hash.finalize())))
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Cache<V> {
    /// Opens a cache; its bucket is made where there is none yet.
    pub async fn open(store: &Store, config: CacheConfig) -> Result<Cache<V>, Fault> {
        let CacheConfig { name, bucket, local_ttl, local_max } = config;
        Ok(Cache(Arc::new(Inner {
            tier: store.tier(bucket).await?,
            local_ttl,
            local_max,
            local: Mutex::default(),
            flights: Mutex::default(),
            drops: AtomicU64::new(0),
            reads: ORIGINS.map(|origin| metrics::counter!(CACHE_READS, "cache" => name, "origin" => origin)),
            failures: metrics::counter!(CACHE_FAILURES, "cache" => name),
        })))
    }

    /// The value under a key: kept, on its way, or made now. Fails as `make` does; those who wait for it get its
    /// fault, unless it only ran out of its own time.
    pub async fn read(
        &self,
        context: &Context,
        key: &CacheKey,
        keep: Keep<'_>,
        make: impl Future<Output = Result<Made<V>, Fault>>,
    ) -> Result<(Arc<V>, Origin), Fault> {
        let flight = loop {
            if let Some(found) = self.get(context, key).await {
                return Ok(found);
            }
            let mut waiting = match self.0.take_off(key) {
                Ok(flight) => break flight,
                Err(waiting) => waiting,
            };
            // A flight that was cancelled says nothing: then this request looks again, and may make the value itself.
            let landed = waiting.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone());
            match landed {
                Some(Ok(value)) => return Ok(self.counted(value, Origin::Joined)),
                Some(Err(fault)) if !matches!(fault.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                    return Err(again(&fault));
                }
                Some(Err(_)) | None => {}
            }
        };
        // Between the look and the take-off another one may have landed.
        if let Some(value) = self.0.local(context, key) {
            return Ok(self.counted(value, Origin::Local));
        }
        match make.await {
            Ok(Made { value, is_kept }) => {
                let value = Arc::new(value);
                if is_kept && flight.is_current() {
                    self.keep(context, key, keep, &value).await;
                    if !flight.is_current() {
                        self.forget(key).await;
                    }
                }
                flight.land(Ok(value.clone()));
                Ok(self.counted(value, Origin::Made))
            }
            Err(fault) => {
                let fault = Arc::new(fault);
                flight.land(Err(fault.clone()));
                Err(Arc::try_unwrap(fault).unwrap_or_else(|shared| again(&shared)))
            }
        }
    }

    /// The value under a key, if it is kept.
    pub async fn get(&self, context: &Context, key: &CacheKey) -> Option<(Arc<V>, Origin)> {
        if let Some(value) = self.0.local(context, key) {
            return Some(self.counted(value, Origin::Local));
        }
        let value = match self.0.tier.get(&key.0).await {
            Ok(value) => value?,
            Err(error) => {
                self.0.failed(&error);
                return None;
            }
        };
        let record: Record<V> = serde_json::from_slice(&value).ok()?;
        let left_ms = record.expires_at_ms - context.now_ms();
        if left_ms <= 0 {
            return None;
        }
        let value = Arc::new(record.value);
        self.0.keep_local(context, key, record.tag, Duration::from_millis(left_ms as u64), value.clone());
        Some(self.counted(value, Origin::Store))
    }

    /// Keeps a value in both tiers.
    pub async fn keep(&self, context: &Context, key: &CacheKey, keep: Keep<'_>, value: &Arc<V>) {
        self.0.keep_local(context, key, keep.tag.to_owned(), keep.ttl, value.clone());
        let expires_at_ms = context.now_ms() + keep.ttl.as_millis() as i64;
        let record = Record { schema: 1, tag: keep.tag.to_owned(), expires_at_ms, value: &**value };
        let written = match serde_json::to_vec(&record) {
            Ok(bytes) => self.0.tier.put(&key.0, bytes.into(), keep.ttl, keep.tag).await,
            Err(error) => Err(StoreError::Refused(error.to_string())),
        };
        if let Err(error) = written {
            self.0.failed(&error);
        }
    }

    /// Drops a value, here and in the shared tier. What other replicas have in memory goes within their local age.
    pub async fn forget(&self, key: &CacheKey) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
        self.0.lock_flights().remove(&key.0);
        self.0.lock_local().remove(&key.0);
        if let Err(error) = self.0.tier.forget(&key.0).await {
            self.0.failed(&error);
        }
    }

    /// Drops everything with a tag, here and in the shared tier; of one tenant, or of all without one. What other
    /// replicas have in memory goes within their local age.
    pub async fn drop_tagged(&self, tenant: Option<&str>, tag: &str) -> Result<(), Fault> {
        let prefix = tenant.map(|tenant| format!("{}.", key_token(tenant)));
        let is_meant =
            |key: &str, other: &str| other == tag && prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix));
        self.0.drops.fetch_add(1, Ordering::SeqCst);
        self.0.lock_flights().clear();
        self.0.lock_local().retain(|key, local| !is_meant(key, &local.tag));
        let has_tag = |value: &[u8]| {
            serde_json::from_slice::<Record<serde::de::IgnoredAny>>(value).is_ok_and(|record| record.tag == tag)
        };
        let under = tenant.map(key_token);
        let dropped = self.0.tier.drop_tagged(under.as_deref(), tag, has_tag).await;
        Ok(dropped.inspect_err(|error| self.0.failed(error))?)
    }

    fn counted(&self, value: Arc<V>, origin: Origin) -> (Arc<V>, Origin) {
        self.0.reads[origin as usize].increment(1);
        (value, origin)
    }
}

impl<V> Inner<V> {
    /// The shared tier did not do what it should: counted, and nobody's error.
    fn failed(&self, error: &StoreError) {
        self.failures.increment(1);
        tracing::debug!(%error, "the shared tier of a cache fails");
    }

    fn lock_local(&self) -> MutexGuard<'_, HashMap<String, Local<V>>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self, context: &Context, key: &CacheKey) -> Option<Arc<V>> {
        let now_ms = context.now_ms();
        self.lock_local().get(&key.0).filter(|local| now_ms < local.until_ms).map(|local| local.value.clone())
    }

    fn keep_local(&self, context: &Context, key: &CacheKey, tag: String, ttl: Duration, value: Arc<V>) {
        let now_ms = context.now_ms();
        let mut local = self.lock_local();
        if local.len() >= self.local_max && !local.contains_key(&key.0) {
            local.retain(|_, local| now_ms < local.until_ms);
            // Still full of young values: which one goes matters little, the shared tier has it.
            let victim = local.keys().next().cloned().filter(|_| local.len() >= self.local_max);
            victim.and_then(|key| local.remove(&key));
        }
        let until_ms = now_ms + ttl.min(self.local_ttl).as_millis() as i64;
        local.insert(key.0.clone(), Local { value, tag, until_ms });
    }

    fn lock_flights(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Landed<V>>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to make a value, or the wait for whoever has it.
    fn take_off(&self, key: &CacheKey) -> Result<Flight<'_, V>, watch::Receiver<Option<Landed<V>>>> {
        let drops = self.drops.load(Ordering::SeqCst);
        let mut flights = self.lock_flights();
        if let Some(waiting) = flights.get(&key.0) {
            return Err(waiting.clone());
        }
        let (landing, waiting) = watch::channel(None);
        flights.insert(key.0.clone(), waiting);
        Ok(Flight { inner: self, key: key.0.clone(), landing, drops })
    }
}

/// A value that is being made. Dropped before it has landed, it lets the next one take off.
struct Flight<'c, V> {
    inner: &'c Inner<V>,
    key: String,
    landing: watch::Sender<Option<Landed<V>>>,
    /// What had been dropped when it took off.
    drops: u64,
}

impl<V> Flight<'_, V> {
    /// False where something was dropped since: the value may be from before the change, and is for those who asked then.
    fn is_current(&self) -> bool {
        self.inner.drops.load(Ordering::SeqCst) == self.drops
    }

    fn land(self, landed: Landed<V>) {
        self.landing.send_replace(Some(landed));
    }
}

impl<V> Drop for Flight<'_, V> {
    fn drop(&mut self) {
        let mut flights = self.inner.lock_flights();
        // Another one may have taken off under this key, after what this one makes was dropped.
        if flights.get(&self.key).is_some_and(|waiting| waiting.same_channel(&self.landing.subscribe())) {
            flights.remove(&self.key);
        }
    }
}

/// The same fault for another caller.
fn again(fault: &Fault) -> Fault {
    let (code, message) = (fault.code(), fault.message().to_owned());
    let mut copy = match fault.source() {
        Source::Client => Fault::client(code, message),
        Source::Us => Fault::ours(code, message),
        Source::Upstream => Fault::upstream(code, message),
    };
    for (name, value) in fault.details() {
        copy = copy.detail(name.clone(), value.clone());
    }
    match fault.retry() {
        Some(wait) => copy.retry_after(wait),
        None => copy,
    }
}
