//! What travels through the edge in each form that a route can declare: bodies, queries, headers, and what a client
//! sends that nobody asked for.

mod support;

use std::sync::{Arc, Mutex};

use support::{gateway, snapshot, url};
use tidegate::bus::{Bus, Delivery, Headers, Limits, Message, Pattern};
use tidegate::gateway::{GatewayConfig, Running, network};
use tidegate::transcode::{JsonOut, MessageId, Names, Scratch, Tables, wire_to_json};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
import "google/api/httpbody.proto";
import "google/protobuf/field_mask.proto";
message Thing { string id = 1; int64 version = 2; repeated string tags = 3; map<string, int32> marks = 4; Thing inner = 5; }
message Ask {
  string id = 1; Thing thing = 2; google.protobuf.FieldMask mask = 3; int64 expected = 4; string kind = 5;
  repeated Thing things = 6; repeated int32 numbers = 7; map<string, string> labels = 8;
}
message Answer { Thing thing = 1; string note = 2; int64 version = 3; repeated Thing things = 4; google.api.HttpBody file = 5; }
message Upload { string id = 1; google.api.HttpBody file = 2; }
service Things {
  rpc Get(Ask) returns (Answer);
  rpc Whole(Ask) returns (Answer);
  rpc Change(Ask) returns (Answer);
  rpc Raw(google.api.HttpBody) returns (google.api.HttpBody);
  rpc Put(Upload) returns (Answer);
  rpc Plain(Thing) returns (Thing);
}
"#;

const ROUTES: &str = "
annotations: [ { services: ['*'], convention: true } ]
routes:
  - { route: 'GET /things/{id}', call: t.v1.Things/Get, response_body: thing, headers_in: { If-Match: expected }, headers_out: { version: ETag, note: X-Note } }
  - { route: 'GET /whole/{id}', call: t.v1.Things/Whole, presets: { kind: full, thing.version: '7' } }
  - { route: 'GET /notes/{id}', call: t.v1.Things/Get, response_body: note }
  - { route: 'GET /lists/{id}', call: t.v1.Things/Get, response_body: things }
  - { route: 'GET /files/{id}', call: t.v1.Things/Get, response_body: file }
  - { route: 'POST /things', call: t.v1.Things/Change, body: '*', presets: { kind: full }, headers_in: { If-Match: expected } }
  - { route: 'PATCH /things/{id}', call: t.v1.Things/Change, body: thing }
  - { route: 'POST /raw', call: t.v1.Things/Raw, body: '*' }
  - { route: 'PUT /files/{id}', call: t.v1.Things/Put, body: file }
";

type Seen = Arc<Mutex<Vec<Delivery>>>;

/// A gateway with a worker that answers with the same bytes and remembers what it got.
struct Edge {
    running: Running,
    seen: Seen,
    tables: Arc<Tables>,
    requests: Vec<(String, MessageId)>,
}

impl Edge {
    async fn start(reply: &[u8]) -> Edge {
        Edge::start_with(reply, |_| {}).await
    }

    async fn start_with(reply: &[u8], change: impl FnOnce(&mut GatewayConfig)) -> Edge {
        let (bus, seen) = (Bus::embedded(), Seen::default());
        let mut subscription = bus.subscribe(&Pattern::new(">").unwrap(), Some("q"), Limits::WORKER).await.unwrap();
        let (answers, notes, reply) = (bus.clone(), seen.clone(), reply.to_vec());
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = subscription.next().await {
                let Some(subject) = delivery.reply.clone() else { continue };
                notes.lock().unwrap().push(delivery);
                let message = Message { subject, reply: None, headers: Headers::new(), payload: reply.clone().into() };
                answers.publish(message).await.unwrap();
            }
        });
        let snapshot = snapshot(ROUTES, PROTO);
        let tables = snapshot.tables.clone();
        let requests = snapshot.methods.iter().map(|m| (m.subject.as_str().to_owned(), m.request)).collect();
        let (running, _) = gateway(snapshot, &bus, change).await;
        Edge { running, seen, tables, requests }
    }

    /// Sends `VERB PATH`; the answer.
    async fn send(&self, request: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        let (verb, path) = request.split_once(' ').unwrap();
        let verb = reqwest::Method::from_bytes(verb.as_bytes()).unwrap();
        let mut request = reqwest::Client::new().request(verb, url(&self.running, path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, body: answer.bytes().await.unwrap().to_vec() }
    }

    /// What the worker got last, as JSON.
    fn got(&self) -> String {
        let seen = self.seen.lock().unwrap();
        let last = seen.last().expect("a request reached the worker");
        let (_, message) = self.requests.iter().find(|row| row.0 == last.subject.as_str()).unwrap();
        let (mut json, options) = (Vec::new(), JsonOut { names: Names::Proto, ..JsonOut::default() });
        wire_to_json(&self.tables, *message, &options, &last.payload, &mut Scratch::default(), &mut json).unwrap();
        String::from_utf8(json).unwrap()
    }
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and reason of a refusal.
    fn refusal(&self) -> (u16, String) {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        (self.status, format!("{}: {}", body["reason"].as_str().unwrap_or_default(), body["detail"].as_str().unwrap()))
    }
}

