//! The requests that a method is tried with, made from its descriptors: every field at its edges, and bytes that are no
//! message. Pure: what comes back is judged elsewhere.

use std::collections::BTreeSet;

use super::CallerArgs;
use crate::envelope::{ContextWriter, Source};
use crate::snapshot::Method;
use crate::transcode::table::{Cardinality, Field, Kind, WireType};
use crate::transcode::wire::{put_bytes, put_number, put_varint};
use crate::transcode::{MessageId, Tables};

/// How deep messages are filled.
const DEPTH: usize = 4;
/// Bytes of a text that nobody would write, and elements of such a list.
const HUGE_TEXT: usize = 16 * 1024;
const HUGE_LIST: usize = 100;
/// Nested groups of an unknown field.
const NESTED: usize = 500;
/// A number that no schema uses (the highest there is).
const UNKNOWN: u32 = 536_870_911;

/// What a request must lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    /// Any answer that is no defect.
    Answer,
    /// An error that is the caller's own.
    Refusal,
    /// Two successes, where it is sent twice under one key and the first one is.
    Twice,
}

/// A request.
pub(super) struct Case {
    /// What is special about it.
    pub(super) name: String,
    pub(super) payload: Vec<u8>,
    pub(super) expect: Expect,
    /// A header of its own.
    pub(super) header: Option<(&'static str, String)>,
}

/// How fields are filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// As usual.
    Plain,
    /// The highest numbers.
    Highest,
    /// The lowest numbers, and empty texts that are written all the same.
    Lowest,
    /// What is a number and yet none, enums without a name, texts of unusual characters.
    Odd,
    /// Long texts and lists.
    Huge,
}

const EDGES: [(Fill, &str); 4] = [
    (Fill::Highest, "highest values"),
    (Fill::Lowest, "lowest values"),
    (Fill::Odd, "odd values"),
    (Fill::Huge, "huge values"),
];

/// All cases of a method.
pub(super) fn of(method: &Method, caller: &CallerArgs) -> Vec<Case> {
    let making = Making { method, caller };
    let mut cases = vec![
        making.case("usual values", Expect::Answer, &making.filled(Fill::Plain)),
        making.case("no values", Expect::Answer, &[]),
        Case { payload: making.filled(Fill::Plain), ..making.case("no context", Expect::Answer, &[]) },
        Case { payload: Vec::new(), ..making.case("no bytes", Expect::Answer, &[]) },
    ];
    cases.extend(EDGES.map(|(fill, name)| making.case(name, Expect::Answer, &making.filled(fill))));
    for field in making.fields() {
        for (fill, name) in EDGES {
            let mut payload = Vec::new();
            put_field(&method.tables, field, fill, DEPTH, &mut payload);
            cases.push(making.case(&format!("{name} in `{}` alone", field.spec.name), Expect::Answer, &payload));
        }
    }
    cases.extend(making.on_the_wire());
    cases.extend(making.malformed());
    let header = |name: &str, header, value: &str| Case {
        header: Some((header, value.to_owned())),
        ..making.case(name, Expect::Answer, &making.filled(Fill::Plain))
    };
    cases.push(header("a deadline that has passed", "Tidegate-Timeout", "0"));
    cases.push(header("another type than the method's", "message-type", "verify.v1.Nothing"));
    if !method.is_repeatable {
        let key = uuid::Uuid::new_v4().to_string();
        let payload = making.with_context(&making.filled(Fill::Plain), &key);
        let header = Some(("Nats-Msg-Id", key));
        cases.push(Case { name: "one key twice".to_owned(), payload, expect: Expect::Twice, header });
    }
    cases
}

struct Making<'m> {
    method: &'m Method,
    caller: &'m CallerArgs,
}

