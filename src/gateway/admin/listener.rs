//! Connections of the admin port: few, with or without TLS, and none of them for ever.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::access::Shown;
use super::tls::AdminTls;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest wait for a request's head, and for the next request of a connection: short, so that connections that ask for
/// nothing keep no probe waiting for long.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, router: Router, tls: Option<AdminTls>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let (router, tls) = (router.clone(), tls.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    connection(socket, router, tls).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "admin connections cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, router: Router, tls: Option<AdminTls>) {
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return speak(socket, router, Shown::default()).await };
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(socket)).await else { return };
    let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    speak(stream, router, Shown { has_certificate }).await;
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, shown: Shown) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(shown);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection");
    }
}
