//! A service that has a handler for what has a rule, and declares the rest: both work on the same documents. Over HTTP,
//! on the embedded bus and on a real nats-server.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::{gateway, url};
use tidegate::bus::Bus;
use tidegate::fault::Fault;
use tidegate::gateway::Running;
use tidegate::store::{BucketConfig, Store, key};
use tidegate::worker::records::{Change, Current, Records, RecordsConfig};
use tidegate::worker::{Context, Options, Service, StartError, Worker};

const PROTO: &str = r#"
syntax = "proto3";
package depot.v1;

import "google/api/annotations.proto";
import "tidegate/options.proto";

service Depot {
  option (tidegate.service) = { name: "depot" };
  option (tidegate.document) = {
    bucket: "depot_items" message: "depot.v1.Item" version: "version" name: "item"
    member: "lease_ms" member: "beat_ms" member: "seen_ms" member: "is_sold"
  };

  rpc Store(StoreRequest) returns (StoreReply) {
    option (google.api.http) = { post: "/v1/items" body: "*" };
  }
  rpc Get(Which) returns (Shown) {
    option (google.api.http) = {
      get: "/v1/shelves/{shelf_id}"
      additional_bindings { get: "/v1/trucks/{truck_id}" }
      additional_bindings { get: "/v1/anywhere" }
    };
    option (tidegate.operation).get = {
      bucket: "depot_items" key: "shelf.{shelf_id}" key: "truck.{truck_id}" may_lag: true
    };
  }
  rpc List(ListRequest) returns (ListReply) {
    option (google.api.http) = { get: "/v1/shelves" };
    option (tidegate.operation).list = {
      bucket: "depot_items" under: "shelf" page_size: "page.size" into: "items"
      filter: { field: "status" document: "tags[status]" one_of: ["new", "used"] } filter: { field: "item_id" }
    };
  }
  rpc Watch(Which) returns (stream Seen) {
    option (google.api.http) = { get: "/v1/shelves/{shelf_id}:watch" };
    option (tidegate.operation).watch = {
      bucket: "depot_items" key: "shelf.{shelf_id}" key: "truck.{truck_id}" revision_into: "revision"
      written: { field: "kind" value: "WRITTEN" } deleted: { field: "kind" value: "GONE" } last: "is_sold"
    };
  }
  rpc Follow(Which) returns (stream Seen) {
    option (google.api.http) = { get: "/v1/shelves/{shelf_id}:follow" };
    option (tidegate.operation).watch = {
      bucket: "depot_items" key: "shelf.{shelf_id}" into: "shown" must_exist: true
    };
  }
  rpc Beat(BeatRequest) returns (BeatReply) {
    option (google.api.http) = { post: "/v1/shelves/{shelf_id}:beat" body: "*" };
    option (tidegate.operation).put = {
      bucket: "depot_items" key: "shelf.{shelf_id}" mode: MERGE range: { field: "readings" min: 0 max: 100 }
      expires_after: "lease_ms" time: { keep: "seen_ms" } time: { into: "next_ms" after: "beat_ms" }
      preset: { field: "kind" value: "WRITTEN" }
    };
  }
  rpc Take(Which) returns (Taken) {
    option (google.api.http) = { delete: "/v1/shelves/{shelf_id}" };
    option (tidegate.operation).delete = {
      bucket: "depot_items" key: "shelf.{shelf_id}" deleted_into: "taken" may_be_missing: true
    };
  }
}

enum Kind { KIND_UNSPECIFIED = 0; WRITTEN = 1; GONE = 2; }
message Item { string item_id = 1; map<string, string> tags = 2; map<string, double> readings = 3; uint64 version = 4; }
message StoreRequest { string place = 1; string id = 2; string item_id = 3; string status = 4; bool sold = 5; }
message StoreReply { uint64 version = 1; }
message Which { oneof place { string shelf_id = 1; string truck_id = 2; } }
message Shown { uint64 version = 1; string item_id = 2; map<string, string> tags = 3; map<string, double> readings = 4; }
message Page { uint32 size = 1; }
message ListRequest { string status = 1; string item_id = 2; Page page = 3; }
message ListReply { repeated Item items = 1; }
message Seen { uint64 revision = 1; string item_id = 2; uint64 version = 3; Kind kind = 4; Shown shown = 5; }
message BeatRequest { string shelf_id = 1; map<string, double> readings = 2; }
message BeatReply { int64 next_ms = 1; Kind kind = 2; uint64 version = 3; }
message Taken { bool taken = 1; }
"#;
const ROUTES: &str = "
version: 1
styles:
  depot: { status: true, chunk: { id: revision } }
defaults: { style: depot }
annotations:
  - services: ['*']
";
/// Where the clock stands.
const NOW_MS: i64 = 1_760_000_000_000;

