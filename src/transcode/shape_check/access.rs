//! The parts of structs, lists, maps and enums that the probe hands out: each field once, one element, one entry, one
//! variant.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::super::error::{Result, TranscodeError};
use super::super::rust_names::{self, CATCH_ALL, Place};
use super::super::table::{Field, MessageId};
use super::expect;
use super::probe::{Node, Prober};
use super::{ChoicePlace, Walk};

/// The fields of a struct.
pub(super) struct Parts<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    /// The message to compare with; `None` where nothing is compared.
    pub(super) message: Option<MessageId>,
    /// Name of the struct.
    pub(super) name: &'static str,
    pub(super) fields: &'static [&'static str],
    pub(super) next: usize,
}

impl<'a> Parts<'_, 'a> {
    /// Notes the fields of a message that the struct does not have.
    pub(super) fn check_missing(walk: &mut Walk<'a>, id: MessageId, name: &str, fields: &[&str]) {
        let table = walk.tables.message(id);
        let is_whole = walk.depth == 0;
        for field in &table.fields {
            let spec = &field.spec;
            let is_given = is_whole && walk.given.contains(&spec.number);
            if spec.oneof.is_some() || spec.name.starts_with('[') || is_given || fields.contains(&spec.name.as_str()) {
                continue;
            }
            let wanted = expect::field_type(walk.tables, field);
            let text = format!("`{name}` lacks a field of `{}`: add `{}: {wanted}`", table.name, spec.name);
            walk.problem(text);
        }
        for oneof in &table.oneofs {
            if !fields.contains(&&**oneof) {
                let text =
                    format!("`{name}` lacks the oneof `{oneof}` of `{}`: add `{oneof}: Option<enum>`", table.name);
                walk.problem(text);
            }
        }
    }

    /// Goes into the next field: what the table says of it.
    fn enter_next(&mut self) -> Option<Node<'a>> {
        let name = self.fields.get(self.next)?;
        self.walk.path.push((*name).to_owned());
        let node = self.node(name);
        self.next += 1;
        Some(node)
    }

    /// What the table says of one field.
    fn node(&mut self, name: &str) -> Node<'a> {
        let Some(id) = self.message else { return Node::Free };
        let table = self.walk.tables.message(id);
        match rust_names::place(table, name, self.next) {
            Some(Place::Field(field)) => {
                let field = table.field(field);
                let Some(oneof) = field.spec.oneof else { return Node::Field(field) };
                let oneof = &table.oneofs[oneof.0 as usize];
                let text = format!("is a member of the oneof `{oneof}`: write one field `{oneof}` with an enum");
                self.walk.problem(text);
                Node::Free
            }
            Some(Place::Oneof(oneof)) => Node::Oneof(id, oneof),
            None => {
                let text = format!("`{}` has a field that `{}` does not have", self.name, table.name);
                self.walk.problem(text);
                Node::Free
            }
        }
    }
}

impl de::SeqAccess<'static> for Parts<'_, '_> {
    type Error = TranscodeError;

    fn next_element_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(node) = self.enter_next() else { return Ok(None) };
        let value = seed.deserialize(Prober { walk: self.walk, node })?;
        self.walk.path.pop();
        Ok(Some(value))
    }
}

/// A list of one element, or of none.
pub(super) struct OneValue<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    pub(super) node: Option<Node<'a>>,
}

impl de::SeqAccess<'static> for OneValue<'_, '_> {
    type Error = TranscodeError;

    fn next_element_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(node) = self.node.take() else { return Ok(None) };
        self.walk.path.push("[]".to_owned());
        let value = seed.deserialize(Prober { walk: self.walk, node })?;
        self.walk.path.pop();
        Ok(Some(value))
    }
}

/// A map of one entry, or of none.
pub(super) struct OneEntry<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    pub(super) parts: Option<(&'a Field, &'a Field)>,
    pub(super) is_read: bool,
}

