//! What `tidegate check` says of mistakes in a routes file: the whole text of each, and several at once.

mod support;

use support::material;
use tidegate::snapshot::problem::{Problem, render};
use tidegate::snapshot::{Files, Source as _};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
message Meta { string trace_id = 1; }
message Ask { string id = 1; int32 count = 2; repeated string tags = 3; Meta meta = 4; Ask inner = 5; }
message Answer { string id = 1; Meta meta = 2; }
service Things {
  rpc Get(Ask) returns (Answer);
  rpc Find(Ask) returns (Answer);
  rpc Check(Ask) returns (Checked);
  rpc Watch(Ask) returns (stream Answer);
}
message Checked { bool valid = 1; string user = 2; map<string, string> data = 3; int64 expires = 4; }
"#;

/// Everything that is said of a file, as the program prints it.
fn report(routes: &str) -> String {
    let material = material(routes, PROTO);
    let problems = material.build(None).err().unwrap_or_default();
    render(&problems, false, |file| material.text_of(file)).trim_end().to_owned()
}

/// What is said of a file, one `line:column: text (hint)` a problem.
fn said(routes: &str) -> Vec<String> {
    let problems = material(routes, PROTO).build(None).err().unwrap_or_default();
    let line = |p: &Problem| {
        let hint = if p.hint.is_empty() { String::new() } else { format!(" ({})", p.hint) };
        format!("{}:{}: {}{hint}", p.place.line, p.place.column, p.message)
    };
    problems.iter().map(line).collect()
}

