//! Connections: accept, serve, drain. The loop is ours, because it has to cap connections, survive running out of
//! files, and end streams before it waits for them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::connection::{self, Connection};
use super::inbound::Peer;
use super::threads::Threads;
use super::{Edge, admin, http2, life, respond, revocations, socket};
use crate::telemetry;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// Pause after an accept that failed, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that has sent nothing yet is waited for once we drain: its request may be on the way.
const LAST_FIRST_BYTE: Duration = Duration::from_millis(200);

/// Header fields that hyper takes without asking for memory; a number of ours, even a smaller one, costs it two
/// allocations a request.
const HYPER_HEADERS: usize = 100;

/// A running edge.
pub struct Running {
    edge: Arc<Edge>,
    /// Where requests come in.
    pub local_addr: SocketAddr,
    /// Where health and metrics are.
    pub admin_addr: Option<SocketAddr>,
    stop: watch::Sender<bool>,
}

/// A listener with a queue of its own length; the address can be taken again at once after a restart.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Starts the loops.
pub(super) fn run(
    edge: Arc<Edge>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
) -> std::io::Result<Running> {
    let local_addr = listener.local_addr()?;
    let admin_addr = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(revocations::follow(edge.clone(), stopped.clone()));
    tokio::spawn(accept(Threads::of(&edge), listener, stopped));
    if let Some(listener) = admin {
        tokio::spawn(admin::serve_edge(edge.clone(), listener, metrics));
    }
    Ok(Running { edge, local_addr, admin_addr, stop })
}

impl Running {
    /// Ends in order: readiness off, streams ended, calls finished, connections closed; at most `grace` long. Returns
    /// how many connections were cut.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.edge.is_ready.store(false, Ordering::Release);
        self.edge.is_draining.send_replace(true);
        self.stop.send_replace(true);
        let all_gone = async {
            // All that hear of the end: the loop, which empties the kernel's queue first, and the connections.
            self.stop.closed().await;
            while self.edge.connections.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(grace, all_gone).await;
        if let Some(access) = &self.edge.access {
            access.flush().await;
        }
        self.edge.connections.load(Ordering::Acquire)
    }
}

async fn accept(threads: Threads, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until(&mut stopped) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                is_failing = false;
                threads.take(socket, peer, &stopped);
            }
            Err(error) => {
                metrics::counter!(telemetry::CONNECTION_LIMITS, "limit" => "accept").increment(1);
                // Once a burst: without file descriptors every accept fails.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Those that the kernel has accepted already are served, too.
    while let Ok(Ok((socket, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
        threads.take(socket, peer, &stopped);
    }
}

/// Waits for the order to stop, without holding the channel's lock afterwards.
pub(super) async fn until(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

/// Serves a connection to its end.
pub(super) async fn serve(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr, mut stopped: watch::Receiver<bool>) {
    let first = tokio::time::timeout(edge.config.limits.first_byte, socket::is_http2(&stream));
    let first = tokio::select! {
        first = first => first,
        () = async { until(&mut stopped).await; tokio::time::sleep(LAST_FIRST_BYTE).await } => return,
    };
    match first {
        Ok(Ok(true)) => http2::serve(&edge, stream, peer, stopped).await,
        Ok(Ok(false)) => serve_h1(&edge, stream, peer, stopped).await,
        Ok(Err(_)) => {}
        Err(_) => metrics::counter!(telemetry::CONNECTION_LIMITS, "limit" => "first_byte").increment(1),
    }
}

async fn serve_h1(edge: &Arc<Edge>, stream: TcpStream, peer: SocketAddr, mut stopped: watch::Receiver<bool>) {
    let (socket, refusal) = (socket::Socket::new(stream), connection::Refusal::default());
    let guarded = Connection::new(socket.clone(), edge.config.limits.clone(), refusal.clone());
    // Our own checks come first; hyper's limits do not lie below them.
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size((edge.config.limits.head_bytes * 2).max(64 * 1024))
        .half_close(true);
    if edge.config.limits.headers > HYPER_HEADERS {
        builder.max_headers(edge.config.limits.headers);
    }
    // No `pipeline_flush`: with it hyper takes from a body whatever it gets, and a slow reader's stream piles up.
    let shared = edge.clone();
    let other_side = Peer { address: peer.ip(), socket: Some(socket.clone()) };
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (edge, other_side) = (shared.clone(), other_side.clone());
        async move { Ok::<_, Infallible>(life::answer(&edge, request, other_side).await) }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(guarded), service));
    // The connection first: it reads the request that has come already before it is told to stop.
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = until(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error = %error, "connection");
    }
    let last = refusal.take().map(|fault| respond::raw(&fault));
    socket::close(&socket.tcp, last).await;
}
