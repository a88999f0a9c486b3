//! Writers who race for one document, over HTTP and over the bus, through two replicas: each of them succeeds, or is told
//! the version that stands in its way; nothing is lost. On the embedded store, on disk and on a real nats-server.

mod support;

use serde_json::{Value, json};
use support::project;
use support::replicas::Replicas;
use tidegate::gateway::Running;

const WRITERS: u64 = 20;

/// Two replicas, and a gateway in front of them.
struct Setup {
    replicas: Replicas,
    gateway: Running,
    client: reqwest::Client,
}

impl Setup {
    async fn start(replicas: Replicas) -> Setup {
        let snapshot = project().build(None).unwrap_or_else(|_| panic!("the tables are refused"));
        let (gateway, _) = support::gateway(snapshot, &replicas.bus, |_| {}).await;
        Setup { replicas, gateway, client: reqwest::Client::new() }
    }

    /// A write: every other one comes over HTTP. Gives the reply without its context.
    async fn write(&self, writer: u64, expected_version: u64) -> Value {
        let state = json!({ "writer": writer });
        if writer.is_multiple_of(2) {
            let player = json!({ "player_id": "p1", "state": state });
            let request = json!({ "player": player, "op": "UPSERT", "expected_version": expected_version });
            return self.replicas.ask("svc.state.manager.v1.update", request).await;
        }
        let url = support::url(&self.gateway, "/v1/players/p1/state");
        let mut request = self.client.put(url).header("content-type", "application/json");
        if expected_version > 0 {
            request = request.header("if-match", format!("\"{expected_version}\""));
        }
        let answer = request.body(json!({ "state": state }).to_string()).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn race(&self, expected_version: u64) -> Vec<Value> {
        futures_util::future::join_all((0..WRITERS).map(|writer| self.write(writer, expected_version))).await
    }

    async fn version(&self) -> u64 {
        let found = self.replicas.ask("svc.state.manager.v1.get", json!({ "player_id": "p1" })).await;
        found["version"].as_str().unwrap().parse().unwrap()
    }
}

fn version_of(reply: &Value) -> Option<u64> {
    reply["new_version"].as_str()?.parse().ok()
}

async fn whoever_races_succeeds_or_is_told_the_version(replicas: Replicas) {
    let setup = Setup::start(replicas).await;
    let replies = setup.race(0).await;
    let mut versions: Vec<u64> =
        replies.iter().map(|reply| version_of(reply).unwrap_or_else(|| panic!("a writer gave up: {reply}"))).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=WRITERS).collect::<Vec<_>>(), "each writer has a version of its own");
    assert_eq!(setup.version().await, WRITERS);

    // All of them want to follow the same version: one can.
    let replies = setup.race(WRITERS).await;
    let (won, lost): (Vec<&Value>, Vec<&Value>) = replies.iter().partition(|reply| reply["ok"] == true);
    assert_eq!(won.len(), 1, "{replies:?}");
    assert_eq!(version_of(won[0]), Some(WRITERS + 1));
    for reply in lost {
        let (error, current) = (&reply["error"], (WRITERS + 1).to_string());
        assert_eq!(error["code"], "FAILED_PRECONDITION", "{reply}");
        assert_eq!(error["message"], format!("version is {current}, expected {WRITERS}"), "{reply}");
        assert_eq!(error["details"]["current_version"], current, "{reply}");
    }
    assert_eq!(setup.version().await, WRITERS + 1);
}

#[tokio::test]
async fn on_the_embedded_store() {
    whoever_races_succeeds_or_is_told_the_version(Replicas::embedded(&[]).await).await;
}

#[tokio::test]
async fn on_disk() {
    whoever_races_succeeds_or_is_told_the_version(Replicas::disk(&[]).await).await;
}

#[tokio::test]
async fn on_a_nats_server() {
    whoever_races_succeeds_or_is_told_the_version(Replicas::nats(&[]).await).await;
}
