//! Clock, weather and state of worlds with two replicas, on the embedded bus and on a real nats-server: what happens by
//! itself, races and streams. What they answer is in `tests/examples.rs`.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::calls::{listen, next};
use support::place::on_each_bus;
use support::{eventually, gateway, project, url};
use tidegate::bus::{Bus, Limits};
use tidegate::gateway::Running;
use tidegate::services::buckets::BUCKETS;
use tidegate::services::{LiveSettings, Settings, roster};
use tidegate::store::{Bucket, Expected, Keys, Store};
use tidegate::transcode::{JsonOut, Names, Scratch, Tables, wire_to_json};
use tidegate::worker::{Options, Worker};

const NOW_MS: i64 = 1_760_000_000_000;
const MINUTE_MS: i64 = 60_000;

/// A gateway and two replicas of every service.
struct Game {
    bus: Bus,
    store: Store,
    running: Running,
    tables: Arc<Tables>,
    client: reqwest::Client,
    now_ms: Arc<AtomicI64>,
    _workers: Vec<Worker>,
}

impl Game {
    async fn on(bus: Bus) -> Game {
        let (store, now_ms) = (Store::of(&bus), Arc::new(AtomicI64::new(NOW_MS)));
        let refused = "the project's own tables are refused";
        let snapshot = project().build(None).unwrap_or_else(|_| panic!("{refused}"));
        let tables = snapshot.tables.clone();
        let (running, _) = gateway(snapshot, &bus, |_| {}).await;
        let settings = LiveSettings::from(Settings::default());
        let mut workers = Vec::new();
        for _ in 0..2 {
            let snapshot = project().build(None).unwrap_or_else(|_| panic!("{refused}"));
            let mut options = Options::new(bus.clone(), Arc::new(snapshot));
            options.store = store.clone();
            let clock = now_ms.clone();
            options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
            // Others would ask for times of worlds of their own.
            let is_wanted = |name: &str| ["time-manager", "weather-manager", "world-state"].contains(&name);
            let services = roster(&store, &settings, is_wanted).await.unwrap();
            workers.push(Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}")));
        }
        Game { bus, store, running, tables, client: reqwest::Client::new(), now_ms, _workers: workers }
    }

    fn pass(&self, millis: i64) {
        self.now_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// Status and body, without the context.
    async fn ask(&self, verb: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let mut body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        body.as_object_mut().unwrap().remove("meta");
        (status, body)
    }

    /// The ids of the events of a subject so far, in order.
    async fn ids(&self, subject: &str) -> Vec<String> {
        let mut reader = self.store.read_log("GAME_EVENTS", subject, 0).await.unwrap();
        let mut ids = Vec::new();
        // Everything that is there comes at once; the wait only finds the end.
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(150), reader.next()).await {
            ids.push(event.unwrap().headers.get("Nats-Msg-Id").unwrap().to_owned());
        }
        ids
    }

    /// Waits until the events of a subject are these.
    async fn told(&self, subject: &str, ids: &[&str]) {
        eventually(&format!("{subject} says {ids:?}"), async || self.ids(subject).await == ids).await;
    }

