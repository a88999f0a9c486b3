//! `dev` and `serve`: the gateway as a process, and its orderly end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use tokio::sync::watch;

use super::admin::AdminArgs;
use super::settings::{CacheArgs, SettingsArgs};
use super::threads::{self, Threads};
use super::traces::TraceArgs;
use super::{NatsArgs, TableArgs, address, build, connect, runtime, table, worker};
use crate::bus::{Bus, Figures, NatsOptions, Pattern};
use crate::config::{self, LISTEN_DEV, LISTEN_SERVE};
use crate::fault::Fault;
use crate::gateway::{AccessConfig, Gateway, GatewayConfig, Running, bus_readiness, network};
use crate::snapshot::{self, Breaking, Live, Outcome, Rules, Snapshot, Source, WorkersSource, answer_for};
use crate::store::Store;
use crate::telemetry::{self, PrometheusHandle};

/// Routes that `dev` shows of tables that are not the game's.
const ROUTES_SHOWN: usize = 5;
/// Open files that are kept for the bus, the tables and the admin port; connections get the rest.
const FILES_RESERVED: usize = 64;

#[derive(Args, Clone)]
pub(super) struct ServeArgs {
    /// Where HTTP requests come in.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = LISTEN_SERVE, value_parser = address)]
    listen: SocketAddr,
    /// Threads that serve connections, each with a connection of its own to NATS; as many as there are processors, or
    /// one where there are two.
    #[arg(long, env = "TIDEGATE_THREADS", value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Proxies whose X-Forwarded-For and trusted headers count: addresses and networks, joined by commas.
    #[arg(long, env = "TIDEGATE_TRUSTED", value_name = "ADDRESS|NETWORK", value_delimiter = ',', value_parser = network)]
    trusted: Vec<IpNet>,
    /// What a reload does with a schema that breaks clients of the routes in force: `refuse` keeps the last good tables.
    #[arg(long, env = "TIDEGATE_SCHEMA_CHANGES", value_enum, default_value_t = SchemaChanges::Refuse)]
    schema_changes: SchemaChanges,
    /// File for a copy of the table, where `--routes` is a bucket: a start that finds the bucket silent begins with it.
    #[arg(long, env = "TIDEGATE_ROUTES_COPY", value_name = "FILE")]
    routes_copy: Option<PathBuf>,
    /// Also serve the routes of workers that announce their schema (`worker --announce`), as long as they are there: those
    /// that lead to these subjects, joined by commas. `*` stands for a token, `>` at the end for one or more.
    #[arg(long, env = "TIDEGATE_DISCOVER", value_name = "SUBJECTS", value_delimiter = ',', value_parser = subjects)]
    discover: Vec<Pattern>,
    #[command(flatten)]
    end: EndArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
}

/// What a reload does with a schema that breaks clients.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SchemaChanges {
    Refuse,
    Allow,
}

impl From<SchemaChanges> for Breaking {
    fn from(changes: SchemaChanges) -> Breaking {
        match changes {
            SchemaChanges::Refuse => Breaking::Refuse,
            SchemaChanges::Allow => Breaking::Allow,
        }
    }
}

#[derive(Args, Clone)]
pub(super) struct DevArgs {
    /// Where HTTP requests come in.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = LISTEN_DEV, value_parser = address)]
    listen: SocketAddr,
    #[command(flatten)]
    admin: AdminArgs,
    /// What a reload does with a schema that breaks clients of the routes in force: while one writes it, it is allowed.
    #[arg(long, env = "TIDEGATE_SCHEMA_CHANGES", value_enum, default_value_t = SchemaChanges::Allow)]
    schema_changes: SchemaChanges,
    /// Folder where the services' state is kept; without it all is gone with the process.
    #[arg(long, env = "TIDEGATE_DATA", value_name = "DIR", conflicts_with = "nats")]
    data: Option<PathBuf>,
    #[command(flatten)]
    end: EndArgs,
    #[command(flatten)]
    traces: TraceArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    tables: TableArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

/// The access log.
#[derive(Args, Clone)]
struct AccessArgs {
    /// Write a line of JSON for each request: to `stdout`, or to a file. A file that is moved away is opened anew.
    #[arg(long, env = "TIDEGATE_ACCESS_LOG", value_name = "stdout|FILE|off", default_value = "off")]
    access_log: PathBuf,
    /// The part of the requests that gets a line, from 0 to 1; those that end with an error always do.
    #[arg(long, env = "TIDEGATE_ACCESS_LOG_SAMPLE", value_name = "PART", default_value_t = 1.0, value_parser = part)]
    access_log_sample: f64,
}

impl AccessArgs {
    fn config(&self) -> Option<AccessConfig> {
        let file = match self.access_log.to_str() {
            Some("off") => return None,
            Some("stdout") => None,
            _ => Some(self.access_log.clone()),
        };
        Some(AccessConfig { file, sample: self.access_log_sample })
    }
}

/// A number from 0 to 1.
fn part(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| format!("`{text}` is no part: expected a number from 0 to 1"))
}

