//! The transcoder against prost-reflect, on random messages of schemas that have every kind.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost_reflect::prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    SerializeOptions, Value,
};
use tidegate::schema;
use tidegate::transcode::{BodyPlan, Claims, JsonIn, JsonOut, Root, Scratch, Tables, json_to_wire, wire_to_json};

const CASES: u32 = 500;

struct World {
    pool: DescriptorPool,
    tables: std::sync::Arc<Tables>,
}

fn world() -> World {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/protos");
    let mut compiler = protox::Compiler::new([folder]).unwrap();
    compiler.include_imports(true);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "proto") {
            compiler.open_file(path.file_name().unwrap()).unwrap();
        }
    }
    let pool = compiler.descriptor_pool();
    let files = ["test_messages_proto3.proto", "test_messages_proto2.proto"].map(|name| {
        let bytes = std::fs::read(format!("{folder}/{name}")).unwrap();
        schema::SourceFile { name: name.to_owned(), bytes }
    });
    World { pool, tables: schema::load(&files).unwrap().tables }
}

/// A small deterministic source of choices; proptest gives and shrinks its seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }

    fn number(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(3),
            1 => self.below(300),
            2 => self.next(),
            3 => self.next() >> 32,
            _ => u64::MAX - self.below(2),
        }
    }

    fn text(&mut self) -> String {
        let pieces =
            ["", "a", "quest", "\"", "\\", "\n", "\u{1}", "grün", "日本", "🙂", "</script>", " ", "0123456789abcdef"];
        (0..self.below(4)).map(|_| self.pick(&pieces)).collect()
    }

    fn float(&mut self) -> f64 {
        let bits = f64::from_bits(self.next());
        let list = [0.0, -0.0, 1.0, -1.5, 0.1, 1e21, 1e-7, 123456789.125, f64::MAX, f64::MIN_POSITIVE, bits];
        let value = self.pick(&list);
        if value.is_finite() { value } else { 2.5 }
    }
}

