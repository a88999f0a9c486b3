//! Watches of what services compute from their records: modes of players, and registrations that go silent, which no
//! write tells; with the events of the calls that end a registration.

use crate::support;

use std::time::Duration;

use serde_json::{Value, json};
use support::place::on_each_bus;
use support::replicas::Replicas;

on_each_bus!(
    |place| (Replicas::at(place, &[("common.register", json!(false)), ("common.sweep", json!("200ms"))]).await);
    a_mode_is_told_as_it_is_then_with_the_cause_of_each_change,
    a_registration_is_told_as_it_comes_goes_silent_speaks_again_and_goes,
    a_watch_of_one_type_of_capabilities_shows_no_others,
    a_resumed_watch_of_registrations_knows_who_was_there,
    a_registration_is_withdrawn_once,
);

async fn a_mode_is_told_as_it_is_then_with_the_cause_of_each_change(game: Replicas) {
    const WATCH: &str = "svc.perf.v1.watch";
    let told = |item: &Value| format!("{} {}", item["settings"]["mode"], item["cause"]).replace('"', "");
    let adjust = async |mode: &str| {
        let done = game.ask("svc.perf.v1.adjust_mode", json!({ "player_id": "p1", "mode": mode })).await;
        assert_eq!(done["applied_settings"]["mode"], mode, "{done}");
    };
    let mut watch = game.watch(WATCH, json!({}), json!({ "player_id": "p1" })).await;
    let default = watch.next().await;
    assert_eq!((told(&default), &default["revision"]), ("medium snapshot".into(), &json!(null)));
    adjust("high").await;
    let high = watch.next().await;
    assert_eq!(told(&high), "high request");
    game.pass(Duration::from_secs(2));
    adjust("low").await;
    assert_eq!(told(&watch.next().await), "low request");

    let behind = async |revision: &Value| {
        let request = json!({ "player_id": "p1", "after_revision": revision });
        told(&game.watch(WATCH, json!({}), request).await.next().await)
    };
    assert_eq!(behind(&high["revision"]).await, "low request", "a resumed watch goes on");
    assert_eq!(behind(&json!("0")).await, "low snapshot");
    let nobody = json!({ "player_id": "nobody", "after_revision": "987654" });
    assert_eq!(told(&game.watch(WATCH, json!({}), nobody).await.next().await), "medium snapshot");
    let refused = game.watch(WATCH, json!({}), json!({ "player_id": "a b" })).await.next().await;
    assert_eq!(refused["error"]["details"], json!({ "field": "player_id", "reason": "bad_id" }));
}

/// Registers an instance that offers one thing; gives back its id.
async fn register(game: &Replicas, service: &str, offer: &str) -> Value {
    let capabilities = json!([{ "capability_id": "c", "capability_type": offer }]);
    let request = json!({ "service_id": service, "capabilities": capabilities, "endpoint": "svc.npc.>" });
    let reply = game.ask("svc.capability.v1.register", request).await;
    assert_eq!(reply["success"], true, "{reply}");
    reply["registration_id"].clone()
}

fn change(item: &Value) -> String {
    format!("{} {} {}", item["service"]["service_id"], item["change"], item["service"]["is_online"] == true)
        .replace('"', "")
}

async fn a_registration_is_told_as_it_comes_goes_silent_speaks_again_and_goes(game: Replicas) {
    const WATCH: &str = "svc.capability.v1.watch";
    let first = register(&game, "npc@1", "npc").await;
    let mut watch = game.watch(WATCH, json!({}), json!({})).await;
    assert_eq!(change(&watch.next().await), "npc@1 snapshot true");
    let second = register(&game, "npc@2", "npc").await;
    let came = watch.next().await;
    assert_eq!(change(&came), "npc@2 registered true");
    let beat = async |id: &Value| {
        let reply = game.ask("svc.capability.v1.heartbeat", json!({ "registration_id": id })).await;
        assert_eq!(reply["success"], true, "{reply}");
    };
    game.pass(Duration::from_secs(60));
    // That it still speaks is no news.
    beat(&second).await;
    game.pass(Duration::from_secs(31));
    let silent = watch.next().await;
    assert_eq!((change(&silent), &silent["revision"]), ("npc@1 offline false".into(), &json!(null)));
    beat(&first).await;
    assert_eq!(change(&watch.next().await), "npc@1 online true");
    register(&game, "npc@2", "animal").await;
    let other = watch.next().await;
    assert_eq!(change(&other), "npc@2 registered true", "what offers something else is another registration");
    game.ask("svc.capability.v1.deregister", json!({ "registration_id": second })).await;
    assert_eq!(change(&watch.next().await).split(' ').nth(1), Some("removed"));
    game.pass(Duration::from_secs(91));
    assert_eq!(change(&watch.next().await), "npc@1 offline false");
    game.pass(Duration::from_secs(210));
    assert_eq!(change(&watch.next().await), "npc@1 removed false", "it has lapsed");

    let mut resumed = game.watch(WATCH, json!({}), json!({ "after_revision": other["revision"] })).await;
    register(&game, "npc@3", "npc").await;
    assert_eq!(change(&resumed.next().await).split(' ').next(), Some("npc@3"), "what is gone is no news");
}

