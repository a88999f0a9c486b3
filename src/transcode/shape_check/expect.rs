//! Which Rust types fit a field, in words and as what serde asks for.

use super::super::table::{Cardinality, Field, FieldId, Kind, MessageId, Presence, Shape, Tables};

/// What a struct's type asks serde for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A scalar, by the name of its Rust type; texts are `String`, bytes `Bytes`.
    Scalar(&'static str),
    List,
    Map,
    Struct(&'static str),
    Enum(&'static str),
    Unit,
    /// Whatever there is: `Value`, but `flatten` and `untagged`, too.
    Any,
}

impl Asked {
    /// In words, behind "found".
    pub(super) fn words(self) -> String {
        match self {
            Asked::Scalar(name) => format!("`{name}`"),
            Asked::List => "a list".to_owned(),
            Asked::Map => "a map (`flatten` is not supported)".to_owned(),
            Asked::Struct(name) => format!("the struct `{name}`"),
            Asked::Enum(name) => format!("the enum `{name}`"),
            Asked::Unit => "a unit".to_owned(),
            Asked::Any => "a type that takes anything (`flatten` and `untagged` are not supported)".to_owned(),
        }
    }
}

/// The Rust type of one value of a kind that is a scalar.
pub(super) fn scalar_type(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Double => "f64",
        Kind::Float => "f32",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "i32",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "i64",
        Kind::Uint32 | Kind::Fixed32 => "u32",
        Kind::Uint64 | Kind::Fixed64 => "u64",
        Kind::Bool => "bool",
        Kind::String => "String",
        Kind::Bytes => "Bytes",
        Kind::Enum(_) | Kind::Message(_) | Kind::Group(_) => return None,
    })
}

/// True where a type that asks for this takes one value of the field.
pub(super) fn takes_value(tables: &Tables, field: &Field, asked: Asked) -> bool {
    match field.spec.kind {
        Kind::Enum(_) => matches!(asked, Asked::Enum(_)),
        Kind::Message(id) | Kind::Group(id) => takes_message(tables, id, asked),
        Kind::Bytes => matches!(asked, Asked::Scalar("Bytes") | Asked::List),
        kind => scalar_type(kind).map(Asked::Scalar) == Some(asked),
    }
}

/// True where a type that asks for this takes the message.
pub(super) fn takes_message(tables: &Tables, id: MessageId, asked: Asked) -> bool {
    let table = tables.message(id);
    match (table.shape, asked) {
        (Shape::Wrapper, Asked::Scalar(_) | Asked::List) if !table.fields.is_empty() => {
            takes_value(tables, table.field(FieldId(0)), asked)
        }
        (Shape::Struct, Asked::Map | Asked::Any)
        | (Shape::ListValue, Asked::List | Asked::Any)
        | (Shape::Value, Asked::Any)
        | (Shape::Empty, Asked::Unit) => true,
        (Shape::Struct | Shape::ListValue | Shape::Value, _) => false,
        (_, asked) => matches!(asked, Asked::Struct(_)),
    }
}

/// The Rust type that fits a field, as one would write it.
pub(super) fn field_type(tables: &Tables, field: &Field) -> String {
    match field.spec.cardinality {
        Cardinality::Repeated => format!("Vec<{}>", value_type(tables, field)),
        Cardinality::Map => {
            let Some(entry) = field.message().map(|id| tables.message(id)) else { return "BTreeMap<_, _>".to_owned() };
            let part = |index| value_type(tables, entry.field(FieldId(index)));
            format!("BTreeMap<{}, {}>", part(0), part(1))
        }
        Cardinality::Single => match field.spec.presence {
            Presence::Explicit => format!("Option<{}>", value_type(tables, field)),
            Presence::Implicit | Presence::Required => value_type(tables, field),
        },
    }
}

/// The Rust type that fits one value of a field.
pub(super) fn value_type(tables: &Tables, field: &Field) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    match field.spec.kind {
        Kind::Enum(id) => last(&tables.enumeration(id).name),
        Kind::Message(id) | Kind::Group(id) => {
            let table = tables.message(id);
            match table.shape {
                Shape::Wrapper if !table.fields.is_empty() => value_type(tables, table.field(FieldId(0))),
                Shape::ListValue => "Vec<Value>".to_owned(),
                _ => last(&table.name),
            }
        }
        kind => scalar_type(kind).unwrap_or("_").to_owned(),
    }
}

/// True where a single field has to be an `Option`: what is absent cannot be told from the default otherwise.
pub(super) fn needs_option(tables: &Tables, field: &Field) -> bool {
    field.spec.cardinality == Cardinality::Single
        && field.spec.presence == Presence::Explicit
        && match field.message() {
            Some(id) => tables.message(id).shape == Shape::Wrapper,
            None => true,
        }
}