/// What the handler keeps: the names of `depot.v1.Item`, and members beside them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Item {
    item_id: String,
    tags: BTreeMap<String, String>,
    #[serde(default)]
    readings: BTreeMap<String, f64>,
    lease_ms: i64,
    beat_ms: i64,
    seen_ms: i64,
    is_sold: bool,
}

#[derive(Serialize, Deserialize)]
struct StoreRequest {
    place: String,
    id: String,
    item_id: String,
    status: String,
    sold: bool,
}

#[derive(Serialize, Deserialize)]
struct StoreReply {
    version: u64,
}

async fn items(store: &Store) -> Records<Item> {
    let bucket = BucketConfig { name: "depot_items", ttl: None, history: 8 };
    Records::open(store, RecordsConfig::new(bucket)).await.unwrap()
}

async fn put(items: Arc<Records<Item>>, context: Context, request: StoreRequest) -> Result<StoreReply, Fault> {
    let item = Item {
        item_id: request.item_id,
        tags: BTreeMap::from([("status".to_owned(), request.status)]),
        lease_ms: 60_000,
        beat_ms: 12_000,
        is_sold: request.sold,
        ..Item::default()
    };
    let rule = |current: &Current<Item>| {
        let readings = current.value.as_ref().map(|before| before.readings.clone()).unwrap_or_default();
        Ok(Change::put(Item { readings, ..item.clone() }, ()))
    };
    let place = key(&[context.tenant(), &request.place, &request.id]);
    let done = items.change(&context, &place, rule).await.map_err(|failed| failed.fault)?;
    Ok(StoreReply { version: done.version })
}

const DECLARED: [&str; 6] = ["Get", "List", "Watch", "Follow", "Beat", "Take"];

struct Depot {
    running: Running,
    client: reqwest::Client,
    store: Store,
    _worker: Worker,
}

impl Depot {
    async fn on(bus: &Bus) -> Depot {
        let (running, _) = gateway(support::snapshot(ROUTES, PROTO), bus, |_| {}).await;
        let mut options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, PROTO)));
        options.clock = Arc::new(|| NOW_MS);
        let (store, items) = (options.store.clone(), items(&options.store).await);
        let service = Service::new("depot", "1.0.0").keeping(&items).sharing(items).unary("depot.v1.Depot/Store", put);
        let service =
            DECLARED.iter().fold(service, |service, name| service.declared(&format!("depot.v1.Depot/{name}")));
        let worker = Worker::start(options, vec![service.done()]).await.unwrap_or_else(|error| panic!("{error}"));
        Depot { running, client: reqwest::Client::new(), store, _worker: worker }
    }

    async fn ask(&self, verb: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    async fn store(&self, place: &str, id: &str, status: &str, sold: bool) {
        let body = json!({"place": place, "id": id, "itemId": format!("of {id}"), "status": status, "sold": sold});
        assert_eq!(self.ask("POST", "/v1/items", Some(body)).await.0, 200);
    }

    /// A stream of events, and the one after the other.
    async fn stream(&self, path: &str) -> impl AsyncFnMut() -> Option<Value> {
        let request = self.client.get(url(&self.running, path)).header("accept", "text/event-stream");
        let mut bytes = request.send().await.unwrap().bytes_stream();
        let mut text = String::new();
        async move || {
            loop {
                if let Some((frame, rest)) = text.split_once("\n\n") {
                    let data = frame.lines().find_map(|line| line.strip_prefix("data:")).map(str::to_owned);
                    text = rest.to_owned();
                    if let Some(data) = data {
                        return Some(serde_json::from_str(&data).unwrap());
                    }
                    continue;
                }
                let next = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("an event");
                text.push_str(std::str::from_utf8(&next?.unwrap()).unwrap());
            }
        }
    }
}

macro_rules! on_both_buses {
    ($($rule:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::Depot::on(&super::Bus::embedded()).await).await;
            })*
        }
        mod nats {
            $(#[tokio::test]
            async fn $rule() {
                let server = super::NatsServer::start();
                super::$rule(super::Depot::on(&server.bus().await).await).await;
            })*
        }
    };
}

on_both_buses!(
    what_a_handler_keeps_is_read_by_declaration,
    a_list_filters_by_an_entry_of_a_map,
    a_watch_tells_constants_and_ends_with_the_last_state,
    a_document_that_must_exist_ends_its_watch_when_it_goes,
    a_merge_leaves_the_rest_and_says_when_the_next_one_is_due,
    nothing_to_delete_may_be_no_error,
);

