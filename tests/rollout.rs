//! What of a new schema breaks whom, judged by the routes that reach it; and two versions served side by side.

mod support;

use std::sync::Arc;

use support::{eventually, material, snapshot};
use tidegate::bus::Bus;
use tidegate::snapshot::compat::{self, Break};
use tidegate::snapshot::{Breaking, Changes, Live, Material, Rules, Source, watch};
use tokio::sync::watch as channel;

const PROTO: &str = r#"syntax = "proto3";
package shop.v1;
message Ask { string id = 1; Meta meta = 2; Filter filter = 3; int32 count = 4; string note = 5; }
message Meta { string trace_id = 1; map<string, string> labels = 2; }
message Filter { Color color = 1; repeated string tags = 2; string text = 3; string pattern = 4; }
message Item { string item_id = 1; int32 price = 2; Color color = 3; repeated Part parts = 4; optional int32 stock = 5; }
message Part { string name = 1; Item inside = 2; }
message Event { Item item = 1; uint64 index = 2; }
message Unreached { string a = 1; }
enum Color { COLOR_UNSPECIFIED = 0; RED = 1; BLUE = 2; }
service Shop {
  rpc Get(Ask) returns (Item);
  rpc Watch(Ask) returns (stream Event);
  rpc Hidden(Unreached) returns (Unreached);
}
"#;

const ROUTES: &str = "
styles:
  house: { context: { field: meta, fill: { trace_id: [ generated ] } } }
defaults: { style: house }
routes:
  - { route: 'GET /items/{id}', call: shop.v1.Shop/Get }
  - { route: 'POST /items:watch', call: shop.v1.Shop/Watch, body: '*' }
";

const GET: &str = "GET /items/{id}";
const WATCH: &str = "POST /items:watch";

fn breaks_of(routes: &str, changes: &[(&str, &str)]) -> Vec<Break> {
    let mut proto = PROTO.to_owned();
    for (from, to) in changes {
        assert!(proto.contains(from), "{from}");
        proto = proto.replace(from, to);
    }
    compat::breaks(&snapshot(routes, PROTO), &snapshot(routes, &proto))
}

/// A change of the schema, and all that it breaks: element, text, routes.
type Row = (&'static [(&'static str, &'static str)], &'static [(&'static str, &'static str, &'static [&'static str])]);

const BOTH: &[&str] = &[GET, WATCH];

