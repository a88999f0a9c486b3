//! Two tables compared: each row is a change of the file and what it means to clients.

mod support;

use std::process::Command;

use support::snapshot;
use tidegate::snapshot::diff::{Verdict, diff};

const PROTO: &str = r#"
syntax = "proto3";
package t;
message Ask { string name = 1; string kind = 2; int32 count = 3; string token = 4; }
message Told { string text = 1; int64 version = 2; bool valid = 3; string user = 4; }
message Other { string text = 1; }
service Tell { rpc Check(Ask) returns (Told); }
"#;

/// The table of before; rows below replace one text of it.
const ROUTES: &str = r#"
version: 1
credential: { call: t.Tell/Check, token: token, valid: valid, user: user }
defaults: { timeout: 5s, body_max: 64KiB, errors: problem, json: { names: proto, unknown: ignore } }
routes:
  - route: "GET /v1/things/{name}"
    subject: t.get
    request: t.Ask
    reply: t.Told
    headers_out: { version: ETag }
    headers_in: { X-Count: count }
    presets: { kind: a }
    policies: { auth: optional, calls: 5 }
  - { route: "POST /v1/things", subject: t.post, request: t.Ask, reply: t.Told, body: "*" }
"#;

/// Differences as lines: `!` breaks clients.
fn changes(old: &str, new: &str) -> (Verdict, Vec<String>) {
    let (verdict, changes) = diff(&snapshot(old, PROTO), &snapshot(new, PROTO));
    let lines = changes.iter().flat_map(|change| {
        change.details.iter().map(move |detail| {
            let mark = if detail.is_breaking { "!" } else { "" };
            let (kind, route) = (format!("{:?}", change.kind).to_lowercase(), &change.route);
            format!("{mark}{kind} {route}: {}: {} → {}: {}", detail.what, detail.before, detail.after, detail.meaning)
        })
    });
    (verdict, lines.collect())
}

/// What a replaced text does; the route's name and `changed` are left out.
fn change(before: &str, after: &str) -> (Verdict, Vec<String>) {
    assert!(ROUTES.contains(before), "{before}");
    let (verdict, lines) = changes(ROUTES, &ROUTES.replace(before, after));
    let short =
        |line: String| line.replace("changed GET /v1/things/{name}: ", "").replace("changed POST /v1/things: ", "+");
    (verdict, lines.into_iter().map(short).collect())
}

#[test]
fn nothing_differs_where_only_words_do() {
    assert_eq!(changes(ROUTES, ROUTES), (Verdict::Same, vec![]));
    assert_eq!(change("timeout: 5s", "timeout: 5000ms").0, Verdict::Same);
}

#[test]
fn each_change_says_what_it_means() {
    for (before, after, expected) in [
        (
            "subject: t.get",
            "subject: t.fetch",
            "subject: t.get → t.fetch: workers have to listen there before this is in force",
        ),
        ("auth: optional", "auth: required", "!auth: optional → required: a request without a credential is refused"),
        ("auth: optional, ", "", "!auth: optional → none: the method is not told who calls any more"),
        ("calls: 5", "calls: 2", "calls: 5 → 2: calls above it are refused with 429"),
        (
            "presets: { kind: a }",
            "presets: { kind: b }",
            "presets: {\"kind\":\"a\"} → {\"kind\":\"b\"}: constants of the request are others",
        ),
        (
            "headers_out: { version: ETag }",
            "",
            "!headers_out: version → etag → : the answer lacks a header that it had",
        ),
        (
            "headers_in: { X-Count: count }",
            "",
            "!headers_in: x-count → count → : a header that set a field does so no more",
        ),
        (
            "    reply: t.Told\n    headers_out: { version: ETag }",
            "    reply: t.Other",
            "reply: t.Told → t.Other: the reply is another message",
        ),
        (", body: \"*\"", "", "!+body: * → none: the body is another part of the request"),
    ] {
        let (verdict, lines) = change(before, after);
        assert!(lines.iter().any(|line| line == expected), "{before} → {after}: {lines:#?}");
        let worst =
            if lines.iter().any(|line| line.starts_with('!')) { Verdict::Breaking } else { Verdict::Compatible };
        assert_eq!(verdict, worst);
    }
    for (before, after, expected) in [
        ("body_max: 64KiB", "body_max: 1KiB", "!body_max: 65536 bytes → 1024 bytes: less is allowed than before"),
        ("body_max: 64KiB", "body_max: 1MiB", "body_max: 65536 bytes → 1048576 bytes: more is allowed than before"),
        ("timeout: 5s", "timeout: 1s", "timeout: 5s → 1s: less is allowed than before"),
        ("errors: problem", "errors: google", "!errors: problem → google: error bodies have another form"),
        ("names: proto", "names: camel", "!json.names: proto → camel: members of answers are named otherwise"),
        (
            "unknown: ignore",
            "unknown: reject",
            "!unknown: ignore → reject: members and parameters without a field are refused, where they were passed over",
        ),
    ] {
        let (_, lines) = change(before, after);
        let other = expected.strip_prefix('!').map_or_else(|| format!("+{expected}"), |rest| format!("!+{rest}"));
        let both = [other, expected.to_owned()];
        assert_eq!(lines, both, "{before} → {after}");
    }
}

