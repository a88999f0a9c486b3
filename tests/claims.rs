//! Every door by which a client could reach a field that the route has claimed: what the worker gets, or the refusal.

mod support;

use std::sync::{Arc, Mutex};

use support::{gateway, material, url};
use tidegate::bus::{Bus, Headers, Limits, Message, Pattern};
use tidegate::schema::{self, SourceFile};
use tidegate::transcode::{JsonOut, Scratch, wire_to_json};

const PROTO: &str = r#"
syntax = "proto3";
package claims;
import "google/protobuf/field_mask.proto";
import "google/protobuf/wrappers.proto";
message Context { string user_id = 1; }
message Profile { string owner = 1; string title = 2; google.protobuf.Int32Value limit = 3; repeated string tags = 4; }
message Request {
  Context meta = 1;
  string id = 2;
  Profile profile = 3;
  string scope = 4;
  string agent = 5;
  oneof target { string player = 6; string item = 7; Profile other = 8; }
  google.protobuf.FieldMask mask = 9;
}
message Reply {}
"#;

/// The style fills the context; `fixed` routes claim a path variable at the top and one inside a message, two presets
/// (one a wrapper's zero, inside a message), and a field where a header is sent.
const ROUTES: &str = r#"
styles:
  house:
    context: { field: meta, fill: { user_id: [ { value: verified } ] } }
defaults: { style: house }
routes:
  - { route: "POST /fixed/{id}/{profile.owner}", subject: svc.claims, request: claims.Request, reply: claims.Reply, body: "*",
      presets: { scope: "preset", profile.limit: "0" }, headers_in: { X-Agent: agent } }
  - { route: "GET /fixed/{id}/{profile.owner}", subject: svc.claims, request: claims.Request, reply: claims.Reply,
      presets: { scope: "preset" }, headers_in: { X-Agent: agent } }
  - { route: "POST /item/{item}", subject: svc.claims, request: claims.Request, reply: claims.Reply, body: "*" }
  - { route: "GET /item/{item}", subject: svc.claims, request: claims.Request, reply: claims.Reply }
  - { route: "PATCH /profile/{profile.owner}", subject: svc.claims, request: claims.Request, reply: claims.Reply, body: profile }
"#;

const FIXED: &str = "/fixed/7/anna";
/// What a worker gets on a fixed route whatever else is sent.
const OWN: &str = r#"{"meta":{"userId":"verified"},"id":"7","profile":{"owner":"anna","limit":0},"scope":"preset"}"#;
const TITLED: &str =
    r#"{"meta":{"userId":"verified"},"id":"7","profile":{"owner":"anna","title":"t","limit":0},"scope":"preset"}"#;
const AGENT: &str =
    r#"{"meta":{"userId":"verified"},"id":"7","profile":{"owner":"anna","limit":0},"scope":"preset","agent":"h"}"#;
const AGENT_BODY: &str =
    r#"{"meta":{"userId":"verified"},"id":"7","profile":{"owner":"anna","limit":0},"scope":"preset","agent":"b"}"#;
const PATCHED: &str = r#"{"meta":{"userId":"verified"},"profile":{"owner":"anna","title":"t"},"mask":"title"}"#;

