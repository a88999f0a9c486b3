//! Protobuf bytes ↔ plain Rust structs, against prost-reflect's encodings; and the check of structs against messages.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate::transcode::wire::{put_bytes, put_number};
use tidegate::transcode::{ShapeProblem, Tables, from_wire, number_order, shape_check, to_wire};
use tidegate::worker::types::{Any, Duration, FieldMask, Struct, Timestamp, Value};

const PROTO: &str = r#"
syntax = "proto3";
package rust.v1;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Color { COLOR_UNSPECIFIED = 0; RED = 1; COLOR_DEEP_BLUE = 2; }

message Scalars {
  double a_double = 1; float a_float = 2; int32 a_int32 = 3; int64 a_int64 = 4; uint32 a_uint32 = 5;
  uint64 a_uint64 = 6; sint32 a_sint32 = 7; sint64 a_sint64 = 8; fixed32 a_fixed32 = 9; fixed64 a_fixed64 = 10;
  sfixed32 a_sfixed32 = 11; sfixed64 a_sfixed64 = 12; bool a_bool = 13; string a_string = 14; bytes a_bytes = 15;
  Color a_color = 16; optional int32 maybe = 17; bytes octets = 18; string type = 19; optional Color maybe_color = 20;
}
message Lists {
  repeated double doubles = 1; repeated sint64 numbers = 2; repeated string texts = 3; repeated bytes blobs = 4;
  repeated Color colors = 5; repeated Scalars scalars = 6; repeated int32 loose = 7 [packed = false];
  repeated bool flags = 8;
}
message Maps {
  map<string, int32> counts = 1; map<int64, string> by_number = 2; map<bool, Color> by_flag = 3;
  map<string, Node> nodes = 4; map<uint32, bytes> blobs = 5; map<sint32, double> by_sint = 6;
}
message Node { string name = 1; Node left = 2; repeated Node children = 3; map<string, Node> by_name = 4; }
message Choice {
  string id = 3;
  oneof target { string player_id = 1; Node node = 2; Color color = 4; google.protobuf.DoubleValue weight = 6; }
  uint32 after = 5;
}
message Known {
  google.protobuf.Timestamp at = 1; google.protobuf.Duration lasts = 2; google.protobuf.Struct data = 3;
  google.protobuf.Value value = 4; google.protobuf.ListValue list = 5; google.protobuf.DoubleValue ratio = 6;
  google.protobuf.StringValue label = 7; google.protobuf.BoolValue flag = 8; google.protobuf.BytesValue blob = 9;
  google.protobuf.FieldMask mask = 10; google.protobuf.Any any = 11; google.protobuf.Empty empty = 12;
  google.protobuf.UInt64Value big = 13; repeated google.protobuf.Value values = 14;
}
message Expr { oneof kind { string leaf = 1; Expr not = 2; Pair both = 3; } }
message Pair { Expr left = 1; Expr right = 2; uint32 weight = 3; }
message Envelope { Node meta = 1; string text = 2; Node error = 9; }
"#;

