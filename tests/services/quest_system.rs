//! What the documented examples do not show of quest-system: keys of repeats, which fault comes first, and when a quest has
//! begun.

use crate::support;

use serde_json::{Value, json};
use support::replicas::Replicas;

const GENERATE: &str = "svc.quest.v1.generate";

fn quest(seed: u64) -> Value {
    json!({ "player_id": "p1", "seed": seed.to_string() })
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_request() {
    let game = Replicas::embedded(&[]).await;
    let first = game.ask_with_key(GENERATE, "k-1", quest(42)).await;
    assert_eq!(first["quest"]["quest_id"], "qst_ebd72078c3abbb3f", "{first}");
    assert_eq!(game.ask_with_key(GENERATE, "k-1", quest(42)).await, first);
    let other = game.ask_with_key(GENERATE, "k-1", quest(43)).await;
    let details = json!({ "reason": "key_reused" });
    assert_eq!((&other["error"]["code"], &other["error"]["details"]), (&json!("CONFLICT"), &details));
    let listed = game.ask("svc.quest.v1.list", json!({ "player_id": "p1" })).await;
    assert_eq!(listed["quests"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[tokio::test]
async fn the_first_fault_in_the_order_of_fields_is_told() {
    let game = Replicas::embedded(&[]).await;
    let deep = (0..16).fold(json!({}), |inside, _| json!({ "in": inside }));
    for (context, difficulty, quest_type, field, reason) in [
        (json!({ "quest_type": "epic" }), "NIGHTMARE", "", "context.quest_type", "unknown_value"),
        (json!({ "quest_type": 7 }), "", "main", "context.quest_type", "bad_format"),
        (json!({ "quest_type": "main" }), "NIGHTMARE", "epic", "difficulty", "unknown_value"),
        (json!({ "quest_type": "main" }), "HARD", "epic", "quest_type", "unknown_value"),
        (deep, "NIGHTMARE", "", "context", "too_long"),
    ] {
        let request =
            json!({ "player_id": "p1", "context": context, "difficulty": difficulty, "quest_type": quest_type });
        let details = &game.ask(GENERATE, request.clone()).await["error"]["details"];
        assert_eq!((&details["field"], &details["reason"]), (&json!(field), &json!(reason)), "{request}");
    }
}

#[tokio::test]
async fn a_quest_begins_with_its_first_progress() {
    let game = Replicas::embedded(&[]).await;
    let made = game.ask(GENERATE, quest(42)).await;
    for (delta, progress, status) in
        [(0, "0", "active"), (-3, "0", "active"), (1, "1", "in_progress"), (-1, "0", "in_progress")]
    {
        let request = json!({
            "player_id": "p1", "quest_id": made["quest"]["quest_id"], "objective_id": "obj1", "delta": delta,
        });
        let after = game.ask("svc.quest.v1.progress", request).await["quest"].take();
        let told = (&after["objectives"][0]["params"]["progress"], &after["tags"]["status"]);
        assert_eq!(told, (&json!(progress), &json!(status)), "{delta}");
    }
}
