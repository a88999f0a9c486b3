//! Health of services as the router's calls find it, and jobs. What the service answers is in `tests/examples.rs`.

use crate::support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::replicas::Replicas;
use support::{calls, eventually, gateway, project, url};
use tidegate::bus::{Bus, Limits};
use tidegate::gateway::Running;
use tidegate::services::{LiveSettings, roster};
use tidegate::worker::{Options, Worker};

const NOW_MS: i64 = 1_760_000_000_000;

/// A gateway and two replicas of the router alone.
struct Game {
    bus: Bus,
    running: Running,
    client: reqwest::Client,
    now_ms: Arc<AtomicI64>,
    _replicas: Vec<Worker>,
}

impl Game {
    async fn start() -> Game {
        let (bus, now_ms) = (Bus::embedded(), Arc::new(AtomicI64::new(NOW_MS)));
        let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
        let mut replicas = Vec::new();
        let mut options = Options::new(bus.clone(), Arc::new(project().build(None).unwrap()));
        let clock = now_ms.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        for instance in ["one", "two"] {
            instance.clone_into(&mut options.instance);
            let services = roster(&options.store, &LiveSettings::default(), |name| name == "router").await.unwrap();
            replicas.push(Worker::start(options.clone(), services).await.unwrap_or_else(|error| panic!("{error}")));
        }
        Game { bus, running, client: reqwest::Client::new(), now_ms, _replicas: replicas }
    }

