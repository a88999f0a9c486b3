//! `tidegate worker`: services on the bus, and the same for `dev` on a thread of their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::sync::oneshot;

use super::serve::told_to_end;
use super::{NatsArgs, TableArgs, build, bus, runtime};
use crate::bus::{Bus, Status};
use crate::fault::{Code, Fault};
use crate::services::{self, Settings, TextEndpoint};
use crate::snapshot::{Live, Snapshot};
use crate::worker::{Options, Service, Worker};

#[derive(Args, Clone)]
pub(super) struct WorkerArgs {
    /// Services to run, such as `quest-system`; all without a name.
    names: Vec<String>,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
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
    let (_, snapshot) = build(args.tables.source_or_built_in().as_ref())?;
    let mut nats = args.nats.clone();
    nats.nats.get_or_insert_with(|| "nats://127.0.0.1:4222".to_owned());
    runtime()?.block_on(async {
        let bus = bus(&nats, "tidegate worker", "worker").await?;
        let worker = start(&bus, Arc::new(snapshot), &args.names, args.provision).await?;
        tracing::info!("worker ready");
        told_to_end().await;
        tracing::info!("draining");
        worker.drain().await;
        bus.close().await;
        Ok(())
    })
}

/// Subscribes the named services, once the bus is there: their buckets have to exist first.
async fn start(bus: &Bus, snapshot: Arc<Snapshot>, names: &[String], provision: Provision) -> Result<Worker, Fault> {
    let mut status = bus.status();
    if status.wait_for(|status| *status == Status::Connected).await.is_err() {
        return Err(Fault::upstream(Code::Unavailable, "the message bus closed before the services started"));
    }
    let mut options = Options::new(bus.clone(), snapshot);
    if provision == Provision::Never {
        options.store = options.store.without_creating();
    }
    let all = services::roster(&options.store, &settings()?).await?;
    let known: Vec<String> = all.iter().map(|service| service.name().to_owned()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        let text = format!("there is no service `{unknown}`: there are {}", known.join(", "));
        return Err(Fault::client(Code::NotFound, text));
    }
    // Without names: those that these tables know, so that `dev` also runs on tables of somebody's own.
    let is_known = |name: &str| options.snapshot.services.iter().any(|row| &*row.short_name == name);
    let is_chosen =
        |name: &str| if names.is_empty() { is_known(name) } else { names.iter().any(|wanted| wanted == name) };
    let chosen: Vec<Service> = all.into_iter().filter(|service| is_chosen(service.name())).collect();
    let fault = |error: crate::worker::StartError| {
        let text = match error {
            crate::worker::StartError::Problems(_) => "the services do not fit the descriptors",
            _ => "the services do not start",
        };
        Fault::ours(Code::Internal, text).internal(error.to_string())
    };
    Worker::start(options, chosen).await.map_err(fault)
}

/// What the environment tells the services: `TIDEGATE_TEXT_URL` (`https://host/v1`, an endpoint that speaks the OpenAI
/// chat-completions form), `TIDEGATE_TEXT_KEY` (its key, or `file:PATH`), `TIDEGATE_TEXT_MODELS` (`id=name,id=name`).
fn settings() -> Result<Settings, Fault> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(base_url) = given("TIDEGATE_TEXT_URL") else { return Ok(Settings::default()) };
    let key = match given("TIDEGATE_TEXT_KEY") {
        Some(key) => match key.strip_prefix("file:") {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Fault::client(Code::InvalidArgument, format!("`TIDEGATE_TEXT_KEY` names `{path}`: {error}"))
            })?),
            None => Some(key),
        },
        None => None,
    };
    let models = given("TIDEGATE_TEXT_MODELS").unwrap_or_default();
    let models = models.split(',').filter_map(|row| row.split_once('='));
    let models = models.map(|(id, name)| (id.trim().to_owned(), name.trim().to_owned())).collect();
    let key = key.map(|key| key.trim().to_owned());
    Ok(Settings { text: Some(TextEndpoint { base_url, key, models, retry_pause: Duration::from_secs(1) }) })
}

/// Services on a thread of their own, so that no handler stalls the gateway's sockets.
pub(super) struct Thread {
    nats: NatsArgs,
    names: Vec<String>,
    /// The gateway's bus: the embedded one is shared, because it lives in this process.
    shared: Bus,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Thread {
    pub(super) fn new(nats: NatsArgs, names: Vec<String>, shared: Bus) -> Thread {
        Thread { nats, names, shared, running: Mutex::new(None) }
    }

    /// Starts the thread and waits until the services are subscribed.
    pub(super) fn start(&self, live: &Arc<Live>) -> Result<(), Fault> {
        let (nats, names, shared, snapshot) = (self.nats.clone(), self.names.clone(), self.shared.clone(), live.pin());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(move || {
            let result = runtime().and_then(|runtime| {
                runtime.block_on(async {
                    let bus =
                        if nats.nats.is_some() { bus(&nats, "tidegate services", "worker").await? } else { shared };
                    let worker = start(&bus, snapshot, &names, Provision::Missing).await?;
                    let _ = ready.send(Ok(()));
                    let _ = stopped.await;
                    worker.drain().await;
                    Ok(())
                })
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
