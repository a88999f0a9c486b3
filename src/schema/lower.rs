//! Editions → proto2 or proto3 descriptors, which is what the pool knows.
//!
//! Features are inherited from file to message to field. A file whose resolved features are those of proto3 becomes
//! proto3, every other one proto2; what differs for a single field is written out on it.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, OneofDescriptorProto};

use crate::transcode::wire::WireReader;

/// `google.protobuf.FeatureSet`, as far as it changes the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Features {
    /// 1 explicit, 2 implicit, 3 legacy required.
    field_presence: u64,
    /// 1 open, 2 closed.
    enum_type: u64,
    /// 1 packed, 2 expanded.
    repeated_field_encoding: u64,
    /// 1 length-prefixed, 2 delimited.
    message_encoding: u64,
}

/// What editions 2023 and 2024 start from.
const EDITION_DEFAULTS: Features =
    Features { field_presence: 1, enum_type: 1, repeated_field_encoding: 1, message_encoding: 1 };

/// Number of `features` in FileOptions, MessageOptions, FieldOptions and EnumOptions.
const FEATURES: [(Scope, u32); 4] = [(Scope::File, 50), (Scope::Message, 12), (Scope::Field, 21), (Scope::Enum, 7)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    File,
    Message,
    Field,
    Enum,
}

impl Features {
    /// These features with what an options message overrides.
    fn with(mut self, scope: Scope, options: &[u8]) -> Features {
        let number = FEATURES.iter().find(|row| row.0 == scope).map_or(0, |row| row.1);
        for set in values(options, number) {
            let mut reader = WireReader::new(set);
            while let Ok(Some(record)) = reader.record() {
                let value = WireReader::part(set, record.from, record.to).varint().unwrap_or(0);
                match record.number {
                    1 => self.field_presence = value,
                    2 => self.enum_type = value,
                    3 => self.repeated_field_encoding = value,
                    5 => self.message_encoding = value,
                    _ => {}
                }
            }
        }
        self
    }
}

/// The contents of a length-delimited field, in order.
fn values(bytes: &[u8], number: u32) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let _ = crate::transcode::wire::each_message(bytes, number, |value| {
        found.push(value);
        Ok(())
    });
    found
}

fn options(bytes: &[u8], number: u32) -> Vec<u8> {
    values(bytes, number).concat()
}

/// A file of an edition as proto2 or proto3 bytes.
pub(super) fn lower(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut file = FileDescriptorProto::decode(bytes).map_err(|error| error.to_string())?;
    let features = EDITION_DEFAULTS.with(Scope::File, &options(bytes, 8));
    let raw_enums = values(bytes, 5);
    let is_closed = |raw: &[u8]| features.with(Scope::Enum, &options(raw, 3)).enum_type == 2;
    let has_closed = raw_enums.iter().any(|raw| is_closed(raw));
    // A closed enum exists only in proto2; everything else can be said in proto3 with `optional`, `[packed]`, groups
    // excepted, which proto2 alone has.
    let needs_proto2 = has_closed || features.field_presence == 3 || uses_proto2_only(bytes, features, 4);
    for (message, raw) in file.message_type.iter_mut().zip(values(bytes, 4)) {
        lower_message(message, raw, features, needs_proto2);
    }
    for (extension, raw) in file.extension.iter_mut().zip(values(bytes, 7)) {
        lower_field(extension, raw, features, needs_proto2);
    }
    file.syntax = Some(if needs_proto2 { "proto2" } else { "proto3" }.to_owned());
    Ok(file.encode_to_vec())
}

/// True where a message below needs what only proto2 has: required fields, delimited messages, closed enums, groups.
fn uses_proto2_only(bytes: &[u8], features: Features, messages: u32) -> bool {
    values(bytes, messages).into_iter().any(|raw| {
        let own = features.with(Scope::Message, &options(raw, 7));
        let fields = values(raw, 2).into_iter().any(|field| {
            let features = own.with(Scope::Field, &options(field, 8));
            features.field_presence == 3 || features.message_encoding == 2
        });
        let enums = values(raw, 4).into_iter().any(|raw| own.with(Scope::Enum, &options(raw, 3)).enum_type == 2);
        fields || enums || uses_proto2_only(raw, own, 3)
    })
}

fn lower_message(message: &mut DescriptorProto, raw: &[u8], features: Features, is_proto2: bool) {
    let features = features.with(Scope::Message, &options(raw, 7));
    let is_map_entry = message.options.as_ref().is_some_and(|options| options.map_entry());
    for (field, raw) in message.field.iter_mut().zip(values(raw, 2)) {
        if !is_map_entry {
            lower_field(field, raw, features, is_proto2);
        }
    }
    for (extension, raw) in message.extension.iter_mut().zip(values(raw, 6)) {
        lower_field(extension, raw, features, is_proto2);
    }
    if !is_proto2 {
        add_synthetic_oneofs(message);
    }
    for (nested, raw) in message.nested_type.iter_mut().zip(values(raw, 3)) {
        lower_message(nested, raw, features, is_proto2);
    }
}

fn lower_field(field: &mut FieldDescriptorProto, raw: &[u8], features: Features, is_proto2: bool) {
    let features = features.with(Scope::Field, &options(raw, 8));
    if field.label() == Label::Repeated {
        let is_packable = !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message | Type::Group);
        if is_packable {
            field.options.get_or_insert_default().packed = Some(features.repeated_field_encoding == 1);
        }
    } else if features.field_presence == 3 {
        field.label = Some(Label::Required as i32);
    } else if !is_proto2
        && features.field_presence == 1
        && field.oneof_index.is_none()
        && field.r#type() != Type::Message
    {
        field.proto3_optional = Some(true);
    }
    if features.message_encoding == 2 && field.r#type() == Type::Message {
        field.r#type = Some(Type::Group as i32);
    }
}

/// proto3's `optional` is a oneof of one member.
fn add_synthetic_oneofs(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.proto3_optional() {
            field.oneof_index = Some(message.oneof_decl.len() as i32);
            let name = Some(format!("_{}", field.name()));
            message.oneof_decl.push(OneofDescriptorProto { name, ..OneofDescriptorProto::default() });
        }
    }
}
