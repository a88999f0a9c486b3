//! Each kind of path, each credential, on loopback and off it.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http::StatusCode;
use tower::ServiceExt as _;

use super::*;
use crate::gateway::admin::{self, AdminTls, TlsFiles};

const TOKEN: &str = "0123456789abcdef";

/// Name and value.
type Header<'t> = (&'t str, &'t str);

/// The port with its real layers, and a guarded path that changes nothing.
fn port(options: &AdminOptions, is_loopback: bool) -> Router {
    let access = Arc::new(Access::new(options, is_loopback));
    let guarded = Router::new()
        .route("/admin/api/routes", get(|| async { "table" }).post(|| async { "called" }))
        .layer(from_fn_with_state(access.clone(), guarded));
    let pages = admin::console::pages().layer(from_fn_with_state(access, page));
    admin::probes(Arc::new(|| Ok(())), None).merge(pages).merge(guarded)
}

async fn ask(port: &Router, request: &str, headers: &[Header<'_>], has_certificate: bool) -> (u16, String) {
    let (verb, path) = request.split_once(' ').unwrap();
    let mut request = Request::builder().method(verb).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Shown { has_certificate });
    let answer = port.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let challenge = answer.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(challenge.is_some(), status == StatusCode::UNAUTHORIZED, "{path}");
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    (status.as_u16(), problem["detail"].as_str().unwrap_or_default().to_owned())
}

fn tls(client_authority: bool) -> AdminTls {
    let file = |name: &str| format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR")).into();
    let client_authority = client_authority.then(|| file("ca.crt"));
    AdminTls::new(TlsFiles { certificate: file("server.crt"), key: file("server.key"), client_authority }).unwrap()
}

#[tokio::test]
async fn every_path_takes_the_credentials_that_it_should_and_no_others() {
    let token = || Some(AdminToken::Text(TOKEN.into()));
    let none = AdminOptions::default();
    let with_token = AdminOptions { token: token(), ..AdminOptions::default() };
    let with_certificates = AdminOptions { tls: Some(tls(true)), ..AdminOptions::default() };
    let with_both = AdminOptions { token: token(), tls: Some(tls(true)), ..AdminOptions::default() };
    let plain_tls = AdminOptions { tls: Some(tls(false)), ..AdminOptions::default() };
    let right = format!("Bearer {TOKEN}");
    // What is shown: nothing, the token, another one, the token as a password, a certificate.
    let shown: [(&[Header], bool); 5] = [
        (&[], false),
        (&[("authorization", &right)], false),
        (&[("authorization", "Bearer 0123456789abcdeX")], false),
        (&[("authorization", "Basic 0123456789abcdef")], false),
        (&[], true),
    ];
    for (name, options, is_loopback, guarded) in [
        ("nothing, loopback", &none, true, [200, 200, 200, 200, 200]),
        ("nothing, elsewhere", &none, false, [403, 403, 403, 403, 403]),
        ("token, loopback", &with_token, true, [401, 200, 401, 401, 401]),
        ("token, elsewhere", &with_token, false, [401, 200, 401, 401, 401]),
        ("certificates, loopback", &with_certificates, true, [403, 403, 403, 403, 200]),
        ("certificates, elsewhere", &with_certificates, false, [403, 403, 403, 403, 200]),
        ("both, elsewhere", &with_both, false, [401, 200, 401, 401, 200]),
        ("TLS alone, loopback", &plain_tls, true, [200, 200, 200, 200, 200]),
        ("TLS alone, elsewhere", &plain_tls, false, [403, 403, 403, 403, 403]),
    ] {
        let port = port(options, is_loopback);
        for ((headers, has_certificate), expected) in shown.iter().zip(guarded) {
            let mut headers = headers.to_vec();
            headers.push(("host", "127.0.0.1:9090"));
            for open in ["GET /healthz", "GET /readyz", "GET /metrics", "GET /console", "GET /console.js"] {
                assert_eq!(ask(&port, open, &headers, *has_certificate).await.0, 200, "{name}: {open}");
            }
            for request in ["GET /admin/api/routes", "POST /admin/api/routes"] {
                let status = ask(&port, request, &headers, *has_certificate).await.0;
                assert_eq!(status, expected, "{name}: {request} {headers:?} {has_certificate}");
            }
        }
    }
}

