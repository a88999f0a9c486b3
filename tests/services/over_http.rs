//! The services behind the gateway, over HTTP, on the embedded bus and on a real nats-server: races, streams, events,
//! repeats, what they forget by themselves. What they answer is in `tests/examples.rs`.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::place::on_each_bus;
use support::replicas::Replicas;
use support::{eventually, gateway, project, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::services::{Settings, roster};
use tidegate::store::{BucketConfig, Expected, LogReader, Store};
use tidegate::worker::{Options, Worker};

const NOW_MS: i64 = 1_760_000_000_000;

/// A gateway and one replica of every service.
struct Game {
    running: Running,
    client: reqwest::Client,
    store: Store,
    now_ms: Arc<AtomicI64>,
    _worker: Worker,
}

struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The reply without what differs from call to call.
    fn body(&self) -> Value {
        without_context(self.json())
    }

    /// The chunks of a stream.
    fn chunks(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: ").or(line.strip_prefix("data:")));
        data.map(|line| without_context(serde_json::from_str(line).unwrap())).collect()
    }
}

fn without_context(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.remove("meta");
        if let Some(error) = members.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("request_id");
        }
    }
    value
}

impl Game {
    async fn on(bus: Bus) -> Game {
        Game::with(bus, Settings::default()).await
    }

    async fn with(bus: Bus, settings: Settings) -> Game {
        let snapshot = project().build(None).unwrap_or_else(|_| panic!("the project's own tables are refused"));
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let (running, _) = gateway(snapshot, &bus, |_| {}).await;
        let snapshot = Arc::new(project().build(None).unwrap_or_else(|_| panic!("the tables are refused")));
        let mut options = Options::new(bus, snapshot);
        let clock = now_ms.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let store = options.store.clone();
        let services = roster(&store, &settings.into(), |_| true).await.unwrap();
        let worker = Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"));
        Game { running, client: reqwest::Client::new(), store, now_ms, _worker: worker }
    }

    async fn ask(&self, verb: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(verb, path, body, &[]).await
    }

    async fn ask_with(&self, verb: &str, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        Answer { status: answer.status().as_u16(), text: answer.text().await.unwrap() }
    }

    async fn put(&self, player: &str, state: Value, query: &str) -> Answer {
        self.ask("PUT", &format!("/v1/players/{player}/state{query}"), Some(&json!({ "state": state }))).await
    }
}

on_each_bus!(
    |place| (Game::on(place.bus.clone()).await);
    of_fifty_conditional_writers_one_wins_and_unconditional_ones_all_do,
    a_repeat_with_the_same_key_writes_nothing,
    a_write_is_followed_by_its_event,
    a_watch_tells_each_write,
    a_watch_of_what_does_not_change_is_open_at_once,
    a_repeat_after_a_crash_brings_the_lost_event,
    an_etag_guards_a_write,
    a_quest_goes_from_active_to_completed,
    a_stream_says_what_the_whole_text_says,
    a_quest_streams_its_description,
);

async fn of_fifty_conditional_writers_one_wins_and_unconditional_ones_all_do(game: Game) {
    for version in 1..=3 {
        assert_eq!(
            game.put("race", json!({}), "").await.body(),
            json!({"ok": true, "new_version": version.to_string()})
        );
    }
    let fifty = |query: &'static str| {
        let game = &game;
        futures_util::future::join_all(
            (0..50).map(move |n| async move { game.put("race", json!({"n": n}), query).await.status }),
        )
    };
    let conditional = fifty("?expected_version=3").await;
    assert_eq!(conditional.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(conditional.iter().filter(|status| **status == 412).count(), 49);
    assert!(fifty("").await.iter().all(|status| *status == 200));
    assert_eq!(game.ask("GET", "/v1/players/race/state", None).await.body()["version"], "54");
}

