//! A log of events in memory. Readers pull: each remembers its position, so none needs a queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{
    Appended, ConsumerConfig, Discard, LOG_BYTES_MAX, LOG_EVENTS_MAX, LogConfig, LogFigures, Logged, Retention,
    StoreError,
};
use super::consumer::State as ConsumerState;
use super::{locked, now_ms};
use crate::bus::{Message, Pattern};

/// A log.
pub(in crate::store) struct EmbeddedLog {
    pub(super) config: LogConfig,
    subjects: Vec<Pattern>,
    state: Mutex<State>,
    /// Changes with each event and each answer, for those who wait.
    changes: watch::Sender<()>,
}

#[derive(Default)]
pub(super) struct State {
    /// Position of the newest event.
    sequence: u64,
    bytes: usize,
    /// The kept events by position, which is also the order of their ages.
    events: BTreeMap<u64, Kept>,
    /// Position of each id that is still remembered.
    ids: HashMap<String, u64>,
    /// The remembered ids in order of their age; as many as the window holds, at most [`LOG_EVENTS_MAX`].
    ages: VecDeque<(Instant, String)>,
    pub(super) consumers: BTreeMap<&'static str, ConsumerState>,
}

struct Kept {
    at: Instant,
    created_ms: i64,
    message: Message,
}

impl EmbeddedLog {
    pub(crate) fn new(config: LogConfig) -> Result<Arc<EmbeddedLog>, StoreError> {
        let subjects: Result<Vec<Pattern>, _> = config.subjects.iter().map(|subject| Pattern::new(*subject)).collect();
        Ok(Arc::new(EmbeddedLog {
            config,
            subjects: subjects.map_err(|error| StoreError::Refused(error.to_string()))?,
            state: Mutex::default(),
            changes: watch::Sender::new(()),
        }))
    }

    pub(crate) fn takes(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| pattern.matches(subject))
    }

    /// True where the two take the same subjects.
    pub(super) fn overlaps(&self, other: &EmbeddedLog) -> bool {
        self.subjects.iter().any(|ours| other.subjects.iter().any(|theirs| ours.overlaps(theirs)))
    }

    /// The state without what has grown too old.
    pub(super) fn fresh(&self) -> MutexGuard<'_, State> {
        let mut state = locked(&self.state);
        state.forget(&self.config);
        state
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Wakes those who wait.
    pub(super) fn wake(&self) {
        self.changes.send_replace(());
    }

    pub(crate) fn append(&self, id: &str, message: Message) -> Result<Appended, StoreError> {
        let size = size(&message);
        if size > self.config.message_bytes_max {
            return Err(StoreError::TooLarge { size, max: self.config.message_bytes_max });
        }
        let mut state = self.fresh();
        if let Some(sequence) = state.ids.get(id) {
            return Ok(Appended { sequence: *sequence, is_duplicate: true });
        }
        while state.events.len() >= LOG_EVENTS_MAX || state.bytes + size > LOG_BYTES_MAX {
            let Some(oldest) = state.events.keys().next().copied().filter(|_| self.config.discard == Discard::Old)
            else {
                return Err(StoreError::Full(format!("log `{}`", self.config.name)));
            };
            state.remove(oldest);
        }
        if state.ages.len() >= LOG_EVENTS_MAX {
            state.forget_oldest_id();
        }
        state.sequence += 1;
        let (sequence, at) = (state.sequence, Instant::now());
        state.bytes += size;
        state.events.insert(sequence, Kept { at, created_ms: now_ms(), message });
        state.ids.insert(id.to_owned(), sequence);
        state.ages.push_back((at, id.to_owned()));
        drop(state);
        self.wake();
        Ok(Appended { sequence, is_duplicate: false })
    }

    pub(crate) fn event(&self, sequence: u64) -> Option<Logged> {
        self.fresh().event(sequence)
    }

    pub(crate) fn event_after(&self, sequence: u64) -> Option<Logged> {
        self.fresh().first_after(sequence)
    }

    pub(crate) fn remove(&self, sequence: u64) -> Result<bool, StoreError> {
        if self.config.denies_removal {
            return Err(StoreError::Refused(format!("log `{}` keeps its events", self.config.name)));
        }
        Ok(self.fresh().remove(sequence))
    }

    pub(crate) fn figures(&self) -> LogFigures {
        let state = self.fresh();
        LogFigures {
            events: state.events.len() as u64,
            bytes: state.bytes as u64,
            first: state.events.keys().next().copied(),
            last: state.sequence,
            consumers: state.consumers.values().map(|consumer| consumer.figures(&state)).collect(),
        }
    }

    pub(crate) fn has_consumer(&self, name: &str) -> bool {
        self.fresh().consumers.contains_key(name)
    }

    pub(crate) fn provide_consumer(&self, config: ConsumerConfig) -> Result<(), StoreError> {
        let (log, name) = (self.config.name, config.name);
        let consumer = ConsumerState::new(config)?;
        let mut state = self.fresh();
        if state.consumers.contains_key(name) {
            return Ok(());
        }
        if self.is_work_queue() && state.consumers.values().any(|known| known.overlaps(&consumer)) {
            return Err(StoreError::Refused(format!("two consumers of `{log}` take the same subjects")));
        }
        if state.consumers.len() >= self.config.consumers_max as usize {
            return Err(StoreError::Refused(format!("log `{log}` has {} consumers already", state.consumers.len())));
        }
        state.consumers.insert(name, consumer);
        Ok(())
    }

    pub(crate) fn read(self: Arc<Self>, filter: &str, after: u64) -> Result<EmbeddedReader, StoreError> {
        let filter = Pattern::new(filter).map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(EmbeddedReader { changes: self.changes(), log: self, filter, told: after })
    }

    /// True where an event goes once its consumer has dealt with it.
    pub(super) fn is_work_queue(&self) -> bool {
        self.config.retention == Retention::WorkQueue
    }
}

