//! Logs: events appended once, read from a position, kept as their configuration says.

use std::time::Duration;

use bytes::Bytes;

use super::{Engine, Store, StoreError, VALUE_BYTES_MAX, check_size, embedded, jetstream};
use crate::bus::{Headers, Subject};

/// Most events that one embedded log keeps.
pub const LOG_EVENTS_MAX: usize = 100_000;
/// Most bytes that one embedded log keeps.
pub const LOG_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Until when a log keeps its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Until they are too old.
    Limits,
    /// Until the one consumer that takes them has dealt with them, or they are too old.
    WorkQueue,
}

/// What gives way where a log is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// The oldest events.
    Old,
    /// The new one: its append fails with [`StoreError::Full`].
    New,
}

/// A log of events to provide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Its name, `GAME_EVENTS`.
    pub name: &'static str,
    /// Patterns of the subjects that it takes; no other log takes the same.
    pub subjects: &'static [&'static str],
    /// Until when it keeps events.
    pub retention: Retention,
    /// Age at which an event goes.
    pub max_age: Duration,
    /// Bytes of the largest event, headers included.
    pub message_bytes_max: usize,
    /// How long an id is remembered; not above `max_age`.
    pub duplicate_window: Duration,
    /// What gives way where it is full.
    pub discard: Discard,
    /// Events cannot be removed before they are too old.
    pub denies_removal: bool,
    /// Most consumers.
    pub consumers_max: u32,
}

impl LogConfig {
    /// What most logs share: name and subjects are to be filled in.
    pub const DEFAULT: LogConfig = LogConfig {
        name: "",
        subjects: &[],
        retention: Retention::Limits,
        max_age: Duration::from_secs(3_600),
        message_bytes_max: VALUE_BYTES_MAX,
        duplicate_window: Duration::from_secs(120),
        discard: Discard::Old,
        denies_removal: false,
        consumers_max: 50,
    };
}

/// An event to append.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where it is published.
    pub subject: Subject,
    /// Its id: a second append of the same id within the log's window does nothing.
    pub id: String,
    /// Its headers, without the id.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position in the log.
    pub sequence: u64,
    /// The id was there already; nothing was written.
    pub is_duplicate: bool,
}

/// An event as read from a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Where it was published.
    pub subject: Subject,
    /// Its headers, `Nats-Msg-Id` among them.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// Position in the log.
    pub sequence: u64,
    /// When it was appended, milliseconds since 1970.
    pub created_ms: i64,
}

/// What a log holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFigures {
    /// Events in it.
    pub events: u64,
    /// Their bytes, as the engine counts them.
    pub bytes: u64,
    /// Position of the oldest event; nothing where it is empty.
    pub first: Option<u64>,
    /// Position of the newest event that it has ever had; 0 before the first.
    pub last: u64,
    /// Its consumers, in order of their names.
    pub consumers: Vec<ConsumerFigures>,
}

/// How far a consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerFigures {
    /// Its name.
    pub name: String,
    /// Events that it has not been given yet.
    pub waiting: u64,
    /// Events that it has been given and not answered.
    pub unanswered: u64,
}

/// Events of a log, as they come.
pub struct LogReader(ReaderEngine);

enum ReaderEngine {
    Embedded(embedded::EmbeddedReader),
    JetStream(Box<jetstream::JetStreamReader>),
}

impl Store {
    /// Provides a log, where there is none of its name yet; one that is there stays as it is.
    pub async fn provide_log(&self, config: LogConfig) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Embedded(store) => store.provide_log(config),
            Engine::JetStream(store) => store.provide_log(config).await,
        }
    }

    /// Publishes an event and waits until the log that takes its subject has kept it. Plain subscribers get it, too.
    pub async fn append(&self, event: Event) -> Result<Appended, StoreError> {
        check_size(event.payload.len())?;
        match &self.engine {
            Engine::Embedded(store) => store.append(event).await,
            Engine::JetStream(store) => store.append(event).await,
        }
    }

    /// Reads a log behind a position (0: from its oldest event), then goes on with new events. `filter` is a pattern.
    pub async fn read_log(&self, log: &str, filter: &str, after: u64) -> Result<LogReader, StoreError> {
        Ok(LogReader(match &self.engine {
            Engine::Embedded(store) => ReaderEngine::Embedded(store.read_log(log, filter, after)?),
            Engine::JetStream(store) => ReaderEngine::JetStream(Box::new(store.read_log(log, filter, after).await?)),
        }))
    }

    /// The event at a position, as the leader has it; nothing where there is none.
    pub async fn event(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        match &self.engine {
            Engine::Embedded(store) => store.event(log, sequence).await,
            Engine::JetStream(store) => store.event(log, sequence).await,
        }
    }

    /// The first event behind a position, as the leader has it; nothing where there is none.
    pub async fn event_after(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        match &self.engine {
            Engine::Embedded(store) => store.event_after(log, sequence).await,
            Engine::JetStream(store) => store.event_after(log, sequence).await,
        }
    }

    /// Removes the event at a position; false where there is none. Fails with [`StoreError::Refused`] where the log
    /// denies it.
    pub async fn remove_event(&self, log: &str, sequence: u64) -> Result<bool, StoreError> {
        match &self.engine {
            Engine::Embedded(store) => store.remove_event(log, sequence).await,
            Engine::JetStream(store) => store.remove_event(log, sequence).await,
        }
    }

    /// What a log holds now, and how far its consumers are.
    pub async fn log_figures(&self, log: &str) -> Result<LogFigures, StoreError> {
        match &self.engine {
            Engine::Embedded(store) => store.log_figures(log),
            Engine::JetStream(store) => store.log_figures(log).await,
        }
    }
}

impl LogReader {
    /// The next event, as soon as there is one. Can be dropped while it waits.
    pub async fn next(&mut self) -> Result<Logged, StoreError> {
        match &mut self.0 {
            ReaderEngine::Embedded(reader) => reader.next().await,
            ReaderEngine::JetStream(reader) => reader.next().await,
        }
    }
}
