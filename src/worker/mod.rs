//! The bus edge: methods of a service subscribed, dispatched to handlers over plain Rust structs, answered. Knows
//! neither HTTP nor the game: subjects, types and house style come from the snapshot.

mod beginning;
mod blocking;
mod cache;
mod consume;
mod context;
pub mod dead_letters;
mod declared;
mod discovery;
mod dispatch;
mod fail_point;
mod forward;
mod guard;
mod listen;
mod peer;
mod publish;
pub mod records;
mod repeat;
mod reply;
mod requester;
mod service;
mod shapes;
mod streams;
mod tasks;
mod trace;
pub mod types;
mod work_queues;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::bus::{Branch, Bus, BusError, Headers, Limits, Message};
use crate::config;
use crate::fault::Fault;
use crate::schema::SourceFile;
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use consume::Runner;
use context::Surroundings;
use discovery::Discovery;
use dispatch::Endpoint;

pub use cache::{Cache, CacheConfig, CacheKey, Keep, Made, Origin};
pub use consume::{CONSUMER_PARALLEL_DEFAULT, Consume, HANDLE_MAX, Setback};
pub use context::Context;
pub use declared::{Confirm, Content, Moment, Parting, Reply, Rule, RuleBeside, declared};
pub use forward::Forwarded;
pub use listen::{Heard, Notices};
pub use peer::PeerCall;
pub use repeat::{Repeats, fingerprint, hex};
pub use requester::Requester;
pub use service::{Failed, Service, Sharing};
pub use streams::Chunks;
pub use work_queues::WorkQueues;

/// Requests of one subject that are handled at the same time, where the options do not say.
pub const PARALLEL_DEFAULT: usize = 256;
/// Longest time that running requests and streams get when the worker drains.
pub const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Longest wait until the bus has taken the last replies.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Wait for the word that the server has all subscriptions, and how often it is asked for.
const CONFIRM: Duration = Duration::from_secs(2);
const CONFIRM_TRIES: u32 = 5;

/// Wall clock of a worker: milliseconds since 1970. Tests bring their own.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The clock of the machine; readings that go backwards are lifted to the last one.
pub fn system_clock() -> Clock {
    let last = std::sync::atomic::AtomicI64::new(0);
    Arc::new(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        last.fetch_max(now, std::sync::atomic::Ordering::Relaxed).max(now)
    })
}

/// What a worker runs on.
#[derive(Clone)]
pub struct Options {
    /// Where requests come from.
    pub bus: Bus,
    /// Where handlers keep what they know; shared by all workers of a process.
    pub store: Store,
    /// Methods, types and styles; kept as it is while the worker runs.
    pub snapshot: Arc<Snapshot>,
    /// The only clock that handlers see.
    pub clock: Clock,
    /// This replica's name, in `Tidegate-Instance` and discovery: `[A-Za-z0-9_-]`.
    pub instance: String,
    /// Requests of one subject that are handled at the same time; above it callers are told to come back.
    pub parallel: usize,
    /// Handlers that compute at the same time ([`Service::blocking`]); more wait for their turn.
    pub pool: usize,
    /// Silence after which a stream says that it lives.
    pub heartbeat: Duration,
    /// The schema's files, where gateways may take routes from this worker (`serve --discover`).
    pub announced: Option<Arc<Vec<SourceFile>>>,
}

impl Options {
    /// The usual: the store of the bus, the machine's clock, a random instance, [`PARALLEL_DEFAULT`], a pool of as many
    /// threads as there are processors, a heartbeat every 15 s.
    pub fn new(bus: Bus, snapshot: Arc<Snapshot>) -> Options {
        Options {
            store: Store::of(&bus),
            bus,
            snapshot,
            clock: system_clock(),
            instance: uuid::Uuid::new_v4().simple().to_string(),
            parallel: PARALLEL_DEFAULT,
            pool: config::processors(),
            heartbeat: Duration::from_secs(15),
            announced: None,
        }
    }
}

/// Why a worker does not start: a handler whose types do not fit the schema, or a method that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartProblem {
    /// Name of the service.
    pub service: String,
    /// Full name of the method.
    pub method: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for StartProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service `{}`, method `{}`: {}", self.service, self.method, self.text)
    }
}

/// Why a worker did not start.
#[derive(Debug)]
pub enum StartError {
    /// Handlers that do not fit, all of them.
    Problems(Vec<StartProblem>),
    /// The store of declared methods does not answer.
    Documents {
        /// Name of the service.
        service: String,
        /// Why not.
        fault: Fault,
    },
    /// The bus refused a subscription.
    Bus(BusError),
    /// A durable consumer cannot be read, because it is not there or the store does not answer.
    Consumer {
        /// Name of the service.
        service: String,
        /// Name of the log.
        log: &'static str,
        /// Name of the consumer.
        name: &'static str,
        /// Why not.
        error: StoreError,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Problems(problems) => {
                problems.iter().enumerate().try_for_each(|(index, problem)| match index {
                    0 => write!(f, "{problem}"),
                    _ => write!(f, "\n{problem}"),
                })
            }
            StartError::Documents { service, fault } => {
                write!(f, "service `{service}` cannot open what its declared methods need: {fault}")
            }
            StartError::Bus(error) => write!(f, "the bus refused a subscription: {error}"),
            StartError::Consumer { service, log, name, error } => {
                write!(f, "service `{service}` cannot read consumer `{name}` of log `{log}`: {error}")?;
                let is_missing = matches!(error, StoreError::NoLog(_) | StoreError::NoConsumer { .. });
                if is_missing { f.write_str("; make it with `tidegate streams apply`") } else { Ok(()) }
            }
        }
    }
}

