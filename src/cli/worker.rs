//! `tidegate worker`: services on the bus, and the same for `dev` on a thread of their own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use clap::{Args, ValueEnum};
use tokio::sync::oneshot;

use super::serve::{metrics, told_to_end};
use super::settings::{CacheArgs, SettingsArgs};
use super::traces::TraceArgs;
use super::{NatsArgs, TableArgs, address, build, bus, run_services};
use crate::bus::{Bus, Status};
use crate::fault::{Code, Fault};
use crate::gateway::{Gateway, Readiness, bus_readiness};
use crate::services::{self, LiveSettings, ROSTER};
use crate::snapshot::{Live, Method, ServiceRow};
use crate::store::Store;
use crate::telemetry;
use crate::worker::{Options, Service, Worker, declared};

#[derive(Args, Clone)]
pub(super) struct WorkerArgs {
    /// Services to run, such as `quest-system`; all without a name or a `--service`.
    names: Vec<String>,
    /// A service whose operations the schema declares, such as `todo.v1.TodoService`: it needs no code.
    #[arg(long = "service", value_name = "PKG.SERVICE")]
    declared: Vec<String>,
    /// Gateways that discover may take these services' routes from the descriptors (`serve --discover`).
    #[arg(long, env = "TIDEGATE_ANNOUNCE")]
    announce: bool,
    /// Where health and metrics are; nowhere without it.
    #[arg(long, env = "TIDEGATE_ADMIN", value_parser = address)]
    admin: Option<SocketAddr>,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Streams, consumers and buckets that are not there: `missing` makes them, `never` leaves that to
    /// `tidegate streams apply` and does not start. What is there stays as it is.
    #[arg(long, env = "TIDEGATE_PROVISION", value_enum, default_value_t = Provision::Missing)]
    provision: Provision,
}

/// What a worker makes on the server.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Provision {
    Missing,
    Never,
}

/// Runs services until the process is told to end.
pub(super) fn run(args: &WorkerArgs) -> Result<(), Fault> {
    // Before the tables: they keep handles of the metrics.
    let handle = telemetry::install_metrics();
    let _traces = args.traces.start("tidegate-worker")?;
    let (material, snapshot) = build(args.tables.source()?.as_ref())?;
    let announced = args.announce.then(|| Arc::new(material.descriptors));
    let mut nats = args.nats.clone();
    nats.nats.get_or_insert_with(|| "nats://127.0.0.1:4222".to_owned());
    run_services(async {
        let names: Vec<String> = args.names.iter().chain(&args.declared).cloned().collect();
        let settings = args.settings.follow()?;
        // From here on, also before the bus is there: as process 1 of a container nothing else would end it.
        let mut end = std::pin::pin!(told_to_end());
        let bus = bus(&nats, "tidegate worker", user_of(&names)).await?;
        // The port is there before the bus is: a process that waits for it lives, and says why it is not ready.
        let state = Arc::new(AtomicU8::new(STARTING));
        if let Some(address) = args.admin {
            let metrics = handle.map(|handle| metrics(handle, vec![bus.clone()]));
            let admin = Gateway::admin(address, readiness(state.clone(), bus.clone()), metrics)?;
            tracing::info!(%admin, "worker starting");
        }
        let mut options = Options::new(bus.clone(), Arc::new(snapshot));
        options.announced = announced;
        if args.provision == Provision::Never {
            options.store = options.store.without_creating();
        }
        options.store = args.cache.of(options.store)?;
        let worker = tokio::select! {
            worker = start(options, &names, &settings) => worker?,
            () = &mut end => return Ok(()),
        };
        state.store(READY, Ordering::Release);
        tracing::info!("worker ready");
        let ended = async {
            end.await;
            state.store(DRAINING, Ordering::Release);
        };
        run_until(worker, &settings, ended).await;
        bus.close().await;
        Ok(())
    })
}

/// The NATS user whose inboxes a worker has: a service that runs alone has its own.
fn user_of(names: &[String]) -> &str {
    match names {
        [name] if !name.contains('.') => name,
        _ => "worker",
    }
}

/// Where a worker is in its life, for its admin port.
const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

fn readiness(state: Arc<AtomicU8>, bus: Bus) -> Readiness {
    Arc::new(move || match state.load(Ordering::Acquire) {
        READY => bus_readiness(&bus),
        DRAINING => Err("draining"),
        _ => bus_readiness(&bus).and(Err("the services are starting")),
    })
}

