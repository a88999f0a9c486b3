//! JSON ↔ wire on three sizes, against prost-reflect + serde_json and against generated prost + pbjson; and what
//! disorder costs. Outputs are compared with the oracle's in the same run.

use std::hint::black_box;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate::schema::{self, SourceFile};
use tidegate::transcode::wire::{put_bytes, put_number};
use tidegate::transcode::{
    BodyPlan, Claims, JsonIn, JsonOut, MessageId, Root, Scratch, Tables, json_to_wire, wire_to_json,
};
use tidegate_floor::{PROTO, samples};

use crate::support::{Goal, Ratio, Report, is_measuring, nanos, times_faster};

/// Times faster than prost-reflect + serde_json, and than generated prost + pbjson + serde_json.
const INBOUND: Goal = Goal::AtLeast(12.0);
const OUTBOUND: Goal = Goal::AtLeast(8.0);
const GENERATED: Goal = Goal::AtLeast(2.5);
/// Times slower than the same in order.
const DISORDER: Goal = Goal::AtMost(10.0);

struct Ours {
    tables: std::sync::Arc<Tables>,
    pool: DescriptorPool,
}

pub fn run(report: &mut Report) {
    let source = SourceFile { name: "bench.proto".to_owned(), bytes: PROTO.as_bytes().to_vec() };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bench.proto"), PROTO).expect("bench.proto");
    let set = protox::compile(["bench.proto"], [folder.path()]).expect("the schema compiles");
    let ours = Ours {
        tables: schema::load(&[source]).expect("the schema loads").tables,
        pool: DescriptorPool::from_file_descriptor_set(set).expect("the pool"),
    };
    println!("transcode");
    measure(report, &ours, "small", "bench.v1.Small", &samples::small(7));
    measure(report, &ours, "nested", "bench.v1.Nested", &samples::nested(7));
    measure(report, &ours, "large", "bench.v1.Large", &samples::large());
    disorder(report, &ours);
}

fn measure<T: Message + Default + Serialize + DeserializeOwned + PartialEq>(
    report: &mut Report,
    ours: &Ours,
    size: &str,
    name: &str,
    sample: &T,
) {
    let id = ours.tables.message_id(name).expect(name);
    let descriptor = ours.pool.get_message_by_name(name).expect(name);
    let (wire, json) = (sample.encode_to_vec(), serde_json::to_string(sample).expect("JSON"));
    let plan = BodyPlan { root: Root::Message(id), options: JsonIn::default(), claims: Claims::new(), lift: None };
    let mut out = Vec::with_capacity(json.len());
    let mut to_wire = || {
        out.clear();
        json_to_wire(&ours.tables, &plan, 0, black_box(json.as_bytes()), &mut out, None).expect("our wire");
        black_box(&out);
    };
    to_wire();
    compare(ours, id, &descriptor, sample, &json, &wire);
    if !is_measuring() {
        return;
    }
    let reflect_in = || {
        let mut reader = serde_json::Deserializer::from_str(black_box(&json));
        let message =
            DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &DeserializeOptions::new());
        black_box(message.expect("oracle").encode_to_vec());
    };
    let generated_in = || {
        black_box(serde_json::from_str::<T>(black_box(&json)).expect("generated").encode_to_vec());
    };
    let pairs = [times_faster(&mut to_wire, reflect_in), times_faster(&mut to_wire, generated_in)];
    let direction = format!("{size}, JSON → wire");
    tell(report, &direction, json.len(), nanos(&mut to_wire), INBOUND, pairs);
    let (mut scratch, mut text) = (Scratch::default(), Vec::with_capacity(json.len()));
    let mut to_json = || {
        text.clear();
        wire_to_json(&ours.tables, id, &JsonOut::default(), black_box(&wire), &mut scratch, &mut text)
            .expect("our JSON");
        black_box(&text);
    };
    let reflect_out = || {
        let message = DynamicMessage::decode(descriptor.clone(), black_box(wire.as_slice())).expect("oracle");
        let mut out = Vec::with_capacity(json.len());
        let mut writer = serde_json::Serializer::new(&mut out);
        message.serialize_with_options(&mut writer, &SerializeOptions::new()).expect("oracle");
        black_box(out);
    };
    let generated_out = || {
        let message = T::decode(black_box(wire.as_slice())).expect("generated");
        black_box(serde_json::to_vec(&message).expect("generated"));
    };
    let pairs = [times_faster(&mut to_json, reflect_out), times_faster(&mut to_json, generated_out)];
    let direction = format!("{size}, wire → JSON");
    tell(report, &direction, wire.len(), nanos(&mut to_json), OUTBOUND, pairs);
}

/// One direction of one size against the two others.
fn tell(report: &mut Report, what: &str, bytes: usize, nanos: f64, goal: Goal, pairs: [(Ratio, f64); 2]) {
    println!("  {what}: {bytes} B in {nanos:.0} ns");
    for ((name, goal), (ratio, wall)) in [("prost-reflect", goal), ("generated", GENERATED)].into_iter().zip(pairs) {
        println!("    {name} {ratio} (by the wall clock {wall:.2}x)");
        report.ratio(format!("{what}: {name} / ours"), goal, ratio);
    }
}

