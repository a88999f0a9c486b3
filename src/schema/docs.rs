//! What people wrote about a schema: comments, `deprecated`, `google.api.field_behavior`. For descriptions of it only;
//! nothing here changes a byte on the wire.

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FileDescriptor, MessageDescriptor,
    ReflectMessage as _, ServiceDescriptor, Value,
};

/// Longest comment that is kept, in bytes.
const COMMENT_MAX: usize = 8 * 1024;

/// `google.api.FieldBehavior`.
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;
const INPUT_ONLY: i32 = 4;

/// What is written about one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doc {
    /// The comment above it, or behind it on its line; lines as written.
    pub comment: Box<str>,
    /// It should not be used any more.
    pub is_deprecated: bool,
    /// A field that requests must have (AIP-203).
    pub is_required: bool,
    /// A field that only replies have.
    pub is_output_only: bool,
    /// A field that only requests have.
    pub is_input_only: bool,
}

/// What is written about a whole schema.
#[derive(Debug, Default)]
pub struct Docs {
    by_name: HashMap<Box<str>, Doc>,
    nothing: Doc,
}

impl Docs {
    /// By full name: `pkg.Message`, `pkg.Message.field`, `pkg.Enum`, `pkg.Enum/VALUE`, `pkg.Service`,
    /// `pkg.Service/Method`.
    pub fn of(&self, name: &str) -> &Doc {
        self.by_name.get(name).unwrap_or(&self.nothing)
    }
}

/// Everything that is written in the pool. The well-known types are left out: their JSON has little to do with their
/// comments.
pub(super) fn docs(pool: &DescriptorPool) -> Docs {
    let mut reader =
        Reader { docs: Docs::default(), behavior: pool.get_extension_by_name("google.api.field_behavior") };
    let files: Vec<FileDescriptor> = pool.files().filter(|file| !file.name().starts_with("google/protobuf/")).collect();
    let comments: HashMap<&str, Comments> = files.iter().map(|file| (file.name(), comments(file))).collect();
    let none = HashMap::new();
    let of = |file: FileDescriptor| comments.get(file.name()).unwrap_or(&none);
    for message in pool.all_messages() {
        reader.message(&message, of(message.parent_file()));
    }
    for descriptor in pool.all_enums() {
        reader.enumeration(&descriptor, of(descriptor.parent_file()));
    }
    for service in pool.services() {
        reader.service(&service, of(service.parent_file()));
    }
    reader.docs
}

/// Comments of one file by the path of what they stand at.
type Comments = HashMap<Vec<i32>, Box<str>>;

fn comments(file: &FileDescriptor) -> Comments {
    let info = file.file_descriptor_proto().source_code_info.iter();
    let locations = info.flat_map(|info| &info.location);
    let written = locations.filter_map(|location| {
        let text = match location.leading_comments() {
            "" => location.trailing_comments(),
            text => text,
        };
        (!text.is_empty()).then(|| (location.path.clone(), clean(text)))
    });
    written.collect()
}

/// Without the space behind each `//`.
fn clean(text: &str) -> Box<str> {
    let end = (0..=text.len().min(COMMENT_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let lines: Vec<&str> = text[..end].lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n").trim().into()
}

struct Reader {
    docs: Docs,
    behavior: Option<ExtensionDescriptor>,
}

impl Reader {
    fn add(&mut self, name: String, path: &[i32], comments: &Comments, options: &DynamicMessage) {
        let behaviors = self.behaviors(options);
        let doc = Doc {
            comment: comments.get(path).cloned().unwrap_or_default(),
            is_deprecated: is_deprecated(options),
            is_required: behaviors.contains(&REQUIRED),
            is_output_only: behaviors.contains(&OUTPUT_ONLY),
            is_input_only: behaviors.contains(&INPUT_ONLY),
        };
        if doc != self.docs.nothing {
            self.docs.by_name.insert(name.into(), doc);
        }
    }

    fn behaviors(&self, options: &DynamicMessage) -> Vec<i32> {
        let Some(extension) = &self.behavior else { return Vec::new() };
        let is_field = extension.containing_message() == options.descriptor();
        if !is_field || !options.has_extension(extension) {
            return Vec::new();
        }
        let value = options.get_extension(extension);
        value.as_list().unwrap_or_default().iter().filter_map(Value::as_enum_number).collect()
    }

    fn message(&mut self, message: &MessageDescriptor, comments: &Comments) {
        if message.is_map_entry() {
            return;
        }
        self.add(message.full_name().to_owned(), message.path(), comments, &message.options());
        for field in message.fields() {
            self.add(field.full_name().to_owned(), field.path(), comments, &field.options());
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor, comments: &Comments) {
        let name = descriptor.full_name();
        self.add(name.to_owned(), descriptor.path(), comments, &descriptor.options());
        for value in descriptor.values() {
            self.add(format!("{name}/{}", value.name()), value.path(), comments, &value.options());
        }
    }

    fn service(&mut self, service: &ServiceDescriptor, comments: &Comments) {
        let name = service.full_name();
        self.add(name.to_owned(), service.path(), comments, &service.options());
        for method in service.methods() {
            self.add(format!("{name}/{}", method.name()), method.path(), comments, &method.options());
        }
    }
}

fn is_deprecated(options: &DynamicMessage) -> bool {
    options.get_field_by_name("deprecated").and_then(|value| value.as_bool()).unwrap_or(false)
}
