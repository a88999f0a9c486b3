//! The API description, as clients and tools read it: every part of a route is in it, what the route does not take is
//! not, and the project's own is valid and holds for documented replies.

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::program::Program;
use tidegate::gateway::describe;
use tidegate::snapshot::Snapshot;

const PROTO: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "google/api/httpbody.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

// Sells things.
service ShopService {
  // Sells one thing. The price is
  // what the list says.
  rpc Buy(BuyRequest) returns (BuyReply) {
    option (google.api.http) = { post: "/v1/shops/{shop_id}/things:buy" body: "*" };
  }
  rpc Find(FindRequest) returns (FindReply) {
    option deprecated = true;
    option (google.api.http) = { get: "/v1/{name=shops/*/shelves/*}/things" };
  }
  rpc Change(ChangeRequest) returns (Thing) {
    option (google.api.http) = { patch: "/v1/things/{thing.id}" body: "thing" };
  }
  rpc Watch(FindRequest) returns (stream Thing) {
    option (google.api.http) = { get: "/v1/files/{name=**}" };
  }
  rpc Picture(google.api.HttpBody) returns (google.api.HttpBody) {
    option (google.api.http) = { post: "/v1/pictures" body: "*" };
  }
  rpc Names(FindRequest) returns (FindReply) {
    option (google.api.http) = { get: "/v1/names/{name}" response_body: "names" };
  }
}

// Who buys what.
message BuyRequest {
  string shop_id = 1;
  // What to buy.
  string thing_id = 2 [(google.api.field_behavior) = REQUIRED];
  oneof payment {
    string card = 3;
    int64 coins = 4;
  }
  uint32 count = 5; // How many of it.
}

message BuyReply {
  Thing thing = 1;
  Every every = 2;
}

message Thing {
  string id = 1 [(google.api.field_behavior) = OUTPUT_ONLY];
  Colour colour = 2;
  Thing part = 3;
  string old_name = 4 [deprecated = true];
}

enum Colour {
  COLOUR_UNSPECIFIED = 0;
  // Like blood.
  RED = 1;
}

message FindRequest {
  message Page { int32 size = 1; string token = 2; }
  string name = 1;
  Page page = 2;
  repeated Colour colours = 3;
  map<string, string> labels = 4;
  google.protobuf.Struct filter = 5;
  google.protobuf.BoolValue is_new = 6;
  repeated Thing like = 7;
}

message FindReply { repeated string names = 1; }
message ChangeRequest { Thing thing = 1; google.protobuf.FieldMask update_mask = 2; }

message Every {
  double a_double = 1;
  float a_float = 2;
  int32 an_int32 = 3;
  uint32 a_uint32 = 4;
  int64 an_int64 = 5;
  fixed64 a_fixed64 = 6;
  bool a_bool = 7;
  bytes some_bytes = 8;
  google.protobuf.Timestamp at = 9;
  google.protobuf.Duration length = 10;
  google.protobuf.Int64Value maybe = 11;
  google.protobuf.Value anything = 12;
  google.protobuf.Any any = 13;
  google.protobuf.NullValue nothing = 14;
  map<int32, Thing> by_number = 15;
  google.protobuf.Empty empty = 16;
}
"#;

const ROUTES: &str = r#"
version: 1
openapi: { title: A shop, version: "2.1", server: "https://shop.example" }
annotations: [ { services: [ "*" ] } ]
routes:
  - route: "* /v1/anything"
    subject: shop.anything
    request: shop.v1.FindRequest
    reply: shop.v1.FindReply
    headers_in: { If-Match: page.token }
    headers_out: { names: X-Names }
    policies:
      errors: google
      rate: { requests: 5, per: 1s }
      json: { names: proto, enums: number }
  - { route: "GET /v1/any/{name=**}", call: shop.v1.ShopService/Names }
  - { route: "GET /v1/any/{name}", call: shop.v1.ShopService/Names }
"#;

fn shop() -> Value {
    described(&support::snapshot(ROUTES, PROTO))
}

fn described(snapshot: &Snapshot) -> Value {
    serde_json::to_value(describe(snapshot)).unwrap()
}

/// Everything at a place is as expected.
fn check(description: &Value, rows: &[(&str, Value)]) {
    for (place, expected) in rows {
        let found = description.pointer(place).unwrap_or(&Value::Null);
        assert_eq!(found, expected, "{place}");
    }
}

/// The parameters of an operation as `name in`, those that are components left out.
fn parameters(description: &Value, place: &str) -> Vec<String> {
    let rows = description.pointer(&format!("{place}/parameters")).unwrap().as_array().unwrap();
    let own = rows.iter().filter(|row| row["$ref"].is_null());
    own.map(|row| format!("{} {}", row["name"].as_str().unwrap(), row["in"].as_str().unwrap())).collect()
}

