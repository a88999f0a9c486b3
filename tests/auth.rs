//! Who calls: bearer tokens through a real gateway, checked by the game's auth service; what a worker is told of the
//! caller, what a client cannot make it believe, and what a bad, revoked or unchecked token gets.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use support::{PATIENCE, eventually, gateway, project, url};
use tidegate::bus::{Bus, Delivery, Headers, Limits, Message, Pattern, Request, Subject, Subscription};
use tidegate::envelope::Caller;
use tidegate::gateway::Running;
use tidegate::schema::SourceFile;
use tidegate::services::{Settings, roster};
use tidegate::snapshot::{Material, Snapshot};
use tidegate::transcode::table::Kind;
use tidegate::transcode::wire::{put_bytes, scalar_text};
use tidegate::worker::{Options, Worker};

const VALIDATE: &str = "svc.auth.v1.validate_session";
const QUEST: &str = "svc.quest.v1.generate";
/// How long a valid token is believed where nobody tells of its end.
const BELIEVED: Duration = Duration::from_secs(4);

/// A schema of another house, whose messages have no room for a caller.
const PLAIN: &str = r#"syntax = "proto3";
package plain.v1;
message Ask { string id = 1; }
service Plain { rpc Get(Ask) returns (Ask); }
"#;

/// A gateway and the auth service, and workers by hand for everything else.
struct Stage {
    bus: Bus,
    running: Running,
    snapshot: Arc<Snapshot>,
    client: reqwest::Client,
    _worker: Option<Worker>,
}

impl Stage {
    /// On the project's tables as `change` leaves them.
    async fn new(change: impl FnOnce(&mut Material)) -> Stage {
        let mut stage = Stage::without_auth(change).await;
        let options = Options::new(stage.bus.clone(), stage.snapshot.clone());
        let settings = Settings::with([("common.register", &json!(false))]).unwrap().into();
        let services = roster(&options.store, &settings, |name| name == "auth").await.unwrap();
        stage._worker = Some(Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}")));
        stage
    }

    async fn without_auth(change: impl FnOnce(&mut Material)) -> Stage {
        let bus = Bus::embedded();
        let mut material = project();
        change(&mut material);
        let built = material.build(None).unwrap_or_else(|problems| panic!("{problems:?}"));
        let (running, live) = gateway(built, &bus, |_| {}).await;
        Stage { bus, running, snapshot: live.pin(), client: reqwest::Client::new(), _worker: None }
    }

    /// A token, as the login system gets it: it is a service, so that the session may have rights.
    async fn token(&self, user: &str, data: &[(&str, &str)]) -> String {
        let mut payload = Vec::new();
        put_bytes(2, user.as_bytes(), &mut payload);
        for (key, value) in data {
            let mut entry = Vec::new();
            put_bytes(1, key.as_bytes(), &mut entry);
            put_bytes(2, value.as_bytes(), &mut entry);
            put_bytes(3, &entry, &mut payload);
        }
        let subject = Subject::new("svc.auth.v1.create_session").unwrap();
        let headers = Headers::new();
        let request = Request { subject, headers, payload: payload.into(), timeout: PATIENCE, proof: None };
        let reply = self.bus.request(request).await.unwrap().payload;
        scalar_text(&reply, 2, Kind::String).unwrap_or_else(|| panic!("no token: {reply:?}"))
    }

