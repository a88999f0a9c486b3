//! A gateway of several threads is one gateway: connections are spread evenly, limits hold over all of them, and all of
//! them drain.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::calls::{answer, listen, next};
use support::nats::NatsServer;
use support::program::Program;
use support::{PATIENCE, eventually};
use tidegate::bus::{Bus, Limits};

const THREADS: usize = 3;
const CONNECTIONS: usize = 12;
const ASK: &str = r#"{"prompt": "x", "params": {"stream": true}}"#;

/// A gateway of three threads with all its connections, as a server sees them.
async fn gateway(server: &NatsServer, arguments: &[&str]) -> Program {
    let common = ["serve", "--nats", server.url(), "--threads", "3", "--grace", "10"];
    let program = Program::start(&[&common, arguments].concat());
    eventually("each thread has its connection and its lane", async || {
        messages_by_name(server).await.len() == THREADS && connections_of_gateways(server).await == 2 * THREADS
    })
    .await;
    program
}

async fn rows(server: &NatsServer) -> Vec<serde_json::Value> {
    let said = server.monitored("/connz").await.unwrap();
    let is_gateways =
        |row: &&serde_json::Value| row["name"].as_str().unwrap_or_default().starts_with("tidegate gateway");
    said["connections"].as_array().unwrap().iter().filter(is_gateways).cloned().collect()
}

async fn connections_of_gateways(server: &NatsServer) -> usize {
    rows(server).await.len()
}

/// What came in over the connections of each name.
async fn messages_by_name(server: &NatsServer) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for row in rows(server).await {
        // A lane has its gateway's name and says what it is for.
        let name = row["name"].as_str().unwrap().trim_end_matches(" requests");
        *sums.entry(name.to_owned()).or_default() += row["in_msgs"].as_u64().unwrap();
    }
    sums
}

/// Answers every request to a subject with nothing.
async fn answering(bus: &Bus, subject: &'static str) {
    let mut requests = listen(bus, subject, Limits::WORKER).await;
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            bus.publish(answer(&request, b"")).await.unwrap();
        }
    });
}

/// Clients with a connection each, which stay open as long as they are there.
fn clients() -> Vec<reqwest::Client> {
    (0..CONNECTIONS).map(|_| reqwest::Client::new()).collect()
}

#[tokio::test]
async fn connections_are_spread_evenly_over_threads_with_a_bus_connection_each() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    answering(&workers, "svc.quest.v1.generate").await;
    let program = gateway(&server, &["--routes", "built-in"]).await;
    let before = messages_by_name(&server).await;
    let clients = clients();
    for client in &clients {
        let answer = client.post(format!("http://{}/quest/generate", program.address)).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let after = messages_by_name(&server).await;
    let names = ["tidegate gateway", "tidegate gateway, thread 2", "tidegate gateway, thread 3"];
    assert_eq!(after.keys().collect::<Vec<_>>(), names);
    for name in names {
        assert_eq!(after[name] - before[name], (CONNECTIONS / THREADS) as u64, "requests of `{name}`");
    }
    program.end();
}

#[tokio::test]
async fn a_limit_of_a_route_holds_over_all_threads() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    answering(&workers, "svc.quest.v1.generate").await;
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.yaml");
    let text = "version: 1
routes:
  - route: POST /quests
    call: quest.v1.QuestService/GenerateQuest
    body: '*'
    policies: { rate: { requests: 5, per: 3600s, burst: 5 } }
";
    std::fs::write(&routes, text).unwrap();
    let descriptors = concat!(env!("CARGO_MANIFEST_DIR"), "/descriptors");
    let program = gateway(&server, &["--routes", routes.to_str().unwrap(), "--descriptors", descriptors]).await;
    let mut statuses = Vec::new();
    let clients = clients();
    for client in &clients {
        let answer = client.post(format!("http://{}/quests", program.address)).body("{}").send().await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [[200; 5].as_slice(), &[429; 7]].concat());
    program.end();
}

#[tokio::test]
async fn streams_of_all_threads_are_ended_and_told_why_when_the_gateway_drains() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    let mut asked = listen(&workers, "svc.ai.llm.v1.infer", Limits::WORKER).await;
    let program = gateway(&server, &["--routes", "built-in"]).await;
    let mut streams = Vec::new();
    for client in clients() {
        let request = client.post(format!("http://{}/ai/llm/infer", program.address)).body(ASK).send();
        let stream = tokio::spawn(async move { request.await.unwrap().text().await.unwrap() });
        let request = next(&mut asked).await.unwrap().unwrap();
        workers.publish(answer(&request, b"\x2a\x02Hi")).await.unwrap();
        streams.push(stream);
    }
    let metrics =
        async || reqwest::get(format!("http://{}/metrics", program.admin)).await.unwrap().text().await.unwrap();
    eventually("all streams are open", async || {
        metrics().await.lines().any(|line| line.starts_with("tidegate_streams_open") && line.ends_with(" 12"))
    })
    .await;
    let ended = tokio::task::spawn_blocking(|| program.end());
    for stream in streams {
        let text = tokio::time::timeout(PATIENCE, stream).await.unwrap().unwrap();
        assert!(text.contains("Hi") && text.contains("event: end"), "{text}");
        assert!(text.contains("draining"), "{text}");
    }
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("within its grace").unwrap();
}
