//! Messages, fields and enums as a schema describes them: input of [`Tables::new`](super::table::Tables::new).

use super::table::{EnumId, MessageId, OneofId};

/// The type of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are protobuf's own")]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
    /// A proto2 group, or an editions message with delimited encoding: start and end tags instead of a length.
    Group(MessageId),
}

/// How a value lies on the wire (protobuf encoding, "message structure").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are protobuf's own")]
pub enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    StartGroup = 3,
    EndGroup = 4,
    Fixed32 = 5,
}

impl Kind {
    /// How one unpacked value of this kind lies on the wire.
    pub fn wire_type(self) -> WireType {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::Fixed64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::Fixed32,
            Kind::String | Kind::Bytes | Kind::Message(_) => WireType::Length,
            Kind::Group(_) => WireType::StartGroup,
            _ => WireType::Varint,
        }
    }

    /// True where a repeated field of this kind may be packed.
    pub fn is_packable(self) -> bool {
        !matches!(self, Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Group(_))
    }
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One value.
    Single,
    /// A list.
    Repeated,
    /// A map; the kind is the map-entry message, whose fields are key (number 1) and value (number 2).
    Map,
}

/// Whether "absent" differs from "default".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does not: a default value is left out on the wire (proto3 scalars, lists, maps).
    Implicit,
    /// It does (messages, oneof members, `optional`, proto2).
    Explicit,
    /// Absence is an error (proto2 `required`).
    Required,
}

/// A field as the schema describes it; input of [`Tables::new`].
#[derive(Clone, Debug)]
pub struct FieldSpec {
    /// Name in the .proto; an extension's is `[full.name]`.
    pub name: String,
    /// Lower-camel JSON name, or the one given by `json_name`.
    pub json_name: String,
    /// Field number, 1 to 536,870,911.
    pub number: u32,
    /// Type of its values.
    pub kind: Kind,
    /// One, a list or a map.
    pub cardinality: Cardinality,
    /// Whether absence is told apart.
    pub presence: Presence,
    /// Lists of numbers written as one length-delimited record.
    pub is_packed: bool,
    /// The oneof it is a member of; never the synthetic one of proto3 `optional`.
    pub oneof: Option<OneofId>,
    /// Text must be UTF-8 (all of proto3; not proto2 strings).
    pub checks_utf8: bool,
    /// Explicit default of proto2 and editions, encoded as one value without tag; empty = the kind's zero.
    pub default: Vec<u8>,
}

/// What a message's JSON form is (ProtoJSON, "well-known types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are protobuf's own")]
pub enum Shape {
    /// An object with a member a field.
    Plain,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// `google.protobuf.DoubleValue` and its eight siblings: the bare value of field 1.
    Wrapper,
    Empty,
}

/// A message as the schema describes it; input of [`Tables::new`].
#[derive(Clone, Debug)]
pub struct MessageSpec {
    /// Full name, no leading dot.
    pub name: String,
    /// Its fields, in any order; map-entry messages have exactly two.
    pub fields: Vec<FieldSpec>,
    /// Names of its oneofs, by [`OneofId`].
    pub oneofs: Vec<String>,
}

/// An enum as the schema describes it; input of [`Tables::new`].
#[derive(Clone, Debug)]
pub struct EnumSpec {
    /// Full name, no leading dot.
    pub name: String,
    /// Value names and numbers in order of declaration, aliases included; the first is the default.
    pub values: Vec<(String, i32)>,
    /// proto2 and closed editions enums: unknown numbers count as unknown fields.
    pub is_closed: bool,
}