const PROTO2: &str = r#"
syntax = "proto2";
package old.v1;
enum Level { LOW = 1; HIGH = 2; }
message Old {
  required string name = 1;
  optional int32 size = 2 [default = 7];
  optional group Inner = 3 { optional int32 depth = 1; }
  repeated Level levels = 4;
  optional Level level = 5;
  map<string, Level> by_name = 6;
  extensions 100 to 199;
}
extend Old { optional string note = 100; }
"#;

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
enum Color {
    Unspecified,
    Red,
    DeepBlue,
    Unknown(i32),
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Scalars {
    a_double: f64,
    a_float: f32,
    a_int32: i32,
    a_int64: i64,
    a_uint32: u32,
    a_uint64: u64,
    a_sint32: i32,
    a_sint64: i64,
    a_fixed32: u32,
    a_fixed64: u64,
    a_sfixed32: i32,
    a_sfixed64: i64,
    a_bool: bool,
    a_string: String,
    a_bytes: Bytes,
    a_color: Color,
    maybe: Option<i32>,
    octets: Vec<u8>,
    r#type: String,
    maybe_color: Option<Color>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Lists {
    doubles: Vec<f64>,
    numbers: Vec<i64>,
    texts: Vec<String>,
    blobs: Vec<Bytes>,
    colors: Vec<Color>,
    scalars: Vec<Scalars>,
    loose: Vec<i32>,
    flags: Vec<bool>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Maps {
    counts: HashMap<String, i32>,
    by_number: BTreeMap<i64, String>,
    by_flag: BTreeMap<bool, Color>,
    nodes: BTreeMap<String, Node>,
    blobs: BTreeMap<u32, Vec<u8>>,
    by_sint: HashMap<i32, f64>,
}

#[derive(Debug, Default, Deserialize, Serialize, PartialEq)]
struct Node {
    name: String,
    left: Option<Box<Node>>,
    children: Vec<Node>,
    by_name: BTreeMap<String, Node>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Choice {
    id: String,
    target: Option<Target>,
    after: u32,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
enum Target {
    PlayerId(String),
    Node(Node),
    Color(Color),
    Weight(f64),
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Known {
    at: Option<Timestamp>,
    lasts: Option<Duration>,
    data: Option<Struct>,
    value: Option<Value>,
    list: Option<Vec<Value>>,
    ratio: Option<f64>,
    label: Option<String>,
    flag: Option<bool>,
    blob: Option<Bytes>,
    mask: Option<FieldMask>,
    any: Option<Any>,
    empty: Option<()>,
    big: Option<u64>,
    values: Vec<Value>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Envelope {
    text: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
enum Level {
    Low,
    High,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Old {
    name: String,
    size: Option<i32>,
    inner: Option<Inner>,
    levels: Vec<Level>,
    level: Option<Level>,
    by_name: BTreeMap<String, Level>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Inner {
    depth: Option<i32>,
}

struct Schema {
    pool: DescriptorPool,
    tables: std::sync::Arc<Tables>,
}

fn schema() -> Schema {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rust.proto"), PROTO).unwrap();
    std::fs::write(folder.path().join("old.proto"), PROTO2).unwrap();
    let set = protox::compile(["rust.proto", "old.proto"], [folder.path()]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
    let files = [("rust.proto", PROTO), ("old.proto", PROTO2)]
        .map(|(name, text)| tidegate::schema::SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() });
    Schema { pool, tables: tidegate::schema::load(&files).unwrap().tables }
}

impl Schema {
    /// The oracle's bytes of a message given as JSON.
    fn wire(&self, message: &str, value: serde_json::Value) -> Vec<u8> {
        let descriptor = self.pool.get_message_by_name(message).unwrap();
        DynamicMessage::deserialize(descriptor, value).unwrap().encode_to_vec()
    }

    /// The oracle's JSON of a message's bytes.
    fn json(&self, message: &str, wire: &[u8]) -> serde_json::Value {
        let descriptor = self.pool.get_message_by_name(message).unwrap();
        serde_json::to_value(DynamicMessage::decode(descriptor, wire).unwrap()).unwrap()
    }

    fn read<T: serde::de::DeserializeOwned>(&self, message: &str, wire: &[u8]) -> Result<T, String> {
        from_wire(&self.tables, self.tables.message_id(message).unwrap(), wire).map_err(|error| error.to_string())
    }

    fn write<T: Serialize>(&self, message: &str, value: &T) -> Result<Vec<u8>, String> {
        let mut out = b"before".to_vec();
        to_wire(&self.tables, self.tables.message_id(message).unwrap(), value, &mut out)
            .map_err(|error| error.to_string())?;
        Ok(out.split_off(6))
    }

    /// JSON → oracle's bytes → struct → our bytes → oracle's JSON, which has to be the same again.
    fn round_trip<T: serde::de::DeserializeOwned + Serialize>(&self, message: &str, value: serde_json::Value) -> T {
        let wire = self.wire(message, value);
        let read: T = self.read(message, &wire).unwrap();
        let written = self.write(message, &read).unwrap();
        assert_eq!(self.json(message, &written), self.json(message, &wire), "{message}");
        // Whatever order the oracle has, ours is that of numbers and keys, so a second trip gives the same bytes.
        let again: T = self.read(message, &written).unwrap();
        assert_eq!(self.write(message, &again).unwrap(), written, "{message}");
        read
    }

    fn problems<T: serde::de::DeserializeOwned>(&self, message: &str) -> Vec<String> {
        let id = self.tables.message_id(message).unwrap();
        match shape_check::<T>(&self.tables, id, &[]) {
            Ok(()) => Vec::new(),
            Err(problems) => problems.iter().map(ShapeProblem::to_string).collect(),
        }
    }
}

fn scalars_json() -> serde_json::Value {
    json!({
        "a_double": -1.5, "a_float": 0.25, "a_int32": -3, "a_int64": "-9223372036854775808", "a_uint32": 4_000_000_000u32,
        "a_uint64": "18446744073709551615", "a_sint32": -2_147_483_648, "a_sint64": "-2", "a_fixed32": 9,
        "a_fixed64": "10", "a_sfixed32": -11, "a_sfixed64": "-12", "a_bool": true, "a_string": "größe",
        "a_bytes": "AAEC", "a_color": "COLOR_DEEP_BLUE", "maybe": 0, "octets": "/w==", "type": "t", "maybe_color": 0
    })
}

#[test]
fn every_scalar_goes_both_ways() {
    let schema = schema();
    let read: Scalars = schema.round_trip("rust.v1.Scalars", scalars_json());
    assert_eq!(read.a_int64, i64::MIN);
    assert_eq!(read.a_uint64, u64::MAX);
    assert_eq!(read.a_sint32, i32::MIN);
    assert_eq!((read.a_double, read.a_float), (-1.5, 0.25));
    assert_eq!((read.a_sfixed32, read.a_sfixed64, read.a_sint64), (-11, -12, -2));
    assert_eq!((read.a_bytes.as_ref(), read.octets.as_slice()), (&[0u8, 1, 2][..], &[255u8][..]));
    assert_eq!((read.a_color, read.maybe_color, read.maybe), (Color::DeepBlue, Some(Color::Unspecified), Some(0)));
    assert_eq!((read.a_string.as_str(), read.r#type.as_str()), ("größe", "t"));
    // The oracle writes in number order, too.
    assert_eq!(schema.write("rust.v1.Scalars", &read).unwrap(), schema.wire("rust.v1.Scalars", scalars_json()));
}

#[test]
fn absent_fields_are_their_defaults_and_defaults_are_left_out() {
    let schema = schema();
    let read: Scalars = schema.read("rust.v1.Scalars", b"").unwrap();
    assert_eq!((read.a_double, read.a_bool, read.a_color), (0.0, false, Color::Unspecified));
    assert_eq!((read.maybe, read.maybe_color, read.a_string.as_str()), (None, None, ""));
    assert!(schema.write("rust.v1.Scalars", &read).unwrap().is_empty());
    assert!(schema.write("rust.v1.Lists", &schema.read::<Lists>("rust.v1.Lists", b"").unwrap()).unwrap().is_empty());
    assert!(schema.write("rust.v1.Maps", &schema.read::<Maps>("rust.v1.Maps", b"").unwrap()).unwrap().is_empty());
    let known: Known = schema.read("rust.v1.Known", b"").unwrap();
    assert_eq!((&known.at, &known.ratio, &known.value, &known.empty), (&None, &None, &None, &None));
    assert!(schema.write("rust.v1.Known", &known).unwrap().is_empty());
    let old: Old = schema.read("old.v1.Old", &schema.wire("old.v1.Old", json!({"name": ""}))).unwrap();
    assert_eq!((old.size, old.inner, old.level), (None, None, None));
}

#[test]
fn lists_packed_loose_and_of_everything() {
    let schema = schema();
    let long: Vec<i64> = (0..300).collect();
    let read: Lists = schema.round_trip(
        "rust.v1.Lists",
        json!({
            "doubles": [0.0, 1.5], "numbers": long.iter().map(i64::to_string).collect::<Vec<_>>(), "texts": ["", "a"],
            "blobs": ["", "AA=="], "colors": ["RED", 0, 77], "scalars": [{}, scalars_json()], "loose": [0, -1],
            "flags": [true, false]
        }),
    );
    assert_eq!(read.numbers, long);
    assert_eq!(read.texts, ["", "a"]);
    assert_eq!(read.colors, [Color::Red, Color::Unspecified, Color::Unknown(77)]);
    assert_eq!((read.loose, read.flags), (vec![0, -1], vec![true, false]));
    assert_eq!(read.scalars.len(), 2);
}

#[test]
fn interrupted_lists_are_gathered_packed_or_not() {
    let schema = schema();
    let mut wire = Vec::new();
    put_number(7, 1, &mut wire);
    put_bytes(3, b"x", &mut wire);
    put_bytes(7, &[2, 3], &mut wire);
    put_number(99, 5, &mut wire);
    put_bytes(2, &[2], &mut wire);
    put_number(7, 4, &mut wire);
    put_number(2, 4, &mut wire);
    put_bytes(3, b"y", &mut wire);
    let read: Lists = schema.read("rust.v1.Lists", &wire).unwrap();
    assert_eq!(read.loose, [1, 2, 3, 4]);
    assert_eq!(read.numbers, [1, 2]);
    assert_eq!(read.texts, ["x", "y"]);
}

#[test]
fn maps_of_every_key_in_key_order() {
    let schema = schema();
    let value = json!({
        "counts": {"b": 2, "a": 0, "": 3}, "by_number": {"-5": "minus", "0": "", "7": "seven"},
        "by_flag": {"true": "RED", "false": 9}, "nodes": {"n": {"name": "x", "byName": {"m": {}}}},
        "blobs": {"3": "AA=="}, "by_sint": {"-1": 0.0, "1": 2.0, "0": 1.0}
    });
    let read: Maps = schema.round_trip("rust.v1.Maps", value);
    assert_eq!(read.by_flag, BTreeMap::from([(false, Color::Unknown(9)), (true, Color::Red)]));
    assert_eq!(read.by_number.keys().copied().collect::<Vec<_>>(), [-5, 0, 7]);
    assert_eq!(read.nodes["n"].by_name["m"], Node::default());

    // A hash map comes in any order; its bytes are those of the sorted map.
    let shuffled =
        Maps { counts: (0..100).map(|n| (n.to_string(), n)).collect(), ..schema.read("rust.v1.Maps", b"").unwrap() };
    let wire = schema.write("rust.v1.Maps", &shuffled).unwrap();
    let mut keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    keys.sort();
    let mut expected = Vec::new();
    for key in keys {
        let mut entry = Vec::new();
        put_bytes(1, key.as_bytes(), &mut entry);
        put_number(2, key.parse().unwrap(), &mut entry);
        put_bytes(1, &entry, &mut expected);
    }
    assert_eq!(wire, expected);
}

#[test]
fn map_entries_in_odd_forms() {
    let schema = schema();
    let mut wire = Vec::new();
    let entry = |number: u32, parts: &[(u32, &[u8])], wire: &mut Vec<u8>| {
        let mut entry = Vec::new();
        parts.iter().for_each(|(part, bytes)| put_bytes(*part, bytes, &mut entry));
        put_bytes(number, &entry, wire);
    };
    entry(4, &[(2, b"\x0a\x01x"), (1, b"k"), (2, b"\x12\x00")], &mut wire);
    entry(4, &[], &mut wire);
    entry(4, &[(1, b"twice"), (2, b"\x0a\x011")], &mut wire);
    entry(4, &[(1, b"twice"), (2, b"\x0a\x012")], &mut wire);
    let read: Maps = schema.read("rust.v1.Maps", &wire).unwrap();
    assert_eq!(read.nodes.len(), 3);
    assert_eq!(read.nodes["k"], Node { name: "x".into(), left: Some(Box::default()), ..Node::default() });
    assert_eq!(read.nodes[""], Node::default());
    assert_eq!(read.nodes["twice"].name, "2");
}

#[test]
fn split_sub_messages_are_merged() {
    let schema = schema();
    let part = |value| schema.wire("rust.v1.Node", value);
    let mut wire = Vec::new();
    put_bytes(2, &part(json!({"name": "first", "children": [{"name": "a"}], "left": {"name": "deep"}})), &mut wire);
    put_bytes(1, b"outer", &mut wire);
    put_bytes(2, &part(json!({"children": [{"name": "b"}], "left": {"children": [{}]}})), &mut wire);
    put_bytes(2, &part(json!({"name": "last"})), &mut wire);
    let read: Node = schema.read("rust.v1.Node", &wire).unwrap();
    let left = read.left.unwrap();
    assert_eq!((read.name.as_str(), left.name.as_str()), ("outer", "last"));
    assert_eq!(left.children.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let deep = left.left.unwrap();
    assert_eq!((deep.name.as_str(), deep.children.len()), ("deep", 1));
}

#[test]
fn shuffled_records_give_the_same_struct() {
    let schema = schema();
    let wire = schema.wire("rust.v1.Scalars", scalars_json());
    let expected: Scalars = schema.read("rust.v1.Scalars", &wire).unwrap();
    let mut records = Vec::new();
    let mut reader = tidegate::transcode::wire::WireReader::new(&wire);
    while !reader.is_done() {
        let at = reader.at();
        reader.record().unwrap();
        records.push(&wire[at..reader.at()]);
    }
    for turn in 0..records.len() {
        records.rotate_left(1);
        records.swap(turn, (turn * 7 + 3) % 20);
        let mut shuffled: Vec<u8> = records.concat();
        assert_eq!(schema.read::<Scalars>("rust.v1.Scalars", &shuffled).unwrap(), expected);
        number_order(&mut shuffled, 0).unwrap();
        assert_eq!(shuffled, wire);
    }
}

#[test]
fn of_a_oneof_the_last_member_wins() {
    let schema = schema();
    for (value, expected) in [
        (json!({"player_id": ""}), Some(Target::PlayerId(String::new()))),
        (json!({"node": {"name": "n"}}), Some(Target::Node(Node { name: "n".into(), ..Node::default() }))),
        (json!({"color": 0}), Some(Target::Color(Color::Unspecified))),
        (json!({"color": 12}), Some(Target::Color(Color::Unknown(12)))),
        (json!({"weight": 0.0}), Some(Target::Weight(0.0))),
        (json!({}), None),
    ] {
        let read: Choice = schema.round_trip("rust.v1.Choice", value);
        assert_eq!(read.target, expected);
    }
    // node, then player_id (which clears it), then node in two pieces: the pieces merge, the first node is gone.
    let mut wire = Vec::new();
    put_bytes(2, b"\x0a\x03old\x12\x00", &mut wire);
    put_bytes(1, b"p", &mut wire);
    put_bytes(2, b"\x0a\x03new", &mut wire);
    put_number(5, 8, &mut wire);
    put_bytes(2, b"\x1a\x00", &mut wire);
    let read: Choice = schema.read("rust.v1.Choice", &wire).unwrap();
    let node = Node { name: "new".into(), children: vec![Node::default()], ..Node::default() };
    assert_eq!((read.target, read.after), (Some(Target::Node(node)), 8));
    put_bytes(1, b"end", &mut wire);
    let read: Choice = schema.read("rust.v1.Choice", &wire).unwrap();
    assert_eq!(read.target, Some(Target::PlayerId("end".into())));
}

#[test]
fn well_known_types() {
    let schema = schema();
    let read: Known = schema.round_trip(
        "rust.v1.Known",
        json!({
            "at": "2026-11-24T12:00:00.5Z", "lasts": "-1.25s",
            "data": {"b": [1, {"x": null}], "a": "t", "n": 2.5, "f": false, "e": {}, "l": []},
            "value": null, "list": [1, null, "x"], "ratio": 0.0, "label": "", "flag": false, "blob": "AA==",
            "mask": "a,bC", "any": {"@type": "type.googleapis.com/rust.v1.Node", "name": "n"}, "empty": {},
            "big": "18446744073709551615", "values": [null, true, [[]], {"k": {"k": 1}}]
        }),
    );
    assert_eq!(read.at.unwrap(), Timestamp { seconds: 1_795_521_600, nanos: 500_000_000 });
    assert_eq!(read.lasts.unwrap(), Duration { seconds: -1, nanos: -250_000_000 });
    let data = read.data.unwrap();
    assert_eq!(
        (data.str("a"), data.number("n"), data.bool("f"), data.number("a")),
        (Some("t"), Some(2.5), Some(false), None)
    );
    let nested = Value::Struct(Struct::default().with("x", Value::Null));
    assert_eq!(data.get("b"), Some(&Value::List(vec![Value::Number(1.0), nested])));
    assert_eq!((read.value, read.ratio, read.flag), (Some(Value::Null), Some(0.0), Some(false)));
    assert_eq!(read.list.unwrap(), [Value::Number(1.0), Value::Null, Value::from("x")]);
    assert_eq!(read.mask.unwrap().paths, ["a", "b_c"]);
    assert_eq!((read.any.unwrap().value.as_ref(), read.empty, read.big), (&b"\x0a\x01n"[..], Some(()), Some(u64::MAX)));
    assert_eq!(Timestamp::from_millis(-1), Timestamp { seconds: -1, nanos: 999_000_000 });
    assert_eq!((Timestamp::from_millis(-1).millis(), Duration::from_millis(-1_500).millis()), (-1, -1_500));
}

#[test]
fn proto2_groups_closed_enums_and_required_fields() {
    let schema = schema();
    let value =
        json!({"name": "n", "size": 7, "inner": {"depth": 3}, "levels": ["HIGH", "LOW"], "byName": {"a": "LOW"}});
    let read: Old = schema.round_trip("old.v1.Old", value);
    assert_eq!((read.size, read.inner), (Some(7), Some(Inner { depth: Some(3) })));
    assert_eq!(read.levels, [Level::High, Level::Low]);
    // Numbers that a closed enum does not know count as unknown fields.
    let mut wire = Vec::new();
    put_bytes(1, b"n", &mut wire);
    put_number(5, 2, &mut wire);
    put_number(5, 9, &mut wire);
    put_number(4, 9, &mut wire);
    put_bytes(4, &[1, 9, 2], &mut wire);
    put_bytes(6, b"\x0a\x01k\x10\x09", &mut wire);
    let read: Old = schema.read("old.v1.Old", &wire).unwrap();
    assert_eq!((read.level, read.levels), (Some(Level::High), vec![Level::Low, Level::High]));
    assert_eq!(read.by_name, BTreeMap::new());
    assert_eq!(schema.read::<Old>("old.v1.Old", b"").unwrap_err(), "`name`: a required field is missing (byte 0)");
}

#[test]
fn long_and_deep_values() {
    let schema = schema();
    let node =
        Node { name: "x".repeat(20_000), children: (0..300).map(|_| Node::default()).collect(), ..Node::default() };
    let node = Node { left: Some(Box::new(node)), ..Node::default() };
    let wire = schema.write("rust.v1.Node", &node).unwrap();
    assert_eq!(schema.read::<Node>("rust.v1.Node", &wire).unwrap(), node);
    let nested = |levels: usize| {
        (1..levels).fold(Node::default(), |inner, _| Node { left: Some(Box::new(inner)), ..Node::default() })
    };
    let deepest = schema.write("rust.v1.Node", &nested(100)).unwrap();
    assert_eq!(schema.read::<Node>("rust.v1.Node", &deepest).unwrap(), nested(100));
    let mut deeper = Vec::new();
    put_bytes(2, &deepest, &mut deeper);
    let error = schema.read::<Node>("rust.v1.Node", &deeper).unwrap_err();
    assert!(error.ends_with(".left`: nested more than 100 levels deep (byte 236)"), "{error}");
    let error = schema.write("rust.v1.Node", &nested(101)).unwrap_err();
    assert!(error.ends_with(".left`: nested more than 100 levels deep"), "{error}");
}

#[test]
fn errors_name_the_field_and_the_byte() {
    let schema = schema();
    #[derive(Debug, Deserialize)]
    struct Narrow {
        #[allow(dead_code)]
        after: u8,
    }
    #[derive(Debug, Deserialize)]
    struct Needs {
        #[allow(dead_code)]
        target: Target,
    }
    #[derive(Debug, Deserialize)]
    struct Stranger {
        #[allow(dead_code)]
        nobody: String,
    }
    let cases = [
        (schema.read::<Node>("rust.v1.Node", b"\x0a\x01\xff").map(drop), "`name`: text that is not UTF-8 (byte 2)"),
        (
            schema.read::<Node>("rust.v1.Node", b"\x1a\x00\x1a\x04\x12\x02\x0a\x05").map(drop),
            "`children[1].left`: a length beyond the end of the message (byte 7)",
        ),
        (schema.read::<Node>("rust.v1.Node", b"\x0a\x05").map(drop), "a length beyond the end of the message (byte 1)"),
        (
            schema.read::<Lists>("rust.v1.Lists", b"\x0a\x01\x00").map(drop),
            "`doubles`: a truncated 64-bit value (byte 2)",
        ),
        (
            schema.read::<Maps>("rust.v1.Maps", b"\x22\x08\x0a\x01k\x12\x03\x0a\x01\xff").map(drop),
            "`nodes[\"k\"].name`: text that is not UTF-8 (byte 9)",
        ),
        (
            schema.read::<Choice>("rust.v1.Choice", b"\x0a\x01\xff").map(drop),
            "`player_id`: text that is not UTF-8 (byte 2)",
        ),
        (
            schema.read::<Narrow>("rust.v1.Choice", b"\x28\xac\x02").map(drop),
            "`after`: invalid value: integer `300`, expected u8 (byte 1)",
        ),
        (schema.read::<Needs>("rust.v1.Choice", b"").map(drop), "`target`: no member of `target` is set (byte 0)"),
        (schema.read::<Stranger>("rust.v1.Choice", b"").map(drop), "`rust.v1.Choice` has no field `nobody` (byte 0)"),
    ];
    for (result, expected) in cases {
        assert_eq!(result.unwrap_err(), expected);
    }

    #[derive(Serialize)]
    struct Wide {
        after: i64,
    }
    #[derive(Serialize)]
    struct Texts {
        counts: BTreeMap<String, String>,
    }
    #[derive(Serialize)]
    enum Other {
        Nobody(String),
    }
    #[derive(Serialize)]
    struct OtherTarget {
        target: Other,
    }
    assert_eq!(schema.write("rust.v1.Choice", &Wide { after: -1 }).unwrap_err(), "`after`: -1 is out of range");
    assert_eq!(
        schema.write("rust.v1.Maps", &Texts { counts: BTreeMap::from([("k".into(), "v".into())]) }).unwrap_err(),
        "`counts[\"k\"]`: expected an integer, found a string"
    );
    assert_eq!(
        schema.write("rust.v1.Choice", &OtherTarget { target: Other::Nobody(String::new()) }).unwrap_err(),
        "`target`: `target` has no member for the variant `Nobody`"
    );
}

#[test]
fn structs_in_another_order_are_written_in_number_order() {
    #[derive(Serialize)]
    struct Backwards {
        after: u32,
        id: String,
        target: Option<Target>,
    }
    let schema = schema();
    let value = Backwards { after: 1, id: "i".into(), target: Some(Target::PlayerId("p".into())) };
    assert_eq!(schema.write("rust.v1.Choice", &value).unwrap(), b"\x0a\x01p\x1a\x01i\x28\x01");
}

#[test]
fn fitting_structs_have_no_problems() {
    let schema = schema();
    assert_eq!(schema.problems::<Scalars>("rust.v1.Scalars"), [""; 0]);
    assert_eq!(schema.problems::<Lists>("rust.v1.Lists"), [""; 0]);
    assert_eq!(schema.problems::<Maps>("rust.v1.Maps"), [""; 0]);
    assert_eq!(schema.problems::<Node>("rust.v1.Node"), [""; 0]);
    assert_eq!(schema.problems::<Choice>("rust.v1.Choice"), [""; 0]);
    assert_eq!(schema.problems::<Known>("rust.v1.Known"), [""; 0]);
    assert_eq!(schema.problems::<Old>("old.v1.Old"), [""; 0]);
    let id = schema.tables.message_id("rust.v1.Envelope").unwrap();
    assert_eq!(shape_check::<Envelope>(&schema.tables, id, &[1, 9]), Ok(()));
}

#[test]
fn every_misfit_is_told_at_once() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Colour {
        Red,
        Purple,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Wrong {
        PlayerId(i32),
        Node,
        Colour(Colour),
        Stranger(String),
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct BadChoice {
        id: Option<String>,
        target: Option<Wrong>,
        player_id: String,
        extra: u32,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct BadKnown {
        at: String,
        lasts: Option<Duration>,
        data: Option<BTreeMap<String, String>>,
        value: Option<serde_json::Value>,
        list: Option<Vec<Value>>,
        ratio: f64,
        label: Option<f32>,
        flag: Option<bool>,
        blob: Option<Vec<u8>>,
        mask: Option<FieldMask>,
        any: Any,
        empty: Option<()>,
        big: Option<u32>,
        values: Vec<Option<Value>>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Flat {
        #[serde(flatten)]
        rest: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct BadNode {
        name: std::num::NonZeroU32,
        left: Option<Box<BadNode>>,
        children: [f64; 2],
        by_name: Vec<Node>,
    }
    let schema = schema();
    assert_eq!(
        schema.problems::<BadChoice>("rust.v1.Choice"),
        [
            "`BadChoice` lacks a field of `rust.v1.Choice`: add `after: u32`",
            "`id`: is never absent: write `String` without `Option`",
            "`target`: the enum `Wrong` has no variant for the member `color`",
            "`target`: the enum `Wrong` has no variant for the member `weight`",
            "`target`: `Wrong::Colour` is no member of `target`",
            "`target`: `Wrong::Stranger` is no member of `target`",
            "`target[PlayerId]`: expected `String`, found `i32`",
            "`player_id`: is a member of the oneof `target`: write one field `target` with an enum",
            "`extra`: `BadChoice` has a field that `rust.v1.Choice` does not have",
            "`target`: `Wrong::Node` is a unit: a oneof's members are variants with one value",
        ]
    );
    assert_eq!(
        schema.problems::<BadKnown>("rust.v1.Known"),
        [
            "`at`: expected `Option<Timestamp>`, found `String`",
            "`data[]`: expected `Value`, found `String`",
            "`ratio`: expected `Option<f64>`, found `f64`",
            "`label`: expected `String`, found `f32`",
            "`big`: expected `u64`, found `u32`",
            "`values[]`: lists, maps, their elements and messages themselves are never absent: no `Option`",
        ]
    );
    assert_eq!(
        schema.problems::<Flat>("rust.v1.Node"),
        ["expected `rust.v1.Node`, found a map (`flatten` is not supported)"]
    );
    assert_eq!(
        schema.problems::<BadNode>("rust.v1.Node"),
        [
            "`name`: expected `String`, found `u32`",
            "`name`: does not take a default value: invalid value: integer `0`, expected a nonzero u32",
        ]
    );
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Shades {
        color: Colour,
    }
    assert_eq!(
        schema.problems::<Shades>("rust.v1.Envelope"),
        [
            "`Shades` lacks a field of `rust.v1.Envelope`: add `meta: Option<Node>`",
            "`Shades` lacks a field of `rust.v1.Envelope`: add `text: String`",
            "`Shades` lacks a field of `rust.v1.Envelope`: add `error: Option<Node>`",
            "`color`: `Shades` has a field that `rust.v1.Envelope` does not have",
        ]
    );
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Palette {
        doubles: Vec<f64>,
        numbers: Vec<i64>,
        texts: Vec<String>,
        blobs: Vec<Bytes>,
        colors: Vec<Colour>,
        scalars: BTreeMap<String, Scalars>,
        loose: Vec<(i32, i32)>,
        flags: Option<Vec<bool>>,
    }
    assert_eq!(
        schema.problems::<Palette>("rust.v1.Lists"),
        [
            "`colors[]`: the enum `Colour` has no variant for `COLOR_UNSPECIFIED` of `rust.v1.Color`",
            "`colors[]`: the enum `Colour` has no variant for `COLOR_DEEP_BLUE` of `rust.v1.Color`",
            "`colors[]`: `Colour::Purple` is no value of `rust.v1.Color`",
            "`colors[]`: the enum `Colour` needs a variant `Unknown(i32)` for numbers that have no name yet",
            "`scalars`: expected `Vec<Scalars>`, found a map (`flatten` is not supported)",
            "`loose[]`: expected a `Vec` or a struct, found a tuple or an array of 2",
            "`flags`: lists, maps, their elements and messages themselves are never absent: no `Option`",
        ]
    );
}

#[test]
fn recursion_is_followed_to_every_struct_once() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Bad {
        name: String,
        left: Option<Box<Bad>>,
        children: Vec<Bad>,
        by_name: BTreeMap<String, Deeper>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Deeper {
        name: u32,
        left: Option<Box<Bad>>,
        children: Vec<Bad>,
        by_name: BTreeMap<String, Bad>,
    }
    assert_eq!(schema().problems::<Bad>("rust.v1.Node"), ["`by_name[].name`: expected `String`, found `u32`"]);

    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    struct Expr {
        kind: Kind,
    }
    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    enum Kind {
        Not(Box<Expr>),
        Both(Pair),
        Leaf(String),
    }
    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    struct Pair {
        left: Box<Expr>,
        right: Box<Expr>,
        weight: u32,
    }
    assert_eq!(schema().problems::<Expr>("rust.v1.Expr"), [""; 0]);
    let value = json!({"both": {"left": {"leaf": "a"}, "right": {"not": {"leaf": ""}}, "weight": 1}});
    let read: Expr = schema().round_trip("rust.v1.Expr", value);
    let leaf = |text: &str| Box::new(Expr { kind: Kind::Leaf(text.into()) });
    let right = Box::new(Expr { kind: Kind::Not(leaf("")) });
    assert_eq!(read.kind, Kind::Both(Pair { left: leaf("a"), right, weight: 1 }));

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct BadExpr {
        kind: Option<BadKind>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum BadKind {
        Leaf(String),
        Not(Box<BadExpr>),
        Both(BadPair),
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct BadPair {
        left: Option<Box<BadExpr>>,
        right: Option<Box<BadExpr>>,
        weight: i32,
    }
    assert_eq!(schema().problems::<BadExpr>("rust.v1.Expr"), ["`kind[Both].weight`: expected `u32`, found `i32`"]);
}