async fn a_repeat_with_the_same_key_writes_nothing(game: Game) {
    let write = async |state: Value| {
        let body = json!({"player": {"player_id": "p", "state": state}, "op": "UPSERT"});
        game.ask_with("POST", "/v1/state:update", Some(&body), &[("Idempotency-Key", "k-1")]).await
    };
    let first = write(json!({"a": 1})).await;
    assert_eq!((first.status, first.body()), (200, json!({"ok": true, "new_version": "1"})));
    let again = write(json!({"a": 1})).await;
    assert_eq!((again.status, again.body()), (200, json!({"ok": true, "new_version": "1"})));
    assert_eq!(again.json()["meta"]["labels"]["idempotent_replay"], "true");
    let other = write(json!({"a": 2})).await;
    assert_eq!((other.status, &other.json()["error"]["details"]["reason"]), (409, &json!("key_reused")));
    assert_eq!(game.ask("GET", "/v1/players/p/state", None).await.body()["version"], "1");
    // Once the kept reply has lapsed, the record itself still knows the key.
    game.now_ms.fetch_add(25 * 3_600 * 1_000, Ordering::Relaxed);
    assert_eq!(write(json!({"a": 1})).await.body(), json!({"ok": true, "new_version": "1"}));
}

async fn next(reader: &mut LogReader) -> (String, String) {
    let event = tokio::time::timeout(support::PATIENCE, reader.next()).await.unwrap().unwrap();
    (event.subject.as_str().to_owned(), event.headers.get("Nats-Msg-Id").unwrap().to_owned())
}

async fn a_write_is_followed_by_its_event(game: Game) {
    game.put("p1", json!({"a": 1}), "").await;
    game.put("p1", json!({"a": 2}), "").await;
    game.put("p1", json!({}), "?expected_version=9").await;
    for _ in 0..2 {
        game.ask("POST", "/quest/generate", Some(&json!({"player_id": "p1", "seed": "42"}))).await;
    }
    let mut reader = game.store.read_log("GAME_EVENTS", ">", 0).await.unwrap();
    assert_eq!(next(&mut reader).await, ("evt.state.player.updated.v1".into(), "player:p1:1".into()));
    assert_eq!(next(&mut reader).await, ("evt.state.player.updated.v1".into(), "player:p1:2".into()));
    assert_eq!(next(&mut reader).await, ("evt.quest.generated.v1".into(), "qst_ebd72078c3abbb3f".into()));
    game.put("p2", json!({}), "").await;
    // Neither the refused write nor the second quest has left an event.
    assert_eq!(next(&mut reader).await.1, "player:p2:1");
}

