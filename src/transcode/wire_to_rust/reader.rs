//! One node of a message as serde's `Deserializer`: it offers what the table says, and the struct takes it.

use serde::de::{self, Visitor};
use serde::forward_to_deserialize_any;

use super::super::error::{ErrorKind, Result, TranscodeError};
use super::super::rust_names;
use super::super::table::{
    Cardinality, Field, FieldId, Kind, MessageId, MessageTable, OneofId, Presence, Shape, WireType,
};
use super::super::wire::WireReader;
use super::access::{Elements, Entries, EnumNumber, Fields, Member, Octets};
use super::index::{Source, Walk};

/// What is to be read.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    /// A message.
    Message(MessageId, Source),
    /// All records of a list.
    List(&'a Field, usize, usize),
    /// All records of a map.
    Map(&'a Field, usize, usize),
    /// A oneof of the message whose records lie between the two positions.
    Oneof(&'a MessageTable, OneofId, usize, usize),
    /// A scalar's bytes, without tag and length, and their offset.
    Scalar(&'a Field, &'a [u8], usize),
}

/// A node with its walk.
pub(super) struct Reader<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    pub(super) node: Node<'a>,
    /// An `Option` reads it as `None`.
    pub(super) is_absent: bool,
}

impl<'m, 'a> Reader<'m, 'a> {
    /// A field from its records `first..end`.
    pub(super) fn of_field(walk: &'m mut Walk<'a>, field: &'a Field, first: usize, end: usize) -> Result<Self> {
        let is_absent = first == end && field.spec.presence != Presence::Implicit;
        if is_absent && field.spec.presence == Presence::Required {
            return Err(TranscodeError::new(ErrorKind::Wire, 0, "a required field is missing"));
        }
        let node = match field.spec.cardinality {
            Cardinality::Repeated => Node::List(field, first, end),
            Cardinality::Map => Node::Map(field, first, end),
            Cardinality::Single => match field.message() {
                Some(id) if end - first > 1 => Node::Message(id, Source::Many(first, end)),
                Some(id) => {
                    let record = walk.records[first..end].last();
                    Node::Message(id, record.map_or(Source::One(0, 0), |record| Source::One(record.from, record.to)))
                }
                None => match walk.records[first..end].last() {
                    Some(record) => Node::Scalar(field, &walk.wire[record.from..record.to], record.from),
                    None => Node::Scalar(field, default_bytes(field), 0),
                },
            },
        };
        Ok(Reader { walk, node, is_absent })
    }

    /// One element of a list, or one part of a map entry that is in one piece.
    pub(super) fn of_value(walk: &'m mut Walk<'a>, field: &'a Field, from: usize, to: usize) -> Self {
        let node = match field.message() {
            Some(id) => Node::Message(id, Source::One(from, to)),
            None => Node::Scalar(field, &walk.wire[from..to], from),
        };
        Reader { walk, node, is_absent: false }
    }

    /// A message with the JSON form of a wrapper, `Struct`, `ListValue` or `Value`: what it holds.
    fn inner<V: Visitor<'static>>(self, id: MessageId, source: Source, visitor: V) -> Result<V::Value> {
        let walk = self.walk;
        let table = walk.tables.message(id);
        let base = walk.enter(id, source)?;
        let last = walk.records.len();
        let value = match table.shape {
            Shape::Wrapper | Shape::Struct | Shape::ListValue if !table.fields.is_empty() => {
                let field = table.field(FieldId(0));
                Reader::of_field(walk, field, base, last)?.deserialize(visitor)
            }
            Shape::Value => match winner(walk, table, OneofId(0), base, last) {
                None => visitor.visit_unit(),
                Some((field, _, _)) if matches!(field.spec.kind, Kind::Enum(_)) => visitor.visit_unit(),
                Some((field, first, end)) => Reader::of_field(walk, field, first, end)?.deserialize(visitor),
            },
            Shape::Empty => visitor.visit_unit(),
            _ => Err(mismatch(format!(
                "`{}` is a message: read it into a struct (`flatten` and `untagged` are not supported)",
                table.name
            ))),
        }?;
        walk.leave(base);
        Ok(value)
    }

    fn deserialize<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Scalar(field, bytes, offset) => scalar(field, bytes, offset, visitor),
            Node::Message(id, source) => self.inner(id, source, visitor),
            Node::List(field, first, end) => visitor.visit_seq(Elements::new(self.walk, field, first, end)),
            Node::Map(field, first, end) => Entries::visit(self.walk, field, first, end, visitor),
            Node::Oneof(table, id, ..) => Err(mismatch(format!(
                "`{}` is a oneof: read it into an enum with a newtype variant a member",
                table.oneofs[id.0 as usize]
            ))),
        }
    }
}

