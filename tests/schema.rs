//! The game's descriptors load, and say on the wire what the contract says.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use tidegate::schema::{self, Schema, SchemaProblem, SourceFile};
use tidegate::transcode::table::{Cardinality, Field, Kind, MessageTable};

fn descriptors() -> Vec<SourceFile> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptors");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                files.push(SourceFile { name, bytes: std::fs::read(&path).unwrap() });
            }
        }
    }
    files
}

fn source(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn shown(problems: &[SchemaProblem]) -> Vec<String> {
    problems.iter().map(|p| format!("{}:{}:{}: {}", p.file, p.line, p.column, p.text)).collect()
}

/// The problems of these files, as text.
fn refused(files: &[SourceFile]) -> Vec<String> {
    shown(&schema::load(files).unwrap_err())
}

#[test]
fn the_games_descriptors_load_with_their_bindings() {
    let schema = schema::load(&descriptors()).unwrap();
    let state = schema.services.iter().find(|s| s.name == "state_manager.v1.StateManagerService").unwrap();
    assert_eq!((state.short_name.as_str(), state.queue_group.as_str()), ("state-manager", "q.state"));
    let update = &state.methods[0];
    assert_eq!(update.name, "state_manager.v1.StateManagerService/UpdateState");
    assert_eq!(update.subject, "svc.state.manager.v1.update");
    assert_eq!(update.http.len(), 6);
    assert_eq!(update.http[1].verb, "DELETE");
    assert_eq!(update.http[1].presets, [("op".to_owned(), "DELETE".to_owned())]);
    assert_eq!(update.http[0].headers_in, [("If-Match".to_owned(), "expected_version".to_owned())]);
}

#[test]
fn every_broken_file_is_reported_with_its_place() {
    let problems = schema::load(&[
        source("a.proto", "syntax = \"proto3\";\nmessage A {\n  Missing field = 1;\n}\n"),
        source("b.proto", "syntax = \"proto3\";\nmessage B {\n  string field = ;\n}\n"),
        source("c.proto", "edition = \"2023\";\nmessage C {}\n"),
        source("d.proto", "syntax = \"proto3\";\nimport \"nowhere.proto\";\n"),
    ])
    .unwrap_err();
    assert_eq!(
        shown(&problems),
        [
            "a.proto:3:3: name 'Missing' is not defined",
            "b.proto:3:18: expected an integer, but found ';'",
            "c.proto:1:1: editions are read from descriptor sets, not from source",
            "d.proto:2:1: import 'nowhere.proto' not found",
        ]
    );
    assert_eq!(
        problems[2].hint,
        "make a set: `buf build -o set.binpb`, or `protoc --include_imports -o set.binpb c.proto`"
    );
}

#[test]
fn the_test_protos_load_alone_and_together() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/protos");
    let files: Vec<SourceFile> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| SourceFile {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            bytes: std::fs::read(&path).unwrap(),
        })
        .collect();
    assert_eq!(files.len(), 4);
    for file in &files {
        schema::load(std::slice::from_ref(file)).unwrap();
    }
    let schema = schema::load(&files).unwrap();
    for name in ["kinds.Singles", "kinds2.Groups", "protobuf_test_messages.proto3.TestAllTypesProto3"] {
        assert!(schema.tables.message_id(name).is_some(), "{name}");
    }
}