/// Subscribes the named services, once the bus is there: their buckets have to exist first.
async fn start(mut options: Options, names: &[String], settings: &LiveSettings) -> Result<Worker, Fault> {
    let mut status = options.bus.status();
    if status.wait_for(|status| *status == Status::Connected).await.is_err() {
        return Err(Fault::upstream(Code::Unavailable, "the message bus closed before the services started"));
    }
    options.parallel = settings.now().common.max_parallel;
    let chosen = choose(&options, settings, names).await?;
    let fault = |error: crate::worker::StartError| {
        let text = match error {
            crate::worker::StartError::Problems(_) => "the services do not fit the descriptors",
            _ => "the services do not start",
        };
        Fault::ours(Code::Internal, text).internal(error.to_string())
    };
    Worker::start(options, chosen).await.map_err(fault)
}

/// The services with these names: of the roster, or declared by the schema. Without names, all that these tables know,
/// so that `dev` also runs on tables of somebody's own; never those of `without`.
async fn choose(options: &Options, settings: &LiveSettings, names: &[String]) -> Result<Vec<Service>, Fault> {
    let without = &settings.now().common.without;
    let rows = options.snapshot.services.iter().filter(|row| !without.iter().any(|name| **name == *row.short_name));
    let rows: Vec<&ServiceRow> = rows.collect();
    let needs_no_code = |method: &Arc<Method>| method.operation.as_ref().is_some_and(|it| it.hook().is_none());
    let declares_all = |row: &ServiceRow| row.methods.iter().all(needs_no_code);
    let has_name = |row: &ServiceRow, name: &str| *row.name == *name || *row.short_name == *name;
    let is_chosen = |row: &ServiceRow| names.is_empty() || names.iter().any(|name| has_name(row, name));
    let is_known = |name: &str| rows.iter().any(|row| has_name(row, name));
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let served = rows.iter().filter(|row| declares_all(row) || ROSTER.contains(&&*row.short_name));
        let served: Vec<&str> = served.map(|row| &*row.short_name).collect();
        let text = format!("there is no service `{unknown}`: there are {}", served.join(", "));
        return Err(Fault::client(Code::NotFound, text));
    }
    let is_wanted = |name: &str| rows.iter().any(|row| &*row.short_name == name && is_chosen(row));
    let mut chosen = services::roster(&options.store, settings, is_wanted).await?;
    for row in rows.iter().filter(|row| is_chosen(row) && !ROSTER.contains(&&*row.short_name)) {
        // Asked for by name it has to be served; without names only what needs no code is.
        if declares_all(row) || !names.is_empty() {
            chosen.push(declared(&options.store, &options.snapshot, &row.name).await?);
        }
    }
    Ok(chosen)
}

/// Lets a worker run, with the limits of the settings in force, then drains it.
async fn run_until(worker: Worker, settings: &LiveSettings, end: impl Future<Output = ()>) {
    let mut changes = settings.changes();
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            Ok(()) = changes.changed() => worker.set_parallel(settings.now().common.max_parallel),
        }
    }
    tracing::info!("draining");
    worker.drain_within(settings.now().common.drain).await;
}

/// Services on a thread of their own, so that no handler stalls the gateway's sockets.
pub(super) struct Thread {
    nats: NatsArgs,
    settings: SettingsArgs,
    /// The gateway's bus: the embedded one is shared, because it lives in this process.
    shared: Bus,
    /// Where the state is kept, where that is not the store of the bus.
    store: Option<Store>,
    cache: CacheArgs,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Thread {
    pub(super) fn new(
        nats: NatsArgs,
        settings: SettingsArgs,
        cache: CacheArgs,
        shared: Bus,
        store: Option<Store>,
    ) -> Thread {
        Thread { nats, settings, shared, store, cache, running: Mutex::new(None) }
    }

    /// Starts the thread and waits until the services are subscribed.
    pub(super) fn start(&self, live: &Arc<Live>) -> Result<(), Fault> {
        let (nats, shared, snapshot) = (self.nats.clone(), self.shared.clone(), live.pin());
        let (settings, store, cache) = (self.settings.clone(), self.store.clone(), self.cache.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(move || {
            let result = run_services(async {
                let bus = if nats.nats.is_some() { bus(&nats, "tidegate services", "worker").await? } else { shared };
                let settings = settings.follow()?;
                let mut options = Options::new(bus, snapshot);
                if let Some(store) = store {
                    options.store = store;
                }
                options.store = cache.of(options.store)?;
                let worker = start(options, &[], &settings).await?;
                let _ = ready.send(Ok(()));
                run_until(worker, &settings, async { drop(stopped.await) }).await;
                Ok(())
            });
            if let Err(fault) = result {
                let _ = ready.send(Err(fault));
            }
        });
        let ours = |text: String| Fault::ours(Code::Internal, text);
        let thread = thread.map_err(|error| ours(format!("the services' thread does not start: {error}")))?;
        is_ready.recv().map_err(|_| ours("the services' thread ended".to_owned()))??;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, thread));
        Ok(())
    }

    /// Drains the services and waits for the thread.
    pub(super) fn stop(&self) {
        if let Some((stop, thread)) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}
