//! Durable consumers in memory, with a disk behind them or not: what has been given out and not answered, and when it
//! comes again. Says what it gave up in the advisories that a NATS server sends, so that whoever reads those runs on
//! both engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{ConsumerConfig, ConsumerFigures, Logged, StoreError, UNANSWERED_MAX};
use super::disk::{Row, SavedConsumer, Ticket};
use super::journal::Journal;
use super::log::{EmbeddedLog, State as LogState};
use super::{EmbeddedStore, now_ms};
use crate::bus::Pattern;

/// A consumer of a log.
pub(super) struct State {
    config: ConsumerConfig,
    filter: Pattern,
    /// Position up to which events have been given out, or passed over, for the first time.
    told: u64,
    unanswered: BTreeMap<u64, Unanswered>,
}

struct Unanswered {
    deliveries: u32,
    /// When it is given out again.
    due: Instant,
}

/// What a reader does next.
enum Step {
    Give(Logged, u32),
    /// The event has been given out as often as it may.
    Exhausted(u64, u32),
    /// Nothing now; something at that moment at the latest.
    Wait(Option<Instant>),
}

impl State {
    /// A consumer as it was left, or from the oldest event on.
    pub(super) fn new(config: ConsumerConfig, saved: Option<SavedConsumer>) -> Result<State, StoreError> {
        let filter = Pattern::new(config.filter).map_err(|error| StoreError::Refused(error.to_string()))?;
        let mut state = State { config, filter, told: 0, unanswered: BTreeMap::new() };
        if let Some(saved) = saved {
            let (now, now_ms) = (Instant::now(), now_ms());
            let due = |due_ms: i64| now + Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0));
            let rows = saved.unanswered.into_iter();
            state.unanswered = rows
                .map(|(sequence, deliveries, due_ms)| (sequence, Unanswered { deliveries, due: due(due_ms) }))
                .collect();
            state.told = saved.told;
        }
        Ok(state)
    }

    pub(super) fn overlaps(&self, other: &State) -> bool {
        self.filter.overlaps(&other.filter)
    }

    pub(super) fn figures(&self, log: &LogState) -> ConsumerFigures {
        ConsumerFigures {
            name: self.config.name.to_owned(),
            waiting: log.count_after(&self.filter, self.told),
            unanswered: self.unanswered.len() as u64,
        }
    }

    fn step(log: &mut LogState, name: &str) -> Option<Step> {
        let now = Instant::now();
        // Taken out while it works, because it reads the log that it belongs to.
        let (key, mut consumer) = log.consumers.remove_entry(name)?;
        let step = consumer.step_in(log, now);
        log.consumers.insert(key, consumer);
        log.journal.hand_over();
        Some(step)
    }

    /// Readers do not wait until the disk has an event or its giving out: whatever they do comes behind it on disk, and
    /// where both are lost the event is appended and given out anew.
    fn step_in(&mut self, log: &mut LogState, now: Instant) -> Step {
        while let Some(sequence) = self.unanswered.iter().find(|(_, row)| row.due <= now).map(|row| *row.0) {
            let deliveries = self.unanswered.get(&sequence).map_or(0, |row| row.deliveries);
            let Some((event, _)) = log.event(sequence) else {
                self.forget(sequence, &mut log.journal);
                continue;
            };
            if self.config.deliveries_max.is_some_and(|max| deliveries >= max) {
                self.forget(sequence, &mut log.journal);
                return Step::Exhausted(sequence, deliveries);
            }
            self.give(sequence, deliveries + 1, now, &mut log.journal);
            return Step::Give(event, deliveries + 1);
        }
        let has_room = self.unanswered.len() < UNANSWERED_MAX;
        if let Some((event, _)) = has_room.then(|| log.next_after(&self.filter, &mut self.told)).flatten() {
            let (log_name, consumer, sequence) = (self.config.log, self.config.name, event.sequence);
            log.journal.note(|| Row::Told { log: log_name, consumer, sequence });
            self.give(sequence, 1, now, &mut log.journal);
            return Step::Give(event, 1);
        }
        Step::Wait(self.unanswered.values().map(|row| row.due).min())
    }

    /// Notes that an event is with a reader. A reader does not outlive the process: after a restart the event is due.
    fn give(&mut self, sequence: u64, deliveries: u32, now: Instant, journal: &mut Journal) {
        self.unanswered.insert(sequence, Unanswered { deliveries, due: now + self.config.ack_wait });
        self.note(sequence, Some((deliveries, 0)), journal);
    }

    /// Takes an event off the consumer; false where it was not on it.
    fn forget(&mut self, sequence: u64, journal: &mut Journal) -> bool {
        let was_open = self.unanswered.remove(&sequence).is_some();
        if was_open {
            self.note(sequence, None, journal);
        }
        was_open
    }

    fn note(&self, sequence: u64, row: Option<(u32, i64)>, journal: &mut Journal) {
        let (log, consumer) = (self.config.log, self.config.name);
        journal.note(|| Row::Unanswered { log, consumer, sequence, row });
    }
}

/// A reader of a consumer.
pub(in crate::store) struct EmbeddedConsumer {
    store: Arc<EmbeddedStore>,
    log: Arc<EmbeddedLog>,
    name: &'static str,
    changes: watch::Receiver<()>,
}

