//! The HTTP edge: connections in, answers and event streams out. Reads the snapshot, asks the bus; knows nothing of
//! workers.

mod accept;
mod access_log;
mod admin;
mod ask;
mod auth;
mod body;
pub mod catalogue;
mod connection;
mod context;
mod cors;
mod credit;
mod events;
pub mod explain;
mod frames;
mod framing;
mod head_check;
mod http2;
mod in_flight;
mod inbound;
mod life;
mod listener;
mod migrate;
mod networks;
mod openapi;
mod record;
mod respond;
mod revocations;
mod socket;
mod stall;
mod threads;
mod tokens;
mod trace;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::bus::Bus;
use crate::fault::{Code, Fault};
use crate::snapshot::Live;
use access_log::AccessLog;

pub use access_log::AccessConfig;
pub use admin::{AdminOptions, AdminTls, AdminToken, Readiness, TlsFiles, bus_readiness};
pub use listener::Running;
pub use networks::{Networks, network};
pub use openapi::{Json, describe};
pub use threads::EdgeThread;

/// Checks a request's head, its empty line included, as the edge does before hyper sees it. For the fuzz target.
pub fn check_head(head: &[u8], limits: &ConnectionLimits) -> Result<(), Fault> {
    head_check::check(head, limits).map(|_| ())
}

/// Limits of connections; each has a safe default.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// What a body may take beside a second for every 500 of its bytes.
    pub body_progress: Duration,
    /// Longest pause between two requests of a connection.
    pub idle: Duration,
    /// Longest time that a write may not move.
    pub write_stall: Duration,
    /// Most connections at once.
    pub connections: usize,
    /// Most header fields.
    pub headers: usize,
    /// Most bytes of a head.
    pub head_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            first_byte: Duration::from_secs(5),
            head: Duration::from_secs(10),
            body_progress: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(20),
            connections: 20_000,
            headers: 100,
            head_bytes: 64 * 1024,
        }
    }
}

/// How an edge is set up; changes need a restart.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where requests come in.
    pub listen: SocketAddr,
    /// Where health, metrics and the console are; none without it.
    pub admin: Option<SocketAddr>,
    /// Who may use the admin port.
    pub admin_options: AdminOptions,
    /// Limits of connections.
    pub limits: ConnectionLimits,
    /// Peers whose `X-Forwarded-For` and trusted headers count.
    pub trusted: Networks,
    /// Interval of comment lines on silent streams.
    pub keep_alive: Duration,
    /// Where each request gets a line; nowhere without it.
    pub access_log: Option<AccessConfig>,
    /// Threads that serve connections, too; without them the one that starts the edge serves all.
    pub threads: Vec<EdgeThread>,
}

impl GatewayConfig {
    /// The defaults for an address.
    pub fn new(listen: SocketAddr) -> GatewayConfig {
        GatewayConfig {
            listen,
            admin: None,
            admin_options: AdminOptions::default(),
            limits: ConnectionLimits::default(),
            trusted: Networks::default(),
            keep_alive: Duration::from_secs(15),
            access_log: None,
            threads: Vec::new(),
        }
    }
}

/// What all connections of a thread share; but for the bus, all threads share it.
#[derive(Clone)]
struct Edge {
    live: Arc<Live>,
    bus: Bus,
    config: Arc<GatewayConfig>,
    started: Instant,
    tokens: Arc<tokens::Tokens>,
    access: Option<Arc<AccessLog>>,
    is_draining: watch::Sender<bool>,
    is_ready: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    old: Arc<migrate::OldSystems>,
}

impl Edge {
    /// Whether every thread's bus can be used, or why not.
    fn bus_readiness(&self) -> Result<(), &'static str> {
        let others = self.config.threads.iter().map(|thread| &thread.bus);
        std::iter::once(&self.bus).chain(others).try_for_each(bus_readiness)
    }
}

/// Starts an edge on a table and a bus.
pub struct Gateway;

impl Gateway {
    /// Binds the addresses and serves until [`Running::drain`]. `metrics` prints what the process has counted.
    ///
    /// Fails where an address cannot be bound or the access log cannot be opened.
    pub async fn start(
        config: GatewayConfig,
        live: Arc<Live>,
        bus: Bus,
        metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    ) -> Result<Running, Fault> {
        let access = config.access_log.as_ref().map(open_access_log).transpose()?;
        let edge = Arc::new(Edge {
            live,
            bus,
            config: Arc::new(config),
            started: Instant::now(),
            tokens: Arc::default(),
            access,
            is_draining: watch::Sender::new(false),
            is_ready: Arc::new(AtomicBool::new(true)),
            connections: Arc::default(),
            old: Arc::default(),
        });
        let listener = bind("listen", edge.config.listen)?;
        let admin = edge.config.admin.map(|address| bind("admin", address)).transpose()?;
        listener::run(edge, listener, admin, metrics).map_err(|error| not_started(&error))
    }

    /// An admin port without an edge, for processes that only run services: `/healthz`, `/readyz`, `/metrics`. Gives
    /// the address that was bound; serves until the runtime ends.
    ///
    /// Fails where the address cannot be bound.
    pub fn admin(
        address: SocketAddr,
        readiness: Readiness,
        metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    ) -> Result<SocketAddr, Fault> {
        let listener = bind("admin", address)?;
        let bound = listener.local_addr().map_err(|error| not_started(&error))?;
        tokio::spawn(admin::serve(readiness, listener, metrics));
        Ok(bound)
    }
}

fn bind(what: &str, address: SocketAddr) -> Result<tokio::net::TcpListener, Fault> {
    listener::bind(address).map_err(|error| {
        Fault::ours(Code::Unavailable, format!("the {what} address {address} cannot be bound: {error}"))
    })
}

fn open_access_log(config: &AccessConfig) -> Result<Arc<AccessLog>, Fault> {
    AccessLog::open(config).map(Arc::new).map_err(|error| {
        let name = config.file.as_deref().map_or_else(|| "stdout".to_owned(), |file| file.display().to_string());
        Fault::ours(Code::Unavailable, format!("the access log `{name}` cannot be opened: {error}"))
    })
}

fn not_started(error: &std::io::Error) -> Fault {
    Fault::ours(Code::Internal, format!("the listener does not start: {error}"))
}
