//! Hooks that read bare values: what changes put into another bucket beside their documents. A till that is no service of
//! the game's adds up, and its lines lie beside it; on the embedded bus and on a real nats-server.

mod support;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::{gateway, url};
use tidegate::bus::Bus;
use tidegate::fault::Fault;
use tidegate::store::{Bucket, BucketConfig, Store, key};
use tidegate::worker::records::{Change, Current, Document, RecordSeen, Records, RecordsConfig};
use tidegate::worker::{Context, Options, Rule, Service, StartError, Worker};

const ROUTES: &str = include_str!("../docs/declared/routes.yaml");
const LINES: &str = "till_lines";

const TILLS: &str = r#"
syntax = "proto3";
package tills.v1;
import "google/api/annotations.proto";
import "tidegate/options.proto";

service TillService {
  option (tidegate.service) = { name: "tills" };
  option (tidegate.document) = { bucket: "tills" };
  option (tidegate.document) = { bucket: "till_lines" history: 1 };

  rpc Ring(RingRequest) returns (RingReply) {
    option (google.api.http) = { post: "/v1/tills/{till}:ring" body: "*" };
    option (tidegate.operation) = { hook: true put { bucket: "tills" key: "{till}" version_into: "number" } };
  }
  rpc GetLine(LineRequest) returns (Line) {
    option (google.api.http) = { get: "/v1/tills/{till}/lines/{number}" };
    option (tidegate.operation) = { hook: true get { bucket: "till_lines" key: "{till}.{number}" } };
  }
  rpc ListLines(LinesRequest) returns (LinesReply) {
    option (google.api.http) = { get: "/v1/tills/{till}/lines" };
    option (tidegate.operation) = { hook: true list { bucket: "till_lines" under: "{till}" } };
  }
}

message RingRequest { string till = 1; int32 price = 2; }
message RingReply { uint64 number = 1; }
message LineRequest { string till = 1; string number = 2; }
message Line { int32 price = 1; int32 total = 2; uint64 version = 3; }
message LinesRequest { string till = 1; }
message LinesReply { repeated string keys = 1; repeated int32 prices = 2; }
"#;

#[derive(Serialize, Deserialize)]
struct Ring {
    till: String,
    price: i32,
}

#[derive(Clone, Serialize, Deserialize)]
struct Till {
    total: i32,
}

#[derive(Serialize, Deserialize)]
struct LineAsked {
    till: String,
    number: String,
}

#[derive(Serialize, Deserialize)]
struct LinesAsked {
    till: String,
}

/// A line as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    price: i32,
    total: i32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    price: i32,
    total: i32,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Lines {
    keys: Vec<String>,
    prices: Vec<i32>,
}

fn ring(context: Context, request: Ring) -> Result<impl Rule<Till, ()>, Fault> {
    Ok(move |current: &Current<Till>| {
        let total = current.value.as_ref().map_or(0, |till| till.total) + request.price;
        let place = key(&[context.tenant(), &request.till, &(current.version + 1).to_string()]);
        let line = json!({ "price": request.price, "total": total });
        Ok(Change::put(Till { total }, ()).also_put(LINES, place, line))
    })
}

fn line(_: &Context, _: &LineAsked, found: Option<Document<Kept>>) -> Result<Line, Fault> {
    let none = Line { price: 0, total: 0, version: 0 };
    Ok(found.map_or(none, |line| Line { price: line.value.price, total: line.value.total, version: line.version }))
}

fn lines(_: &Context, _: &LinesAsked, found: Vec<(String, Document<Kept>)>) -> Result<Lines, Fault> {
    let (keys, prices) = found.into_iter().map(|(key, line)| (key, line.value.price)).unzip();
    Ok(Lines { keys, prices })
}

async fn opened(store: &Store) -> (Records<Till>, Bucket) {
    let lines = store.bucket(BucketConfig { name: LINES, ttl: None, history: 1 }).await.unwrap();
    let tills = RecordsConfig {
        others: vec![(LINES, lines.clone())],
        ..RecordsConfig::new(BucketConfig { name: "tills", ttl: None, history: 8 })
    };
    (Records::open(store, tills).await.unwrap(), lines)
}

async fn tills(store: &Store) -> Service {
    let (tills, kept) = opened(store).await;
    Service::new("tills", "1.0.0")
        .keeping(&tills)
        .sweeping("sweeper", &tills)
        .keeping_values(LINES, &kept)
        .hook_put("tills.v1.TillService/Ring", ring)
        .hook_get("tills.v1.TillService/GetLine", line)
        .hook_list("tills.v1.TillService/ListLines", lines)
}

