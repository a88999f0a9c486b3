//! A bucket in memory, with a disk behind it or not. Watches pull: each remembers the revision that it has told, so
//! none needs a queue.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::super::{BUCKET_BYTES_MAX, BUCKET_KEYS_MAX, BucketConfig, Change, Entry, Expected, Keys, Seen, StoreError};
use super::disk::{Row, Ticket};
use super::journal::{Backing, Journal};
use super::{is_older, locked, now_ms};

/// A bucket.
pub(in crate::store) struct EmbeddedBucket {
    config: BucketConfig,
    backing: Backing,
    state: Mutex<State>,
    /// The newest revision, for those who wait.
    newest: watch::Sender<u64>,
}

struct State {
    name: &'static str,
    revision: u64,
    bytes: usize,
    /// Kept records by revision, which is also the order of their ages.
    records: BTreeMap<u64, Record>,
    /// Kept revisions of each key, the current one last.
    keys: BTreeMap<Arc<str>, VecDeque<u64>>,
    journal: Journal,
}

#[derive(Clone)]
pub(super) struct Record {
    pub(super) key: Arc<str>,
    /// Nothing where the key was deleted.
    pub(super) value: Option<Bytes>,
    pub(super) created_ms: i64,
    ticket: Ticket,
}

impl Record {
    /// A record that the disk has, or that nobody keeps.
    pub(super) fn new(key: Arc<str>, value: Option<Bytes>, created_ms: i64) -> Record {
        Record { key, value, created_ms, ticket: Ticket::default() }
    }

    pub(super) fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    fn change(&self, revision: u64) -> Change {
        Change { key: self.key.to_string(), value: self.value.clone(), revision, created_ms: self.created_ms }
    }
}

impl EmbeddedBucket {
    pub(super) fn new(config: BucketConfig, backing: Backing) -> Result<Arc<EmbeddedBucket>, StoreError> {
        let mut state = State {
            name: config.name,
            revision: 0,
            bytes: 0,
            records: BTreeMap::new(),
            keys: BTreeMap::new(),
            journal: Journal::new(&backing),
        };
        if let Some(disk) = &backing.0 {
            let saved = disk.bucket(config.name)?;
            for (revision, record) in saved.records {
                state.keep(revision, record, config.history);
            }
            state.revision = saved.newest;
        }
        let newest = watch::Sender::new(state.revision);
        Ok(Arc::new(EmbeddedBucket { config, backing, state: Mutex::new(state), newest }))
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let (entry, ticket) = {
            let state = self.fresh();
            (state.live(key), state.current(key).map_or(Ticket::default(), |(_, record)| record.ticket))
        };
        self.backing.until(ticket).await?;
        Ok(entry)
    }

    pub(crate) async fn newest_revision(&self) -> Result<u64, StoreError> {
        let newest = self.fresh().records.last_key_value().map(|(revision, record)| (*revision, record.ticket));
        let Some((revision, ticket)) = newest else { return Ok(0) };
        self.backing.until(ticket).await?;
        Ok(revision)
    }

    pub(crate) async fn history(&self, key: &str) -> Result<Vec<Change>, StoreError> {
        let (changes, ticket) = {
            let mut state = self.fresh();
            let revisions = state.keys.get(key).into_iter().flatten();
            let changes =
                revisions.filter_map(|revision| Some(state.records.get(revision)?.change(*revision))).collect();
            (changes, state.journal.hand_over())
        };
        self.backing.until(ticket).await?;
        Ok(changes)
    }

    pub(crate) async fn list(&self, keys: &Keys) -> Result<Vec<Entry>, StoreError> {
        let (entries, ticket) = {
            let mut state = self.fresh();
            (state.live_under(keys), state.journal.hand_over())
        };
        self.backing.until(ticket).await?;
        Ok(entries)
    }

    pub(crate) async fn write(&self, key: &str, value: Option<Bytes>, expected: Expected) -> Result<u64, StoreError> {
        self.backing.room().await?;
        let (revision, ticket) = self.write_in_memory(key, value, expected)?;
        self.backing.until(ticket).await?;
        Ok(revision)
    }

    fn write_in_memory(
        &self,
        key: &str,
        value: Option<Bytes>,
        expected: Expected,
    ) -> Result<(u64, Ticket), StoreError> {
        let mut state = self.fresh();
        let current = state.current(key);
        let is_live = current.is_some_and(|(_, record)| record.value.is_some());
        let is_met = match expected {
            Expected::Any => true,
            Expected::Absent => !is_live,
            Expected::Revision(revision) => current.is_some_and(|(current, _)| current == revision),
        };
        if !is_met {
            return Err(StoreError::Conflict);
        }
        let is_new = current.is_none();
        let record = Record::new(key.into(), value, now_ms());
        if is_new && state.keys.len() >= BUCKET_KEYS_MAX || state.bytes + record.size() > BUCKET_BYTES_MAX {
            return Err(StoreError::Full(format!("bucket `{}`", self.config.name)));
        }
        let (revision, ticket) = state.add(record, self.config.history);
        drop(state);
        self.newest.send_replace(revision);
        Ok((revision, ticket))
    }

