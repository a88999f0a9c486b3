//! Routes that come with the workers that serve them, and go with the last of these; on a real nats-server.

mod support;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use support::nats::NatsServer;
use support::{eventually, material, url};
use tidegate::bus::discovery::{ANNOUNCED, BYTES, DIGEST, Question, answer_of, digest, questions};
use tidegate::bus::{Bus, Pattern};
use tidegate::fault::Fault;
use tidegate::gateway::Running;
use tidegate::schema::SourceFile;
use tidegate::snapshot::{BuiltIn, Live, Rules, Source as _, WorkersSource, watch};
use tidegate::worker::{Context, Options, Service, Worker};

const BASE: &str = r#"syntax = "proto3";
package t.v1;
message Ask { string id = 1; }
service Things { rpc Get(Ask) returns (Ask); }
"#;

const ROUTES: &str = r#"
annotations: [ { services: [ '*' ] } ]
routes: [ { route: GET /fixed, call: t.v1.Things/Get },
          { route: "GET /things/{id}", call: t.v1.Things/Get } ]
"#;

/// A service that the gateway's own files do not know; its second path is one of theirs, and its third a part of one.
const GREETER: &str = r#"syntax = "proto3";
package w.v1;
import "google/api/annotations.proto";
message Ask { string name = 1; }
message Said { string text = 1; }
service Greeter {
  rpc Greet(Ask) returns (Said) {
    option (google.api.http) = {
      get: "/greet/{name}" additional_bindings { get: "/fixed" } additional_bindings { get: "/things/mine" }
    };
  }
}
"#;

