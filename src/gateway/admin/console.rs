//! The console's page, its script and its style sheet: static, part of the program, and without anything of this
//! process in them.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

const PAGE: &str = include_str!("../console/console.html");
const SCRIPT: &str = include_str!("../console/console.js");
const STYLE: &str = include_str!("../console/console.css");

/// Nothing from elsewhere, nothing in line, no frame around it, no form that leaves it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Pages for people.
pub(super) fn pages() -> Router {
    Router::new()
        .route("/", get(|| async { to_console() }))
        .route("/console", get(|| async { file("text/html; charset=utf-8", PAGE) }))
        .route("/console.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/console.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
}

fn to_console() -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/console"));
    answer
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut answer = Response::new(Body::from(text));
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_is_small_and_asks_no_other_host() {
        let files = [PAGE, SCRIPT, STYLE];
        assert!(files.iter().map(|file| file.len()).sum::<usize>() <= 60 * 1024);
        for file in files {
            let links = file.replace("http://www.w3.org/", "");
            assert!(!links.contains("http://") && !links.contains("https://") && !links.contains("innerHTML"));
        }
    }
}
