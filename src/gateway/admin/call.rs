//! `POST /admin/api/call`: a request by hand, on the gateway's own way from the head to the last byte. It comes in over
//! a pipe inside the process, as a peer that nobody trusts.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body::Frame;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::access::refusal;
use super::{Desk, api};
use crate::fault::{Code, Fault, Reason};
use crate::gateway::inbound::Peer;
use crate::gateway::{Edge, life};

/// Status of the answer that is passed on.
static ANSWER_STATUS: HeaderName = HeaderName::from_static("tidegate-answer-status");
/// Its headers, as a JSON list of pairs.
static ANSWER_HEADERS: HeaderName = HeaderName::from_static("tidegate-answer-headers");

/// What a description cannot set: the connection is ours.
const OURS: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Bytes that wait in the pipe.
const PIPE: usize = 64 * 1024;

/// The answer's body as plain text, so that no browser takes it for a page; its status and headers beside it.
pub(super) async fn call(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let busy = || {
        let text = "the console runs as many calls as it may: wait for one to end";
        Fault::client(Code::ResourceExhausted, text).reason(Reason::TooManyCalls)
    };
    let result = async {
        let request = api::described(&body)?;
        let slot = desk.calls.clone().try_acquire_owned().map_err(|_| busy())?;
        pass_on(&desk.edge, request, slot).await
    };
    result.await.unwrap_or_else(|fault| refusal(&fault))
}

async fn pass_on(edge: &Arc<Edge>, request: Request<Bytes>, slot: OwnedSemaphorePermit) -> Result<Response, Fault> {
    if let Some(name) = OURS.iter().find(|name| request.headers().contains_key(*name)) {
        return Err(Fault::client(Code::InvalidArgument, format!("header `{name}` cannot be set by hand")));
    }
    let failed = |error: hyper::Error| {
        Fault::ours(Code::Internal, "the call broke off inside the gateway").internal(error.to_string())
    };
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let shared = edge.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let edge = shared.clone();
        async move { Ok::<_, Infallible>(life::answer(&edge, request, Peer::nobody()).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(theirs), service);
    let serving = tokio::spawn(async move { drop(serving.await) });
    let mut running = Running { tasks: vec![serving.abort_handle()], _slot: slot };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.map_err(failed)?;
    running.tasks.push(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    let (mut head, body) = request.into_parts();
    let host = HeaderValue::from_str(&edge.config.listen.to_string());
    head.headers.entry(header::HOST).or_insert(host.unwrap_or(HeaderValue::from_static("localhost")));
    let (head, body) =
        sender.send_request(Request::from_parts(head, Full::new(body))).await.map_err(failed)?.into_parts();
    let mut answer = Response::new(Body::new(Passed { body, _running: running }));
    let headers = answer.headers_mut();
    headers.insert(ANSWER_STATUS.clone(), HeaderValue::from(head.status.as_u16()));
    headers.insert(ANSWER_HEADERS.clone(), pairs(&head.headers));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(answer)
}

/// Names and values as JSON in ASCII.
fn pairs(headers: &HeaderMap) -> HeaderValue {
    let rows: Vec<(&str, String)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes().escape_ascii().to_string())).collect();
    let text = serde_json::to_string(&rows).unwrap_or_default();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("[]"))
}

/// A call on its way. Dropping it ends both sides of the pipe, and so cancels the worker of a stream.
struct Running {
    tasks: Vec<AbortHandle>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The answer's body, which keeps its call running.
struct Passed {
    body: Incoming,
    _running: Running,
}

impl http_body::Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
