//! Descriptors as the transcoder reads them: flat tables, indexes instead of references.
//!
//! Made once by `schema` from a descriptor pool, then only read. Knows nothing of files, pools or routes.

use std::collections::HashMap;

/// Index of a message in [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub(crate) u32);

/// Index of an enum in [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnumId(pub(crate) u32);

/// Index of a field in its [`MessageTable`], in order of field numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub(crate) u16);

/// Index of a oneof in its [`MessageTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OneofId(pub(crate) u16);

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

/// A field as the transcoder reads it.
#[derive(Debug)]
pub struct Field {
    /// As described.
    pub spec: FieldSpec,
    /// Tag as written: the varint of number and wire type (of the packed record where packed).
    tag: [u8; 5],
    tag_len: u8,
    /// `"jsonName":`, ready to print.
    key_camel: Box<[u8]>,
    /// `"proto_name":`, ready to print.
    key_proto: Box<[u8]>,
}

impl Field {
    fn new(spec: FieldSpec) -> Field {
        let wire_type = if spec.is_packed { WireType::Length } else { spec.kind.wire_type() };
        let mut value = spec.number << 3 | wire_type as u32;
        let (mut tag, mut tag_len) = ([0; 5], 0);
        while value >= 0x80 {
            tag[tag_len] = value as u8 | 0x80;
            value >>= 7;
            tag_len += 1;
        }
        tag[tag_len] = value as u8;
        Field {
            tag,
            tag_len: tag_len as u8 + 1,
            key_camel: printed_key(&spec.json_name),
            key_proto: printed_key(&spec.name),
            spec,
        }
    }

    /// The tag as written, one to five bytes.
    pub fn tag(&self) -> &[u8] {
        &self.tag[..self.tag_len as usize]
    }

    /// `"jsonName":` as printed.
    pub fn key_camel(&self) -> &[u8] {
        &self.key_camel
    }

    /// `"proto_name":` as printed.
    pub fn key_proto(&self) -> &[u8] {
        &self.key_proto
    }

    /// The message of a message, group or map field.
    pub fn message(&self) -> Option<MessageId> {
        match self.spec.kind {
            Kind::Message(id) | Kind::Group(id) => Some(id),
            _ => None,
        }
    }
}

fn printed_key(name: &str) -> Box<[u8]> {
    let mut key = serde_json::to_vec(name).unwrap_or_default();
    key.push(b':');
    key.into()
}

/// A message as the transcoder reads it.
#[derive(Debug)]
pub struct MessageTable {
    /// Full name, no leading dot.
    pub name: Box<str>,
    /// Its JSON form.
    pub shape: Shape,
    /// Its fields in order of field numbers, known extensions included.
    pub fields: Box<[Field]>,
    /// Names of its oneofs.
    pub oneofs: Box<[Box<str>]>,
    /// Field index + 1 by number, for the numbers below its length; 0 = no such field.
    dense: Box<[u16]>,
    names: HashMap<Box<[u8]>, FieldId>,
}

/// Numbers below this are found by one indexed load, the others by binary search.
const DENSE_NUMBERS_MAX: u32 = 256;

impl MessageTable {
    fn new(mut spec: MessageSpec) -> MessageTable {
        spec.fields.sort_by_key(|field| field.number);
        let fields: Box<[Field]> = spec.fields.into_iter().map(Field::new).collect();
        let highest = fields.iter().map(|f| f.spec.number).filter(|n| *n < DENSE_NUMBERS_MAX).max().unwrap_or(0);
        let mut dense = vec![0; highest as usize + 1];
        let mut names = HashMap::new();
        for (index, field) in fields.iter().enumerate() {
            if let Some(entry) = dense.get_mut(field.spec.number as usize) {
                *entry = index as u16 + 1;
            }
            names.insert(field.spec.name.as_bytes().into(), FieldId(index as u16));
        }
        for (index, field) in fields.iter().enumerate() {
            names.insert(field.spec.json_name.as_bytes().into(), FieldId(index as u16));
        }
        MessageTable {
            shape: shape_of(&spec.name),
            name: spec.name.into(),
            fields,
            oneofs: spec.oneofs.into_iter().map(String::into_boxed_str).collect(),
            dense: dense.into(),
            names,
        }
    }

    /// The field with that number.
    #[inline]
    pub fn field_by_number(&self, number: u32) -> Option<FieldId> {
        if let Some(entry) = self.dense.get(number as usize) {
            return entry.checked_sub(1).map(FieldId);
        }
        self.fields.binary_search_by_key(&number, |f| f.spec.number).ok().map(|i| FieldId(i as u16))
    }

    /// The field with that JSON name or proto name; extensions by `[full.name]`.
    #[inline]
    pub fn field_by_name(&self, name: &[u8]) -> Option<FieldId> {
        self.names.get(name).copied()
    }

    /// The field at that index.
    #[inline]
    pub fn field(&self, id: FieldId) -> &Field {
        &self.fields[id.0 as usize]
    }
}