/// How it ends.
#[derive(Args, Clone, Copy)]
struct EndArgs {
    /// Longest wait for running work once it is told to end, in seconds; told twice, it does not wait.
    #[arg(long, env = "TIDEGATE_GRACE", value_name = "SECONDS", default_value_t = 25)]
    grace: u64,
}

impl EndArgs {
    fn grace(self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

/// What is still to be done once an edge is told to end.
struct Ending {
    threads: Threads,
    grace: Duration,
}

/// `tidegate dev`: the services on a thread and a connection of their own, the gateway here.
pub(super) fn dev(args: &DevArgs) -> Result<(), Fault> {
    let _traces = args.traces.start("tidegate")?;
    runtime()?.block_on(async {
        let bus = gateway_bus(&args.nats, "").await?;
        let mut config = GatewayConfig::new(args.listen);
        args.admin.apply(&mut config)?;
        config.access_log = args.access.config();
        let store = args.data.as_deref().map(|folder| Store::on_disk(&bus, folder)).transpose()?;
        let services =
            worker::Thread::new(args.nats.clone(), args.settings.clone(), args.cache.clone(), bus.clone(), store);
        // A terminal that closes ends it, so it is not asked to reload by the same signal.
        let rules = Rules { breaking: args.schema_changes.into(), asked: None };
        let end = Ending { threads: Threads::default(), grace: args.end.grace() };
        gateway(config, args.tables.source()?, rules, bus, end, |live, running, _| {
            services.start(live)?;
            let console = running.admin_addr.map(|admin| args.admin.console(admin));
            println!("{}", what_to_try(&live.pin(), running.local_addr, console.as_deref()));
            Ok(())
        })
        .await?;
        services.stop();
        Ok(())
    })
}

fn what_to_try(tables: &Snapshot, address: SocketAddr, console: Option<&str>) -> String {
    let console = console.map_or_else(String::new, |console| format!("\nLook at it: {console}\n"));
    let requests = if tables.method("quest.v1.QuestService/GenerateQuest").is_some() {
        format!(
            "Try it:
  curl -s http://{address}/v1/players/p1/quests:generate --json '{{\"seed\": \"42\"}}'
  curl -s -X PUT http://{address}/v1/players/p1/state --json '{{\"state\": {{\"money\": 120}}}}'
  curl -N http://{address}/v1/inference:stream --json '{{\"prompt\": \"Where is the ferryman?\"}}'"
        )
    } else {
        let rows =
            tables.routes.iter().take(ROUTES_SHOWN).map(|route| format!("\n  {} {}", route.verb, route.template));
        format!("Its first routes (`tidegate routes` shows all {}):{}", tables.routes.len(), rows.collect::<String>())
    };
    format!("tidegate is up: http://{address}\n\n{requests}\n{console}\nStop it with Ctrl-C.")
}

/// `tidegate serve`.
pub(super) fn serve(args: &ServeArgs) -> Result<(), Fault> {
    let _traces = args.traces.start("tidegate")?;
    let mut nats = args.nats.clone();
    nats.nats.get_or_insert_with(|| "nats://127.0.0.1:4222".to_owned());
    runtime()?.block_on(async {
        let bus = gateway_bus(&nats, "").await?;
        let mut config = GatewayConfig::new(args.listen);
        args.admin.apply(&mut config)?;
        config.access_log = args.access.config();
        config.trusted = args.trusted.iter().copied().collect();
        let count = args.threads.map_or_else(threads::usual, usize::from);
        let threads = Threads::start(count - 1, |number| {
            let nats = nats.clone();
            async move { gateway_bus(&nats, &format!(", thread {number}")).await }
        })?;
        let end = Ending { threads, grace: args.end.grace() };
        let rules = Rules { breaking: args.schema_changes.into(), asked: asked_to_reload() };
        let Some(address) = args.tables.address()? else {
            let source = discovering(args, args.tables.source()?, &bus);
            return gateway(config, source, rules, bus, end, |_, _, _| Ok(())).await;
        };
        let source = tokio::select! {
            source = table::watched(&bus, address, args.routes_copy.as_deref()) => source,
            () = told_to_end() => return Ok(()),
        };
        let (copied, answering) = (source.clone(), bus.clone());
        gateway(config, discovering(args, source, &bus), rules, bus, end, |live, _, outcome| {
            if let Some(path) = args.routes_copy.clone() {
                tokio::spawn(table::copy(copied, path, outcome.clone()));
            }
            tokio::spawn(answer_for(answering, config::host(), live.clone(), outcome.clone()));
            Ok(())
        })
        .await
    })
}

/// A source with what workers add to it, where that is wanted.
fn discovering(args: &ServeArgs, source: Arc<dyn Source>, bus: &Bus) -> Arc<dyn Source> {
    match args.discover.is_empty() {
        true => source,
        false => WorkersSource::follow(source, bus.clone(), args.discover.clone()),
    }
}

fn subjects(text: &str) -> Result<Pattern, String> {
    // What used to switch it on for all subjects would now allow one that nobody has.
    if text.is_empty() || text == "true" {
        return Err("name the subjects that workers may bring routes to, such as `svc.shop.>`; `>` is all".to_owned());
    }
    Pattern::new(text).map_err(|error| error.to_string())
}

/// A gateway's connection, with a lane of its own for requests.
async fn gateway_bus(args: &NatsArgs, thread: &str) -> Result<Bus, Fault> {
    let (name, user) = (format!("tidegate gateway{thread}"), "gateway".to_owned());
    connect(args, NatsOptions { name, user, request_lane: true, ..NatsOptions::default() }).await
}

/// Starts an edge, says where it is, and drains it when the process is told to end.
async fn gateway(
    mut config: GatewayConfig,
    source: Arc<dyn Source>,
    rules: Rules,
    bus: Bus,
    end: Ending,
    started: impl FnOnce(&Arc<Live>, &Running, &watch::Receiver<Outcome>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if let Some(files) = config::open_files_max() {
        config.limits.connections = config.limits.connections.min(files.saturating_sub(FILES_RESERVED).max(1));
    }
    let handle = telemetry::install_metrics();
    let (material, snapshot) = build(source.as_ref())?;
    let routes = snapshot.routes.len();
    let live = Live::new(snapshot);
    let reloads = snapshot::watch(live.clone(), source, material, rules);
    config.admin_options.reloads = Some(reloads.clone());
    tokio::spawn(count_reloads(reloads.clone()));
    config.threads = end.threads.for_edge();
    let buses: Vec<Bus> = std::iter::once(&bus).chain(end.threads.buses()).cloned().collect();
    let metrics = handle.map(|handle| metrics(handle, buses));
    let running = Gateway::start(config, live.clone(), bus.clone(), metrics).await?;
    let told = told_to_end();
    tracing::info!(listen = %running.local_addr, admin = ?running.admin_addr, routes, "gateway ready");
    started(&live, &running, &reloads)?;
    told.await;
    tracing::info!("draining");
    let drained = async {
        let cut = running.drain(end.grace).await;
        end.threads.stop().await;
        bus.close().await;
        cut
    };
    tokio::select! {
        cut = drained => tracing::info!(cut, "stopped"),
        () = told_to_end() => tracing::warn!("told twice: stopped at once"),
    }
    Ok(())
}

/// Prints what the process has counted, and what its buses have.
pub(super) fn metrics(handle: PrometheusHandle, buses: Vec<Bus>) -> Arc<dyn Fn() -> String + Send + Sync> {
    metrics::gauge!(telemetry::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Arc::new(move || {
        let figures: Vec<_> = buses.iter().map(Bus::figures).collect();
        let sum = |figure: fn(&Figures) -> u64| figures.iter().map(figure).sum::<u64>();
        let is_connected = buses.iter().all(|bus| bus_readiness(bus).is_ok());
        metrics::gauge!(telemetry::BUS_CONNECTED).set(f64::from(u8::from(is_connected)));
        metrics::gauge!(telemetry::BUS_PENDING).set(sum(|figures| figures.pending) as f64);
        metrics::counter!(telemetry::BUS_RECONNECTS).absolute(sum(|figures| figures.reconnects));
        metrics::counter!(telemetry::BUS_DROPPED).absolute(sum(|figures| figures.dropped));
        metrics::counter!(telemetry::BUS_STRAYS).absolute(sum(|figures| figures.strays));
        handle.run_upkeep();
        handle.render()
    })
}

/// Waits for SIGTERM or SIGINT; listens from the call on, not from the first poll.
pub(super) fn told_to_end() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        match signals {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            }
            _ => std::future::pending().await,
        }
    }
}

/// Counts SIGHUPs, from the call on.
fn asked_to_reload() -> Option<watch::Receiver<u64>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = signal(SignalKind::hangup()).ok()?;
    let (count, asked) = watch::channel(0);
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            tracing::info!("asked to reload");
            count.send_modify(|count| *count += 1);
        }
    });
    Some(asked)
}

async fn count_reloads(mut reloads: watch::Receiver<Outcome>) {
    // Told once before anything happened, so that dashboards and alerts have something to look at.
    loop {
        let outcome = reloads.borrow_and_update().clone();
        metrics::gauge!(telemetry::RELOAD_STALE).set(f64::from(u8::from(outcome.is_stale)));
        metrics::counter!(telemetry::RELOADS, "outcome" => "applied").absolute(outcome.applied);
        metrics::counter!(telemetry::RELOADS, "outcome" => "refused").absolute(outcome.refused);
        if reloads.changed().await.is_err() {
            return;
        }
    }
}
