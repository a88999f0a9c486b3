//! Throughput of one worker process with its state on JetStream: reads and writes of documents 80 : 20, each write with
//! its event and an idempotency key, while 99 of 100 answers come within 20 ms. On one server, and on three that keep
//! each write three times.
//!
//! The yardstick is a bare echo on the same broker, asked by the same load in the same run. The worker, or the echo, runs
//! alone on core 0; load and brokers share the other one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use tidegate::bus::{Bus, Headers, Request, Subject};
use tidegate::snapshot::Snapshot;
use tidegate::transcode::{BodyPlan, Claims, JsonIn, Root, json_to_wire, wire};

use crate::support::process::{Program, cpu_of, free_address, pin};
use crate::support::{self as bench, Goal, Ratio, Report};
use crate::system::nats::NatsServer;
use crate::system::{eventually, project};

const READ: &str = "svc.state.manager.v1.get";
const WRITE: &str = "svc.state.manager.v1.update";
const ECHO: &str = "svc.bench.v1.echo";
/// Documents that are read and written.
const PLAYERS: usize = 1_000;
/// Requests under way at a time, tried one after the other until the answers come too late.
const AT_ONCE: &[usize] = &[4, 8, 16, 32, 64, 128, 256];
/// Those of the mixes that say what a read and a write cost.
const FIXED: usize = 16;
/// What 99 of 100 answers have to come within.
const P99_MAX: Duration = Duration::from_millis(20);
/// Requests a second that are wanted.
const GOAL: f64 = 10_000.0;
/// Writes of a hundred requests.
const WRITES: usize = 20;
/// Length of one measured run.
const RUN: Duration = Duration::from_secs(3);
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        pin(std::process::id(), 1);
        measure(report, "R1", &[NatsServer::start()]).await;
        measure(report, "R3", &NatsServer::jetstream_cluster::<3>().await).await;
    });
}

/// Answers every request with its own bytes, in a process of its own: what broker and load can do without a service.
pub fn echo(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(answer(url));
}

async fn answer(url: &str) {
    let client = async_nats::connect(url).await.expect("nats-server answers");
    let mut requests = client.queue_subscribe(ECHO, "q.bench".to_owned()).await.expect("subscribed");
    while let Some(request) = requests.next().await {
        let Some(inbox) = request.reply else { continue };
        client.publish(inbox, request.payload).await.expect("published");
    }
}

/// One broker, each write kept once (R1) or three times (R3): the echo, then the worker.
async fn measure(report: &mut Report, name: &str, servers: &[NatsServer]) {
    println!("worker: {name}");
    for server in servers {
        pin(server.id(), 1);
    }
    let load = Load::on(&servers[0]).await;
    let program = std::env::current_exe().expect("this program has a path");
    let echo = Program::start("echo", 0, &program.to_string_lossy(), &["--echo", servers[0].url()]);
    load.until_answered(ECHO).await;
    let bare = best(&load, &echo, servers, Mix::Echo).await;
    println!("  bare echo: {bare}");
    drop(echo);

    let folder = tempfile::tempdir().expect("a folder");
    let worker = start_worker(folder.path(), servers[0].url());
    load.until_answered(READ).await;
    load.write_all().await;
    let mixed = best(&load, &worker, servers, Mix::Writes(WRITES)).await;
    println!("  state-manager, reads {} : writes {WRITES}: {mixed}", 100 - WRITES);
    println!("  requests of the worker for one of the echo: {:.3}", mixed.each_second() / bare.each_second());
    let rate = mixed.each_second();
    let rate = Ratio { low: rate, median: rate, high: rate };
    report.quantity(format!("requests of one worker, state on JetStream {name}"), "/s", Goal::AtLeast(GOAL), rate);
    for (text, mix) in [("reads alone", Mix::Writes(0)), ("writes alone", Mix::Writes(100))] {
        println!("  {text}: {}", load.run(&worker, servers, mix, FIXED).await);
    }
}

fn start_worker(folder: &Path, nats: &str) -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (routes, descriptors) = (root.join("routes.yaml"), root.join("descriptors"));
    let settings = folder.join("services.yaml");
    // There is no registry to register with.
    std::fs::write(&settings, "common: { register: false }\n").expect("services.yaml");
    let (routes, descriptors, settings) =
        (routes.to_string_lossy(), descriptors.to_string_lossy(), settings.to_string_lossy());
    let admin = free_address().to_string();
    let arguments = [
        ["worker", "state-manager"],
        ["--nats", nats],
        ["--routes", &routes],
        ["--descriptors", &descriptors],
        ["--services", &settings],
        ["--admin", &admin],
    ];
    Program::start("worker", 0, env!("CARGO_BIN_EXE_tidegate"), arguments.as_flattened())
}

/// The run with the most answers a second among those that answer in time; the first where none does.
async fn best(load: &Load, program: &Program, servers: &[NatsServer], mix: Mix) -> Measured {
    let mut best: Option<Measured> = None;
    for at_once in AT_ONCE {
        let measured = load.run(program, servers, mix, *at_once).await;
        let is_late = measured.p99 > P99_MAX;
        if best.as_ref().is_none_or(|best| !is_late && measured.each_second() > best.each_second()) {
            best = Some(measured);
        }
        if is_late || !bench::is_measuring() {
            break;
        }
    }
    best.expect("there is a first run")
}

