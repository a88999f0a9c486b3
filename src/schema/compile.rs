//! Descriptor pool → the transcoder's tables. The slow, clear half; the tables are the fast half.

use std::collections::HashMap;

use prost_reflect::prost_types::field_descriptor_proto::Type;
use prost_reflect::{Cardinality as PoolCardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor};
use prost_reflect::{ExtensionDescriptor, Kind as PoolKind, MessageDescriptor, Syntax, Value};

use crate::transcode::table::{
    Cardinality, EnumId, EnumSpec, FieldSpec, Kind, MessageId, MessageSpec, OneofId, Presence, Tables,
};
use crate::transcode::wire::put_varint;

use super::lower::Lowered;

/// Tables of every message and enum of the pool, known extensions among their fields.
pub(super) fn compile(pool: &DescriptorPool, lowered: &Lowered) -> Tables {
    let ids = Ids::new(pool);
    let messages = pool.all_messages().map(|message| message_spec(&ids, lowered, &message)).collect();
    let enums = pool.all_enums().map(|descriptor| enum_spec(lowered, &descriptor)).collect();
    Tables::new(messages, enums)
}

struct Ids {
    messages: HashMap<String, MessageId>,
    enums: HashMap<String, EnumId>,
}

impl Ids {
    fn new(pool: &DescriptorPool) -> Ids {
        Ids {
            messages: pool
                .all_messages()
                .enumerate()
                .map(|(i, m)| (m.full_name().to_owned(), MessageId(i as u32)))
                .collect(),
            enums: pool.all_enums().enumerate().map(|(i, e)| (e.full_name().to_owned(), EnumId(i as u32))).collect(),
        }
    }

    fn kind(&self, kind: &PoolKind, is_group: bool) -> Kind {
        match kind {
            PoolKind::Double => Kind::Double,
            PoolKind::Float => Kind::Float,
            PoolKind::Int32 => Kind::Int32,
            PoolKind::Int64 => Kind::Int64,
            PoolKind::Uint32 => Kind::Uint32,
            PoolKind::Uint64 => Kind::Uint64,
            PoolKind::Sint32 => Kind::Sint32,
            PoolKind::Sint64 => Kind::Sint64,
            PoolKind::Fixed32 => Kind::Fixed32,
            PoolKind::Fixed64 => Kind::Fixed64,
            PoolKind::Sfixed32 => Kind::Sfixed32,
            PoolKind::Sfixed64 => Kind::Sfixed64,
            PoolKind::Bool => Kind::Bool,
            PoolKind::String => Kind::String,
            PoolKind::Bytes => Kind::Bytes,
            PoolKind::Enum(e) => Kind::Enum(self.enums[e.full_name()]),
            PoolKind::Message(m) if is_group => Kind::Group(self.messages[m.full_name()]),
            PoolKind::Message(m) => Kind::Message(self.messages[m.full_name()]),
        }
    }
}

fn message_spec(ids: &Ids, lowered: &Lowered, message: &MessageDescriptor) -> MessageSpec {
    let is_proto3 = message.parent_file().syntax() == Syntax::Proto3;
    let real_oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
    let mut fields: Vec<FieldSpec> = message
        .fields()
        .map(|field| {
            let oneof = field.containing_oneof().and_then(|oneof| {
                real_oneofs.iter().position(|real| real.full_name() == oneof.full_name()).map(|i| OneofId(i as u16))
            });
            field_spec(ids, lowered, &field, oneof, is_proto3)
        })
        .collect();
    fields.extend(message.extensions().map(|extension| extension_spec(ids, lowered, &extension)));
    MessageSpec {
        name: message.full_name().to_owned(),
        fields,
        oneofs: real_oneofs.iter().map(|oneof| oneof.name().to_owned()).collect(),
    }
}

fn field_spec(
    ids: &Ids,
    lowered: &Lowered,
    field: &FieldDescriptor,
    oneof: Option<OneofId>,
    is_proto3: bool,
) -> FieldSpec {
    let note = lowered.fields.get(field.full_name());
    let has_presence = field.supports_presence() && note.is_none_or(|note| !note.is_implicit);
    let presence = match (field.is_required(), has_presence) {
        (true, _) => Presence::Required,
        (false, true) => Presence::Explicit,
        (false, false) => Presence::Implicit,
    };
    let is_group = field.field_descriptor_proto().r#type() == Type::Group;
    FieldSpec {
        name: field.name().to_owned(),
        json_name: field.json_name().to_owned(),
        number: field.number(),
        kind: ids.kind(&field.kind(), is_group),
        cardinality: match field.cardinality() {
            PoolCardinality::Repeated if field.is_map() => Cardinality::Map,
            PoolCardinality::Repeated => Cardinality::Repeated,
            _ => Cardinality::Single,
        },
        presence,
        is_packed: packed_option(&field.options()).unwrap_or(field.is_packed()),
        oneof,
        checks_utf8: note.map_or(is_proto3, |note| note.checks_utf8),
        default: default_on_wire(&field.kind(), &field.default_value()),
    }
}

