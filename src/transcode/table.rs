//! Descriptors as the transcoder reads them: flat tables, indexes instead of references.
//!
//! Made once by `schema` from a descriptor pool, then only read. Knows nothing of files, pools or routes.

use std::collections::HashMap;

use super::name_index::NameIndex;
use super::ready::{KeyMatch, Printed};
pub use super::spec::{Cardinality, EnumSpec, FieldSpec, Kind, MessageSpec, Presence, Shape, WireType};
use super::wire_to_json::Names;

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

/// A field as the transcoder reads it.
#[derive(Debug)]
pub struct Field {
    /// As described.
    pub spec: FieldSpec,
    /// Tag as written: the varint of number and wire type (of the packed record where packed).
    tag: [u8; 16],
    tag_len: u8,
    /// `,"jsonName":`, ready to print.
    key_camel: Printed,
    /// `,"proto_name":`, ready to print.
    key_proto: Printed,
    /// The JSON name, and the proto name where it is another, as they stand behind an opening quote.
    keys: [Option<KeyMatch>; 2],
}

impl Field {
    fn new(spec: FieldSpec) -> Field {
        let wire_type = if spec.is_packed { WireType::Length } else { spec.kind.wire_type() };
        let mut value = spec.number << 3 | wire_type as u32;
        let (mut tag, mut tag_len) = ([0; 16], 0);
        while value >= 0x80 {
            tag[tag_len] = value as u8 | 0x80;
            value >>= 7;
            tag_len += 1;
        }
        tag[tag_len] = value as u8;
        Field {
            tag,
            tag_len: tag_len as u8 + 1,
            key_camel: Printed::key(&spec.json_name),
            key_proto: Printed::key(&spec.name),
            keys: [
                Some(KeyMatch::new(&spec.json_name)),
                (spec.name != spec.json_name).then(|| KeyMatch::new(&spec.name)),
            ],
            spec,
        }
    }

    /// The tag as written, one to five bytes.
    pub fn tag(&self) -> &[u8] {
        &self.tag[..self.tag_len as usize]
    }

    /// `,"name":` as printed.
    #[inline(always)]
    pub(super) fn key(&self, names: Names) -> &Printed {
        match names {
            Names::Camel => &self.key_camel,
            Names::Proto => &self.key_proto,
        }
    }

    /// The tag as a block of sixteen bytes and its length, for a fixed-size copy.
    #[inline(always)]
    pub(super) fn tag_block(&self) -> (&[u8; 16], usize) {
        (&self.tag, self.tag_len as usize)
    }

    /// Its names as they stand behind an opening quote.
    #[inline(always)]
    pub(super) fn keys(&self) -> &[Option<KeyMatch>; 2] {
        &self.keys
    }

    /// True where a record of this wire type is a value of the field; another one counts as an unknown field.
    #[inline(always)]
    pub(super) fn fits(&self, wire_type: WireType) -> bool {
        wire_type == self.spec.kind.wire_type()
            || wire_type == WireType::Length
                && self.spec.cardinality == Cardinality::Repeated
                && self.spec.kind.is_packable()
    }

    /// The message of a message, group or map field.
    pub fn message(&self) -> Option<MessageId> {
        match self.spec.kind {
            Kind::Message(id) | Kind::Group(id) => Some(id),
            _ => None,
        }
    }
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
    /// Some field is required (proto2).
    pub has_required: bool,
    /// Names of its oneofs.
    pub oneofs: Box<[Box<str>]>,
    /// Field index + 1 by number, for the numbers below its length; 0 = no such field.
    dense: Box<[u16]>,
    /// Field index + 1 by the first byte of a tag that has no other, of a record that fits the field; 0 = none.
    short_tags: Box<[u16; 256]>,
    names: NameIndex<FieldId>,
}

/// Numbers below this are found by one indexed load, the others by binary search.
const DENSE_NUMBERS_MAX: u32 = 256;

