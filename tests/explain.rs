//! Explanations say what the edge does: each row is a request and what is told of it.

mod support;

use std::process::Command;

use bytes::Bytes;
use http::Request;
use support::{project, snapshot};
use tidegate::gateway::explain::{Explanation, explain};
use tidegate::snapshot::Snapshot;

const PROTO: &str = r#"
syntax = "proto3";
package t;
message Ask { string name = 1; string kind = 2; int32 count = 3; Inner inner = 4; bool wide = 5; }
message Inner { string note = 1; }
message Told { string text = 1; }
"#;

const ROUTES: &str = r#"
version: 1
defaults: { json: { names: proto } }
routes:
  - { route: "GET /v1/things/{name}", subject: t.get, request: t.Ask, reply: t.Told }
  - { route: "GET /v1/things/latest", subject: t.latest, request: t.Ask, reply: t.Told }
  - { route: "* /v1/{name=**}", subject: t.any, request: t.Ask, reply: t.Told, body: "*" }
  - route: "POST /v1/things/{name}:run"
    subject: t.run
    request: t.Ask
    reply: t.Told
    body: inner
    presets: { kind: thing }
    headers_in: { X-Count: count }
    policies: { timeout: 2s, body_max: 32B, rate: { requests: 5, per: 1s, key: client }, calls: 3 }
  - { route: "PUT /other/{inner.note}", subject: t.put, request: t.Ask, reply: t.Told, body: "*" }
"#;

/// Name and value.
type Header = (&'static str, &'static str);

fn told(snapshot: &Snapshot, request: &str, headers: &[Header], body: &str) -> Explanation {
    let (verb, target) = request.split_once(' ').unwrap();
    let mut request = Request::builder().method(verb).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    explain(snapshot, request.body(Bytes::from(body.to_owned())).unwrap())
}

/// Candidates as lines, the taken one marked.
fn tried(told: &Explanation) -> Vec<String> {
    let line = |row: &tidegate::gateway::explain::Candidate| {
        format!("{}{}: {}", if row.is_taken { "* " } else { "" }, row.route, row.why)
    };
    told.candidates.iter().chain(&told.nearest).map(line).collect()
}

fn refused(told: &Explanation) -> Option<String> {
    told.refused.as_ref().map(|refused| {
        let allow = refused.allow.as_ref().map_or_else(String::new, |allow| format!(" [{allow}]"));
        format!("{} {} {}: {}{allow}", refused.status, refused.code, refused.reason, refused.message)
    })
}

#[test]
fn routes_are_tried_in_their_order_and_each_says_why() {
    let snapshot = snapshot(ROUTES, PROTO);
    let nearer = "takes the path, but a nearer one comes first: literal text before `*` before `**`";
    let rows: [(&str, &[String], Option<&str>); 7] = [
        (
            "GET /v1/things/latest",
            &[
                "* GET /v1/things/latest: takes the path and the verb".to_owned(),
                format!("GET /v1/things/{{name}}: {nearer}"),
                format!("* /v1/{{name=**}}: {nearer}"),
            ],
            None,
        ),
        (
            "HEAD /v1/things/a",
            &[
                "* GET /v1/things/{name}: takes the path; HEAD is answered as GET is".to_owned(),
                format!("* /v1/{{name=**}}: {nearer}"),
            ],
            None,
        ),
        (
            "DELETE /v1/things/a",
            &[
                "GET /v1/things/{name}: takes the path, but GET instead of DELETE".to_owned(),
                "* * /v1/{name=**}: takes the path, with any verb".to_owned(),
            ],
            None,
        ),
        (
            "GET /v1/things/a:run",
            &[
                "POST /v1/things/{name}:run: takes the path, but POST instead of GET".to_owned(),
                "GET /v1/things/{name}: takes the path and the verb, but the path ends with a custom verb that other \
                 routes have"
                    .to_owned(),
                "* /v1/{name=**}: takes the path and the verb, but the path ends with a custom verb that other routes \
                 have"
                    .to_owned(),
            ],
            Some("405 UNIMPLEMENTED method_not_allowed: this path takes POST [POST]"),
        ),
        (
            "GET /other/x",
            &["PUT /other/{inner.note}: takes the path, but PUT instead of GET".to_owned()],
            Some("405 UNIMPLEMENTED method_not_allowed: this path takes PUT [PUT]"),
        ),
        (
            "PUT /others/x",
            &[
                "PUT /other/{inner.note}: segment 1 is `others`, expected `other`".to_owned(),
                "GET /v1/things/{name}: segment 1 is `others`, expected `v1`".to_owned(),
                "GET /v1/things/latest: segment 1 is `others`, expected `v1`".to_owned(),
                "POST /v1/things/{name}:run: segment 1 is `others`, expected `v1`".to_owned(),
                "* /v1/{name=**}: segment 1 is `others`, expected `v1`".to_owned(),
            ],
            Some("404 NOT_FOUND route_not_found: no route has this path"),
        ),
        ("GET /v1//x", &[], Some("404 NOT_FOUND route_not_found: no route has this path")),
    ];
    for (request, expected, refusal) in rows {
        let told = told(&snapshot, request, &[], "");
        let (mut tried, mut expected) = (tried(&told), expected.to_vec());
        if !told.nearest.is_empty() {
            // Nearest routes of one distance stand in the order of the file.
            tried.sort();
            expected.sort();
        }
        assert_eq!(tried, expected, "{request}");
        assert_eq!(refused(&told).as_deref(), refusal, "{request}");
    }
}