async fn a_watch_tells_each_write(game: Game) {
    use futures_util::StreamExt as _;
    game.put("p", json!({"a": 1}), "").await;
    let answer = game.client.get(url(&game.running, "/v1/players/p/state:watch")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut bytes = answer.bytes_stream();
    let mut seen = String::new();
    let versions = |seen: &str| -> Vec<String> {
        let chunks = Answer { status: 200, text: seen[..seen.rfind('\n').unwrap_or(0)].to_owned() }.chunks();
        chunks
            .iter()
            .map(|chunk| format!("{}{}", chunk["version"].as_str().unwrap(), chunk["op"].as_str().unwrap()))
            .collect()
    };
    let mut is_told = false;
    while versions(&seen) != ["1UPSERT", "2UPSERT", "3DELETE"] {
        let more = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("the watch is silent");
        seen.push_str(std::str::from_utf8(&more.unwrap().unwrap()).unwrap());
        if !is_told && versions(&seen) == ["1UPSERT"] {
            is_told = true;
            game.put("p", json!({"a": 2}), "").await;
            assert_eq!(game.ask("DELETE", "/v1/players/p/state", None).await.status, 200);
        }
    }
    let missing = game.ask("GET", "/v1/players/%20/state:watch", None).await;
    assert_eq!((missing.status, &missing.json()["error"]["details"]["reason"]), (400, &json!("bad_id")));
}

async fn a_watch_of_what_does_not_change_is_open_at_once(game: Game) {
    use futures_util::StreamExt as _;
    game.put("p", json!({"a": 1}), "").await;
    let open = async |path: &str, seen: &str| {
        let request = game.client.get(url(&game.running, path)).header("last-event-id", seen);
        request.header("x-timeout-ms", "2000").send().await.unwrap()
    };
    let first = game.client.get(url(&game.running, "/v1/players/p/state:watch")).send().await.unwrap();
    let mut bytes = first.bytes_stream();
    let mut text = String::new();
    while !text.contains("data: ") {
        text.push_str(std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap());
    }
    let seen = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    // Nobody whom anything is known of; somebody who has seen everything; and a log without an event.
    for (path, seen) in [
        ("/v1/players/nobody/state:watch", "0"),
        ("/v1/players/p/state:watch", &*seen),
        ("/v1/npcs/n1/plans:watch", "0"),
    ] {
        let answer = open(path, seen).await;
        assert_eq!(answer.status(), 200, "{path} behind {seen}");
        let greeting = answer.bytes_stream().next().await.unwrap().unwrap();
        assert!(greeting.starts_with(b"retry: "), "{path}: {greeting:?}");
    }
}

async fn a_repeat_after_a_crash_brings_the_lost_event(game: Game) {
    // What is left where a replica dies between its write and its event: the record alone.
    let body = json!({"player": {"player_id": "p", "state": {"a": 1}}, "op": "UPSERT"});
    let keyed = [("Idempotency-Key", "k-1")];
    let crashed = Game::on(Bus::embedded()).await;
    crashed.ask_with("POST", "/v1/state:update", Some(&body), &keyed).await;
    let bucket =
        async |game: &Game| game.store.bucket(BucketConfig { name: "tg_state", ttl: None, history: 8 }).await.unwrap();
    let record = bucket(&crashed).await.get("_.player.p").await.unwrap().unwrap();
    bucket(&game).await.put("_.player.p", record.value, Expected::Absent).await.unwrap();
    let repeat = game.ask_with("POST", "/v1/state:update", Some(&body), &keyed).await;
    assert_eq!((repeat.status, repeat.body()), (200, json!({"ok": true, "new_version": "1"})));
    let mut reader = game.store.read_log("GAME_EVENTS", ">", 0).await.unwrap();
    assert_eq!(next(&mut reader).await.1, "player:p:1");
}

async fn an_etag_guards_a_write(game: Game) {
    game.put("p", json!({}), "").await;
    let answer = game.client.get(url(&game.running, "/v1/players/p/state")).send().await.unwrap();
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, "\"1\"");
    let body = json!({"state": {"a": 1}});
    let first = game.ask_with("PUT", "/v1/players/p/state", Some(&body), &[("If-Match", &tag)]).await;
    assert_eq!((first.status, first.body()), (200, json!({"ok": true, "new_version": "2"})));
    let second = game.ask_with("PUT", "/v1/players/p/state", Some(&body), &[("If-Match", &tag)]).await;
    assert_eq!((second.status, &second.json()["error"]["details"]["current_version"]), (412, &json!("2")));
}