fn scalar(dice: &mut Dice, kind: &Kind, depth: u32) -> Value {
    match kind {
        Kind::Double => Value::F64(dice.float()),
        // The oracle prints non-finite numbers in wrappers as null, which is no ProtoJSON.
        Kind::Float => Value::F32(Some(dice.float() as f32).filter(|value| value.is_finite()).unwrap_or(0.5)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(dice.number() as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(dice.number() as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(dice.number() as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(dice.number()),
        Kind::Bool => Value::Bool(dice.below(2) == 1),
        Kind::String => Value::String(dice.text()),
        Kind::Bytes => Value::Bytes(dice.text().into_bytes().into()),
        Kind::Enum(descriptor) => {
            let values: Vec<i32> = descriptor.values().map(|value| value.number()).collect();
            Value::EnumNumber(dice.pick(&values))
        }
        Kind::Message(descriptor) => Value::Message(message(dice, descriptor, depth + 1)),
    }
}

fn key(dice: &mut Dice, kind: &Kind) -> MapKey {
    match kind {
        Kind::Bool => MapKey::Bool(dice.below(2) == 1),
        Kind::String => MapKey::String(dice.text()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(dice.number() as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(dice.number() as i64),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(dice.number() as u32),
        _ => MapKey::U64(dice.number()),
    }
}

fn value(dice: &mut Dice, field: &FieldDescriptor, depth: u32) -> Value {
    if field.is_map() {
        let entry = field.kind().as_message().unwrap().clone();
        let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        return Value::Map(
            (0..dice.below(4)).map(|_| (key(dice, &key_kind), scalar(dice, &value_kind, depth))).collect(),
        );
    }
    if field.cardinality() == Cardinality::Repeated {
        return Value::List((0..dice.below(4)).map(|_| scalar(dice, &field.kind(), depth)).collect());
    }
    scalar(dice, &field.kind(), depth)
}

fn message(dice: &mut Dice, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            message.set_field_by_number(1, Value::I64(dice.below(4_000_000_000) as i64 - 2_000_000_000));
            let nanos = [0, 1, 500_000_000, 123_000, 999_999_999];
            message.set_field_by_number(2, Value::I32(dice.pick(&nanos)));
            return message;
        }
        "google.protobuf.Duration" => {
            let sign = if dice.below(2) == 0 { 1 } else { -1 };
            message.set_field_by_number(1, Value::I64(sign * dice.below(100_000) as i64));
            message.set_field_by_number(2, Value::I32(sign as i32 * dice.pick(&[0, 1, 500_000_000, 120_000])));
            return message;
        }
        "google.protobuf.FieldMask" => {
            let paths = ["a", "foo_bar", "a.b_c"].map(|path| Value::String(path.to_owned()));
            message.set_field_by_number(1, Value::List(paths[..dice.below(4) as usize].to_vec()));
            return message;
        }
        "google.protobuf.Value" => {
            match dice.below(if depth > 3 { 4 } else { 6 }) {
                0 => message.set_field_by_number(1, Value::EnumNumber(0)),
                1 => message.set_field_by_number(2, Value::F64(dice.below(1000) as f64 / 8.0)),
                2 => message.set_field_by_number(3, Value::String(dice.text())),
                3 => message.set_field_by_number(4, Value::Bool(true)),
                number => {
                    let field = descriptor.get_field(number as u32 + 1).unwrap();
                    let inner = scalar(dice, &field.kind(), depth);
                    message.set_field(&field, inner);
                }
            }
            return message;
        }
        "google.protobuf.Any" => {
            let url = "type.googleapis.com/protobuf_test_messages.proto3.ForeignMessage";
            message.set_field_by_number(1, Value::String(url.to_owned()));
            message.set_field_by_number(2, Value::Bytes(vec![0x08, 1 + dice.below(100) as u8].into()));
            return message;
        }
        _ => {}
    }
    let share = if depth > 3 { 12 } else { 3 };
    for field in descriptor.fields() {
        let is_taken =
            field.containing_oneof().is_some_and(|oneof| oneof.fields().any(|other| message.has_field(&other)));
        let is_deep = depth > 4 && field.kind().as_message().is_some();
        if field.is_required() || !is_taken && !is_deep && dice.below(share) == 0 {
            let value = value(dice, &field, depth);
            message.set_field(&field, value);
        }
    }
    message
}

/// Where two values differ. Numbers that are equal are equal, whether written `1` or `1.0`.
fn difference(a: &serde_json::Value, b: &serde_json::Value, path: &str) -> Option<String> {
    use serde_json::Value as J;
    let differ = || Some(format!("{path}: ours {a}, the oracle's {b}"));
    match (a, b) {
        (J::Number(x), J::Number(y)) if x == y || x.as_f64() == y.as_f64() => None,
        (J::Array(x), J::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().find_map(|(i, (x, y))| difference(x, y, &format!("{path}[{i}]")))
        }
        (J::Object(x), J::Object(y)) => {
            let missing =
                y.keys().find(|key| !x.contains_key(*key)).map(|key| format!("{path}: ours lacks `{key}`: {}", y[key]));
            missing.or_else(|| {
                x.iter().find_map(|(key, x)| match y.get(key) {
                    Some(y) => difference(x, y, &format!("{path}.{key}")),
                    None => Some(format!("{path}: only ours has `{key}`: {x}")),
                })
            })
        }
        _ if a == b => None,
        _ => differ(),
    }
}

fn ours_out(world: &World, name: &str, wire: &[u8]) -> Result<String, String> {
    let id = world.tables.message_id(name).unwrap();
    let mut out = Vec::new();
    wire_to_json(&world.tables, id, &JsonOut::default(), wire, &mut Scratch::default(), &mut out)
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn ours_in(world: &World, name: &str, json: &str) -> Result<Vec<u8>, String> {
    let id = world.tables.message_id(name).unwrap();
    let plan = BodyPlan { root: Root::Message(id), options: JsonIn::default(), claims: Claims::new(), lift: None };
    let mut out = Vec::new();
    json_to_wire(&world.tables, &plan, 0, json.as_bytes(), &mut out, None).map_err(|error| error.to_string())?;
    Ok(out)
}

fn oracle_json(message: &DynamicMessage) -> serde_json::Value {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    message.serialize_with_options(&mut serializer, &SerializeOptions::new()).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// The records of a message, shuffled, with singular messages split in two.
fn disorder(dice: &mut Dice, descriptor: &MessageDescriptor, wire: &[u8]) -> Vec<u8> {
    let mut reader = tidegate::transcode::wire::WireReader::new(wire);
    let mut records: Vec<(u32, Vec<u8>)> = Vec::new();
    loop {
        let start = reader.at();
        let Ok(Some(record)) = reader.record() else { break };
        let whole = wire[start..reader.at()].to_vec();
        let field = descriptor.get_field(record.number);
        let inner = field.as_ref().filter(|field| !field.is_list() && !field.is_map() && !field.is_group());
        match inner.and_then(|field| field.kind().as_message().cloned()) {
            Some(inner) => {
                let content = disorder(dice, &inner, &wire[record.from..record.to]);
                let mut halves = tidegate::transcode::wire::WireReader::new(&content);
                let mut middle = 0;
                if dice.below(2) == 0 {
                    let _ = halves.record();
                    middle = halves.at();
                }
                for half in [&content[..middle], &content[middle..]] {
                    let mut bytes = Vec::new();
                    tidegate::transcode::wire::put_bytes(record.number, half, &mut bytes);
                    records.push((record.number, bytes));
                }
            }
            None => records.push((record.number, whole)),
        }
    }
    // Records of one number keep their order; the others change places.
    for _ in 0..records.len() * 2 {
        let at = dice.below(records.len().max(2) as u64 - 1) as usize;
        if at + 1 < records.len() && records[at].0 != records[at + 1].0 {
            records.swap(at, at + 1);
        }
    }
    records.into_iter().flat_map(|record| record.1).collect()
}

const MESSAGES: [&str; 2] =
    ["protobuf_test_messages.proto3.TestAllTypesProto3", "protobuf_test_messages.proto2.TestAllTypesProto2"];

fn for_random(check: impl Fn(&World, &mut Dice, &str, &DynamicMessage) -> Result<(), String>) {
    let world = world();
    let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
    runner
        .run(&any::<u64>(), |seed| {
            let mut dice = Dice(seed);
            let name = dice.pick(&MESSAGES);
            let message = message(&mut dice, &world.pool.get_message_by_name(name).unwrap(), 0);
            check(&world, &mut dice, name, &message).map_err(TestCaseError::fail)
        })
        .unwrap();
}

#[test]
fn wire_to_json_prints_what_the_oracle_prints() {
    for_random(|world, _, name, message| {
        let ours = ours_out(world, name, &message.encode_to_vec())?;
        let ours_value: serde_json::Value = serde_json::from_str(&ours).map_err(|e| format!("{e}: {ours}"))?;
        let oracle = oracle_json(message);
        difference(&ours_value, &oracle, "").map_or(Ok(()), Err)
    });
}

#[test]
fn disorder_and_splits_on_the_wire_change_nothing() {
    for_random(|world, dice, name, message| {
        let shuffled = disorder(dice, &message.descriptor(), &message.encode_to_vec());
        let decoded = DynamicMessage::decode(message.descriptor(), shuffled.as_slice()).map_err(|e| e.to_string())?;
        let ours = ours_out(world, name, &shuffled)?;
        let ours_value: serde_json::Value = serde_json::from_str(&ours).map_err(|e| format!("{e}: {ours}"))?;
        let oracle = oracle_json(&decoded);
        difference(&ours_value, &oracle, "").map_or(Ok(()), Err)
    });
}

#[test]
fn equal_messages_have_equal_canonical_bytes() {
    for_random(|world, dice, name, message| {
        let id = world.tables.message_id(name).unwrap();
        let wire = message.encode_to_vec();
        let shuffled = disorder(dice, &message.descriptor(), &wire);
        let canonical =
            |wire: &[u8]| tidegate::transcode::canonical(&world.tables, id, None, wire).map_err(|e| e.to_string());
        let (first, second) = (canonical(&wire)?, canonical(&shuffled)?);
        if first != second {
            return Err(format!("{first:02x?}\n{second:02x?}"));
        }
        let decoded = DynamicMessage::decode(message.descriptor(), first.as_slice()).map_err(|e| e.to_string())?;
        difference(&oracle_json(&decoded), &oracle_json(message), "").map_or(Ok(()), Err)
    });
}

#[test]
fn json_to_wire_means_what_the_oracle_means() {
    for_random(|world, _, name, message| {
        let json = oracle_json(message).to_string();
        let ours = ours_in(world, name, &json).map_err(|e| format!("{e}: {json}"))?;
        let decoded = DynamicMessage::decode(message.descriptor(), ours.as_slice()).map_err(|e| e.to_string())?;
        difference(&oracle_json(&decoded), &oracle_json(message), "").map_or(Ok(()), Err)
    });
}

#[test]
fn any_bytes_at_all_do_no_harm() {
    let world = world();
    let mut runner = TestRunner::new(Config { cases: CASES * 5, ..Config::default() });
    runner
        .run(&proptest::collection::vec(any::<u8>(), 0..200), |bytes| {
            for name in MESSAGES {
                if let Ok(json) = ours_out(&world, name, &bytes) {
                    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&json);
                    prop_assert!(parsed.is_ok(), "{json}");
                }
                let _ = ours_in(&world, name, &String::from_utf8_lossy(&bytes));
            }
            Ok(())
        })
        .unwrap();
}
