//! What the documented examples do not show of performance-mode: requests that say nothing, budgets and their steps.

use std::time::Duration;

use serde_json::json;

use crate::support::replicas::Replicas;

#[tokio::test]
async fn a_mode_or_a_budget_that_is_not_named_is_required() {
    let game = Replicas::embedded(&[]).await;
    for (subject, request, field) in [
        ("svc.perf.v1.adjust_mode", json!({ "player_id": "p1" }), "mode"),
        ("svc.perf.v1.set_budget", json!({ "budget_value": 50 }), "budget_type"),
    ] {
        let reply = game.ask(subject, request).await;
        assert_eq!(reply["error"]["details"], json!({ "field": field, "reason": "required" }), "{reply}");
    }
}

#[tokio::test]
async fn whose_budget_it_is_not_is_told_nothing_else() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let reason_of = async |user: &str| {
        let request = json!({ "budget_type": "cpu", "budget_value": 0, "player_id": "p1" });
        let reply = game.ask_from_edge("svc.perf.v1.set_budget", user, "", request).await;
        reply["error"]["details"]["reason"].clone()
    };
    assert_eq!(reason_of("p1").await, "not_positive");
    assert_eq!(reason_of("p2").await, "not_owner");
}

#[tokio::test]
async fn a_strict_budget_of_memory_holds_on_average() {
    let game = Replicas::embedded(&[]).await;
    let strict = json!({ "budget_type": "memory", "budget_value": 8_192, "strict_enforcement": true });
    assert_eq!(game.ask("svc.perf.v1.set_budget", strict).await["success"], true);
    let mode = async |memory_mb: i64| {
        let sample = json!({ "avg_fps": 90.0, "memory_mb": memory_mb.to_string() });
        let report = json!({ "player_id": "p1", "frames": 60, "sample": sample });
        game.ask("svc.perf.v1.report_metrics", report).await["applied_settings"]["mode"].clone()
    };
    assert_eq!(mode(7_000).await, "medium");
    game.pass(Duration::from_secs(1));
    assert_eq!(mode(9_000).await, "medium", "8000 on average");
    game.pass(Duration::from_secs(1));
    assert_eq!(mode(9_000).await, "low", "8333 on average");
}

#[tokio::test]
async fn a_strict_budget_takes_one_step_in_ten_seconds_whoever_takes_it() {
    let game = Replicas::embedded(&[]).await;
    let strict = json!({ "budget_type": "cpu", "budget_value": 10, "strict_enforcement": true });
    assert_eq!(game.ask("svc.perf.v1.set_budget", strict).await["success"], true);
    let adjust = async |npcs: i32| {
        let custom = json!({ "max_active_npcs": npcs });
        let request = json!({ "player_id": "p1", "mode": "ultra", "custom_settings": custom });
        game.ask("svc.perf.v1.adjust_mode", request).await["applied_settings"]["mode"].clone()
    };
    let report = async || {
        let sample = json!({ "avg_fps": 90.0, "cpu_usage": 0.5 });
        let request = json!({ "player_id": "p1", "frames": 60, "sample": sample });
        game.ask("svc.perf.v1.report_metrics", request).await["applied_settings"]["mode"].clone()
    };
    assert_eq!(adjust(40).await, "ultra");
    game.pass(Duration::from_secs(2));
    assert_eq!(report().await, "ultra", "its ten seconds are not over");
    game.pass(Duration::from_secs(1));
    assert_eq!(adjust(50).await, "high", "the budget limits it");
    game.pass(Duration::from_secs(8));
    assert_eq!(report().await, "high", "eight seconds behind the last step");
    game.pass(Duration::from_secs(2));
    assert_eq!(report().await, "medium");
}
