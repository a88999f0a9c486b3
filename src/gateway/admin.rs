//! The admin port of gateways and workers: liveness, readiness, metrics. Changes nothing, so it needs no credential.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Edge;
use crate::bus::{Bus, Status};

/// Prints what the process has counted.
pub(super) type Metrics = Option<Arc<dyn Fn() -> String + Send + Sync>>;
/// Says whether the process can do its work, or why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Serves until the process ends, also while it drains: `/readyz` says so then. `more` is what only some processes have.
pub(super) async fn serve(readiness: Readiness, listener: TcpListener, metrics: Metrics, more: Router) {
    let router = more
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(answer(readiness()))))
        .route("/metrics", get(move || std::future::ready(metrics.as_ref().map_or_else(String::new, |print| print()))));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port failed");
    }
}

fn answer(readiness: Result<(), &'static str>) -> (StatusCode, String) {
    match readiness {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// An edge is ready while it takes requests and the bus can carry them.
pub(super) fn readiness_of(edge: Arc<Edge>) -> Readiness {
    Arc::new(move || if edge.is_ready.load(Ordering::Acquire) { bus_readiness(&edge.bus) } else { Err("draining") })
}

/// Whether the bus can be used.
pub fn bus_readiness(bus: &Bus) -> Result<(), &'static str> {
    match *bus.status().borrow() {
        Status::Connected | Status::LameDuck => Ok(()),
        Status::Forbidden => Err("the message bus gives this user no right to its inbox"),
        Status::Connecting | Status::Disconnected | Status::Closed => Err("the message bus is not connected"),
    }
}
