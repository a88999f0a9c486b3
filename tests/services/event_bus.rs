//! Events pushed and followed: which replica dispatches, what comes again, what a stream resumes. What the service answers
//! is in `tests/examples.rs`.

use crate::support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::place::{Place, on_each_bus};
use support::{calls, eventually, gateway, project, url};
use tidegate::bus::{Bus, Limits};
use tidegate::gateway::Running;
use tidegate::services::buckets::BUCKETS;
use tidegate::services::{Settings, roster};
use tidegate::store::{Expected, Store};
use tidegate::transcode::{JsonOut, Names, Scratch, wire_to_json};
use tidegate::worker::{Options, Worker};

struct Game {
    bus: Bus,
    store: Store,
    running: Running,
    client: reqwest::Client,
    /// Everything is in one process.
    is_embedded: bool,
}

impl Game {
    async fn on(place: &Place) -> Game {
        let (bus, is_embedded) = (place.bus.clone(), place.server().is_none());
        let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
        Game { store: Store::of(&bus), bus, running, client: reqwest::Client::new(), is_embedded }
    }

    /// A replica whose lease is short, so that another one need not wait long.
    async fn replica(&self) -> Worker {
        let mut options = Options::new(self.bus.clone(), Arc::new(project().build(None).unwrap()));
        options.store = self.store.clone();
        let settings = Settings::with([("event-bus.lease", &json!("2s"))]).unwrap();
        let services = roster(&self.store, &settings.into(), |name| name == "event-bus").await.unwrap();
        Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(url(&self.running, path)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn subscribe(&self, callback: &str, filters: Value) -> String {
        let body = json!({
            "subscriber_id": "hud", "event_patterns": ["quest.>"], "callback_subject": callback, "filters": filters
        });
        self.post("/v1/subscriptions", body).await["subscription_id"].as_str().unwrap().to_owned()
    }

    async fn publish(&self, event_type: &str, id: &str) -> Value {
        let body = json!({"event_type": event_type, "event_id": id, "metadata": {"player_id": "p1"}});
        self.post("/v1/events", body).await
    }

    fn event(&self, payload: &[u8]) -> Value {
        let snapshot = project().build(None).unwrap();
        let message = snapshot.tables.message_id("event_bus.v1.GameEvent").unwrap();
        let (options, mut out) = (JsonOut { names: Names::Proto, ..JsonOut::default() }, Vec::new());
        wire_to_json(&snapshot.tables, message, &options, payload, &mut Scratch::default(), &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }
}

on_each_bus!(
    |place| (Game::on(&place).await);
    another_replica_goes_on_where_the_dispatcher_died,
    who_does_not_answer_gets_the_event_again,
    a_stream_goes_on_behind_what_was_seen,
    who_wants_only_what_is_urgent_gets_nothing_else,
    of_events_that_wait_the_urgent_ones_go_first,
);

async fn another_replica_goes_on_where_the_dispatcher_died(game: Game) {
    let mut pushed = calls::listen(&game.bus, "cb.hud.events", Limits::WORKER).await;
    let mut others = calls::listen(&game.bus, "cb.other.events", Limits::WORKER).await;
    let first = game.replica().await;
    let second = game.replica().await;
    game.subscribe("cb.hud.events", json!({"player_id": "p1"})).await;
    game.subscribe("cb.other.events", json!({"player_id": "p2"})).await;
    for index in 0..20 {
        let reply = game.publish("quest.completed", &format!("a-{index:02}")).await;
        assert_eq!((&reply["success"], &reply["subscriber_count"]), (&json!(true), &json!(1)));
    }
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let event = game.event(&calls::next(&mut pushed).await.unwrap().unwrap().payload);
        seen.push(event["event_id"].as_str().unwrap().to_owned());
    }
    // Whichever of them dispatches dies: one now, and once the other one has gone on, that one.
    drop(first);
    let third = game.replica().await;
    for index in 0..10 {
        game.publish("quest.completed", &format!("b-{index:02}")).await;
    }
    let all: BTreeSet<String> =
        (0..20).map(|n| format!("a-{n:02}")).chain((0..10).map(|n| format!("b-{n:02}"))).collect();
    while seen.iter().collect::<BTreeSet<_>>().len() < all.len() {
        let event = game.event(&calls::next(&mut pushed).await.unwrap().unwrap().payload);
        assert_eq!(event["event_type"], "quest.completed");
        seen.push(event["event_id"].as_str().unwrap().to_owned());
    }
    // An event may come twice where one of them died over it, never out of order.
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(once, all.into_iter().collect::<Vec<_>>());
    let unheard = tokio::time::timeout(Duration::from_millis(100), others.next()).await;
    assert!(unheard.is_err(), "a filter lets through what it should not");
    drop((second, third));
}

async fn who_does_not_answer_gets_the_event_again(game: Game) {
    let _replica = game.replica().await;
    let id = game.subscribe("cb.hud.sure", json!({"$ack": "explicit"})).await;
    // Nobody listens at first; then somebody does, and answers.
    let reply = game.publish("quest.started", "e-1").await;
    assert_eq!(reply["subscriber_count"], 1);
    let mut pushed = calls::listen(&game.bus, "cb.hud.sure", Limits::WORKER).await;
    let delivery = calls::next(&mut pushed).await.unwrap().unwrap();
    assert_eq!(game.event(&delivery.payload)["event_id"], "e-1");
    game.bus.publish(calls::answer(&delivery, b"")).await.unwrap();
    let left = async || {
        let figures = game.store.log_figures("GAME_EVENTS").await.unwrap();
        let dispatch = figures.consumers.into_iter().find(|consumer| consumer.name == "event_dispatch_game").unwrap();
        dispatch.waiting + dispatch.unanswered
    };
    eventually("the event is done with", async || left().await == 0).await;
    let gone = game.client.delete(url(&game.running, &format!("/v1/subscriptions/{id}"))).send().await.unwrap();
    let gone: Value = serde_json::from_str(&gone.text().await.unwrap()).unwrap();
    assert_eq!(gone["success"], true);
    assert_eq!(game.publish("quest.started", "e-2").await["subscriber_count"], Value::Null);
    // Counts are told once a second.
    let stats = async || {
        let path = url(&game.running, "/v1/events:stats?event_type=quest.started");
        let answer = game.client.get(path).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    eventually("both are counted", async || stats().await["published"] == json!({"quest.started": "2"})).await;
    let recent: Vec<Value> =
        stats().await["recent"].as_array().unwrap().iter().map(|e| e["event_id"].clone()).collect();
    assert_eq!(recent, ["e-1", "e-2"]);
}

async fn a_stream_goes_on_behind_what_was_seen(game: Game) {
    let _replica = game.replica().await;
    for index in 0..4 {
        game.publish("npc.died", &format!("e-{index}")).await;
    }
    let path = "/v1/events:stream?event_patterns=npc.*&after_revision=2";
    let answer = game.client.get(url(&game.running, path)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (mut bytes, mut text, mut seen) = (answer.bytes_stream(), String::new(), Vec::new());
    while seen.len() < 3 {
        if seen.len() == 2 {
            game.publish("npc.died", "e-4").await;
            game.publish("quest.started", "elsewhere").await;
        }
        let more = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(&more.unwrap().unwrap()).unwrap());
        seen = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|item| format!("{} {}", item["revision"].as_str().unwrap(), item["event"]["event_id"]))
            .collect();
    }
    assert_eq!(seen, ["3 \"e-2\"", "4 \"e-3\"", "5 \"e-4\""]);
}

async fn who_wants_only_what_is_urgent_gets_nothing_else(game: Game) {
    let _replicas = (game.replica().await, game.replica().await);
    let mut urgent = calls::listen(&game.bus, "cb.hud.urgent", Limits::WORKER).await;
    let mut all = calls::listen(&game.bus, "cb.hud.all", Limits::WORKER).await;
    game.subscribe("cb.hud.urgent", json!({"$min_priority": "6"})).await;
    game.subscribe("cb.hud.all", json!({})).await;
    for (id, priority, takers) in [("e-5", 5, 1), ("e-6", 6, 2), ("e-0", 0, 1), ("e-9", 9, 2)] {
        let body = json!({"event_type": "quest.started", "event_id": id, "priority": priority});
        assert_eq!(game.post("/v1/events", body).await["subscriber_count"], takers, "{id}");
    }
    let seen = async |pushed: &mut tidegate::bus::Subscription, count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            let delivery = calls::next(pushed).await.unwrap().unwrap();
            let event = game.event(&delivery.payload);
            seen.push((event["event_id"].clone(), event["priority"].as_i64().unwrap_or(0)));
        }
        seen
    };
    let expected = [("e-5", 5), ("e-6", 6), ("e-0", 0), ("e-9", 9)].map(|(id, priority)| (json!(id), priority));
    assert_eq!(seen(&mut all, 4).await, expected, "one type keeps its order, whatever the priorities");
    assert_eq!(seen(&mut urgent, 2).await, [expected[1].clone(), expected[3].clone()]);
}