async fn what_a_handler_keeps_is_read_by_declaration(depot: Depot) {
    depot.store("shelf", "s1", "new", false).await;
    depot.store("truck", "t1", "used", false).await;
    let shelf = json!({"version": "1", "itemId": "of s1", "tags": {"status": "new"}});
    assert_eq!(depot.ask("GET", "/v1/shelves/s1", None).await, (200, shelf));
    let truck = json!({"version": "1", "itemId": "of t1", "tags": {"status": "used"}});
    assert_eq!(depot.ask("GET", "/v1/trucks/t1", None).await, (200, truck));
    let (status, missing) = depot.ask("GET", "/v1/trucks/s1", None).await;
    assert_eq!((status, &missing["detail"]), (404, &json!("item s1 does not exist")));
    assert_eq!(missing["details"]["field"], "truck_id");
    let (status, none) = depot.ask("GET", "/v1/anywhere", None).await;
    assert_eq!((status, &none["detail"]), (400, &json!("shelf_id or truck_id is required")));
    assert_eq!((&none["details"]["field"], &none["details"]["reason"]), (&json!("place"), &json!("required")));
}

async fn a_list_filters_by_an_entry_of_a_map(depot: Depot) {
    for (place, id, status) in
        [("shelf", "a", "new"), ("shelf", "b", "used"), ("shelf", "c", "new"), ("truck", "d", "new")]
    {
        depot.store(place, id, status, false).await;
    }
    let listed = async |query: &str| -> Vec<String> {
        let (_, body) = depot.ask("GET", &format!("/v1/shelves{query}"), None).await;
        let items = body["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["itemId"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("", vec!["of a", "of b", "of c"]),
        ("?status=NEW", vec!["of a", "of c"]),
        ("?status=used&item_id=of%20b", vec!["of b"]),
        ("?status=used&item_id=of%20a", vec![]),
    ] {
        assert_eq!(listed(query).await, expected, "{query}");
    }
    let (status, unknown) = depot.ask("GET", "/v1/shelves?status=old", None).await;
    assert_eq!((status, &unknown["detail"]), (400, &json!("status must be new or used")));
    assert_eq!(
        (&unknown["details"]["reason"], &unknown["details"]["allowed"]),
        (&json!("unknown_value"), &json!("new,used"))
    );
    let (_, large) = depot.ask("GET", "/v1/shelves?page.size=501", None).await;
    assert_eq!((&large["detail"], &large["details"]["field"]), (&json!("size must be 0 to 500"), &json!("page.size")));
}

async fn a_watch_tells_constants_and_ends_with_the_last_state(depot: Depot) {
    // A stream is there with its first chunk, so the document comes while somebody waits for it.
    let stream = depot.stream("/v1/shelves/s1:watch");
    let (mut next, ()) = tokio::join!(stream, depot.store("shelf", "s1", "new", false));
    let first = next().await.unwrap();
    assert_eq!(
        (&first["itemId"], &first["version"], &first["kind"]),
        (&json!("of s1"), &json!("1"), &json!("WRITTEN"))
    );
    assert_eq!(depot.ask("DELETE", "/v1/shelves/s1", None).await.0, 200);
    let gone = next().await.unwrap();
    assert_eq!((gone.get("itemId"), &gone["version"], &gone["kind"]), (None, &json!("2"), &json!("GONE")));
    depot.store("shelf", "s1", "new", true).await;
    let last = next().await.unwrap();
    assert_eq!((&last["version"], &last["kind"]), (&json!("3"), &json!("WRITTEN")));
    assert_eq!(next().await, None, "the stream ends with it");
}

async fn a_document_that_must_exist_ends_its_watch_when_it_goes(depot: Depot) {
    let (status, missing) = depot.ask("GET", "/v1/shelves/s1:follow", None).await;
    assert_eq!((status, &missing["detail"]), (404, &json!("item s1 does not exist")));
    depot.store("shelf", "s1", "new", false).await;
    let mut next = depot.stream("/v1/shelves/s1:follow").await;
    let shown = json!({"version": "1", "itemId": "of s1", "tags": {"status": "new"}});
    assert_eq!(next().await.unwrap()["shown"], shown);
    depot.ask("DELETE", "/v1/shelves/s1", None).await;
    let end = next().await.unwrap();
    assert!(end.to_string().contains("item s1 does not exist"), "{end}");
    assert_eq!(next().await, None);
}

async fn a_merge_leaves_the_rest_and_says_when_the_next_one_is_due(depot: Depot) {
    let beat = async |readings: Value| {
        let body = json!({"readings": readings});
        depot.ask("POST", "/v1/shelves/s1:beat", Some(body)).await
    };
    let (status, missing) = beat(json!({})).await;
    assert_eq!((status, &missing["detail"]), (404, &json!("item s1 does not exist")));
    depot.store("shelf", "s1", "new", false).await;
    let due = (NOW_MS + 12_000).to_string();
    let done = beat(json!({"warmth": 21.5, "damp": 40})).await;
    assert_eq!(done, (200, json!({"nextMs": due, "kind": "WRITTEN", "version": "2"})));
    for (readings, field) in [(json!({"warmth": 101}), "readings.warmth"), (json!({"damp": "NaN"}), "readings.damp")] {
        let (status, refused) = beat(readings).await;
        assert_eq!((status, &refused["code"]), (400, &json!("OUT_OF_RANGE")));
        assert_eq!((&refused["details"]["field"], &refused["details"]["max"]), (&json!(field), &json!("100")));
    }
    // A handler finds the document as it was, but for what was merged; and the declared read as well.
    let bucket = BucketConfig { name: "depot_items", ttl: None, history: 8 };
    let kept = depot.store.bucket(bucket).await.unwrap().get("_.shelf.s1").await.unwrap().unwrap();
    let kept: Value = serde_json::from_slice(&kept.value).unwrap();
    assert_eq!(kept["expires_at_ms"], NOW_MS + 60_000);
    let item: Item = serde_json::from_value(kept["value"].clone()).unwrap();
    assert_eq!((item.item_id.as_str(), item.seen_ms, item.lease_ms), ("of s1", NOW_MS, 60_000));
    assert_eq!(item.readings, BTreeMap::from([("warmth".to_owned(), 21.5), ("damp".to_owned(), 40.0)]));
    let (_, shown) = depot.ask("GET", "/v1/shelves/s1", None).await;
    assert_eq!((&shown["tags"], &shown["readings"]["damp"]), (&json!({"status": "new"}), &json!(40)));
    // What is left out is gone.
    beat(json!({})).await;
    assert_eq!(depot.ask("GET", "/v1/shelves/s1", None).await.1.get("readings"), None);
}

async fn nothing_to_delete_may_be_no_error(depot: Depot) {
    depot.store("shelf", "s1", "new", false).await;
    assert_eq!(depot.ask("DELETE", "/v1/shelves/s1", None).await, (200, json!({"taken": true})));
    assert_eq!(depot.ask("DELETE", "/v1/shelves/s1", None).await, (200, json!({})));
    assert_eq!(depot.ask("GET", "/v1/shelves/s1", None).await.0, 404);
}

#[tokio::test]
async fn a_declared_row_that_does_not_fit_stops_the_start() {
    let bus = Bus::embedded();
    let options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, PROTO)));
    let items = items(&options.store).await;
    let service = Service::new("depot", "1.0.0")
        .sharing(items)
        .unary("depot.v1.Depot/Store", put)
        .declared("depot.v1.Depot/Store")
        .declared("depot.v1.Depot/Get")
        .declared("depot.v1.Depot/Nothing")
        .done();
    let bare = Service::new("bare", "1.0.0").declared("depot.v1.Depot/Store");
    let Err(StartError::Problems(problems)) = Worker::start(options, vec![service, bare]).await else {
        panic!("it starts");
    };
    let texts: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "it is registered twice: remove one",
            "its documents are in bucket `depot_items`: give them with `keeping`",
            "the tables do not have it: correct the name, list its service under `annotations`, or add a route that calls it",
            "it declares no operation: add `option (tidegate.operation)`, or a handler",
        ]
    );
}

