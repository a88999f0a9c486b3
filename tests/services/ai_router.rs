//! What the documented examples do not show of ai-router: where instances are that name no subject, and a watch of health.

use crate::support;

use serde_json::{Value, json};
use support::eventually;
use support::replicas::Replicas;

const ROUTE: &str = "svc.ai.router.v1.route";

async fn game() -> Replicas {
    Replicas::embedded(&[("common.register", json!(false))]).await
}

/// Registers an instance for a kind of request that names no subject; gives back its id.
async fn register(game: &Replicas, service: &str, kind: &str, endpoint: &str) -> Value {
    let capabilities = json!([{ "capability_id": "c", "capability_type": kind }]);
    let request = json!({ "service_id": service, "capabilities": capabilities, "endpoint": endpoint });
    let reply = game.ask("svc.capability.v1.register", request).await;
    assert_eq!(reply["success"], true, "{reply}");
    reply["registration_id"].clone()
}

#[tokio::test]
async fn an_instance_without_a_subject_is_asked_at_its_literal_endpoint() {
    let game = game().await;
    register(&game, "drawer@1", "drawing", "svc.drawer.v1.draw").await;
    register(&game, "painter@1", "painting", "svc.painter.v1.>").await;
    register(&game, "sculptor@1", "sculpting", "https://sculptor.example/v1").await;
    register(&game, "quest-system@1", "quests", "svc.elsewhere.v1.make").await;

    let route = async |kind: &str| game.ask(ROUTE, json!({ "request_type": kind })).await;
    for (kind, subject) in [
        ("drawing", "svc.drawer.v1.draw"),
        // What is known of a service goes before its endpoint.
        ("quests", "svc.quest.v1.generate"),
    ] {
        eventually("it is routed", async || route(kind).await["target_subject"] == subject).await;
    }
    for kind in ["painting", "sculpting"] {
        eventually("it is refused", async || route(kind).await["error"]["code"] == "UNAVAILABLE").await;
    }
}

#[tokio::test]
async fn maps_of_a_request_have_at_most_64_entries() {
    let game = game().await;
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    for field in ["requirements", "preferences"] {
        let refused = game.ask(ROUTE, json!({ "request_type": "state", (field): many })).await;
        assert_eq!(refused["error"]["details"], json!({ "field": field, "reason": "too_many" }));
    }
}

#[tokio::test]
async fn a_watch_of_health_tells_that_an_instance_is_gone_and_that_it_cannot_be_resumed() {
    let game = game().await;
    let id = register(&game, "drawer@1", "drawing", "").await;
    let mut watch = game.watch("svc.ai.router.v1.watch_health", json!({}), json!({ "after_revision": "7" })).await;
    let first = watch.whole().await;
    assert_eq!(first["meta"]["labels"]["reset"], "true", "{first}");
    assert_eq!((&first["service"]["service_id"], &first["service"]["is_healthy"]), (&json!("drawer@1"), &json!(true)));
    game.ask("svc.capability.v1.deregister", json!({ "registration_id": id })).await;
    assert_eq!(watch.next().await["service"], json!({ "service_id": "drawer@1" }));
}
