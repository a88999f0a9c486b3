//! Wire ↔ a handler's plain structs by the tables, against generated prost and against prost-reflect's message tree.
//! Outputs are compared with generated code's in the same run.

use std::collections::BTreeMap;
use std::hint::black_box;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate::schema::{self, SourceFile};
use tidegate::transcode::{Tables, from_wire, shape_check, to_wire};
use tidegate::worker::types::Timestamp;
use tidegate_floor::{PROTO, samples};

use crate::support::{Goal, Report, is_measuring, nanos, times_faster};

#[derive(Deserialize, Serialize)]
struct Small {
    player_id: String,
    seed: u64,
    difficulty: String,
    is_active: bool,
    score: f64,
    level: i32,
    at: Option<Timestamp>,
}

#[derive(Deserialize, Serialize)]
enum Rarity {
    Common,
    Rare,
    Epic,
    Unknown(i32),
}

#[derive(Deserialize, Serialize)]
struct Position {
    x: f64,
    y: f64,
    z: f64,
}

#[derive(Deserialize, Serialize)]
struct Item {
    item_id: String,
    name: String,
    count: u32,
    rarity: Rarity,
    weight: f64,
    attributes: BTreeMap<String, String>,
    sockets: Vec<i32>,
}

#[derive(Deserialize, Serialize)]
struct Nested {
    player_id: String,
    position: Option<Position>,
    items: Vec<Item>,
    counters: BTreeMap<String, i64>,
    place: Option<Place>,
    summary: Option<Small>,
    samples: Vec<f64>,
    updated_at: Option<Timestamp>,
}

#[derive(Deserialize, Serialize)]
enum Place {
    Zone(String),
    Coordinates(Position),
}

#[derive(Deserialize, Serialize)]
struct Large {
    world_id: String,
    players: Vec<Nested>,
}

struct Schemas {
    tables: std::sync::Arc<Tables>,
    pool: DescriptorPool,
}

pub fn run(report: &mut Report) {
    let source = SourceFile { name: "bench.proto".to_owned(), bytes: PROTO.as_bytes().to_vec() };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bench.proto"), PROTO).expect("bench.proto");
    let set = protox::compile(["bench.proto"], [folder.path()]).expect("the schema compiles");
    let schemas = Schemas {
        tables: schema::load(&[source]).expect("the schema loads").tables,
        pool: DescriptorPool::from_file_descriptor_set(set).expect("the pool"),
    };
    println!("structs");
    measure::<Small, _>(report, &schemas, "small", "bench.v1.Small", &samples::small(7));
    measure::<Nested, _>(report, &schemas, "nested", "bench.v1.Nested", &samples::nested(7));
    measure::<Large, _>(report, &schemas, "large", "bench.v1.Large", &samples::large());
}

fn measure<O: DeserializeOwned + Serialize, G: Message + Default + PartialEq>(
    report: &mut Report,
    schemas: &Schemas,
    size: &str,
    name: &str,
    sample: &G,
) {
    let tables = &schemas.tables;
    let id = tables.message_id(name).expect(name);
    let descriptor = schemas.pool.get_message_by_name(name).expect(name);
    shape_check::<O>(tables, id, &[]).expect("the struct fits");
    let wire = sample.encode_to_vec();
    let ours: O = from_wire(tables, id, &wire).expect("our struct");
    let mut out = Vec::with_capacity(wire.len() * 2);
    to_wire(tables, id, &ours, &mut out).expect("our wire");
    assert!(G::decode(out.as_slice()).expect("generated") == *sample, "{size}: our wire says something else");
    if !is_measuring() {
        return;
    }
    let mut read = || {
        black_box(from_wire::<O>(tables, id, black_box(&wire)).expect("our struct"));
    };
    let generated = || {
        black_box(G::decode(black_box(wire.as_slice())).expect("generated"));
    };
    let reflect = || {
        black_box(DynamicMessage::decode(descriptor.clone(), black_box(wire.as_slice())).expect("oracle"));
    };
    println!("  {size}: {} B, wire → struct in {:.0} ns", wire.len(), nanos(&mut read));
    let (generated, _) = times_faster(&mut read, generated);
    report.ratio(format!("{size}, wire → struct: generated / ours"), Goal::None, generated);
    let (reflect, _) = times_faster(&mut read, reflect);
    report.ratio(format!("{size}, wire → struct: prost-reflect / ours"), Goal::None, reflect);
    let mut write = || {
        out.clear();
        to_wire(tables, id, black_box(&ours), &mut out).expect("our wire");
        black_box(&out);
    };
    let mut other = Vec::with_capacity(wire.len() * 2);
    let generated = || {
        other.clear();
        black_box(sample).encode(&mut other).expect("generated");
        black_box(&other);
    };
    println!("  {size}: {} B, struct → wire in {:.0} ns", wire.len(), nanos(&mut write));
    let (generated, _) = times_faster(&mut write, generated);
    report.ratio(format!("{size}, struct → wire: generated / ours"), Goal::None, generated);
}
