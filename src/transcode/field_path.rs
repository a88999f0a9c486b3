//! A dotted path of fields, resolved against the tables: what path variables, query parameters, presets and header
//! bindings name.

use std::fmt;

use super::table::{Cardinality, Field, FieldId, Kind, MessageId, Shape, Tables};

/// Most segments of a path.
pub(crate) const SEGMENTS_MAX: usize = 16;

/// A chain of fields from a message down: singular messages on the way, any field at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    /// The fields on the way, each with the message that it belongs to; never empty.
    steps: Vec<(MessageId, FieldId)>,
    /// The key behind the last field, where that is a map: `labels[env]`.
    map_key: Option<Box<str>>,
}

/// Why a path names no field.
#[derive(Debug, PartialEq, Eq)]
pub enum FieldPathError {
    /// No segment, an empty one, or a bracket without its partner.
    Malformed,
    /// More than [`SEGMENTS_MAX`] segments.
    TooLong,
    /// The message has no such field.
    Unknown {
        /// Full name of the message.
        message: String,
        /// The segment.
        field: String,
    },
    /// A segment before the last is no singular message, or a well-known type with a JSON form of its own.
    NotAMessage {
        /// The segment.
        field: String,
    },
    /// Brackets behind a field that is no map.
    NotAMap {
        /// The segment.
        field: String,
    },
}

impl fmt::Display for FieldPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldPathError::Malformed => write!(f, "expected field names joined by dots"),
            FieldPathError::TooLong => write!(f, "more than {SEGMENTS_MAX} segments"),
            FieldPathError::Unknown { message, field } => write!(f, "`{message}` has no field `{field}`"),
            FieldPathError::NotAMessage { field } => {
                write!(f, "`{field}` has no fields of its own: only single message fields have a dot behind them")
            }
            FieldPathError::NotAMap { field } => write!(f, "`{field}` is no map"),
        }
    }
}

impl std::error::Error for FieldPathError {}

impl FieldPath {
    /// Resolves `a.b.c` or, for a map at the end, `a.m[key]`; proto names and JSON names both.
    pub fn resolve(tables: &Tables, message: MessageId, text: &str) -> Result<FieldPath, FieldPathError> {
        let (fields, map_key) = match text.split_once('[') {
            Some((fields, rest)) => (fields, Some(rest.strip_suffix(']').ok_or(FieldPathError::Malformed)?)),
            None => (text, None),
        };
        let mut steps = Vec::new();
        let mut inside = Some(message);
        let mut segments = fields.split('.').peekable();
        while let Some(segment) = segments.next() {
            let Some(here) = inside.filter(|_| !segment.is_empty()) else { return Err(FieldPathError::Malformed) };
            if steps.len() == SEGMENTS_MAX {
                return Err(FieldPathError::TooLong);
            }
            let table = tables.message(here);
            let id = table.field_by_name(segment.as_bytes()).ok_or_else(|| FieldPathError::Unknown {
                message: table.name.to_string(),
                field: segment.to_owned(),
            })?;
            steps.push((here, id));
            let field = table.field(id);
            inside = below(tables, field);
            if inside.is_none() && segments.peek().is_some() {
                return Err(FieldPathError::NotAMessage { field: segment.to_owned() });
            }
        }
        let path = FieldPath { steps, map_key: map_key.map(Into::into) };
        let is_map = path.field(tables).spec.cardinality == Cardinality::Map;
        if path.map_key.is_some() && !is_map {
            return Err(FieldPathError::NotAMap { field: path.field(tables).spec.name.clone() });
        }
        Ok(path)
    }

    /// The path of one field of a message.
    pub fn of(message: MessageId, field: FieldId) -> FieldPath {
        FieldPath { steps: vec![(message, field)], map_key: None }
    }

    /// The fields on the way, each with the message that it belongs to.
    pub fn steps(&self) -> &[(MessageId, FieldId)] {
        &self.steps
    }

    /// The key behind a map at the end.
    pub fn map_key(&self) -> Option<&str> {
        self.map_key.as_deref()
    }

    /// The field at the end.
    pub fn field<'t>(&self, tables: &'t Tables) -> &'t Field {
        let (message, field) = self.steps[self.steps.len() - 1];
        tables.message(message).field(field)
    }

    /// The dotted path in proto names, as error texts and field masks write it.
    pub fn name(&self, tables: &Tables) -> String {
        let names: Vec<&str> =
            self.steps.iter().map(|(message, field)| &*tables.message(*message).field(*field).spec.name).collect();
        match &self.map_key {
            Some(key) => format!("{}[{key}]", names.join(".")),
            None => names.join("."),
        }
    }
}

/// The message behind a dot, where a field may have one.
fn below(tables: &Tables, field: &Field) -> Option<MessageId> {
    let (Kind::Message(id) | Kind::Group(id)) = field.spec.kind else { return None };
    let is_plain = matches!(tables.message(id).shape, Shape::Plain | Shape::Empty);
    (field.spec.cardinality == Cardinality::Single && is_plain).then_some(id)
}