impl de::MapAccess<'static> for OneEntry<'_, '_> {
    type Error = TranscodeError;

    fn next_key_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some((key, _)) = self.parts.filter(|_| !self.is_read) else { return Ok(None) };
        self.is_read = true;
        self.walk.path.push("[key]".to_owned());
        let value = seed.deserialize(Prober { walk: self.walk, node: Node::Value(key) })?;
        self.walk.path.pop();
        Ok(Some(value))
    }

    fn next_value_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<S::Value> {
        let node = self.parts.map_or(Node::Free, |(_, value)| Node::Value(value));
        self.walk.path.push("[]".to_owned());
        let value = seed.deserialize(Prober { walk: self.walk, node })?;
        self.walk.path.pop();
        Ok(value)
    }
}

/// One variant of an enum.
pub(super) struct Variant<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    pub(super) place: ChoicePlace,
    /// Name of the Rust enum.
    pub(super) name: &'static str,
    pub(super) variants: &'static [&'static str],
    pub(super) index: usize,
}

impl Variant<'_, '_> {
    fn variant(&self) -> &'static str {
        self.variants.get(self.index).copied().unwrap_or_default()
    }

    fn has_wrong_form(&mut self, form: &str) {
        let (name, variant) = (self.name, self.variant());
        let text = match self.place {
            ChoicePlace::Enum(_) if variant == CATCH_ALL => {
                format!("`{name}::{variant}` is {form}: write `Unknown(i32)`")
            }
            ChoicePlace::Enum(_) => format!("`{name}::{variant}` is {form}: an enum's values are unit variants"),
            ChoicePlace::Oneof(..) => {
                format!("`{name}::{variant}` is {form}: a oneof's members are variants with one value")
            }
            ChoicePlace::Anywhere => return,
        };
        self.walk.problem(text);
    }
}

impl de::EnumAccess<'static> for Variant<'_, '_> {
    type Error = TranscodeError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'static>>(self, seed: S) -> Result<(S::Value, Self)> {
        let variant: de::value::U32Deserializer<TranscodeError> = (self.index as u32).into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'a> de::VariantAccess<'static> for Variant<'_, 'a> {
    type Error = TranscodeError;

    fn unit_variant(mut self) -> Result<()> {
        let is_unit = match self.place {
            ChoicePlace::Enum(id) => self.walk.tables.enumeration(id).is_closed || self.variant() != CATCH_ALL,
            ChoicePlace::Oneof(..) => false,
            ChoicePlace::Anywhere => true,
        };
        if !is_unit {
            self.has_wrong_form("a unit");
        }
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'static>>(mut self, seed: S) -> Result<S::Value> {
        let variant = self.variant();
        let node: Node<'a> = match self.place {
            ChoicePlace::Enum(_) if variant == CATCH_ALL => Node::Number,
            ChoicePlace::Oneof(message, oneof) => {
                let table = self.walk.tables.message(message);
                rust_names::member(table, oneof, variant).map_or(Node::Free, Node::Value)
            }
            ChoicePlace::Enum(_) => {
                self.has_wrong_form("a variant with a value");
                Node::Free
            }
            ChoicePlace::Anywhere => Node::Free,
        };
        self.walk.path.push(format!("[{variant}]"));
        let value = seed.deserialize(Prober { walk: self.walk, node })?;
        self.walk.path.pop();
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'static>>(mut self, len: usize, visitor: V) -> Result<V::Value> {
        self.has_wrong_form("a variant with several values");
        let fields = &[""; 16][..len.min(16)];
        visitor.visit_seq(Parts { walk: self.walk, message: None, name: self.name, fields, next: 0 })
    }

    fn struct_variant<V: Visitor<'static>>(mut self, fields: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.has_wrong_form("a variant with named fields");
        visitor.visit_seq(Parts { walk: self.walk, message: None, name: self.name, fields, next: 0 })
    }
}