fn shape_of(name: &str) -> Shape {
    match name.strip_prefix("google.protobuf.").unwrap_or("") {
        "Any" => Shape::Any,
        "Timestamp" => Shape::Timestamp,
        "Duration" => Shape::Duration,
        "FieldMask" => Shape::FieldMask,
        "Struct" => Shape::Struct,
        "Value" => Shape::Value,
        "ListValue" => Shape::ListValue,
        "Empty" => Shape::Empty,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
        | "StringValue" | "BytesValue" => Shape::Wrapper,
        _ => Shape::Plain,
    }
}

/// An enum as the transcoder reads it.
#[derive(Debug)]
pub struct EnumTable {
    /// Full name, no leading dot.
    pub name: Box<str>,
    /// Unknown numbers count as unknown fields.
    pub is_closed: bool,
    /// True for `google.protobuf.NullValue`, whose JSON form is `null`.
    pub is_null: bool,
    /// The number of the first value.
    pub default: i32,
    /// `"NAME"` ready to print, by number, the first alias only, in order of numbers.
    printed: Box<[(i32, Box<[u8]>)]>,
    numbers: HashMap<Box<[u8]>, i32>,
}

impl EnumTable {
    fn new(spec: EnumSpec) -> EnumTable {
        let mut printed: Vec<(i32, Box<[u8]>)> = Vec::new();
        for (name, number) in &spec.values {
            if !printed.iter().any(|(other, _)| other == number) {
                printed.push((*number, format!("\"{name}\"").into_bytes().into()));
            }
        }
        printed.sort_by_key(|row| row.0);
        EnumTable {
            is_null: spec.name == "google.protobuf.NullValue",
            name: spec.name.into(),
            is_closed: spec.is_closed,
            default: spec.values.first().map_or(0, |v| v.1),
            printed: printed.into(),
            numbers: spec.values.into_iter().map(|(name, number)| (name.into_bytes().into(), number)).collect(),
        }
    }

    /// `"NAME"` as printed; `None` for a number without a name.
    #[inline]
    pub fn printed_name(&self, number: i32) -> Option<&[u8]> {
        // Most enums count from zero without holes, so the number is usually its own index.
        let guess = self.printed.get(number as usize).filter(|row| row.0 == number);
        let row = guess
            .or_else(|| self.printed.binary_search_by_key(&number, |row| row.0).ok().map(|index| &self.printed[index]));
        row.map(|row| &*row.1)
    }

    /// The bare name; `None` for a number without a name.
    pub fn name_of(&self, number: i32) -> Option<&str> {
        let quoted = self.printed_name(number)?;
        std::str::from_utf8(&quoted[1..quoted.len() - 1]).ok()
    }

    /// The number of a value's name, aliases included.
    pub fn number_of(&self, name: &[u8]) -> Option<i32> {
        self.numbers.get(name).copied()
    }

    /// Names and numbers in order of numbers, the first alias only.
    pub fn values(&self) -> impl Iterator<Item = (&str, i32)> {
        self.printed.iter().filter_map(|(number, _)| Some((self.name_of(*number)?, *number)))
    }
}

/// All messages and enums of one schema.
#[derive(Debug, Default)]
pub struct Tables {
    messages: Vec<MessageTable>,
    enums: Vec<EnumTable>,
    by_name: HashMap<Box<str>, MessageId>,
    enums_by_name: HashMap<Box<str>, EnumId>,
}

impl Tables {
    /// Tables of these messages and enums; the ids inside `messages` are positions in the two lists.
    pub fn new(messages: Vec<MessageSpec>, enums: Vec<EnumSpec>) -> Tables {
        let messages: Vec<_> = messages.into_iter().map(MessageTable::new).collect();
        let enums: Vec<_> = enums.into_iter().map(EnumTable::new).collect();
        let by_name = messages.iter().enumerate().map(|(i, m)| (m.name.clone(), MessageId(i as u32))).collect();
        let enums_by_name = enums.iter().enumerate().map(|(i, e)| (e.name.clone(), EnumId(i as u32))).collect();
        Tables { messages, enums, by_name, enums_by_name }
    }

    /// The message with that full name (no leading dot).
    pub fn message_id(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }

    /// The enum with that full name (no leading dot).
    pub fn enum_id(&self, name: &str) -> Option<EnumId> {
        self.enums_by_name.get(name).copied()
    }

    /// The message at that index.
    #[inline]
    pub fn message(&self, id: MessageId) -> &MessageTable {
        &self.messages[id.0 as usize]
    }

    /// The enum at that index.
    #[inline]
    pub fn enumeration(&self, id: EnumId) -> &EnumTable {
        &self.enums[id.0 as usize]
    }

    /// All messages, in order of their ids.
    pub fn messages(&self) -> impl Iterator<Item = (MessageId, &MessageTable)> {
        self.messages.iter().enumerate().map(|(i, m)| (MessageId(i as u32), m))
    }
}
