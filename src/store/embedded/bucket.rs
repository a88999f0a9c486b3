//! A bucket in memory. Watches pull: each remembers the revision that it has told, so none needs a queue.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{BUCKET_BYTES_MAX, BUCKET_KEYS_MAX, BucketConfig, Change, Entry, Expected, Keys, Seen, StoreError};
use super::{locked, now_ms};

/// A bucket.
pub(in crate::store) struct EmbeddedBucket {
    config: BucketConfig,
    state: Mutex<State>,
    /// The newest revision, for those who wait.
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    bytes: usize,
    /// Kept records by revision, which is also the order of their ages.
    records: BTreeMap<u64, Record>,
    /// Kept revisions of each key, the current one last.
    keys: BTreeMap<Arc<str>, VecDeque<u64>>,
}

struct Record {
    key: Arc<str>,
    /// Nothing where the key was deleted.
    value: Option<Bytes>,
    created_ms: i64,
    written: Instant,
}

impl Record {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    fn change(&self, revision: u64) -> Change {
        Change { key: self.key.to_string(), value: self.value.clone(), revision, created_ms: self.created_ms }
    }
}

impl EmbeddedBucket {
    pub(super) fn new(config: BucketConfig) -> Arc<EmbeddedBucket> {
        Arc::new(EmbeddedBucket { config, state: Mutex::default(), newest: watch::Sender::new(0) })
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.fresh().live(key)
    }

    pub(crate) fn history(&self, key: &str) -> Vec<Change> {
        let state = self.fresh();
        let revisions = state.keys.get(key).into_iter().flatten();
        revisions.filter_map(|revision| Some(state.records.get(revision)?.change(*revision))).collect()
    }

    pub(crate) fn list(&self, keys: &Keys) -> Vec<Entry> {
        self.fresh().live_under(keys)
    }

    pub(crate) fn write(&self, key: &str, value: Option<Bytes>, expected: Expected) -> Result<u64, StoreError> {
        let mut state = self.fresh();
        let current = state.keys.get(key).and_then(|revisions| revisions.back()).copied();
        let is_live = current.is_some_and(|revision| state.records[&revision].value.is_some());
        let is_met = match expected {
            Expected::Any => true,
            Expected::Absent => !is_live,
            Expected::Revision(revision) => current == Some(revision),
        };
        if !is_met {
            return Err(StoreError::Conflict);
        }
        let is_new = current.is_none();
        let record = Record { key: key.into(), value, created_ms: now_ms(), written: Instant::now() };
        if is_new && state.keys.len() >= BUCKET_KEYS_MAX || state.bytes + record.size() > BUCKET_BYTES_MAX {
            return Err(StoreError::Full(format!("bucket `{}`", self.config.name)));
        }
        let revision = state.add(record, usize::from(self.config.history.max(1)));
        drop(state);
        self.newest.send_replace(revision);
        Ok(revision)
    }

    pub(crate) fn watch(self: Arc<Self>, keys: Keys, after: Option<u64>) -> EmbeddedWatch {
        let newest = self.newest.subscribe();
        let state = self.fresh();
        let after = after.filter(|revision| *revision > 0);
        let is_kept = after.is_some_and(|revision| state.records.contains_key(&revision));
        let first: VecDeque<Change> = if is_kept {
            VecDeque::new()
        } else {
            let mut entries = state.live_under(&keys);
            entries.sort_by_key(|entry| entry.revision);
            entries.into_iter().map(change).collect()
        };
        let told = after.filter(|_| is_kept).unwrap_or(state.revision);
        // A watch that goes on is current once it has told what was written before it began.
        let current = Some(state.revision);
        drop(state);
        EmbeddedWatch { bucket: self, newest, keys, first, told, current, is_reset: after.is_some() && !is_kept }
    }

    /// The state without what has grown too old.
    fn fresh(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = locked(&self.state);
        if let Some(ttl) = self.config.ttl {
            state.forget_older_than(ttl);
        }
        state
    }
}

impl State {
    fn live(&self, key: &str) -> Option<Entry> {
        let revision = *self.keys.get(key)?.back()?;
        let record = self.records.get(&revision)?;
        let value = record.value.clone()?;
        Some(Entry { key: key.to_owned(), value, revision, created_ms: record.created_ms })
    }

    fn live_under(&self, keys: &Keys) -> Vec<Entry> {
        match keys {
            Keys::One(key) => self.live(key).into_iter().collect(),
            Keys::All => self.keys.keys().filter_map(|key| self.live(key)).collect(),
            Keys::Under(tokens) => {
                let from = (Bound::Excluded(tokens.as_str()), Bound::Unbounded);
                self.keys
                    .range::<str, _>(from)
                    .map(|(key, _)| &**key)
                    .take_while(|key| key.starts_with(tokens.as_str()))
                    .filter(|key| keys.contains(key))
                    .filter_map(|key| self.live(key))
                    .collect()
            }
        }
    }

    fn add(&mut self, record: Record, history: usize) -> u64 {
        self.revision += 1;
        self.bytes += record.size();
        let revisions = self.keys.entry(record.key.clone()).or_default();
        revisions.push_back(self.revision);
        let oldest = if revisions.len() > history { revisions.pop_front() } else { None };
        self.records.insert(self.revision, record);
        if let Some(record) = oldest.and_then(|revision| self.records.remove(&revision)) {
            self.bytes -= record.size();
        }
        self.revision
    }

    fn forget_older_than(&mut self, ttl: std::time::Duration) {
        while let Some(first) = self.records.first_entry() {
            if first.get().written.elapsed() < ttl {
                return;
            }
            let (revision, record) = first.remove_entry();
            self.bytes -= record.size();
            if let Some(revisions) = self.keys.get_mut(&record.key) {
                revisions.retain(|kept| *kept != revision);
                if revisions.is_empty() {
                    self.keys.remove(&record.key);
                }
            }
        }
    }

    fn next_after(&self, keys: &Keys, told: u64) -> Option<Change> {
        let (revision, record) = self.records.range(told + 1..).find(|(_, record)| keys.contains(&record.key))?;
        Some(record.change(*revision))
    }
}

fn change(entry: Entry) -> Change {
    Change { key: entry.key, value: Some(entry.value), revision: entry.revision, created_ms: entry.created_ms }
}

/// A watch on a bucket.
pub(in crate::store) struct EmbeddedWatch {
    bucket: Arc<EmbeddedBucket>,
    newest: watch::Receiver<u64>,
    keys: Keys,
    /// What was there at the start.
    first: VecDeque<Change>,
    /// Everything up to this revision has been told.
    told: u64,
    /// The revision at the start, until `Current` has been told.
    current: Option<u64>,
    pub is_reset: bool,
}

impl EmbeddedWatch {
    pub(crate) async fn next(&mut self) -> Seen {
        if let Some(change) = self.first.pop_front() {
            return Seen::Change(change);
        }
        loop {
            let newest = *self.newest.borrow_and_update();
            let change = self.bucket.fresh().next_after(&self.keys, self.told);
            if let Some(at_start) = self.current
                && change.as_ref().is_none_or(|change| change.revision > at_start)
            {
                self.current = None;
                return Seen::Current;
            }
            if let Some(change) = change {
                self.told = change.revision;
                return Seen::Change(change);
            }
            self.told = self.told.max(newest);
            // The sender lives in the bucket that this watch holds, so waiting cannot fail.
            let _ = self.newest.changed().await;
        }
    }
}