#[tokio::test]
async fn other_sites_get_nowhere() {
    let on_loopback = port(&AdminOptions::default(), true);
    let bent = |host: &str| (403, format!("`Host: {host}` is not this machine: use 127.0.0.1 or localhost"));
    let another = |origin: &str| (403, format!("the page of another site, `{origin}`, cannot use the admin port"));
    let cross = (403, "a request from another site (`cross-site`) cannot use the admin port".to_owned());
    let fine = || (200, String::new());
    let host = ("host", "localhost:9090");
    let rows: [(&str, &[Header], (u16, String)); 16] = [
        ("POST /admin/api/routes", &[host], fine()),
        ("POST /admin/api/routes", &[("host", "[::1]:9090")], fine()),
        ("POST /admin/api/routes", &[("host", "127.0.0.2")], fine()),
        (
            "POST /admin/api/routes",
            &[host, ("origin", "http://localhost:9090"), ("sec-fetch-site", "same-origin")],
            fine(),
        ),
        ("GET /admin/api/routes", &[("host", "evil.example:9090")], bent("evil.example:9090")),
        ("GET /console", &[("host", "evil.example")], bent("evil.example")),
        ("GET /admin/api/routes", &[("host", "localhost.evil.example")], bent("localhost.evil.example")),
        ("GET /admin/api/routes", &[("host", "127.0.0.1.evil.example")], bent("127.0.0.1.evil.example")),
        ("GET /admin/api/routes", &[], bent("")),
        ("GET /healthz", &[("host", "gateway.internal:9090")], fine()),
        ("POST /admin/api/routes", &[host, ("origin", "http://evil.example")], another("http://evil.example")),
        ("POST /admin/api/routes", &[host, ("origin", "http://localhost:8080")], another("http://localhost:8080")),
        ("POST /admin/api/routes", &[host, ("origin", "null")], another("null")),
        ("GET /admin/api/routes", &[host, ("sec-fetch-site", "cross-site")], cross.clone()),
        ("GET /console", &[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], fine()),
        ("POST /admin/api/routes", &[host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], cross),
    ];
    for (request, headers, expected) in rows {
        assert_eq!(ask(&on_loopback, request, headers, false).await, expected, "{request} {headers:?}");
    }
    // Elsewhere a name is as good as another: there is always a credential, which no other site has.
    let options = AdminOptions { token: Some(AdminToken::Text(TOKEN.into())), ..AdminOptions::default() };
    let elsewhere = port(&options, false);
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("host", "tidegate-admin.prod.svc:9090"), ("authorization", &bearer)];
    assert_eq!(ask(&elsewhere, "GET /admin/api/routes", &headers, false).await, fine());
}

#[test]
fn a_token_file_counts_as_it_is_now_and_short_tokens_never() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let token = AdminToken::File(path.clone());
    let wrong = || token.check().unwrap_err().message().to_owned();
    let missing =
        format!("the admin token in `{}` cannot be read: No such file or directory (os error 2)", path.display());
    assert_eq!(wrong(), missing);
    std::fs::write(&path, "short\n").unwrap();
    assert_eq!(wrong(), "the admin token has 5 bytes: it needs at least 16");
    std::fs::write(&path, "a token with spaces\n").unwrap();
    let text = "no request can carry the admin token: it may have letters, digits, `-._~+/`, and `=` at its end";
    assert_eq!(wrong(), text);
    let admits = |given: &str| {
        let options = AdminOptions { token: Some(token.clone()), ..AdminOptions::default() };
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {given}").parse().unwrap());
        Access::new(&options, false).check_credential(Shown::default(), &headers).is_ok()
    };
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    assert!(admits(TOKEN));
    let next = "another-token-of-enough-bytes";
    std::fs::write(&path, next).unwrap();
    assert!(admits(next) && !admits(TOKEN));
    assert_eq!(format!("{:?}", AdminToken::Text(TOKEN.into())), "Text(…)");
}
