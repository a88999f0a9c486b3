//! Editions → proto2 descriptors, which is what the pool knows, and a note of what proto2 cannot say.
//!
//! Features are inherited from file to message to field and enum (protobuf.dev, "Feature settings for editions").
//! Options stay as they are, so that `google.api.http` and our own survive.

use std::collections::{HashMap, HashSet};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use crate::transcode::table::WireType;
use crate::transcode::wire::{WireReader, each_message};

/// `Edition` numbers of 2023 and 2024, which are those whose defaults we know.
const EDITIONS: [u64; 2] = [1000, 1001];
/// `FieldDescriptorProto.Label` and `.Type` values.
const LABEL_REQUIRED: i32 = 2;
const LABEL_REPEATED: i32 = 3;
const TYPE_STRING: i32 = 9;
const TYPE_GROUP: i32 = 10;
const TYPE_MESSAGE: i32 = 11;
const TYPE_BYTES: i32 = 12;

/// What proto2 cannot say about the fields and enums of lowered files, by full name.
#[derive(Debug, Default)]
pub(super) struct Lowered {
    pub fields: HashMap<String, LoweredField>,
    pub open_enums: HashSet<String>,
}

/// How a lowered field differs from proto2.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoweredField {
    pub is_implicit: bool,
    pub checks_utf8: bool,
}

/// `google.protobuf.FeatureSet`, as far as it changes the wire.
#[derive(Clone, Copy, Debug)]
struct Features {
    /// 1 explicit, 2 implicit, 3 legacy required.
    field_presence: u64,
    /// 1 open, 2 closed.
    enum_type: u64,
    /// 1 packed, 2 expanded.
    repeated_field_encoding: u64,
    /// 2 verify, 3 none.
    utf8_validation: u64,
    /// 1 length-prefixed, 2 delimited.
    message_encoding: u64,
}

/// What editions 2023 and 2024 start from.
const EDITION_DEFAULTS: Features =
    Features { field_presence: 1, enum_type: 1, repeated_field_encoding: 1, utf8_validation: 2, message_encoding: 1 };

/// Numbers of `features` in FileOptions, MessageOptions, FieldOptions and EnumOptions.
const FILE: u32 = 50;
const MESSAGE: u32 = 12;
const FIELD: u32 = 21;
const ENUM: u32 = 7;

impl Features {
    /// These features with what the options of a descriptor override; `number` is that of `features` there.
    fn with(mut self, descriptor: &DynamicMessage, number: u32) -> Features {
        let options = options(descriptor);
        // Damaged features cannot come through the decoder that made `descriptor`.
        let _ = each_message(&options, number, |features| {
            let mut reader = WireReader::new(features);
            while let Some(record) = reader.record()? {
                if record.wire_type != WireType::Varint {
                    continue;
                }
                let value = WireReader::part(features, record.from, record.to).varint()?;
                match record.number {
                    1 => self.field_presence = value,
                    2 => self.enum_type = value,
                    3 => self.repeated_field_encoding = value,
                    4 => self.utf8_validation = value,
                    5 => self.message_encoding = value,
                    _ => {}
                }
            }
            Ok(())
        });
        self
    }
}

/// A file of an edition as proto2 bytes. Fails with a text where the edition is one that we do not know.
pub(super) fn lower(bytes: &[u8], lowered: &mut Lowered) -> Result<Vec<u8>, String> {
    let edition = edition(bytes);
    if !EDITIONS.contains(&edition) {
        return Err(format!("its edition has number {edition}; editions 2023 and 2024 are known"));
    }
    let descriptor = DescriptorPool::global()
        .get_message_by_name("google.protobuf.FileDescriptorProto")
        .ok_or("descriptor.proto is not built in")?;
    let mut file = DynamicMessage::decode(descriptor, bytes).map_err(|error| error.to_string())?;
    let features = EDITION_DEFAULTS.with(&file, FILE);
    let scope = text(&file, "package");
    each(&mut file, "message_type", |message| lower_message(message, &scope, features, lowered));
    each(&mut file, "enum_type", |descriptor| note_enum(descriptor, &scope, features, lowered));
    each(&mut file, "extension", |field| lower_field(field, &scope, features, &HashSet::new(), lowered));
    file.set_field_by_name("syntax", Value::String("proto2".to_owned()));
    Ok(file.encode_to_vec())
}