#[test]
fn fields_are_told_with_what_sets_them_and_the_message_is_the_workers() {
    let snapshot = snapshot(ROUTES, PROTO);
    let told = told(&snapshot, "POST /v1/things/a%20b:run?wide=true", &[("x-count", "7")], r#"{"note":"hi"}"#);
    let rows: Vec<(&str, &str, &str, Option<&str>)> = told
        .bindings
        .iter()
        .map(|row| (row.field.as_str(), row.from, row.source.as_str(), row.value.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [
            ("name", "path", "{name}", Some("a b")),
            ("count", "header", "x-count", Some("7")),
            ("*", "preset", "constants", Some(r#"{"kind":"thing"}"#)),
            ("inner", "body", "the body", Some("13 bytes")),
            ("wide", "query", "?wide=", Some("true")),
        ]
    );
    let message = serde_json::json!({
        "name": "a b", "kind": "thing", "count": 7, "inner": { "note": "hi" }, "wide": true,
    });
    assert_eq!(told.message, Some(message));
    let route = told.route.as_ref().unwrap();
    assert_eq!((route.subject.as_str(), route.timeout_ms, route.body_max_bytes), ("t.run", 2_000, 32));
    let rate = route.rate.as_ref().unwrap();
    assert_eq!((rate.requests, rate.per_ms, rate.burst, rate.key), (5, 1_000, 5, "client"));
    assert_eq!((route.calls.as_ref().unwrap().max, route.auth, route.errors), (3, "none", "problem"));
}

#[test]
fn what_the_edge_would_refuse_is_refused() {
    let snapshot = snapshot(ROUTES, PROTO);
    let long = format!(r#"{{"note":"{}"}}"#, "x".repeat(64));
    let rows: [(&str, &[Header], &str, &str); 5] = [
        ("POST /v1/things/a:run", &[], &long, "413 INVALID_ARGUMENT body_too_large: the body is larger than 32 bytes"),
        (
            "POST /v1/things/a:run",
            &[("x-count", "many")],
            "",
            "400 INVALID_ARGUMENT malformed_parameter: header `x-count`: expected a 32-bit integer, found `many`",
        ),
        (
            "POST /v1/things/a:run",
            &[("content-type", "text/plain")],
            "{}",
            "415 INVALID_ARGUMENT unsupported_media_type: content type `text/plain`: send `application/json` or \
             `application/x-protobuf`",
        ),
        (
            "GET /v1/things/a",
            &[("x-timeout-ms", "soon")],
            "",
            "400 INVALID_ARGUMENT malformed_parameter: header `x-timeout-ms`: expected a whole number from 1 to 300000",
        ),
        (
            "GET /v1/things/a?name=b",
            &[],
            "",
            "400 INVALID_ARGUMENT conflicting_fields: query parameter `name`: this field is set by the path, a header, \
             the body or the gateway",
        ),
    ];
    for (request, headers, body, expected) in rows {
        let told = told(&snapshot, request, headers, body);
        assert_eq!(refused(&told).as_deref(), Some(expected), "{request}");
        assert_eq!(told.message, None);
        assert!(told.route.is_some(), "{request}");
    }
}

/// Of the candidates that an explanation puts in order, the tree takes the first that has the verb.
#[test]
fn the_order_that_is_told_is_the_one_of_the_tree() {
    let snapshot = project().build(None).unwrap();
    let mut checked = 0;
    for route in &snapshot.routes {
        let path = route.template.replace('{', "x").replace('}', "").replace("=**", "/y/z");
        let told = told(&snapshot, &format!("{} {path}", route.verb), &[], "");
        let own = |row: &&tidegate::gateway::explain::Candidate| {
            row.route.starts_with(&format!("{} ", route.verb)) || row.route.starts_with("* ")
        };
        let first = told.candidates.iter().find(own).expect("the route itself, or one before it");
        assert!(first.is_taken, "{path}: {:?}", tried(&told));
        checked += 1;
    }
    assert!(checked > 100);
}

#[test]
fn the_command_says_it_and_ends_with_whether_the_request_goes_through() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .arg("explain")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = run(&["post", "/v1/players/p7/quests:generate", "-d", r#"{"seed": "42"}"#]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "→ quest.v1.QuestService/GenerateQuest on svc.quest.v1.generate\n",
        "* POST /v1/players/{player_id}/quests:generate  takes the path and the verb  (",
        "  player_id             path     {player_id} = p7\n",
        "  meta.trace_id         context  the trace id of traceparent, else header x-trace-id, else a new id\n",
        "  auth         optional, checked by auth.v1.AuthService/ValidateSession\n",
        "  \"player_id\": \"p7\",\n",
    ] {
        assert!(text.contains(line), "{line}is not in\n{text}");
    }
    let (code, text) = run(&["GET", "/v1/player/p7/state", "--format", "json"]);
    assert_eq!(code, Some(1), "{text}");
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["refused"]["reason"], "route_not_found");
    assert_eq!(told["nearest"][0]["why"], "segment 2 is `player`, expected `players`");
    assert_eq!(run(&["GET", "v1"]), (Some(1), "error: `v1` is no path: it begins with `/`\n".to_owned()));
    let wrong = (Some(1), "error: `X`: expected `Name: value`\n".to_owned());
    assert_eq!(run(&["GET", "/v1", "-H", "X"]), wrong);
}
