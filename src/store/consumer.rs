//! Durable consumers: each event of a log is given to one of the readers that share a consumer, again and again until
//! one of them answers it, at most as often as the consumer says.

use std::time::Duration;

use super::{Engine, Logged, Store, StoreError, embedded, jetstream};

/// Most events that a consumer gives out before they are answered.
pub const UNANSWERED_MAX: usize = 1_000;

/// A durable consumer. It begins with the oldest event of its log and outlives its readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// The log that it reads.
    pub log: &'static str,
    /// Its name, `weather_time_sync`.
    pub name: &'static str,
    /// Pattern of the subjects that it takes.
    pub filter: &'static str,
    /// How long an answer may take before the event is given out again.
    pub ack_wait: Duration,
    /// How often an event is given out; without a limit it is until it is answered.
    pub deliveries_max: Option<u32>,
}

/// One reader of a consumer; all its readers, in whatever process, share the work.
pub struct Consumer(ConsumerEngine);

enum ConsumerEngine {
    Embedded(embedded::EmbeddedConsumer),
    JetStream(Box<jetstream::JetStreamConsumer>),
}

/// An event to be dealt with, then answered. One that is dropped without an answer is given out again.
pub struct Job {
    /// The event.
    pub event: Logged,
    /// How often it has been given out, this time included.
    pub deliveries: u32,
    ticket: Ticket,
}

enum Ticket {
    Embedded(embedded::EmbeddedTicket),
    JetStream(jetstream::JetStreamTicket),
}

impl Store {
    /// Provides a consumer, where its log has none of its name yet; one that is there stays as it is.
    pub async fn provide_consumer(&self, config: ConsumerConfig) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Embedded(store) => store.provide_consumer(config),
            Engine::JetStream(store) => store.provide_consumer(config).await,
        }
    }

    /// A reader of a consumer that is there. Fails with [`StoreError::NoLog`] or [`StoreError::NoConsumer`] where it
    /// is not.
    pub async fn consumer(&self, log: &str, name: &str) -> Result<Consumer, StoreError> {
        Ok(Consumer(match &self.engine {
            Engine::Embedded(store) => ConsumerEngine::Embedded(store.consumer(log, name)?),
            Engine::JetStream(store) => ConsumerEngine::JetStream(Box::new(store.consumer(log, name).await?)),
        }))
    }
}

impl Consumer {
    /// The next job, as soon as there is one; a lost connection is waited out. Up to `room` jobs are asked for at
    /// once, so say how many the caller can begin with now: whoever waits behind them loses the time to answer.
    /// Can be dropped while it waits.
    pub async fn next(&mut self, room: usize) -> Result<Job, StoreError> {
        match &mut self.0 {
            ConsumerEngine::Embedded(consumer) => {
                let (event, deliveries, ticket) = consumer.next().await?;
                Ok(Job { event, deliveries, ticket: Ticket::Embedded(ticket) })
            }
            ConsumerEngine::JetStream(consumer) => {
                let (event, deliveries, ticket) = consumer.next(room.max(1)).await?;
                Ok(Job { event, deliveries, ticket: Ticket::JetStream(ticket) })
            }
        }
    }

    /// Gives back what was asked for and has come since, for other readers to take at once.
    pub async fn leave(self) {
        match self.0 {
            ConsumerEngine::Embedded(_) => {}
            ConsumerEngine::JetStream(consumer) => consumer.leave().await,
        }
    }
}

impl Job {
    /// Done: it never comes again. Returns once the store knows.
    pub async fn ack(&self) -> Result<(), StoreError> {
        match &self.ticket {
            Ticket::Embedded(ticket) => ticket.ack().await,
            Ticket::JetStream(ticket) => ticket.ack().await,
        }
    }

    /// Not done: it comes again after a while, where it may come again. Returns once the store knows.
    pub async fn retry(&self, after: Duration) -> Result<(), StoreError> {
        match &self.ticket {
            Ticket::Embedded(ticket) => ticket.retry(after).await,
            Ticket::JetStream(ticket) => ticket.retry(after).await,
        }
    }

    /// Still at it: the time to answer begins anew.
    pub async fn in_progress(&self) -> Result<(), StoreError> {
        match &self.ticket {
            Ticket::Embedded(ticket) => {
                ticket.in_progress();
                Ok(())
            }
            Ticket::JetStream(ticket) => ticket.in_progress().await,
        }
    }

    /// Given up: it never comes again, and the reason stands in the store's advisory. Returns once the store knows.
    pub async fn end(&self, reason: &str) -> Result<(), StoreError> {
        match &self.ticket {
            Ticket::Embedded(ticket) => ticket.end(reason).await,
            Ticket::JetStream(ticket) => ticket.end(reason).await,
        }
    }
}