/// `FileDescriptorProto.edition`, number 14; 0 without one.
fn edition(bytes: &[u8]) -> u64 {
    let mut reader = WireReader::new(bytes);
    let mut edition = 0;
    while let Ok(Some(record)) = reader.record() {
        if record.number == 14 && record.wire_type == WireType::Varint {
            edition = WireReader::part(bytes, record.from, record.to).varint().unwrap_or(0);
        }
    }
    edition
}

fn lower_message(message: &mut DynamicMessage, scope: &str, features: Features, lowered: &mut Lowered) {
    let features = features.with(message, MESSAGE);
    let name = below(scope, &text(message, "name"));
    let mut entries = HashSet::new();
    each(message, "nested_type", |nested| {
        let is_entry = sub_message(nested, "options").is_some_and(|options| is_true(&options, "map_entry"));
        if is_entry {
            entries.insert(format!(".{}", below(&name, &text(nested, "name"))));
        }
        // The members of a map entry are never delimited nor required.
        let entry = Features { field_presence: 1, message_encoding: 1, ..features };
        lower_message(nested, &name, if is_entry { entry } else { features }, lowered);
    });
    each(message, "field", |field| lower_field(field, &name, features, &entries, lowered));
    each(message, "extension", |field| lower_field(field, &name, features, &entries, lowered));
    each(message, "enum_type", |descriptor| note_enum(descriptor, &name, features, lowered));
}

fn lower_field(
    field: &mut DynamicMessage,
    scope: &str,
    features: Features,
    entries: &HashSet<String>,
    lowered: &mut Lowered,
) {
    let features = features.with(field, FIELD);
    let (label, kind) = (number(field, "label"), number(field, "type"));
    let is_message = matches!(kind, TYPE_MESSAGE | TYPE_GROUP);
    let is_lone = !field.has_field_by_name("oneof_index") && !field.has_field_by_name("extendee");
    if label == LABEL_REPEATED {
        if !is_message && !matches!(kind, TYPE_STRING | TYPE_BYTES) {
            let packed = Value::Bool(features.repeated_field_encoding == 1);
            if let Some(options) = field.get_field_by_name_mut("options").and_then(Value::as_message_mut) {
                options.set_field_by_name("packed", packed);
            }
        }
    } else if features.field_presence == 3 && is_lone {
        field.set_field_by_name("label", Value::EnumNumber(LABEL_REQUIRED));
    }
    if features.message_encoding == 2 && kind == TYPE_MESSAGE && !entries.contains(&text(field, "type_name")) {
        field.set_field_by_name("type", Value::EnumNumber(TYPE_GROUP));
    }
    let is_implicit = label != LABEL_REPEATED && features.field_presence == 2 && is_lone && !is_message;
    let note = LoweredField { is_implicit, checks_utf8: features.utf8_validation != 3 };
    lowered.fields.insert(below(scope, &text(field, "name")), note);
}

fn note_enum(descriptor: &DynamicMessage, scope: &str, features: Features, lowered: &mut Lowered) {
    if features.with(descriptor, ENUM).enum_type != 2 {
        lowered.open_enums.insert(below(scope, &text(descriptor, "name")));
    }
}

fn below(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// Visits the messages of a repeated field.
fn each(message: &mut DynamicMessage, field: &str, mut visit: impl FnMut(&mut DynamicMessage)) {
    let list = message.get_field_by_name_mut(field).and_then(Value::as_list_mut);
    for item in list.into_iter().flatten().filter_map(Value::as_message_mut) {
        visit(item);
    }
}

fn sub_message(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    message.get_field_by_name(field)?.as_message().cloned()
}

/// The options of a descriptor as bytes, features known to the pool or not.
fn options(descriptor: &DynamicMessage) -> Vec<u8> {
    sub_message(descriptor, "options").map(|options| options.encode_to_vec()).unwrap_or_default()
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn number(message: &DynamicMessage, field: &str) -> i32 {
    message.get_field_by_name(field).and_then(|value| value.as_enum_number()).unwrap_or(0)
}

fn is_true(message: &DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).and_then(|value| value.as_bool()).unwrap_or(false)
}
