//! The bodies of the fuzz targets over the corpus and over random inputs, so that they cannot rot. With
//! `TIDEGATE_FUZZ_SEEDS=folder` the inputs are written there, too, a folder a target: the seeds of `make fuzz-seeds`.

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "corpus/mod.rs"]
mod corpus;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde::Deserialize;

const CASES: u32 = 2_000;

/// A row of `wire_to_json`, of which only the input matters here.
#[derive(Deserialize)]
struct WireRow {
    message: String,
    wire: String,
}

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 8] = [
    ("json_to_wire", bodies::json_to_wire),
    ("wire_to_json", bodies::wire_to_json),
    ("text_to_wire", bodies::text_to_wire),
    ("canonical", bodies::canonical),
    ("wire_to_rust", bodies::wire_to_rust),
    ("template", bodies::template),
    ("manifest", bodies::manifest),
    ("head", bodies::head),
];

/// An input for a message: its place in the list before the content. Rows of other messages are nobody's seed.
fn with_message(message: &str, content: &[u8]) -> Option<Vec<u8>> {
    let place = bodies::MESSAGES.iter().position(|name| *name == message)?;
    Some([&[place as u8], content].concat())
}

fn wires() -> Vec<(String, Vec<u8>)> {
    let bodies =
        corpus::rows::<corpus::JsonRow>("json_to_wire").into_iter().filter_map(|row| Some((row.message, row.wire?)));
    let wires = corpus::rows::<WireRow>("wire_to_json").into_iter().map(|row| (row.message, row.wire));
    bodies.chain(wires).map(|(message, wire)| (message, corpus::bytes(&wire))).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let lines = |text: &str| text.lines().map(|line| line.as_bytes().to_vec()).collect();
    match target {
        "json_to_wire" => corpus::rows::<corpus::JsonRow>("json_to_wire")
            .iter()
            .filter_map(|row| with_message(&row.message, &row.body()))
            .collect(),
        "text_to_wire" => corpus::rows::<corpus::QueryRow>("text_to_wire")
            .iter()
            .filter_map(|row| {
                let lines: Vec<String> = row.query.iter().map(|(name, text)| format!("{name}={text}")).collect();
                with_message(&row.message, lines.join("\n").as_bytes())
            })
            .collect(),
        "wire_to_json" | "canonical" => {
            wires().iter().filter_map(|(message, wire)| with_message(message, wire)).collect()
        }
        "wire_to_rust" => {
            wires().into_iter().filter(|(message, _)| message == "kinds.Singles").map(|(_, wire)| wire).collect()
        }
        "template" => lines(
            "/\n/v1/{id}\n/v1/{name=shelves/*/books/**}:read\n/v1/{a.b.c}\n/**\n/v1/*:x\n/v1/{\n/v1/{a=}\n/{a=**}/b\nv1\n/%41\n",
        ),
        "manifest" => {
            let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.yaml")).expect("routes.yaml");
            let small =
                ["defaults:\n  timeout: 3s\n", "a: [", "a: &x [*x]\n", "routes:\n  - GET /x: {call: y}\n", "? - :"];
            small.iter().map(|text| text.as_bytes().to_vec()).chain([file]).collect()
        }
        _ => [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /a?b=c HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            "GET http://a/ HTTP/1.0\r\n\r\n",
            "TRACE / HTTP/1.1\nhost: a\n\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
    }
}

#[test]
fn the_corpus_harms_no_target() {
    let folder = std::env::var_os("TIDEGATE_FUZZ_SEEDS");
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() > 4, "{target} has seeds");
        seeds.iter().for_each(|seed| body(seed));
        if let Some(folder) = &folder {
            let folder = std::path::Path::new(folder).join(target);
            std::fs::create_dir_all(&folder).expect("a folder");
            for (index, seed) in seeds.iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{index:04}")), seed).expect("a seed");
            }
        }
    }
}

/// Seeds with a few bytes changed, cut or doubled reach further than noise does.
#[test]
fn damaged_seeds_harm_no_target() {
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        let damage = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4u8), 1..6);
        let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
        runner
            .run(&(any::<proptest::sample::Index>(), damage), |(which, damage)| {
                let mut input = seeds[which.index(seeds.len())].clone();
                for (place, byte, kind) in damage {
                    let at = place.index(input.len() + 1).min(input.len());
                    match kind {
                        0 => input.insert(at, byte),
                        1 if at < input.len() => input[at] = byte,
                        2 => input.truncate(at),
                        _ => input.extend_from_within(at..),
                    }
                }
                body(&input);
                Ok(())
            })
            .expect(target);
    }
}