/// The type of a field, as the contract writes it.
fn type_name(schema: &Schema, field: &Field) -> String {
    let message_name = |id| schema.tables.message(id).name.to_string();
    if field.spec.cardinality == Cardinality::Map {
        let entry = schema.tables.message(field.message().unwrap());
        return format!("map<{}, {}>", type_name(schema, &entry.fields[0]), type_name(schema, &entry.fields[1]));
    }
    match field.spec.kind {
        Kind::Message(id) | Kind::Group(id) => message_name(id),
        Kind::Enum(id) => schema.tables.enumeration(id).name.to_string(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn contract() -> Value {
    serde_json::from_str(include_str!("data/contract.json")).unwrap()
}

/// What the services add to the contract: service and method names, streams, new fields and messages, HTTP bindings.
fn additions() -> Value {
    serde_json::from_str(include_str!("data/additions.json")).unwrap()
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {row}")).to_owned()
}

fn rows(table: &Value) -> &[Value] {
    table.as_array().unwrap()
}

/// The lines that only one side has.
fn assert_same(expected: &BTreeSet<String>, found: &BTreeSet<String>) {
    let missing: Vec<_> = expected.difference(found).collect();
    let extra: Vec<_> = found.difference(expected).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nnot documented: {extra:#?}");
}

#[test]
fn every_field_is_as_documented_and_there_is_no_other() {
    let schema = schema::load(&descriptors()).unwrap();
    let (contract, additions) = (contract(), additions());
    let mut expected = BTreeSet::new();
    for tables in [&contract["messages"], &additions["fields"]] {
        for (message, rows) in tables.as_object().unwrap() {
            for row in rows.as_array().unwrap() {
                let (name, kind, mark) = (text(row, "name"), text(row, "type"), text(row, "mark"));
                assert!(expected.insert(format!("{message}: {} {name} {kind} {mark}", row["number"])));
            }
        }
    }
    let mut found = BTreeSet::new();
    let entries = map_entries(&schema);
    let is_ours =
        |name: &str| !name.starts_with("google.") && !name.starts_with("tidegate.") && !entries.contains(name);
    for (_, table) in schema.tables.messages().filter(|(_, table)| is_ours(&table.name)) {
        for field in &table.fields {
            let mark = match (field.spec.cardinality, field.spec.oneof) {
                (Cardinality::Map, _) => "map".to_owned(),
                (Cardinality::Repeated, _) => "repeated".to_owned(),
                (_, Some(oneof)) => format!("oneof {}", table.oneof_name(oneof)),
                _ => String::new(),
            };
            let (message, number, name) = (&table.name, field.spec.number, &field.spec.name);
            assert!(
                field.spec.cardinality != Cardinality::Repeated || field.spec.is_packed == is_number(field),
                "{name}"
            );
            found.insert(format!("{message}: {number} {name} {} {mark}", type_name(&schema, field)));
        }
    }
    assert_same(&expected, &found);
}

/// The messages that only map fields name.
fn map_entries(schema: &Schema) -> BTreeSet<&str> {
    let fields = schema.tables.messages().flat_map(|(_, table)| &table.fields);
    let maps = fields.filter(|field| field.spec.cardinality == Cardinality::Map);
    maps.filter_map(|field| Some(&*schema.tables.message(field.message()?).name)).collect()
}

fn is_number(field: &Field) -> bool {
    !matches!(field.spec.kind, Kind::Message(_) | Kind::Group(_) | Kind::String | Kind::Bytes)
}

#[test]
fn every_enum_is_as_documented() {
    let schema = schema::load(&descriptors()).unwrap();
    for (name, values) in contract()["enums"].as_object().unwrap() {
        let table = schema.tables.enumeration(schema.tables.enum_id(name).unwrap_or_else(|| panic!("no `{name}`")));
        let found: Value = table.values().map(|(name, number)| (name.to_owned(), Value::from(number))).collect();
        assert_eq!(&found, values, "{name}");
    }
}

#[test]
fn every_operation_has_its_subject_queue_group_and_types() {
    let schema = schema::load(&descriptors()).unwrap();
    let (contract, additions) = (contract(), additions());
    let operations = rows(&contract["operations"]);
    let mut expected = BTreeSet::new();
    for service in rows(&additions["services"]) {
        let operation = operations.iter().find(|row| row["service"] == service["service"]).unwrap();
        expected.insert(format!(
            "{} {} {}",
            text(service, "service"),
            text(service, "name"),
            text(operation, "queue_group")
        ));
    }
    for row in rows(&additions["methods"]) {
        let operation =
            operations.iter().find(|operation| operation["subject"] == row["subject"] && row["stream"] == false);
        if let Some(operation) = operation {
            assert_eq!((&row["request"], &row["reply"]), (&operation["request"], &operation["reply"]), "{row}");
        }
        let chunk = operation.and_then(|operation| operation["chunk"].as_str()).unwrap_or("-");
        let stream = if row["stream"] == true { "stream " } else { "" };
        expected.insert(format!(
            "{} {} {}: {} -> {stream}{} {chunk}",
            text(row, "service"),
            text(row, "rpc"),
            text(row, "subject"),
            text(row, "request"),
            text(row, "reply")
        ));
    }
    for operation in operations {
        assert!(rows(&additions["methods"]).iter().any(|row| row["subject"] == operation["subject"]), "{operation}");
    }
    let name = |id| &schema.tables.message(id).name;
    let mut found = BTreeSet::new();
    for service in &schema.services {
        found.insert(format!("{} {} {}", service.short_name, service.name, service.queue_group));
        for method in &service.methods {
            let rpc = method.name.rsplit_once('/').unwrap().1;
            let stream = if method.is_server_streaming { "stream " } else { "" };
            let chunk = method.chunk.map_or("-", |id| name(id));
            let (request, reply) = (name(method.request), name(method.reply));
            let (service, subject) = (&service.short_name, &method.subject);
            found.insert(format!("{service} {rpc} {subject}: {request} -> {stream}{reply} {chunk}"));
        }
    }
    assert_same(&expected, &found);
}

#[test]
fn every_http_binding_is_as_documented() {
    let schema = schema::load(&descriptors()).unwrap();
    let additions = additions();
    let expected = additions["bindings"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
    let mut found = Vec::new();
    for method in schema.services.iter().flat_map(|service| &service.methods) {
        for rule in &method.http {
            let mut line = format!("{} {}", rule.verb, rule.path);
            if !rule.body.is_empty() {
                write!(line, " body {}", rule.body).unwrap();
            }
            for (field, value) in &rule.presets {
                write!(line, " preset {field}={value}").unwrap();
            }
            found.push(format!("{line} -> {}", method.name));
        }
    }
    assert_eq!(found.len(), 136);
    assert_same(&expected.collect(), &found.into_iter().collect());
}

#[test]
fn versions_travel_as_entity_tags_and_resume_points_as_event_ids() {
    let schema = schema::load(&descriptors()).unwrap();
    for method in schema.services.iter().flat_map(|service| &service.methods) {
        let (request, reply) = (schema.tables.message(method.request), schema.tables.message(method.reply));
        let those = |table: &MessageTable, names: &[&str]| -> Vec<String> {
            let fields = table.fields.iter().map(|field| field.spec.name.to_string());
            fields.filter(|name| names.contains(&name.as_str())).collect()
        };
        let pairs =
            |header: &'static str, fields: Vec<String>| fields.into_iter().map(move |field| (header.to_owned(), field));
        let mut headers_in: Vec<_> =
            pairs("If-Match", those(request, &["expected_version", "expected_revision"])).collect();
        headers_in.extend(pairs("Last-Event-ID", those(request, &["after_revision"])));
        let versions =
            if method.is_server_streaming { Vec::new() } else { those(reply, &["version", "new_version", "revision"]) };
        let headers_out: Vec<_> = versions.into_iter().map(|field| (field, "ETag".to_owned())).collect();
        for rule in &method.http {
            assert_eq!(
                (&rule.headers_in, &rule.headers_out),
                (&headers_in, &headers_out),
                "{} {}",
                rule.verb,
                rule.path
            );
        }
    }
}

#[test]
fn defaults_lie_in_the_tables_as_on_the_wire() {
    let text = include_str!("corpus/protos/kinds2.proto");
    let schema = schema::load(&[source("kinds2.proto", text)]).unwrap();
    let table = schema.tables.message(schema.message("kinds2.Defaults").unwrap());
    let default = |name: &str| table.field(table.field_by_name(name.as_bytes()).unwrap()).spec.default.clone();
    assert_eq!(default("f_int32"), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(default("f_sint32"), [0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert_eq!(default("f_sint64"), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(default("f_fixed32"), [0xff; 4]);
    assert_eq!(default("f_fixed64"), [0xff; 8]);
    assert_eq!(default("f_sfixed32"), [0xfe, 0xff, 0xff, 0xff]);
    assert_eq!(default("f_sfixed64"), [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(default("f_float"), (-0.5f32).to_le_bytes());
    assert_eq!(default("f_bool"), [1]);
    assert_eq!(default("f_bytes"), [0, 0xff]);
    assert_eq!(default("f_enum"), [2]);
}

#[test]
fn what_importers_of_a_broken_file_suffer_is_not_reported_again() {
    let files = [
        source("base.proto", "syntax = \"proto3\";\nmessage Base { Nothing x = 1; }\n"),
        source("one.proto", "syntax = \"proto3\";\nimport \"base.proto\";\nmessage One { Base base = 1; }\n"),
        source("two.proto", "syntax = \"proto3\";\nimport \"base.proto\";\nmessage Two { Base base = 1; }\n"),
    ];
    assert_eq!(refused(&files), ["base.proto:2:16: name 'Nothing' is not defined"]);
}

#[test]
fn cycles_duplicates_and_garbage_are_problems() {
    let cycle = [
        source("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
        source("b.proto", "syntax = \"proto3\";\nimport \"a.proto\";\n"),
    ];
    assert_eq!(refused(&cycle), ["a.proto:1:1: import cycle detected: a.proto -> b.proto -> a.proto"]);
    let twice = [
        source("a.proto", "syntax = \"proto3\";\npackage p;\nmessage Same {}\n"),
        source("b.proto", "syntax = \"proto3\";\npackage p;\nmessage Same {}\n"),
    ];
    assert_eq!(refused(&twice), ["b.proto:3:9: name 'p.Same' is already defined in file 'a.proto'"]);
    let names = [source("a.proto", "syntax = \"proto3\";\nmessage M {\n  int32 a_b = 1;\n  int32 aB = 2;\n}\n")];
    assert_eq!(refused(&names), ["a.proto:3:9: camel-case name of field 'a_b' conflicts with field 'aB'"]);
    let text = "failed to decode Protobuf message: invalid tag value: 0";
    let expected = format!("set.binpb:1:1: neither .proto source nor a binary FileDescriptorSet: {text}");
    assert_eq!(refused(&[source("set.binpb", "\u{1}garbage")]), [expected]);
    assert_eq!(refused(&[source("set.binpb", "")]), ["set.binpb:1:1: a descriptor set without files"]);
    let bytes = SourceFile { name: "a.proto".to_owned(), bytes: vec![0xff, 0xfe] };
    assert_eq!(refused(&[bytes]), ["a.proto:1:1: not UTF-8 text"]);
    let different = [source("a.proto", "syntax = \"proto3\";"), source("a.proto", "syntax = \"proto2\";")];
    assert_eq!(refused(&different), ["a.proto:1:1: given twice, with different content"]);
    let large = SourceFile { name: "big.binpb".to_owned(), bytes: vec![0; 50 * 1024 * 1024] };
    assert_eq!(refused(&[large]), ["big.binpb:1:1: larger than 33554432 bytes"]);
}

#[test]
fn deep_nesting_is_a_problem_not_a_crash() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    for body in [
        deep("message M {", "}"),
        format!("option (x) = {{ {} }};", deep("a {", "}")),
        format!("option (x) = {{ a: {} }};", deep("[", "]")),
        format!("message M {{ {} }}", deep("optional group G = 1 {", "}")),
    ] {
        let problems = schema::load(&[source("deep.proto", &format!("syntax = \"proto2\";\n{body}"))]).unwrap_err();
        assert_eq!(problems.len(), 1);
    }
}

#[test]
fn editions_come_from_sets_with_their_features() {
    let set = |name: &str, bytes: &[u8]| SourceFile { name: name.to_owned(), bytes: bytes.to_vec() };
    let schema = schema::load(&[
        set("editions.binpb", include_bytes!("data/editions.binpb")),
        set("editions_file.binpb", include_bytes!("data/editions_file.binpb")),
    ])
    .unwrap();
    let rows = |name: &str| -> Vec<String> {
        let table = schema.tables.message(schema.message(name).unwrap());
        let row = |field: &Field| {
            let spec = &field.spec;
            let kind =
                if matches!(spec.kind, Kind::Group(_)) { "delimited".to_owned() } else { type_name(&schema, field) };
            let packed = if spec.is_packed { " packed" } else { "" };
            let checks = if spec.checks_utf8 { "" } else { " unchecked" };
            format!("{}: {:?} {:?} {kind}{packed}{checks}", spec.name, spec.presence, spec.cardinality)
        };
        table.fields.iter().map(row).collect()
    };
    assert_eq!(
        rows("editions.Plain"),
        [
            "explicit: Explicit Single string",
            "implicit: Implicit Single int32",
            "required: Required Single int32",
            "packed: Implicit Repeated int32 packed",
            "expanded: Implicit Repeated int32",
            "prefixed: Explicit Single editions.Plain",
            "delimited: Explicit Single delimited",
            "unchecked: Explicit Single string unchecked",
            "map: Implicit Map map<string, editions.Plain>",
            "left: Explicit Single int32",
            "right: Explicit Single editions.Plain",
            "defaulted: Explicit Single int32",
            "closed: Explicit Single editions.Closed",
            "open: Explicit Single editions.Open",
        ]
    );
    assert_eq!(
        rows("editions_file.Whole"),
        [
            "implicit: Implicit Single int32",
            "explicit: Explicit Single int32",
            "expanded: Implicit Repeated int32",
            "delimited: Explicit Single delimited",
            "list: Implicit Repeated delimited",
            "map: Implicit Map map<string, editions_file.Whole>",
            "left: Explicit Single int32",
            "nested: Explicit Single editions_file.Whole.Nested",
            "inner: Explicit Single delimited",
        ]
    );
    let is_closed = |name: &str| schema.tables.enumeration(schema.tables.enum_id(name).unwrap()).is_closed;
    assert!(is_closed("editions.Closed") && is_closed("editions_file.Whole.Nested"));
    assert!(!is_closed("editions.Open"));
    let things = schema.services.iter().find(|service| service.name == "editions.Things").unwrap();
    assert_eq!(things.methods[0].http[0].path, "/things/{explicit}");
}

#[test]
fn one_file_of_two_sets_must_be_the_same_in_both() {
    let bytes = include_bytes!("data/editions_file.binpb");
    let set = |name: &str, bytes: &[u8]| SourceFile { name: name.to_owned(), bytes: bytes.to_vec() };
    schema::load(&[set("one.binpb", bytes), set("two.binpb", bytes)]).unwrap();
    let position = bytes.windows(4).position(|four| four == b"deep").unwrap();
    let mut other = bytes.to_vec();
    other[position] = b'k';
    assert_eq!(
        refused(&[set("one.binpb", bytes), set("two.binpb", &other)]),
        ["two.binpb:1:1: `editions_file.proto` is in `one.binpb`, too, with different content"]
    );
}

#[test]
fn damaged_sets_are_problems_or_load_but_never_crash() {
    for whole in [&include_bytes!("data/editions.binpb")[..], include_bytes!("data/editions_file.binpb")] {
        // Every part of the descriptors is hit, in three ways: cut off, flipped, and set to the largest byte.
        for position in (0..whole.len()).rev().step_by(11).take(120) {
            let mut flipped = whole.to_vec();
            flipped[position] ^= 1 << (position % 8);
            let mut highest = whole.to_vec();
            highest[position] = 0xff;
            for bytes in [whole[..position].to_vec(), flipped, highest] {
                if let Err(problems) = schema::load(&[SourceFile { name: "set.binpb".to_owned(), bytes }]) {
                    assert!(!problems.is_empty());
                }
            }
        }
    }
}
