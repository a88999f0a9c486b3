//! Events that a service reacts to: a durable consumer that all replicas share, its handler run beside the methods.
//! Each event ends in one way: done, again after a pause, or as a dead letter.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use metrics::Counter;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::blocking::{stalls, watched};
use super::context::{Context, Surroundings};
use super::dead_letters::{self, GivenUp};
use super::dispatch::panicked;
use super::service::{Running, Service};
use super::until_true;
use crate::fault::{Code, Fault};
use crate::store::{Consumer, ConsumerConfig, Job, Logged, StoreError};
use crate::telemetry::EVENTS_HANDLED;
use crate::transcode::from_wire;

/// Events of one consumer that a replica handles at the same time, where nothing else is said.
pub const CONSUMER_PARALLEL_DEFAULT: usize = 16;
/// Longest time that an event is handled; then it counts as failed.
pub const HANDLE_MAX: Duration = Duration::from_secs(15 * 60);

/// First pause before an event comes again; it doubles with each delivery, up to sixteen times.
const PAUSE: Duration = Duration::from_secs(1);
const DOUBLINGS_MAX: u32 = 4;
/// Tries to tell the store what became of an event, and the first pause between two, which doubles.
const TRIES: u32 = 4;
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a consumer that is gone is looked for again.
const LOST: Duration = Duration::from_secs(5);

/// How a service reads a consumer.
#[derive(Clone, Debug)]
pub struct Consume {
    config: ConsumerConfig,
    parallel: usize,
    pause: Duration,
}

impl Consume {
    /// Reads a consumer with [`CONSUMER_PARALLEL_DEFAULT`] events at a time, and pauses of 1, 2, 4, 8, 16 s.
    pub fn new(config: ConsumerConfig) -> Consume {
        Consume { config, parallel: CONSUMER_PARALLEL_DEFAULT, pause: PAUSE }
    }

    /// Events that one replica handles at the same time, at least 1.
    #[must_use]
    pub fn parallel(mut self, parallel: usize) -> Consume {
        self.parallel = parallel.max(1);
        self
    }

    /// First pause before an event comes again.
    #[must_use]
    pub fn first_pause(mut self, pause: Duration) -> Consume {
        self.pause = pause;
        self
    }

    fn pause_after(&self, deliveries: u32) -> Duration {
        self.pause * (1 << deliveries.saturating_sub(1).min(DOUBLINGS_MAX))
    }
}

impl From<ConsumerConfig> for Consume {
    fn from(config: ConsumerConfig) -> Consume {
        Consume::new(config)
    }
}

/// Why an event was not handled. A plain [`Fault`] means `Again`.
#[derive(Debug)]
pub enum Setback {
    /// It may go better next time: the event comes again after a pause, and on its last delivery is a dead letter.
    Again(Fault),
    /// It never goes better: the event is a dead letter at once.
    Never(Fault),
}

impl Setback {
    /// The fault, for handlers that answer somebody.
    pub fn into_fault(self) -> Fault {
        match self {
            Setback::Again(fault) | Setback::Never(fault) => fault,
        }
    }
}

impl From<Fault> for Setback {
    fn from(fault: Fault) -> Setback {
        Setback::Again(fault)
    }
}

type EventCall = Arc<dyn Fn(Context, Logged) -> Running<Result<(), Setback>> + Send + Sync>;

/// A consumer with its handler.
#[derive(Clone)]
pub(super) struct Consuming {
    consume: Consume,
    call: EventCall,
}

impl Service {
    /// Adds a handler for the events of a durable consumer, a [`ConsumerConfig`] or a [`Consume`]. It runs on every
    /// replica, each event on one of them, and again wherever one died over it: so it has to bear a repeat. Its
    /// context is one of the service's own account.
    #[must_use]
    pub fn consumer<F, Fut>(mut self, consume: impl Into<Consume>, handler: F) -> Service
    where
        F: Fn(Context, Logged) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Setback>> + Send + 'static,
    {
        let call: EventCall = Arc::new(move |context, event| Box::pin(handler(context, event)));
        self.add_consumer(Consuming { consume: consume.into(), call });
        self
    }
}

impl Context {
    /// Reads an event's bytes as a message by its full name. What does not decode never will.
    pub fn decode<T: DeserializeOwned>(&self, message: &str, payload: &Bytes) -> Result<T, Setback> {
        let never =
            |text: String| Setback::Never(Fault::ours(Code::Internal, "an event does not decode").internal(text));
        let tables = self.tables();
        let id = tables.message_id(message).ok_or_else(|| never(format!("`{message}` is in no descriptor")))?;
        from_wire(tables, id, payload).map_err(|error| never(format!("`{message}`: {error}")))
    }
}

/// What became of an event.
enum Verdict {
    Done,
    Again(Fault),
    /// A dead letter, and why.
    Dead(Fault),
}

/// A consumer as a replica runs it.
pub(super) struct Runner {
    around: Arc<Surroundings>,
    consuming: Consuming,
    stalls: Counter,
}

impl Runner {
    pub(super) fn new(around: &Arc<Surroundings>, consuming: Consuming) -> Arc<Runner> {
        let stalls = stalls(&around.service, consuming.consume.config.name);
        Arc::new(Runner { around: around.clone(), consuming, stalls })
    }

    /// Name of the service, the log and the consumer.
    pub(super) fn names(&self) -> (&str, &'static str, &'static str) {
        let config = self.config();
        (&self.around.service, config.log, config.name)
    }

