//! Work that nobody has done. An event that is gone from a work queue was acknowledged or has grown too old, and the
//! store's reports do not tell one from the other: a NATS server that comes back after a crash reports events as deleted
//! that were acknowledged while it was away. So events become dead letters shortly before they are too old, and whole;
//! as long as that goes on, an event that is gone is one that somebody has dealt with.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::context::Context;
use super::dead_letters::{self, GivenUp};
use crate::bus::Pattern;
use crate::store::{ConsumerConfig, Discard, LogConfig, Logged, Retention, Store, StoreError};

/// Share of an event's life, at its end, in which it becomes a dead letter: the last two hours of a day.
const MARGIN: u32 = 12;
/// Looks at a queue within that time, so that several may fail.
const LOOKS: u32 = 8;
/// Longest pause after a look that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Reason of an event that was in a work queue until shortly before it was too old.
const UNDONE: &str = "nobody has done it in time";

/// The work queues whose events must not grow too old unseen.
pub struct WorkQueues(Vec<Queue>);

struct Queue {
    log: LogConfig,
    consumers: Vec<ConsumerConfig>,
    watched: Mutex<Watched>,
}

impl WorkQueues {
    /// The work queues among these logs, and who reads them.
    pub fn new(logs: &[LogConfig], consumers: impl IntoIterator<Item = ConsumerConfig>) -> WorkQueues {
        let consumers: Vec<ConsumerConfig> = consumers.into_iter().collect();
        let queue = |log: &LogConfig| Queue {
            consumers: consumers.iter().filter(|consumer| consumer.log == log.name).cloned().collect(),
            log: log.clone(),
            watched: Mutex::default(),
        };
        WorkQueues(logs.iter().filter(|log| log.retention == Retention::WorkQueue).map(queue).collect())
    }

    /// Looks after the queues for as long as the service runs.
    pub(super) async fn watch(&self, context: &Context) {
        let watching = futures_util::future::join_all(self.0.iter().map(|queue| queue.watch(context)));
        tokio::select! {
            _ = watching => {}
            _ = context.until_cancelled() => {}
        }
    }

    pub(super) fn contains(&self, log: &str) -> bool {
        self.queue(log).is_some()
    }

    /// True where an event that is gone from this log now, and was there at that time at the latest known, cannot have
    /// grown too old unseen.
    pub(super) fn was_dealt_with(&self, log: &str, reported_ms: i64, now_ms: i64) -> bool {
        self.queue(log).is_some_and(|queue| {
            // One that is full lets go of events that nobody has done.
            let keeps_all = queue.log.discard == Discard::New;
            keeps_all && queue.watched(|watched| watched.covers(reported_ms, now_ms, queue.margin_ms()))
        })
    }

    fn queue(&self, log: &str) -> Option<&Queue> {
        self.0.iter().find(|queue| queue.log.name == log)
    }
}

impl Queue {
    fn margin(&self) -> Duration {
        self.log.max_age / MARGIN
    }

    fn margin_ms(&self) -> i64 {
        milliseconds(self.margin())
    }

    fn watched<T>(&self, use_it: impl FnOnce(&mut Watched) -> T) -> T {
        use_it(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn watch(&self, context: &Context) {
        let mut pause = self.margin() / LOOKS;
        loop {
            let start_ms = context.now_ms();
            match self.look(context, start_ms).await {
                Ok(()) => {
                    self.watched(|watched| watched.note(start_ms, context.now_ms(), self.margin_ms()));
                    pause = self.margin() / LOOKS;
                }
                Err(error) => {
                    tracing::warn!(log = self.log.name, %error, "a work queue cannot be looked after");
                    pause = pause.min(RETRY);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives up what is about to be too old. Events lie in the order of their ages.
    async fn look(&self, context: &Context, now_ms: i64) -> Result<(), StoreError> {
        let (store, old_ms) = (context.store(), now_ms - milliseconds(self.log.max_age - self.margin()));
        let mut last = 0;
        while let Some(event) = store.event_after(self.log.name, last).await?.filter(|event| event.created_ms <= old_ms)
        {
            self.give_up(store, &event, now_ms).await?;
            last = event.sequence;
        }
        Ok(())
    }

    async fn give_up(&self, store: &Store, event: &Logged, now_ms: i64) -> Result<(), StoreError> {
        let takes = |consumer: &&ConsumerConfig| {
            Pattern::new(consumer.filter).is_ok_and(|filter| filter.matches(event.subject.as_str()))
        };
        let consumer = self.consumers.iter().find(takes).map_or("nobody", |consumer| consumer.name);
        let (log, sequence) = (self.log.name, event.sequence);
        tracing::error!(log, consumer, sequence, "work is given up that nobody has done: see `tidegate dlq list`");
        // How often it was tried is known to its consumer alone.
        let given_up = GivenUp { log, consumer, sequence, deliveries: 0, reason: UNDONE };
        dead_letters::keep_and_count(store, &given_up, Some(event), now_ms).await?;
        store.remove_event(log, sequence).await?;
        Ok(())
    }
}

/// How a queue has been looked after: from when on without a gap, and when the last look began, in milliseconds since
/// 1970.
#[derive(Default)]
struct Watched(Option<(i64, i64)>);

impl Watched {
    /// A look is over. Where the one before is longer ago than the margin, events may have gone between the two.
    fn note(&mut self, start_ms: i64, end_ms: i64, margin_ms: i64) {
        let since_ms = match self.0 {
            Some((since_ms, last_ms)) if end_ms - last_ms <= margin_ms => since_ms,
            _ => end_ms,
        };
        self.0 = Some((since_ms, start_ms));
    }

    /// True where nothing can have grown too old unseen between these two times.
    fn covers(&self, from_ms: i64, until_ms: i64, margin_ms: i64) -> bool {
        self.0.is_some_and(|(since_ms, last_ms)| since_ms <= from_ms && until_ms - last_ms <= margin_ms)
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_two_looks_is_where_events_may_have_gone() {
        let mut watched = Watched::default();
        assert!(!watched.covers(10, 10, 100), "nobody has looked");
        watched.note(0, 10, 100);
        assert!(!watched.covers(9, 20, 100), "gone before the first look was over");
        assert!(watched.covers(10, 100, 100));
        assert!(!watched.covers(10, 101, 100), "the last look is too long ago");
        watched.note(90, 100, 100);
        assert!(watched.covers(10, 190, 100));
        watched.note(180, 191, 100);
        assert!(!watched.covers(190, 200, 100), "the look was over too late");
        assert!(watched.covers(191, 280, 100));
    }
}