const CHANGES: &[Row] = &[
    // What is added, and what no route reaches, breaks nobody.
    (&[("int32 count = 4;", "int32 count = 4; string more = 6;")], &[]),
    (&[("int32 price = 2;", "int32 price = 2; Part best = 6;")], &[]),
    (&[("BLUE = 2;", "BLUE = 2; GREEN = 3;")], &[]),
    (&[("message Unreached { string a = 1; }", "message Unreached { int64 b = 2; }")], &[]),
    // Only the type's own name is another.
    (&[("Part", "Component")], &[]),
    (&[("Color", "Colour")], &[]),
    // The caller context is the gateway's: clients neither send nor read it here, but workers do.
    (&[("trace_id = 1", "trace_id = 1 [json_name = \"trace\"]")], &[]),
    (
        &[("map<string, string> labels = 2;", "")],
        &[("shop.v1.Meta.labels", "field `labels` of `shop.v1.Meta` is gone: workers read it", BOTH)],
    ),
    // Gone.
    (
        &[("string note = 5;", "")],
        &[("shop.v1.Ask.note", "field `note` of `shop.v1.Ask` is gone: clients send it", BOTH)],
    ),
    (
        &[("int32 price = 2;", "reserved 2;")],
        &[("shop.v1.Item.price", "field `price` of `shop.v1.Item` is gone: clients read it", BOTH)],
    ),
    (
        &[("uint64 index = 2;", "")],
        &[("shop.v1.Event.index", "field `index` of `shop.v1.Event` is gone: clients read it", &[WATCH])],
    ),
    // Renamed: clients send either name, and read the JSON name.
    (
        &[("string note = 5;", "string remark = 5;")],
        &[("shop.v1.Ask.remark", "field `note` of `shop.v1.Ask` is called `remark` now: clients send `note`", BOTH)],
    ),
    (
        &[("item_id = 1", "item_id = 1 [json_name = \"id\"]")],
        &[(
            "shop.v1.Item.item_id",
            "field `item_id` of `shop.v1.Item` is called `id` now: clients read `itemId`",
            BOTH,
        )],
    ),
    (&[("item_id = 1", "itemId = 1")], &[]),
    // Numbers.
    (
        &[("string note = 5;", "string note = 15;")],
        &[(
            "shop.v1.Ask.note",
            "field `note` of `shop.v1.Ask` was number 5 and is number 15: workers of one version do not find it in messages of the other",
            BOTH,
        )],
    ),
    (
        &[("int32 price = 2;", "repeated string offers = 2;")],
        &[(
            "shop.v1.Item.offers",
            "number 2 of `shop.v1.Item` was `price`, `int32`, and is `offers`, a list of `string`: a number keeps its field",
            BOTH,
        )],
    ),
    // Types. A wider number is fine where clients send it, and another JSON form where they read it.
    (&[("int32 count = 4;", "int64 count = 4;")], &[]),
    (
        &[("int32 count = 4;", "string count = 4;")],
        &[("shop.v1.Ask.count", "field `count` of `shop.v1.Ask` was `int32` and is `string`", BOTH)],
    ),
    (
        &[("int32 price = 2;", "int64 price = 2;")],
        &[("shop.v1.Item.price", "field `price` of `shop.v1.Item` was `int32` and is `int64`", BOTH)],
    ),
    (
        &[("Item inside = 2;", "Meta inside = 2;")],
        &[
            ("shop.v1.Meta.color", "field `color` of `shop.v1.Item` is gone: clients read it", BOTH),
            ("shop.v1.Meta.parts", "field `parts` of `shop.v1.Item` is gone: clients read it", BOTH),
            (
                "shop.v1.Meta.labels",
                "number 2 of `shop.v1.Item` was `price`, `int32`, and is `labels`, a map: a number keeps its field",
                BOTH,
            ),
            (
                "shop.v1.Meta.trace_id",
                "field `item_id` of `shop.v1.Item` is called `trace_id` now: clients read `itemId`",
                BOTH,
            ),
            ("shop.v1.Meta.stock", "field `stock` of `shop.v1.Item` is gone: clients read it", BOTH),
        ],
    ),
    // How many.
    (
        &[("repeated string tags = 2;", "string tags = 2;")],
        &[("shop.v1.Filter.tags", "field `tags` of `shop.v1.Filter` was a list of `string` and is `string`", BOTH)],
    ),
    // Presence and alternatives.
    (
        &[("optional int32 stock = 5;", "int32 stock = 5;")],
        &[(
            "shop.v1.Item.stock",
            "field `stock` of `shop.v1.Item` no longer tells its default from nothing: replies leave it out",
            BOTH,
        )],
    ),
    (&[("int32 price = 2;", "optional int32 price = 2;")], &[]),
    (
        &[("string text = 3; string pattern = 4;", "oneof what { string text = 3; string pattern = 4; }")],
        &[
            (
                "shop.v1.Filter.pattern",
                "field `pattern` of `shop.v1.Filter` is one of the alternatives `what` now: clients may send it beside another of them",
                BOTH,
            ),
            (
                "shop.v1.Filter.text",
                "field `text` of `shop.v1.Filter` is one of the alternatives `what` now: clients may send it beside another of them",
                BOTH,
            ),
        ],
    ),
    // Values of enums.
    (
        &[(" BLUE = 2;", "")],
        &[
            ("shop.v1.Color.BLUE", "value `BLUE` of `shop.v1.Color` is gone: clients read it", BOTH),
            ("shop.v1.Color.BLUE", "value `BLUE` of `shop.v1.Color` is gone: clients send it", BOTH),
        ],
    ),
    (
        &[("BLUE = 2;", "AZURE = 2;")],
        &[
            ("shop.v1.Color.BLUE", "value `BLUE` of `shop.v1.Color` is called `AZURE` now: clients read it", BOTH),
            ("shop.v1.Color.BLUE", "value `BLUE` of `shop.v1.Color` is called `AZURE` now: clients send it", BOTH),
        ],
    ),
    (&[("BLUE = 2;", "BLUE = 5;")], &[("shop.v1.Color.BLUE", "value `BLUE` of `shop.v1.Color` was 2 and is 5", BOTH)]),
];

#[test]
fn each_change_breaks_exactly_whom_it_breaks() {
    for (changes, expected) in CHANGES {
        let mut expected: Vec<Break> = expected
            .iter()
            .map(|(element, text, routes)| Break {
                element: (*element).to_owned(),
                text: (*text).to_owned(),
                routes: routes.iter().map(|route| (*route).to_owned()).collect(),
            })
            .collect();
        expected.sort();
        assert_eq!(breaks_of(ROUTES, changes), expected, "{changes:?}");
    }
}

