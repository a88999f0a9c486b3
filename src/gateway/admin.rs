//! The admin port: liveness, readiness, metrics. Changes nothing, so it needs no credential.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Edge;
use crate::bus::Status;

/// Prints what the process has counted.
pub(super) type Metrics = Option<Arc<dyn Fn() -> String + Send + Sync>>;

/// Serves until the process ends; while it drains, `/readyz` says so.
pub(super) async fn serve(edge: Arc<Edge>, listener: TcpListener, metrics: Metrics, _stopped: watch::Receiver<bool>) {
    let ready = edge.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(readiness(&ready))))
        .route("/metrics", get(move || std::future::ready(metrics.as_ref().map_or_else(String::new, |print| print()))));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port failed");
    }
}

fn readiness(edge: &Edge) -> (StatusCode, &'static str) {
    if !edge.is_ready.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    match *edge.bus.status().borrow() {
        Status::Connected | Status::LameDuck => (StatusCode::OK, "ready\n"),
        Status::Forbidden => {
            (StatusCode::SERVICE_UNAVAILABLE, "the message bus gives this user no right to its inbox\n")
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the message bus is not connected\n"),
    }
}
