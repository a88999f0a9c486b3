//! The yardstick of the gateway bench: what a good engineer writes by hand for one route. axum, generated structs,
//! async-nats' own request, the context filled in; no limits, no metrics, no request deadline of its own, no reload.
//!
//! `static-floor LISTEN NATS_URL`

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message;
use tidegate_floor::bench::{EchoReply, EchoRequest, Meta};

/// One thread, like the gateway that it is compared with.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let client = async_nats::connect(&arguments[2]).await?;
    let app = Router::new().route("/v1/echo", post(echo)).with_state(client);
    let listener = tokio::net::TcpListener::bind(&arguments[1]).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

async fn echo(State(client): State<async_nats::Client>, body: Bytes) -> Response {
    let Ok(mut request) = serde_json::from_slice::<EchoRequest>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    request.meta = Some(context());
    let reply = match client.request("svc.bench.v1.echo", request.encode_to_vec().into()).await {
        Ok(message) => message.payload,
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    match EchoReply::decode(reply) {
        Ok(reply) if reply.error.is_none() => match serde_json::to_vec(&reply) {
            Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        },
        _ => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// The six fields that the gateway adds, by the cheapest means at hand.
fn context() -> Meta {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Meta {
        request_id: format!("00000000-0000-4000-8000-{number:012x}"),
        trace_id: format!("{number:032x}"),
        client_id: "http-gateway".to_owned(),
        timestamp: Some(pbjson_types::Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() as i32 }),
        labels: [("origin".to_owned(), "edge".to_owned())].into(),
        ..Meta::default()
    }
}