async fn a_quest_goes_from_active_to_completed(game: Game) {
    let made = game.ask("POST", "/v1/players/p1/quests:generate", Some(&json!({"seed": "42"}))).await.body();
    let quest_id = made["quest"]["quest_id"].as_str().unwrap();
    let path = format!("/v1/players/p1/quests/{quest_id}");
    let got = game.ask("GET", &path, None).await;
    assert_eq!(got.body(), made);
    for (objective, delta, status) in
        [("obj1", 99, "in_progress"), ("obj2", 4, "in_progress"), ("obj3", 1, "completed")]
    {
        let path = format!("{path}/objectives/{objective}:progress");
        let answer = game.ask("POST", &path, Some(&json!({"delta": delta}))).await.body();
        assert_eq!(answer["quest"]["tags"]["status"], status, "{answer}");
        assert_eq!(answer["completed"] == true, status == "completed");
    }
    let late = game.ask("POST", &format!("{path}/objectives/obj1:progress"), Some(&json!({"delta": 1}))).await;
    assert_eq!((late.status, &late.json()["error"]["message"]), (412, &json!("the quest is completed")));
    game.ask("POST", "/quest/generate", Some(&json!({"player_id": "p1", "seed": "7"}))).await;
    eventually("both quests are listed", async || {
        let listed = game.ask("GET", "/v1/players/p1/quests", None).await.body();
        listed["quests"].as_array().is_some_and(|quests| quests.len() == 2)
    })
    .await;
    let completed = game.ask("GET", "/v1/players/p1/quests?status=completed", None).await.body();
    assert_eq!(completed["quests"].as_array().unwrap().len(), 1);
    let page = game.ask("GET", "/v1/players/p1/quests?page.page_size=1", None).await.body();
    let token = page["next_page_token"].as_str().unwrap();
    let rest = game.ask("GET", &format!("/v1/players/p1/quests?page.page_size=1&page.page_token={token}"), None).await;
    assert_eq!(rest.body()["quests"].as_array().unwrap().len(), 1);
    assert_ne!(rest.body()["quests"], page["quests"]);
    assert_eq!(rest.body().get("next_page_token"), None);
    let unknown = game.ask("GET", "/v1/players/p1/quests/qst_0", None).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["message"]), (404, &json!("quest qst_0 does not exist")));
    let needy = json!({"player_id": "p1", "context": {"prerequisites": [quest_id, "qst_0"]}});
    let refused = game.ask("POST", "/quest/generate", Some(&needy)).await;
    assert_eq!((refused.status, &refused.json()["error"]["details"]["missing"]), (412, &json!("qst_0")));
}

async fn a_stream_says_what_the_whole_text_says(game: Game) {
    let request = json!({"prompt": "Where is the ferryman?", "params": {"seed": "7"}});
    let whole = game.ask("POST", "/v1/inference", Some(&request)).await.body();
    let text = whole["output_text"].as_str().unwrap();
    assert!(text.contains("erryman"), "{text}");
    assert_eq!(game.ask("POST", "/v1/inference", Some(&request)).await.body()["output_text"], text);
    let stream = game.ask("POST", "/v1/inference:stream", Some(&request)).await;
    let chunks = stream.chunks();
    let said: String = chunks.iter().filter_map(|chunk| chunk["output_text_delta"].as_str()).collect();
    assert_eq!(said, text);
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["is_final"], &last["finish_reason"], &last["usage"]),
        (&json!(true), &json!("stop"), &whole["usage"])
    );
    let chat =
        json!({"chat_messages": {"messages": [{"role": "USER", "content": "Hello there"}]}, "params": {"seed": "7"}});
    let answer = game.ask("POST", "/v1/inference", Some(&chat)).await.body();
    assert_eq!(answer["chat_messages"]["messages"][0]["role"], "ASSISTANT");
    let cancelled = game.ask("POST", "/v1/generations/gen_0:cancel", Some(&json!({}))).await;
    assert_eq!((cancelled.status, cancelled.body()), (200, json!({})));
}

async fn a_quest_streams_its_description(game: Game) {
    let body = json!({"seed": "42"});
    let whole = game.ask("POST", "/v1/players/p1/quests:generate", Some(&body)).await.body();
    let chunks = game.ask("POST", "/v1/players/p1/quests:streamGenerate", Some(&body)).await.chunks();
    assert_eq!(chunks[0]["quest"].get("description"), None);
    let said: String = chunks.iter().filter_map(|chunk| chunk["description_delta"].as_str()).collect();
    assert_eq!(said, whole["quest"]["description"]);
    assert_eq!(chunks.last().unwrap()["quest"], whole["quest"]);
}

