//! What people wrote about a schema: comments, `deprecated`, `google.api.field_behavior`. For descriptions of it only;
//! nothing here changes a byte on the wire.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, ReflectMessage as _, Value};

use super::elements::{Element, Elements};

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
    /// By full name: `pkg.Message`, `pkg.Message.field`, `pkg.Enum`, `pkg.Enum.VALUE`, `pkg.Service`,
    /// `pkg.Service/Method`.
    pub fn of(&self, name: &str) -> &Doc {
        self.by_name.get(name).unwrap_or(&self.nothing)
    }
}

/// Everything that is written in the pool. The well-known types are left out: their JSON has little to do with their
/// comments.
pub(super) fn docs(pool: &DescriptorPool, elements: &Elements) -> Docs {
    let mut reader =
        Reader { docs: Docs::default(), behavior: pool.get_extension_by_name("google.api.field_behavior") };
    elements.each(pool, |element| {
        if !element.name.starts_with("google.protobuf.") {
            reader.add(element);
        }
    });
    reader.docs
}

struct Reader {
    docs: Docs,
    behavior: Option<ExtensionDescriptor>,
}

impl Reader {
    fn add(&mut self, element: Element) {
        let behaviors = self.behaviors(&element.options);
        let doc = Doc {
            comment: element.comment,
            is_deprecated: is_deprecated(&element.options),
            is_required: behaviors.contains(&REQUIRED),
            is_output_only: behaviors.contains(&OUTPUT_ONLY),
            is_input_only: behaviors.contains(&INPUT_ONLY),
        };
        if doc != self.docs.nothing {
            self.docs.by_name.insert(element.name.into(), doc);
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
}

fn is_deprecated(options: &DynamicMessage) -> bool {
    options.get_field_by_name("deprecated").and_then(|value| value.as_bool()).unwrap_or(false)
}
