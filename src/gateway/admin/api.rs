//! The console's questions as JSON, under `/admin/api/`: what `docs/console.md` lists.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::refusal;
use super::schema::MethodSchema;
use super::{Desk, figures, workers};
use crate::fault::{Code, Fault, Reason};
use crate::gateway::explain::{self, LimitRow, RouteFacts};

/// Most headers of a request that is described.
const HEADERS_MAX: usize = 100;

/// A request as the console describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    verb: String,
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
}

/// `GET /admin/api/routes`: the table as run.
pub(super) async fn routes(State(desk): State<Arc<Desk>>) -> Response {
    let snapshot = desk.edge.live.pin();
    let routes: Vec<RouteFacts> = snapshot.routes.iter().map(|route| RouteFacts::new(route)).collect();
    json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": snapshot.generation,
        "listen": desk.edge.config.listen,
        "routes": routes,
    }))
}

/// `GET /admin/api/figures`: what has happened, by route, and the state of the process.
pub(super) async fn figures(State(desk): State<Arc<Desk>>) -> Response {
    let edge = &desk.edge;
    let snapshot = edge.live.pin();
    let text = desk.metrics.as_ref().map(|print| print());
    let limits: Vec<_> = snapshot
        .routes
        .iter()
        .filter(|route| route.policies.call_slots.is_some() || route.policies.stream_slots.is_some())
        .map(|route| {
            let name = format!("{} {}", route.verb, route.template);
            let slots = [&route.policies.call_slots, &route.policies.stream_slots];
            (name, slots.map(|slots| slots.as_deref().map(LimitRow::of)))
        })
        .collect();
    let bus = edge.bus_readiness();
    json(&json!({
        "uptime_ms": edge.started.elapsed().as_millis() as u64,
        "generation": snapshot.generation,
        "generations": edge.live.generations(),
        "bus": bus.err().unwrap_or("connected"),
        "is_draining": *edge.is_draining.borrow(),
        "connections": edge.connections.load(std::sync::atomic::Ordering::Relaxed),
        "stream_slots": LimitRow::of(&snapshot.stream_slots),
        "is_counted": text.is_some(),
        "limits": limits,
        "routes": figures::by_route(text.as_deref().unwrap_or_default()),
    }))
}

/// `GET /admin/api/reload`: how the last reload went.
pub(super) async fn reload(State(desk): State<Arc<Desk>>) -> Response {
    let outcome = desk.edge.config.admin_options.reloads.as_ref().map(|reloads| reloads.borrow().clone());
    let outcome = outcome.unwrap_or_default();
    json(&json!({
        "generation": desk.edge.live.pin().generation,
        "applied": outcome.applied,
        "refused": outcome.refused,
        "is_stale": outcome.is_stale,
        "report": outcome.report,
    }))
}

/// `GET /admin/api/workers`: who answers on the bus.
pub(super) async fn workers(State(desk): State<Arc<Desk>>) -> Response {
    match workers::ask(&desk.edge.bus).await {
        Ok(services) => json(&json!({ "services": services })),
        Err(fault) => refusal(&fault),
    }
}

/// `GET /admin/api/methods/{name}`: the messages of a method.
pub(super) async fn method(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Response {
    match desk.edge.live.pin().method(&name) {
        Some(method) => json(&MethodSchema::of(method)),
        None => refusal(&Fault::client(Code::NotFound, format!("the tables have no method `{name}`"))),
    }
}

/// `POST /admin/api/explain`: why a request goes where it goes.
pub(super) async fn explain(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    match described(&body) {
        Ok(request) => json(&explain::explain(&desk.edge.live.pin(), request)),
        Err(fault) => refusal(&fault),
    }
}

/// Everything else behind the guard.
pub(super) async fn missing(uri: Uri) -> Response {
    let text = format!("the admin port has no `{}`", uri.path());
    refusal(&Fault::client(Code::NotFound, text).reason(Reason::RouteNotFound))
}

/// The request that a body describes.
pub(super) fn described(body: &[u8]) -> Result<Request<Bytes>, Fault> {
    let wrong = |text: String| Fault::client(Code::InvalidArgument, text);
    let described: Described = serde_json::from_slice(body).map_err(|error| {
        wrong(format!("expected {{\"verb\", \"path\", \"headers\": [[name, value]], \"body\"}}: {error}"))
    })?;
    if !described.path.starts_with('/') {
        return Err(wrong(format!("`{}` is no path: it begins with `/`", described.path)));
    }
    if described.headers.len() > HEADERS_MAX {
        return Err(wrong(format!("more than {HEADERS_MAX} headers")));
    }
    let mut request = Request::builder().method(described.verb.as_str()).uri(&described.path);
    for (name, value) in &described.headers {
        request = request.header(name.trim(), value.trim());
    }
    request.body(Bytes::from(described.body)).map_err(|error| wrong(format!("this is no HTTP request: {error}")))
}

pub(super) fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = Response::new(Body::from(text));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
