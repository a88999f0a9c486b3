//! The probing `Deserializer`: compares what serde asks for with the table, and answers with defaults so that the walk
//! goes on.

use std::any::type_name;

use serde::de::{self, Visitor};
use serde::forward_to_deserialize_any;

use super::super::error::{Result, TranscodeError};
use super::super::rust_names::{self, CATCH_ALL};
use super::super::scan::{DEPTH_MAX, too_deep};
use super::super::table::{Cardinality, EnumId, Field, FieldId, Kind, MessageId, OneofId, Presence, Shape};
use super::access::{OneEntry, OneValue, Parts, Variant};
use super::expect::{self, Asked};
use super::{ChoicePlace, Walk};

/// What stands at the place that is walked.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    /// A whole message.
    Message(MessageId),
    /// A field: one value, a list or a map.
    Field(&'a Field),
    /// One value of a field.
    Value(&'a Field),
    /// A oneof.
    Oneof(MessageId, OneofId),
    /// An enum's number without a name.
    Number,
    /// One octet of a bytes field.
    Octet,
    /// Nothing that could be compared: whatever is asked for fits.
    Free,
}

/// A node with its walk.
pub(super) struct Prober<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    pub(super) node: Node<'a>,
}

impl<'a> Prober<'_, 'a> {
    /// Notes a problem unless the type fits; below what does not fit nothing is compared.
    fn compare(&mut self, asked: Asked) {
        let tables = self.walk.tables;
        let (fits, wanted) = match self.node {
            Node::Free => (true, String::new()),
            Node::Octet => (asked == Asked::Scalar("u8"), "u8".to_owned()),
            Node::Number => (asked == Asked::Scalar("i32"), "i32".to_owned()),
            Node::Message(id) => (expect::takes_message(tables, id, asked), tables.message(id).name.to_string()),
            Node::Value(field) => (expect::takes_value(tables, field, asked), expect::value_type(tables, field)),
            Node::Field(field) => match field.spec.cardinality {
                Cardinality::Repeated => (asked == Asked::List, expect::field_type(tables, field)),
                Cardinality::Map => (asked == Asked::Map, expect::field_type(tables, field)),
                Cardinality::Single => {
                    let fits = expect::takes_value(tables, field, asked) && !expect::needs_option(tables, field);
                    (fits, expect::field_type(tables, field))
                }
            },
            Node::Oneof(id, oneof) => {
                let name = &tables.message(id).oneofs[oneof.0 as usize];
                (matches!(asked, Asked::Enum(_)), format!("Option<enum>` with a newtype variant a member of `{name}"))
            }
        };
        if !fits {
            self.walk.problem(format!("expected `{wanted}`, found {}", asked.words()));
            self.node = Node::Free;
        }
    }

    /// The message at this place.
    fn message(&self) -> Option<MessageId> {
        match self.node {
            Node::Message(id) => Some(id),
            Node::Field(field) | Node::Value(field) => field.message(),
            _ => None,
        }
    }

    /// What a list at this place holds: the elements of the field, of the `ListValue`, or octets.
    fn elements(&self) -> Node<'a> {
        match self.node {
            Node::Field(field) if field.spec.cardinality == Cardinality::Repeated => Node::Value(field),
            Node::Field(field) | Node::Value(field) if field.spec.kind == Kind::Bytes => Node::Octet,
            _ => match self.inner_field() {
                Some(field) if field.spec.kind == Kind::Bytes => Node::Octet,
                Some(field) => Node::Value(field),
                None => Node::Free,
            },
        }
    }

    /// Field 1 of the wrapper, `Struct` or `ListValue` at this place.
    fn inner_field(&self) -> Option<&'a Field> {
        let table = self.walk.tables.message(self.message()?);
        let is_inner = matches!(table.shape, Shape::Wrapper | Shape::Struct | Shape::ListValue);
        table.fields.first().filter(|_| is_inner)
    }

    /// Compares a struct and goes one level deeper; the message whose fields are to be compared, if it is met for the
    /// first time.
    fn enter_struct(
        &mut self,
        name: &'static str,
        fields: &[&str],
        visitor: &'static str,
    ) -> Result<Option<MessageId>> {
        self.compare(Asked::Struct(name));
        if self.walk.depth >= DEPTH_MAX {
            return Err(too_deep(0, DEPTH_MAX));
        }
        let message = self.message().filter(|id| self.walk.seen.insert((*id, visitor)));
        if let Some(id) = message {
            Parts::check_missing(self.walk, id, name, fields);
        }
        self.walk.depth += 1;
        Ok(message)
    }

    /// Compares an enum and goes one level deeper; its place, and the variant to try.
    fn enter_enum(
        &mut self,
        name: &'static str,
        variants: &[&str],
        visitor: &'static str,
    ) -> Result<(ChoicePlace, usize)> {
        self.compare(Asked::Enum(name));
        if self.walk.depth >= DEPTH_MAX {
            return Err(too_deep(0, DEPTH_MAX));
        }
        let place = match self.node {
            Node::Field(field) | Node::Value(field) => match field.spec.kind {
                Kind::Enum(id) => ChoicePlace::Enum(id),
                _ => ChoicePlace::Anywhere,
            },
            Node::Oneof(message, oneof) => ChoicePlace::Oneof(message, oneof),
            _ => ChoicePlace::Anywhere,
        };
        let (index, is_new) = self.walk.choose(place, visitor, variants.len());
        match place {
            ChoicePlace::Enum(id) if is_new => self.check_values(id, name, variants),
            ChoicePlace::Oneof(message, oneof) if is_new => self.check_members(message, oneof, name, variants),
            _ => {}
        }
        self.walk.depth += 1;
        Ok((place, index))
    }

    /// Notes what is wrong with an enum's variants, once.
    fn check_values(&mut self, id: EnumId, name: &str, variants: &[&str]) {
        let table = self.walk.tables.enumeration(id);
        for (value, _) in table.values() {
            if !variants.iter().any(|variant| rust_names::is_value(table, variant, value)) {
                self.walk.problem(format!("the enum `{name}` has no variant for `{value}` of `{}`", table.name));
            }
        }
        for variant in variants {
            let is_value = table.values().any(|(value, _)| rust_names::is_value(table, variant, value));
            if !is_value && *variant != CATCH_ALL {
                self.walk.problem(format!("`{name}::{variant}` is no value of `{}`", table.name));
            }
        }
        if !table.is_closed && !variants.contains(&CATCH_ALL) {
            let text = format!("the enum `{name}` needs a variant `Unknown(i32)` for numbers that have no name yet");
            self.walk.problem(text);
        }
    }

    /// Notes what is wrong with a oneof's variants, once.
    fn check_members(&mut self, message: MessageId, oneof: OneofId, name: &str, variants: &[&str]) {
        let table = self.walk.tables.message(message);
        for field in rust_names::members(table, oneof) {
            let member = &field.spec.name;
            if !variants.iter().any(|variant| rust_names::same_words(variant, member)) {
                self.walk.problem(format!("the enum `{name}` has no variant for the member `{member}`"));
            }
        }
        for variant in variants {
            if rust_names::member(table, oneof, variant).is_none() {
                let oneof = &table.oneofs[oneof.0 as usize];
                self.walk.problem(format!("`{name}::{variant}` is no member of `{oneof}`"));
            }
        }
    }
}

