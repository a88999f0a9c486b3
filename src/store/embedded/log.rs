//! A log of events in memory, with a disk behind it or not. Readers pull: each remembers its position, so none needs a
//! queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use super::super::{
    Appended, ConsumerConfig, Discard, LOG_BYTES_MAX, LOG_EVENTS_MAX, LogConfig, LogFigures, Logged, Retention,
    StoreError,
};
use super::consumer::State as ConsumerState;
use super::disk::{Row, Ticket};
use super::journal::{Backing, Journal};
use super::{is_older, locked, now_ms};
use crate::bus::{Message, Pattern};

/// A log.
pub(in crate::store) struct EmbeddedLog {
    pub(super) config: LogConfig,
    subjects: Vec<Pattern>,
    pub(super) backing: Backing,
    state: Mutex<State>,
    /// Changes with each event and each answer, for those who wait.
    changes: watch::Sender<()>,
}

pub(super) struct State {
    name: &'static str,
    /// Position of the newest event.
    sequence: u64,
    bytes: usize,
    /// The kept events by position, which is also the order of their ages.
    events: BTreeMap<u64, Kept>,
    /// Position of each id that is still remembered.
    ids: HashMap<String, u64>,
    /// The remembered ids in order of their age, with the time of each; as many as the window holds, at most
    /// [`LOG_EVENTS_MAX`].
    ages: VecDeque<(i64, String)>,
    pub(super) consumers: BTreeMap<&'static str, ConsumerState>,
    pub(super) journal: Journal,
}

#[derive(Clone)]
pub(super) struct Kept {
    pub(super) message: Message,
    pub(super) created_ms: i64,
    ticket: Ticket,
}