#[test]
fn a_declaration_that_does_not_fit_is_refused() {
    let refused = |from: &str, to: &str| {
        let proto = PROTO.replacen(from, to, 1);
        assert_ne!(proto, PROTO, "{from}");
        let problems = support::material(ROUTES, &proto).build(None).expect_err("it is refused");
        problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("\n")
    };
    for (from, to, text) in [
        (
            "last: \"is_sold\"",
            "last: \"is_gone\"",
            "`last: \"is_gone\"` is no field of `depot.v1.Item`, and no `member` of",
        ),
        (
            "document: \"tags[status]\"",
            "document: \"readings[status]\"",
            "`readings[status]` of the document is no single",
        ),
        (
            "document: \"tags[status]\"",
            "document: \"version\"",
            "filter `status`: it and `version` of the document are of two",
        ),
        ("value: \"GONE\"", "value: \"LOST\"", "`kind` of the chunk: "),
        (
            "revision_into",
            "under: \"shelf\" revision_into",
            "`key` is one document, `under` are many: name one of them",
        ),
        ("key: \"shelf.{shelf_id}\" into", "into", "`must_exist` is for one document: name it with `key`"),
        ("key: \"truck.{truck_id}\" may_lag", "key: \"truck.{bus_id}\" may_lag", "`bus_id` of the request"),
        (
            "returns (Shown)",
            "returns (Page)",
            "the document (`depot.v1.Item`) has no field of the reply (`depot.v1.Page`)",
        ),
    ] {
        let found = refused(from, to);
        assert!(found.contains(text), "{found}");
    }
}