#[test]
fn every_kind_has_its_protojson_schema() {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let rows = [
        ("aDouble", json!({ "type": "number", "format": "double" })),
        ("aFloat", json!({ "type": "number", "format": "float" })),
        ("anInt32", json!({ "type": "integer", "format": "int32" })),
        ("aUint32", json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": 4_294_967_295_u32 })),
        ("anInt64", json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })),
        ("aFixed64", json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" })),
        ("aBool", json!({ "type": "boolean" })),
        ("someBytes", json!({ "type": "string", "contentEncoding": "base64" })),
        ("at", reference("google.protobuf.Timestamp")),
        ("length", reference("google.protobuf.Duration")),
        ("maybe", json!({ "type": ["string", "null"], "format": "int64", "pattern": "^-?[0-9]+$" })),
        ("anything", reference("google.protobuf.Value")),
        ("any", reference("google.protobuf.Any")),
        ("nothing", json!({ "type": "null" })),
        (
            "byNumber",
            json!({
                "type": "object",
                "propertyNames": { "pattern": "^-?[0-9]+$" },
                "additionalProperties": reference("shop.v1.Thing"),
            }),
        ),
        ("empty", reference("google.protobuf.Empty")),
    ];
    let description = shop();
    let every = &description["components"]["schemas"]["shop.v1.Every"]["properties"];
    assert_eq!(every.as_object().unwrap().len(), rows.len());
    for (name, expected) in rows {
        assert_eq!(every[name], expected, "{name}");
    }
}

#[test]
fn a_body_has_what_clients_may_set_in_order_with_the_words_of_the_schema() {
    let description = shop();
    let body = "/paths/~1v1~1shops~1{shop_id}~1things:buy/post/requestBody";
    let schema = json!({
        "title": "BuyRequest",
        "description": "Who buys what.\n\nAt most one of `card`, `coins`.",
        "type": "object",
        "properties": {
            "thingId": { "type": "string", "description": "What to buy." },
            "card": { "type": "string" },
            "coins": { "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" },
            "count": {
                "type": "integer", "format": "uint32", "minimum": 0, "maximum": 4_294_967_295_u32,
                "description": "How many of it.",
            },
        },
        "required": ["thingId"],
        "not": { "anyOf": [{ "required": ["card", "coins"] }] },
    });
    check(
        &description,
        &[
            (&format!("{body}/content/application~1json/schema"), schema),
            (&format!("{body}/required"), json!(true)),
            (&format!("{body}/content/application~1x-protobuf"), json!({})),
        ],
    );
    // Order is for people: fields stand as in the message, whatever their names.
    let text = serde_json::to_string(&describe(&support::snapshot(ROUTES, PROTO))).unwrap();
    let place = |name: &str| text.find(&format!("\"{name}\":{{")).unwrap();
    assert!(place("thingId") < place("card") && place("card") < place("coins") && place("coins") < place("count"));
}

#[test]
fn words_flags_and_enums_come_from_the_schema() {
    check(
        &shop(),
        &[
            ("/info/title", json!("A shop")),
            ("/info/version", json!("2.1")),
            ("/servers", json!([{ "url": "https://shop.example" }])),
            ("/tags/1", json!({ "name": "shop.v1.ShopService", "description": "Sells things." })),
            ("/paths/~1v1~1shops~1{shop_id}~1things:buy/post/summary", json!("Sells one thing")),
            ("/paths/~1v1~1shops~1{shop_id}~1things:buy/post/description", json!("The price is\nwhat the list says.")),
            ("/paths/~1v1~1shops~1{shop_id}~1things:buy/post/operationId", json!("shop_v1_ShopService_Buy")),
            ("/paths/~1v1~1shops~1{name.1}~1shelves~1{name.2}~1things/get/deprecated", json!(true)),
            ("/components/schemas/shop.v1.Thing/properties/id", json!({ "type": "string", "readOnly": true })),
            ("/components/schemas/shop.v1.Thing/properties/oldName", json!({ "type": "string", "deprecated": true })),
            (
                "/components/schemas/shop.v1.Colour",
                json!({
                    "title": "Colour", "description": "- `RED`: Like blood.", "type": "string",
                    "enum": ["COLOUR_UNSPECIFIED", "RED"],
                }),
            ),
        ],
    );
}