/// Something that a service keeps for a time only.
struct Passing {
    bucket: &'static str,
    /// Is in the keys or the values of its records.
    mark: &'static str,
    subject: &'static str,
    request: Value,
    kept: Duration,
    /// A question whose answer says, from that time on, that it is gone.
    asked: Option<(&'static str, Value, Value)>,
}

/// By how long they are kept.
fn all_passing() -> Vec<Passing> {
    let seconds = Duration::from_secs;
    let subscription = json!({ "subscriber_id": "gc_hud", "event_patterns": ["quest.>"],
        "callback_subject": "cb.gc", "ttl_seconds": 60 });
    let capability = json!({ "service_id": "gc_service", "endpoint": "svc.gc", "ttl_seconds": 30,
        "capabilities": [{ "capability_id": "cut", "capability_type": "gc_type" }] });
    let event = json!({ "event_type": "quest.started", "event_id": "gc-1" });
    let told = json!({ "success": true, "event_id": "gc-1" });
    let without_it = json!({ "entity_id": "gc_gone", "entity_type": "npc" });
    vec![
        Passing {
            bucket: "tg_limits",
            mark: "gc_user",
            subject: "svc.auth.v1.check_rate_limit",
            request: json!({ "user_id": "gc_user", "resource": "public_write", "cost": 10 }),
            kept: seconds(12),
            asked: None,
        },
        Passing {
            bucket: "tg_caps",
            mark: "gc_service",
            subject: "svc.capability.v1.register",
            request: capability,
            kept: seconds(30),
            asked: Some((
                "svc.capability.v1.query",
                json!({ "capability_type": "gc_type", "include_offline": true }),
                json!({}),
            )),
        },
        Passing {
            bucket: "tg_event_subs",
            mark: "cb.gc",
            subject: "svc.events.v1.subscribe",
            request: subscription,
            kept: seconds(60),
            asked: Some(("svc.events.v1.publish", event, told)),
        },
        Passing {
            bucket: "tg_world_subs",
            mark: "cb.gc",
            subject: "svc.world.v1.subscribe",
            request: json!({ "world_id": "w1", "callback_subject": "cb.gc", "ttl_seconds": 60 }),
            kept: seconds(60),
            asked: None,
        },
        Passing {
            bucket: "tg_sessions",
            mark: "gc_user",
            subject: "svc.auth.v1.create_session",
            request: json!({ "user_id": "gc_user", "ttl_seconds": 90 }),
            kept: seconds(90),
            asked: Some(("svc.auth.v1.list_sessions", json!({ "user_id": "gc_user" }), json!({}))),
        },
        Passing {
            bucket: "tg_router",
            // Only of a call that has ended.
            mark: "routed_to",
            subject: "svc.router.v1.route",
            request: json!({ "service_name": "time-manager", "operation": "get_time",
                "routing_hints": { "sla": "async" } }),
            kept: seconds(3_600),
            asked: None,
        },
        Passing {
            bucket: "tg_worlds",
            mark: "gc_gone",
            subject: "svc.world.v1.update_state",
            request: json!({ "world_id": "w1", "merge": true, "entities_to_update": [without_it],
                "global_flags_to_update": { "gc": "on" } }),
            kept: Duration::MAX,
            asked: None,
        },
        Passing {
            bucket: "tg_worlds",
            mark: "gc_gone",
            subject: "svc.world.v1.update_state",
            request: json!({ "world_id": "w1", "merge": true, "remove_entity_ids": ["gc_gone"] }),
            kept: seconds(3_600),
            asked: None,
        },
        Passing {
            bucket: "tg_exec",
            mark: "health_probe",
            subject: "svc.orchestration.v1.execute_workflow",
            request: json!({ "workflow_id": "health_probe", "wait": true }),
            kept: seconds(7 * 24 * 3_600),
            asked: None,
        },
        Passing {
            bucket: "tg_story",
            mark: "gc_theme",
            subject: "svc.story.v1.generate",
            request: json!({ "story_type": "lore", "themes": ["gc_theme"] }),
            kept: seconds(30 * 24 * 3_600),
            asked: None,
        },
    ]
}

/// Records of a bucket that have a value and a mark.
async fn marked(game: &Replicas, passing: &Passing) -> usize {
    let records = game.bucket(passing.bucket).await.list(&tidegate::store::Keys::All).await.unwrap();
    let is_marked = |entry: &&tidegate::store::Entry| {
        let record: Value = serde_json::from_slice(&entry.value).unwrap();
        !record["value"].is_null() && (entry.key.contains(passing.mark) || record.to_string().contains(passing.mark))
    };
    records.iter().filter(is_marked).count()
}

async fn what_has_had_its_time_is_swept(game: Replicas) {
    for passing in all_passing() {
        let (bucket, subject) = (passing.bucket, passing.subject);
        let reply = game.ask(subject, passing.request.clone()).await;
        assert!(reply.get("error").is_none(), "{subject}: {reply}");
        eventually(&format!("{bucket} has it"), async || marked(&game, &passing).await > 0).await;
        if passing.kept == Duration::MAX {
            continue;
        }
        let second = Duration::from_secs(1);
        game.pass(passing.kept - second);
        assert!(marked(&game, &passing).await > 0, "{bucket}: it has a second left");
        game.pass(second * 5);
        if let Some((subject, request, reply)) = &passing.asked {
            assert_eq!(game.ask(subject, request.clone()).await, *reply, "{bucket}: it counts as gone at once");
        }
        eventually(&format!("{bucket} is swept"), async || marked(&game, &passing).await == 0).await;
    }
}

#[tokio::test]
async fn what_has_had_its_time_is_swept_on_either_bus() {
    let often = [("common.sweep", json!("100ms"))];
    what_has_had_its_time_is_swept(Replicas::embedded(&often).await).await;
    what_has_had_its_time_is_swept(Replicas::nats(&often).await).await;
}

#[tokio::test]
async fn maps_have_64_entries_and_figures_are_numbers() {
    let game = Replicas::embedded(&[]).await;
    let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!("v"))).collect();
    let figures: serde_json::Map<String, Value> = (0..65).map(|n| (format!("k{n}"), json!(1.5))).collect();
    let capability =
        |parameters: Value| json!([{ "capability_id": "c", "capability_type": "t", "parameters": parameters }]);
    let register = |capabilities: Value, metadata: Value| {
        (
            "svc.capability.v1.register",
            json!({ "service_id": "s1", "capabilities": capabilities, "metadata": metadata }),
        )
    };
    let sample = |figures: Value| {
        let sample = json!({ "avg_fps": 60, "custom_metrics": figures });
        ("svc.perf.v1.report_metrics", json!({ "player_id": "p1", "sample": sample, "frames": 60 }))
    };
    let subscribe = json!({ "subscriber_id": "hud", "event_patterns": ["quest.>"], "callback_subject": "cb.hud",
        "filters": many });
    let translate = json!({ "text": "hello", "target_language": "fr", "context": many });
    let localize = |variables: Value| {
        let request = json!({ "content_id": "ui.welcome", "target_language": "fr", "variables": variables });
        ("svc.lang.v1.localize", request)
    };
    for ((subject, request), code, field, reason) in [
        (register(capability(json!(many)), json!({})), "INVALID_ARGUMENT", "capabilities[0].parameters", "too_many"),
        (register(capability(json!({})), json!(many)), "INVALID_ARGUMENT", "metadata", "too_many"),
        (
            register(capability(json!({ "k": "v".repeat(4_097) })), json!({})),
            "INVALID_ARGUMENT",
            "capabilities[0].parameters",
            "too_long",
        ),
        (sample(json!(figures)), "INVALID_ARGUMENT", "sample.custom_metrics", "too_many"),
        (sample(json!({ "heat": "Infinity" })), "OUT_OF_RANGE", "sample.custom_metrics.heat", "out_of_range"),
        (("svc.events.v1.subscribe", subscribe), "INVALID_ARGUMENT", "filters", "too_many"),
        (("svc.capability.v1.query", json!({ "requirements": many })), "INVALID_ARGUMENT", "requirements", "too_many"),
        (("svc.lang.v1.translate", translate), "INVALID_ARGUMENT", "context", "too_many"),
        (localize(json!(many)), "INVALID_ARGUMENT", "variables", "too_many"),
        (localize(json!({ "name": "v".repeat(4_097) })), "INVALID_ARGUMENT", "variables", "too_long"),
    ] {
        let error = game.ask(subject, request).await["error"].take();
        let found = [&error["code"], &error["details"]["field"], &error["details"]["reason"]];
        assert_eq!(found, [&json!(code), &json!(field), &json!(reason)], "{subject}");
    }
    // Nothing of it was kept: what is good is taken as ever.
    let (subject, good) = sample(json!({ "heat": 40.5 }));
    assert_eq!(game.ask(subject, good).await["accepted"], true);
    let metrics = game.ask("svc.perf.v1.get_metrics", json!({ "player_id": "p1" })).await;
    assert_eq!(metrics["metrics"]["custom_metrics"]["heat"], 40.5, "{metrics}");
}