fn extension_spec(ids: &Ids, lowered: &Lowered, extension: &ExtensionDescriptor) -> FieldSpec {
    let note = lowered.fields.get(extension.full_name());
    let is_group = extension.field_descriptor_proto().r#type() == Type::Group;
    let is_repeated = extension.cardinality() == PoolCardinality::Repeated;
    FieldSpec {
        name: format!("[{}]", extension.full_name()),
        json_name: format!("[{}]", extension.full_name()),
        number: extension.number(),
        kind: ids.kind(&extension.kind(), is_group),
        cardinality: if is_repeated { Cardinality::Repeated } else { Cardinality::Single },
        presence: if is_repeated { Presence::Implicit } else { Presence::Explicit },
        is_packed: packed_option(&extension.options()).unwrap_or(extension.is_packed()),
        oneof: None,
        checks_utf8: note.map_or(extension.parent_file().syntax() == Syntax::Proto3, |note| note.checks_utf8),
        default: default_on_wire(&extension.kind(), &extension.default_value()),
    }
}

/// What `[packed = …]` says. The pool of a `.proto` source decides `is_packed` before it has read the options, so its
/// own answer is right only where the option is not given.
fn packed_option(options: &DynamicMessage) -> Option<bool> {
    if options.has_field_by_name("packed") { options.get_field_by_name("packed")?.as_bool() } else { None }
}

/// A default that differs from the kind's zero, as one value without tag (text and bytes without length).
fn default_on_wire(kind: &PoolKind, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (kind, value) {
        (PoolKind::Sint32, Value::I32(v)) if *v != 0 => put_varint(u64::from((v << 1 ^ v >> 31) as u32), &mut bytes),
        (PoolKind::Sint64, Value::I64(v)) if *v != 0 => put_varint((v << 1 ^ v >> 63) as u64, &mut bytes),
        (PoolKind::Sfixed32, Value::I32(v)) if *v != 0 => bytes.extend(v.to_le_bytes()),
        (PoolKind::Sfixed64, Value::I64(v)) if *v != 0 => bytes.extend(v.to_le_bytes()),
        (PoolKind::Fixed32, Value::U32(v)) if *v != 0 => bytes.extend(v.to_le_bytes()),
        (PoolKind::Fixed64, Value::U64(v)) if *v != 0 => bytes.extend(v.to_le_bytes()),
        (_, Value::Bool(true)) => bytes.push(1),
        (_, Value::I32(v) | Value::EnumNumber(v)) if *v != 0 => put_varint(i64::from(*v) as u64, &mut bytes),
        (_, Value::I64(v)) if *v != 0 => put_varint(*v as u64, &mut bytes),
        (_, Value::U32(v)) if *v != 0 => put_varint(u64::from(*v), &mut bytes),
        (_, Value::U64(v)) if *v != 0 => put_varint(*v, &mut bytes),
        (_, Value::F32(v)) if v.to_bits() != 0 => bytes.extend(v.to_le_bytes()),
        (_, Value::F64(v)) if v.to_bits() != 0 => bytes.extend(v.to_le_bytes()),
        (_, Value::String(v)) => bytes.extend(v.as_bytes()),
        (_, Value::Bytes(v)) => bytes.extend(v),
        _ => {}
    }
    bytes
}

fn enum_spec(lowered: &Lowered, descriptor: &EnumDescriptor) -> EnumSpec {
    EnumSpec {
        name: descriptor.full_name().to_owned(),
        // In order of declaration, which `values()` is not: the first is the default.
        values: descriptor
            .enum_descriptor_proto()
            .value
            .iter()
            .map(|value| (value.name().to_owned(), value.number()))
            .collect(),
        is_closed: descriptor.parent_file().syntax() == Syntax::Proto2
            && !lowered.open_enums.contains(descriptor.full_name()),
    }
}