#[test]
fn paths_queries_and_headers_are_parameters() {
    let description = shop();
    let find = "/paths/~1v1~1shops~1{name.1}~1shelves~1{name.2}~1things/get";
    let query = ["page.size query", "page.token query", "colours query", "labels query", "filter query", "isNew query"];
    let expected: Vec<&str> = ["name.1 path", "name.2 path"].into_iter().chain(query).collect();
    assert_eq!(parameters(&description, find), expected);
    check(
        &description,
        &[
            (
                &format!("{find}/parameters/0"),
                json!({
                    "name": "name.1", "in": "path", "required": true, "description": "A part of `name`.",
                    "schema": { "type": "string", "minLength": 1 },
                }),
            ),
            (&format!("{find}/parameters/2/schema"), json!({ "type": "integer", "format": "int32" })),
            (
                &format!("{find}/parameters/4/schema"),
                json!({ "type": "array", "items": { "$ref": "#/components/schemas/shop.v1.Colour" } }),
            ),
            (&format!("{find}/parameters/5/style"), json!("deepObject")),
            (
                &format!("{find}/parameters/6/content/application~1json/schema"),
                json!({ "$ref": "#/components/schemas/google.protobuf.Struct" }),
            ),
            (&format!("{find}/parameters/7/schema"), json!({ "type": "boolean" })),
            ("/paths/~1v1~1files~1{name}/get/parameters/0/x-tidegate-multi-segment", json!(true)),
        ],
    );
    let change = "/paths/~1v1~1things~1{thing.id}/patch";
    assert_eq!(parameters(&description, change), ["thing.id path", "updateMask query"]);
    let body = description.pointer(&format!("{change}/requestBody/content/application~1json/schema/properties"));
    assert!(body.unwrap().get("id").is_none() && body.unwrap().get("colour").is_some(), "the path sets the id");
}

#[test]
fn a_route_for_any_verb_with_a_form_of_its_own_and_limits() {
    let description = shop();
    let item = description["paths"]["/v1/anything"].as_object().unwrap();
    assert_eq!(item.keys().collect::<Vec<_>>(), ["delete", "get", "patch", "post", "put"]);
    let get = "/paths/~1v1~1anything/get";
    assert!(parameters(&description, get).contains(&"is_new query".to_owned()));
    assert!(parameters(&description, get).contains(&"If-Match header".to_owned()));
    let limited = "/components/responses/google-429";
    check(
        &description,
        &[
            (&format!("{get}/operationId"), json!("v1_anything_get")),
            (&format!("{get}/tags"), json!(["routes"])),
            (&format!("{get}/responses/429/$ref"), json!("#/components/responses/google-429")),
            (&format!("{limited}/headers/Retry-After/$ref"), json!("#/components/headers/RetryAfter")),
            (&format!("{limited}/headers/RateLimit-Policy/$ref"), json!("#/components/headers/RateLimitPolicy")),
            (
                &format!("{limited}/content/application~1json/schema/$ref"),
                json!("#/components/schemas/tidegate.GoogleError"),
            ),
            (
                "/components/schemas/shop.v1.Colour-numbers",
                json!({
                    "title": "Colour", "description": "- `RED`: Like blood.", "type": "integer", "enum": [0, 1],
                    "x-enum-varnames": ["COLOUR_UNSPECIFIED", "RED"],
                }),
            ),
        ],
    );
}

#[test]
fn what_openapi_cannot_tell_apart_stands_beside_it() {
    let description = shop();
    let item = "/paths/~1v1~1any~1{name}";
    check(
        &description,
        &[
            (&format!("{item}/get/operationId"), json!("shop_v1_ShopService_Names_2")),
            (&format!("{item}/get/parameters/0/x-tidegate-multi-segment"), json!(true)),
            (&format!("{item}/x-tidegate-more/0/verb"), json!("GET")),
            (&format!("{item}/x-tidegate-more/0/template"), json!("/v1/any/{name}")),
            (&format!("{item}/x-tidegate-more/0/operation/operationId"), json!("shop_v1_ShopService_Names_3")),
        ],
    );
}

#[test]
fn streams_raw_bodies_and_parts_of_replies_are_described_as_they_come() {
    let description = shop();
    let content = |path: &str, verb: &str| description["paths"][path][verb]["responses"]["200"]["content"].clone();
    let events = content("/v1/files/{name}", "get");
    let kinds: Vec<&str> = events.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(kinds, ["application/x-ndjson", "text/event-stream"]);
    let data = &events["text/event-stream"]["x-itemSchema"]["oneOf"][0]["properties"]["data"];
    assert_eq!(data["contentSchema"]["$ref"], "#/components/schemas/shop.v1.Thing");
    assert!(description["paths"]["/v1/files/{name}"]["get"]["responses"]["204"].is_object());
    assert_eq!(content("/v1/pictures", "post"), json!({ "*/*": {} }));
    assert_eq!(description["paths"]["/v1/pictures"]["post"]["requestBody"]["content"], json!({ "*/*": {} }));
    let names = content("/v1/names/{name}", "get");
    assert_eq!(names["application/json"]["schema"], json!({ "type": "array", "items": { "type": "string" } }));
}