#[tokio::test]
async fn a_model_that_becomes_current_replaces_only_that_of_its_use_case() {
    let model = |id: &str, provider: &str, metadata: Value| {
        json!({ "model_id": id, "name": id, "provider": provider, "family": "f", "modality": "voice",
            "metadata": metadata })
    };
    let whispers = |status: &str| json!({ "use_case": "whispers", "status": status });
    let models = json!([
        model("m1", "open-x", json!({})),
        model("m2", "open", json!({})),
        model("m3", "open", whispers("current")),
        model("m4", "open", whispers("testing")),
        model("m5", "open", json!({ "status": "testing" })),
    ]);
    let game = Replicas::embedded(&[("model-management.models", models)]).await;
    for model_id in ["m4", "m5"] {
        let request = json!({ "model_id": model_id, "status": "Current" });
        let reply = game.ask("svc.ai.model.v1.set_status", request).await;
        assert_eq!(reply["model"]["metadata"]["status"], "current", "{reply}");
    }
    let statuses = async || {
        let listed = game.ask("svc.ai.model.v1.list", json!({ "modality_filter": "VOICE" })).await;
        let row = |model: &Value| format!("{} {}", model["model_id"], model["metadata"]["status"]).replace('"', "");
        listed["models"].as_array().unwrap().iter().map(row).collect::<Vec<_>>()
    };
    // By provider, then by id.
    let expected = ["m2 current", "m3 deprecated", "m4 current", "m5 current", "m1 current"];
    eventually("both replicas list it so", async || {
        futures_util::future::join_all((0..6).map(|_| statuses())).await.iter().all(|found| *found == expected)
    })
    .await;
    let back = game.ask("svc.ai.model.v1.set_status", json!({ "model_id": "m3", "status": "testing" })).await;
    let details = json!({ "reason": "status", "status": "deprecated" });
    assert_eq!((&back["error"]["code"], &back["error"]["details"]), (&json!("FAILED_PRECONDITION"), &details));
}

