//! Durable consumers in memory: what has been given out and not answered, and when it comes again. Says what it gave
//! up in the advisories that a NATS server sends, so that whoever reads those runs on both engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{ConsumerConfig, ConsumerFigures, Logged, StoreError, UNANSWERED_MAX};
use super::EmbeddedStore;
use super::log::{EmbeddedLog, State as LogState};
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
    pub(super) fn new(config: ConsumerConfig) -> Result<State, StoreError> {
        let filter = Pattern::new(config.filter).map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(State { config, filter, told: 0, unanswered: BTreeMap::new() })
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
        Some(step)
    }

    fn step_in(&mut self, log: &LogState, now: Instant) -> Step {
        while let Some(sequence) = self.unanswered.iter().find(|(_, row)| row.due <= now).map(|row| *row.0) {
            let (Some(event), Some(row)) = (log.event(sequence), self.unanswered.get_mut(&sequence)) else {
                self.unanswered.remove(&sequence);
                continue;
            };
            let deliveries = row.deliveries;
            if self.config.deliveries_max.is_some_and(|max| deliveries >= max) {
                self.unanswered.remove(&sequence);
                return Step::Exhausted(sequence, deliveries);
            }
            *row = Unanswered { deliveries: deliveries + 1, due: now + self.config.ack_wait };
            return Step::Give(event, deliveries + 1);
        }
        let has_room = self.unanswered.len() < UNANSWERED_MAX;
        if let Some(event) = has_room.then(|| log.next_after(&self.filter, &mut self.told)).flatten() {
            self.unanswered.insert(event.sequence, Unanswered { deliveries: 1, due: now + self.config.ack_wait });
            return Step::Give(event, 1);
        }
        Step::Wait(self.unanswered.values().map(|row| row.due).min())
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
    pub(crate) fn ack(&self) -> Result<(), StoreError> {
        self.settle();
        Ok(())
    }

    pub(crate) fn retry(&self, after: Duration) -> Result<(), StoreError> {
        self.postpone(|_| after);
        self.log.wake();
        Ok(())
    }

    pub(crate) fn in_progress(&self) -> Result<(), StoreError> {
        self.postpone(|config| config.ack_wait);
        Ok(())
    }

    pub(crate) async fn end(&self, reason: &str) -> Result<(), StoreError> {
        if !self.settle() {
            return Ok(());
        }
        let mut advisory = Advisory::new(&self.log, self.consumer, self.sequence, self.deliveries);
        advisory.reason = Some(reason);
        self.store.advise("MSG_TERMINATED", advisory).await
    }

    /// Takes the event off the consumer; false where it was answered before.
    fn settle(&self) -> bool {
        let mut log = self.log.fresh();
        let consumer = log.consumers.get_mut(self.consumer);
        let was_open = consumer.is_some_and(|consumer| consumer.unanswered.remove(&self.sequence).is_some());
        if was_open && self.log.is_work_queue() {
            log.remove(self.sequence);
        }
        drop(log);
        self.log.wake();
        was_open
    }

    /// Sets when the event comes again. An answer to an earlier delivery than the last one counts no more.
    fn postpone(&self, wait: impl FnOnce(&ConsumerConfig) -> Duration) {
        let mut log = self.log.fresh();
        let Some(consumer) = log.consumers.get_mut(self.consumer) else { return };
        let wait = wait(&consumer.config);
        if let Some(row) = consumer.unanswered.get_mut(&self.sequence).filter(|row| row.deliveries == self.deliveries) {
            row.due = Instant::now() + wait;
        }
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