    async fn revoke(&self, token: &str) {
        let body = json!({ "session_token": token }).to_string();
        let answer = self.client.post(url(&self.running, "/v1/sessions:revoke")).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    async fn listen(&self, pattern: &str) -> Subscription {
        self.bus.subscribe(&Pattern::new(pattern).unwrap(), None, Limits::WORKER).await.unwrap()
    }

    /// Asks for a quest with these headers. Gives the status, the challenge, and the error's code and reason.
    async fn quest(&self, headers: &[(&str, &str)]) -> (u16, String, Value) {
        let mut request = self.client.post(url(&self.running, "/quest/generate")).body("{}");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let error = &body["error"];
        (status, challenge.unwrap_or_default(), json!([error["code"], error["details"]["reason"]]))
    }

    /// The same, with a worker that answers; gives who calls, as the worker reads it.
    async fn caller(&self, headers: &[(&str, &str)]) -> Caller {
        let mut requests = self.listen(QUEST).await;
        let (answer, seen) = tokio::join!(self.quest(headers), self.answer(&mut requests));
        assert_eq!(answer.0, 200, "{answer:?}");
        let method = self.snapshot.method_on(QUEST).unwrap();
        Caller::read(&method.envelope, &method.tables, &seen.payload)
    }

    /// Answers the next request with nothing; gives the request.
    async fn answer(&self, requests: &mut Subscription) -> Delivery {
        let seen = tokio::time::timeout(PATIENCE, requests.next()).await.expect("a request").unwrap().unwrap();
        let subject = seen.reply.clone().unwrap();
        let message = Message { subject, reply: None, headers: Headers::new(), payload: Default::default() };
        self.bus.publish(message).await.unwrap();
        seen
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What a worker is told of a caller: user, tenant, role.
fn told(caller: &Caller) -> [&str; 3] {
    [caller.text("user_id"), caller.text("tenant_id"), caller.label("role").unwrap_or_default()]
}

#[tokio::test]
async fn a_worker_is_told_whose_the_token_is_and_nothing_that_the_client_says_itself() {
    let stage = Stage::new(|_| {}).await;
    let user = bearer(&stage.token("u1", &[]).await);
    let admin = bearer(&stage.token("boss", &[("role", "admin"), ("tenant_id", "north")]).await);
    let spoofed = [("x-user-id", "mallory"), ("x-tenant-id", "t9"), ("x-custom-role", "admin")];
    for (token, expected) in
        [(None, ["", "", ""]), (Some(&user), ["u1", "", ""]), (Some(&admin), ["boss", "north", "admin"])]
    {
        let mut headers = spoofed.to_vec();
        headers.extend(token.map(|token| ("authorization", token.as_str())));
        let caller = stage.caller(&headers).await;
        assert_eq!(told(&caller), expected);
        assert_eq!(caller.label("origin"), Some("edge"));
    }
}

#[tokio::test]
async fn a_credential_that_is_not_valid_is_401_and_reaches_no_worker() {
    let stage = Stage::new(|_| {}).await;
    let mut requests = stage.listen("svc.quest.>").await;
    let refused = (401, "Bearer error=\"invalid_token\"".to_owned(), json!(["UNAUTHENTICATED", "credential_invalid"]));
    for value in ["Bearer tgs_unheard_of", "Bearer", "Bearer a b", "Basic dTE6cHc="] {
        assert_eq!(stage.quest(&[("authorization", value)]).await, refused, "{value}");
    }
    let token = bearer(&stage.token("u1", &[]).await);
    assert_eq!(stage.quest(&[("authorization", &token), ("authorization", &token)]).await, refused);
    stage.caller(&[]).await;
    requests.next().await.unwrap().unwrap();
    let more = tokio::time::timeout(Duration::from_millis(1), requests.next()).await;
    assert!(more.is_err(), "a refused request reached the worker");
}

#[tokio::test]
async fn where_a_credential_is_required_a_request_without_one_is_401() {
    let stage = Stage::new(|tables| {
        tables.routes.push_str("  quest.v1.QuestService/GenerateQuest: { auth: required }\n");
    })
    .await;
    let missing = (401, "Bearer".to_owned(), json!(["UNAUTHENTICATED", "credential_missing"]));
    assert_eq!(stage.quest(&[]).await, missing);
    assert_eq!(stage.quest(&[("x-user-id", "u1")]).await, missing);
    let token = bearer(&stage.token("u1", &[]).await);
    assert_eq!(told(&stage.caller(&[("authorization", &token)]).await), ["u1", "", ""]);
}

#[tokio::test]
async fn where_no_credential_is_asked_for_none_is_looked_at() {
    let stage = Stage::without_auth(|tables| {
        tables.routes.push_str("  quest.v1.QuestService/GenerateQuest: { auth: none }\n");
    })
    .await;
    assert_eq!(told(&stage.caller(&[("authorization", "Bearer tgs_unheard_of")]).await), ["", "", ""]);
}

#[tokio::test]
async fn messages_without_a_context_are_told_by_headers() {
    let stage = Stage::new(|tables| {
        tables.descriptors.push(SourceFile { name: "plain.proto".to_owned(), bytes: PLAIN.as_bytes().to_vec() });
        tables.routes.push_str("routes: [ { route: 'GET /plain/{id}', call: plain.v1.Plain/Get } ]\n");
    })
    .await;
    let token = stage.token("boss", &[("role", "admin"), ("tenant_id", "north")]).await;
    let subject = stage.snapshot.method("plain.v1.Plain/Get").unwrap().subject.as_str().to_owned();
    let mut requests = stage.listen(&subject).await;
    let call = stage.client.get(url(&stage.running, "/plain/1"));
    let call = call.bearer_auth(token).header("Tidegate-User", "mallory").header("Tidegate-Roles", "root");
    let (answer, seen) = tokio::join!(call.send(), stage.answer(&mut requests));
    assert_eq!(answer.unwrap().status(), 200);
    let headers: BTreeMap<&str, &str> = seen.headers.iter().collect();
    let names = ["Tidegate-User", "Tidegate-Tenant", "Tidegate-Roles"];
    assert_eq!(names.map(|name| headers[name]), ["boss", "north", "admin"]);
    assert!(headers.values().all(|value| !value.contains("tgs_")), "{headers:?}");
}

#[tokio::test]
async fn a_token_is_checked_once_in_a_while_as_the_gateways_own_call() {
    let stage = Stage::new(|_| {}).await;
    let token = bearer(&stage.token("u1", &[]).await);
    let mut checks = stage.listen(VALIDATE).await;
    for _ in 0..3 {
        stage.caller(&[("authorization", &token)]).await;
    }
    let method = stage.snapshot.method_on(VALIDATE).unwrap();
    let check = checks.next().await.unwrap().unwrap();
    // Nobody has called yet: what the auth service sees is a service, not the edge.
    assert_eq!(Caller::read(&method.envelope, &method.tables, &check.payload), Caller::default());
    let more = tokio::time::timeout(Duration::from_millis(1), checks.next()).await;
    assert!(more.is_err(), "a token was checked at each request");
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once() {
    let stage = Stage::new(|_| {}).await;
    let mut watches = stage.listen("svc.auth.v1.watch_revocations").await;
    let token = stage.token("u1", &[]).await;
    let header = bearer(&token);
    let believed = Instant::now();
    stage.caller(&[("authorization", &header)]).await;
    stage.revoke(&token).await;
    // The gateway asks for revocations on its own account, once it believes a token.
    let watch = tokio::time::timeout(PATIENCE, watches.next()).await.expect("a watch").unwrap().unwrap();
    let method = stage.snapshot.method_on("svc.auth.v1.watch_revocations").unwrap();
    assert_eq!(Caller::read(&method.envelope, &method.tables, &watch.payload), Caller::default());
    eventually("the token is refused", async || stage.quest(&[("authorization", &header)]).await.0 == 401).await;
    assert!(believed.elapsed() < BELIEVED, "{:?}", believed.elapsed());
}

#[tokio::test]
async fn a_revoked_token_is_refused_once_it_is_not_believed_any_more_where_nobody_tells_of_it() {
    let stage = Stage::new(|tables| {
        let declared = "  revocations:";
        assert!(tables.routes.contains(declared));
        let start = tables.routes.find(declared).unwrap();
        let end = start + tables.routes[start..].find("\n\n").unwrap();
        tables.routes.replace_range(start..end, "");
    })
    .await;
    let token = stage.token("u1", &[]).await;
    let header = bearer(&token);
    stage.caller(&[("authorization", &header)]).await;
    stage.revoke(&token).await;
    eventually("the token is refused", async || stage.quest(&[("authorization", &header)]).await.0 == 401).await;
}

#[tokio::test]
async fn without_the_auth_service_tokens_are_503_and_anonymous_callers_are_served() {
    let stage = Stage::without_auth(|_| {}).await;
    let answer = stage.quest(&[("authorization", "Bearer tgs_some")]).await;
    assert_eq!(answer, (503, String::new(), json!(["UNAVAILABLE", "no_responders"])));
    assert_eq!(told(&stage.caller(&[]).await), ["", "", ""]);
}

/// Opens a stream of revocations with a token, behind one that is there already.
async fn revocations(
    stage: &Stage,
    token: &str,
) -> (String, impl Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin) {
    let gone = stage.token("gone", &[]).await;
    stage.revoke(&gone).await;
    let call = stage.client.get(url(&stage.running, "/v1/sessions:watchRevocations")).bearer_auth(token);
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = Box::pin(answer.bytes_stream());
    let first = body.next().await.unwrap().unwrap();
    (String::from_utf8(first.to_vec()).unwrap(), body)
}

/// What comes until a stream's end.
async fn rest(mut body: impl Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin) -> String {
    let mut text = String::new();
    let all = async {
        while let Some(piece) = body.next().await {
            text.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the stream ends");
    text
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams_and_no_others() {
    let stage = Stage::new(|_| {}).await;
    let [mine, other] = [stage.token("u1", &[]).await, stage.token("u2", &[]).await];
    let (_, mut others) = revocations(&stage, &other).await;
    let (_, body) = revocations(&stage, &mine).await;
    stage.revoke(&mine).await;
    let text = rest(body).await;
    assert!(text.ends_with("event: end\ndata: {\"reason\":\"revoked\"}\n\n"), "{text}");
    let told = others.next().await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&told).contains("event: end"), "{told:?}");
}

#[tokio::test]
async fn an_expired_token_ends_its_streams() {
    let stage = Stage::new(|_| {}).await;
    let body = json!({ "ttl_seconds": 1 }).to_string();
    let made = stage.client.post(url(&stage.running, "/v1/users/u1/sessions")).body(body).send().await.unwrap();
    let made: Value = serde_json::from_str(&made.text().await.unwrap()).unwrap();
    let (_, body) = revocations(&stage, made["session_token"].as_str().unwrap()).await;
    let text = rest(body).await;
    assert!(text.ends_with("event: end\ndata: {\"reason\":\"revoked\"}\n\n"), "{text}");
}