#[tokio::test]
async fn a_heartbeat_without_metrics_leaves_a_registration_that_everybody_finds() {
    let game = Replicas::embedded(&[]).await;
    let capabilities = json!([{ "capability_id": "c1", "capability_type": "npc" }]);
    let request = json!({ "service_id": "npc@1", "capabilities": capabilities, "endpoint": "svc.npc.>" });
    let registered = game.ask("svc.capability.v1.register", request).await;
    assert_eq!(registered["error"], json!(null), "{registered}");
    let id = &registered["registration_id"];
    for metrics in [json!({ "load": 0.5 }), json!({})] {
        let beat = json!({ "registration_id": id, "metrics": metrics });
        assert_eq!(game.ask("svc.capability.v1.heartbeat", beat).await["success"], json!(true), "{metrics}");
        let found = game.ask("svc.capability.v1.query", json!({})).await;
        assert_eq!(found["error"], json!(null), "{metrics}: {found}");
        assert!(found.to_string().contains("npc@1"), "{metrics}: {found}");
    }
    let gone = game.ask("svc.capability.v1.deregister", json!({ "registration_id": id })).await;
    assert_eq!(gone["success"], json!(true), "{gone}");
}

#[tokio::test]
async fn states_and_quests_of_players_are_theirs_alone_where_that_is_enforced() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let state = json!({ "player": { "player_id": "p1", "state": { "money": 1 } }, "op": "UPSERT" });
    let requests = [
        ("svc.state.manager.v1.update", state),
        ("svc.state.manager.v1.get", json!({ "player_id": "p1" })),
        ("svc.quest.v1.generate", json!({ "player_id": "p1", "seed": "42" })),
        ("svc.quest.v1.list", json!({ "player_id": "p1" })),
        ("svc.quest.v1.get", json!({ "player_id": "p1", "quest_id": "qst_ebd72078c3abbb3f" })),
    ];
    for (subject, request) in requests {
        let stranger = game.ask_from_edge(subject, "p2", "player", request.clone()).await;
        let told = (&stranger["error"]["code"], &stranger["error"]["details"]["reason"]);
        assert_eq!(told, (&json!("PERMISSION_DENIED"), &json!("not_owner")), "{subject}: {stranger}");
        for (user, role) in [("p1", "player"), ("boss", "admin")] {
            let own = game.ask_from_edge(subject, user, role, request.clone()).await;
            assert_eq!(own["error"], json!(null), "{subject} of {user}: {own}");
        }
    }
}