#[test]
fn the_projects_own_description_is_the_same_each_time_and_its_schemas_are_json_schema() {
    let printed = |format: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["openapi", "--format", format]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let text = printed("json");
    assert_eq!(text, printed("json"));
    assert!(printed("yaml").starts_with("openapi: \"3.1.1\"\ninfo:\n  title: "));
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for operation in
        description["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{} stands twice", operation["operationId"]);
    }
    assert!(ids.len() > 100);
    for (name, schema) in description["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
    }
    let mut references = Vec::new();
    collect(&description, &mut references);
    for reference in references {
        assert!(description.pointer(&reference[1..]).is_some(), "`{reference}` leads nowhere");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[test]
fn the_documented_replies_of_the_services_hold_against_the_description() {
    let source = tidegate::snapshot::Material {
        routes_name: "routes.yaml".to_owned(),
        routes: std::fs::read_to_string("routes.yaml").unwrap(),
        descriptors: descriptors(std::path::Path::new("descriptors")),
        ..Default::default()
    };
    let snapshot = source.build(None).unwrap();
    let description = described(&snapshot);
    let examples: Value = serde_json::from_str(include_str!("data/examples.json")).unwrap();
    let calls = examples.as_array().unwrap().iter().flat_map(|example| example["calls"].as_array().unwrap());
    let mut checked = 0;
    for call in calls.filter(|call| call["status"] == 200 && call["response"].is_object()) {
        let Some(method) = snapshot.method_on(call["call"].as_str().unwrap()) else { continue };
        let mut schema = json!({ "$ref": format!("#/components/schemas/{}", method.reply_name) });
        schema["components"] = description["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<String> = validator
            .iter_errors(&call["response"])
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", call["call"]);
        checked += 1;
    }
    assert!(checked > 50, "only {checked} replies were checked");
}

fn descriptors(folder: &std::path::Path) -> Vec<tidegate::schema::SourceFile> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else {
                let name = entry.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.push(tidegate::schema::SourceFile { name, bytes: std::fs::read(entry).unwrap() });
            }
        }
    }
    found
}

#[tokio::test]
async fn the_admin_port_serves_it_with_a_page_that_needs_nothing_from_elsewhere() {
    let dev = Program::start(&["dev", "--routes", "built-in"]);
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{}{path}", dev.admin)).await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        (kind, answer.text().await.unwrap())
    };
    let (kind, description) = get("/openapi.json").await;
    let description: Value = serde_json::from_str(&description).unwrap();
    assert_eq!((kind.as_str(), &description["openapi"]), ("application/json", &json!("3.1.1")));
    let (kind, page) = get("/docs").await;
    assert_eq!(kind, "text/html; charset=utf-8");
    for (kind, path) in
        [("text/javascript; charset=utf-8", "docs/page.js"), ("text/css; charset=utf-8", "docs/page.css")]
    {
        assert!(page.contains(&format!("\"{path}\"")), "{page}");
        let (found, text) = get(&format!("/{path}")).await;
        assert_eq!(found, kind);
        assert!(!text.contains("https://"), "{path} names another host");
    }
    assert_eq!(dev.get("/openapi.json").await.0, 404, "clients get it only where the file says so");
}

#[tokio::test]
async fn the_file_can_give_it_to_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let routes = ROUTES.replace("openapi: { ", "openapi: { path: /api/openapi.json, ");
    std::fs::create_dir(path("descriptors")).unwrap();
    std::fs::write(path("routes.yaml"), &routes).unwrap();
    std::fs::write(path("descriptors/shop.proto"), PROTO).unwrap();
    let tables = ["--routes", &path("routes.yaml"), "--descriptors", &path("descriptors")];
    let dev = Program::start(&[&["dev"], &tables[..]].concat());
    // The first of a table is made once for all who ask for it at the same time.
    let asked = futures_util::future::join_all((0..16).map(|_| dev.get("/api/openapi.json"))).await;
    assert!(asked.iter().all(|answer| *answer == asked[0]), "{asked:?}");
    let (status, description) = asked[0].clone();
    let description: Value = serde_json::from_str(&description).unwrap();
    assert_eq!((status, &description["info"]["title"]), (200, &json!("A shop")));
    assert_eq!(dev.post("/api/openapi.json", "").await.0, 404);
    std::fs::write(path("routes.yaml"), routes.replace("/api/openapi.json", "/v1/anything")).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("check").args(tables).output().unwrap();
    let report = String::from_utf8(checked.stderr).unwrap();
    assert!(report.contains("`/v1/anything` is taken by `* /v1/anything`"), "{report}");
}
