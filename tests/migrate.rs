//! Routes that move from an old system to their workers: a fake old HTTP system, fake workers of both versions, and a real
//! gateway between them and its clients.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::{calls, eventually, gateway, material, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::snapshot::{Live, Snapshot};
use tidegate::transcode::{self, Sameness};

const PROTO: &str = r#"
syntax = "proto3";
package t.v1;
message Meta { string user_id = 1; string request_id = 2; }
enum Code { UNKNOWN = 0; NOT_FOUND = 1; UNAVAILABLE = 2; }
message Error { Code code = 1; string message = 2; }
message Inner { string id = 1; double weight = 2; }
message Ask { string player_id = 1; Inner inner = 2; bool stream = 3; Meta meta = 9; }
message Said { string text = 1; double score = 2; repeated Inner parts = 3; map<string, int32> counts = 4; Meta meta = 9; Error error = 10; repeated int32 numbers = 11; oneof kind { string word = 12; Inner thing = 13; int32 number = 14; } }
message Item { uint64 index = 1; bool is_final = 2; string text = 3; }
service Speaker {
  rpc Get(Ask) returns (Said) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Put(Ask) returns (Said);
  rpc Tell(Ask) returns (stream Item);
}
"#;

const NEW: &str = "t.v1.Speaker.Get";

/// The table with that `migrate` for all of its routes.
fn routes(migrate: &str) -> String {
    format!(
        r#"
version: 1
styles:
  game:
    context:
      field: meta
      fill: {{ request_id: [ generated ], user_id: [ {{ header: X-User-ID, trusted: true }} ] }}
    error: {{ field: error, code: code, message: message }}
    chunk: {{ index: index, last: is_final }}
defaults: {{ style: game, timeout: 2s, json: {{ names: proto, unknown: ignore }} }}
groups:
  - policies: {{ migrate: {migrate} }}
    routes:
      - {{ route: POST /state/get, call: t.v1.Speaker/Get, body: "*" }}
      - {{ route: "GET /players/{{player_id}}", call: t.v1.Speaker/Get }}
      - {{ route: POST /state/put, call: t.v1.Speaker/Put, body: "*" }}
"#
    )
}