impl EmbeddedConsumer {
    pub(super) fn new(store: Arc<EmbeddedStore>, log: Arc<EmbeddedLog>, name: &str) -> Result<Self, StoreError> {
        let known = log.fresh().consumers.keys().find(|known| **known == name).copied();
        let missing = || StoreError::NoConsumer { log: log.config.name.to_owned(), name: name.to_owned() };
        let name = known.ok_or_else(missing)?;
        Ok(EmbeddedConsumer { store, changes: log.changes(), log, name })
    }

    pub(crate) async fn next(&mut self) -> Result<(Logged, u32, EmbeddedTicket), StoreError> {
        loop {
            self.changes.mark_unchanged();
            let step = State::step(&mut self.log.fresh(), self.name);
            match step {
                Some(Step::Give(event, deliveries)) => {
                    let (store, log) = (self.store.clone(), self.log.clone());
                    let ticket =
                        EmbeddedTicket { store, log, consumer: self.name, sequence: event.sequence, deliveries };
                    return Ok((event, deliveries, ticket));
                }
                Some(Step::Exhausted(sequence, deliveries)) => {
                    let advisory = Advisory::new(&self.log, self.name, sequence, deliveries);
                    self.store.advise("MAX_DELIVERIES", advisory).await?;
                }
                Some(Step::Wait(until)) => self.wait(until).await,
                None => {
                    let (log, name) = (self.log.config.name.to_owned(), self.name.to_owned());
                    return Err(StoreError::NoConsumer { log, name });
                }
            }
        }
    }

    /// Waits for a change. The sender lives in the log that this reader holds, so waiting cannot fail.
    async fn wait(&mut self, until: Option<Instant>) {
        let changed = self.changes.changed();
        let _ = match until {
            Some(until) => tokio::time::timeout_at(until, changed).await,
            None => Ok(changed.await),
        };
    }
}

/// The way back for one job.
pub(in crate::store) struct EmbeddedTicket {
    store: Arc<EmbeddedStore>,
    log: Arc<EmbeddedLog>,
    consumer: &'static str,
    sequence: u64,
    deliveries: u32,
}

impl EmbeddedTicket {
    pub(crate) async fn ack(&self) -> Result<(), StoreError> {
        let (_, ticket) = self.settle();
        self.log.backing.until(ticket).await
    }

    pub(crate) async fn retry(&self, after: Duration) -> Result<(), StoreError> {
        let ticket = self.postpone(after);
        self.log.wake();
        self.log.backing.until(ticket).await
    }

    pub(crate) fn in_progress(&self) {
        let mut log = self.log.fresh();
        if let Some((consumer, row)) = self.open(&mut log) {
            row.due = Instant::now() + consumer.ack_wait;
        }
    }

    pub(crate) async fn end(&self, reason: &str) -> Result<(), StoreError> {
        let (was_open, ticket) = self.settle();
        self.log.backing.until(ticket).await?;
        if !was_open {
            return Ok(());
        }
        let mut advisory = Advisory::new(&self.log, self.consumer, self.sequence, self.deliveries);
        advisory.reason = Some(reason);
        self.store.advise("MSG_TERMINATED", advisory).await
    }

    /// Takes the event off the consumer; false where it was answered before.
    fn settle(&self) -> (bool, Ticket) {
        let mut log = self.log.fresh();
        let LogState { consumers, journal, .. } = &mut *log;
        let consumer = consumers.get_mut(self.consumer);
        let was_open = consumer.is_some_and(|consumer| consumer.forget(self.sequence, journal));
        if was_open && self.log.is_work_queue() {
            log.remove(self.sequence);
        }
        let ticket = log.journal.hand_over();
        drop(log);
        self.log.wake();
        (was_open, ticket)
    }

    /// Sets when the event comes again, also after a restart.
    fn postpone(&self, wait: Duration) -> Ticket {
        let mut log = self.log.fresh();
        if let Some((_, row)) = self.open(&mut log) {
            row.due = Instant::now() + wait;
            let due_ms = now_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
            let LogState { consumers, journal, .. } = &mut *log;
            if let Some(consumer) = consumers.get(self.consumer) {
                consumer.note(self.sequence, Some((self.deliveries, due_ms)), journal);
            }
        }
        log.journal.hand_over()
    }

    /// The event as its consumer has it. An answer to an earlier delivery than the last one counts no more.
    fn open<'l>(&self, log: &'l mut LogState) -> Option<(&'l ConsumerConfig, &'l mut Unanswered)> {
        let State { config, unanswered, .. } = log.consumers.get_mut(self.consumer)?;
        let row = unanswered.get_mut(&self.sequence).filter(|row| row.deliveries == self.deliveries)?;
        Some((config, row))
    }
}

/// What a NATS server says of an event that it gives up (`io.nats.jetstream.advisory.v1.max_deliver`, `.terminated`).
#[derive(Serialize)]
pub(super) struct Advisory<'a> {
    pub(super) stream: &'a str,
    pub(super) consumer: &'a str,
    stream_seq: u64,
    deliveries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Advisory<'a> {
    fn new(log: &EmbeddedLog, consumer: &'a str, stream_seq: u64, deliveries: u32) -> Advisory<'a> {
        Advisory { stream: log.config.name, consumer, stream_seq, deliveries, reason: None }
    }
}