async fn a_resumed_watch_of_registrations_knows_who_was_there(game: Replicas) {
    const WATCH: &str = "svc.capability.v1.watch";
    let (first, silent) = (register(&game, "npc@1", "npc").await, register(&game, "npc@2", "npc").await);
    let mut watch = game.watch(WATCH, json!({}), json!({})).await;
    let revision = |item: &Value| item["revision"].as_str().unwrap().parse::<u64>().unwrap();
    let newest = revision(&watch.next().await).max(revision(&watch.next().await));
    let mut resumed = game.watch(WATCH, json!({}), json!({ "after_revision": newest.to_string() })).await;
    let service = |item: &Value| item["service"]["service_id"].as_str().unwrap_or_default().to_owned();
    let third = register(&game, "npc@3", "npc").await;
    assert_eq!(service(&resumed.next().await), "npc@3");
    let beat = async |id: &Value| {
        game.ask("svc.capability.v1.heartbeat", json!({ "registration_id": id })).await;
    };
    beat(&first).await;
    let fourth = register(&game, "npc@4", "npc").await;
    assert_eq!(service(&resumed.next().await), "npc@4", "a heartbeat is no news");
    game.pass(Duration::from_secs(60));
    for id in [&first, &third, &fourth] {
        beat(id).await;
    }
    game.pass(Duration::from_secs(31));
    assert_eq!(change(&resumed.next().await), "npc@2 offline false");
    game.ask("svc.capability.v1.deregister", json!({ "registration_id": silent })).await;
    assert_eq!(change(&resumed.next().await), "npc@2 removed false");
}

async fn a_watch_of_one_type_of_capabilities_shows_no_others(game: Replicas) {
    for (service, offer) in [("a@1", "animal"), ("b@1", "npc")] {
        register(&game, service, offer).await;
    }
    let mut watch = game.watch("svc.capability.v1.watch", json!({}), json!({ "capability_type": "npc" })).await;
    assert_eq!(change(&watch.next().await), "b@1 snapshot true");
    register(&game, "c@1", "animal").await;
    register(&game, "d@1", "npc").await;
    assert_eq!(change(&watch.next().await), "d@1 registered true");
    register(&game, "b@1", "animal").await;
    let gone = watch.next().await;
    assert_eq!(change(&gone).rsplit_once(' ').unwrap().0, "b@1 removed", "it offers nothing of the kind any more");
    assert_eq!(gone["service"]["capabilities"][0]["capability_type"], "npc");
    register(&game, "a@1", "npc").await;
    assert_eq!(change(&watch.next().await), "a@1 registered true");
}

async fn a_registration_is_withdrawn_once(game: Replicas) {
    const DEREGISTER: &str = "svc.capability.v1.deregister";
    let id = register(&game, "npc@1", "npc").await;
    let request = json!({ "registration_id": id });
    let gone = json!({ "success": true });
    assert_eq!(game.ask_with_key(DEREGISTER, "k-1", request.clone()).await, gone);
    assert_eq!(game.ask_with_key(DEREGISTER, "k-1", request.clone()).await, gone, "a repeat gets the same answer");
    let again = game.ask(DEREGISTER, request).await;
    assert_eq!(again["error"]["code"], "NOT_FOUND");
    assert_eq!(again["error"]["details"], json!({ "field": "registration_id" }));
    let [(event_id, metadata)] = &game.events("SYSTEM_EVENTS", "evt.capability.removed.v1", 1).await[..] else {
        panic!("one event")
    };
    assert!(event_id.starts_with(&format!("{}:removed:", id.as_str().unwrap())), "{event_id}");
    assert_eq!((&*metadata["service_id"], &*metadata["cause"]), ("npc@1", "deregistered"));
    let refused = game.ask(DEREGISTER, json!({})).await;
    assert_eq!(refused["error"]["details"], json!({ "field": "registration_id", "reason": "required" }));
}