/// Says who dispatches the game's events, and until when.
async fn lease(game: &Game, until_ms: i64) {
    let lease = json!({ "Lease": { "holder": "event-bus@away", "until_ms": until_ms, "published": {} } });
    let record = json!({ "schema": 1, "value": lease, "version": 1, "updated_ms": 0, "expires_at_ms": 0,
        "changed_at": null, "pending": [], "recent": [] });
    let config = BUCKETS.iter().find(|config| config.name == "tg_event_subs").unwrap();
    let bucket = game.store.bucket(config.clone()).await.unwrap();
    bucket.put("_lease.GAME_EVENTS", record.to_string().into(), Expected::Any).await.unwrap();
}

async fn of_events_that_wait_the_urgent_ones_go_first(game: Game) {
    // Another replica dispatches, and is slow: everything waits.
    lease(&game, i64::MAX).await;
    let _replica = game.replica().await;
    let mut all = calls::listen(&game.bus, "cb.hud.all", Limits::WORKER).await;
    let body =
        json!({"subscriber_id": "hud", "event_patterns": ["quest.>", "npc.>"], "callback_subject": "cb.hud.all"});
    game.post("/v1/subscriptions", body).await;
    let publish = async |event_type: &str, id: &str, priority: i32| {
        let body = json!({"event_type": event_type, "event_id": id, "priority": priority});
        assert_eq!(game.post("/v1/events", body).await["subscriber_count"], 1, "{id}");
    };
    const PLAIN: usize = 40;
    for index in 0..PLAIN {
        publish("quest.started", &format!("plain-{index:02}"), 1).await;
    }
    publish("quest.failed", "failed", 5).await;
    publish("npc.spawned", "later", 9).await;
    publish("npc.spawned", "second", 10).await;
    publish("npc.died", "urgent", 9).await;
    let silent = tokio::time::timeout(Duration::from_millis(100), all.next()).await;
    assert!(silent.is_err(), "who has no lease dispatches");
    lease(&game, 0).await;
    let mut seen = Vec::new();
    while seen.len() < PLAIN + 4 {
        let event = game.event(&calls::next(&mut all).await.unwrap().unwrap().payload);
        seen.push(event["event_id"].as_str().unwrap().to_owned());
    }
    let plain: Vec<&String> = seen.iter().filter(|id| id.starts_with("plain")).collect();
    assert!(plain.is_sorted(), "one type keeps its order: {seen:?}");
    let urgent: Vec<&str> = seen.iter().map(String::as_str).filter(|id| !id.starts_with("plain")).collect();
    // Of equals the older one goes first, and nobody overtakes in its own type.
    assert_eq!(urgent, ["later", "second", "urgent", "failed"], "{seen:?}");
    // What is already on its way when they come is not called back.
    assert!(seen.last().is_some_and(|id| id == plain[PLAIN - 1]), "the urgent ones have overtaken: {seen:?}");
    if game.is_embedded {
        assert_eq!(seen[..4], urgent, "in one process all of them wait");
    }
}