macro_rules! scalars {
    ($($method:ident $asked:literal $visit:ident $zero:expr;)*) => {
        $(fn $method<V: Visitor<'static>>(mut self, visitor: V) -> Result<V::Value> {
            self.compare(Asked::Scalar($asked));
            visitor.$visit($zero)
        })*
    };
}

impl<'m, 'a> de::Deserializer<'static> for Prober<'m, 'a> {
    type Error = TranscodeError;

    scalars! {
        deserialize_bool "bool" visit_bool false;
        deserialize_i8 "i8" visit_i8 0;
        deserialize_i16 "i16" visit_i16 0;
        deserialize_i32 "i32" visit_i32 0;
        deserialize_i64 "i64" visit_i64 0;
        deserialize_i128 "i128" visit_i128 0;
        deserialize_u8 "u8" visit_u8 0;
        deserialize_u16 "u16" visit_u16 0;
        deserialize_u32 "u32" visit_u32 0;
        deserialize_u64 "u64" visit_u64 0;
        deserialize_u128 "u128" visit_u128 0;
        deserialize_f32 "f32" visit_f32 0.0;
        deserialize_f64 "f64" visit_f64 0.0;
        deserialize_char "char" visit_char '0';
        deserialize_str "String" visit_str "";
        deserialize_string "String" visit_str "";
        deserialize_bytes "Bytes" visit_bytes &[];
        deserialize_byte_buf "Bytes" visit_bytes &[];
    }

    fn deserialize_any<V: Visitor<'static>>(mut self, visitor: V) -> Result<V::Value> {
        self.compare(Asked::Any);
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'static>>(mut self, visitor: V) -> Result<V::Value> {
        self.compare(Asked::Unit);
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        let node = match self.node {
            Node::Free => return visitor.visit_none(),
            Node::Oneof(..) => self.node,
            Node::Field(field) if field.spec.cardinality == Cardinality::Single => {
                if field.spec.presence == Presence::Implicit {
                    let wanted = expect::field_type(self.walk.tables, field);
                    self.walk.problem(format!("is never absent: write `{wanted}` without `Option`"));
                }
                Node::Value(field)
            }
            other => {
                self.walk.problem("lists, maps, their elements and messages themselves are never absent: no `Option`");
                other
            }
        };
        visitor.visit_some(Prober { walk: self.walk, node })
    }

    fn deserialize_newtype_struct<V: Visitor<'static>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'static>>(mut self, visitor: V) -> Result<V::Value> {
        self.compare(Asked::List);
        match self.elements() {
            Node::Free => visitor.visit_seq(OneValue { walk: self.walk, node: None }),
            node => visitor.visit_seq(OneValue { walk: self.walk, node: Some(node) }),
        }
    }

    fn deserialize_map<V: Visitor<'static>>(mut self, visitor: V) -> Result<V::Value> {
        self.compare(Asked::Map);
        let field = match self.node {
            Node::Field(field) if field.spec.cardinality == Cardinality::Map => Some(field),
            _ => self.inner_field(),
        };
        let entry = field.and_then(Field::message).map(|id| self.walk.tables.message(id));
        let parts = entry.map(|entry| (entry.field(FieldId(0)), entry.field(FieldId(1))));
        visitor.visit_map(OneEntry { walk: self.walk, parts, is_read: false })
    }

    fn deserialize_struct<V: Visitor<'static>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let message = self.enter_struct(name, fields, type_name::<V>())?;
        let value = visitor.visit_seq(Parts { walk: &mut *self.walk, message, name, fields, next: 0 })?;
        self.walk.depth -= 1;
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'static>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let (place, index) = self.enter_enum(name, variants, type_name::<V>())?;
        let walk = &mut *self.walk;
        let value = visitor.visit_enum(Variant { walk, place, name, variants, index })?;
        self.walk.depth -= 1;
        Ok(value)
    }

    fn deserialize_ignored_any<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'static>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'static>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.walk.problem(format!("expected a `Vec` or a struct, found a tuple or an array of {len}"));
        visitor.visit_seq(Parts { walk: self.walk, message: None, name: "", fields: &[""; 16][..len.min(16)], next: 0 })
    }

    fn deserialize_tuple_struct<V: Visitor<'static>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'static>>
        identifier
    }
}