/// `thing { id: "t1" version: 3 } note: "hi" version: 5 things { id: "a" } things { id: "b" } file { … }`.
const REPLY: &[u8] =
    b"\x0a\x06\x0a\x02t1\x10\x03\x12\x02hi\x18\x05\x22\x03\x0a\x01a\x22\x03\x0a\x01b\x2a\x12\x0a\x09image/png\x12\x05\x89PNG\n";

#[tokio::test]
async fn a_part_of_the_reply_is_the_answers_body() {
    let edge = Edge::start(REPLY).await;
    for (path, content_type, expected) in [
        ("/things/t1", "application/json", r#"{"id":"t1","version":"3"}"#.as_bytes()),
        ("/notes/t1", "application/json", r#""hi""#.as_bytes()),
        ("/lists/t1", "application/json", r#"[{"id":"a"},{"id":"b"}]"#.as_bytes()),
        ("/files/t1", "image/png", b"\x89PNG\n"),
    ] {
        let answer = edge.send(&format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, content_type), "{path}: {}", answer.text());
        assert_eq!(answer.body, expected, "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_absent_part_of_the_reply_is_its_empty_value() {
    let edge = Edge::start(b"").await;
    for (path, expected) in [("/things/t1", "{}"), ("/notes/t1", r#""""#), ("/lists/t1", "[]")] {
        let answer = edge.send(&format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{path}");
    }
    let answer = edge.send("GET /files/t1", &[], "").await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.text().as_str()),
        (200, "application/octet-stream", "")
    );
}

#[tokio::test]
async fn headers_fill_fields_and_fields_fill_headers() {
    let edge = Edge::start(REPLY).await;
    let answer = edge.send("GET /things/t1", &[("if-match", "\"4\"")], "").await;
    assert_eq!((answer.header("etag"), answer.header("x-note")), ("\"5\"", "hi"));
    assert_eq!(edge.got(), r#"{"id":"t1","expected":"4"}"#);
    edge.send("POST /things", &[("if-match", "W/\"9\"")], r#"{"id":"a","expected":"1","kind":"forged"}"#).await;
    assert_eq!(edge.got(), r#"{"id":"a","expected":"9","kind":"full"}"#);
    edge.send("POST /things", &[], r#"{"id":"a","expected":"1"}"#).await;
    assert_eq!(edge.got(), r#"{"id":"a","expected":"1","kind":"full"}"#);
    edge.send("GET /whole/t1", &[], "").await;
    assert_eq!(edge.got(), r#"{"id":"t1","thing":{"version":"7"},"kind":"full"}"#);
    for (value, expected) in [
        ("new", "malformed_parameter: header `if-match`: expected a 64-bit integer, found `new`"),
        ("*", "malformed_parameter: header `if-match`: expected a 64-bit integer, found `*`"),
    ] {
        let refused = edge.send("GET /things/t1", &[("if-match", value)], "").await;
        assert_eq!(refused.refusal(), (400, expected.to_owned()));
    }
    let refused = edge.send("GET /whole/t1?kind=x", &[], "").await;
    let expected =
        "conflicting_fields: query parameter `kind`: this field is set by the path, a header, the body or the gateway";
    assert_eq!(refused.refusal(), (400, expected.to_owned()));
}

#[tokio::test]
async fn any_bytes_go_in_and_out_as_they_are() {
    // content_type: "text/csv", data: "a,b\n"
    let edge = Edge::start(b"\x0a\x08text/csv\x12\x04a,b\n").await;
    let answer = edge.send("POST /raw", &[("content-type", "image/gif")], b"GIF\x00\xff".to_vec()).await;
    assert_eq!((answer.status, answer.header("content-type"), answer.text().as_str()), (200, "text/csv", "a,b\n"));
    assert_eq!(edge.got(), r#"{"content_type":"image/gif","data":"R0lGAP8="}"#);
    let answer = edge.send("PUT /files/f1", &[("content-type", "text/plain; charset=utf-8")], "hello").await;
    assert_eq!(answer.status, 502, "the reply is no `Answer`: {}", answer.text());
    assert_eq!(edge.got(), r#"{"id":"f1","file":{"content_type":"text/plain; charset=utf-8","data":"aGVsbG8="}}"#);
    // A form is bytes of its own kind here, not JSON.
    edge.send("POST /raw", &[("content-type", "application/x-www-form-urlencoded")], "a=1").await;
    assert_eq!(edge.got(), r#"{"content_type":"application/x-www-form-urlencoded","data":"YT0x"}"#);
}

#[tokio::test]
async fn protobuf_bodies_go_in_and_out() {
    let edge = Edge::start(REPLY).await;
    let binary = [("content-type", "application/x-protobuf"), ("accept", "application/x-protobuf")];
    // id: "t1", kind: "forged", which the preset overrules.
    let answer = edge.send("POST /things", &binary, b"\x0a\x02t1\x2a\x06forged".to_vec()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-protobuf"));
    assert_eq!(answer.body, REPLY);
    assert_eq!(edge.got(), r#"{"id":"t1","kind":"full"}"#);
    // The body of one field is that field's message.
    let answer = edge.send("PATCH /things/t2", &binary[..1], b"\x10\x05".to_vec()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert!(edge.got().starts_with(r#"{"id":"t2","thing":{"version":"5"}"#), "{}", edge.got());
    let refused = edge.send("POST /things", &binary[..1], b"\x0a\xff".to_vec()).await;
    assert_eq!((refused.status, refused.refusal().1.split(':').next()), (400, Some("malformed_body")));
}

#[tokio::test]
async fn a_patch_says_which_fields_it_sets() {
    let edge = Edge::start(b"").await;
    let change = r#"{"version":"2","inner":{"id":"x"},"tags":[]}"#;
    edge.send("PATCH /things/t1", &[], change).await;
    let got = r#"{"id":"t1","thing":{"version":"2","inner":{"id":"x"}},"mask":"version,inner.id,tags"}"#;
    assert_eq!(edge.got(), got);
    edge.send("PATCH /things/t1?mask=version", &[], change).await;
    assert_eq!(edge.got(), r#"{"id":"t1","thing":{"version":"2","inner":{"id":"x"}},"mask":"version"}"#);
}

#[tokio::test]
async fn methods_without_an_annotation_have_a_path_by_convention() {
    let edge = Edge::start(b"\x0a\x01a").await;
    let answer = edge.send("POST /t.v1.Things/Plain", &[], r#"{"id":"a","marks":{"x":1}}"#).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"id":"a"}"#));
    assert_eq!(edge.got(), r#"{"id":"a","marks":{"x":1}}"#);
    let wrong = edge.send("GET /t.v1.Things/Plain", &[], "").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn what_a_client_may_send_as_a_body() {
    let edge = Edge::start(b"").await;
    for (content_type, body, status) in [
        ("application/json", "{}", 200),
        ("application/json; charset=utf-8", "{}", 200),
        ("APPLICATION/JSON", "{}", 200),
        ("application/x-protobuf", "", 200),
        ("application/protobuf", "", 200),
        // `curl -d` calls its JSON a form; a real form is no JSON.
        ("application/x-www-form-urlencoded", "{}", 200),
        ("application/x-www-form-urlencoded", "id=a", 415),
        ("multipart/form-data; boundary=x", "--x--", 415),
        ("text/plain", "{}", 415),
        ("application/xml", "<a/>", 415),
    ] {
        let answer = edge.send("POST /things", &[("content-type", content_type)], body).await;
        assert_eq!(answer.status, status, "{content_type} {body}: {}", answer.text());
    }
    let plain = edge.send("POST /things", &[("x-http-method-override", "PATCH")], "{}").await;
    assert_eq!(plain.status, 200);
    let hidden = edge.send("POST /things/t1", &[("x-http-method-override", "PATCH")], "{}").await;
    assert_eq!((hidden.status, hidden.header("allow")), (405, "GET, HEAD, PATCH"));
}

#[tokio::test]
async fn queries_reach_nested_repeated_and_map_fields() {
    let edge = Edge::start(b"").await;
    for (query, expected) in [
        ("thing.tags=a&thing.tags=b", r#"{"id":"t1","thing":{"version":"7","tags":["a","b"]},"kind":"full"}"#),
        ("numbers=1&numbers=-2", r#"{"id":"t1","thing":{"version":"7"},"kind":"full","numbers":[1,-2]}"#),
        (
            "labels[a]=1&labels%5Bb%5D=2",
            r#"{"id":"t1","thing":{"version":"7"},"kind":"full","labels":{"a":"1","b":"2"}}"#,
        ),
        (
            "thing.inner.inner.id=deep",
            r#"{"id":"t1","thing":{"version":"7","inner":{"inner":{"id":"deep"}}},"kind":"full"}"#,
        ),
        ("thing.id=a+b%26c", r#"{"id":"t1","thing":{"id":"a b&c","version":"7"},"kind":"full"}"#),
        ("&&", r#"{"id":"t1","thing":{"version":"7"},"kind":"full"}"#),
    ] {
        let answer = edge.send(&format!("GET /whole/t1?{query}"), &[], "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(edge.got(), expected, "{query}");
    }
    let deep = ["thing"].into_iter().chain(vec!["inner"; 2_000]).collect::<Vec<_>>().join(".");
    let deep_text = edge.send(&format!("GET /whole/t1?{deep}.id=x"), &[], "").await;
    assert_eq!(
        (deep_text.status, deep_text.refusal().1.ends_with("more than 16 segments")),
        (400, true),
        "{}",
        deep_text.text()
    );
    for (query, expected) in [
        ("nothing=1", "malformed_parameter: query parameter `nothing`: `t.v1.Ask` has no field `nothing`"),
        (
            "thing.nothing=1",
            "malformed_parameter: query parameter `thing.nothing`: `t.v1.Thing` has no field `nothing`",
        ),
        ("numbers=one", "malformed_parameter: query parameter `numbers`: expected a 32-bit integer, found `one`"),
        ("thing.id=1&thing.id=2", "conflicting_fields: query parameter `thing.id`: given twice"),
        ("thing.id=%zz", "malformed_parameter: query parameter `thing.id`: expected two hex digits behind `%`"),
        ("expected=%FF", "malformed_parameter: query parameter `expected`: the decoded bytes are not UTF-8"),
    ] {
        let refused = edge.send(&format!("GET /whole/t1?{query}"), &[], "").await;
        assert_eq!(refused.refusal(), (400, expected.to_owned()), "{query}");
    }
    // Levels and parameters without end: refused where the path of a field, the query, or the target is too long.
    let many = "numbers=1&".repeat(1_001);
    let refused = edge.send(&format!("GET /whole/t1?{many}"), &[], "").await;
    let expected = "malformed_parameter: query parameter `numbers`: more than 1000 parameters";
    assert_eq!(refused.refusal(), (400, expected.to_owned()));
    let flood = edge.send(&format!("GET /whole/t1?{}", "numbers=1&".repeat(6_000)), &[], "").await;
    assert_eq!(flood.status, 414);
}

#[tokio::test]
async fn headers_that_nobody_asked_for_reach_no_worker() {
    let edge = Edge::start(b"").await;
    let baggage = format!("k={}", "v".repeat(4_000));
    let headers = [
        ("nats-msg-id", "forged"),
        ("nats-expected-last-sequence", "1"),
        ("nats-rollup", "all"),
        ("nats-service-error-code", "500"),
        ("tidegate-user", "root"),
        ("tidegate-call", "forged"),
        ("tidegate-timeout", "1"),
        ("status", "503"),
        ("reply-to", "x"),
        ("cookie", "secret"),
        ("authorization", "Bearer secret"),
        ("traceparent", "00-zz-zz-zz"),
        ("tracestate", "vendor=1"),
        ("baggage", &baggage),
    ];
    let answer = edge.send("GET /things/t1", &headers, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = edge.seen.lock().unwrap().pop().unwrap();
    let mut names: Vec<String> = seen.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    assert_eq!(names, ["content-type", "message-type", "tidegate-call", "tidegate-timeout", "traceparent"]);
    let value = |name: &str| seen.headers.get(name).unwrap().to_owned();
    assert_ne!(value("Tidegate-Call"), "forged");
    assert!(value("Tidegate-Timeout").parse::<u32>().unwrap() > 1_000);
    let trace = value("traceparent");
    assert!(trace.len() == 55 && trace.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{trace}");
    let huge = format!("k={}", "v".repeat(64 * 1024));
    assert_eq!(edge.send("GET /things/t1", &[("baggage", &huge)], "").await.status, 431);
    assert!(edge.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_client_chooses_the_form_of_an_answer() {
    let edge = Edge::start(REPLY).await;
    for (accept, expected) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        ("application/JSON;q=0.9", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/x-protobuf", "application/x-protobuf"),
        ("application/protobuf", "application/x-protobuf"),
        ("application/json;q=0.5, application/x-protobuf", "application/x-protobuf"),
        ("application/json, application/x-protobuf;q=0.5", "application/json"),
        ("application/json, application/x-protobuf", "application/json"),
        ("application/x-protobuf;q=0, application/json", "application/json"),
        ("application/x-protobuf, */*", "application/x-protobuf"),
        ("application/problem+json, application/json", "application/json"),
        ("text/html", "406"),
        ("application/json;q=0", "406"),
        ("text/event-stream", "406"),
    ] {
        let answer = edge.send("GET /whole/t1", &[("accept", accept)], "").await;
        let got =
            if answer.status == 200 { answer.header("content-type").to_owned() } else { answer.status.to_string() };
        assert_eq!(got, expected, "{accept}: {}", answer.text());
        // A cache keeps one answer for each form; a refusal it does not keep.
        let vary = if answer.status == 200 { "accept" } else { "" };
        assert_eq!(answer.header("vary"), vary, "{accept}");
    }
    let posted = edge.send("POST /things", &[], "{}").await;
    assert_eq!((posted.status, posted.header("vary")), (200, ""), "no cache keeps an answer to a POST");
    let before = edge.seen.lock().unwrap().len();
    let refused = edge.send("POST /things", &[("accept", "text/html")], "{}").await;
    let expected = "not_acceptable: this answer comes as `application/json` or `application/x-protobuf`";
    assert_eq!(refused.refusal(), (406, expected.to_owned()));
    assert_eq!(edge.seen.lock().unwrap().len(), before, "a request is refused before it does anything");
    // A raw body has the type that it has.
    assert_ne!(edge.send("POST /raw", &[("accept", "image/*")], "x").await.status, 406);
}

#[tokio::test]
async fn only_hops_of_trusted_proxies_count() {
    let limited = format!("{ROUTES}defaults: {{ rate: {{ requests: 1, per: 60s, key: client }} }}\n");
    for (is_trusted, expected) in [(false, [200, 429, 429, 429]), (true, [200, 200, 429, 200])] {
        let bus = Bus::embedded();
        let mut subscription = bus.subscribe(&Pattern::new(">").unwrap(), Some("q"), Limits::WORKER).await.unwrap();
        let answers = bus.clone();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = subscription.next().await {
                let Some(subject) = delivery.reply else { continue };
                let payload = Default::default();
                answers.publish(Message { subject, reply: None, headers: Headers::new(), payload }).await.unwrap();
            }
        });
        let trust = |config: &mut GatewayConfig| {
            config.trusted = is_trusted.then(|| network("127.0.0.0/8").unwrap()).into_iter().collect();
        };
        let (running, _) = gateway(snapshot(&limited, PROTO), &bus, trust).await;
        let hops = |last: &str| format!("{}{last}", "9.9.9.9, ".repeat(800));
        // Another address, another bucket; what stands left of it is the client's own tale.
        let tales =
            ["10.0.0.1".to_owned(), "10.0.0.2".to_owned(), hops("10.0.0.2:4711"), hops("10.0.0.3, 127.0.0.1:80")];
        let mut statuses = Vec::new();
        for tale in &tales {
            let request = reqwest::Client::new().get(url(&running, "/things/t1")).header("x-forwarded-for", tale);
            statuses.push(request.send().await.unwrap().status().as_u16());
        }
        assert_eq!(statuses, expected, "trusted: {is_trusted}");
    }
}