impl EmbeddedLog {
    pub(crate) fn new(config: LogConfig, backing: Backing) -> Result<Arc<EmbeddedLog>, StoreError> {
        let subjects: Result<Vec<Pattern>, _> = config.subjects.iter().map(|subject| Pattern::new(*subject)).collect();
        let subjects = subjects.map_err(|error| StoreError::Refused(error.to_string()))?;
        let mut state = State {
            name: config.name,
            sequence: 0,
            bytes: 0,
            events: BTreeMap::new(),
            ids: HashMap::new(),
            ages: VecDeque::new(),
            consumers: BTreeMap::new(),
            journal: Journal::new(&backing),
        };
        if let Some(disk) = &backing.0 {
            let saved = disk.log(config.name)?;
            state.sequence = saved.newest;
            state.bytes = saved.events.iter().map(|(_, kept)| kept.size()).sum();
            state.events = saved.events.into_iter().collect();
            state.ids = saved.ids.iter().map(|(sequence, id, _)| (id.clone(), *sequence)).collect();
            state.ages = saved.ids.into_iter().map(|(_, id, since_ms)| (since_ms, id)).collect();
        }
        let state = Mutex::new(state);
        Ok(Arc::new(EmbeddedLog { config, subjects, backing, state, changes: watch::Sender::new(()) }))
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
        state.journal.hand_over();
        state
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Wakes those who wait.
    pub(super) fn wake(&self) {
        self.changes.send_replace(());
    }

    pub(crate) async fn append(&self, id: &str, message: Message) -> Result<Appended, StoreError> {
        self.backing.room().await?;
        let (appended, ticket) = self.append_in_memory(id, message)?;
        self.backing.until(ticket).await?;
        Ok(appended)
    }

    fn append_in_memory(&self, id: &str, message: Message) -> Result<(Appended, Ticket), StoreError> {
        let event = Kept::new(message, now_ms());
        let size = event.size();
        if size > self.config.message_bytes_max {
            return Err(StoreError::TooLarge { size, max: self.config.message_bytes_max });
        }
        let mut state = self.fresh();
        if let Some(sequence) = state.ids.get(id).copied() {
            return Ok((Appended { sequence, is_duplicate: true }, state.journal.hand_over()));
        }
        while state.events.len() >= LOG_EVENTS_MAX || state.bytes + size > LOG_BYTES_MAX {
            let Some(oldest) = state.events.keys().next().copied().filter(|_| self.config.discard == Discard::Old)
            else {
                return Err(StoreError::Full(format!("log `{}`", self.config.name)));
            };
            state.remove(oldest);
        }
        let (sequence, ticket) = state.add(id, event);
        drop(state);
        self.wake();
        Ok((Appended { sequence, is_duplicate: false }, ticket))
    }

    pub(crate) async fn event(&self, sequence: u64) -> Result<Option<Logged>, StoreError> {
        let found = self.fresh().event(sequence);
        self.settled(found).await
    }

    pub(crate) async fn event_after(&self, sequence: u64) -> Result<Option<Logged>, StoreError> {
        let found = self.fresh().first_after(sequence);
        self.settled(found).await
    }

    /// What has been found, once the disk has it.
    async fn settled(&self, found: Option<(Logged, Ticket)>) -> Result<Option<Logged>, StoreError> {
        let Some((event, ticket)) = found else { return Ok(None) };
        self.backing.until(ticket).await?;
        Ok(Some(event))
    }

    pub(crate) async fn remove(&self, sequence: u64) -> Result<bool, StoreError> {
        if self.config.denies_removal {
            return Err(StoreError::Refused(format!("log `{}` keeps its events", self.config.name)));
        }
        let (was_there, ticket) = {
            let mut state = self.fresh();
            (state.remove(sequence), state.journal.hand_over())
        };
        self.backing.until(ticket).await?;
        Ok(was_there)
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
        let saved = self.backing.0.as_ref().map(|disk| disk.consumer(log, name)).transpose()?;
        let consumer = ConsumerState::new(config, saved)?;
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

impl Kept {
    /// An event that the disk has, or that nobody keeps.
    pub(super) fn new(message: Message, created_ms: i64) -> Kept {
        Kept { message, created_ms, ticket: Ticket::default() }
    }

    /// Bytes as a NATS server counts them.
    pub(super) fn size(&self) -> usize {
        self.message.headers.size() + self.message.payload.len()
    }

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

impl State {
    /// Adds an event with its id, and tells the disk.
    fn add(&mut self, id: &str, event: Kept) -> (u64, Ticket) {
        if self.ages.len() >= LOG_EVENTS_MAX {
            self.forget_oldest_id();
        }
        self.sequence += 1;
        let (log, sequence, at_ms) = (self.name, self.sequence, event.created_ms);
        self.journal.note(|| Row::Event { log, sequence, event: Some(event.clone()) });
        self.journal.note(|| Row::Id { log, sequence, id: Some((id.to_owned(), at_ms)) });
        let ticket = self.journal.hand_over();
        self.bytes += event.size();
        self.events.insert(sequence, Kept { ticket, ..event });
        self.ids.insert(id.to_owned(), sequence);
        self.ages.push_back((at_ms, id.to_owned()));
        (sequence, ticket)
    }

    fn forget(&mut self, config: &LogConfig) {
        let now_ms = now_ms();
        while let Some((sequence, _)) =
            self.events.first_key_value().filter(|(_, kept)| is_older(kept.created_ms, now_ms, config.max_age))
        {
            let sequence = *sequence;
            self.remove(sequence);
        }
        while self.ages.front().is_some_and(|(at_ms, _)| is_older(*at_ms, now_ms, config.duplicate_window)) {
            self.forget_oldest_id();
        }
    }

    fn forget_oldest_id(&mut self) {
        let sequence = self.ages.pop_front().and_then(|(_, id)| self.ids.remove(&id));
        if let Some(sequence) = sequence {
            let log = self.name;
            self.journal.note(|| Row::Id { log, sequence, id: None });
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        let Some(kept) = self.events.remove(&sequence) else { return false };
        self.bytes -= kept.size();
        let log = self.name;
        self.journal.note(|| Row::Event { log, sequence, event: None });
        true
    }

    pub(super) fn event(&self, sequence: u64) -> Option<(Logged, Ticket)> {
        self.events.get(&sequence).map(|kept| (kept.logged(sequence), kept.ticket))
    }

    /// The first event behind a position, any.
    fn first_after(&self, sequence: u64) -> Option<(Logged, Ticket)> {
        self.behind(None, sequence).next().map(|(sequence, kept)| (kept.logged(sequence), kept.ticket))
    }

    /// The first event behind a position that the filter takes. Moves the position up to it, or up to the newest event,
    /// so that nobody looks twice at what the filter does not take.
    pub(super) fn next_after(&self, filter: &Pattern, told: &mut u64) -> Option<(Logged, Ticket)> {
        let found = self.behind(Some(filter), *told).next();
        let found = found.map(|(sequence, kept)| (kept.logged(sequence), kept.ticket));
        *told = found.as_ref().map_or(self.sequence, |(event, _)| event.sequence);
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

/// A reader of a log.
pub(in crate::store) struct EmbeddedReader {
    log: Arc<EmbeddedLog>,
    changes: watch::Receiver<()>,
    filter: Pattern,
    told: u64,
}

impl EmbeddedReader {
    pub(crate) async fn next(&mut self) -> Result<Logged, StoreError> {
        loop {
            self.changes.mark_unchanged();
            let mut told = self.told;
            let found = self.log.fresh().next_after(&self.filter, &mut told);
            if let Some((event, ticket)) = found {
                self.log.backing.until(ticket).await?;
                self.told = told;
                return Ok(event);
            }
            self.told = told;
            // The sender lives in the log that this reader holds, so waiting cannot fail.
            let _ = self.changes.changed().await;
        }
    }
}
