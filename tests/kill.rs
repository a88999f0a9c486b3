//! kill -9 at the three places where a change could be lost or made twice: before its compare-and-set, between that and
//! its event, and between the event and the reply. Real processes, on a real nats-server and on disk. Once the caller
//! repeats with its key, the change is there once, its event is there once, and the reply is the same ever after.
#![cfg(debug_assertions)]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::eventually;
use support::nats::NatsServer;
use support::program::Program;
use tidegate::bus::Bus;
use tidegate::services::events::LOGS;
use tidegate::store::{LogConfig, Store};

/// The places, and whether the change is there when the process is killed in them.
const PLACES: [(&str, bool); 3] = [("before_commit", false), ("after_commit", true), ("after_events", true)];
/// The marker of a call that was killed lapses after a minute; until then its key is busy.
const BUSY_MAX: Duration = Duration::from_secs(90);
const BUILT_IN: [&str; 2] = ["--routes", "built-in"];

/// Where a service with its gateway runs, and is killed.
enum Site {
    Nats { server: Box<NatsServer>, gateway: Box<Program>, worker: Option<Program> },
    Disk { folder: tempfile::TempDir, program: Option<Program> },
}

impl Site {
    fn nats() -> Site {
        let server = Box::new(NatsServer::start());
        let gateway = Box::new(Program::start(&[&["serve", "--nats", server.url()], &BUILT_IN[..]].concat()));
        Site::Nats { server, gateway, worker: None }
    }

    fn disk() -> Site {
        Site::Disk { folder: tempfile::tempdir().unwrap(), program: None }
    }

    /// Starts the service, to be stopped at a place where one is named.
    async fn start(&mut self, fail_at: &str) {
        let variable = ("TIDEGATE_FAIL_AT", fail_at);
        match self {
            Site::Nats { server, worker, .. } => {
                let arguments = [&["state-manager", "--nats", server.url()], &BUILT_IN[..]].concat();
                *worker = Some(Program::worker(&[variable], &arguments));
            }
            Site::Disk { folder, program } => {
                let arguments = [&["dev", "--data", folder.path().to_str().unwrap()], &BUILT_IN[..]].concat();
                *program = Some(Program::start_with(&[variable], &arguments));
            }
        }
        let url = format!("http://{}/v1/players/nobody/state", self.address());
        eventually("the service is there", async || reqwest::get(&url).await.unwrap().status() == 404).await;
    }

    fn service(&mut self) -> &mut Program {
        let (Site::Nats { worker: program, .. } | Site::Disk { program, .. }) = self;
        program.as_mut().unwrap()
    }

    fn address(&mut self) -> String {
        match self {
            Site::Nats { gateway, .. } => gateway.address.clone(),
            Site::Disk { .. } => self.service().address.clone(),
        }
    }

    async fn end(&mut self, signal: &str) {
        let program = self.service();
        program.signal(signal);
        eventually("the process has ended", async || program.ended().is_some()).await;
    }

    /// The ids of all events of players' states.
    async fn events(&self) -> Vec<String> {
        let store = match self {
            Site::Nats { server, .. } => Store::of(&server.bus().await),
            Site::Disk { folder, .. } => Store::on_disk(&Bus::embedded(), folder.path()).unwrap(),
        };
        let log: LogConfig = LOGS[0].clone();
        store.provide_log(log.clone()).await.unwrap();
        let (last, mut position, mut ids) = (store.log_figures(log.name).await.unwrap().last, 0, Vec::new());
        while position < last {
            let event = store.event_after(log.name, position).await.unwrap().unwrap();
            position = event.sequence;
            if event.subject.as_str() == "evt.state.player.updated.v1" {
                ids.push(event.headers.get("Nats-Msg-Id").unwrap().to_owned());
            }
        }
        ids
    }
}

/// Status and body of a write, without what is the call's own.
async fn put(address: &str, key: &str, money: u64) -> Option<(u16, Value)> {
    let url = format!("http://{address}/v1/players/p1/state");
    let body = json!({ "state": { "money": money } }).to_string();
    let request = reqwest::Client::new().put(url).header("content-type", "application/json");
    let answer = request.header("idempotency-key", key).body(body).send().await.ok()?;
    let status = answer.status().as_u16();
    let mut body: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    for own in ["meta", "request_id"] {
        body.as_object_mut().unwrap().remove(own);
    }
    Some((status, body))
}

async fn version(address: &str) -> Option<String> {
    let answer = reqwest::get(format!("http://{address}/v1/players/p1/state")).await.unwrap();
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["version"].as_str().map(str::to_owned)
}

async fn killed_in(mut site: Site, place: &str, is_there: bool) {
    site.start(&format!("{place}:tg_state")).await;
    let address = site.address();
    let lost = tokio::spawn(async move { put(&address, "first", 7).await });
    let program = site.service();
    eventually("the change has come to the place", async || program.has_logged("stopped to be killed")).await;
    site.end("KILL").await;
    lost.abort();

    site.start("").await;
    let address = site.address();
    assert_eq!(version(&address).await, is_there.then(|| "1".to_owned()), "{place}");
    let (start, mut refused) = (Instant::now(), 0);
    let first = loop {
        let (status, body) = put(&address, "first", 7).await.unwrap();
        if body["error"]["details"]["reason"] != "in_progress" {
            break (status, body);
        }
        refused += 1;
        assert!(start.elapsed() < BUSY_MAX, "{place}: the key is busy for ever");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(refused > 0, "{place}: the call that was killed holds its key for a while");
    assert_eq!(first, (200, json!({ "ok": true, "new_version": "1" })), "{place}");
    assert_eq!(put(&address, "first", 7).await.unwrap(), first, "{place}");
    let (status, other) = put(&address, "first", 8).await.unwrap();
    assert_eq!((status, &other["error"]["details"]["reason"]), (409, &json!("key_reused")), "{place}");
    let second = put(&address, "second", 9).await.unwrap();
    assert_eq!(second, (200, json!({ "ok": true, "new_version": "2" })), "{place}");
    site.end("TERM").await;
    let ids = site.events().await;
    assert_eq!(ids.len(), 2, "{place}: an event for each change, {ids:?}");
    assert_ne!(ids[0], ids[1], "{place}");
}

async fn killed_in_each(site: impl Fn() -> Site) {
    let [one, two, three] = PLACES.map(|(place, is_there)| killed_in(site(), place, is_there));
    tokio::join!(one, two, three);
}

#[tokio::test]
async fn killed_on_nats_nothing_is_lost_and_nothing_repeated() {
    killed_in_each(Site::nats).await;
}

#[tokio::test]
async fn killed_on_disk_nothing_is_lost_and_nothing_repeated() {
    killed_in_each(Site::disk).await;
}

/// Nobody repeats the call: another replica finds what the change had still to tell.
#[tokio::test]
async fn an_event_that_a_killed_process_owed_is_told_by_the_next_one() {
    let mut site = Site::nats();
    site.start("after_commit:tg_state").await;
    let address = site.address();
    let lost = tokio::spawn(async move { put(&address, "first", 7).await });
    let program = site.service();
    eventually("the change has come to the place", async || program.has_logged("stopped to be killed")).await;
    site.end("KILL").await;
    lost.abort();
    assert_eq!(site.events().await, Vec::<String>::new());
    site.start("").await;
    eventually("the event is there", async || site.events().await.len() == 1).await;
}
