//! The game's descriptors load, and say on the wire what the contract says.

use tidegate::schema::{self, SourceFile};

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
    let source = |name: &str, text: &str| SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() };
    let problems = schema::load(&[
        source("a.proto", "syntax = \"proto3\";\nmessage A {\n  Missing field = 1;\n}\n"),
        source("b.proto", "syntax = \"proto3\";\nmessage B {\n  string field = ;\n}\n"),
        source("c.proto", "edition = \"2023\";\nmessage C {}\n"),
        source("d.proto", "syntax = \"proto3\";\nimport \"nowhere.proto\";\n"),
    ])
    .unwrap_err();
    let shown: Vec<String> =
        problems.iter().map(|p| format!("{}:{}:{}: {}", p.file, p.line, p.column, p.text)).collect();
    assert_eq!(
        shown,
        [
            "a.proto:3:3: name 'Missing' is not defined",
            "b.proto:3:18: expected an integer, but found ';'",
            "c.proto:1:1: editions are read from descriptor sets, not from source",
            "d.proto:2:1: import 'nowhere.proto' not found",
        ]
    );
    assert_eq!(problems[2].hint, "make a set: protoc --include_imports --descriptor_set_out=set.binpb c.proto");
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
