//! Pages of other origins: what a browser is told before it sends, and what it may read afterwards.

mod support;

use reqwest::Method;
use reqwest::header::HeaderMap;
use support::calls::{answer, worker};
use support::{gateway, material, snapshot, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::snapshot::problem::render;

const PAGE: &str = "https://play.example.com";
const PROTO: &str = r#"syntax = "proto3";
package notes.v1;
message Note { string id = 1; string text = 2; }
service Notes {
  rpc Get(Note) returns (Note);
  rpc Watch(Note) returns (stream Note);
}"#;
const ROUTES: &str = "version: 1
defaults:
  cors: { origins: [ 'https://play.example.com', 'https://*.test.example' ], headers: [ X-Player ], max_age: 120s }
routes:
  - { route: 'GET /notes/{id}', call: notes.v1.Notes/Get, headers_out: { id: X-Note } }
  - { route: 'GET /notes/{id}/changes', call: notes.v1.Notes/Watch }
  - { route: 'PUT /notes/{id}', call: notes.v1.Notes/Get, body: '*', policies: { cors: { origins: [ '*' ] } } }
  - { route: '* /any', call: notes.v1.Notes/Get }
";

/// A gateway whose worker answers with what it was asked, in a stream as its first event.
async fn edge(routes: &str) -> Running {
    let bus = Bus::embedded();
    worker(&bus, "notes.v1.Notes.*", move |request| vec![answer(&request, &request.payload)]).await;
    gateway(snapshot(routes, PROTO), &bus, |_| {}).await.0
}

async fn send(running: &Running, verb: &str, path: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap) {
    let mut request = reqwest::Client::new().request(Method::from_bytes(verb.as_bytes()).unwrap(), url(running, path));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone())
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// What an answer goes by.
fn vary(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_browser_that_asks_first_is_told_what_the_page_may_send() {
    let running = edge(ROUTES).await;
    let (path, asked) = ("/notes/1", "access-control-request-method");
    let (status, fields) = send(&running, "OPTIONS", path, &[("origin", PAGE), (asked, "GET")]).await;
    assert_eq!(status, 204);
    assert_eq!(value(&fields, "access-control-allow-origin"), Some(PAGE));
    assert_eq!(value(&fields, "access-control-allow-methods"), Some("GET"));
    assert_eq!(value(&fields, "access-control-allow-headers"), Some("X-Player"));
    assert_eq!(value(&fields, "access-control-max-age"), Some("120"));
    assert!(value(&fields, "vary").unwrap().contains("origin"), "{fields:?}");

    // Another row of the same path has its own: pages of all origins, and whatever they want to send.
    let wanted = ("access-control-request-headers", "content-type,x-mine");
    let (status, fields) = send(&running, "OPTIONS", path, &[("origin", "null"), (asked, "PUT"), wanted]).await;
    assert_eq!(status, 204);
    assert_eq!(value(&fields, "access-control-allow-origin"), Some("*"));
    assert_eq!(value(&fields, "access-control-allow-headers"), Some("content-type,x-mine"));
    assert_eq!(value(&fields, "access-control-max-age"), Some("600"));

    // A row that takes every method is asked about like others: its worker is not.
    let (status, fields) = send(&running, "OPTIONS", "/any", &[("origin", PAGE), (asked, "POST")]).await;
    assert_eq!((status, value(&fields, "access-control-allow-methods")), (204, Some("POST")));
}

#[tokio::test]
async fn a_page_of_another_origin_or_a_question_about_nothing_gets_no_leave() {
    let running = edge(ROUTES).await;
    let asked = "access-control-request-method";
    for (path, fields) in [
        ("/notes/1", [("origin", "https://evil.example"), (asked, "GET")].as_slice()),
        ("/notes/1", &[("origin", PAGE), (asked, "DELETE")]),
        ("/notes/1", &[("origin", PAGE)]),
        ("/nothing", &[("origin", PAGE), (asked, "GET")]),
    ] {
        let (status, answered) = send(&running, "OPTIONS", path, fields).await;
        assert!(matches!(status, 404 | 405), "{path} {fields:?}: {status}");
        assert_eq!(value(&answered, "access-control-allow-methods"), None, "{path} {fields:?}");
    }
}

#[tokio::test]
async fn a_page_may_read_answers_and_errors_of_its_routes() {
    let running = edge(ROUTES).await;
    for (verb, path, origin, wanted_status, allowed) in [
        ("GET", "/notes/1", PAGE, 200, Some(PAGE)),
        ("GET", "/notes/1", "https://a.test.example", 200, Some("https://a.test.example")),
        ("GET", "/notes/1/changes", PAGE, 200, Some(PAGE)),
        ("GET", "/notes/1", "https://evil.example", 200, None),
        ("PUT", "/notes/1", "https://evil.example", 415, Some("*")),
        ("GET", "/notes/1?nothing=1", PAGE, 400, Some(PAGE)),
        ("GET", "/nothing", PAGE, 404, Some(PAGE)),
        ("DELETE", "/notes/1", PAGE, 405, Some(PAGE)),
    ] {
        let body = if verb == "PUT" { ("content-type", "text/css") } else { ("accept", "*/*") };
        let (status, fields) = send(&running, verb, path, &[("origin", origin), body]).await;
        assert_eq!(status, wanted_status, "{verb} {path}");
        assert_eq!(value(&fields, "access-control-allow-origin"), allowed, "{verb} {path} from {origin}");
        // What a cache keeps for one page is not for another, unless it is for all.
        let form = (wanted_status == 200).then_some("accept");
        let wanted: Vec<&str> = form.into_iter().chain((allowed != Some("*")).then_some("origin")).collect();
        assert_eq!(vary(&fields), wanted, "{verb} {path}");
    }
    let (_, fields) = send(&running, "GET", "/notes/1", &[("origin", PAGE)]).await;
    let exposed = value(&fields, "access-control-expose-headers").unwrap();
    assert!(exposed.starts_with("etag, x-request-id, retry-after") && exposed.ends_with(", x-note"), "{exposed}");
    let (_, fields) = send(&running, "GET", "/notes/1", &[]).await;
    assert_eq!((value(&fields, "access-control-allow-origin"), vary(&fields)), (None, vec!["accept", "origin"]));
}

#[tokio::test]
async fn without_a_word_about_origins_no_answer_has_one() {
    let running = edge("version: 1\nroutes:\n  - { route: 'GET /notes/{id}', call: notes.v1.Notes/Get }\n").await;
    let (status, fields) = send(&running, "GET", "/notes/1", &[("origin", PAGE)]).await;
    assert_eq!((status, value(&fields, "access-control-allow-origin"), vary(&fields)), (200, None, vec!["accept"]));
    let asked = [("origin", PAGE), ("access-control-request-method", "GET")];
    assert_eq!(send(&running, "OPTIONS", "/notes/1", &asked).await.0, 405);
}

#[test]
fn mistakes_in_it_are_shown_with_their_place() {
    let row = "  - { route: 'GET /notes/{id}', call: notes.v1.Notes/Get, policies: { cors: ROW } }\n";
    for (cors, wanted) in [
        (
            "{ origins: [ https://a.example/ ] }",
            "`origins`: expected an origin such as `https://play.example.com`, found `https://a.example/`",
        ),
        ("{ origins: [ '*' ], headers: [ 'x y' ] }", "`headers`: `x y` is no name of a header field"),
        (
            "{ origins: [ '*' ], max_age: 2 days }",
            "`max_age`: expected a duration such as `600s` up to `86400s`, found `2 days`",
        ),
    ] {
        let material = material(&format!("version: 1\nroutes:\n{}", row.replace("ROW", cors)), PROTO);
        let problems = material.build(None).unwrap_err();
        let report = render(&problems, false, |file| material.text_of(file));
        assert!(report.contains(&format!("error: {wanted}")) && report.contains("routes.yaml:3:"), "{report}");
    }
}