impl MessageTable {
    fn new(mut spec: MessageSpec) -> MessageTable {
        spec.fields.sort_by_key(|field| field.number);
        let fields: Box<[Field]> = spec.fields.into_iter().map(Field::new).collect();
        let highest = fields.iter().map(|f| f.spec.number).filter(|n| *n < DENSE_NUMBERS_MAX).max().unwrap_or(0);
        let mut dense = vec![0; highest as usize + 1];
        let mut short_tags = Box::new([0; 256]);
        let mut names = NameIndex::new(fields.len());
        for (index, field) in fields.iter().enumerate() {
            if let Some(entry) = dense.get_mut(field.spec.number as usize) {
                *entry = index as u16 + 1;
            }
            for wire_type in [field.spec.kind.wire_type(), WireType::Length].into_iter().filter(|one| field.fits(*one))
            {
                let tag = field.spec.number << 3 | wire_type as u32;
                if tag < 0x80 {
                    short_tags[tag as usize] = index as u16 + 1;
                }
            }
            names.insert(&field.spec.name, FieldId(index as u16));
        }
        // JSON names win over proto names of other fields: they are inserted last.
        for (index, field) in fields.iter().enumerate() {
            names.insert(&field.spec.json_name, FieldId(index as u16));
        }
        MessageTable {
            has_required: fields.iter().any(|field| field.spec.presence == Presence::Required),
            shape: shape_of(&spec.name),
            name: spec.name.into(),
            fields,
            oneofs: spec.oneofs.into_iter().map(String::into_boxed_str).collect(),
            dense: dense.into(),
            short_tags,
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

    /// The field, and its index, that a record is a value of whose tag has this byte only.
    #[inline(always)]
    pub(super) fn field_by_short_tag(&self, tag: u8) -> Option<(usize, &Field)> {
        let index = usize::from(self.short_tags[usize::from(tag)]).wrapping_sub(1);
        self.fields.get(index).map(|field| (index, field))
    }

    /// The field with that JSON name or proto name; extensions by `[full.name]`.
    #[inline]
    pub fn field_by_name(&self, name: &[u8]) -> Option<FieldId> {
        self.names.find(name)
    }

    /// The name of a oneof.
    pub fn oneof_name(&self, id: OneofId) -> &str {
        &self.oneofs[id.0 as usize]
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
    printed: Box<[(i32, Printed)]>,
    numbers: NameIndex<i32>,
}

impl EnumTable {
    fn new(spec: EnumSpec) -> EnumTable {
        let mut printed: Vec<(i32, Printed)> = Vec::new();
        for (name, number) in &spec.values {
            if !printed.iter().any(|(other, _)| other == number) {
                printed.push((*number, Printed::new(format!("\"{name}\"").into_bytes())));
            }
        }
        printed.sort_by_key(|row| row.0);
        let mut numbers = NameIndex::new(spec.values.len());
        spec.values.iter().for_each(|(name, number)| numbers.insert(name, *number));
        EnumTable {
            is_null: spec.name == "google.protobuf.NullValue",
            name: spec.name.into(),
            is_closed: spec.is_closed,
            default: spec.values.first().map_or(0, |v| v.1),
            printed: printed.into(),
            numbers,
        }
    }

    /// `"NAME"` as printed; `None` for a number without a name.
    #[inline]
    pub fn printed_name(&self, number: i32) -> Option<&[u8]> {
        self.printed(number).map(Printed::whole)
    }

    /// `"NAME"` ready to print; `None` for a number without a name.
    #[inline]
    pub(super) fn printed(&self, number: i32) -> Option<&Printed> {
        // Most enums count from zero without holes, so the number is usually its own index.
        let guess = self.printed.get(number as usize).filter(|row| row.0 == number);
        let row = guess
            .or_else(|| self.printed.binary_search_by_key(&number, |row| row.0).ok().map(|index| &self.printed[index]));
        row.map(|row| &row.1)
    }

    /// The bare name; `None` for a number without a name.
    pub fn name_of(&self, number: i32) -> Option<&str> {
        let quoted = self.printed_name(number)?;
        std::str::from_utf8(&quoted[1..quoted.len() - 1]).ok()
    }

    /// The number of a value's name, aliases included.
    pub fn number_of(&self, name: &[u8]) -> Option<i32> {
        self.numbers.find(name)
    }

    /// All names, aliases included, in order of declaration.
    pub fn names(&self) -> impl Iterator<Item = (&str, i32)> {
        self.numbers.iter().filter_map(|(name, number)| Some((std::str::from_utf8(name).ok()?, number)))
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
