//! The game's descriptors load, and say on the wire what the contract says.

use std::fmt::Write as _;

use serde_json::Value;
use tidegate::schema::{self, Schema, SchemaProblem, SourceFile};
use tidegate::transcode::table::{Cardinality, Field, Kind};

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

#[test]
fn every_message_and_enum_of_the_contract_is_there_unchanged() {
    let schema = schema::load(&descriptors()).unwrap();
    let contract: Value = serde_json::from_str(include_str!("data/contract.json")).unwrap();
    let mut differences = String::new();
    for (name, rows) in contract["messages"].as_object().unwrap() {
        let Some(id) = schema.message(name) else {
            writeln!(differences, "{name} is missing").unwrap();
            continue;
        };
        let table = schema.tables.message(id);
        for row in rows.as_array().unwrap() {
            let number = row["number"].as_u64().unwrap() as u32;
            let Some(field) = table.field_by_number(number).map(|id| table.field(id)) else {
                writeln!(differences, "{name}: {row} is missing").unwrap();
                continue;
            };
            let mark = match (field.spec.cardinality, field.spec.oneof) {
                (Cardinality::Map, _) => "map".to_owned(),
                (Cardinality::Repeated, _) => "repeated".to_owned(),
                (_, Some(oneof)) => format!("oneof {}", table.oneof_name(oneof)),
                _ => String::new(),
            };
            let found = (field.spec.name.as_str(), type_name(&schema, field), mark);
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            if (found.0.to_owned(), found.1.clone(), found.2.clone()) != (text("name"), text("type"), text("mark")) {
                writeln!(differences, "{name}: {row}, but the descriptor says {found:?}").unwrap();
            }
        }
    }
    for (name, values) in contract["enums"].as_object().unwrap() {
        let table = schema.tables.enumeration(schema.tables.enum_id(name).unwrap());
        for (value, number) in values.as_object().unwrap() {
            if table.number_of(value.as_bytes()).map(i64::from) != number.as_i64() {
                writeln!(differences, "{name}.{value} is not {number}").unwrap();
            }
        }
    }
    assert!(differences.is_empty(), "\n{differences}");
}

#[test]
fn every_operation_of_the_contract_has_its_subject_queue_group_and_types() {
    let schema = schema::load(&descriptors()).unwrap();
    let contract: Value = serde_json::from_str(include_str!("data/contract.json")).unwrap();
    let name = |id| schema.tables.message(id).name.to_string();
    for row in contract["operations"].as_array().unwrap() {
        let service = schema.services.iter().find(|service| service.short_name == row["service"]).unwrap();
        let method = service
            .methods
            .iter()
            .find(|method| method.subject == row["subject"] && !method.is_server_streaming)
            .unwrap_or_else(|| panic!("no method for {row}"));
        assert_eq!(Value::from(service.queue_group.as_str()), row["queue_group"]);
        assert_eq!(Value::from(name(method.request)), row["request"]);
        assert_eq!(Value::from(name(method.reply)), row["reply"]);
        assert_eq!(method.chunk.map_or(Value::Null, |id| name(id).into()), row["chunk"]);
    }
}

#[test]
fn every_binding_is_as_the_services_document_it() {
    let schema = schema::load(&descriptors()).unwrap();
    let mut bindings = Vec::new();
    for method in schema.services.iter().flat_map(|service| &service.methods) {
        for rule in &method.http {
            let mut line = format!("{} {}", rule.verb, rule.path);
            if !rule.body.is_empty() {
                write!(line, " body {}", rule.body).unwrap();
            }
            for (field, value) in &rule.presets {
                write!(line, " preset {field}={value}").unwrap();
            }
            bindings.push(format!("{} <- {line}", method.name.rsplit_once('/').unwrap().1));
        }
    }
    bindings.sort();
    assert_eq!(
        bindings,
        [
            "CancelGeneration <- POST /v1/generations/{generation_id}:cancel body *",
            "GenerateQuest <- POST /quest/generate body *",
            "GenerateQuest <- POST /v1/players/{player_id}/quests:generate body *",
            "GenerateQuestStream <- POST /v1/players/{player_id}/quests:streamGenerate body *",
            "GetQuest <- GET /v1/players/{player_id}/quests/{quest_id}",
            "GetState <- GET /v1/entities/{entity_id}/state",
            "GetState <- GET /v1/players/{player_id}/state",
            "GetState <- POST /state/get body *",
            "Infer <- POST /ai/llm/infer body *",
            "Infer <- POST /v1/inference body *",
            "Infer <- POST /v1/models/{model_id}:infer body *",
            "InferStream <- POST /v1/inference:stream body *",
            "InferStream <- POST /v1/models/{model_id}:streamInfer body *",
            "ListQuests <- GET /v1/players/{player_id}/quests",
            "ReportProgress <- POST /v1/players/{player_id}/quests/{quest_id}/objectives/{objective_id}:progress body *",
            "UpdateState <- DELETE /v1/entities/{entity.entity_id}/state preset op=DELETE",
            "UpdateState <- DELETE /v1/players/{player.player_id}/state preset op=DELETE",
            "UpdateState <- POST /state/update body *",
            "UpdateState <- POST /v1/state:update body *",
            "UpdateState <- PUT /v1/entities/{entity.entity_id}/state body entity preset op=UPSERT",
            "UpdateState <- PUT /v1/players/{player.player_id}/state body player preset op=UPSERT",
            "WatchState <- GET /v1/entities/{entity_id}/state:watch",
            "WatchState <- GET /v1/players/{player_id}/state:watch",
        ]
    );
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