/// How the body is sent.
#[derive(Clone, Copy)]
enum Body {
    None,
    Json(&'static str),
    /// As `curl -d` sends it.
    Form(&'static str),
    /// In hexadecimal digits, spaces between records.
    Binary(&'static str),
}
use Body::{Binary, Form, Json, None as Nothing};

struct Row {
    door: &'static str,
    verb: &'static str,
    path: &'static str,
    agent: Option<&'static str>,
    body: Body,
    /// The request as the worker sees it, or the reason of the refusal and its text.
    outcome: Result<&'static str, (&'static str, &'static str)>,
}

const fn row(
    door: &'static str,
    verb: &'static str,
    path: &'static str,
    agent: Option<&'static str>,
    body: Body,
    outcome: Result<&'static str, (&'static str, &'static str)>,
) -> Row {
    Row { door, verb, path, agent, body, outcome }
}

const SET: &str = "this field is set by the path, a header, the body or the gateway";
const CONFLICT: &str = "conflicting_fields";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("nothing", "POST", FIXED, None, Json("{}"), Ok(OWN)),
    // ---- JSON
    row("body: context", "POST", FIXED, None, Json(r#"{"meta":{"userId":"eve"}}"#), Ok(OWN)),
    row("body: context, null", "POST", FIXED, None, Json(r#"{"meta":null}"#), Ok(OWN)),
    row("body: context, an escape in its name", "POST", FIXED, None, Json(r#"{"m\u0065ta":{"user_id":"eve"}}"#), Ok(OWN)),
    row("body: context, twice", "POST", FIXED, None, Json(r#"{"meta":{},"meta":{"userId":"eve"}}"#), Ok(OWN)),
    row("body: path variable", "POST", FIXED, None, Json(r#"{"id":"8"}"#), Ok(OWN)),
    row("body: path variable inside, camel", "POST", FIXED, None, Json(r#"{"profile":{"owner":"eve","title":"t"}}"#), Ok(TITLED)),
    row("body: preset", "POST", FIXED, None, Json(r#"{"scope":"mine"}"#), Ok(OWN)),
    row("body: preset inside", "POST", FIXED, None, Json(r#"{"profile":{"limit":99}}"#), Ok(OWN)),
    row("body: header's field, header sent", "POST", FIXED, Some("h"), Json(r#"{"agent":"b"}"#), Ok(AGENT)),
    row("body: header's field, no header", "POST", FIXED, None, Json(r#"{"agent":"b"}"#), Ok(AGENT_BODY)),
    row("form body", "POST", FIXED, None, Form(r#"{"id":"8","meta":{"userId":"eve"}}"#), Ok(OWN)),
    // ---- query
    row("query: context", "GET", "/fixed/7/anna?meta.user_id=eve", None, Nothing, Err((CONFLICT, SET))),
    row("query: context whole", "GET", "/fixed/7/anna?meta=%7B%7D", None, Nothing, Err((CONFLICT, SET))),
    row("query: path variable", "GET", "/fixed/7/anna?id=8", None, Nothing, Err((CONFLICT, SET))),
    row("query: path variable inside", "GET", "/fixed/7/anna?profile.owner=eve", None, Nothing, Err((CONFLICT, SET))),
    row("query: its parent, as JSON", "GET", "/fixed/7/anna?profile=%7B%22owner%22:%22eve%22%7D", None, Nothing, Err((CONFLICT, SET))),
    row("query: preset", "GET", "/fixed/7/anna?scope=mine", None, Nothing, Err((CONFLICT, SET))),
    row("query: header's field, header sent", "GET", "/fixed/7/anna?agent=q", Some("h"), Nothing, Err((CONFLICT, SET))),
    row("query: beside `body: *`", "POST", "/fixed/7/anna?agent=q", None, Json("{}"), Err((CONFLICT, SET))),
    row("query: beside the claimed field", "GET", "/fixed/7/anna?profile.title=t", None, Nothing,
        Ok(r#"{"meta":{"userId":"verified"},"id":"7","profile":{"owner":"anna","title":"t"},"scope":"preset"}"#)),
    // ---- binary
    row("binary: nothing", "POST", FIXED, None, Binary(""), Ok(OWN)),
    row("binary: context, twice and around others", "POST", FIXED, None, Binary("0a050a03657665 1a031a0063 0a050a03657665"), Err(("malformed_body", ""))),
    row("binary: context, twice", "POST", FIXED, None, Binary("0a050a03657665 1a03120174 0a050a03657665"), Ok(TITLED)),
    row("binary: path variable, twice", "POST", FIXED, None, Binary("120138 120139"), Ok(OWN)),
    row("binary: path variable inside, split", "POST", FIXED, None, Binary("1a050a03657665 1a080a03657665120174"), Ok(TITLED)),
    row("binary: preset", "POST", FIXED, None, Binary("22046d696e65"), Ok(OWN)),
    row("binary: a wrapper's preset of zero inside", "POST", FIXED, None, Binary("1a041a020863"), Ok(OWN)),
    row("binary: header's field, header sent", "POST", FIXED, Some("h"), Binary("2a0162"), Ok(AGENT)),
    row("binary: header's field, no header", "POST", FIXED, None, Binary("2a0162"), Ok(AGENT_BODY)),
    // ---- oneofs
    row("body: another member", "POST", "/item/5", None, Json(r#"{"player":"p"}"#),
        Err((CONFLICT, "excluded by `item`, which the path or a header sets"))),
    row("body: another member, null", "POST", "/item/5", None, Json(r#"{"player":null}"#), Ok(r#"{"meta":{"userId":"verified"},"item":"5"}"#)),
    row("query: another member", "GET", "/item/5?player=p", None, Nothing, Err((CONFLICT, "excluded by `item`, a member of the same oneof"))),
    row("query: inside another member", "GET", "/item/5?other.title=t", None, Nothing, Err((CONFLICT, "excluded by `item`, a member of the same oneof"))),
    row("binary: another member", "POST", "/item/5", None, Binary("320170"), Err((CONFLICT, "excluded by `item`, which the path or a header sets"))),
    row("binary: inside another member", "POST", "/item/5", None, Binary("4203120174"), Err((CONFLICT, "excluded by `item`, which the path or a header sets"))),
    // ---- body: a field, and the mask made from it
    row("body field: path variable inside, and not in the mask", "PATCH", "/profile/anna", None, Json(r#"{"owner":"eve","title":"t"}"#), Ok(PATCHED)),
    row("body field: in binary", "PATCH", "/profile/anna", None, Binary("0a03657665120174"),
        Ok(r#"{"meta":{"userId":"verified"},"profile":{"owner":"anna","title":"t"}}"#)),
    row("body field: the query reaches into it", "PATCH", "/profile/anna?profile.title=q", None, Json("{}"), Err((CONFLICT, SET))),
    row("body field: a mask that is given", "PATCH", "/profile/anna?mask=tags", None, Json(r#"{"title":"t"}"#),
        Ok(r#"{"meta":{"userId":"verified"},"profile":{"owner":"anna","title":"t"},"mask":"tags"}"#)),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split(' ').collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn no_door_reaches_a_claimed_field() {
    let bus = Bus::embedded();
    let seen: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let mut subscription = bus.subscribe(&Pattern::new("svc.>").unwrap(), Some("q"), Limits::WORKER).await.unwrap();
    let (answers, notes) = (bus.clone(), seen.clone());
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = subscription.next().await {
            *notes.lock().unwrap() = Some(delivery.payload.to_vec());
            let subject = delivery.reply.unwrap();
            let message = Message { subject, reply: None, headers: Headers::new(), payload: Vec::new().into() };
            answers.publish(message).await.unwrap();
        }
    });
    let source = SourceFile { name: "test.proto".to_owned(), bytes: PROTO.as_bytes().to_vec() };
    let tables = schema::load(&[source]).unwrap().tables;
    let request = tables.message_id("claims.Request").unwrap();
    let (running, _) = gateway(material(ROUTES, PROTO).build(None).unwrap(), &bus, |_| {}).await;
    let client = reqwest::Client::new();
    let mut wrong = Vec::new();
    for row in ROWS {
        let verb = reqwest::Method::from_bytes(row.verb.as_bytes()).unwrap();
        let mut call = client.request(verb, url(&running, row.path));
        call = match row.body {
            Body::None => call,
            Body::Json(text) => call.header("content-type", "application/json").body(text),
            Body::Form(text) => call.header("content-type", "application/x-www-form-urlencoded").body(text),
            Body::Binary(hex) => call.header("content-type", "application/x-protobuf").body(bytes(hex)),
        };
        if let Some(agent) = row.agent {
            call = call.header("x-agent", agent);
        }
        *seen.lock().unwrap() = None;
        let answer = call.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let got = seen.lock().unwrap().take();
        let is_right = match (row.outcome, &got) {
            (Ok(wanted), Some(payload)) => {
                let mut json = Vec::new();
                wire_to_json(&tables, request, &JsonOut::default(), payload, &mut Scratch::default(), &mut json)
                    .unwrap();
                let json = String::from_utf8(json).unwrap();
                if json != wanted {
                    wrong.push(format!("{}: the worker got {json}", row.door));
                }
                status == 200
            }
            (Err((reason, text_of_it)), None) => {
                status == 400 && text.contains(&format!("\"{reason}\"")) && text.contains(text_of_it)
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{}: {status} {text}, payload {got:02x?}", row.door));
        }
    }
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}