#[test]
fn a_method_that_is_gone_takes_its_route_with_it_and_a_row_taken_out_is_meant() {
    let all = "annotations: [ { services: [ '*' ], convention: true } ]\n";
    let found = breaks_of(all, &[("rpc Hidden(Unreached) returns (Unreached);", "")]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].element.as_str(), found[0].text.as_str(), found[0].routes.as_slice()),
        (
            "shop.v1.Shop/Hidden",
            "method `shop.v1.Shop/Hidden` is gone, and its route with it",
            ["POST /shop.v1.Shop/Hidden".to_owned()].as_slice()
        )
    );
    let fewer = ROUTES.lines().filter(|line| !line.contains(":watch")).collect::<Vec<_>>().join("\n");
    assert_eq!(compat::breaks(&snapshot(ROUTES, PROTO), &snapshot(&fewer, PROTO)), []);
}

#[test]
fn a_call_that_becomes_a_stream_breaks_its_clients() {
    let found = breaks_of(ROUTES, &[("rpc Get(Ask) returns (Item);", "rpc Get(Ask) returns (stream Item);")]);
    let texts: Vec<&str> = found.iter().map(|found| found.text.as_str()).collect();
    assert_eq!(texts, ["`shop.v1.Shop/Get` answered once and answers with a stream now"]);
}

#[test]
fn required_fields_break_those_who_do_not_send_them() {
    let proto = r#"syntax = "proto2"; package old.v1;
        message Ask { optional string id = 1; required string kind = 2; }
        service Old { rpc Get(Ask) returns (Ask); }"#;
    let routes = "routes: [ { route: 'POST /ask', call: old.v1.Old/Get, body: '*' } ]\n";
    let next =
        proto.replace("optional string id", "required string id").replace("= 2;", "= 2; required int32 size = 3;");
    let found = compat::breaks(&snapshot(routes, proto), &snapshot(routes, &next));
    let texts: Vec<&str> = found.iter().map(|found| found.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "field `id` of `old.v1.Ask` is required now: clients may leave it out",
            "field `size` of `old.v1.Ask` is required: clients do not send it",
        ]
    );
    let next = proto.replace("required string kind", "optional string kind");
    let found = compat::breaks(&snapshot(routes, proto), &snapshot(routes, &next));
    let texts: Vec<&str> = found.iter().map(|found| found.text.as_str()).collect();
    assert_eq!(texts, ["field `kind` of `old.v1.Ask` is no longer required: clients rely on it"]);
}

#[test]
fn only_what_a_route_answers_with_counts_in_the_form_that_it_has() {
    let body = "routes: [ { route: 'GET /i/{id}', call: shop.v1.Shop/Get, response_body: parts } ]\n";
    let found = breaks_of(body, &[("int32 price = 2;", "")]);
    // The price of an item inside of a part is read, the item's own is not: both are the same field.
    assert_eq!(found.len(), 1, "{found:?}");
    let found = breaks_of(body, &[("Item inside = 2;", ""), ("int32 price = 2;", "")]);
    let texts: Vec<&str> = found.iter().map(|found| found.text.as_str()).collect();
    assert_eq!(texts, ["field `inside` of `shop.v1.Part` is gone: clients read it"]);
    let form = |json: &str| {
        format!(
            "routes: [ {{ route: 'GET /i/{{id}}', call: shop.v1.Shop/Get, policies: {{ json: {{ {json} }} }} }} ]\n"
        )
    };
    let renamed: &[(&str, &str)] = &[("item_id = 1", "item_id = 1 [json_name = \"id\"]")];
    assert_eq!(breaks_of(&form("names: camel"), renamed).len(), 1);
    assert_eq!(breaks_of(&form("names: proto"), renamed), []);
    let values: &[(&str, &str)] = &[("BLUE = 2;", "AZURE = 2;")];
    let read = |found: Vec<Break>| found.iter().filter(|found| found.text.ends_with("clients read it")).count();
    assert_eq!(read(breaks_of(&form("enums: name"), values)), 1);
    assert_eq!(read(breaks_of(&form("enums: number"), values)), 0);
    let present: &[(&str, &str)] = &[("int32 price = 2;", "optional int32 price = 2;")];
    assert_eq!(breaks_of(&form("defaults: omit"), present), []);
    let found = breaks_of(&form("defaults: print"), present);
    assert_eq!(found[0].text, "field `price` of `shop.v1.Item` may be absent now: clients always got it");
}