impl Making<'_> {
    fn case(&self, name: &str, expect: Expect, fields: &[u8]) -> Case {
        Case { name: name.to_owned(), payload: self.with_context(fields, ""), expect, header: None }
    }

    /// The fields of the request, the context aside.
    fn fields(&self) -> impl Iterator<Item = &Field> {
        let context = self.method.envelope.context.as_ref().map(|plan| plan.number);
        let fields = &self.method.tables.message(self.method.request).fields;
        fields.iter().filter(move |field| Some(field.spec.number) != context)
    }

    fn filled(&self, fill: Fill) -> Vec<u8> {
        let mut payload = Vec::new();
        let context = self.method.envelope.context.as_ref().map(|plan| plan.number);
        put_fields(&self.method.tables, self.method.request, fill, context, DEPTH, &mut payload);
        payload
    }

    fn with_context(&self, fields: &[u8], key: &str) -> Vec<u8> {
        let mut payload = Vec::with_capacity(fields.len() + 256);
        let Some(plan) = &self.method.envelope.context else { return fields.to_vec() };
        let mut writer = ContextWriter::new(plan, &mut payload);
        for field in &plan.fields {
            let is_key = |source: &Source| {
                matches!(source, Source::BodyMember(_))
                    || matches!(source, Source::Header { name, .. } if name == "idempotency-key")
            };
            if field.is_time {
                writer.time(field.number, self.caller.now().as_nanos());
            } else if field.sources.first().is_some_and(is_key) {
                writer.text(field.number, key);
            } else if field.sources.contains(&Source::CallerTenant) {
                writer.text(field.number, &self.caller.tenant);
            } else if field.sources.contains(&Source::Generated) {
                writer.text(field.number, &uuid::Uuid::new_v4().to_string());
            } else {
                writer.text(field.number, "verify");
            }
        }
        if let Some(labels) = &plan.labels {
            for (name, _) in labels.set.iter().filter(|row| row.1 == Source::CallerRole) {
                writer.label(labels.number, name, &self.caller.roles);
            }
        }
        writer.finish();
        payload.extend_from_slice(fields);
        payload
    }

    /// Forms that the encoding allows, and few writers use.
    fn on_the_wire(&self) -> Vec<Case> {
        let plain = self.filled(Fill::Plain);
        let mut unknown = plain.clone();
        for (number, fill) in [(UNKNOWN, 1), (UNKNOWN - 1, u64::MAX)] {
            put_number(number, fill, &mut unknown);
            put_bytes(number, &[0xff; 64], &mut unknown);
        }
        let mut deep = plain.clone();
        (0..NESTED).for_each(|_| put_tag(UNKNOWN, WireType::StartGroup, &mut deep));
        (0..NESTED).for_each(|_| put_tag(UNKNOWN, WireType::EndGroup, &mut deep));
        let mut mistyped = Vec::new();
        for field in self.fields() {
            match field.spec.kind.wire_type() {
                WireType::Length => put_number(field.spec.number, 7, &mut mistyped),
                _ if field.spec.cardinality == Cardinality::Single => put_bytes(field.spec.number, b"7", &mut mistyped),
                _ => {}
            }
        }
        vec![
            self.case("unknown fields", Expect::Answer, &unknown),
            self.case("unknown groups, nested deeply", Expect::Answer, &deep),
            self.case("every field twice", Expect::Answer, &[plain.clone(), plain].concat()),
            self.case("every field with another wire type", Expect::Answer, &mistyped),
        ]
    }

    /// Bytes that no decoder may take.
    fn malformed(&self) -> Vec<Case> {
        let plain = self.filled(Fill::Plain);
        let rows: [(&str, &[u8]); 6] = [
            ("a length beyond the end", &[0x7a, 100, b'x']),
            ("a varint without an end", &[0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            ("a field with number 0", &[0x02, 1, b'x']),
            ("a wire type that is none", &[0x7f]),
            ("a group's end without its start", &[0x7c]),
            ("JSON", b"{\"verify\":true}"),
        ];
        let mut cases: Vec<Case> = rows
            .iter()
            .map(|(name, bytes)| self.case(name, Expect::Refusal, &[plain.as_slice(), bytes].concat()))
            .collect();
        let text = self.fields().find(|field| {
            field.spec.kind == Kind::String && field.spec.checks_utf8 && field.spec.cardinality != Cardinality::Map
        });
        if let Some(field) = text {
            let mut payload = plain;
            put_bytes(field.spec.number, &[b'x', 0xff, 0xfe], &mut payload);
            let name = format!("a text in `{}` that is no UTF-8", field.spec.name);
            cases.push(self.case(&name, Expect::Refusal, &payload));
        }
        cases
    }
}

fn put_tag(number: u32, wire_type: WireType, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | wire_type as u64, out);
}

/// All fields of a message but one; of each oneof its first member.
fn put_fields(tables: &Tables, message: MessageId, fill: Fill, without: Option<u32>, depth: usize, out: &mut Vec<u8>) {
    let mut taken = BTreeSet::new();
    for field in &tables.message(message).fields {
        let is_second = field.spec.oneof.is_some_and(|oneof| !taken.insert(oneof));
        if Some(field.spec.number) != without && !is_second {
            put_field(tables, field, fill, depth, out);
        }
    }
}

