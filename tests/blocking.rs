//! Handlers that compute: they keep nobody waiting, are bounded, have a deadline, and their panics are answers. Those
//! that keep their thread all the same are counted. Of the game's services it is knowledge-base that computes.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{PATIENCE, eventually, gateway, project, url};
use tidegate::bus::{Bus, Headers, Reply, Request, Subject};
use tidegate::fault::Fault;
use tidegate::gateway::Running;
use tidegate::schema::SourceFile;
use tidegate::services::{LiveSettings, Settings, roster};
use tidegate::snapshot::{Material, Snapshot};
use tidegate::worker::{Context, Options, Service, Worker};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
import "tidegate/options.proto";
message Ask {}
message Answer { string text = 1; }
service Work {
  option (tidegate.service) = { name: "work" };
  rpc Compute(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.work.compute" }; }
  rpc Fail(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.work.fail" }; }
  rpc Quick(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.work.quick" }; }
  rpc Slow(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.work.slow" }; }
  rpc Rude(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.work.rude" }; }
}
"#;
const ROUTES: &str = "annotations:\n  - { services: [ '*' ], convention: true }\n";
/// Threads of the pool.
const POOL: usize = 2;

#[derive(Serialize, Deserialize)]
struct Ask {}

#[derive(Serialize, Deserialize)]
struct Answer {
    text: String,
}

fn answer(text: &str) -> Result<Answer, Fault> {
    Ok(Answer { text: text.to_owned() })
}

/// Keeps its thread for longer than a handler may.
fn slowly(text: &str) -> Result<Answer, Fault> {
    std::thread::sleep(Duration::from_millis(20));
    answer(text)
}

/// What the test sees and steers of handlers that compute.
#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    cancelled: AtomicUsize,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Shared {
    /// Computes until the gate is open, and says whether its caller was still there.
    fn compute(&self, context: &Context) -> Result<Answer, Fault> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut is_open = self.is_open.lock().unwrap();
        while !*is_open {
            is_open = self.opened.wait(is_open).unwrap();
        }
        drop(is_open);
        self.running.fetch_sub(1, Ordering::SeqCst);
        if context.cancelled() == Some("deadline") {
            self.cancelled.fetch_add(1, Ordering::SeqCst);
        }
        answer("computed")
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

struct Setup {
    bus: Bus,
    shared: Arc<Shared>,
    _worker: Worker,
}

impl Setup {
    async fn start() -> Setup {
        let (bus, shared) = (Bus::embedded(), Arc::<Shared>::default());
        let mut options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, PROTO)));
        options.pool = POOL;
        let theirs = shared.clone();
        let service = Service::new("work", "1.0.0")
            .blocking("t.v1.Work/Compute", move |context, _: Ask| theirs.compute(&context))
            .blocking("t.v1.Work/Fail", |_, _: Ask| -> Result<Answer, Fault> { panic!("out of numbers") })
            .unary("t.v1.Work/Quick", |_, _: Ask| async { answer("quick") })
            .blocking("t.v1.Work/Slow", |_, _: Ask| slowly("slow"))
            .unary("t.v1.Work/Rude", |_, _: Ask| async { slowly("rude") });
        let worker = Worker::start(options, vec![service]).await.unwrap_or_else(|error| panic!("{error}"));
        Setup { bus, shared, _worker: worker }
    }

    /// The text of an answer, or the error.
    async fn ask(&self, method: &str, headers: &[(&'static str, &str)]) -> String {
        let mut all = Headers::new();
        for (name, value) in headers {
            all.push(*name, *value);
        }
        let subject = Subject::new(format!("svc.work.{method}")).unwrap();
        let request = Request { subject, headers: all, payload: Default::default(), timeout: PATIENCE, proof: None };
        said(&self.bus.request(request).await.unwrap())
    }
}

fn said(reply: &Reply) -> String {
    match reply.headers.get("Nats-Service-Error") {
        Some(error) => error.to_owned(),
        None => String::from_utf8_lossy(reply.payload.get(2..).unwrap_or_default()).into_owned(),
    }
}

#[tokio::test]
async fn who_computes_keeps_nobody_waiting_and_more_of_them_wait_for_their_turn() {
    let setup = Setup::start().await;
    let shared = &setup.shared;
    let others = async {
        eventually("the pool is full", async || shared.running.load(Ordering::SeqCst) == POOL).await;
        assert_eq!(setup.ask("quick", &[]).await, "quick");
        let late = setup.ask("compute", &[("Tidegate-Timeout", "50")]).await;
        assert_eq!(late, "the deadline has passed", "it waits for its turn no longer than it has time");
        assert_eq!(shared.running.load(Ordering::SeqCst), POOL);
        shared.open();
    };
    let (first, second, third, ()) =
        tokio::join!(setup.ask("compute", &[]), setup.ask("compute", &[]), setup.ask("compute", &[]), others);
    assert_eq!([first, second, third], ["computed", "computed", "computed"]);
    assert_eq!(shared.cancelled.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn past_its_deadline_the_caller_has_its_answer_and_the_handler_knows() {
    let setup = Setup::start().await;
    assert_eq!(setup.ask("compute", &[("Tidegate-Timeout", "50")]).await, "the deadline has passed");
    assert_eq!(setup.shared.running.load(Ordering::SeqCst), 1, "what has begun goes on");
    setup.shared.open();
    eventually("the handler knows", async || setup.shared.cancelled.load(Ordering::SeqCst) == 1).await;
    assert_eq!(setup.ask("compute", &[]).await, "computed");
}

#[tokio::test]
async fn a_panic_is_an_answer_and_gives_its_thread_back() {
    let setup = Setup::start().await;
    for _ in 0..=POOL {
        assert_eq!(setup.ask("fail", &[]).await, "the handler failed");
    }
    setup.shared.open();
    assert_eq!(setup.ask("compute", &[]).await, "computed");
}

#[tokio::test]
async fn a_handler_that_keeps_its_thread_is_counted() {
    let handle = tidegate::telemetry::install_metrics().expect("this test alone counts");
    let setup = Setup::start().await;
    const CALLS: u64 = 10;
    for _ in 0..CALLS {
        assert_eq!(setup.ask("rude", &[]).await, "rude");
        assert_eq!(setup.ask("slow", &[]).await, "slow");
    }
    let text = handle.render();
    let stalls = |method: &str| {
        let name = format!(r#"tidegate_worker_stalls_total{{service="work",method="t.v1.Work/{method}"}} "#);
        text.lines().find_map(|line| line.strip_prefix(&name)).map(|count| count.parse::<u64>().unwrap())
    };
    assert_eq!(stalls("Rude"), Some(CALLS), "{text}");
    // A busy machine may take a thread away for as long now and then.
    assert!(stalls("Slow").is_some_and(|count| count < CALLS / 2), "{text}");
}

/// A method beside those of the game that holds a thread of the pool.
const GATE: &str = r#"syntax = "proto3";
package gate.v1;
import "common/v1/common.proto";
import "google/api/annotations.proto";
import "tidegate/options.proto";
message HoldRequest { common.v1.Meta meta = 1; }
message HoldResponse { common.v1.Meta meta = 1; common.v1.Error error = 2; }
service GateService {
  option (tidegate.service) = { name: "gate" };
  rpc Hold(HoldRequest) returns (HoldResponse) {
    option (tidegate.method) = { subject: "svc.gate.hold" };
    option (google.api.http) = { post: "/v1/gate:hold" body: "*" };
  }
}
"#;

/// A gateway and knowledge-base in one thread, with one thread in the pool, which the gate takes while it is shut.
struct Library {
    running: Running,
    client: reqwest::Client,
    shared: Arc<Shared>,
    _worker: Worker,
}

impl Library {
    async fn open() -> Library {
        let tables = || -> Snapshot {
            let mut material: Material = project();
            let bytes = GATE.as_bytes().to_vec();
            material.descriptors.push(SourceFile { name: "gate/v1/gate.proto".to_owned(), bytes });
            material.build(None).unwrap_or_else(|problems| panic!("{problems:?}"))
        };
        let (bus, shared) = (Bus::embedded(), Arc::<Shared>::default());
        let (running, _) = gateway(tables(), &bus, |_| {}).await;
        let mut options = Options::new(bus, Arc::new(tables()));
        options.pool = 1;
        let settings = LiveSettings::from(Settings::default());
        let mut services = roster(&options.store, &settings, |name| name == "knowledge-base").await.unwrap();
        let theirs = shared.clone();
        let hold = move |context: Context, _: Ask| theirs.compute(&context).map(|_| Ask {});
        services.push(Service::new("gate", "1.0.0").blocking("gate.v1.GateService/Hold", hold));
        let worker = Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"));
        Library { running, client: reqwest::Client::new(), shared, _worker: worker }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.client.post(url(&self.running, path)).body(body.to_string()).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn store(&self, id: &str, content: &str) -> Value {
        let documents = json!([{ "document_id": id, "content": content }]);
        self.post("/v1/knowledge/collections/lore/documents", json!({ "documents": documents })).await
    }

    async fn read(&self, id: &str) -> Value {
        let path = format!("/v1/knowledge/documents/{id}");
        let answer = self.client.get(url(&self.running, &path)).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}

#[tokio::test]
async fn who_counts_words_and_who_looks_for_them_keeps_no_reader_waiting() {
    let library = Library::open().await;
    assert_eq!(library.store("d1", "A riddle.").await["documents_ingested"], 1);
    // The largest document that is taken.
    let large = "The Silent Court loves riddles. ".repeat(16 * 1024);
    let change = json!({ "document_id": "d1", "content": "Another riddle." });
    let long = async {
        tokio::join!(
            library.post("/v1/gate:hold", json!({})),
            library.store("d2", &large),
            library.post("/v1/knowledge:query", json!({ "query_text": "riddle" })),
            library.client.patch(url(&library.running, "/v1/knowledge/documents/d1")).body(change.to_string()).send(),
        )
    };
    let mut long = std::pin::pin!(long);
    let readers = async {
        let held = async || library.shared.running.load(Ordering::SeqCst) == 1;
        eventually("the gate holds the pool", held).await;
        for _ in 0..20 {
            assert_eq!(library.read("d1").await["document"]["content"], "A riddle.");
        }
    };
    tokio::select! {
        biased;
        done = &mut long => panic!("it is done without the pool: {done:?}"),
        () = readers => {}
    }
    library.shared.open();
    let (_, stored, found, changed) = long.await;
    assert_eq!((&stored["documents_ingested"], &stored["chunks_created"]), (&json!(1), &json!(683)), "{stored}");
    assert!(found["documents"].is_array(), "{found}");
    assert_eq!(changed.unwrap().status(), 200);
    let found = library.post("/v1/knowledge:query", json!({ "query_text": "silent court" })).await;
    assert_eq!(found["sources"], json!(["d2"]), "{found}");
}