    pub(crate) async fn watch(self: Arc<Self>, keys: Keys, after: Option<u64>) -> Result<EmbeddedWatch, StoreError> {
        let newest = self.newest.subscribe();
        let after = after.filter(|revision| *revision > 0);
        let (is_kept, first, revision, ticket) = {
            let mut state = self.fresh();
            let is_kept = after.is_some_and(|revision| state.records.contains_key(&revision));
            let first: VecDeque<Change> = if is_kept {
                VecDeque::new()
            } else {
                let mut entries = state.live_under(&keys);
                entries.sort_by_key(|entry| entry.revision);
                entries.into_iter().map(change).collect()
            };
            (is_kept, first, state.revision, state.journal.hand_over())
        };
        self.backing.until(ticket).await?;
        let told = after.filter(|_| is_kept).unwrap_or(revision);
        let is_reset = after.is_some() && !is_kept;
        // A watch that goes on is current once it has told what was written before it began.
        Ok(EmbeddedWatch { bucket: self, newest, keys, first, told, current: Some(revision), is_reset })
    }

    /// The state without what has grown too old.
    fn fresh(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = locked(&self.state);
        if let Some(ttl) = self.config.ttl {
            state.forget_older_than(ttl);
            state.journal.hand_over();
        }
        state
    }
}

impl State {
    /// The newest record of a key, deleted or not, and its revision.
    fn current(&self, key: &str) -> Option<(u64, &Record)> {
        let revision = *self.keys.get(key)?.back()?;
        Some((revision, self.records.get(&revision)?))
    }

    fn live(&self, key: &str) -> Option<Entry> {
        let (revision, record) = self.current(key)?;
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

    /// Adds a record, and tells the disk.
    fn add(&mut self, record: Record, history: u8) -> (u64, Ticket) {
        self.revision += 1;
        let (bucket, revision) = (self.name, self.revision);
        self.journal.note(|| Row::Record { bucket, revision, record: Some(record.clone()) });
        self.keep(revision, record, history);
        let ticket = self.journal.hand_over();
        if let Some(record) = self.records.get_mut(&revision) {
            record.ticket = ticket;
        }
        (revision, ticket)
    }

    /// Takes a record in, and lets the oldest of its key go where there are more than are kept.
    fn keep(&mut self, revision: u64, record: Record, history: u8) {
        self.bytes += record.size();
        let revisions = self.keys.entry(record.key.clone()).or_default();
        revisions.push_back(revision);
        let is_over = revisions.len() > usize::from(history.max(1));
        let oldest = if is_over { revisions.pop_front() } else { None };
        self.records.insert(revision, record);
        if let Some(oldest) = oldest {
            self.drop_record(oldest);
        }
    }

    fn drop_record(&mut self, revision: u64) -> Option<Record> {
        let record = self.records.remove(&revision)?;
        self.bytes -= record.size();
        let bucket = self.name;
        self.journal.note(|| Row::Record { bucket, revision, record: None });
        Some(record)
    }

    fn forget_older_than(&mut self, ttl: Duration) {
        let now_ms = now_ms();
        while let Some((revision, _)) =
            self.records.first_key_value().filter(|(_, record)| is_older(record.created_ms, now_ms, ttl))
        {
            let revision = *revision;
            let Some(record) = self.drop_record(revision) else { return };
            if let Some(revisions) = self.keys.get_mut(&record.key) {
                revisions.retain(|kept| *kept != revision);
                if revisions.is_empty() {
                    self.keys.remove(&record.key);
                }
            }
        }
    }

    fn next_after(&self, keys: &Keys, told: u64) -> Option<(Change, Ticket)> {
        let (revision, record) = self.records.range(told + 1..).find(|(_, record)| keys.contains(&record.key))?;
        Some((record.change(*revision), record.ticket))
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
    pub(crate) async fn next(&mut self) -> Result<Seen, StoreError> {
        if let Some(change) = self.first.pop_front() {
            return Ok(Seen::Change(change));
        }
        loop {
            let newest = *self.newest.borrow_and_update();
            let change = self.bucket.fresh().next_after(&self.keys, self.told);
            if let Some(at_start) = self.current
                && change.as_ref().is_none_or(|(change, _)| change.revision > at_start)
            {
                self.current = None;
                return Ok(Seen::Current);
            }
            if let Some((change, ticket)) = change {
                self.bucket.backing.until(ticket).await?;
                self.told = change.revision;
                return Ok(Seen::Change(change));
            }
            self.told = self.told.max(newest);
            // The sender lives in the bucket that this watch holds, so waiting cannot fail.
            let _ = self.newest.changed().await;
        }
    }
}