impl std::error::Error for StartError {}

/// Services that run. Dropping it stops them at once; [`Worker::drain`] lets them finish.
pub struct Worker {
    bus: Bus,
    parallel: Arc<AtomicUsize>,
    is_draining: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Worker {
    /// Checks every handler's types against the snapshot, then subscribes. Nothing is subscribed where anything is
    /// wrong; all problems come at once.
    pub async fn start(options: Options, services: Vec<Service>) -> Result<Worker, StartError> {
        let problems: Vec<StartProblem> =
            services.iter().flat_map(|service| service.check(&options.snapshot)).collect();
        if !problems.is_empty() {
            return Err(StartError::Problems(problems));
        }
        let (is_draining, draining) = watch::channel(false);
        let (bus, parallel) = (options.bus.clone(), Arc::new(AtomicUsize::new(options.parallel)));
        let pool = Arc::new(Semaphore::new(options.pool.max(1)));
        let mut worker = Worker { bus, parallel: parallel.clone(), is_draining, tasks: JoinSet::new() };
        let mut found = Vec::new();
        for mut service in services {
            let around = Arc::new(Surroundings::new(&options, service.name(), &parallel, &pool, &draining));
            for consuming in service.take_consumers() {
                worker.consume(Runner::new(&around, consuming)).await?;
            }
            for task in service.take_tasks() {
                worker.tasks.spawn(tasks::run(around.clone(), task));
            }
            let name = service.name().to_owned();
            let opened = service.open(&options.store, &options.snapshot).await;
            let service = opened.map_err(|fault| StartError::Documents { service: name, fault })?;
            let endpoints = Endpoint::all_of(&around, &options, &parallel, service);
            for endpoint in &endpoints {
                let requests = endpoint.subscribe().await.map_err(StartError::Bus)?;
                worker.tasks.spawn(endpoint.clone().run(requests));
            }
            found.push(endpoints);
        }
        let discovery = Discovery::new(&options, found);
        let questions = discovery.subscribe().await.map_err(StartError::Bus)?;
        worker.tasks.spawn(discovery.run(questions, draining));
        confirmed(&worker.bus).await.map_err(StartError::Bus)?;
        Ok(worker)
    }

    /// Changes how many requests of one subject are handled at the same time, from the next request on.
    pub fn set_parallel(&self, parallel: usize) {
        self.parallel.store(parallel, Ordering::Relaxed);
    }

    async fn consume(&mut self, runner: Arc<Runner>) -> Result<(), StartError> {
        let consumer = runner.open().await.map_err(|error| {
            let (service, log, name) = runner.names();
            StartError::Consumer { service: service.to_owned(), log, name, error }
        })?;
        self.tasks.spawn(runner.run(consumer));
        Ok(())
    }

    /// Unsubscribes, lets running requests finish, ends streams with UNAVAILABLE; at most [`DRAIN_MAX`].
    pub async fn drain(self) {
        self.drain_within(DRAIN_MAX).await;
    }

    /// The same with another longest wait.
    pub async fn drain_within(mut self, longest: Duration) {
        self.is_draining.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(longest, all).await.is_err() {
            tracing::warn!("the worker stops while requests are running: they took longer than {longest:?}");
        }
        let _ = tokio::time::timeout(FLUSH_MAX, self.bus.flush()).await;
    }
}

/// Returns once the server has all subscriptions: a message of our own comes back behind them. A flush alone says that they
/// were sent.
async fn confirmed(bus: &Bus) -> Result<(), BusError> {
    bus.flush().await?;
    let inbox = bus.new_inbox(Branch::Reply);
    let mut back = bus.subscribe(&inbox.clone().into(), None, Limits::STREAM).await?;
    for _ in 0..CONFIRM_TRIES {
        let (headers, payload) = (Headers::new(), Bytes::new());
        bus.publish(Message { subject: inbox.clone(), reply: None, headers, payload }).await?;
        // A connection that breaks takes the message with it.
        if let Ok(Some(Ok(_))) = tokio::time::timeout(CONFIRM, back.next()).await {
            return Ok(());
        }
    }
    Err(BusError::Timeout)
}

/// Returns once the flag is set, or whoever sets it is gone.
async fn until_true(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|is_true| *is_true).await;
}