async fn hooks_read_what_changes_have_put_beside_documents(bus: Bus) {
    let (running, _) = gateway(support::snapshot(ROUTES, TILLS), &bus, |_| {}).await;
    let options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, TILLS)));
    let service = tills(&options.store).await;
    let _worker = Worker::start(options, vec![service]).await.unwrap_or_else(|error| panic!("{error}"));
    let client = reqwest::Client::new();
    let ask = async |verb: &str, path: &str, body: Value| {
        let request = client.request(verb.parse().unwrap(), url(&running, path));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    for (till, price, number) in [("bar", 3, "1"), ("bar", 4, "2"), ("door", 9, "1")] {
        let rung = ask("POST", &format!("/v1/tills/{till}:ring"), json!({ "price": price })).await;
        assert_eq!(rung, json!({ "number": number }));
    }
    let get = async |path: &str| ask("GET", path, Value::Null).await;
    assert_eq!(get("/v1/tills/bar/lines/2").await, json!({ "price": 4, "total": 7, "version": "1" }));
    assert_eq!(get("/v1/tills/bar/lines/3").await, json!({}));
    let listed = json!({ "keys": ["_.bar.1", "_.bar.2"], "prices": [3, 4] });
    assert_eq!(get("/v1/tills/bar/lines").await, listed);
    assert_eq!(get("/v1/tills/attic/lines").await, json!({}));
}

#[tokio::test]
async fn hooks_read_bare_values_on_the_embedded_store() {
    hooks_read_what_changes_have_put_beside_documents(Bus::embedded()).await;
}

#[tokio::test]
async fn hooks_read_bare_values_on_a_nats_server() {
    let server = NatsServer::start();
    hooks_read_what_changes_have_put_beside_documents(server.bus().await).await;
}

#[tokio::test]
async fn a_value_that_is_no_such_struct_is_left_out_of_lists_and_its_own_read_fails() {
    let bus = Bus::embedded();
    let (running, _) = gateway(support::snapshot(ROUTES, TILLS), &bus, |_| {}).await;
    let options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, TILLS)));
    let (_, kept) = opened(&options.store).await;
    kept.put("_.bar.1", "{}".into(), tidegate::store::Expected::Any).await.unwrap();
    let service = tills(&options.store).await;
    let _worker = Worker::start(options, vec![service]).await.unwrap_or_else(|error| panic!("{error}"));
    for (path, status) in [("/v1/tills/bar/lines", 200), ("/v1/tills/bar/lines/1", 500)] {
        let answer = reqwest::get(url(&running, path)).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}

/// What keeps a worker from starting whose bucket `tills` has bare values.
async fn problem(proto: &str, hook: impl Fn(Service) -> Service) -> String {
    let options = Options::new(Bus::embedded(), Arc::new(support::snapshot(ROUTES, proto)));
    let (_, lines) = opened(&options.store).await;
    let service = hook(Service::new("tills", "1.0.0").keeping_values("tills", &lines));
    match Worker::start(options, vec![service]).await {
        Err(StartError::Problems(problems)) => problems[0].to_string(),
        _ => "it starts".to_owned(),
    }
}

#[tokio::test]
async fn bare_values_are_neither_put_nor_watched() {
    let put = problem(TILLS, |service| service.hook_put("tills.v1.TillService/Ring", ring)).await;
    assert_eq!(
        put,
        "service `tills`, method `tills.v1.TillService/Ring`: bucket `tills` keeps bare values, which a get or list \
         reads: there is no put"
    );
    let proto = TILLS
        .replace("returns (RingReply)", "returns (stream RingReply)")
        .replace(r#"put { bucket: "tills" key: "{till}" version_into: "number" }"#, r#"watch { bucket: "tills" }"#);
    let told = |_: Context, _: Ring, _: bool| Ok(|_: RecordSeen<Till>| Ok(None::<RungOnce>));
    let watch = problem(&proto, |service| service.hook_watch("tills.v1.TillService/Ring", told)).await;
    assert_eq!(
        watch,
        "service `tills`, method `tills.v1.TillService/Ring`: bucket `tills` keeps bare values, which a get or list \
         reads: there is no watch"
    );
}

#[derive(Serialize, Deserialize)]
struct RungOnce {
    number: u64,
}
