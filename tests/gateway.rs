//! What a client can send, and what it gets: every refusal has its own status, and the caller context is nobody's but
//! the gateway's.

mod support;

use std::sync::{Arc, Mutex};

use support::{gateway, project, url};
use tidegate::bus::{Bus, Delivery, Headers, Limits, Message, Pattern};
use tidegate::gateway::{Networks, Running};

type Seen = Arc<Mutex<Vec<Delivery>>>;

/// A worker on every subject of the game that answers with these bytes, and remembers what it got.
async fn stage(reply: &'static [u8]) -> (Running, Seen) {
    let bus = Bus::embedded();
    let seen = Seen::default();
    let mut subscription = bus.subscribe(&Pattern::new("svc.>").unwrap(), Some("q"), Limits::WORKER).await.unwrap();
    let (answers, notes) = (bus.clone(), seen.clone());
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = subscription.next().await {
            let subject = delivery.reply.clone().unwrap();
            notes.lock().unwrap().push(delivery);
            let message = Message { subject, reply: None, headers: Headers::new(), payload: reply.into() };
            answers.publish(message).await.unwrap();
        }
    });
    let (running, _) =
        gateway(project().build(None).unwrap(), &bus, |config| config.trusted = Networks::default()).await;
    (running, seen)
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: serde_json::Value,
}

async fn call(running: &Running, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let verb = reqwest::Method::from_bytes(verb.as_bytes()).unwrap();
    let mut request = reqwest::Client::new().request(verb, url(running, path)).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(serde_json::Value::Null) }
}

