//! What the documented examples do not show of npc-behavior: memories that fill a record, and watches that begin where the
//! log has nothing any more.

use crate::support;

use serde_json::{Value, json};
use support::PATIENCE;
use support::place::on_each_bus;
use support::replicas::Replicas;

on_each_bus!(
    |place| (Replicas::at(place, &[]).await);
    old_memories_make_room_for_new_ones,
    a_watch_behind_what_the_log_has_starts_over,
);

async fn old_memories_make_room_for_new_ones(game: Replicas) {
    const LONG: usize = 16 * 1024;
    for number in 0..70 {
        let summary = format!("{number:0>LONG$}");
        let request = json!({ "npc_id": "n1", "other_id": "p1", "importance": 1.0, "summary": summary });
        assert_eq!(game.ask("svc.npc.behavior.v1.remember", request).await, json!({ "remembered": true }), "{number}");
    }
    let [record] = &game.held("tg_npc").await[..] else { panic!("one record") };
    let record: Value = serde_json::from_str(record).unwrap();
    let memories = record["value"]["memories"].as_array().unwrap();
    let newest = memories.last().unwrap()["summary"].as_str().unwrap();
    assert!((40..70).contains(&memories.len()) && newest.ends_with("069"), "{}", memories.len());
}

async fn a_watch_behind_what_the_log_has_starts_over(game: Replicas) {
    let plan = async |enemy: &str| {
        let enemy = json!({ "id": enemy, "distance": 3 });
        let request = json!({ "npc_id": "n1", "situation": { "enemies": [enemy] } });
        game.ask("svc.npc.behavior.v1.plan", request).await["plan_id"].take()
    };
    let (first, second) = (plan("e1").await, plan("e2").await);
    game.events("GAME_EVENTS", "evt.npc.behavior.planned.v1", 2).await;
    let watch = async |after: &Value| {
        let request = json!({ "npc_id": "n1", "after_revision": after });
        let mut watch = game.watch("svc.npc.behavior.v1.watch", json!({}), request).await;
        tokio::time::timeout(PATIENCE, watch.whole()).await.expect("an item in time")
    };
    let reset = |item: &Value| item["meta"]["labels"]["reset"].clone();
    let anew = watch(&json!("987654")).await;
    assert_eq!((&anew["plan"]["plan_id"], reset(&anew)), (&first, json!("true")));
    let behind = watch(&anew["revision"]).await;
    assert_eq!((&behind["plan"]["plan_id"], reset(&behind)), (&second, json!(null)));
}