    fn config(&self) -> &ConsumerConfig {
        &self.consuming.consume.config
    }

    pub(super) async fn open(&self) -> Result<Consumer, StoreError> {
        let config = self.config();
        self.around.store.consumer(config.log, config.name).await
    }

    /// Handles events until the worker drains, then finishes those that run.
    pub(super) async fn run(self: Arc<Self>, mut consumer: Consumer) {
        let mut draining = self.around.draining.clone();
        let mut running = JoinSet::new();
        loop {
            while running.try_join_next().is_some() {}
            let room = self.consuming.consume.parallel - running.len();
            tokio::select! {
                biased;
                () = until_true(&mut draining) => break,
                Some(_) = running.join_next(), if room == 0 => {}
                job = consumer.next(room), if room > 0 => match job {
                    Ok(job) => drop(running.spawn(self.clone().handle(job))),
                    Err(error) => {
                        self.warn(&error, "a consumer cannot be read");
                        let pause = tokio::time::sleep(LOST);
                        tokio::select! { () = pause => {}, () = until_true(&mut draining) => break }
                    }
                }
            }
        }
        consumer.leave().await;
        while running.join_next().await.is_some() {}
    }

    async fn handle(self: Arc<Self>, job: Job) {
        let (context, mut span) = Context::of_event(&self.around, self.config(), &job);
        let verdict = self.judge(&context, &job).await;
        if let Verdict::Again(fault) | Verdict::Dead(fault) = &verdict {
            span.fail(fault.code_name(), fault.message());
        }
        drop(span);
        let told = match verdict {
            Verdict::Done => self.tell("done", || job.ack()).await,
            Verdict::Again(fault) => {
                let pause = self.consuming.consume.pause_after(job.deliveries);
                tracing::warn!(
                    consumer = self.config().name,
                    sequence = job.event.sequence,
                    deliveries = job.deliveries,
                    ?pause,
                    %fault,
                    "an event was not handled and comes again"
                );
                self.tell("again", || job.retry(pause)).await
            }
            Verdict::Dead(fault) => self.bury(&context, &job, &fault).await,
        };
        if let Err(error) = told {
            // Without an answer the event comes again, and after its last delivery the store tells who reads its
            // advisories: nothing is lost.
            self.count("unanswered");
            self.warn(&error, "the store does not know what became of an event");
        }
    }

    /// Runs the handler, its panics caught, and keeps the event while it runs.
    async fn judge(&self, context: &Context, job: &Job) -> Verdict {
        let work = watched(&self.stalls, (self.consuming.call)(context.clone(), job.event.clone()));
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::pin!(work);
        let until = Instant::now() + HANDLE_MAX;
        let result = loop {
            let look = tokio::time::sleep(self.config().ack_wait / 3);
            tokio::select! {
                result = &mut work => break result,
                () = look => {}
            }
            if Instant::now() >= until {
                let text = format!("the event was handled for {HANDLE_MAX:?} without an end");
                break Ok(Err(Setback::Again(Fault::ours(Code::DeadlineExceeded, text))));
            }
            if let Err(error) = job.in_progress().await {
                self.warn(&error, "an event that is being handled may come again");
            }
        };
        let is_last = self.config().deliveries_max.is_some_and(|max| job.deliveries >= max);
        match result {
            Ok(Ok(())) => Verdict::Done,
            Ok(Err(Setback::Never(fault))) => Verdict::Dead(fault),
            Ok(Err(Setback::Again(fault))) if is_last => Verdict::Dead(fault),
            Ok(Err(Setback::Again(fault))) => Verdict::Again(fault),
            Err(panic) => match panicked(context, &*panic) {
                fault if is_last => Verdict::Dead(fault),
                fault => Verdict::Again(fault),
            },
        }
    }

    /// Keeps a copy as a dead letter, and only then gives the event up.
    async fn bury(&self, context: &Context, job: &Job, fault: &Fault) -> Result<(), StoreError> {
        let config = self.config();
        let reason = fault.to_string();
        tracing::error!(
            consumer = config.name,
            sequence = job.event.sequence,
            deliveries = job.deliveries,
            reason,
            "an event is given up: see `tidegate dlq list`"
        );
        let given_up = GivenUp {
            log: config.log,
            consumer: config.name,
            sequence: job.event.sequence,
            deliveries: job.deliveries,
            reason: &reason,
        };
        let store = &self.around.store;
        try_often(|| dead_letters::keep(store, &given_up, Some(&job.event), context.now_ms())).await?;
        self.tell("dead_letter", || job.end(dead_letters::ENDED)).await
    }

    async fn tell<Fut>(&self, outcome: &'static str, answer: impl Fn() -> Fut) -> Result<(), StoreError>
    where
        Fut: Future<Output = Result<(), StoreError>>,
    {
        try_often(answer).await?;
        self.count(outcome);
        Ok(())
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(EVENTS_HANDLED, "consumer" => self.config().name, "outcome" => outcome).increment(1);
    }

    fn warn(&self, error: &StoreError, text: &str) {
        tracing::warn!(service = self.around.service, consumer = self.config().name, %error, "{text}");
    }
}

/// Tries again where the store does not answer.
async fn try_often<T, Fut>(act: impl Fn() -> Fut) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut pause = TRY_PAUSE;
    for _ in 1..TRIES {
        match act().await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    act().await
}