/// Two lifetimes would only serve borrowed text, which a `DeserializeOwned` never takes.
impl de::Deserializer<'static> for Reader<'_, '_> {
    type Error = TranscodeError;

    fn deserialize_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize(visitor)
    }

    fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        if self.is_absent { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'static>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'static>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let Node::Message(id, source) = self.node else {
            return Err(mismatch(format!("it is no message, but `{name}` is a struct")));
        };
        let base = self.walk.enter(id, source)?;
        let value = visitor.visit_seq(Fields::new(self.walk, id, fields, base))?;
        self.walk.leave(base);
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'static>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.node {
            Node::Scalar(field, bytes, _) => {
                let Kind::Enum(id) = field.spec.kind else {
                    return Err(mismatch(format!("it is no enum, but `{name}` is one")));
                };
                let number = WireReader::new(bytes).varint()? as i32;
                let table = self.walk.tables.enumeration(id);
                let Some(variant) = rust_names::variant_of_number(table, number, variants) else {
                    return Err(mismatch(format!("`{name}` has no variant for {number}: give it `Unknown(i32)`")));
                };
                visitor.visit_enum(EnumNumber { number, variant: variant as u32 })
            }
            Node::Oneof(table, id, base, last) => {
                let oneof = &table.oneofs[id.0 as usize];
                let Some((field, first, end)) = winner(self.walk, table, id, base, last) else {
                    return Err(mismatch(format!("no member of `{oneof}` is set")));
                };
                visitor.visit_enum(Member { walk: self.walk, field, first, end, variants })
            }
            _ => Err(mismatch(format!("it is neither an enum nor a oneof, but `{name}` is an enum"))),
        }
    }

    fn deserialize_seq<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Scalar(field, bytes, _) if field.spec.kind == Kind::Bytes => visitor.visit_seq(Octets::new(bytes)),
            _ => self.deserialize(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'static>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map identifier
    }
}

#[cold]
pub(super) fn mismatch(text: String) -> TranscodeError {
    TranscodeError::new(ErrorKind::Mismatch, 0, text)
}

/// The member of a oneof that came last, and its records since then: another member in between clears it.
fn winner<'a>(
    walk: &Walk<'a>,
    table: &'a MessageTable,
    oneof: OneofId,
    base: usize,
    last: usize,
) -> Option<(&'a Field, usize, usize)> {
    let mut best: Option<(&'a Field, usize, usize)> = None;
    // Where the last record of the members beaten so far begins.
    let mut beaten = 0;
    for field in rust_names::members(table, oneof) {
        let (first, end) = walk.run(field.spec.number, base, last, base);
        let Some(newest) = walk.records[first..end].last() else { continue };
        match best {
            Some((_, _, end)) if walk.records[end - 1].from > newest.from => beaten = beaten.max(newest.from),
            other => {
                beaten = other.map_or(beaten, |(_, _, end)| beaten.max(walk.records[end - 1].from));
                best = Some((field, first, end));
            }
        }
    }
    best.map(|(field, first, end)| {
        let stale = walk.records[first..end].partition_point(|record| record.from < beaten);
        (field, first + stale, end)
    })
}

/// The bytes that stand for an absent scalar.
fn default_bytes(field: &Field) -> &[u8] {
    match field.spec.kind.wire_type() {
        _ if !field.spec.default.is_empty() => &field.spec.default,
        WireType::Length => &[],
        _ => &[0; 8],
    }
}

/// One scalar, in the kind's own type.
#[inline]
fn scalar<V: Visitor<'static>>(field: &Field, bytes: &[u8], offset: usize, visitor: V) -> Result<V::Value> {
    let mut reader = WireReader::new(bytes);
    match field.spec.kind {
        Kind::Double => visitor.visit_f64(f64::from_bits(reader.fixed64()?)),
        Kind::Float => visitor.visit_f32(f32::from_bits(reader.fixed32()?)),
        Kind::Int32 | Kind::Enum(_) => visitor.visit_i32(reader.varint()? as i32),
        Kind::Int64 => visitor.visit_i64(reader.varint()? as i64),
        Kind::Uint32 => visitor.visit_u32(reader.varint()? as u32),
        Kind::Uint64 => visitor.visit_u64(reader.varint()?),
        Kind::Sint32 => {
            let value = reader.varint()? as u32;
            visitor.visit_i32((value >> 1) as i32 ^ -((value & 1) as i32))
        }
        Kind::Sint64 => {
            let value = reader.varint()?;
            visitor.visit_i64((value >> 1) as i64 ^ -((value & 1) as i64))
        }
        Kind::Fixed32 => visitor.visit_u32(reader.fixed32()?),
        Kind::Fixed64 => visitor.visit_u64(reader.fixed64()?),
        Kind::Sfixed32 => visitor.visit_i32(reader.fixed32()? as i32),
        Kind::Sfixed64 => visitor.visit_i64(reader.fixed64()? as i64),
        Kind::Bool => visitor.visit_bool(reader.varint()? != 0),
        Kind::String => match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => visitor.visit_str(text),
            Err(_) => Err(TranscodeError::new(ErrorKind::Wire, offset, "text that is not UTF-8")),
        },
        Kind::Bytes => visitor.visit_bytes(bytes),
        Kind::Message(_) | Kind::Group(_) => visitor.visit_unit(),
    }
}