#[tokio::test]
async fn what_a_crash_has_left_unsent_is_sent_after_the_configured_interval() {
    let game = Replicas::embedded(&[("common.sweep", json!("100ms"))]).await;
    for (bucket, log, subject, message) in [
        ("tg_state", "GAME_EVENTS", "evt.state.player.updated.v1", "state_manager.v1.PlayerState"),
        ("tg_quests", "GAME_EVENTS", "evt.quest.generated.v1", "quest.v1.Quest"),
        (
            "tg_narrative",
            "NARRATIVE_EVENTS",
            "evt.narrative.generated.v1",
            "environmental_narrative.v1.GenerateResponse",
        ),
    ] {
        let event = json!({
            "subject": subject, "id": { "Text": bucket }, "at_ms": NOW_MS, "message": message, "payload": "",
            "metadata": { "op": "left" }, "priority": 5,
        });
        let record = json!({
            "schema": 1, "value": null, "version": 1, "updated_ms": NOW_MS, "expires_at_ms": 0, "changed_at": null,
            "pending": [{ "revision": null, "work": { "Event": event } }], "recent": [],
        });
        game.bucket(bucket).await.put("_.a.b", record.to_string().into(), Expected::Any).await.unwrap();
        let sent = tokio::time::timeout(Duration::from_secs(5), game.events(log, subject, 1)).await;
        assert_eq!(sent.unwrap_or_else(|_| panic!("{bucket}: nothing in time"))[0].0, bucket);
    }
}

#[tokio::test]
async fn what_admins_have_set_a_player_does_not_replace() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let update = |key: &str, value: &str, merge: bool| json!({ "player_id": "p1", "settings": [{ "key": key, "value": value }], "merge": merge });
    let tier = update("account.tier", "premium", true);
    let set = game.ask_from_edge("svc.settings.v1.update", "boss", "admin", tier).await;
    assert_eq!(set["updated_keys"], json!(["account.tier"]), "{set}");
    let own = async |request: Value| game.ask_from_edge("svc.settings.v1.update", "p1", "player", request).await;
    let refused = own(update("video.vsync", "false", false)).await;
    let details = json!({ "reason": "admin_only" });
    assert_eq!((&refused["error"]["code"], &refused["error"]["details"]), (&json!("PERMISSION_DENIED"), &details));
    assert_eq!(own(update("video.vsync", "false", true)).await["updated_count"], 1);
    let replaced = update("video.vsync", "true", false);
    let done = game.ask_from_edge("svc.settings.v1.update", "boss", "admin", replaced).await;
    assert_eq!(done["updated_count"], 1, "{done}");
    let asked = json!({ "player_id": "p1", "setting_keys": ["account.tier"] });
    let read = game.ask_from_edge("svc.settings.v1.get", "p1", "player", asked).await;
    assert_eq!((&read["settings"][0]["value"], &read["settings"][0]["is_default"]), (&json!("free"), &json!(true)));
}

#[tokio::test]
async fn a_watch_that_starts_over_tells_defaults_too() {
    let game = Replicas::embedded(&[]).await;
    let watch = json!({ "player_id": "nobody", "after_revision": "987654" });
    let seen = game.chunks("svc.settings.v1.watch", watch, [1, 0], async {}).await;
    let all = game.ask("svc.settings.v1.get", json!({ "player_id": "nobody" })).await;
    assert_eq!(seen[0]["settings"], all["settings"]);
}