#[tokio::test]
async fn every_refusal_has_its_own_status_and_reason_and_reaches_no_worker() {
    let (running, seen) = stage(b"").await;
    let large = format!("{{\"player_id\":\"{}\"}}", "x".repeat(1024 * 1024));
    type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str, u16, &'a str);
    let rows: Vec<Row> = vec![
        ("GET", "/nowhere", vec![], "", 404, "route_not_found"),
        ("GET", "/v1//players", vec![], "", 404, "route_not_found"),
        ("GET", "/quest/generate", vec![], "", 405, "method_not_allowed"),
        ("POST", "/quest/generate", vec![("content-type", "text/plain")], "{}", 415, "unsupported_media_type"),
        ("POST", "/quest/generate", vec![("content-encoding", "gzip")], "{}", 415, "unsupported_media_type"),
        ("POST", "/quest/generate", vec![], large.as_str(), 413, "body_too_large"),
        ("POST", "/quest/generate", vec![], "{", 400, "malformed_body"),
        ("POST", "/quest/generate", vec![], r#"{"seed": "x"}"#, 400, "malformed_body"),
        ("POST", "/quest/generate", vec![("x-timeout-ms", "0")], "{}", 400, "malformed_parameter"),
        ("POST", "/quest/generate", vec![("x-client-id", "quest-system")], "{}", 400, "malformed_parameter"),
        ("GET", "/v1/players/a%00b/state", vec![], "", 400, "malformed_parameter"),
        ("GET", "/v1/players/p1/state?meta.user_id=mallory", vec![], "", 400, "conflicting_fields"),
        ("GET", "/v1/players/p1/state?player_id=p2", vec![], "", 400, "conflicting_fields"),
        ("GET", "/v1/players/p1/state?entity_id=e1", vec![], "", 400, "conflicting_fields"),
        ("POST", "/state/get", vec![], r#"{"player_id":"a","entity_id":"b"}"#, 400, "conflicting_fields"),
        ("POST", "/quest/generate?player_id=p2", vec![], "{}", 400, "conflicting_fields"),
        (
            "PUT",
            "/v1/players/p1/state?expected_version=1",
            vec![("if-match", "\"2\"")],
            "{}",
            400,
            "conflicting_fields",
        ),
    ];
    for (verb, path, headers, body, status, reason) in rows {
        let answer = call(&running, verb, path, &headers, body).await;
        assert_eq!(answer.status, status, "{verb} {path}: {}", answer.body);
        assert_eq!(answer.body["error"]["details"]["reason"], reason, "{verb} {path}: {}", answer.body);
        assert!(answer.body["request_id"].is_string(), "{}", answer.body);
    }
    assert!(seen.lock().unwrap().is_empty());
    let wrong = call(&running, "GET", "/quest/generate", &[], "").await;
    assert_eq!(wrong.headers["allow"], "POST");
}

#[tokio::test]
async fn the_callers_context_is_written_by_the_gateway_alone() {
    let (running, seen) = stage(b"").await;
    let forged = r#"{"player_id":"p1","meta":{"user_id":"mallory","tenant_id":"t9","labels":{"role":"admin"}}}"#;
    let headers = [
        ("x-user-id", "mallory"),
        ("x-tenant-id", "t9"),
        ("x-custom-role", "admin"),
        ("x-custom-build", "42"),
        ("x-request-id", "client-7"),
        ("nats-msg-id", "forged"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let answer = call(&running, "POST", "/quest/generate", &headers, forged).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["x-request-id"], "client-7");
    let seen = seen.lock().unwrap();
    let text = String::from_utf8_lossy(&seen[0].payload).into_owned();
    for absent in ["mallory", "t9", "admin"] {
        assert!(!text.contains(absent), "`{absent}` reached the worker: {text:?}");
    }
    for present in
        ["http-gateway", "origin", "edge", "build", "42", "client_request_id", "0af7651916cd43dd8448eb211c80319c"]
    {
        assert!(text.contains(present), "`{present}` is missing: {text:?}");
    }
    assert_eq!(seen[0].headers.get("nats-msg-id"), None);
    assert!(seen[0].headers.get("traceparent").unwrap().starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
}

#[tokio::test]
async fn a_protobuf_body_cannot_bring_a_context_either() {
    let (running, seen) = stage(b"").await;
    // meta { user_id: "mallory" }, twice, around player_id.
    let meta = b"\x0a\x09\x22\x07mallory";
    let body = [meta.as_slice(), b"\x12\x02p1", meta].concat();
    let answer = reqwest::Client::new()
        .post(url(&running, "/quest/generate"))
        .header("content-type", "application/x-protobuf")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let seen = seen.lock().unwrap();
    assert!(!String::from_utf8_lossy(&seen[0].payload).contains("mallory"));
    assert!(seen[0].payload.starts_with(b"\x12\x02p1"));
}

#[tokio::test]
async fn a_reply_that_does_not_decode_is_502_and_leaks_nothing() {
    let (running, _) = stage(b"\x12\xff\xff\xff\xff\x0fsecret").await;
    let answer = call(&running, "POST", "/quest/generate", &[], "{}").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.body["error"]["details"]["reason"], "malformed_reply");
    assert!(!answer.body.to_string().contains("secret"), "{}", answer.body);
}

#[tokio::test]
async fn a_workers_error_has_its_codes_status_and_keeps_its_details() {
    // new_version: 1, error { code: FAILED_PRECONDITION, message: "no", details { current_version: "1" } }
    let (running, _) = stage(b"\x18\x01\x22\x1e\x08\x07\x12\x02no\x1a\x16\x0a\x0fcurrent_version\x12\x031.0").await;
    let answer = call(&running, "PUT", "/v1/players/p1/state", &[("if-match", "\"9\"")], r#"{"state":{}}"#).await;
    assert_eq!(answer.status, 412, "{}", answer.body);
    assert_eq!(answer.body["error"]["code"], "FAILED_PRECONDITION");
    assert_eq!(answer.body["error"]["details"]["new_version"], "1");
    assert_eq!(answer.body["error"]["details"]["current_version"], "1.0");
}

#[tokio::test]
async fn a_version_becomes_an_entity_tag() {
    let (running, seen) = stage(b"\x10\x01\x18\x05").await;
    let answer = call(&running, "PUT", "/v1/players/p1/state", &[("if-match", "\"4\"")], r#"{"state":{"a":1}}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["etag"], "\"5\"");
    // expected_version 4 (number 6), and the preset op = UPSERT (number 4).
    let payload = seen.lock().unwrap()[0].payload.clone();
    assert!(payload.windows(2).any(|w| w == b"\x30\x04") && payload.windows(2).any(|w| w == b"\x20\x01"));
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    let bus = Bus::embedded();
    let mut material = project();
    material.routes.push_str("  quest.v1.QuestService/GenerateQuest:\n    rate: { requests: 1, per: 60s, burst: 2 }\n");
    let (running, _) = gateway(material.build(None).unwrap(), &bus, |_| {}).await;
    let statuses: Vec<u16> = {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(call(&running, "POST", "/quest/generate", &[], "{}").await.status);
        }
        all
    };
    assert_eq!(statuses, [503, 503, 429]);
    let refused = call(&running, "POST", "/quest/generate", &[], "{}").await;
    let seconds: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((50..=60).contains(&seconds), "{seconds}");
    assert_eq!(refused.headers["ratelimit"], format!("\"default\";r=0;t={seconds}"));
    assert_eq!(refused.headers["ratelimit-policy"], "\"default\";q=2");
    assert_eq!(refused.body["error"]["details"]["reason"], "rate_limited");
}

#[tokio::test]
async fn nobody_there_no_answer_and_too_many_calls_are_told_apart() {
    let bus = Bus::embedded();
    let mut material = project();
    material.routes.push_str("  quest.v1.QuestService/GenerateQuest:\n    calls: 1\n");
    let (running, _) = gateway(material.build(None).unwrap(), &bus, |_| {}).await;
    let alone = call(&running, "POST", "/quest/generate", &[], "{}").await;
    assert_eq!((alone.status, &alone.headers["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(alone.body["error"]["code"], "UNAVAILABLE");
    assert_eq!(alone.body["error"]["details"]["reason"], "no_responders");
    // A worker that takes requests and never answers.
    let mut taken = bus.subscribe(&Pattern::new("svc.>").unwrap(), Some("q"), Limits::WORKER).await.unwrap();
    let address = url(&running, "/quest/generate");
    let silent = tokio::spawn(reqwest::Client::new().post(address).header("x-timeout-ms", "700").body("{}").send());
    let request = taken.next().await.unwrap().unwrap();
    let left: u64 = request.headers.get("Tidegate-Timeout").unwrap().parse().unwrap();
    assert!((1..=700).contains(&left), "{left}");
    assert_eq!(request.headers.get("message-type"), Some("quest.v1.QuestGenerationRequest"));
    let full = call(&running, "POST", "/quest/generate", &[], "{}").await;
    assert_eq!((full.status, &full.headers["retry-after"]), (429, &"1".parse().unwrap()));
    assert_eq!(full.body["error"]["details"]["reason"], "too_many_calls");
    let late = silent.await.unwrap().unwrap();
    assert_eq!(late.status(), 504);
    let late: serde_json::Value = serde_json::from_str(&late.text().await.unwrap()).unwrap();
    assert_eq!(late["error"]["code"], "DEADLINE_EXCEEDED");
    assert_eq!(late["error"]["details"]["reason"], "upstream_timeout");
    // The slot is free again.
    let next = call(&running, "POST", "/quest/generate", &[("x-timeout-ms", "20")], "{}").await;
    assert_eq!(next.status, 504);
}

#[tokio::test]
async fn the_three_styles_say_the_same_refusal() {
    for (style, content_type, wanted) in [
        (
            "problem",
            "application/problem+json",
            r#"{"type":"urn:tidegate:problem:route-not-found","title":"Not Found","status":404,"detail":"no route has this path","code":"NOT_FOUND","reason":"route_not_found","request_id":"ID"}"#,
        ),
        (
            "google",
            "application/json",
            r#"{"error":{"code":404,"message":"no route has this path","status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"ROUTE_NOT_FOUND","domain":"tidegate","metadata":{}},{"@type":"type.googleapis.com/google.rpc.RequestInfo","requestId":"ID"}]}}"#,
        ),
        (
            "legacy",
            "application/json",
            r#"{"error":{"code":"NOT_FOUND","message":"no route has this path","details":{"reason":"route_not_found"}},"request_id":"ID"}"#,
        ),
    ] {
        let mut material = project();
        material.routes = material.routes.replacen("errors: legacy", &format!("errors: {style}"), 1);
        let (running, _) = gateway(material.build(None).unwrap(), &Bus::embedded(), |_| {}).await;
        let answer = reqwest::get(url(&running, "/nowhere")).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (404, &content_type.parse().unwrap())
        );
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answer.text().await.unwrap().replace(&id, "ID"), wanted);
    }
}
