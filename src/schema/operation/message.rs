//! The messages that a declaration names fields of: a name becomes a number, or a problem.

use prost_reflect::DynamicMessage;

use super::rule::Rule;
use super::{ScalarAt, Updated};
use crate::transcode::table::{Cardinality, Field, Kind, Shape};
use crate::transcode::{FieldId, FieldPath, MessageId, Tables, text_to_wire};

/// A message that a declaration names fields of.
pub(super) struct Message<'t> {
    pub(super) tables: &'t Tables,
    pub(super) id: MessageId,
    pub(super) role: &'static str,
}

impl<'t> Message<'t> {
    fn path(&self, path: &str) -> Result<FieldPath, String> {
        FieldPath::resolve(self.tables, self.id, path).map_err(|error| {
            let name = &self.tables.message(self.id).name;
            format!("`{path}` of the {} (`{name}`): {error}", self.role)
        })
    }

    /// A top-level field that is no list.
    pub(super) fn one(&self, name: &str) -> Result<&'t Field, String> {
        let path = self.path(name)?;
        let field = path.field(self.tables);
        if path.steps().len() != 1 || field.spec.cardinality != Cardinality::Single {
            return Err(format!("`{name}` of the {} is no single field of its own", self.role));
        }
        Ok(field)
    }

    fn of_kind(&self, name: &str, what: &str, is_it: impl Fn(Kind) -> bool) -> Result<u32, String> {
        let field = self.one(name)?;
        if is_it(field.spec.kind) {
            Ok(field.spec.number)
        } else {
            Err(format!("`{name}` of the {} is no {what}", self.role))
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<u32, String> {
        use Kind::{Int32, Int64, Uint32, Uint64};
        self.of_kind(name, "integer", |kind| matches!(kind, Int32 | Int64 | Uint32 | Uint64))
    }

    pub(super) fn text(&self, name: &str) -> Result<u32, String> {
        self.of_kind(name, "string", |kind| kind == Kind::String)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<u32, String> {
        self.of_kind(name, "bool", |kind| kind == Kind::Bool)
    }

    pub(super) fn time(&self, name: &str) -> Result<Updated, String> {
        let field = self.one(name)?;
        let shape = field.message().map(|message| self.tables.message(message).shape);
        match (field.spec.kind, shape) {
            (_, Some(Shape::Timestamp)) => Ok(Updated::Timestamp(field.spec.number)),
            (Kind::Int64, _) => Ok(Updated::Millis(field.spec.number)),
            _ => Err(format!("`{name}` of the {} is neither a Timestamp nor an int64", self.role)),
        }
    }

    pub(super) fn message(&self, name: &str, message: MessageId, message_name: &str) -> Result<u32, String> {
        let field = self.one(name)?;
        if field.message() == Some(message) {
            Ok(field.spec.number)
        } else {
            Err(format!("`{name}` of the {} is no `{message_name}`", self.role))
        }
    }

    pub(super) fn list_of(&self, name: &str, message: MessageId, message_name: &str) -> Result<u32, String> {
        let path = self.path(name)?;
        let field = path.field(self.tables);
        if path.steps().len() == 1
            && field.spec.cardinality == Cardinality::Repeated
            && field.message() == Some(message)
        {
            Ok(field.spec.number)
        } else {
            Err(format!("`{name}` of the {} is no list of `{message_name}`", self.role))
        }
    }

    /// A text, integer or boolean, also of a message inside, or under a key of a map of texts.
    pub(super) fn scalar(&self, name: &str) -> Result<ScalarAt, String> {
        use Kind::{Bool, Fixed32, Fixed64, Int32, Int64, String, Uint32, Uint64};
        let path = self.path(name)?;
        let field = path.field(self.tables);
        let entry = path.map_key().map(str::to_owned);
        let kinds = if entry.is_some() { self.entry(field) } else { None };
        let [key, value] = kinds.unwrap_or([String, field.spec.kind]);
        let is_scalar = matches!(value, String | Bool | Int32 | Int64 | Uint32 | Uint64 | Fixed32 | Fixed64);
        let is_single = field.spec.cardinality == Cardinality::Single || (entry.is_some() && key == String);
        if !is_scalar || !is_single {
            return Err(format!("`{name}` of the {} is no single string, integer or bool", self.role));
        }
        let steps = path.steps();
        let number = |(message, field): &(MessageId, _)| self.tables.message(*message).field(*field).spec.number;
        let through = steps[..steps.len() - 1].iter().map(number).collect();
        Ok(ScalarAt { through, number: field.spec.number, kind: value, entry, name: path.name(self.tables) })
    }

    /// Names of fields.
    pub(super) fn names(&self, numbers: impl Iterator<Item = u32>) -> Vec<String> {
        let message = self.tables.message(self.id);
        numbers
            .filter_map(|number| Some(message.field(message.field_by_number(number)?).spec.name.to_string()))
            .collect()
    }

    /// The oneof that a field is a member of; the field itself where it is in none.
    pub(super) fn oneof_or_name(&self, name: &str) -> Result<String, String> {
        let path = self.path(name)?;
        let (message, _) = path.steps()[path.steps().len() - 1];
        let oneof = path.field(self.tables).spec.oneof;
        Ok(oneof.map_or_else(|| name.to_owned(), |id| self.tables.message(message).oneof_name(id).to_owned()))
    }

    /// The fields that another message has as well, by name and type: numbers here and there.
    pub(super) fn same_names(&self, other: &Message<'_>) -> Result<Vec<(u32, u32)>, String> {
        let (here, there) = (self.tables.message(self.id), self.tables.message(other.id));
        let pair = |field: &Field| {
            let same = there.field(there.field_by_name(field.spec.name.as_bytes())?);
            let is_same = match (field.spec.cardinality, same.spec.cardinality) {
                // Each map has a message of its own for its entries.
                (Cardinality::Map, Cardinality::Map) => self.entry(field) == self.entry(same),
                (one, other) => one == other && field.spec.kind == same.spec.kind,
            };
            is_same.then_some((field.spec.number, same.spec.number))
        };
        let pairs: Vec<(u32, u32)> = here.fields.iter().filter_map(pair).collect();
        if pairs.is_empty() {
            return Err(format!(
                "the {} (`{}`) has no field of the {} (`{}`): name one with {}",
                self.role,
                here.name,
                other.role,
                there.name,
                if self.role == "request" { "`from`" } else { "`into`" }
            ));
        }
        Ok(pairs)
    }

    /// The kinds of a map's keys and values.
    fn entry(&self, map: &Field) -> Option<[Kind; 2]> {
        let entry = self.tables.message(map.message()?);
        Some([FieldId(0), FieldId(1)].map(|id| entry.field(id).spec.kind))
    }

    /// Fields with constant values, encoded.
    pub(super) fn presets(&self, presets: &[DynamicMessage]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for preset in presets {
            let (name, value) = (Rule(preset).text("field"), Rule(preset).text("value"));
            text_to_wire(self.tables, &self.path(&name)?, &value, &mut out)
                .map_err(|problem| format!("`{name}` of the {}: {problem}", self.role))?;
        }
        Ok(out)
    }
}