    /// Routes an empty request to the quest system.
    async fn route(&self, hints: Value) -> (u16, Value) {
        let path = "/v1/services/quest-system/operations/generate:route";
        let body = json!({"routing_hints": hints, "timeout_ms": 50}).to_string();
        let request = self.client.post(url(&self.running, path)).header("content-type", "application/json");
        let answer = request.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(url(&self.running, path)).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn is_healthy(&self) -> bool {
        let health = self.get("/v1/services:health").await;
        let services = health["services"].as_array().unwrap();
        assert_eq!(services.len(), 22);
        services.iter().any(|one| one["service_name"] == "quest-system" && one["is_healthy"] == true)
    }
}

#[tokio::test]
async fn five_timeouts_make_a_service_unhealthy_and_one_trial_a_minute_later_healthy() {
    let game = Game::start().await;
    let answers = Arc::new(AtomicBool::new(false));
    let does_answer = answers.clone();
    calls::worker(&game.bus, "svc.quest.v1.generate", move |delivery| match does_answer.load(Ordering::Relaxed) {
        true => vec![calls::answer(&delivery, &calls::quest("The Hunt"))],
        false => Vec::new(),
    })
    .await;
    for _ in 0..5 {
        let (status, reply) = game.route(json!({})).await;
        assert_eq!((status, &reply["error"]["details"]["reason"]), (504, &json!("timeout")), "{reply}");
    }
    // Whichever replica is asked knows what both have seen, a second later at most.
    let refused = async || game.route(json!({})).await.1["error"]["details"]["reason"] == "unhealthy";
    for _ in 0..4 {
        eventually("calls are refused", refused).await;
    }
    assert!(!game.is_healthy().await);

    answers.store(true, Ordering::Relaxed);
    game.now_ms.fetch_add(60_000, Ordering::Relaxed);
    eventually("a trial works", async || game.route(json!({})).await.0 == 200).await;
    eventually("it is healthy", async || game.is_healthy().await).await;
}

#[tokio::test]
async fn a_job_is_answered_at_once_and_keeps_its_result() {
    let game = Game::start().await;
    calls::worker(&game.bus, "svc.quest.v1.generate", |delivery| {
        vec![calls::answer(&delivery, &calls::quest("The Hunt"))]
    })
    .await;
    let (status, reply) = game.route(json!({"sla": "async"})).await;
    assert_eq!((status, &reply["routed_to"]), (200, &json!("bronze")), "{reply}");
    let path = format!("/v1/jobs/{}", reply["job_id"].as_str().unwrap());
    eventually("the job is done", async || game.get(&path).await["status"] == "completed").await;
    let done = game.get(&path).await;
    // `quest { title: "The Hunt" }`.
    assert_eq!(done["result"]["response_payload"], "EgoSCFRoZSBIdW50");
    let refused = async |job_id: &str| {
        let error = game.get(&format!("/v1/jobs/{job_id}")).await["error"].take();
        ["code", "message"].map(|name| error[name].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refused("job_0").await, ["NOT_FOUND", "job job_0 does not exist"]);
    let text = "job_id must have 1 to 128 bytes, without white space, `*` or `>`";
    assert_eq!(refused("job%20x").await, ["INVALID_ARGUMENT", text]);
}

/// An empty request means the world `default` to some services; a probe must not make one.
#[tokio::test]
async fn a_probe_of_an_idle_service_leaves_nothing_behind() {
    let game = Replicas::embedded(&[]).await;
    let mut probes = Vec::new();
    for subject in ["svc.time.v1.get_time", "svc.weather.v1.get_weather", "svc.state.manager.v1.get"] {
        probes.push(calls::listen(&game.bus, subject, Limits::WORKER).await);
    }
    // The second one comes when the first has long been answered. An answer counts as a call of its own time.
    for _ in 0..2 {
        for probe in &mut probes {
            eventually("an idle service is probed", async || {
                game.pass(Duration::from_secs(31));
                tokio::time::timeout(Duration::from_secs(2), probe.next()).await.is_ok()
            })
            .await;
        }
    }
    for bucket in ["tg_time", "tg_weather", "tg_state"] {
        assert_eq!(game.held(bucket).await, Vec::<String>::new(), "{bucket}");
    }
    let health = game.ask("svc.router.v1.health", json!({})).await;
    let is_healthy = |name: &&str| {
        let services = health["services"].as_array().unwrap();
        services.iter().any(|one| one["service_name"] == **name && one["is_healthy"] == true)
    };
    let well: Vec<&str> = ["time-manager", "weather-manager", "state-manager"].into_iter().filter(is_healthy).collect();
    assert_eq!(well, ["time-manager", "weather-manager", "state-manager"], "{health}");
}

#[tokio::test]
async fn a_watch_of_health_tells_all_then_each_service_that_turns() {
    let game = Game::start().await;
    let answers = Arc::new(AtomicBool::new(true));
    let does_answer = answers.clone();
    calls::worker(&game.bus, "svc.quest.v1.generate", move |delivery| match does_answer.load(Ordering::Relaxed) {
        true => vec![calls::answer(&delivery, &calls::quest("The Hunt"))],
        false => Vec::new(),
    })
    .await;
    assert_eq!(game.route(json!({})).await.0, 200);
    eventually("it is known to be well", async || game.is_healthy().await).await;
    let watch = game.client.get(url(&game.running, "/v1/services:watchHealth")).send().await.unwrap();
    assert_eq!(watch.status(), 200);
    let (mut bytes, mut seen) = (watch.bytes_stream(), String::new());
    let mut item = async || 'item: loop {
        while let Some((line, rest)) = seen.split_once('\n') {
            let item = line.strip_prefix("data:").map(|item| serde_json::from_str::<Value>(item).unwrap());
            seen = rest.to_owned();
            if let Some(item) = item {
                let rows = item["services"].as_array().cloned().unwrap_or_default().into_iter();
                break 'item rows
                    .map(|row| (row["service_name"].as_str().unwrap().to_owned(), row["is_healthy"] == true))
                    .collect::<Vec<_>>();
            }
        }
        seen.push_str(std::str::from_utf8(&bytes.next().await.expect("the watch goes on").unwrap()).unwrap());
    };
    let mut next = async || tokio::time::timeout(support::PATIENCE, item()).await.expect("the watch is silent");
    let first = next().await;
    assert_eq!(first.len(), 22);
    let mut told: BTreeMap<String, bool> = first.into_iter().collect();
    // The replica that serves the watch may hear a second later what the other one has seen.
    while !told["quest-system"] {
        told.extend(next().await);
    }
    let well: Vec<&str> = told.iter().filter(|row| *row.1).map(|row| row.0.as_str()).collect();
    assert_eq!(well, ["quest-system", "router"]);

    answers.store(false, Ordering::Relaxed);
    let refused = async || game.route(json!({})).await.1["error"]["details"]["reason"] == "unhealthy";
    eventually("calls are refused", refused).await;
    assert_eq!(next().await, [("quest-system".to_owned(), false)]);
    answers.store(true, Ordering::Relaxed);
    game.now_ms.fetch_add(60_000, Ordering::Relaxed);
    eventually("a trial works", async || game.route(json!({})).await.0 == 200).await;
    assert_eq!(next().await, [("quest-system".to_owned(), true)]);
}
