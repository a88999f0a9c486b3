//! Services that make themselves known: what the registry shows of them while they run, and once they have ended.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use support::{eventually, gateway, project, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::services::{LiveSettings, Settings, roster};
use tidegate::snapshot::Live;
use tidegate::worker::{Options, Worker};

/// Starts these services as a process of their own.
async fn worker(
    bus: &Bus,
    live: &Arc<Live>,
    store: &tidegate::store::Store,
    names: &[&str],
    registers: bool,
) -> Worker {
    let settings: LiveSettings = Settings::with([("common.register", &json!(registers))]).unwrap().into();
    let mut options = Options::new(bus.clone(), live.pin());
    options.store = store.clone();
    options.instance = "r1".to_owned();
    let services = roster(&options.store, &settings, |name| names.contains(&name)).await.unwrap();
    Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The registrations of operations, by service.
async fn registered(running: &Running) -> Vec<Value> {
    let path = "/v1/registrations?capability_type=operation&include_offline=true";
    let answer = reqwest::get(url(running, path)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["services"].as_array().cloned().unwrap_or_default()
}

fn names(registered: &[Value]) -> BTreeSet<&str> {
    registered.iter().map(|row| row["service_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn services_are_known_while_they_run() {
    let bus = Bus::embedded();
    let store = Options::new(bus.clone(), Arc::new(project().build(None).unwrap())).store;
    let (running, live) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
    let registry = worker(&bus, &live, &store, &["capability-registry"], true).await;
    let quests = worker(&bus, &live, &store, &["quest-system"], true).await;
    let silent = worker(&bus, &live, &store, &["auth"], false).await;
    eventually("both are registered", async || registered(&running).await.len() == 2).await;
    let rows = registered(&running).await;
    assert_eq!(names(&rows), BTreeSet::from(["capability-registry@r1", "quest-system@r1"]));
    let quest = rows.iter().find(|row| row["service_id"] == "quest-system@r1").unwrap();
    assert_eq!(quest["is_online"], true);
    assert_eq!(quest["metadata"]["version"], env!("CARGO_PKG_VERSION"));
    let methods = &live.pin().services.iter().find(|row| &*row.short_name == "quest-system").unwrap().methods.clone();
    let offered: BTreeSet<&str> = quest["capabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["parameters"]["subject"].as_str().unwrap())
        .collect();
    assert_eq!(offered, methods.iter().map(|method| method.subject.as_str()).collect());
    let generate = quest["capabilities"].as_array().unwrap().iter().find(|row| row["capability_id"] == "generate");
    assert_eq!(generate.unwrap()["capability_type"], "operation");
    quests.drain().await;
    assert_eq!(names(&registered(&running).await), BTreeSet::from(["capability-registry@r1"]));
    drop((registry, silent));
}