/// Material that a test changes.
struct Given(channel::Sender<u64>, std::sync::Mutex<Material>);

impl Given {
    fn start(material: Material) -> Arc<Given> {
        Arc::new(Given(channel::Sender::new(0), material.into()))
    }

    fn give(&self, material: Material) {
        *self.1.lock().unwrap() = material;
        self.0.send_modify(|count| *count += 1);
    }
}

impl Source for Given {
    fn read(&self) -> Result<Material, Vec<tidegate::snapshot::problem::Problem>> {
        Ok(self.1.lock().unwrap().clone())
    }

    fn changes(&self) -> Changes {
        Changes::Counted(self.0.subscribe())
    }
}

#[tokio::test]
async fn a_breaking_schema_is_refused_with_what_breaks_and_where_unless_it_is_allowed() {
    let broken = material(ROUTES, &PROTO.replace("int32 price = 2;", "string price = 2;"));
    for (breaking, allows_breaking, is_applied) in
        [(Breaking::Refuse, false, false), (Breaking::Allow, false, true), (Breaking::Refuse, true, true)]
    {
        let first = material(ROUTES, PROTO);
        let given = Given::start(first.clone());
        let live = Live::new(first.build(None).unwrap());
        let rules = Rules { breaking, asked: None };
        let outcome = watch(live.clone(), given.clone(), first.clone(), rules);
        given.give(Material { allows_breaking, ..broken.clone() });
        eventually("the reload has ended", async || outcome.borrow().applied + outcome.borrow().refused == 1).await;
        assert_eq!((outcome.borrow().applied == 1, live.pin().generation), (is_applied, 1 + u64::from(is_applied)));
        if is_applied {
            continue;
        }
        let report = outcome.borrow().report.clone();
        assert_eq!(
            report.trim_end(),
            "error: field `price` of `shop.v1.Item` was `int32` and is `string`
 --> test.proto:6:36
  |
6 | message Item { string item_id = 1; string price = 2; Color color = 3; repeated Part parts = 4; optional int32 stock = 5; }
  |                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: it breaks clients of `GET /items/{id}`, `POST /items:watch`: keep what is there, serve the new version beside it, or allow it with `--schema-changes allow`"
        );
        // What breaks nobody is applied behind it.
        given.give(material(ROUTES, &PROTO.replace("int32 count = 4;", "int32 count = 4; bool all = 9;")));
        eventually("the next one is applied", async || outcome.borrow().applied == 1).await;
    }
}

const SECOND: &str = r#"syntax = "proto3";
package shop.v2;
message Ask { string id = 1; }
message Item { string item_id = 1; string price = 2; }
service Shop { rpc Get(Ask) returns (Item); }
"#;

/// The way out of a breaking change: the next version of the package beside this one, each on subjects of its own.
#[tokio::test]
async fn two_versions_are_served_side_by_side_by_the_version_in_their_subjects() {
    let first = material(ROUTES, PROTO);
    let mut both = first.clone();
    both.routes.push_str("  - { route: 'GET /v2/items/{id}', call: shop.v2.Shop/Get }\n");
    both.descriptors.push(tidegate::schema::SourceFile { name: "v2.proto".to_owned(), bytes: SECOND.into() });
    let bus = Bus::embedded();
    support::calls::worker(&bus, "shop.v1.Shop.Get", |asked| {
        // item_id = "old", price = 3
        vec![support::calls::answer(&asked, b"\x0a\x03old\x10\x03")]
    })
    .await;
    support::calls::worker(&bus, "shop.v2.Shop.Get", |asked| {
        vec![support::calls::answer(&asked, b"\x0a\x03new\x12\x043.50")]
    })
    .await;
    let (running, live) = support::gateway(first.build(None).unwrap(), &bus, |_| {}).await;
    let given = Given::start(first.clone());
    let _outcome = watch(live.clone(), given.clone(), first, Rules::default());
    let get = async |path: &str| {
        let answer = reqwest::get(support::url(&running, path)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let old = (200, r#"{"itemId":"old","price":3}"#.to_owned());
    assert_eq!(get("/items/1").await, old);
    assert_eq!(get("/v2/items/1").await.0, 404);
    given.give(both);
    eventually("the second version is served", async || live.pin().generation == 2).await;
    assert_eq!(get("/v2/items/1").await, (200, r#"{"itemId":"new","price":"3.50"}"#.to_owned()));
    assert_eq!(get("/items/1").await, old);
}