/// Bytes of an event as a NATS server counts them.
fn size(message: &Message) -> usize {
    message.headers.size() + message.payload.len()
}

impl State {
    fn forget(&mut self, config: &LogConfig) {
        while let Some((sequence, _)) = self.events.first_key_value().filter(|row| row.1.at.elapsed() >= config.max_age)
        {
            let sequence = *sequence;
            self.remove(sequence);
        }
        while self.ages.front().is_some_and(|(at, _)| at.elapsed() >= config.duplicate_window) {
            self.forget_oldest_id();
        }
    }

    fn forget_oldest_id(&mut self) {
        if let Some((_, id)) = self.ages.pop_front() {
            self.ids.remove(&id);
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        let Some(kept) = self.events.remove(&sequence) else { return false };
        self.bytes -= size(&kept.message);
        true
    }

    pub(super) fn event(&self, sequence: u64) -> Option<Logged> {
        self.events.get(&sequence).map(|kept| kept.logged(sequence))
    }

    /// The first event behind a position, any.
    fn first_after(&self, sequence: u64) -> Option<Logged> {
        self.behind(None, sequence).next().map(|(sequence, kept)| kept.logged(sequence))
    }

    /// The first event behind a position that the filter takes. Moves the position up to it, or up to the newest event,
    /// so that nobody looks twice at what the filter does not take.
    pub(super) fn next_after(&self, filter: &Pattern, told: &mut u64) -> Option<Logged> {
        let found = self.behind(Some(filter), *told).next().map(|(sequence, kept)| kept.logged(sequence));
        *told = found.as_ref().map_or(self.sequence, |event| event.sequence);
        found
    }

    /// How many events behind a position the filter takes.
    pub(super) fn count_after(&self, filter: &Pattern, told: u64) -> u64 {
        self.behind(Some(filter), told).count() as u64
    }

    fn behind<'a>(&'a self, filter: Option<&'a Pattern>, told: u64) -> impl Iterator<Item = (u64, &'a Kept)> {
        let is_taken = move |kept: &Kept| filter.is_none_or(|filter| filter.matches(kept.message.subject.as_str()));
        let behind = self.events.range(told.saturating_add(1)..);
        behind.map(|(sequence, kept)| (*sequence, kept)).filter(move |(_, kept)| is_taken(kept))
    }
}

impl Kept {
    fn logged(&self, sequence: u64) -> Logged {
        Logged {
            subject: self.message.subject.clone(),
            headers: self.message.headers.clone(),
            payload: self.message.payload.clone(),
            sequence,
            created_ms: self.created_ms,
        }
    }
}

/// A reader of a log.
pub(in crate::store) struct EmbeddedReader {
    log: Arc<EmbeddedLog>,
    changes: watch::Receiver<()>,
    filter: Pattern,
    told: u64,
}

impl EmbeddedReader {
    pub(crate) async fn next(&mut self) -> Logged {
        loop {
            self.changes.mark_unchanged();
            let found = self.log.fresh().next_after(&self.filter, &mut self.told);
            if let Some(event) = found {
                return event;
            }
            // The sender lives in the log that this reader holds, so waiting cannot fail.
            let _ = self.changes.changed().await;
        }
    }
}
