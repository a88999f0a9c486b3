//! The admin port of gateways and workers. Liveness, readiness and metrics are open; everything that shows more,
//! changes or calls something goes through `access`.
//!
//! `router` is the one place where paths are mounted.

mod access;
mod api;
mod call;
mod console;
mod figures;
mod listener;
mod migrations;
mod schema;
mod tls;
mod workers;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::{Edge, openapi};
use crate::bus::{Bus, Status};
use crate::snapshot::Outcome;
use crate::telemetry::openmetrics;

pub use access::AdminToken;
pub use tls::{AdminTls, TlsFiles};

/// Prints what the process has counted.
pub(super) type Metrics = Option<Arc<dyn Fn() -> String + Send + Sync>>;
/// Says whether the process can do its work, or why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Largest body of a request to the admin port: a call of 1 MiB, quoted.
const BODY_MAX: usize = 4 * 1024 * 1024;
/// Most calls and streams from the console at once.
const CALLS_MAX: usize = 16;

/// Who may use the admin port, and what it shows beside the tables.
#[derive(Clone, Debug, Default)]
pub struct AdminOptions {
    /// What those who change or call something show.
    pub token: Option<AdminToken>,
    /// Our certificate; with an authority of clients, theirs count as the token does.
    pub tls: Option<AdminTls>,
    /// How the last reload went.
    pub reloads: Option<watch::Receiver<Outcome>>,
}

/// What the pages of a gateway are made from.
pub(super) struct Desk {
    edge: Arc<Edge>,
    metrics: Metrics,
    calls: Arc<Semaphore>,
}

/// Serves an edge's admin port until the process ends, also while it drains: `/readyz` says so then.
pub(super) async fn serve_edge(edge: Arc<Edge>, listener: TcpListener, metrics: Metrics) {
    let options = &edge.config.admin_options;
    let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let access = access::Access::new(options, is_loopback);
    if access.refuses_all() {
        tracing::warn!(
            "the admin port is not on loopback and knows no credential: its console is refused to everybody; set \
             TIDEGATE_ADMIN_TOKEN, --admin-token-file or --admin-client-ca"
        );
    }
    let tls = options.tls.clone();
    let desk = Desk { edge: edge.clone(), metrics, calls: Arc::new(Semaphore::new(CALLS_MAX)) };
    listener::serve(listener, router(&Arc::new(desk), readiness_of(edge), access), tls).await;
}

/// Serves the open paths alone, for processes without an edge.
pub(super) async fn serve(readiness: Readiness, listener: TcpListener, metrics: Metrics) {
    listener::serve(listener, probes(readiness, metrics), None).await;
}

/// Everything that an edge's admin port has. A page for people that shows nothing of this process is mounted among the
/// pages; what shows, changes or calls something, among the guarded.
fn router(desk: &Arc<Desk>, readiness: Readiness, access: access::Access) -> Router {
    let access = Arc::new(access);
    let pages = console::pages().merge(openapi::pages()).layer(from_fn_with_state(access.clone(), access::page));
    let description =
        openapi::description(desk.edge.live.clone()).layer(from_fn_with_state(access.clone(), access::guarded));
    let guarded = Router::new()
        .route("/admin/api/routes", get(api::routes))
        .route("/admin/api/figures", get(api::figures))
        .route("/admin/api/reload", get(api::reload))
        .route("/admin/api/workers", get(api::workers))
        .route("/admin/api/methods/{*name}", get(api::method))
        .route("/admin/api/migrations", get(migrations::list).post(migrations::order))
        .route("/admin/api/explain", post(api::explain))
        .route("/admin/api/call", post(call::call))
        .fallback(api::missing)
        .layer(from_fn_with_state(access, access::guarded))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(desk.clone());
    probes(readiness, desk.metrics.clone()).merge(pages).merge(description).merge(guarded)
}

/// The open paths.
fn probes(readiness: Readiness, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(answer(readiness()))))
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(text_of(&metrics, &headers))))
}

/// Prometheus' text form, or OpenMetrics for those that ask for it: it has exemplars, too.
fn text_of(metrics: &Metrics, headers: &HeaderMap) -> impl IntoResponse + use<> {
    let text = metrics.as_ref().map_or_else(String::new, |print| print());
    let by_accept = (header::VARY, "accept");
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.into_iter().any(|accept| accept.contains("application/openmetrics-text")) {
        let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, form), by_accept], openmetrics(&text))
    } else {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), by_accept], text)
    }
}

fn answer(readiness: Result<(), &'static str>) -> (StatusCode, String) {
    match readiness {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// An edge is ready while it takes requests and the bus can carry them.
fn readiness_of(edge: Arc<Edge>) -> Readiness {
    Arc::new(move || if edge.is_ready.load(Ordering::Acquire) { edge.bus_readiness() } else { Err("draining") })
}

/// Whether the bus can be used.
pub fn bus_readiness(bus: &Bus) -> Result<(), &'static str> {
    match *bus.status().borrow() {
        Status::Connected | Status::LameDuck => Ok(()),
        Status::Forbidden => Err("the message bus gives this user no right to its inbox"),
        Status::Connecting | Status::Disconnected | Status::Closed => Err("the message bus is not connected"),
    }
}
