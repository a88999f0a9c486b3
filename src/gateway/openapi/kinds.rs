//! ProtoJSON of single values and well-known types as JSON Schema (protobuf.dev, "ProtoJSON format").

use super::json::Json;
use crate::transcode::table::{Kind, Shape};

/// Where a value stands: there a 64-bit integer is text, here a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In JSON.
    Body,
    /// In a path, query or header.
    Text,
}

/// The schema of a scalar; nothing for enums and messages, which have schemas of their own.
pub(super) fn scalar(kind: Kind, place: Place) -> Option<Json> {
    let of = |name: &str| Json::new().with("type", name);
    let formatted = |name: &str, format: &str| of(name).with("format", format);
    let schema = match kind {
        Kind::Double => formatted("number", "double"),
        Kind::Float => formatted("number", "float"),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => formatted("integer", "int32"),
        Kind::Uint32 | Kind::Fixed32 => {
            formatted("integer", "uint32").with("minimum", 0).with("maximum", i64::from(u32::MAX))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => match place {
            Place::Body => formatted("string", "int64").with("pattern", "^-?[0-9]+$"),
            Place::Text => formatted("integer", "int64"),
        },
        Kind::Uint64 | Kind::Fixed64 => match place {
            Place::Body => formatted("string", "uint64").with("pattern", "^[0-9]+$"),
            Place::Text => formatted("integer", "uint64").with("minimum", 0),
        },
        Kind::Bool => of("boolean"),
        Kind::String => of("string"),
        Kind::Bytes => of("string").with("contentEncoding", "base64"),
        Kind::Enum(_) | Kind::Message(_) | Kind::Group(_) => return None,
    };
    Some(schema)
}

/// The keys of a map, where not every text is one.
pub(super) fn map_keys(kind: Kind) -> Option<Json> {
    let pattern = match kind {
        Kind::String => return None,
        Kind::Bool => "^(true|false)$",
        Kind::Uint32 | Kind::Fixed32 | Kind::Uint64 | Kind::Fixed64 => "^[0-9]+$",
        _ => "^-?[0-9]+$",
    };
    Some(Json::new().with("pattern", pattern))
}

/// The schema of a well-known type; nothing for plain messages, and for wrappers, which are what they wrap or null.
pub(super) fn well_known(shape: Shape) -> Option<Json> {
    let described = |name: &str, text: &str| Json::new().with("type", name).with("description", text);
    let schema = match shape {
        Shape::Plain | Shape::Wrapper => return None,
        Shape::Any => described("object", "A message of any type, which `@type` names by its URL.")
            .with("properties", Json::new().with("@type", Json::new().with("type", "string")))
            .with("required", vec!["@type"])
            .with("additionalProperties", true),
        Shape::Timestamp => described("string", "A moment in UTC, RFC 3339 with up to nine fractional digits.")
            .with("format", "date-time"),
        Shape::Duration => described("string", "Seconds with up to nine fractional digits, and `s`.")
            .with("pattern", "^-?[0-9]+(\\.[0-9]{1,9})?s$"),
        Shape::FieldMask => described("string", "Field paths in lower camel case, joined by commas."),
        Shape::Struct => described("object", "Any JSON object.").with("additionalProperties", true),
        Shape::Value => Json::new().with("description", "Any JSON value."),
        Shape::ListValue => described("array", "Any JSON array.").with("items", Json::new()),
        Shape::Empty => described("object", "No members."),
    };
    Some(schema)
}
