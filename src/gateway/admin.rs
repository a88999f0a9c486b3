//! The admin port of gateways and workers: liveness, readiness, metrics. Changes nothing, so it needs no credential.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Edge;
use crate::bus::{Bus, Status};
use crate::telemetry::openmetrics;

/// Prints what the process has counted.
pub(super) type Metrics = Option<Arc<dyn Fn() -> String + Send + Sync>>;
/// Says whether the process can do its work, or why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Serves until the process ends, also while it drains: `/readyz` says so then.
pub(super) async fn serve(readiness: Readiness, listener: TcpListener, metrics: Metrics) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(answer(readiness()))))
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(figures(&metrics, &headers))));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port failed");
    }
}

/// Prometheus' text form, or OpenMetrics for those that ask for it: it has exemplars, too.
fn figures(metrics: &Metrics, headers: &HeaderMap) -> impl IntoResponse + use<> {
    let text = metrics.as_ref().map_or_else(String::new, |print| print());
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.into_iter().any(|accept| accept.contains("application/openmetrics-text")) {
        let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, form)], openmetrics(&text))
    } else {
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
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
