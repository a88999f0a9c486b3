//! Connections of the admin port: few, with or without TLS, and none of them for ever. Where all are taken, a new one takes
//! the place of the one that has waited longest for a request, so that nobody keeps out a probe by asking for nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tower::ServiceExt as _;

use super::access::Shown;
use super::tls::AdminTls;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest wait for a request's head, and for the next request of a connection.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, router: Router, tls: Option<AdminTls>) {
    let (slots, open) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Open::default());
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(%error, "admin connections cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if slots.available_permits() == 0 {
            open.end_idlest();
        }
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (router, tls, entry) = (router.clone(), tls.clone(), open.enter());
        tokio::spawn(async move {
            let (_slot, end) = (slot, entry.end.clone());
            tokio::select! {
                () = connection(socket, router, tls, entry) => {}
                () = end.notified() => {}
            }
        });
    }
}

/// The connections that are open.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    next: u64,
    /// Since when each waits for a request, where it does, and what ends it.
    by_number: HashMap<u64, (Option<Instant>, Arc<Notify>)>,
}

/// One of them; it leaves the others when it is dropped.
struct Entry {
    open: Open,
    number: u64,
    end: Arc<Notify>,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Arc<Entry> {
        let (mut entries, end) = (self.lock(), Arc::new(Notify::new()));
        let number = entries.next;
        entries.next += 1;
        entries.by_number.insert(number, (Some(Instant::now()), end.clone()));
        Arc::new(Entry { open: self.clone(), number, end })
    }

    /// Ends the connection that has waited longest; none where all of them are at work.
    fn end_idlest(&self) {
        let mut entries = self.lock();
        let waiting = entries.by_number.values_mut().filter(|(idle_since, _)| idle_since.is_some());
        if let Some((idle_since, end)) = waiting.min_by_key(|(idle_since, _)| *idle_since) {
            *idle_since = None;
            end.notify_one();
        }
    }
}

impl Entry {
    /// It waits since now, or is at work.
    fn waits(&self, idle_since: Option<Instant>) {
        if let Some(entry) = self.open.lock().by_number.get_mut(&self.number) {
            entry.0 = idle_since;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().by_number.remove(&self.number);
    }
}

/// A request under way, until its answer's body has gone.
struct AtWork(Arc<Entry>);

impl AtWork {
    fn on(entry: &Arc<Entry>) -> AtWork {
        entry.waits(None);
        AtWork(entry.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.waits(Some(Instant::now()));
    }
}

async fn connection(socket: TcpStream, router: Router, tls: Option<AdminTls>, entry: Arc<Entry>) {
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return speak(socket, router, Shown::default(), &entry).await };
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(socket)).await else { return };
    let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    speak(stream, router, Shown { has_certificate }, &entry).await;
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, shown: Shown, entry: &Arc<Entry>) {
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        let at_work = AtWork::on(entry);
        request.extensions_mut().insert(shown);
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await.unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(answer.map(|body| {
                body.map_frame(move |frame| {
                    let _until_its_end = &at_work;
                    frame
                })
            }))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection");
    }
}