#[test]
fn messages_are_judged_as_a_reload_judges_them_for_the_routes_that_reach_them() {
    let proto = PROTO.replace("string text = 1; int64 version = 2;", "string text = 1; string version = 2;");
    let (verdict, changes) = diff(&snapshot(ROUTES, PROTO), &snapshot(ROUTES, &proto));
    let schema: Vec<(&str, &str)> = changes
        .iter()
        .flat_map(|change| change.details.iter().map(|detail| (change.route.as_str(), detail.before.as_str())))
        .collect();
    let both = [("POST /v1/things", "t.Told.version"), ("GET /v1/things/{name}", "t.Told.version")];
    assert_eq!((verdict, schema.as_slice()), (Verdict::Breaking, both.as_slice()));
    let more = PROTO.replace("string user = 4;", "string user = 4; string more = 5;");
    assert_eq!(diff(&snapshot(ROUTES, PROTO), &snapshot(ROUTES, &more)).0, Verdict::Same);
}

#[test]
fn routes_come_and_go() {
    let added = |rows: &str| changes(ROUTES, &format!("{ROUTES}{rows}"));
    let row = |route: &str| format!("  - {{ route: \"{route}\", subject: t.new, request: t.Ask, reply: t.Told }}\n");
    let (verdict, lines) = added(&row("GET /v1/news"));
    let expected = "added GET /v1/news: route:  → GET /v1/news t.new: its requests were refused before";
    assert_eq!((verdict, lines), (Verdict::Compatible, vec![expected.to_owned()]));
    let (verdict, lines) = added(&row("GET /v1/things/latest"));
    let expected = "!added GET /v1/things/latest: route: GET /v1/things/{name} t.get → GET /v1/things/latest t.new: takes \
                    requests that went to `GET /v1/things/{name}` before";
    assert_eq!((verdict, lines), (Verdict::Breaking, vec![expected.to_owned()]));
    let more = format!("{ROUTES}{}", row("GET /v1/things/latest"));
    let (verdict, lines) = changes(&more, ROUTES);
    let expected = "!removed GET /v1/things/latest: route: GET /v1/things/latest t.new → : its requests go to `GET \
                    /v1/things/{name}` now";
    assert_eq!((verdict, lines), (Verdict::Breaking, vec![expected.to_owned()]));
    // Clients do not see what a variable is named, but the field is another one.
    let (verdict, lines) = change("/v1/things/{name}", "/v1/things/{token}");
    let renamed = lines.iter().any(|line| line.ends_with("path: name → token: a variable sets another field"));
    assert!(verdict == Verdict::Compatible && renamed, "{lines:#?}");
}

#[test]
fn the_command_compares_files_and_folders_and_ends_with_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, routes: &str| {
        let side = folder.path().join(name);
        std::fs::create_dir_all(side.join("descriptors")).unwrap();
        std::fs::write(side.join("routes.yaml"), routes).unwrap();
        std::fs::write(side.join("descriptors/test.proto"), PROTO).unwrap();
    };
    write("old", ROUTES);
    write("slower", &ROUTES.replace("timeout: 5s", "timeout: 9s"));
    write(
        "removed",
        &ROUTES.replace(
            "  - { route: \"POST /v1/things\", subject: t.post, request: t.Ask, reply: t.Told, body: \"*\" }\n",
            "",
        ),
    );
    write("broken", &ROUTES.replace("timeout: 5s", "timeout: soon"));
    let run = |arguments: &[&str]| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("diff").args(arguments).current_dir(&folder).output();
        let output = command.unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(run(&["old", "old/routes.yaml"]), (0, "the tables do the same\n".to_owned(), String::new()));
    let (code, text, _) = run(&["old", "slower"]);
    assert_eq!(code, 1);
    assert!(text.ends_with("0 added, 0 removed, 2 changed: clients go on as before\n"), "{text}");
    let (code, text, _) = run(&["old/routes.yaml", "removed/routes.yaml", "--new-descriptors", "old/descriptors"]);
    let expected = "- POST /v1/things  BREAKING\n  ! route: POST /v1/things t.post: its requests are refused now\n0 added, \
                    1 removed, 0 changed: 1 of them break clients\n";
    assert_eq!((code, text.as_str()), (2, expected));
    let (code, text, _) = run(&["old", "removed", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["verdict"], &report["changes"][0]["kind"]), (2, &"breaking".into(), &"removed".into()));
    let (code, _, text) = run(&["old", "broken"]);
    assert_eq!(code, 3);
    assert!(text.contains("the tables have 1 problem") && text.contains("routes.yaml:"), "{text}");
    let (code, _, text) = run(&["nowhere", "old"]);
    assert!(code == 3 && text.contains("cannot be read"), "{text}");
}
