//! `dev`, `serve` and `worker`: the long-running commands, and their orderly end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::settings::SettingsArgs;
use super::traces::TraceArgs;
use super::{NatsArgs, TableArgs, address, build, connect, runtime, worker};
use crate::bus::{Bus, NatsOptions};
use crate::config::{self, ADMIN, LISTEN_DEV, LISTEN_SERVE};
use crate::fault::Fault;
use crate::gateway::{AccessConfig, Gateway, GatewayConfig, bus_readiness, network};
use crate::snapshot::{Live, Outcome, watch};
use crate::telemetry::{self, PrometheusHandle};

/// Open files that are kept for the bus, the tables and the admin port; connections get the rest.
const FILES_RESERVED: usize = 64;

#[derive(Args, Clone)]
pub(super) struct ServeArgs {
    /// Where HTTP requests come in.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = LISTEN_SERVE, value_parser = address)]
    listen: SocketAddr,
    /// Where health and metrics are.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = ADMIN, value_parser = address)]
    admin: SocketAddr,
    /// Proxies whose X-Forwarded-For and trusted headers count: addresses and networks, joined by commas.
    #[arg(long, env = "TIDEGATE_TRUSTED", value_name = "ADDRESS|NETWORK", value_delimiter = ',', value_parser = network)]
    trusted: Vec<IpNet>,
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

#[derive(Args, Clone)]
pub(super) struct DevArgs {
    /// Where HTTP requests come in.
    #[arg(long, env = "TIDEGATE_LISTEN", default_value = LISTEN_DEV, value_parser = address)]
    listen: SocketAddr,
    /// Where health and metrics are.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = ADMIN, value_parser = address)]
    admin: SocketAddr,
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

/// `tidegate dev`: the services on a thread and a connection of their own, the gateway here.
pub(super) fn dev(args: &DevArgs) -> Result<(), Fault> {
    let _traces = args.traces.start("tidegate")?;
    runtime()?.block_on(async {
        let bus = gateway_bus(&args.nats).await?;
        let mut config = GatewayConfig::new(args.listen);
        config.admin = Some(args.admin);
        config.access_log = args.access.config();
        let services = worker::Thread::new(args.nats.clone(), args.settings.clone(), Vec::new(), bus.clone());
        gateway(config, &args.tables, bus, args.end, |live, address| {
            services.start(live)?;
            println!("{}", what_to_try(address));
            Ok(())
        })
        .await?;
        services.stop();
        Ok(())
    })
}

fn what_to_try(address: SocketAddr) -> String {
    format!(
        "tidegate is up: http://{address}

Try it:
  curl -s http://{address}/v1/players/p1/quests:generate --json '{{\"seed\": \"42\"}}'
  curl -s -X PUT http://{address}/v1/players/p1/state --json '{{\"state\": {{\"money\": 120}}}}'
  curl -N http://{address}/v1/inference:stream --json '{{\"prompt\": \"Where is the ferryman?\"}}'

Stop it with Ctrl-C."
    )
}

/// `tidegate serve`.
pub(super) fn serve(args: &ServeArgs) -> Result<(), Fault> {
    let _traces = args.traces.start("tidegate")?;
    let mut nats = args.nats.clone();
    nats.nats.get_or_insert_with(|| "nats://127.0.0.1:4222".to_owned());
    runtime()?.block_on(async {
        let bus = gateway_bus(&nats).await?;
        let mut config = GatewayConfig::new(args.listen);
        config.admin = Some(args.admin);
        config.access_log = args.access.config();
        config.trusted = args.trusted.iter().copied().collect();
        gateway(config, &args.tables, bus, args.end, |_, _| Ok(())).await
    })
}

/// A gateway's connection, with a lane of its own for requests.
async fn gateway_bus(args: &NatsArgs) -> Result<Bus, Fault> {
    let (name, user) = ("tidegate gateway".to_owned(), "gateway".to_owned());
    connect(args, NatsOptions { name, user, request_lane: true, ..NatsOptions::default() }).await
}

/// Starts an edge, says where it is, and drains it when the process is told to end.
async fn gateway(
    mut config: GatewayConfig,
    tables: &TableArgs,
    bus: Bus,
    end: EndArgs,
    started: impl FnOnce(&Arc<Live>, SocketAddr) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if let Some(files) = config::open_files_max() {
        config.limits.connections = config.limits.connections.min(files.saturating_sub(FILES_RESERVED).max(1));
    }
    let source = tables.source_or_built_in();
    let handle = telemetry::install_metrics();
    let (material, snapshot) = build(source.as_ref())?;
    let routes = snapshot.routes.len();
    let live = Live::new(snapshot);
    let reloads = watch(live.clone(), source, material);
    tokio::spawn(count_reloads(reloads));
    let metrics = handle.map(|handle| metrics(handle, bus.clone()));
    let running = Gateway::start(config, live.clone(), bus.clone(), metrics).await?;
    let told = told_to_end();
    tracing::info!(listen = %running.local_addr, admin = ?running.admin_addr, routes, "gateway ready");
    started(&live, running.local_addr)?;
    told.await;
    tracing::info!("draining");
    let drained = async {
        let cut = running.drain(Duration::from_secs(end.grace)).await;
        bus.close().await;
        cut
    };
    tokio::select! {
        cut = drained => tracing::info!(cut, "stopped"),
        () = told_to_end() => tracing::warn!("told twice: stopped at once"),
    }
    Ok(())
}

/// Prints what the process has counted, and what its bus has.
pub(super) fn metrics(handle: PrometheusHandle, bus: Bus) -> Arc<dyn Fn() -> String + Send + Sync> {
    metrics::gauge!(telemetry::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Arc::new(move || {
        let figures = bus.figures();
        metrics::gauge!(telemetry::BUS_CONNECTED).set(f64::from(u8::from(bus_readiness(&bus).is_ok())));
        metrics::gauge!(telemetry::BUS_PENDING).set(figures.pending as f64);
        metrics::counter!(telemetry::BUS_RECONNECTS).absolute(figures.reconnects);
        metrics::counter!(telemetry::BUS_DROPPED).absolute(figures.dropped);
        metrics::counter!(telemetry::BUS_STRAYS).absolute(figures.strays);
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

async fn count_reloads(mut reloads: tokio::sync::watch::Receiver<Outcome>) {
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
