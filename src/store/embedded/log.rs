//! A log of events in memory. Readers pull: each remembers its position, so none needs a queue.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{Appended, LOG_BYTES_MAX, LOG_EVENTS_MAX, LogConfig, Logged, StoreError};
use super::locked;
use crate::bus::{Message, Pattern};

/// A log.
pub(in crate::store) struct EmbeddedLog {
    name: &'static str,
    subjects: Vec<Pattern>,
    max_age: Duration,
    duplicate_window: Duration,
    state: Mutex<State>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Position of the newest event.
    sequence: u64,
    bytes: usize,
    /// The kept events, the last one at `sequence`.
    events: VecDeque<(Instant, Message)>,
    /// Position of each id that is still remembered.
    ids: HashMap<String, u64>,
    /// The remembered ids in order of their age; as many as the window holds, at most [`LOG_EVENTS_MAX`].
    ages: VecDeque<(Instant, String)>,
}

impl EmbeddedLog {
    pub(crate) fn new(config: &LogConfig) -> Result<Arc<EmbeddedLog>, StoreError> {
        let subjects: Result<Vec<Pattern>, _> = config.subjects.iter().map(|subject| Pattern::new(*subject)).collect();
        Ok(Arc::new(EmbeddedLog {
            name: config.name,
            subjects: subjects.map_err(|error| StoreError::NoLog(error.to_string()))?,
            max_age: config.max_age,
            duplicate_window: config.duplicate_window,
            state: Mutex::default(),
            newest: watch::Sender::new(0),
        }))
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn takes(&self, subject: &str) -> bool {
        self.subjects.iter().any(|pattern| pattern.matches(subject))
    }

    pub(crate) fn append(&self, id: &str, message: Message) -> Appended {
        let mut state = locked(&self.state);
        state.forget(self.max_age, self.duplicate_window);
        if let Some(sequence) = state.ids.get(id) {
            return Appended { sequence: *sequence, is_duplicate: true };
        }
        state.sequence += 1;
        let (sequence, now) = (state.sequence, Instant::now());
        state.bytes += message.payload.len();
        state.events.push_back((now, message));
        state.ids.insert(id.to_owned(), sequence);
        state.ages.push_back((now, id.to_owned()));
        drop(state);
        self.newest.send_replace(sequence);
        Appended { sequence, is_duplicate: false }
    }

    pub(crate) fn read(self: Arc<Self>, filter: &str, after: u64) -> Result<EmbeddedReader, StoreError> {
        let filter = Pattern::new(filter).map_err(|error| StoreError::NoLog(error.to_string()))?;
        Ok(EmbeddedReader { newest: self.newest.subscribe(), log: self, filter, told: after })
    }
}

impl State {
    fn forget(&mut self, max_age: Duration, window: Duration) {
        let is_over = |state: &State| state.events.len() >= LOG_EVENTS_MAX || state.bytes > LOG_BYTES_MAX;
        while self.events.front().is_some_and(|(at, _)| at.elapsed() >= max_age) || is_over(self) {
            let Some((_, message)) = self.events.pop_front() else { break };
            self.bytes -= message.payload.len();
        }
        while self.ages.front().is_some_and(|(at, _)| at.elapsed() >= window) || self.ages.len() >= LOG_EVENTS_MAX {
            let Some((_, id)) = self.ages.pop_front() else { break };
            self.ids.remove(&id);
        }
    }

    fn next_after(&self, filter: &Pattern, told: u64) -> Option<Logged> {
        let oldest = self.sequence - self.events.len() as u64 + 1;
        let skip = (told + 1).saturating_sub(oldest) as usize;
        let (index, (_, message)) = self
            .events
            .iter()
            .enumerate()
            .skip(skip)
            .find(|(_, (_, message))| filter.matches(message.subject.as_str()))?;
        Some(Logged {
            subject: message.subject.clone(),
            headers: message.headers.clone(),
            payload: message.payload.clone(),
            sequence: oldest + index as u64,
        })
    }
}

/// A reader of a log.
pub(in crate::store) struct EmbeddedReader {
    log: Arc<EmbeddedLog>,
    newest: watch::Receiver<u64>,
    filter: Pattern,
    told: u64,
}

impl EmbeddedReader {
    pub(crate) async fn next(&mut self) -> Logged {
        loop {
            self.newest.mark_unchanged();
            let found = {
                let mut state = locked(&self.log.state);
                state.forget(self.log.max_age, self.log.duplicate_window);
                state.next_after(&self.filter, self.told)
            };
            if let Some(event) = found {
                self.told = event.sequence;
                return event;
            }
            // The sender lives in the log that this reader holds, so waiting cannot fail.
            let _ = self.newest.changed().await;
        }
    }
}