/// What is asked.
#[derive(Clone, Copy)]
enum Mix {
    Echo,
    /// So many of a hundred write, the others read.
    Writes(usize),
}

struct Measured {
    at_once: usize,
    answers: usize,
    length: Duration,
    p50: Duration,
    p99: Duration,
    program: Duration,
    brokers: Duration,
}

impl Measured {
    fn each_second(&self) -> f64 {
        self.answers as f64 / self.length.as_secs_f64()
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.answers as f64;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:.0} requests/s with {} at a time, p50 {:.1} ms, p99 {:.1} ms; CPU a request: process {:.0} µs, broker {:.0} µs",
            self.each_second(),
            self.at_once,
            milliseconds(self.p50),
            milliseconds(self.p99),
            each(self.program),
            each(self.brokers)
        )
    }
}

/// Who asks.
struct Load {
    bus: Bus,
    snapshot: Arc<Snapshot>,
}

impl Load {
    async fn on(server: &NatsServer) -> Load {
        let snapshot = project().build(None).unwrap_or_else(|_| panic!("the tables are refused"));
        Load { bus: server.lane_bus().await, snapshot: Arc::new(snapshot) }
    }

    async fn until_answered(&self, subject: &str) {
        eventually("somebody answers", async || self.ask(subject, Vec::new()).await.is_some()).await;
    }

    /// The payload of the answer, where one comes.
    async fn ask(&self, subject: &str, payload: Vec<u8>) -> Option<bytes::Bytes> {
        let subject = Subject::new(subject).expect("a subject");
        let request =
            Request { subject, headers: Headers::new(), payload: payload.into(), timeout: PATIENCE, proof: None };
        self.bus.request(request).await.ok().map(|reply| reply.payload)
    }

    /// A request about a player, encoded.
    fn request(&self, subject: &str, body: &serde_json::Value) -> Vec<u8> {
        let method = self.snapshot.method_on(subject).expect("a method of the project");
        let (root, options) = (Root::Message(method.request), JsonIn::default());
        let plan = BodyPlan { root, options, claims: Claims::new(), lift: None };
        let mut payload = Vec::new();
        json_to_wire(&method.tables, &plan, 0, body.to_string().as_bytes(), &mut payload, None).expect("a request");
        payload
    }

    fn read(&self, player: usize) -> (&'static str, Vec<u8>) {
        let body = json!({ "meta": { "request_id": "r" }, "player_id": format!("p{player}") });
        (READ, self.request(READ, &body))
    }

    fn write(&self, player: usize) -> (&'static str, Vec<u8>) {
        let state =
            json!({ "gold": 120, "name": "Mira", "district": "docks", "tags": ["broker", "night"], "moral": -12.5 });
        let meta = json!({ "request_id": "r", "idempotency_key": uuid::Uuid::new_v4().to_string() });
        let player = json!({ "player_id": format!("p{player}"), "state": state });
        (WRITE, self.request(WRITE, &json!({ "meta": meta, "player": player, "op": "UPSERT" })))
    }

    fn next(&self, mix: Mix) -> (&'static str, Vec<u8>) {
        let player = fastrand::usize(..PLAYERS);
        match mix {
            Mix::Echo => (ECHO, vec![0x2a; 64]),
            Mix::Writes(of_hundred) if fastrand::usize(..100) < of_hundred => self.write(player),
            Mix::Writes(_) => self.read(player),
        }
    }

    /// Every player has a document before anybody reads.
    async fn write_all(&self) {
        for player in 0..PLAYERS {
            let (subject, payload) = self.write(player);
            check(subject, &self.ask(subject, payload).await.expect("an answer"));
        }
    }

    /// Asks for a while with so many requests under way.
    async fn run(self: &Load, program: &Program, servers: &[NatsServer], mix: Mix, at_once: usize) -> Measured {
        let brokers = || servers.iter().map(|server| cpu_of(server.id())).sum::<Duration>();
        let length = if bench::is_measuring() { RUN } else { RUN / 100 };
        let (cpu, broker_cpu, start) = (program.cpu(), brokers(), Instant::now());
        let asking = (0..at_once).map(async |_| {
            let mut times = Vec::new();
            while start.elapsed() < length {
                let (subject, payload) = self.next(mix);
                let asked = Instant::now();
                let answer = self.ask(subject, payload).await.expect("an answer");
                times.push(asked.elapsed());
                check(subject, &answer);
            }
            times
        });
        let mut times = futures_util::future::join_all(asking).await.concat();
        let length = start.elapsed();
        let (program, brokers) = (program.cpu() - cpu, brokers() - broker_cpu);
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Measured { at_once, answers: times.len(), length, p50: at(0.5), p99: at(0.99), program, brokers }
    }
}

/// An answer counts where it is no error.
fn check(subject: &str, answer: &[u8]) {
    const ERROR: u32 = 4;
    if subject == ECHO {
        return;
    }
    let mut has_failed = false;
    wire::each_message(answer, ERROR, |_| {
        has_failed = true;
        Ok(())
    })
    .expect("an answer decodes");
    assert!(!has_failed, "`{subject}` fails: {}", String::from_utf8_lossy(answer));
}
