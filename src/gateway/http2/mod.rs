//! HTTP/2 connections: hyper's protocol, with the bounds that it leaves to its user. What one connection may cost is
//! counted in frames (`meter`, `guard`), what one stream may hold is bounded in time (`streams`), and a connection on
//! which nothing runs is closed.

mod guard;
mod meter;
mod streams;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::inbound::Peer;
use super::listener::until;
use super::socket::close;
use super::{Edge, life};
use guard::{Farewell, Guard};
use streams::Streams;
pub(super) use streams::{note_asked, note_given};

/// Streams of one connection at once.
const STREAMS: u32 = 200;
/// Bytes of a header list.
const HEADER_LIST: u32 = 64 * 1024;
/// Streams that a client may reset before anyone has looked at them.
const UNSEEN_RESETS: usize = 20;
/// Streams that a client's mistakes may make us reset, over a connection's whole life.
const FORCED_RESETS: usize = 200;
/// Pause between two pings, and how long their answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Serves one connection to its end.
pub(super) async fn serve(edge: &Arc<Edge>, socket: TcpStream, peer: SocketAddr, mut stopped: watch::Receiver<bool>) {
    let (limits, socket, farewell) = (&edge.config.limits, Arc::new(socket), Farewell::default());
    let guarded = Guard::new(socket.clone(), limits, farewell.clone());
    let streams = Streams::new(limits.write_stall);
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_local_error_reset_streams(FORCED_RESETS)
        .keep_alive_interval(Some(PING.0))
        .keep_alive_timeout(PING.1);
    let shared = edge.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let edge = shared.clone();
        let other_side = Peer { address: peer.ip(), socket: None };
        async move { Ok::<_, Infallible>(life::answer(&edge, request, other_side).await) }
    });
    {
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(guarded), service));
        let mut is_ending = false;
        loop {
            // The connection first: it reads the requests that have come already before it is told to stop.
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = until(&mut stopped), if !is_ending => {
                    connection.as_mut().graceful_shutdown();
                    is_ending = true;
                    continue;
                }
                () = streams.idle(limits.idle) => {
                    if is_ending {
                        // Nothing runs, and yet it does not end: an answer waits for a window that nobody opens.
                        break;
                    }
                    connection.as_mut().graceful_shutdown();
                    is_ending = true;
                    continue;
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error = %error, "connection");
            }
            break;
        }
    }
    close(&socket, farewell.take()).await;
}