fn table(migrate: &str, previous: Option<&Snapshot>) -> Snapshot {
    let material = material(&routes(migrate), PROTO);
    material.build(previous).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// What a side says: `Said { text }`.
fn said(text: &str) -> Vec<u8> {
    [&[0x0a, text.len() as u8], text.as_bytes()].concat()
}

type Asked = (Uri, HeaderMap, Value);

/// An old HTTP system that answers with what `answer` makes of a body.
#[derive(Clone, Default)]
struct OldSystem(Arc<Mutex<Vec<Asked>>>);

impl OldSystem {
    async fn start(answer: impl Fn(&Value) -> (u16, String) + Clone + Send + Sync + 'static) -> (OldSystem, String) {
        let old = OldSystem::default();
        let (seen, listener) = (old.clone(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let handler = move |method: http::Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            assert_eq!(method, "POST");
            let body: Value = serde_json::from_slice(&body).unwrap();
            let (status, text) = answer(&body);
            seen.0.lock().unwrap().push((uri, headers, body));
            (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")], text)
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        (old, format!("http://{address}"))
    }

    /// One that says `old` to everything.
    async fn plain() -> (OldSystem, String) {
        OldSystem::start(|_| (200, json!({ "text": "old", "unknown": 1 }).to_string())).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }
}

/// A gateway whose routes move.
struct Edge {
    bus: Bus,
    running: Running,
    live: Arc<Live>,
    client: reqwest::Client,
}

impl Edge {
    async fn on(bus: Bus, migrate: &str) -> Edge {
        let trust = |config: &mut tidegate::gateway::GatewayConfig| {
            config.trusted = std::iter::once(tidegate::gateway::network("127.0.0.1").unwrap()).collect();
        };
        let (running, live) = gateway(table(migrate, None), &bus, trust).await;
        Edge { bus, running, live, client: reqwest::Client::new() }
    }

    async fn start(migrate: &str) -> Edge {
        Edge::on(Bus::embedded(), migrate).await
    }

    fn reload(&self, migrate: &str) {
        let next = table(migrate, Some(&self.live.pin()));
        self.live.swap(next);
    }

    /// Plays the workers of a subject.
    async fn play(&self, subject: &str, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
        calls::worker(&self.bus, subject, move |delivery| {
            answer(&delivery.payload).map(|payload| calls::answer(&delivery, &payload)).into_iter().collect()
        })
        .await;
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(url(&self.running, path)).header("x-user-id", "u1");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Who serves a player.
    async fn side(&self, player: &str) -> String {
        let (status, body) = self.post("/state/get", &json!({ "player_id": player })).await;
        assert_eq!(status, 200, "{body}");
        body["text"].as_str().unwrap().to_owned()
    }

    /// Who serves each of 200 players.
    async fn sides(&self) -> BTreeMap<usize, String> {
        let mut sides = BTreeMap::new();
        for number in 0..200 {
            sides.insert(number, self.side(&format!("player-{number}")).await);
        }
        sides
    }
}

#[tokio::test]
async fn an_old_http_system_serves_every_route_in_the_form_of_the_new_one() {
    let (old, address) = OldSystem::plain().await;
    let edge = Edge::start(&format!("{{ old: {{ http: '{address}' }} }}")).await;
    assert_eq!(edge.side("p1").await, "old");
    let (uri, headers, body) = old.asked().pop().unwrap();
    assert_eq!((uri.path(), body["player_id"].as_str()), ("/state/get", Some("p1")));
    // The context is the gateway's, as for a worker.
    assert_eq!(body["meta"]["user_id"], "u1");
    assert_eq!(
        (&headers["x-user-id"], &headers["content-type"]),
        (&"u1".parse().unwrap(), &"application/json".parse().unwrap())
    );
    assert_eq!(headers["x-request-id"], *body["meta"]["request_id"].as_str().unwrap());
    assert!(headers.contains_key("traceparent"));
    // Who is not trusted is not believed, so the old system is told nobody.
    let (running, _) = gateway(table(&format!("{{ old: {{ http: '{address}' }} }}"), None), &edge.bus, |_| {}).await;
    let request = edge.client.post(url(&running, "/state/get")).header("x-user-id", "mallory").body("{}");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let (_, headers, body) = old.asked().pop().unwrap();
    assert!(!headers.contains_key("x-user-id") && body["meta"]["user_id"].is_null(), "{headers:?} {body}");
    // A REST route over the same old system: an address with a path takes the whole message there.
    edge.reload(&format!("{{ old: {{ http: '{address}/state/get' }} }}"));
    let answer = edge.client.get(url(&edge.running, "/players/p7")).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), r#"{"text":"old"}"#);
    let (uri, _, body) = old.asked().pop().unwrap();
    assert_eq!((uri.path(), body["player_id"].as_str()), ("/state/get", Some("p7")));
}

#[tokio::test]
async fn no_path_of_a_client_climbs_to_another_one_of_the_old_system() {
    let (old, address) = OldSystem::plain().await;
    let edge = Edge::start(&format!("{{ old: {{ http: '{address}' }} }}")).await;
    for path in
        [r"/players/..\..\internal", r"/players/..\reset", "/players/..%5C..%5Creset", "/players/%2E%2E%2Freset"]
    {
        let mut socket = tokio::net::TcpStream::connect(edge.running.local_addr).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
        tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut Vec::new()).await.unwrap();
    }
    for (uri, ..) in old.asked() {
        assert!(uri.path().starts_with("/players/"), "{uri}");
    }
}

#[tokio::test]
async fn an_old_system_that_leads_back_here_is_given_up() {
    let held = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = held.local_addr().unwrap();
    drop(held);
    let migrate = format!("{{ old: {{ http: 'http://{free}' }} }}");
    let (running, _) = gateway(table(&migrate, None), &Bus::embedded(), |config| config.listen = free).await;
    let answer = reqwest::Client::new().post(url(&running, "/state/get")).body("{}").send().await.unwrap();
    assert!(answer.status().is_server_error(), "{}", answer.status());
}

#[tokio::test]
async fn clients_in_a_hurry_take_no_share_back() {
    let (_old, address) = OldSystem::plain().await;
    let cutover = "cutover: { steps: [ 100 ], for: 60m, requests: 1000, errors_below: 1, errors_from: 5 }";
    let edge = Edge::start(&format!("{{ old: {{ http: '{address}' }}, {cutover} }}")).await;
    edge.play(NEW, |_| None).await;
    for _ in 0..20 {
        let hurried = edge.client.post(url(&edge.running, "/state/get")).header("x-timeout-ms", "5").body("{}");
        assert_eq!(hurried.send().await.unwrap().status(), 504);
    }
    let route = edge.live.pin().routes.iter().find(|route| &*route.template == "/state/get").unwrap().clone();
    assert_eq!(route.migration.as_ref().unwrap().cutover.share(), 10_000);
}

#[tokio::test]
async fn a_player_stays_on_a_side_and_a_larger_share_moves_players_one_way() {
    let server = NatsServer::start();
    for bus in [Bus::embedded(), server.lane_bus().await] {
        let (_, address) = OldSystem::plain().await;
        let migrate = |share: &str| {
            format!("{{ old: {{ http: '{address}' }}, share: {share}, by: [ 'header:X-Nobody', 'field:player_id' ] }}")
        };
        let edge = Edge::on(bus, &migrate("0")).await;
        edge.play(NEW, |_| Some(said("new"))).await;
        let mut before = edge.sides().await;
        assert!(before.values().all(|side| side == "old"));
        for (share, expected) in [("10", 8..35), ("10", 8..35), ("62.5", 100..150), ("100", 200..201)] {
            edge.reload(&migrate(share));
            let after = edge.sides().await;
            let count = after.values().filter(|side| *side == "new").count();
            assert!(expected.contains(&count), "{share} %: {count} of 200");
            let went_back = before.iter().filter(|(player, side)| *side == "new" && after[player] == "old");
            assert_eq!(went_back.count(), 0, "{share} %");
            if share == "10" && before.values().any(|side| side == "new") {
                assert_eq!(before, after);
            }
            before = after;
        }
    }
}

#[tokio::test]
async fn old_workers_on_another_subject_serve_their_share_streams_included() {
    let migrate = "{ old: { subject: old.get }, by: [ 'field:player_id' ], share: 50 }";
    let edge = Edge::start(migrate).await;
    edge.play(NEW, |_| Some(said("new"))).await;
    edge.play("old.get", |_| Some(said("old"))).await;
    let sides = edge.sides().await;
    let count = sides.values().filter(|side| *side == "old").count();
    assert!((70..130).contains(&count), "{count}");
    let streaming = r#"
version: 1
styles: { game: { chunk: { index: index, last: is_final } } }
defaults: { style: game, migrate: { old: { subject: old.tell }, share: SHARE } }
routes: [ { route: POST /tell, call: t.v1.Speaker/Tell, body: "*" } ]
"#;
    for (share, side) in [("0", "old"), ("100", "new")] {
        let snapshot = support::snapshot(&streaming.replace("SHARE", share), PROTO);
        let (bus, item) = (Bus::embedded(), |text: &str| [&[0x10, 1, 0x1a, 3], text.as_bytes()].concat());
        let (running, _) = gateway(snapshot, &bus, |_| {}).await;
        for (subject, text) in [("old.tell", "old"), ("t.v1.Speaker.Tell", "new")] {
            calls::worker(&bus, subject, move |delivery| vec![calls::answer(&delivery, &item(text))]).await;
        }
        let answer = reqwest::Client::new().post(url(&running, "/tell")).body("{}").send().await.unwrap();
        let text = answer.text().await.unwrap();
        assert!(text.contains(&format!(r#""text":"{side}""#)), "{text}");
    }
}

#[tokio::test]
async fn errors_of_an_old_system_are_told_as_those_of_a_worker() {
    let (_, address) = OldSystem::start(|body| match body["player_id"].as_str().unwrap() {
        "error in 200" => (200, json!({ "error": { "code": "NOT_FOUND", "message": "who?" } }).to_string()),
        "error in 500" => (500, json!({ "error": { "code": "NOT_FOUND", "message": "who?" } }).to_string()),
        "page" => (502, "<html>".to_owned()),
        "moved" => (302, "{}".to_owned()),
        "no json" => (200, "<html>".to_owned()),
        _ => (429, "{}".to_owned()),
    })
    .await;
    let edge = Edge::start(&format!("{{ old: {{ http: '{address}' }} }}")).await;
    for (player, status, code, reason, detail) in [
        ("error in 200", 404, "NOT_FOUND", Value::Null, "who?"),
        ("error in 500", 404, "NOT_FOUND", Value::Null, "who?"),
        ("page", 502, "INTERNAL", Value::Null, "the old system answered with status 502"),
        ("moved", 502, "INTERNAL", json!("malformed_reply"), "the old system's answer does not decode"),
        ("no json", 502, "INTERNAL", json!("malformed_reply"), "the old system's answer does not decode"),
        ("busy", 429, "RESOURCE_EXHAUSTED", Value::Null, "the old system answered with status 429"),
    ] {
        let (got, body) = edge.post("/state/get", &json!({ "player_id": player })).await;
        let told = (&body["code"], &body["reason"], &body["detail"]);
        assert_eq!((got, told), (status, (&json!(code), &reason, &json!(detail))), "{player}");
    }
    // Nobody there, and somebody who is silent.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (address, status, reason) in [(gone, 503, "no_responders"), (silent_address, 504, "upstream_timeout")] {
        edge.reload(&format!("{{ old: {{ http: 'http://{address}' }} }}"));
        let (got, body) = edge.post("/state/get", &json!({})).await;
        assert_eq!((got, body["reason"].as_str()), (status, Some(reason)), "{body}");
    }
}

#[test]
fn answers_differ_where_their_canonical_bytes_do() {
    let tables = table("{ old: { subject: a } }", None).tables;
    let said = tables.message_id("t.v1.Said").unwrap();
    let pieces = [
        r#"{"text": "a"}"#,
        r#"{"text": ""}"#,
        r#"{"score": 1}"#,
        r#"{"parts": [{"id": "a"}, {}]}"#,
        r#"{"parts": [{"weight": 2}]}"#,
        r#"{"counts": {"a": 1, "b": 0}}"#,
        r#"{"counts": {"a": 2}}"#,
        r#"{"meta": {"user_id": "a"}}"#,
        r#"{"meta": {}}"#,
        r#"{"numbers": [1, -1, 0]}"#,
        r#"{"numbers": [0]}"#,
        r#"{"word": ""}"#,
        r#"{"thing": {"id": "a"}}"#,
        r#"{"thing": {"weight": 1}}"#,
        r#"{"number": 0}"#,
    ];
    let pieces = pieces.map(|json| encode("t.v1.Said", json));
    let mut random = fastrand::Rng::with_seed(7);
    let (mut same, mut different) = (0, 0);
    for _ in 0..20_000 {
        let mut message = || (0..random.usize(0..4)).flat_map(|_| random.choice(&pieces).unwrap().clone()).collect();
        let (one, other): (Vec<u8>, Vec<u8>) = (message(), message());
        let canonical = |wire: &[u8]| transcode::canonical(&tables, said, None, wire).unwrap();
        let is_same = canonical(&one) == canonical(&other);
        let found = transcode::differences(&tables, said, &Sameness::default(), &one, &other).unwrap();
        assert_eq!(found.is_empty(), is_same, "{one:x?} {other:x?} {found:?}");
        (same, different) = (same + usize::from(is_same), different + usize::from(!is_same));
    }
    assert!(same > 1_000 && different > 1_000, "{same} {different}");
}

/// What is said of a `migrate`, the problem alone.
fn problem(migrate: &str) -> String {
    let text = routes(migrate);
    let problems = material(&text, PROTO).build(None).err().unwrap_or_default();
    problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_a_migration_cannot_mean_is_said_with_its_place() {
    for (migrate, expected) in [
        ("{ old: {} }", "routes.yaml:12:33: `old` has either `http` or `subject`"),
        (
            "{ old: { http: 'ftp://x/y' } }",
            "routes.yaml:12:41: expected an address such as `http://10.0.0.7:5000`, found `ftp://x/y`",
        ),
        (
            "{ old: { subject: t.v1.Speaker.Get } }",
            "routes.yaml:12:44: `t.v1.Speaker.Get` is the route's own subject: the old workers need another one",
        ),
        ("{ old: { subject: a }, share: 101 }", "routes.yaml:12:56: expected 0 to 100 percent, found 101"),
        (
            "{ old: { subject: a }, by: [ player ] }",
            "routes.yaml:12:55: expected `user`, `tenant`, `client`, `header:NAME` or `field:PATH`, found `player`",
        ),
        (
            "{ old: { subject: a }, by: [ 'field:player' ] }",
            "routes.yaml:12:55: `field:player`: `t.v1.Ask` has no field `player`",
        ),
        (
            "{ old: { subject: a }, by: [ 'field:inner' ] }",
            "routes.yaml:12:55: `field:inner`: a caller is known by a single text or number",
        ),
    ] {
        assert_eq!(problem(migrate), expected, "{migrate}");
    }
    assert_eq!(problem("{ old: { subject: a }, by: [ 'field:inner.id', tenant, client, 'header:X-Y' ] }"), "");
}

/// `"{ old: …, share: … REST }"`.
fn moving(address: &str, rest: &str) -> String {
    format!("{{ old: {{ http: '{address}' }}, {rest} }}")
}

/// What the admin port says of `POST /state/get`.
async fn standing(edge: &Edge) -> Value {
    let answer = edge.client.get(admin(edge)).send().await.unwrap();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["migrations"].as_array().unwrap().iter().find(|row| row["route"] == "POST /state/get").unwrap().clone()
}

fn admin(edge: &Edge) -> String {
    format!("http://{}/admin/api/migrations", edge.running.admin_addr.unwrap())
}

/// Waits until so many copies have come to an end.
async fn found(edge: &Edge, copies: u64) -> Value {
    let mut found = Value::Null;
    eventually("the copies have ended", async || {
        found = standing(edge).await["shadow"]["found"].clone();
        let ended = ["same", "different", "failed", "dropped"].map(|name| found[name].as_u64().unwrap());
        ended.iter().sum::<u64>() == copies
    })
    .await;
    found
}

/// `Said { text, score, parts… }` by its JSON.
fn encoded(json: &Value) -> Vec<u8> {
    encode("t.v1.Said", &json.to_string())
}

fn encode(message: &str, json: &str) -> Vec<u8> {
    let tables = table("{ old: { subject: a } }", None).tables;
    let plan = transcode::BodyPlan {
        root: transcode::Root::Message(tables.message_id(message).unwrap()),
        options: transcode::JsonIn::default(),
        claims: transcode::Claims::new(),
        lift: None,
    };
    let mut out = Vec::new();
    transcode::json_to_wire(&tables, &plan, 0, json.as_bytes(), &mut out, None).unwrap();
    out
}

#[tokio::test]
async fn copies_are_compared_by_what_the_answers_mean_and_the_report_names_the_fields() {
    let server = NatsServer::start();
    for bus in [Bus::embedded(), server.lane_bus().await] {
        let (old, address) = OldSystem::start(|body| match body["player_id"].as_str().unwrap() {
            "missing" | "gone" => (200, json!({ "error": { "code": "NOT_FOUND" } }).to_string()),
            player => (200, json!({ "text": player, "score": 1.0, "parts": [{"id": "a"}, {"id": "b"}] }).to_string()),
        })
        .await;
        let shadow = "shadow: { to: new, ignore: [ meta ], unordered: [ parts ], tolerance: 0.01, bodies: true }";
        let edge = Edge::on(bus, &moving(&address, shadow)).await;
        let parts = json!([{"id": "b"}, {"id": "a"}]);
        let answers = [
            ("same", json!({ "text": "same", "score": 1.005, "parts": parts, "meta": { "user_id": "x" } })),
            ("far", json!({ "text": "far", "score": 1.5, "parts": [{"id": "a"}, {"id": "c"}] })),
            ("missing", json!({ "error": { "code": "NOT_FOUND", "message": "in other words" } })),
            ("gone", json!({ "text": "here" })),
        ];
        let answers = answers.map(|(player, answer)| {
            (encode("t.v1.Ask", &json!({ "player_id": player }).to_string()), encoded(&answer))
        });
        edge.play(NEW, move |payload| {
            Some(answers.iter().find(|(ask, _)| payload.starts_with(ask)).unwrap().1.clone())
        })
        .await;
        for player in ["same", "far", "far", "missing", "gone"] {
            edge.post("/state/get", &json!({ "player_id": player })).await;
        }
        let found = found(&edge, 5).await;
        let counts = ["same", "different", "failed", "dropped"].map(|name| found[name].as_u64().unwrap());
        assert_eq!(counts, [2, 3, 0, 0], "{found}");
        assert_eq!(found["fields"], json!({ "score": 2, "parts.id": 2, "(error)": 1 }));
        let last = found["last"].as_array().unwrap();
        let far = last.iter().find(|seen| seen["fields"] == json!(["score", "parts.id"])).unwrap();
        assert_eq!(far["bodies"][0], r#"{"text":"far","score":1,"parts":[{"id":"a"},{"id":"b"}]}"#);
        assert_eq!(far["bodies"][1], r#"{"text":"far","score":1.5,"parts":[{"id":"a"},{"id":"c"}]}"#);
        // The real answers came from the old side, once each.
        assert_eq!(old.asked().len(), 5);
        // What is compared has changed, so the report begins anew; the same again keeps it.
        let other = moving(&address, "shadow: { to: new, ignore: [ meta, score ], unordered: [ parts ] }");
        edge.reload(&other);
        assert_eq!(self::found(&edge, 0).await["different"], 0);
        edge.post("/state/get", &json!({ "player_id": "far" })).await;
        assert_eq!(self::found(&edge, 1).await["fields"], json!({ "parts.id": 1 }));
        edge.reload(&other);
        assert_eq!(self::found(&edge, 1).await["different"], 1);
    }
}

#[tokio::test]
async fn a_shadow_neither_delays_nor_fails_the_answer_and_is_dropped_where_its_slots_are_taken() {
    let (_, address) = OldSystem::plain().await;
    let edge = Edge::start(&moving(&address, "shadow: { calls: 2, timeout: 4s }")).await;
    // The new side is silent: two copies wait, the others are dropped, and nobody notices.
    edge.play(NEW, |_| None).await;
    let start = Instant::now();
    for _ in 0..6 {
        assert_eq!(edge.side("p1").await, "old");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(standing(&edge).await["shadow"]["found"]["dropped"], 4);
    let found = found(&edge, 6).await;
    let counts = ["same", "different", "failed", "dropped"].map(|name| found[name].as_u64().unwrap());
    assert_eq!(counts, [0, 0, 2, 4], "{found}");
    // Nobody there is no difference either.
    let edge = Edge::start(&moving(&address, "shadow: {}")).await;
    assert_eq!(edge.side("p1").await, "old");
    assert_eq!(self::found(&edge, 1).await["failed"], 1);
}

#[tokio::test]
async fn copies_go_to_the_old_side_too_with_whole_bodies_and_writes_only_where_that_is_said() {
    let (old, address) = OldSystem::plain().await;
    let edge = Edge::start(&moving(&address, "share: 100, shadow: { to: old }")).await;
    edge.play(NEW, |_| Some(said("old"))).await;
    edge.play("t.v1.Speaker.Put", |_| Some(said("old"))).await;
    let long = "x".repeat(100_000);
    let ask = json!({ "player_id": "p1", "inner": { "id": long } });
    assert_eq!(edge.post("/state/get", &ask).await.0, 200);
    assert_eq!(found(&edge, 1).await["same"], 1);
    let (_, headers, body) = old.asked().pop().unwrap();
    assert_eq!(
        (headers["tidegate-shadow"].to_str().unwrap(), body["inner"]["id"].as_str()),
        ("1", Some(long.as_str()))
    );
    // A write in the same group has no copies.
    assert_eq!(edge.post("/state/put", &ask).await.0, 200);
    edge.reload(&moving(&address, "share: 100, shadow: { to: old, writes: true }"));
    assert_eq!(edge.post("/state/put", &json!({ "player_id": "p2" })).await.0, 200);
    eventually("the copy has come", async || old.asked().len() == 2).await;
    assert_eq!(old.asked()[1].2["player_id"], "p2");
    // Of a side that serves there are none.
    edge.reload(&moving(&address, "share: 0, shadow: { to: old }"));
    assert_eq!(edge.side("p3").await, "old");
    assert_eq!(standing(&edge).await["shadow"]["found"]["dropped"], 0);
    assert_eq!(old.asked().len(), 3);
}

#[tokio::test]
async fn a_cutover_moves_on_evidence_goes_back_on_errors_and_keeps_its_place_over_a_reload() {
    let (_, address) = OldSystem::plain().await;
    let cutover = |more: &str| {
        let rule = "steps: [ 50, 100 ], for: 100ms, requests: 20, errors_below: 10, errors_from: 50";
        moving(&address, &format!("by: [ 'field:player_id' ], cutover: {{ {rule}{more} }}"))
    };
    let edge = Edge::start(&cutover("")).await;
    let is_broken = Arc::new(Mutex::new(false));
    let broken = is_broken.clone();
    edge.play(NEW, move |_| match *broken.lock().unwrap() {
        true => Some(encoded(&json!({ "error": { "code": "UNAVAILABLE" } }))),
        false => Some(said("new")),
    })
    .await;
    assert_eq!(standing(&edge).await["share"], 50.0);
    let mut number = 0;
    eventually("the last step", async || {
        number += 1;
        edge.side(&format!("player-{number}")).await;
        standing(&edge).await["share"] == 100.0
    })
    .await;
    let told = standing(&edge).await;
    let why = told["moves"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("the evidence is good: 0 % errors of "), "{told}");
    assert!(told["moves"][0]["from"] == 50.0 && number >= 20);
    // Another threshold, the same steps: it stays where it was.
    edge.reload(&cutover(", differences_below: 5 }, shadow: { to: old"));
    assert_eq!(
        (standing(&edge).await["share"].as_f64(), standing(&edge).await["course"].as_str()),
        (Some(100.0), Some("running"))
    );
    *is_broken.lock().unwrap() = true;
    let mut failed = 0;
    eventually("it goes back", async || {
        failed += u32::from(edge.post("/state/get", &json!({ "player_id": "p1" })).await.0 == 503);
        standing(&edge).await["share"] == 0.0
    })
    .await;
    let told = standing(&edge).await;
    assert_eq!(told["course"], "rolled back");
    assert!(told["moves"][1]["why"].as_str().unwrap().starts_with("errors reached 50 %: "), "{told}");
    assert!(failed >= 5);
    assert_eq!(edge.side("p1").await, "old");
    // Other steps are another cutover.
    edge.reload(&moving(&address, "cutover: { steps: [ 10, 100 ] }"));
    assert_eq!(standing(&edge).await["share"], 10.0);
}

#[tokio::test]
async fn an_operator_holds_sets_and_rolls_back_through_the_admin_port() {
    let (_, address) = OldSystem::plain().await;
    let edge = Edge::start(&moving(&address, "cutover: { steps: [ 1, 5, 100 ] }")).await;
    edge.play(NEW, |_| Some(said("new"))).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("cutover").args(arguments).args(["--admin", &edge.running.admin_addr.unwrap().to_string()]);
        let output = command.env_remove("TIDEGATE_ADMIN_TOKEN").output().await.unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let route = "POST /state/get";
    let (is_good, text) = run(&["set", route, "100"]).await;
    assert!(is_good && text.starts_with("POST /state/get  100.0 % new, held\n"), "{text}");
    assert_eq!(edge.side("p1").await, "new");
    let (_, text) = run(&["roll-back", route]).await;
    assert!(text.contains("100.0 % → 0.0 %, rolled back by an operator"), "{text}");
    assert_eq!(edge.side("p1").await, "old");
    run(&["go", route]).await;
    let (_, text) = run(&["status"]).await;
    assert!(text.contains("POST /state/get  1.0 % new, running\n"), "{text}");
    assert!(text.contains("GET /players/{player_id}  1.0 % new, running\n"), "{text}");
    let (is_good, text) = run(&["hold", "POST /nowhere"]).await;
    assert!(!is_good && text.contains("no route `POST /nowhere` has a `migrate`"), "{text}");
    let order = async |body: Value| {
        let answer = edge.client.post(admin(&edge)).body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        (status, body["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (body, status, detail) in [
        (json!({ "route": route, "do": "set" }), 400, "`set` needs a `share` from 0 to 100 percent"),
        (json!({ "route": route, "do": "set", "share": 101 }), 400, "`set` needs a `share` from 0 to 100 percent"),
        (json!({ "route": route, "do": "hold", "share": 1 }), 400, "`share` belongs to `set`"),
    ] {
        assert_eq!(order(body).await, (status, detail.to_owned()));
    }
    edge.reload(&moving(&address, "share: 5"));
    let (status, detail) = order(json!({ "route": route, "do": "go" })).await;
    assert_eq!((status, detail.as_str()), (400, "`POST /state/get` has no `cutover` by which it could move"));
}

/// What differs between two answers, with what counts as the same.
#[test]
fn answers_are_compared_as_their_meaning_goes() {
    let tables = table("{ old: { subject: a } }", None).tables;
    let said = tables.message_id("t.v1.Said").unwrap();
    let path = |text: &str| Sameness::path(&tables, said, text).unwrap().0;
    let compare = |sameness: &Sameness, one: &str, other: &str| {
        let (one, other) = (encode("t.v1.Said", one), encode("t.v1.Said", other));
        transcode::differences(&tables, said, sameness, &one, &other).unwrap().join(" ")
    };
    let exact = Sameness::default();
    for (one, other, expected) in [
        ("{}", r#"{"text": "", "score": 0, "parts": [], "counts": {}}"#, ""),
        (r#"{"counts": {"a": 1, "b": 0}}"#, r#"{"counts": {"b": 0, "a": 1}}"#, ""),
        (r#"{"counts": {"a": 1}}"#, r#"{"counts": {"a": 2}}"#, "counts"),
        (r#"{"counts": {"a": 1}}"#, r#"{"counts": {"b": 1}}"#, "counts"),
        (r#"{"parts": [{"id": "a"}]}"#, r#"{"parts": [{"id": "a"}, {}]}"#, "parts"),
        (r#"{"parts": [{"id": "a"}, {"id": "b"}]}"#, r#"{"parts": [{"id": "b"}, {"id": "a"}]}"#, "parts.id"),
        (r#"{"meta": {}}"#, "{}", "meta"),
        (
            r#"{"meta": {"user_id": "a"}, "text": "x"}"#,
            r#"{"meta": {"user_id": "b"}, "text": "y"}"#,
            "text meta.user_id",
        ),
        (r#"{"score": 1.001}"#, r#"{"score": 1}"#, "score"),
        (r#"{"score": "NaN"}"#, r#"{"score": "NaN"}"#, ""),
    ] {
        assert_eq!(compare(&exact, one, other), expected, "{one} {other}");
        let back: Vec<String> = vec![compare(&exact, other, one)];
        assert_eq!(back[0], expected, "{other} {one}");
    }
    let loose = Sameness {
        ignored: vec![path("meta.user_id"), path("parts.weight")],
        unordered: vec![path("parts")],
        tolerance: 0.01,
    };
    for (one, other, expected) in [
        (r#"{"meta": {"user_id": "a"}}"#, r#"{"meta": {"user_id": "b"}}"#, ""),
        (r#"{"meta": {"user_id": "a"}}"#, r#"{"meta": {"request_id": "b"}}"#, "meta.request_id"),
        (r#"{"score": 1000}"#, r#"{"score": 1009}"#, ""),
        (r#"{"score": 1000}"#, r#"{"score": 1012}"#, "score"),
        (r#"{"score": 0.001}"#, r#"{"score": 0.009}"#, ""),
        (
            r#"{"parts": [{"id": "a", "weight": 1}, {"id": "b"}]}"#,
            r#"{"parts": [{"id": "b"}, {"id": "a", "weight": 9}]}"#,
            "",
        ),
        (r#"{"parts": [{"id": "a"}, {"id": "a"}]}"#, r#"{"parts": [{"id": "a"}, {"id": "b"}]}"#, "parts.id"),
    ] {
        assert_eq!(compare(&loose, one, other), expected, "{one} {other}");
    }
    // A split message is one message, and a value of another wire type is unknown.
    let split =
        [encode("t.v1.Said", r#"{"meta": {"user_id": "a"}}"#), encode("t.v1.Said", r#"{"meta": {"request_id": "b"}}"#)];
    let whole = encode("t.v1.Said", r#"{"meta": {"user_id": "a", "request_id": "b"}}"#);
    assert_eq!(transcode::differences(&tables, said, &exact, &split.concat(), &whole).unwrap(), Vec::<String>::new());
    assert_eq!(transcode::differences(&tables, said, &exact, &[0x08, 1], &[]).unwrap(), Vec::<String>::new());
    assert!(transcode::differences(&tables, said, &exact, &[0x0a, 9], &[]).is_err());
}

#[test]
fn what_a_shadow_or_a_cutover_cannot_mean_is_said() {
    for (row, expected) in [
        ("shadow: { to: here }", "expected `new` or `old` or `both`, found `here`"),
        ("shadow: { percent: 0 }", "expected a number above 0: leave `shadow` out to copy nothing"),
        ("shadow: { calls: 0 }", "expected a number above 0"),
        ("shadow: { tolerance: 1 }", "expected a part from 0 to below 1, found 1"),
        ("shadow: { ignore: [ metta ] }", "`metta`: `t.v1.Said` has no field `metta`"),
        ("shadow: { ignore: [ text.more ] }", "`text.more`: nothing is below a value"),
        ("shadow: { unordered: [ text ] }", "`text` is no list: it has no order"),
        (
            "share: 1, cutover: { steps: [ 1 ] }",
            "`share` stands still, `cutover` moves: a migration has one of the two",
        ),
        ("cutover: { steps: [] }", "`steps`: expected rising shares above 0, such as `[1, 5, 25, 100]`"),
        ("cutover: { steps: [ 5, 1 ] }", "`steps`: expected rising shares above 0, such as `[1, 5, 25, 100]`"),
        ("cutover: { steps: [ 1 ], for: soon }", "`for`: expected a duration such as `10m`, found `soon`"),
        ("cutover: { steps: [ 1 ], differences_below: 1 }", "nothing is compared without `shadow`"),
        ("cutover: { steps: [ 1 ], errors_below: 0 }", "expected a number above 0: no part is below it"),
        ("cutover: { steps: [ 1 ], errors_from: 0.1 }", "it would go back from a part that still counts as good"),
    ] {
        let told = problem(&format!("{{ old: {{ subject: a }}, {row} }}"));
        assert_eq!(told.split_once(": ").map(|told| told.1), Some(expected), "{row}");
    }
    let own = r#"
version: 1
routes:
  - route: POST /put
    call: t.v1.Speaker/Put
    policies: { migrate: { old: { subject: a }, shadow: {} } }
"#;
    let problems = material(own, PROTO).build(None).unwrap_err();
    let text = format!("{}: {}", problems[0].place, problems[0].message);
    assert_eq!(text, "routes.yaml:6:57: `t.v1.Speaker/Put` may change something: its copies need `writes: true`");
}
