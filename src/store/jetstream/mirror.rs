//! A bucket's live records in the process, fed by one watch: what lists are answered from.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::super::{Change, Entry, Keys, Seen, StoreError};
use super::bucket::JetStreamBucket;
use super::unavailable;

/// Longest wait until the mirror has caught up with this process's own writes.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
/// Pause before a lost watch is opened again.
const RETRY: Duration = Duration::from_millis(250);

/// The mirror.
pub(super) struct Mirror {
    entries: RwLock<BTreeMap<String, Entry>>,
    ttl: Option<Duration>,
    /// The revision up to which the mirror is whole; nothing before it has caught up, or while its watch is lost.
    whole: watch::Sender<Option<u64>>,
}

impl Mirror {
    /// Starts the watch; it ends with the last handle of the bucket.
    pub(super) async fn start(bucket: &Arc<JetStreamBucket>) -> Result<Arc<Mirror>, StoreError> {
        let mirror = Arc::new(Mirror { entries: RwLock::default(), ttl: bucket.ttl, whole: watch::Sender::new(None) });
        let (weak, feeding) = (Arc::downgrade(bucket), mirror.clone());
        tokio::spawn(async move {
            while let Some(bucket) = weak.upgrade() {
                // What was written before the watch opens is within what it finds there.
                let written = bucket.written();
                let watch = bucket.watch(&Keys::All, None).await;
                drop(bucket);
                if let Ok(mut watch) = watch {
                    feeding.forget_all();
                    while let Ok(seen) = watch.next().await {
                        feeding.note(seen, written.max(watch.revision));
                        if weak.strong_count() == 0 {
                            return;
                        }
                    }
                }
                feeding.whole.send_replace(None);
                tokio::time::sleep(RETRY).await;
            }
        });
        Ok(mirror)
    }

    /// The records of some keys, once everything up to `revision` is in the mirror.
    pub(super) async fn list(&self, keys: &Keys, revision: u64) -> Result<Vec<Entry>, StoreError> {
        let mut whole = self.whole.subscribe();
        let caught_up = whole.wait_for(|whole| whole.is_some_and(|whole| whole >= revision));
        match tokio::time::timeout(CATCH_UP_MAX, caught_up).await {
            Ok(Ok(_)) => {}
            _ => return Err(unavailable("the list is behind its bucket")),
        }
        let oldest_ms = self.ttl.map_or(i64::MIN, |ttl| now_ms() - ttl.as_millis() as i64);
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let from = match keys {
            Keys::One(key) | Keys::Under(key) => key.as_str(),
            Keys::All => "",
        };
        Ok(entries
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(from))
            .filter(|entry| keys.contains(&entry.key) && entry.created_ms > oldest_ms)
            .cloned()
            .collect())
    }

    fn forget_all(&self) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Notes what a watch told when it had come to a revision.
    fn note(&self, seen: Seen, revision: u64) {
        match seen {
            Seen::Current => {
                self.whole.send_replace(Some(revision));
            }
            Seen::Change(change) => {
                self.put(change);
                self.whole.send_if_modified(|whole| {
                    let is_whole = whole.is_some();
                    *whole = whole.map(|before| before.max(revision));
                    is_whole
                });
            }
        }
    }

    fn put(&self, change: Change) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match change.value {
            Some(value) => {
                let Change { key, revision, created_ms, .. } = change;
                entries.insert(key.clone(), Entry { key, value, revision, created_ms });
            }
            None => {
                entries.remove(&change.key);
            }
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