#[derive(Deserialize)]
struct Ask {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Said {
    text: String,
}

async fn greeter(bus: &Bus, proto: &str, greeting: &'static str) -> Worker {
    greeter_of(bus, "greeter.proto", proto, greeting).await
}

async fn greeter_of(bus: &Bus, file: &str, proto: &str, greeting: &'static str) -> Worker {
    let mut table = material("annotations: [ { services: [ '*' ] } ]\n", proto);
    file.clone_into(&mut table.descriptors[0].name);
    let mut options = Options::new(bus.clone(), Arc::new(table.build(None).unwrap()));
    options.announced = Some(Arc::new(table.descriptors));
    let service = Service::new("greeter", "1.0.0")
        .unary("w.v1.Greeter/Greet", move |_: Context, ask: Ask| async move {
            Ok::<_, Fault>(Said { text: format!("{greeting} {}", ask.name) })
        });
    Worker::start(options, vec![service]).await.unwrap()
}

/// Waits until the gateway has looked who is there, and has had the answers to its look before.
async fn looked(bus: &Bus) {
    let mut asked = questions(bus).await.unwrap();
    support::settle(bus).await;
    for _ in 0..2 {
        tokio::time::timeout(support::PATIENCE, asked.next()).await.expect("a look").unwrap().unwrap();
    }
}

/// A gateway that discovers.
struct Edge {
    running: Running,
    live: Arc<Live>,
    outcome: tokio::sync::watch::Receiver<tidegate::snapshot::Outcome>,
}

impl Edge {
    async fn start(bus: &Bus) -> Edge {
        let base = material(ROUTES, BASE);
        let subjects = ["w.v1.>", "*.v1.Liar.Get"].map(|pattern| Pattern::new(pattern).unwrap()).to_vec();
        let source = WorkersSource::follow(Arc::new(BuiltIn(base)), bus.clone(), subjects);
        let first = source.read().unwrap();
        let (running, live) = support::gateway(first.build(None).unwrap(), bus, |_| {}).await;
        let outcome = watch(live.clone(), source, first, Rules::default());
        Edge { running, live, outcome }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(url(&self.running, path)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn left_out(&self) -> Vec<String> {
        let left_out = self.live.pin().left_out.clone();
        left_out.iter().map(|problem| format!("{}: {} ({})", problem.place, problem.message, problem.hint)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_appears_with_its_worker_and_goes_with_the_last_one() {
    let server = NatsServer::start();
    let (edge, one, two) = (Edge::start(&server.bus().await).await, server.bus().await, server.bus().await);
    support::calls::worker(&one, "t.v1.Things.Get", |asked| vec![support::calls::answer(&asked, b"\x0a\x01x")]).await;
    assert_eq!(edge.get("/greet/Ada").await.0, 404);
    let first = greeter(&one, GREETER, "hello").await;
    let greeting = (200, r#"{"text":"hello Ada"}"#.to_owned());
    eventually("the worker's route is served", async || edge.get("/greet/Ada").await == greeting).await;
    // The file's route wins, and that is said.
    for path in ["/fixed", "/things/mine"] {
        assert_eq!(edge.get(path).await, (200, r#"{"id":"x"}"#.to_owned()), "{path}");
    }
    assert_eq!(
        edge.left_out(),
        [
            "greeter.proto:7:3: `GET /fixed` takes the same requests as `GET /fixed` (routes.yaml:3:20) (the worker's route gives way)",
            "greeter.proto:7:3: `GET /things/mine` takes the same requests as `GET /things/{id}` (routes.yaml:4:20) (the worker's route gives way)"
        ]
    );
    // One of two leaves: nothing changes for clients.
    let second = greeter(&two, GREETER, "hello").await;
    let generation = edge.live.pin().generation;
    looked(&two).await;
    first.drain().await;
    looked(&two).await;
    assert_eq!(edge.get("/greet/Ada").await, greeting);
    second.drain().await;
    eventually("the route has gone with the last worker", async || edge.get("/greet/Ada").await.0 == 404).await;
    assert_eq!(edge.live.pin().generation, generation + 1, "the second worker and the first one's end changed nothing");
    assert_eq!((edge.get("/fixed").await.0, edge.outcome.borrow().refused), (200, 0));
    assert_eq!(edge.left_out(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_another_schema_takes_over_once_the_last_of_the_old_ones_is_gone() {
    let server = NatsServer::start();
    let (edge, one, two) = (Edge::start(&server.bus().await).await, server.bus().await, server.bus().await);
    let old = greeter(&one, GREETER, "hello").await;
    eventually("the first schema is served", async || edge.get("/greet/Ada").await.0 == 200).await;
    let generation = edge.live.pin().generation;
    // Another path: clients of the old one break, which is the workers' own decision.
    let new = greeter(&two, &GREETER.replace("/greet/{name}", "/greetings/{name}"), "hi").await;
    looked(&two).await;
    assert_eq!(edge.live.pin().generation, generation);
    old.drain().await;
    let greeting = (200, r#"{"text":"hi Ada"}"#.to_owned());
    eventually("the next schema is served", async || edge.get("/greetings/Ada").await == greeting).await;
    assert_eq!((edge.get("/greet/Ada").await.0, edge.outcome.borrow().refused), (404, 0));
    drop(new);
}

/// A worker that answers the services protocol with whatever a test wants.
async fn liar(bus: &Bus, name: &'static str, digest: String, set: Vec<u8>) {
    let mut asked = questions(bus).await.unwrap();
    let bus = bus.clone();
    support::settle(&bus).await;
    tokio::spawn(async move {
        let metadata = json!({ ANNOUNCED: format!("{name}.v1.Liar"), DIGEST: digest, BYTES: set.len().to_string() });
        while let Some(Ok(delivery)) = asked.next().await {
            let question = Question::of(&delivery.subject).unwrap();
            if question.is_for(name, "l1") {
                let payload = match question.verb {
                    "SCHEMA" => set.clone(),
                    _ => answer_of("info", name, "l1", "1.0.0", &metadata).to_string().into_bytes(),
                };
                let _ = bus.publish(support::calls::answer(&delivery, &payload)).await;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_announces_wrongly_is_left_out_and_the_others_are_served() {
    let server = NatsServer::start();
    let (edge, bus) = (Edge::start(&server.bus().await).await, server.bus().await);
    let broken = b"no descriptors at all".to_vec();
    liar(&bus, "broken", digest(&broken), broken).await;
    liar(&bus, "forged", digest(b"something else"), b"this".to_vec()).await;
    // Its file has the name of one of the gateway's own.
    let hidden =
        "syntax = \"proto3\"; package hidden.v1; message A { string a = 1; } service Liar { rpc Get(A) returns (A); }";
    let hidden =
        tidegate::schema::sets(&material("", hidden).descriptors, &[vec!["hidden.v1.Liar"]]).unwrap().remove(0);
    liar(&bus, "hidden", digest(&hidden), hidden).await;
    let _good = greeter(&bus, GREETER, "hello").await;
    eventually("the good worker is served", async || edge.get("/greet/Ada").await.0 == 200).await;
    let broken = "worker broken:1:1: the routes of service `broken` are left out: worker broken:1:1: \
                  neither .proto source nor a binary FileDescriptorSet: ";
    let hidden = "worker hidden:1:1: the routes of service `hidden` are left out: routes.yaml:1:1: \
                  no file declares `hidden.v1.Liar`: one of the same name is in force instead of the worker's";
    for said in [broken, hidden] {
        let is_said = async || edge.left_out().iter().any(|text| text.starts_with(said));
        eventually(said, is_said).await;
    }
    assert!(!edge.left_out().iter().any(|text| text.contains("forged")), "what was not fetched is in the log only");
}

/// A set with one service, `NAME.v1.Liar`, whose one method is on that subject.
fn set_of(name: &str, subject: &str) -> Vec<u8> {
    let proto = format!(
        r#"syntax = "proto3"; package {name}.v1;
           import "google/api/annotations.proto"; import "tidegate/options.proto";
           message A {{ string a = 1; }}
           service Liar {{
             rpc Get(A) returns (A) {{
               option (google.api.http) = {{ get: "/{name}" }};
               option (tidegate.method) = {{ subject: "{subject}" }};
             }}
           }}"#
    );
    let mut descriptors = material("", &proto).descriptors;
    descriptors[0].name = format!("{name}.proto");
    tidegate::schema::sets(&descriptors, &[vec![&format!("{name}.v1.Liar")]]).unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_brings_routes_to_the_subjects_that_it_may_and_to_no_other() {
    let server = NatsServer::start();
    let (edge, bus) = (Edge::start(&server.bus().await).await, server.bus().await);
    let (wallet, mine) = (set_of("wallet", "svc.payment.v1.credit"), set_of("mine", "w.v1.mine"));
    liar(&bus, "wallet", digest(&wallet), wallet).await;
    liar(&bus, "mine", digest(&mine), mine).await;
    eventually("the one that may is served", async || edge.get("/mine").await.0 == 503).await;
    let left_out = "worker wallet:1:1: the routes of service `wallet` are left out: `GET /wallet` leads to \
                    `svc.payment.v1.credit`, which is none of the subjects that workers may bring routes to ()";
    eventually("the other one is left out, and that is said", async || edge.left_out() == [left_out]).await;
    assert_eq!(edge.get("/wallet").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_set_brings_in_no_subject_for_somebody_elses_service() {
    let server = NatsServer::start();
    let (edge, bus) = (Edge::start(&server.bus().await).await, server.bus().await);
    // `early` brings another file of the name that the innocent `late` has for its own.
    let files = [("early", "w.v1.early"), ("late", "svc.payment.v1.credit")]
        .map(|(name, subject)| SourceFile { name: name.to_owned(), bytes: set_of(name, subject) });
    let both = tidegate::schema::sets(&files, &[vec!["early.v1.Liar", "late.v1.Liar"]]).unwrap().remove(0);
    liar(&bus, "early", digest(&both), both).await;
    let late = set_of("late", "w.v1.late");
    liar(&bus, "late", digest(&late), late).await;
    eventually("`early` is served", async || edge.get("/early").await.0 == 503).await;
    let left_out = "worker late:1:1: the routes of service `late` are left out: worker late:1:1: `late.proto` is in \
                    `worker early`, too, with different content ()";
    eventually("`late` is left out", async || edge.left_out() == [left_out]).await;
    assert_eq!(edge.get("/late").await.0, 404);
}

#[test]
fn the_set_of_a_service_has_its_files_and_their_imports_and_nothing_else() {
    let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() };
    let files = [
        file("common.proto", "syntax = \"proto3\"; package c; message Common { string a = 1; }"),
        file("other.proto", "syntax = \"proto3\"; package o; message Other { string a = 1; }"),
        file(
            "one.proto",
            "syntax = \"proto3\"; package one; import \"common.proto\"; import \"google/protobuf/empty.proto\";
             service One { rpc Get(c.Common) returns (google.protobuf.Empty); }",
        ),
        SourceFile { name: "editions.binpb".to_owned(), bytes: include_bytes!("data/editions.binpb").to_vec() },
    ];
    let sets = tidegate::schema::sets(&files, &[vec!["one.One"], vec!["no.Such"]]).unwrap();
    assert_eq!(sets[1], b"");
    let set = SourceFile { name: "set".to_owned(), bytes: sets[0].clone() };
    let schema = tidegate::schema::load(&[set]).unwrap();
    assert_eq!(schema.services[0].name, "one.One");
    assert!(schema.message("c.Common").is_some() && schema.message("o.Other").is_none());
}
