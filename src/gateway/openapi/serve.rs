//! Where the description is served: as JSON and as a page for people, on the admin port; as JSON on the data port, where
//! the table says so.
//!
//! The page is ours: it only reads, which needs a twentieth of what a general viewer brings (swagger-ui:
//! 650 KB compressed) and no exceptions to the strictest content policy.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode};

use super::rendered;
use crate::fault::Fault;
use crate::gateway::body::Answer;
use crate::gateway::respond;
use crate::snapshot::{Live, Snapshot};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// `/openapi.json`, for those who may see the tables of the admin port.
pub(in crate::gateway) fn description(live: Arc<Live>) -> Router {
    let description = move || {
        let snapshot = live.pin();
        async move {
            let made =
                rendered(&snapshot).await.map_err(|fault| (StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()));
            made.map(|made| file("application/json", made))
        }
    };
    Router::new().route("/openapi.json", get(description))
}

/// `/docs`, for the admin port; there is nothing of the process in it.
pub(in crate::gateway) fn pages() -> Router {
    Router::new()
        .route("/docs", get(|| async { file("text/html; charset=utf-8", include_str!("page/index.html")) }))
        .route("/docs/page.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("page/page.js")) }))
        .route("/docs/page.css", get(|| async { file("text/css; charset=utf-8", include_str!("page/page.css")) }))
}

fn file(kind: &'static str, body: impl IntoResponse) -> impl IntoResponse {
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, body)
}

/// The description, where a request that no route takes asks for it.
pub(in crate::gateway) async fn published(
    snapshot: &Arc<Snapshot>,
    head: &Parts,
) -> Result<Option<Response<Answer>>, Fault> {
    let is_asked = snapshot.api.path.as_deref() == Some(head.uri.path());
    if !is_asked || !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let mut answer = respond::json(rendered(snapshot).await?);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(Some(answer))
}