/// Byte for byte: our wire is the generated code's wire (read and written by it); our JSON means what the generated code's JSON means, and
/// gives the same bytes again.
fn compare<T: Message + Default + DeserializeOwned + PartialEq>(
    ours: &Ours,
    id: MessageId,
    descriptor: &MessageDescriptor,
    sample: &T,
    json: &str,
    wire: &[u8],
) {
    let plan = BodyPlan { root: Root::Message(id), options: JsonIn::default(), claims: Claims::new(), lift: None };
    let mut again = Vec::new();
    json_to_wire(&ours.tables, &plan, 0, json.as_bytes(), &mut again, None).expect("our wire");
    // The generated code prints oneofs last, so the records may come in another order; read and written again by it,
    // they are the same bytes.
    let reread = T::decode(again.as_slice()).expect("generated code reads our wire");
    assert!(reread.encode_to_vec() == wire, "our wire differs from the generated code's");
    let mut text = Vec::new();
    wire_to_json(&ours.tables, id, &JsonOut::default(), wire, &mut Scratch::default(), &mut text).expect("our JSON");
    let generated: T = serde_json::from_slice(&text).expect("generated code reads our JSON");
    assert!(generated == *sample, "our JSON differs from the generated code's");
    let mut reader = serde_json::Deserializer::from_slice(&text);
    let oracle = DynamicMessage::deserialize(descriptor.clone(), &mut reader).expect("the oracle reads our JSON");
    let known = DynamicMessage::decode(descriptor.clone(), wire).expect("the oracle reads our wire");
    assert!(oracle == known, "our JSON differs from the oracle's");
}

/// What disorder costs, at one, four and sixteen times the size: a ratio that grows with the size by little more than a
/// constant is O(n log n).
fn disorder(report: &mut Report, ours: &Ours) {
    for factor in [1, 4, 16] {
        interleaved(report, ours, 2_500 * factor);
    }
    for factor in [1, 4, 16] {
        shuffled(report, 64 * factor);
    }
}

/// A reply whose two lists are interleaved record by record, against the same in order. Sixteen times is 1 MiB.
fn interleaved(report: &mut Report, ours: &Ours, count: usize) {
    let id = ours.tables.message_id("bench.v1.Item").expect("Item");
    let entry = |number: usize| {
        let mut bytes = Vec::new();
        let mut pair = Vec::new();
        put_bytes(1, format!("key{number:07}").as_bytes(), &mut pair);
        put_bytes(2, b"value", &mut pair);
        put_bytes(6, &pair, &mut bytes);
        bytes
    };
    let socket = |number: usize| {
        let mut bytes = Vec::new();
        put_number(7, number as u64, &mut bytes);
        bytes
    };
    let in_order: Vec<u8> = (0..count).flat_map(entry).chain((0..count).flat_map(socket)).collect();
    let interleaved: Vec<u8> = (0..count).flat_map(|number| [entry(number), socket(number)].concat()).collect();
    let print = |wire: &[u8]| {
        let mut text = Vec::with_capacity(wire.len() * 2);
        wire_to_json(&ours.tables, id, &JsonOut::default(), black_box(wire), &mut Scratch::default(), &mut text)
            .expect("JSON");
        text
    };
    assert!(print(&in_order) == print(&interleaved), "disorder changes the JSON");
    if is_measuring() {
        let (ratio, wall) = times_faster(|| drop(black_box(print(&in_order))), || drop(black_box(print(&interleaved))));
        let what = format!("interleaved wire, {} B / in order", interleaved.len());
        println!("  {what}: {ratio} (by the wall clock {wall:.2}x)");
        report.ratio(what, DISORDER, ratio);
    }
}

/// A message of that many fields whose members come in no order, against the same in order.
fn shuffled(report: &mut Report, count: usize) {
    let fields: String = (1..=count).map(|number| format!("int64 some_field_{number} = {number};")).collect();
    let source = format!("syntax = \"proto3\"; message Wide {{ {fields} }}");
    let source = SourceFile { name: "wide.proto".to_owned(), bytes: source.into_bytes() };
    let tables = schema::load(&[source]).expect("the schema loads").tables;
    let root = Root::Message(tables.message_id("Wide").expect("Wide"));
    let plan = BodyPlan { root, options: JsonIn::default(), claims: Claims::new(), lift: None };
    let body = |numbers: &mut dyn Iterator<Item = usize>| {
        let members: Vec<String> = numbers.map(|number| format!("\"someField{number}\":{number}")).collect();
        format!("{{{}}}", members.join(","))
    };
    // 29 has no factor in common with a power of two, so every number comes once.
    let in_order = body(&mut (1..=count));
    let shuffled = body(&mut (0..count).map(|index| index * 29 % count + 1));
    let read = |json: &str| {
        let mut wire = Vec::with_capacity(json.len());
        json_to_wire(&tables, &plan, 0, black_box(json.as_bytes()), &mut wire, None).expect("wire");
        wire
    };
    let print = |wire: &[u8]| {
        let (mut text, id) = (Vec::new(), tables.message_id("Wide").expect("Wide"));
        wire_to_json(&tables, id, &JsonOut::default(), wire, &mut Scratch::default(), &mut text).expect("JSON");
        text
    };
    assert!(print(&read(&in_order)) == print(&read(&shuffled)), "disorder changes the message");
    if is_measuring() {
        let (ratio, wall) = times_faster(|| drop(black_box(read(&in_order))), || drop(black_box(read(&shuffled))));
        let (one, other) = (nanos(|| drop(black_box(read(&in_order)))), nanos(|| drop(black_box(read(&shuffled)))));
        let (one, other) = (one / count as f64, other / count as f64);
        let what = format!("shuffled names, {count} members / in order");
        println!("  {what}: {ratio} (by the wall clock {wall:.2}x), {one:.0} and {other:.0} ns a member");
        report.ratio(what, Goal::None, ratio);
    }
}
