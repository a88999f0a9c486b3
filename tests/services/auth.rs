//! What the documented examples do not show of auth: limits and revocations over two replicas, repeats of calls whose
//! reply is a secret, sessions pushed out, content levels, who may do what.

use crate::support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::place::on_each_bus;
use support::replicas::{NOW_MS, Replicas};
use tidegate::store::{Expected, Keys};

const CREATE: &str = "svc.auth.v1.create_session";
const VALIDATE: &str = "svc.auth.v1.validate_session";
const REVOKE: &str = "svc.auth.v1.revoke_session";
const LIST: &str = "svc.auth.v1.list_sessions";
const LIMIT: &str = "svc.auth.v1.check_rate_limit";

async fn create(game: &Replicas, user: &str) -> String {
    let made = game.ask(CREATE, json!({ "user_id": user })).await;
    made["session_token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

async fn is_valid(game: &Replicas, token: &str) -> bool {
    game.ask(VALIDATE, json!({ "session_token": token })).await["is_valid"] == true
}

fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("OK")
}

fn generation(user: &str) -> Value {
    json!({ "user_id": user, "resource": "ai_generation", "action": "infer" })
}

async fn a_limit_holds_over_replicas(game: Replicas) {
    let replies = join_all((0..30).map(|_| game.ask(LIMIT, generation("u1")))).await;
    assert_eq!(replies.iter().filter(|reply| reply["allowed"] == true).count(), 10);
    assert!(replies.iter().all(|reply| code(reply) == "OK"), "{replies:?}");
    game.pass(Duration::from_secs(6));
    assert_eq!(game.ask(LIMIT, generation("u1")).await["allowed"], true);
    assert_eq!(game.ask(LIMIT, generation("u1")).await["retry_after_ms"], "6000");
    // A whole minute later the bucket is full again.
    game.pass(Duration::from_secs(60));
    let mut five = generation("u1");
    five["cost"] = 5.into();
    assert_eq!(game.ask(LIMIT, five).await["remaining"], 5);
}

async fn a_revoked_token_is_invalid_on_every_replica_at_once(game: Replicas) {
    let token = create(&game, "u1").await;
    assert!(is_valid(&game, &token).await);
    assert_eq!(game.ask(REVOKE, json!({ "session_token": token })).await, json!({ "success": true }));
    let seen = join_all((0..16).map(|_| is_valid(&game, &token))).await;
    assert_eq!(seen, [false; 16]);
    assert_eq!(game.ask(REVOKE, json!({ "session_token": token })).await, json!({ "success": true }));
    assert_eq!(game.ask(REVOKE, json!({ "session_token": "tgs_unheard_of" })).await, json!({}));
}

on_each_bus!(
    |place| (Replicas::at(place, &[]).await);
    a_limit_holds_over_replicas,
    a_revoked_token_is_invalid_on_every_replica_at_once,
);

#[tokio::test]
async fn an_expired_session_is_known_and_never_valid() {
    let game = Replicas::embedded(&[]).await;
    let made = game.ask(CREATE, json!({ "user_id": "u1", "ttl_seconds": 60 })).await;
    let token = json!({ "session_token": made["session_token"] });
    game.pass(Duration::from_millis(59_999));
    assert_eq!(game.ask(VALIDATE, token.clone()).await["is_valid"], true);
    game.pass(Duration::from_millis(1));
    assert_eq!(game.ask(VALIDATE, token.clone()).await, json!({}));
    assert_eq!(game.ask(REVOKE, token).await, json!({ "success": true }));
}

#[tokio::test]
async fn a_repeat_gets_the_same_token_which_the_store_does_not_hold() {
    let game = Replicas::embedded(&sealed()).await;
    let request = json!({ "user_id": "u1" });
    let first = game.ask_with_key(CREATE, "login-1", request.clone()).await;
    assert_eq!(game.ask_with_key(CREATE, "login-1", request.clone()).await, first);
    let other = game.ask_with_key(CREATE, "login-1", json!({ "user_id": "u2" })).await;
    assert_eq!(other["error"]["details"]["reason"], "key_reused");
    assert_eq!(game.ask(LIST, request).await["sessions"].as_array().unwrap().len(), 1);
    let token = first["session_token"].as_str().unwrap();
    for bucket in ["tg_idem", "tg_sessions"] {
        let held = game.held(bucket).await;
        assert!(!held.is_empty());
        assert!(held.iter().all(|record| !record.contains(&token[4..])), "`{bucket}` holds a token");
    }
}

/// A secret is named, and not read from settings that come from no file: its text is empty.
fn sealed() -> [(&'static str, Value); 1] {
    [("auth.seal_key", json!("env:SEAL_KEY"))]
}

#[tokio::test]
async fn a_call_that_died_leaves_its_token_to_its_repeat() {
    let game = Replicas::embedded(&sealed()).await;
    let request = json!({ "user_id": "u1" });
    let first = game.ask_with_key(CREATE, "login-1", request.clone()).await;
    // The session is there, and what is kept of the call is what it wrote before it began.
    let kept = game.bucket("tg_idem").await;
    let record = kept.list(&Keys::All).await.unwrap().pop().unwrap();
    let mut marker: Value = serde_json::from_slice(&record.value).unwrap();
    marker["prepared"] = marker["done"]["reply"]["sealed_token"].take();
    marker["done"] = Value::Null;
    marker["expires_at_ms"] = (NOW_MS + 60_000).into();
    kept.put(&record.key, marker.to_string().into(), Expected::Any).await.unwrap();
    assert_eq!(code(&game.ask_with_key(CREATE, "login-1", request.clone()).await), "ABORTED");
    game.pass(Duration::from_secs(60));
    assert_eq!(game.ask_with_key(CREATE, "login-1", request.clone()).await, first);
    assert_eq!(game.ask(LIST, request).await["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn without_a_seal_key_a_repeat_is_another_session_and_says_so() {
    let game = Replicas::embedded(&[]).await;
    let meta = json!({ "idempotency_key": "login-1" });
    let [first, second] = [(); 2].map(|()| game.ask_as(CREATE, meta.clone(), json!({ "user_id": "u1" })));
    let (first, second) = (first.await, second.await);
    assert_eq!(first["meta"]["labels"]["idempotent"], "false");
    assert_ne!(first["session_token"], second["session_token"]);
}

#[tokio::test]
async fn the_oldest_session_goes_when_there_are_too_many() {
    let game = Replicas::embedded(&[("auth.max_sessions", json!(2))]).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(create(&game, "u1").await);
        game.pass(Duration::from_secs(1));
    }
    let valid =
        [is_valid(&game, &tokens[0]).await, is_valid(&game, &tokens[1]).await, is_valid(&game, &tokens[2]).await];
    assert_eq!(valid, [false, true, true]);
    let listed = game.ask(LIST, json!({ "user_id": "u1" })).await;
    let made: Vec<&str> =
        listed["sessions"].as_array().unwrap().iter().map(|row| row["created_at_ms"].as_str().unwrap()).collect();
    assert_eq!(made, [(NOW_MS + 1_000).to_string(), (NOW_MS + 2_000).to_string()]);
}

#[tokio::test]
async fn a_session_keeps_the_users_content_levels_and_its_tenant() {
    let game = Replicas::embedded(&[]).await;
    let level = json!({ "key": "content.horror_intensity", "value_type": "int", "value": "1" });
    let tenant = json!({ "tenant_id": "north" });
    let set = json!({ "player_id": "u1", "settings": [level], "merge": true });
    game.ask_as("svc.settings.v1.update", tenant.clone(), set).await;
    let made = game.ask_as(CREATE, tenant, json!({ "user_id": "u1", "session_data": { "tier": "free" } })).await;
    // The look-up by token names no tenant: it finds it.
    let session = game.ask(VALIDATE, json!({ "session_token": made["session_token"] })).await;
    let data = json!({ "tier": "free", "tenant_id": "north", "content.horror_intensity": "1" });
    assert_eq!(session["session_data"], data);
}

#[tokio::test]
async fn revocations_are_told_as_hashes() {
    let game = Replicas::embedded(&[]).await;
    let [gone, later] = [create(&game, "u1").await, create(&game, "u2").await];
    game.ask(REVOKE, json!({ "session_token": gone })).await;
    let revoke = async { drop(game.ask(REVOKE, json!({ "session_token": later })).await) };
    let chunks = game.chunks("svc.auth.v1.watch_revocations", json!({}), [1, 1], revoke).await;
    let told: Vec<(&str, usize)> = chunks
        .iter()
        .map(|chunk| (chunk["user_id"].as_str().unwrap(), chunk["token_hash"].as_str().unwrap().len()))
        .collect();
    assert_eq!(told, [("u1", 64), ("u2", 64)]);
    let audited = game.events("AUDIT", "audit.auth.revoked", 2).await;
    assert_eq!([&audited[0].1["user_id"], &audited[1].1["user_id"]], ["u1", "u2"]);
}

#[tokio::test]
async fn only_admins_make_sessions_and_see_those_of_others() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let [mine, other] = [create(&game, "u1").await, create(&game, "u2").await];
    let (user, token) = (json!({ "user_id": "u1" }), |token: &str| json!({ "session_token": token }));
    for (subject, request) in [(CREATE, user.clone()), (LIST, user.clone()), (REVOKE, token(&other))] {
        let reply = game.ask_from_edge(subject, "u1", "user", request).await;
        assert_eq!(code(&reply), "PERMISSION_DENIED", "{subject}");
    }
    assert!(is_valid(&game, &other).await);
    for (subject, request) in [(CREATE, user.clone()), (LIST, user), (REVOKE, token(&other))] {
        let reply = game.ask_from_edge(subject, "boss", "admin", request).await;
        assert_eq!(code(&reply), "OK", "{subject}");
    }
    assert_eq!(code(&game.ask_from_edge(REVOKE, "u1", "user", token(&mine)).await), "OK");
    assert_eq!(code(&game.ask_from_edge(LIMIT, "u1", "user", generation("u2")).await), "PERMISSION_DENIED");
}

#[tokio::test]
async fn nobody_at_the_edge_gives_themselves_rights_even_where_nothing_is_enforced() {
    let game = Replicas::embedded(&[]).await;
    for data in [json!({ "role": "admin" }), json!({ "tenant_id": "north" })] {
        let request = json!({ "user_id": "u1", "session_data": data });
        assert_eq!(code(&game.ask_from_edge(CREATE, "u1", "", request).await), "PERMISSION_DENIED");
    }
    assert_eq!(code(&game.ask_from_edge(CREATE, "u1", "", json!({ "user_id": "u1" })).await), "OK");
}