fn put_field(tables: &Tables, field: &Field, fill: Fill, depth: usize, out: &mut Vec<u8>) {
    let count = match (field.spec.cardinality, fill) {
        (Cardinality::Single, _) => 1,
        // Lists of lists of lists would be larger than any message.
        (_, Fill::Huge) if depth == DEPTH => HUGE_LIST,
        (_, Fill::Plain) => 2,
        _ => 1,
    };
    for index in 0..count {
        put_value(tables, field, fill, index, depth, out);
    }
}

fn put_value(tables: &Tables, field: &Field, fill: Fill, index: usize, depth: usize, out: &mut Vec<u8>) {
    let number = field.spec.number;
    match field.spec.kind {
        Kind::Message(_) | Kind::Group(_) if depth == 0 => {}
        Kind::Message(id) => {
            let mut inner = Vec::new();
            put_fields(tables, id, fill, None, depth - 1, &mut inner);
            put_bytes(number, &inner, out);
        }
        Kind::Group(id) => {
            put_tag(number, WireType::StartGroup, out);
            put_fields(tables, id, fill, None, depth - 1, out);
            put_tag(number, WireType::EndGroup, out);
        }
        Kind::String | Kind::Bytes => put_bytes(number, text(fill, index, depth).as_bytes(), out),
        Kind::Enum(id) => {
            let values = || tables.enumeration(id).values().map(|row| row.1);
            let value = match fill {
                Fill::Plain | Fill::Huge => values().find(|value| *value != 0),
                Fill::Highest => values().max(),
                Fill::Lowest => values().min(),
                Fill::Odd => Some(1_234_567),
            };
            put_tag(number, WireType::Varint, out);
            put_varint(i64::from(value.unwrap_or_default()) as u64, out);
        }
        kind => {
            put_tag(number, kind.wire_type(), out);
            put_scalar(kind, fill, out);
        }
    }
}

fn text(fill: Fill, index: usize, depth: usize) -> String {
    match fill {
        Fill::Plain => format!("verify{index}"),
        Fill::Highest => "z".repeat(255),
        Fill::Lowest => String::new(),
        Fill::Odd => "\u{202e}../..\u{0}%2f;'\"<\u{1f980}\u{301}.>*".to_owned(),
        Fill::Huge if depth == DEPTH && index == 0 => "x".repeat(HUGE_TEXT),
        Fill::Huge => "x".repeat(256),
    }
}

fn put_scalar(kind: Kind, fill: Fill, out: &mut Vec<u8>) {
    let pick = |plain: u64, highest: u64, lowest: u64, odd: u64| match fill {
        Fill::Plain => plain,
        Fill::Highest | Fill::Huge => highest,
        Fill::Lowest => lowest,
        Fill::Odd => odd,
    };
    let signed = |max: i64, min: i64| pick(1, max as u64, min as u64, -1_i64 as u64);
    let zigzag = |value: u64| (value << 1) ^ ((value as i64 >> 63) as u64);
    let (i32_range, i64_range) = (signed(i32::MAX.into(), i32::MIN.into()), signed(i64::MAX, i64::MIN));
    match kind {
        Kind::Double => {
            let bits = |value: f64| value.to_bits();
            let value = pick(bits(1.0), bits(f64::MAX), bits(f64::MIN), bits(f64::NAN));
            out.extend_from_slice(&value.to_le_bytes());
        }
        Kind::Float => {
            let bits = |value: f32| u64::from(value.to_bits());
            let value = pick(bits(1.0), bits(f32::MAX), bits(f32::NEG_INFINITY), bits(f32::NAN)) as u32;
            out.extend_from_slice(&value.to_le_bytes());
        }
        Kind::Fixed32 => out.extend_from_slice(&(pick(1, u32::MAX.into(), 0, 1 << 31) as u32).to_le_bytes()),
        Kind::Sfixed32 => out.extend_from_slice(&(i32_range as u32).to_le_bytes()),
        Kind::Fixed64 => out.extend_from_slice(&pick(1, u64::MAX, 0, 1 << 63).to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&i64_range.to_le_bytes()),
        Kind::Sint32 => put_varint(zigzag(i32_range) & u64::from(u32::MAX), out),
        Kind::Sint64 => put_varint(zigzag(i64_range), out),
        Kind::Int32 => put_varint(i32_range, out),
        Kind::Int64 => put_varint(i64_range, out),
        Kind::Uint32 => put_varint(pick(1, u32::MAX.into(), 0, 1 << 31), out),
        Kind::Uint64 => put_varint(pick(1, u64::MAX, 0, 1 << 63), out),
        _ => put_varint(pick(1, 1, 0, 1), out),
    }
}