/// A file with one mistake, and all that is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("", "1:1: this file is empty: it would serve nothing (`tidegate init` makes a starter folder)"),
    (" \n\n", "1:1: this file is empty: it would serve nothing (`tidegate init` makes a starter folder)"),
    ("version: 2\n", "1:10: version 2: this program reads version 1"),
    ("errors: pretty\n", "1:9: expected `problem` or `google` or `legacy`, found `pretty`"),
    (
        "routes: [ { route: GET/a, call: t.v1.Things/Get } ]\n",
        "1:20: expected a method and a path, such as `GET /v1/quests/{quest_id}`",
    ),
    ("routes: [ { route: GET a, call: t.v1.Things/Get } ]\n", "1:20: `a`, column 1: a path template begins with `/`"),
    (
        "routes: [ { route: FETCH /a, call: t.v1.Things/Get } ]\n",
        "1:20: `FETCH`: expected one of GET, PUT, POST, DELETE, PATCH, HEAD, *",
    ),
    ("routes: [ { route: GET /a } ]\n", "1:20: a route has either `call` or `subject` with `request` and `reply`"),
    (
        "routes: [ { route: GET /a, call: t.v1.Things/Got } ]\n",
        "1:34: the descriptors have no method `t.v1.Things/Got` (did you mean `t.v1.Things/Get`?)",
    ),
    (
        "routes: [ { route: GET /a, subject: a.b } ]\n",
        "1:37: a route with `subject` names its `request` and `reply` messages",
    ),
    (
        "routes: [ { route: GET /a, subject: a.b, request: t.v1.Aks, reply: t.v1.Answer } ]\n",
        "1:51: the descriptors have no message `t.v1.Aks` (did you mean `t.v1.Ask`?)",
    ),
    (
        "routes: [ { route: GET /a, subject: $JS.API.INFO, request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: the subject `$JS.API.INFO` belongs to the NATS server: a route cannot reach it",
    ),
    (
        "routes: [ { route: GET /a, subject: $SYS.REQ, request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: the subject `$SYS.REQ` belongs to the NATS server: a route cannot reach it",
    ),
    (
        "routes: [ { route: GET /a, subject: _INBOX.x, request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: the subject `_INBOX.x` belongs to the NATS server: a route cannot reach it",
    ),
    (
        "routes: [ { route: GET /a, subject: $SRV.PING, request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: the subject `$SRV.PING` belongs to the NATS server: a route cannot reach it",
    ),
    (
        "routes: [ { route: GET /a, subject: $SRV, request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: the subject `$SRV` belongs to the NATS server: a route cannot reach it",
    ),
    (
        "routes: [ { route: GET /a, subject: $KV.users.p1, request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: the subject `$KV.users.p1` belongs to the NATS server: a route cannot reach it",
    ),
    (
        "routes: [ { route: GET /a, subject: '$JS.API.>', request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: `$JS.API.>` is no subject: `*` and `>` are wildcards",
    ),
    (
        "routes: [ { route: GET /a, subject: 'a.>', request: t.v1.Ask, reply: t.v1.Answer } ]\n",
        "1:37: `a.>` is no subject: `*` and `>` are wildcards",
    ),
    (
        "routes: [ { route: 'GET /a/{id', call: t.v1.Things/Get } ]\n",
        "1:20: `/a/{id`, column 7: expected `}`, the end of the variable that began in column 4",
    ),
    (
        "routes: [ { route: 'GET /a/{idd}', call: t.v1.Things/Get } ]\n",
        "1:20: `GET /a/{idd}`: path variable `idd`: `t.v1.Ask` has no field `idd`",
    ),
    (
        "routes: [ { route: 'GET /a/{tags}', call: t.v1.Things/Get } ]\n",
        "1:20: `GET /a/{tags}`: path variable `tags`: a list, map or message cannot be a part of a path",
    ),
    (
        "routes: [ { route: 'GET /a/{id}/{id}', call: t.v1.Things/Get } ]\n",
        "1:20: `/a/{id}/{id}`, column 10: the variable `id` stands twice in this template",
    ),
    (
        "routes: [ { route: POST /a, call: t.v1.Things/Get, body: bodi } ]\n",
        "1:20: `POST /a`: body `bodi`: `t.v1.Ask` has no field `bodi`",
    ),
    (
        "routes: [ { route: GET /a, call: t.v1.Things/Get, response_body: idd } ]\n",
        "1:20: `t.v1.Answer` has no field `idd`",
    ),
    (
        "routes: [ { route: GET /a, call: t.v1.Things/Get, presets: { count: many } } ]\n",
        "1:20: `GET /a`: preset `count`: expected a 32-bit integer, found `many`",
    ),
    (
        "routes: [ { route: GET /a, call: t.v1.Things/Get, headers_out: { idd: ETag } } ]\n",
        "1:20: `t.v1.Answer` has no field `idd`",
    ),
    (
        "routes:\n  - { route: 'GET /a/{id}', call: t.v1.Things/Get }\n  - { route: 'GET /a/{inner.id}', call: t.v1.Things/Find }\n",
        "3:14: `GET /a/{inner.id}` takes the same requests as `GET /a/{id}` (routes.yaml:2:14) (remove one of the two)",
    ),
    (
        "defaults: { timeout: 30 }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:22: expected a duration such as `500ms` or `30s`, found `30`",
    ),
    (
        "defaults: { timeout: 1d }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:22: expected a duration such as `500ms` or `30s`, found `1d`",
    ),
    (
        "defaults: { timeout: 10m }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:22: `10m` is out of range: expected 1ms to 300s",
    ),
    (
        "defaults: { body_max: 1GiB }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:23: expected a size such as `64KiB` up to `64MiB`, found `1GiB`",
    ),
    (
        "defaults: { streams: 0 }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:22: expected a number above 0",
    ),
    (
        "defaults: { rate: { requests: 0, per: 1s } }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:19: `requests` and `burst` must be above 0",
    ),
    (
        "defaults: { json: { names: snake } }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:28: expected `camel` or `proto`, found `snake`",
    ),
    (
        "defaults: { style: plane }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:20: there is no style `plane` (did you mean `plain`?)",
    ),
    (
        "annotations: [ { services: [ t.v1.Thing ] } ]\n",
        "1:30: the descriptors have no service `t.v1.Thing` (did you mean `t.v1.Things`?)",
    ),
    ("methods: { t.v1.Things/Gett: { timeout: 1s } }\n", "1:30: no route leads to a method `t.v1.Things/Gett`"),
    ("styles: { plain: {} }\n", "1:18: the style `plain` is built in: choose another name"),
    (
        "styles: { house: { context: { field: meta, fill: { trace_id: [ guessed ] } } } }\n",
        "1:18: `trace_id`: `guessed` is no source: expected one of `generated`, `traceparent`, `now`, `caller.user`, `caller.tenant`, `caller.role`, or a map",
    ),
    (
        "styles: { house: { context: { field: meta, fill: { trace_id: [ generated ] } } } }\ndefaults: { style: house }\nroutes: [ { route: 'GET /a/{meta.trace_id}', call: t.v1.Things/Get } ]\n",
        "3:20: `GET /a/{meta.trace_id}`: path variable `meta.trace_id`: this field carries the caller context, which only the gateway writes",
    ),
    (
        "defaults: { auth: required }\nroutes: [ { route: GET /a, call: t.v1.Things/Get } ]\n",
        "1:19: `auth: required`: nothing says how a token is checked (declare it at the top, under `credential`)",
    ),
    (
        "credential: { call: t.v1.Things/Got, token: id, valid: id, user: id }\n",
        "1:21: the descriptors have no method `t.v1.Things/Got` (did you mean `t.v1.Things/Get`?)",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: meta, valid: valid, user: user }\n",
        "1:47: `meta` is no text field",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: user, user: user }\n",
        "1:58: `user`: expected a boolean field",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: valid, user: usr }\n",
        "1:71: `t.v1.Checked` has no field `usr`",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: valid, user: user, tenant: data }\n",
        "1:85: `data`: expected a text field, or an entry of a map of texts such as `data[name]`",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: valid, user: user, expires: 'data[a]' }\n",
        "1:86: `data[a]`: expected a 64-bit number of milliseconds since 1970",
    ),
    (
        "credential: { call: t.v1.Things/Watch, token: id, valid: valid, user: user }\n",
        "1:21: `t.v1.Things/Watch` answers with a stream: a credential is checked by one reply",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: valid, user: user, revocations: { call: t.v1.Things/Get, token_hash: id } }\n",
        "1:98: `t.v1.Things/Get` answers once: revocations are told by a stream",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: valid, user: user, revocations: { call: t.v1.Things/Watch, token_hash: meta } }\n",
        "1:129: `meta`: expected a text field",
    ),
    (
        "credential: { call: t.v1.Things/Check, token: id, valid: valid, user: user, revocations: { call: t.v1.Things/Watch, token_hash: id, after: count } }\n",
        "1:140: `count` is no 64-bit number of the request itself",
    ),
    (
        "ruotes: []\n",
        "1:1: unknown field `ruotes`, expected one of annotations, credential, defaults, errors, groups, methods, open_streams, openapi, routes, styles, version (did you mean `routes`?)",
    ),
    (
        "defaults: { timeot: 1s }\n",
        "1:13: unknown field `timeot`, expected one of auth, body_max, breaker, calls, cors, errors, json, migrate, rate, retries, stream_idle, streams, style, timeout (did you mean `timeout`?)",
    ),
    ("routes: [\n", "1:9: unclosed bracket '['"),
    ("version: one\n", "1:10: expected a whole number, found `one`"),
    ("version: 1\nversion: 1\n", "2:1: duplicate mapping key: version"),
    ("annotations: [ { services: [ '*' ], convention: yes } ]\n", "1:49: expected `true` or `false`, found `yes`"),
];

