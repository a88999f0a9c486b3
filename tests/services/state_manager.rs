//! What the documented examples do not show of state-manager: writes that come late, states that are large, who may write,
//! and what events say.

use crate::support;

use serde_json::{Value, json};
use support::PATIENCE;
use support::place::on_each_bus;
use support::replicas::Replicas;

const UPDATE: &str = "svc.state.manager.v1.update";
const GET: &str = "svc.state.manager.v1.get";

on_each_bus!(
    |place| (Replicas::at(place, &[]).await);
    a_write_that_is_older_than_the_deletion_comes_too_late,
    the_event_of_a_large_state_leaves_it_out,
    the_event_of_a_deletion_goes_before_others,
);

/// A write of a player's state, made at a time of the day on which the clock stands.
fn write(op: &str, at: &str, state: &Value) -> Value {
    json!({ "player": { "player_id": "p1", "state": state }, "op": op, "event_time": format!("2025-10-09T{at}Z") })
}

async fn a_write_that_is_older_than_the_deletion_comes_too_late(game: Replicas) {
    assert_eq!(game.ask(UPDATE, write("UPSERT", "08:00:00", &json!({ "hp": 3 }))).await["new_version"], "1");
    assert_eq!(game.ask(UPDATE, write("DELETE", "08:30:00", &json!({}))).await["new_version"], "2");
    let late = game.ask(UPDATE, write("UPSERT", "08:10:00", &json!({ "hp": 2 }))).await;
    let details = json!({ "reason": "stale_event_time", "current_version": "2" });
    assert_eq!((&late["error"]["code"], &late["error"]["details"]), (&json!("FAILED_PRECONDITION"), &details));
    assert_eq!(late["new_version"], "2");
    assert_eq!(game.ask(GET, json!({ "player_id": "p1" })).await["error"]["code"], "NOT_FOUND");
    let later = game.ask(UPDATE, write("UPSERT", "08:30:00", &json!({ "hp": 9 }))).await;
    assert_eq!(later, json!({ "ok": true, "new_version": "3" }));
    assert_eq!(game.ask(GET, json!({ "player_id": "p1" })).await["state"], json!({ "hp": 9 }));
}

/// Encoded, each number takes eleven bytes.
async fn the_event_of_a_large_state_leaves_it_out(game: Replicas) {
    let state = json!({ "n": vec![1; 55_000] });
    let request = json!({ "entity": { "entity_id": "door", "state": state }, "op": "UPSERT" });
    assert_eq!(game.ask(UPDATE, request).await, json!({ "ok": true, "new_version": "1" }));
    assert!(game.ask(GET, json!({ "entity_id": "door" })).await["state"] == state, "another state is read");
    let told = game.events("GAME_EVENTS", "evt.state.entity.updated.v1", 1).await;
    let metadata = [("op", "UPSERT"), ("truncated", "true"), ("version", "1")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(told, [("entity:door:1".to_owned(), metadata)]);
}

async fn the_event_of_a_deletion_goes_before_others(game: Replicas) {
    for op in ["UPSERT", "DELETE"] {
        game.ask(UPDATE, write(op, "08:00:00", &json!({}))).await;
    }
    let mut log = game.store.read_log("GAME_EVENTS", "evt.state.player.updated.v1", 0).await.unwrap();
    for priority in ["5", "7"] {
        let event = tokio::time::timeout(PATIENCE, log.next()).await.expect("an event in time").unwrap();
        assert_eq!(event.headers.get("Event-Priority"), Some(priority));
    }
}

#[tokio::test]
async fn who_may_not_write_is_told_that_and_nothing_else() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let request = json!({ "player": { "player_id": "p1" } });
    let told = game.ask_from_edge(UPDATE, "p2", "player", request.clone()).await;
    assert_eq!(told["error"]["code"], "PERMISSION_DENIED", "{told}");
    let own = game.ask_from_edge(UPDATE, "p1", "player", request).await;
    assert_eq!(own["error"]["details"], json!({ "field": "op", "reason": "required" }));
}

#[tokio::test]
async fn how_far_ahead_an_event_may_lie_is_told() {
    let game = Replicas::embedded(&[]).await;
    assert_eq!(game.ask(UPDATE, write("UPSERT", "08:58:20", &json!({}))).await["ok"], true);
    let told = game.ask(UPDATE, write("UPSERT", "08:58:21", &json!({}))).await;
    let (min, max) = ("0001-01-01T00:00:00Z", "2025-10-09T08:58:20Z");
    let details = json!({ "field": "event_time", "reason": "out_of_range", "min": min, "max": max });
    assert_eq!((&told["error"]["code"], &told["error"]["details"]), (&json!("OUT_OF_RANGE"), &details));
}
