//! What whole-system tests share: a real nats-server, a gateway in the process, raw workers, an HTTP client.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test uses its part")]

pub mod calls;
pub mod collector;
pub mod fleet;
pub mod http2;
pub mod model;
pub mod nats;
pub mod place;
pub mod program;
pub mod proxy;
pub mod redis;
pub mod replicas;
pub mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::bus::{Branch, Bus, Headers, Limits, Message};
use tidegate::gateway::{Gateway, GatewayConfig, Running};
use tidegate::schema::SourceFile;
use tidegate::snapshot::problem::render;
use tidegate::snapshot::{Live, Material, Snapshot};

/// Longest wait for any condition.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the bus has done everything that was asked of it on this connection: a message of its own comes back
/// behind all of it. A flush waits for the connection, but then only says that it was sent.
pub async fn settle(bus: &Bus) {
    bus.flush().await.unwrap();
    let inbox = bus.new_inbox(Branch::Reply);
    let mut back = bus.subscribe(&inbox.clone().into(), None, Limits::WORKER).await.unwrap();
    let message = Message { subject: inbox, reply: None, headers: Headers::new(), payload: Default::default() };
    bus.publish(message).await.unwrap();
    tokio::time::timeout(PATIENCE, back.next()).await.expect("the message comes back").unwrap().unwrap();
}

/// A snapshot of one routes file and one .proto.
pub fn snapshot(routes: &str, proto: &str) -> Snapshot {
    let material = material(routes, proto);
    material.build(None).unwrap_or_else(|problems| {
        panic!("{}", render(&problems, false, |file| material.text_of(file)));
    })
}

/// Routes and one .proto as a source reads them.
pub fn material(routes: &str, proto: &str) -> Material {
    Material {
        routes_name: "routes.yaml".to_owned(),
        routes: routes.to_owned(),
        descriptors: vec![SourceFile { name: "test.proto".to_owned(), bytes: proto.as_bytes().to_vec() }],
        ..Material::default()
    }
}

/// The project's own tables.
pub fn project() -> Material {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = tidegate::snapshot::Files { routes: root.join("routes.yaml"), descriptors: root.join("descriptors") };
    tidegate::snapshot::Source::read(&files).unwrap()
}

/// A gateway on a free port, with the settings changed by `change`.
pub async fn gateway(snapshot: Snapshot, bus: &Bus, change: impl FnOnce(&mut GatewayConfig)) -> (Running, Arc<Live>) {
    let live = Live::new(snapshot);
    let mut config = GatewayConfig::new(([127, 0, 0, 1], 0).into());
    config.admin = Some(([127, 0, 0, 1], 0).into());
    change(&mut config);
    let running = Gateway::start(config, live.clone(), bus.clone(), None).await.unwrap();
    (running, live)
}

/// The address of a path.
pub fn url(running: &Running, path: &str) -> String {
    format!("http://{}{path}", running.local_addr)
}