    /// The newest event of a subject: its id, its metadata and its payload.
    async fn last_event(&self, subject: &str, message: &str) -> (String, Value, Value) {
        let mut reader = self.store.read_log("GAME_EVENTS", subject, 0).await.unwrap();
        let mut last = None;
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(150), reader.next()).await {
            last = Some(event.unwrap());
        }
        let mut event = self.json("event_bus.v1.GameEvent", &last.expect("an event").payload);
        let payload = base64::engine::general_purpose::STANDARD.decode(event["payload"].as_str().unwrap()).unwrap();
        let id = event["event_id"].as_str().unwrap().to_owned();
        (id, event["metadata"].take(), self.json(message, &payload))
    }

    async fn bucket(&self, name: &str) -> Bucket {
        let config = BUCKETS.iter().find(|config| config.name == name).unwrap();
        self.store.bucket(config.clone()).await.unwrap()
    }

    /// Puts a value where a service keeps a record, whoever can read it.
    async fn leave(&self, bucket: &str, key: &str, value: Value) {
        let record = json!({"schema": 1, "value": value, "version": 1, "updated_ms": NOW_MS,
            "expires_at_ms": 0, "changed_at": null, "pending": [], "recent": []});
        self.bucket(bucket).await.put(key, record.to_string().into(), Expected::Any).await.unwrap();
    }

    /// What is left where a replica dies right behind its compare-and-set: the header, which says what is to be done.
    async fn leave_commit(&self, world_id: &str) {
        let ann = json!({"entity_id": "ann", "entity_type": "npc", "properties": {}, "tags": [],
            "last_updated_ms": NOW_MS, "state_data": ""});
        let pending = json!({"is_merge": true, "writes": {"ann": {"before": null, "after": ann}}, "flags": {},
            "old_generation": null, "request_id": "r-1", "trace_id": ""});
        let header = json!({"tenant": "", "world_id": world_id, "timestamp_ms": NOW_MS, "generation": "g", "flags": {},
            "committed": 0, "pending": pending, "simulated_hours": 0, "ticked_hour": 0});
        self.leave("tg_worlds", &format!("_.{world_id}.meta"), json!({ "World": header })).await;
    }

    fn json(&self, message: &str, wire: &[u8]) -> Value {
        let message = self.tables.message_id(message).unwrap();
        let (options, mut out) = (JsonOut { names: Names::Proto, ..JsonOut::default() }, Vec::new());
        wire_to_json(&self.tables, message, &options, wire, &mut Scratch::default(), &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    async fn watch(&self, path: &str) -> Chunks {
        let answer = self.client.get(url(&self.running, path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        Chunks { bytes: Box::pin(answer.bytes_stream()), seen: String::new() }
    }
}

/// The items of a watch.
struct Chunks {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    seen: String,
}

impl Chunks {
    async fn next(&mut self) -> Value {
        loop {
            while let Some((line, rest)) = self.seen.split_once('\n') {
                let chunk = line.strip_prefix("data:").map(|chunk| serde_json::from_str(chunk).unwrap());
                self.seen = rest.to_owned();
                if let Some(chunk) = chunk {
                    return chunk;
                }
            }
            let more = tokio::time::timeout(support::PATIENCE, self.bytes.next()).await.expect("the watch is silent");
            self.seen.push_str(std::str::from_utf8(&more.expect("the watch goes on").unwrap()).unwrap());
        }
    }
}

on_each_bus!(
    |place| (Game::on(place.bus.clone()).await);
    two_replicas_tell_each_hour_once,
    a_jump_tells_only_the_newest_hour,
    a_schedule_fires_once_and_a_recurring_one_again,
    what_a_dead_replica_had_claimed_another_one_fires,
    a_watch_of_time_tells_hours_and_jumps,
    a_day_begins_by_itself,
    two_replicas_tell_a_change_of_weather_once,
    weather_goes_on_while_nobody_asks,
    a_watch_of_weather_begins_where_it_is_told_to,
    a_season_comes_with_its_day,
    of_twenty_merges_at_one_time_one_wins,
    a_merge_that_is_too_large_is_refused_whole,
    a_replacement_tells_what_it_changed,
    a_subscription_gets_each_change_of_what_it_wants,
    a_commit_is_finished_where_its_writer_died,
    simulated_hours_follow_each_other,
    a_long_simulation_fits_into_its_reply,
    a_large_entity_is_told_as_far_as_it_fits,
    a_large_commit_is_told_as_far_as_it_fits,
    a_merge_counts_what_it_writes_and_not_what_was_there,
    thresholds_of_the_simulation_are_compared_after_rounding,
    a_world_that_cannot_be_settled_keeps_no_other_from_it,
    a_world_whose_hour_cannot_be_told_keeps_no_other_from_it,
    a_zone_that_cannot_be_written_keeps_no_other_from_it,
    weather_on_its_way_stays_so_when_it_is_set_again,
    weather_that_is_set_anew_is_of_the_season,
);

async fn two_replicas_tell_each_hour_once(game: Game) {
    game.ask("GET", "/v1/worlds/w1/time", Value::Null).await;
    let ids: Vec<String> = (8..18).map(|hour| format!("w1:h:0:{hour}")).collect();
    for told in 1..=10 {
        game.pass(MINUTE_MS);
        let so_far: Vec<&str> = ids[..told].iter().map(String::as_str).collect();
        game.told("evt.time.hour.changed.v1", &so_far).await;
    }
    assert!(game.ids("evt.time.day.changed.v1").await.is_empty());
}

async fn a_day_begins_by_itself(game: Game) {
    game.ask("GET", "/v1/worlds/w1/time", Value::Null).await;
    // From seven in the morning to one at night, an hour a minute.
    let ids: Vec<String> =
        (8..24).map(|hour| format!("w1:h:0:{hour}")).chain((24..26).map(|h| format!("w1:h:0:{h}"))).collect();
    for told in 1..=ids.len() {
        game.pass(MINUTE_MS);
        let so_far: Vec<&str> = ids[..told].iter().map(String::as_str).collect();
        game.told("evt.time.hour.changed.v1", &so_far).await;
    }
    game.told("evt.time.day.changed.v1", &["w1:d:0:1"]).await;
    let (_, time) = game.ask("GET", "/v1/worlds/w1/time", Value::Null).await;
    assert_eq!((&time["game_time"]["day"], &time["game_time"]["hour"]), (&json!(2), &json!(1)), "{time}");
}

async fn a_jump_tells_only_the_newest_hour(game: Game) {
    game.ask("GET", "/v1/worlds/w1/time", Value::Null).await;
    let jump = async |day: i32, hour: i32| {
        let target = json!({"target_time": {"year": 1, "month": 1, "day": day, "hour": hour}});
        assert_eq!(game.ask("PUT", "/v1/worlds/w1/time", target).await.0, 200);
    };
    jump(3, 9).await;
    game.told("evt.time.hour.changed.v1", &["w1:h:1:57"]).await;
    game.told("evt.time.day.changed.v1", &["w1:d:1:2"]).await;
    jump(3, 8).await;
    game.told("evt.time.hour.changed.v1", &["w1:h:1:57", "w1:h:2:56"]).await;
    let back = json!({"target_time": {"year": 1, "month": 1, "day": 1}, "gradual": true});
    let (status, refused) = game.ask("PUT", "/v1/worlds/w1/time", back).await;
    assert_eq!((status, &refused["error"]["details"]["reason"]), (412, &json!("backwards")));
}

async fn a_schedule_fires_once_and_a_recurring_one_again(game: Game) {
    let mut callbacks = listen(&game.bus, "cb.game.>", Limits::WORKER).await;
    let schedule = async |event_id: &str, recurrence_hours: i32| {
        let body = json!({
            "event_id": event_id,
            "scheduled_time": {"year": 1, "month": 1, "day": 1, "hour": 8},
            "callback_subject": format!("cb.game.{event_id}"),
            "recurring": recurrence_hours > 0,
            "recurrence_hours": recurrence_hours,
        });
        game.ask("POST", "/v1/schedules", body).await
    };
    let (status, once) = schedule("once", 0).await;
    assert_eq!((status, &once["real_trigger_time_ms"]), (200, &json!("1760000060000")));
    assert_eq!(schedule("once", 0).await.1, once);
    assert_eq!(schedule("once", 2).await.0, 409);
    let (_, recurring) = schedule("again", 2).await;
    let mut subjects = async |count: usize| {
        let mut subjects = Vec::new();
        for _ in 0..count {
            subjects.push(next(&mut callbacks).await.unwrap().unwrap().subject.as_str().to_owned());
        }
        subjects.sort();
        subjects
    };
    game.pass(MINUTE_MS);
    assert_eq!(subjects(2).await, ["cb.game.again", "cb.game.once"]);
    // Four hours later two occurrences were due: it fires once, and goes on at the next multiple.
    game.pass(4 * MINUTE_MS);
    assert_eq!(subjects(1).await, ["cb.game.again"]);
    game.pass(2 * MINUTE_MS);
    assert_eq!(subjects(1).await, ["cb.game.again"]);
    assert_eq!(schedule("once", 0).await.1, once, "a repeat gets its answer after the event, too");
    let cancel = async |scheduled: &Value| {
        let path = format!("/v1/schedules/{}", scheduled["schedule_id"].as_str().unwrap());
        let (status, body) = game.ask("DELETE", &path, Value::Null).await;
        (status, body["error"]["details"]["reason"].clone())
    };
    eventually("both replicas have done with the pushed events", async || cancel(&once).await.1 == "fired").await;
    assert_eq!(cancel(&recurring).await, (200, Value::Null));
    assert_eq!(cancel(&recurring).await.0, 404);
    game.pass(10 * MINUTE_MS);
    assert_eq!(schedule("last", 0).await.0, 412);
    let last = json!({"event_id": "last", "callback_subject": "cb.game.last",
        "scheduled_time": {"year": 1, "month": 1, "day": 3}});
    assert_eq!(game.ask("POST", "/v1/schedules", last).await.0, 200);
    let midnight = json!({"target_time": {"year": 1, "month": 1, "day": 3}});
    assert_eq!(game.ask("PUT", "/v1/worlds/default/time", midnight).await.0, 200);
    // The jump fires it, and the cancelled one has not come before it.
    assert_eq!(subjects(1).await, ["cb.game.last"]);
}

async fn what_a_dead_replica_had_claimed_another_one_fires(game: Game) {
    let mut callbacks = listen(&game.bus, "cb.game.once", Limits::WORKER).await;
    let body = json!({
        "event_id": "once", "callback_subject": "cb.game.once",
        "scheduled_time": {"year": 1, "month": 1, "day": 1, "hour": 8},
    });
    let (status, scheduled) = game.ask("POST", "/v1/schedules", body).await;
    assert_eq!(status, 200, "{scheduled}");
    // As it leaves the record: claimed, and never pushed.
    let bucket = game.bucket("tg_schedules").await;
    let [entry] = &bucket.list(&Keys::All).await.unwrap()[..] else { panic!("one schedule") };
    let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
    let at_ms = NOW_MS + MINUTE_MS;
    let scheduled_ms = record["value"]["next_ms"].take();
    record["value"]["claim"] =
        json!({ "occurrence": 1, "scheduled_ms": scheduled_ms, "at_ms": at_ms, "until_ms": at_ms + 5_000 });
    record["value"]["occurrence"] = 2.into();
    bucket.put(&entry.key, record.to_string().into(), Expected::Revision(entry.revision)).await.unwrap();

    game.pass(MINUTE_MS + 5_000);
    let fired = next(&mut callbacks).await.unwrap().unwrap();
    let id = format!("{}:1", scheduled["schedule_id"].as_str().unwrap());
    assert!(fired.payload.windows(id.len()).any(|part| part == id.as_bytes()), "{:?}", fired.payload);
    let path = format!("/v1/schedules/{}", scheduled["schedule_id"].as_str().unwrap());
    let reason = async || game.ask("DELETE", &path, Value::Null).await.1["error"]["details"]["reason"].clone();
    eventually("it counts as fired", async || reason().await == "fired").await;
    game.pass(60_000);
    let again = tokio::time::timeout(Duration::from_millis(300), callbacks.next()).await;
    assert!(again.is_err(), "it was fired twice");
}

async fn a_watch_of_time_tells_hours_and_jumps(game: Game) {
    let mut watch = game.watch("/v1/worlds/w1/time:watch").await;
    let mut hour = async || watch.next().await["game_time"]["hour"].clone();
    assert_eq!(hour().await, 7);
    game.pass(MINUTE_MS);
    assert_eq!(hour().await, 8);
    let evening = json!({"target_time": {"year": 1, "month": 1, "day": 1, "hour": 20}});
    game.ask("PUT", "/v1/worlds/w1/time", evening).await;
    assert_eq!(hour().await, 20);
}

async fn two_replicas_tell_a_change_of_weather_once(game: Game) {
    let path = "/v1/worlds/w1/zones/docks/weather";
    let mut watch = game.watch("/v1/worlds/w1/zones/docks/weather:watch").await;
    let mut item = async || {
        let item = watch.next().await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&item["change"]), text(&item["weather"]["condition_type"]))
    };
    assert_eq!(item().await, ("snapshot".to_owned(), "cloudy".to_owned()));
    let (_, weather) = game.ask("GET", path, Value::Null).await;
    let next_ms: i64 = weather["next_change_ms"].as_str().unwrap().parse().unwrap();
    game.pass(next_ms - NOW_MS);
    let (change, natural) = item().await;
    assert_eq!(change, "natural");
    assert_eq!(game.ask("GET", path, Value::Null).await.1["current_weather"]["condition_type"], natural);
    let storm = json!({"target_weather": {"condition_type": "Storm"}});
    assert_eq!(game.ask("PUT", path, storm.clone()).await.0, 200);
    assert_eq!(item().await, ("set".to_owned(), "storm".to_owned()));
    assert_eq!(game.ask("PUT", path, storm).await.0, 200);
    let minute = next_ms / MINUTE_MS;
    let ids = [format!("w1:docks:{minute}:{natural}"), format!("w1:docks:{minute}:storm")];
    game.told("evt.weather.changed.v1", &ids.each_ref().map(String::as_str)).await;
    let refused = json!({"target_weather": {"condition_type": "fog"}, "transition_seconds": 5});
    let (status, refused) = game.ask("PUT", path, refused).await;
    assert_eq!((status, &refused["error"]["details"]["reason"]), (400, &json!("conflicting_fields")));
    let (status, bad) = game.ask("GET", "/v1/worlds/w1/zones/_x/weather", Value::Null).await;
    assert_eq!((status, &bad["error"]["details"]["reason"]), (400, &json!("bad_id")));
}

async fn weather_goes_on_while_nobody_asks(game: Game) {
    let path = "/v1/worlds/w1/zones/docks/weather";
    let (_, weather) = game.ask("GET", path, Value::Null).await;
    let mut condition = weather["current_weather"]["condition_type"].as_str().unwrap().to_owned();
    let mut next_ms: i64 = weather["next_change_ms"].as_str().unwrap().parse().unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let now_ms = game.now_ms.load(Ordering::Relaxed);
        assert!(next_ms > now_ms && next_ms < NOW_MS + 20 * 60 * MINUTE_MS, "a change within the day: {next_ms}");
        // A moment before nothing has changed; then the change is told, and how long it will hold.
        game.pass(next_ms - now_ms - 1);
        game.told("evt.weather.changed.v1", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        game.pass(1);
        eventually("the change is told", async || game.ids("evt.weather.changed.v1").await.len() > ids.len()).await;
        let (id, metadata, changed) =
            game.last_event("evt.weather.changed.v1", "weather_manager.v1.WeatherCondition").await;
        let natural = changed["condition_type"].as_str().unwrap().to_owned();
        assert_eq!(id, format!("w1:docks:{}:{natural}", next_ms / MINUTE_MS));
        assert_eq!((&metadata["previous"], &metadata["cause"]), (&json!(condition), &json!("natural")));
        ids.push(id);
        condition = natural;
        next_ms += i64::from(changed["duration_minutes"].as_i64().unwrap() as i32) * MINUTE_MS;
    }
    let (_, weather) = game.ask("GET", path, Value::Null).await;
    assert_eq!(weather["current_weather"]["condition_type"], condition);
    assert_eq!(weather["next_change_ms"], next_ms.to_string());
    game.told("evt.weather.changed.v1", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

async fn a_watch_of_weather_begins_where_it_is_told_to(game: Game) {
    let path = |zone: &str| format!("/v1/worlds/w1/zones/{zone}/weather");
    game.ask("GET", &path("docks"), Value::Null).await;
    let watch =
        async |zone: &str, after: u64| game.watch(&format!("{}:watch?after_revision={after}", path(zone))).await;
    let text = |item: &Value, at: &str| item.pointer(at).unwrap().as_str().unwrap().to_owned();
    let revision_of = |item: &Value| text(item, "/revision").parse::<u64>().unwrap();
    let seen = revision_of(&watch("docks", 0).await.next().await);
    // A zone that begins behind the revision is told as it is, though nothing has changed in it.
    let harbour = watch("harbour", seen).await.next().await;
    assert_eq!(text(&harbour, "/change"), "snapshot");
    assert!(revision_of(&harbour) > seen, "{harbour}");
    // Of one that was there already, what has changed since.
    for condition in ["storm", "fog"] {
        let body = json!({"target_weather": {"condition_type": condition}});
        assert_eq!(game.ask("PUT", &path("docks"), body).await.0, 200);
    }
    let mut resumed = watch("docks", seen).await;
    for condition in ["storm", "fog"] {
        let item = resumed.next().await;
        let told = [text(&item, "/change"), text(&item, "/weather/condition_type")];
        assert_eq!(told, ["set".to_owned(), condition.to_owned()]);
    }
}

async fn a_season_comes_with_its_day(game: Game) {
    let season = async || game.ask("GET", "/v1/worlds/w1/weather", Value::Null).await.1["season"].clone();
    assert_eq!(season().await, "winter");
    let april = json!({"target_time": {"year": 1, "month": 4, "day": 1, "hour": 12}});
    game.ask("PUT", "/v1/worlds/w1/time", april).await;
    eventually("the season is told", async || season().await == "spring").await;
}

async fn of_twenty_merges_at_one_time_one_wins(game: Game) {
    let merge = async |body: Value| game.ask("PATCH", "/v1/worlds/w1/state", body).await;
    assert_eq!(merge(json!({"global_flags_to_update": {"curfew": "on"}})).await.0, 200);
    let race = (0..20).map(|n| {
        let entity = json!({"entity_id": format!("e{n}"), "entity_type": "npc"});
        merge(json!({"entities_to_update": [entity], "expected_timestamp_ms": NOW_MS.to_string()}))
    });
    let answers = futures_util::future::join_all(race).await;
    let winner = answers.iter().position(|(status, _)| *status == 200).expect("one wins");
    for (status, body) in answers.iter().enumerate().filter(|(n, _)| *n != winner).map(|(_, answer)| answer) {
        let current = &body["error"]["details"]["current_timestamp_ms"];
        assert_eq!((*status, current), (412, &json!((NOW_MS + 1).to_string())));
    }
    eventually("the world shows the winner's entity alone", async || {
        let (_, body) = game.ask("GET", "/v1/worlds/w1/state", Value::Null).await;
        let entities = body["world_state"]["entities"].as_array().cloned().unwrap_or_default();
        entities.iter().map(|entity| entity["entity_id"].clone()).collect::<Vec<_>>() == [format!("e{winner}")]
    })
    .await;
}

async fn a_merge_that_is_too_large_is_refused_whole(game: Game) {
    let properties: serde_json::Map<String, Value> =
        (0..60).map(|n| (format!("p{n}"), json!("x".repeat(4_000)))).collect();
    let entities: Vec<Value> =
        (0..3).map(|n| json!({"entity_id": format!("e{n}"), "properties": properties.clone()})).collect();
    let body = json!({"entities_to_update": entities, "global_flags_to_update": {"curfew": "on"}});
    let (status, refused) = game.ask("PATCH", "/v1/worlds/w1/state", body).await;
    assert_eq!((status, &refused["error"]["details"]["reason"]), (429, &json!("merge_too_large")));
    let (_, state) = game.ask("GET", "/v1/worlds/w1/state", Value::Null).await;
    assert_eq!(state, json!({"world_state": {"world_id": "w1"}}));
}

async fn a_replacement_tells_what_it_changed(game: Game) {
    let npc = |id: &str, mood: &str| json!({"entity_id": id, "entity_type": "npc", "properties": {"mood": mood}});
    let both = json!({"entities_to_update": [npc("ann", "calm"), npc("bob", "calm"), npc("cleo", "calm")]});
    game.ask("PATCH", "/v1/worlds/w1/state", both).await;
    let mut watch = game.watch("/v1/worlds/w1/state:watch").await;
    let mut item = async || {
        let item = watch.next().await;
        format!("{} {}", item["change"].as_str().unwrap(), item["entity"]["entity_id"].as_str().unwrap_or("-"))
    };
    for id in ["ann", "bob", "cleo"] {
        assert_eq!(item().await, format!("snapshot {id}"));
    }
    let others = json!({"entities_to_update": [npc("ann", "calm"), npc("bob", "afraid"), npc("dan", "calm")],
        "global_flags_to_update": {"curfew": "on"}});
    let (status, replaced) = game.ask("PUT", "/v1/worlds/w1/state", others).await;
    let timestamp = (NOW_MS + 1).to_string();
    let expected = json!({"entities_updated": 3, "flags_updated": 1, "new_timestamp_ms": timestamp});
    assert_eq!((status, replaced), (200, expected));
    for change in ["updated bob", "created dan", "removed cleo", "flags -"] {
        assert_eq!(item().await, change);
    }
    let mut told = Vec::new();
    eventually("every entity is told once", async || {
        told = game.ids("evt.world.entity.updated.v1").await;
        told.len() >= 6
    })
    .await;
    told.sort();
    let at = |id: &str, later: i64| format!("w1:{id}:{}", NOW_MS + later);
    assert_eq!(told, [at("ann", 0), at("bob", 0), at("bob", 1), at("cleo", 0), at("cleo", 1), at("dan", 1)]);
    let states = [format!("w1:{NOW_MS}"), format!("w1:{timestamp}")];
    game.told("evt.world.state.changed.v1", &states.each_ref().map(String::as_str)).await;
    let (status, empty) = game.ask("PUT", "/v1/worlds/w1/state", json!({})).await;
    assert_eq!((status, &empty["error"]["details"]["reason"]), (400, &json!("empty_replace")));
}

async fn a_subscription_gets_each_change_of_what_it_wants(game: Game) {
    let mut callbacks = listen(&game.bus, "cb.game.>", Limits::WORKER).await;
    let wish = json!({"entity_types": ["npc"], "tags": ["docks"], "callback_subject": "cb.game.w1"});
    let (status, subscribed) = game.ask("POST", "/v1/worlds/w1/subscriptions", wish).await;
    assert_eq!((status, &subscribed["expires_at_ms"]), (200, &json!((NOW_MS + 3_600_000).to_string())));
    let merge = async |id: &str, of_type: &str, tag: &str| {
        let entity = json!({"entity_id": id, "entity_type": of_type, "tags": [tag]});
        assert_eq!(game.ask("PATCH", "/v1/worlds/w1/state", json!({"entities_to_update": [entity]})).await.0, 200);
    };
    merge("gate", "object", "docks").await;
    merge("ann", "npc", "market").await;
    merge("bob", "npc", "docks").await;
    // It is told once more when it leaves the docks, and then no longer.
    merge("bob", "npc", "market").await;
    let mut pushed = async || {
        let event = next(&mut callbacks).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&event.payload).into_owned();
        ["bob", "ann", "gate", "eve"].into_iter().find(|id| text.contains(&format!("w1:{id}:"))).unwrap()
    };
    assert_eq!((pushed().await, pushed().await), ("bob", "bob"));
    merge("bob", "npc", "harbour").await;
    merge("eve", "npc", "docks").await;
    assert_eq!(pushed().await, "eve");
    let path = format!("/v1/worlds/w1/subscriptions/{}", subscribed["subscription_id"].as_str().unwrap());
    assert_eq!(game.ask("DELETE", &path, Value::Null).await, (200, json!({"success": true})));
    assert_eq!(game.ask("DELETE", &path, Value::Null).await.0, 404);
}

async fn a_commit_is_finished_where_its_writer_died(game: Game) {
    game.leave_commit("w1").await;
    let shown = async || game.ask("GET", "/v1/worlds/w1/state", Value::Null).await.1["world_state"].clone();
    assert_eq!(shown().await["entities"][0]["entity_id"], "ann");
    assert!(game.ids("evt.world.entity.updated.v1").await.is_empty());
    // The sweeper does it once the writer has had its time.
    game.pass(30_000);
    game.told("evt.world.entity.updated.v1", &[&format!("w1:ann:{NOW_MS}")]).await;
    game.told("evt.world.state.changed.v1", &[&format!("w1:{NOW_MS}")]).await;
    assert_eq!(shown().await["entities"][0]["entity_id"], "ann");
}

async fn simulated_hours_follow_each_other(game: Game) {
    let faction = |id: &str, level: &str, other: &str| {
        let properties = json!({"level": level, "territories": "2", format!("relations.{other}"): "-0.8"});
        json!({"entity_id": id, "entity_type": "object", "tags": ["faction"], "properties": properties})
    };
    let two = json!({"entities_to_update": [faction("ash", "80", "oak"), faction("oak", "20", "ash")]});
    assert_eq!(game.ask("PATCH", "/v1/worlds/w1/state", two).await.0, 200);
    let simulate = async |hours: i32| {
        let body = json!({"hours": hours, "seed": "7"});
        game.ask("POST", "/v1/worlds/w1:simulate", body).await
    };
    let (status, first) = simulate(1).await;
    assert_eq!(status, 200, "{first}");
    let log: Vec<&str> = first["log"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(log.contains(&"hour 1: oak surrendered against ash"), "{log:?}");
    let ash = &first["changes"]["entities"][0]["properties"];
    assert_eq!(
        (&ash["territories"], &ash["order"], &ash["relations.oak"]),
        (&json!("3"), &json!("expand"), &json!("-0.3"))
    );
    assert_eq!(
        first["changes"]["global_flags"].as_object().unwrap().keys().filter(|k| k.starts_with("price.")).count(),
        6
    );
    let (_, second) = simulate(2).await;
    let log: Vec<&str> = second["log"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(log.iter().all(|line| line.starts_with("hour 2:") || line.starts_with("hour 3:")), "{log:?}");
    assert_eq!(simulate(0).await.0, 400);
}

async fn a_long_simulation_fits_into_its_reply(game: Game) {
    const FACTIONS: usize = 60;
    let faction = |number: usize| {
        let properties = json!({"level": "50", "territories": "1"});
        json!({"entity_id": format!("faction{number:02}"), "entity_type": "object", "tags": ["faction"], "properties": properties})
    };
    let all = json!({"entities_to_update": (0..FACTIONS).map(faction).collect::<Vec<_>>()});
    assert_eq!(game.ask("PATCH", "/v1/worlds/w1/state", all).await.0, 200);
    let (status, week) = game.ask("POST", "/v1/worlds/w1:simulate", json!({"hours": 168, "seed": "7"})).await;
    assert_eq!(status, 200, "{}", week["error"]);
    let log: Vec<&str> = week["log"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let (last, told) = log.split_last().unwrap();
    // A line a faction and one of prices in each hour, and a line where an event starts.
    let left_out: usize = last.split_once(" lines more").unwrap().0.parse().unwrap();
    assert!((168 * (FACTIONS + 1)..168 * (FACTIONS + 2)).contains(&(told.len() + left_out)), "{} {last}", told.len());
    assert!(told.iter().map(|line| line.len()).sum::<usize>() <= 256 * 1024);
    assert_eq!(week["changes"]["entities"].as_array().unwrap().len(), FACTIONS);
}

/// Texts of 4000 bytes.
fn texts(count: usize, letter: &str) -> serde_json::Map<String, Value> {
    (0..count).map(|number| (format!("k{number:02}"), json!(letter.repeat(4_000)))).collect()
}

async fn a_large_entity_is_told_as_far_as_it_fits(game: Game) {
    let patch = async |body: Value| game.ask("PATCH", "/v1/worlds/w1/state", body).await.0;
    let state_data = base64::engine::general_purpose::STANDARD.encode(vec![7; 380 * 1024]);
    let ann = json!({"entity_id": "ann", "entity_type": "npc", "tags": ["docks"], "state_data": state_data});
    assert_eq!(patch(json!({"entities_to_update": [ann]})).await, 200);
    assert_eq!(patch(json!({"global_flags_to_update": {"curfew": "on"}})).await, 200, "the world goes on");
    let mut watch = game.watch("/v1/worlds/w1/state:watch").await;
    let snapshot = watch.next().await;
    assert_eq!((&snapshot["entity"]["entity_id"], snapshot["entity"].get("state_data")), (&json!("ann"), None));
    assert_eq!(patch(json!({"global_flags_to_update": texts(60, "x")})).await, 200);
    let flags = [watch.next().await, watch.next().await];
    assert_eq!(flags.map(|item| item["changed_flags"].as_object().unwrap().len()).iter().sum::<usize>(), 60);
    game.told("evt.world.entity.updated.v1", &[&format!("w1:ann:{NOW_MS}")]).await;
    let (_, metadata, told) = game.last_event("evt.world.entity.updated.v1", "world_state.v1.Entity").await;
    assert_eq!((&metadata["truncated"], &metadata["change"]), (&json!("true"), &json!("created")));
    assert_eq!((&told["tags"], told.get("state_data")), (&json!(["docks"]), None));
    let (_, state) = game.ask("GET", "/v1/worlds/w1/state", Value::Null).await;
    assert_eq!(state["world_state"]["entities"][0]["state_data"], state_data);
    assert_eq!(patch(json!({"remove_entity_ids": ["ann"]})).await, 200);
    assert_eq!(patch(json!({"global_flags_to_update": {"curfew": "off"}})).await, 200);
}

async fn a_large_commit_is_told_as_far_as_it_fits(game: Game) {
    let patch = async |body: Value| game.ask("PATCH", "/v1/worlds/w1/state", body).await.0;
    let entity = |id: &str| json!({"entity_id": id, "properties": texts(56, "x")});
    let large =
        json!({"entities_to_update": [entity("bob"), entity("cleo")], "global_flags_to_update": texts(45, "x")});
    assert_eq!(patch(large).await, 200);
    let dan = json!({"entity_id": "dan", "properties": texts(60, "x")});
    assert_eq!(patch(json!({"entities_to_update": [dan]})).await, 200, "the world goes on");
    let eve = json!({"entity_id": "eve", "properties": texts(55, "x")});
    assert_eq!(patch(json!({"entities_to_update": [eve]})).await, 200);
    let ids = [0, 1, 2].map(|later| format!("w1:{}", NOW_MS + later));
    game.told("evt.world.state.changed.v1", &ids.each_ref().map(String::as_str)).await;
    // The flags come whole with every page, so that fewer entities fit.
    let (mut told, mut token) = (Vec::new(), String::new());
    loop {
        let (status, page) =
            game.ask("GET", &format!("/v1/worlds/w1/state?page.page_token={token}"), Value::Null).await;
        assert_eq!((status, page["world_state"]["global_flags"].as_object().map_or(0, |flags| flags.len())), (200, 45));
        let entities = page["world_state"]["entities"].as_array().unwrap();
        told.push(entities.iter().map(|entity| entity["entity_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        match page["next_page_token"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(told, [vec!["bob", "cleo", "dan"], vec!["eve"]]);
}

async fn a_merge_counts_what_it_writes_and_not_what_was_there(game: Game) {
    for letter in ["x", "y", "z"] {
        let entity = |id: &str| json!({"entity_id": id, "properties": texts(60, letter)});
        let both = json!({"entities_to_update": [entity("ann"), entity("bob")]});
        let (status, updated) = game.ask("PATCH", "/v1/worlds/w1/state", both).await;
        assert_eq!((status, &updated["entities_updated"]), (200, &json!(2)), "{updated}");
    }
    let (status, removed) =
        game.ask("PATCH", "/v1/worlds/w1/state", json!({"remove_entity_ids": ["ann", "bob"]})).await;
    assert_eq!((status, &removed["entities_updated"]), (200, &json!(2)));
    eventually("each change is told", async || game.ids("evt.world.entity.updated.v1").await.len() == 8).await;
    let (_, metadata, told) = game.last_event("evt.world.entity.updated.v1", "world_state.v1.Entity").await;
    assert_eq!((&metadata["change"], &told["properties"]["k00"]), (&json!("removed"), &json!("z".repeat(4_000))));
}

async fn thresholds_of_the_simulation_are_compared_after_rounding(game: Game) {
    let faction = |id: &str, properties: Value| json!({"entity_id": id, "entity_type": "object", "tags": ["faction"], "properties": properties});
    // A power of 0.7, which is 0.7000000000000001 in doubles, and one of 0.2.
    let strong = faction("strong", json!({"territories": "7"}));
    let weak = faction("weak", json!({"level": "10", "npcs": "50"}));
    assert_eq!(game.ask("PATCH", "/v1/worlds/w1/state", json!({"entities_to_update": [strong, weak]})).await.0, 200);
    let (_, hour) = game.ask("POST", "/v1/worlds/w1:simulate", json!({"hours": 1, "seed": "7"})).await;
    let properties = |index: usize| &hour["changes"]["entities"][index]["properties"];
    assert_eq!(properties(0)["order"], "keep", "{hour}");
    // 0.05 of power is a level of 2.5 where each of 50 characters adds a fiftieth.
    assert_eq!((&properties(1)["order"], &properties(1)["level"]), (&json!("consolidate"), &json!("12.5")));
}

async fn a_world_that_cannot_be_settled_keeps_no_other_from_it(game: Game) {
    game.leave("tg_worlds", "_.a.e.g.ann", json!("no entity")).await;
    game.leave_commit("a").await;
    game.leave_commit("b").await;
    let shown = async || game.ask("GET", "/v1/worlds/b/state", Value::Null).await.1["world_state"].clone();
    assert_eq!(shown().await["entities"][0]["entity_id"], "ann");
    game.pass(30_000);
    game.told("evt.world.entity.updated.v1", &[&format!("b:ann:{NOW_MS}")]).await;
}

async fn a_world_whose_hour_cannot_be_told_keeps_no_other_from_it(game: Game) {
    for world in ["a", "b"] {
        game.ask("GET", &format!("/v1/worlds/{world}/time"), Value::Null).await;
    }
    game.leave("tg_time", "_.a.tick", json!("no tick")).await;
    game.pass(MINUTE_MS);
    game.told("evt.time.hour.changed.v1", &["b:h:0:8"]).await;
    game.pass(MINUTE_MS);
    game.told("evt.time.hour.changed.v1", &["b:h:0:8", "b:h:0:9"]).await;
}

async fn a_zone_that_cannot_be_written_keeps_no_other_from_it(game: Game) {
    let next_ms = async |world: &str| -> i64 {
        let (_, weather) = game.ask("GET", &format!("/v1/worlds/{world}/zones/docks/weather"), Value::Null).await;
        weather["next_change_ms"].as_str().unwrap().parse().unwrap()
    };
    let times = [next_ms("a").await, next_ms("b").await];
    let (first, other) = if times[0] < times[1] { ("a", "b") } else { ("b", "a") };
    game.leave("tg_weather", &format!("_.{first}._season"), json!("no season")).await;
    game.pass(times[0].max(times[1]) - NOW_MS);
    eventually("the other world's change is told", async || {
        game.ids("evt.weather.changed.v1").await.iter().any(|id| id.starts_with(&format!("{other}:docks:")))
    })
    .await;
}

async fn weather_on_its_way_stays_so_when_it_is_set_again(game: Game) {
    let path = "/v1/worlds/w1/zones/pass/weather";
    let gradual = json!({"target_weather": {"condition_type": "blizzard"},
        "gradual_transition": true, "transition_seconds": 600});
    assert_eq!(game.ask("PUT", path, gradual.clone()).await.0, 200);
    game.pass(150_000);
    assert_eq!(game.ask("PUT", path, gradual).await.0, 200);
    let (_, weather) = game.ask("GET", path, Value::Null).await;
    let weather = &weather["current_weather"];
    assert_eq!((&weather["condition_type"], &weather["duration_minutes"]), (&json!("cloudy"), &json!(60)), "{weather}");
    game.pass(450_000);
    let (_, weather) = game.ask("GET", path, Value::Null).await;
    assert_eq!(weather["current_weather"]["intensity"], 1.0, "{weather}");
    game.told("evt.weather.changed.v1", &[&format!("w1:pass:{}:blizzard", NOW_MS / MINUTE_MS)]).await;
}

async fn weather_that_is_set_anew_is_of_the_season(game: Game) {
    let set = async |condition: &str| {
        let body = json!({"target_weather": {"condition_type": condition, "duration_minutes": 1_440}});
        let (status, applied) = game.ask("PUT", "/v1/worlds/w1/zones/pass/weather", body).await;
        assert_eq!(status, 200, "{applied}");
        applied["applied_weather"]["temperature_celsius"].as_f64().unwrap_or(0.0)
    };
    assert_eq!(set("storm").await, -2.5);
    let april = json!({"target_time": {"year": 1, "month": 4, "day": 1, "hour": 12}});
    game.ask("PUT", "/v1/worlds/w1/time", april).await;
    let season = async || game.ask("GET", "/v1/worlds/w1/weather", Value::Null).await.1["season"].clone();
    eventually("the season is told", async || season().await == "spring").await;
    assert_eq!(set("fog").await, 12.5);
}

#[tokio::test]
async fn a_world_that_cannot_be_simulated_keeps_no_other_from_it() {
    let game = support::replicas::Replicas::embedded(&[("world-state.simulation.enabled", json!(true))]).await;
    let update = async |world_id: &str, entities: Vec<Value>| {
        let flags = json!({"curfew": "on"});
        let request = json!({"world_id": world_id, "merge": true, "entities_to_update": entities,
            "global_flags_to_update": flags});
        let reply = game.ask("svc.world.v1.update_state", request).await;
        assert!(reply.get("error").is_none(), "{reply}");
    };
    // Three factions that do not fit into one merge.
    for id in ["ash", "elm", "oak"] {
        let faction =
            json!({"entity_id": id, "entity_type": "object", "tags": ["faction"], "properties": texts(60, "x")});
        update("a", vec![faction]).await;
    }
    update("b", Vec::new()).await;
    eventually("the other world has prices", async || {
        let reply = game.ask("svc.world.v1.get_state", json!({"world_id": "b"})).await;
        reply["world_state"]["global_flags"].get("price.energy").is_some()
    })
    .await;
}