#[test]
fn each_mistake_has_its_text_and_place() {
    for (routes, expected) in MISTAKES {
        assert_eq!(said(routes), [*expected], "{routes}");
    }
}

#[test]
fn all_mistakes_are_shown_at_once_in_the_order_of_the_file() {
    let routes = "\
version: 2
defaults: { style: plane, timeout: 30 }
routes:
  - route: FETCH /b
    call: t.v1.Things/Get
  - route: GET /a
    call: t.v1.Things/Got
";
    let expected = r#"
error: version 2: this program reads version 1
 --> routes.yaml:1:10
  |
1 | version: 2
  |          ^

error: there is no style `plane`
 --> routes.yaml:2:20
  |
2 | defaults: { style: plane, timeout: 30 }
  |                    ^^^^^
  |
  = help: did you mean `plain`?

error: expected a duration such as `500ms` or `30s`, found `30`
 --> routes.yaml:2:36
  |
2 | defaults: { style: plane, timeout: 30 }
  |                                    ^^

error: `FETCH`: expected one of GET, PUT, POST, DELETE, PATCH, HEAD, *
 --> routes.yaml:4:12
  |
4 |   - route: FETCH /b
  |            ^^^^^^^^

error: the descriptors have no method `t.v1.Things/Got`
 --> routes.yaml:7:11
  |
7 |     call: t.v1.Things/Got
  |           ^^^^^^^^^^^^^^^
  |
  = help: did you mean `t.v1.Things/Get`?
"#;
    assert_eq!(report(routes), expected.trim());
}

#[test]
fn a_mistake_in_a_schema_is_shown_at_the_path_that_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("protos/a")).unwrap();
    std::fs::write(path("routes.yaml"), "annotations: [ { services: [ '*' ] } ]\n").unwrap();
    let shown = |proto: &str, given: &str| {
        std::fs::write(path("protos/a/b.proto"), proto).unwrap();
        let files = Files { routes: path("routes.yaml"), descriptors: path(given) };
        let material = files.read().unwrap();
        let problems = material.build(None).unwrap_err();
        render(&problems, false, |file| material.text_of(file))
    };
    let file = path("protos/a/b.proto").display().to_string();
    // What does not compile, what the tables refuse, and what is not there yet.
    for (proto, line, column) in [
        ("syntax = \"proto3\";\nmessage A { Missing b = 1; }\n", 2, 13),
        (
            "syntax = \"proto3\";\nimport \"google/api/annotations.proto\";\nmessage A { string b = 1; }\nservice S {\n  \
             rpc Get(A) returns (A) { option (google.api.http) = { get: \"a\" }; }\n}\n",
            5,
            3,
        ),
        ("", 1, 1),
    ] {
        for given in ["protos", "protos/a/b.proto"] {
            let text = shown(proto, given);
            assert!(
                text.contains(&format!("--> {file}:{line}:{column}")) || proto.is_empty() && text.contains(&file),
                "{text}"
            );
        }
    }
}
