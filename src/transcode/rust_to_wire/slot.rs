//! A place in a message as serde's `Serializer`: the table says what fits there.

use serde::ser::{self, Impossible, Serialize};

use super::super::rust_names;
use super::super::table::{Cardinality, Field, Kind, MessageId, MessageTable, OneofId, Presence, Shape};
use super::compound::{ListWriter, Many, MapWriter, StructWriter};
use super::writer::{Opened, Scalar, Writer, mismatch};
use super::{Result, RustError};

/// Where a value goes.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The content of a message whose tag, if any, has been written.
    Content(MessageId),
    /// A field: one value, a whole list or a whole map.
    Field(&'a Field),
    /// One value with its tag, also where it is the default: list element, map part, oneof member, `Some`.
    Kept(&'a Field),
    /// One number of a packed list.
    Packed(&'a Field),
    /// A oneof.
    Oneof(&'a MessageTable, OneofId),
    /// One of the octets of a bytes field.
    Octet,
}

/// A place with its writer.
pub(super) struct Slot<'m, 'a> {
    pub(super) writer: &'m mut Writer<'a>,
    pub(super) place: Place<'a>,
}

impl<'m, 'a> Slot<'m, 'a> {
    /// The field of a single value, and whether its default is written.
    fn single(&self, found: &str) -> Result<(&'a Field, bool)> {
        match self.place {
            Place::Field(field) if field.spec.cardinality == Cardinality::Single => {
                Ok((field, field.spec.presence != Presence::Implicit))
            }
            Place::Kept(field) | Place::Packed(field) => Ok((field, true)),
            Place::Field(field) if field.spec.cardinality == Cardinality::Map => Err(mismatch(found, "a map")),
            Place::Field(_) => Err(mismatch(found, "a list")),
            Place::Content(_) => Err(mismatch(found, "a message")),
            Place::Oneof(..) => Err(mismatch(found, "an enum with a newtype variant a member")),
            Place::Octet => Err(mismatch(found, "an octet")),
        }
    }

    #[inline]
    fn scalar(self, found: &'static str, scalar: Scalar) -> Result<()> {
        if let Place::Content(id) = self.place {
            // The whole is a wrapper: its one field.
            let table = self.writer.tables.message(id);
            return match (table.shape, table.fields.first()) {
                (Shape::Wrapper, Some(field)) => self.writer.scalar(field, scalar, false, true),
                _ => Err(mismatch(found, &format!("a message `{}`", table.name))),
            };
        }
        let (field, is_kept) = self.single(found)?;
        let has_tag = !matches!(self.place, Place::Packed(_));
        self.writer.scalar(field, scalar, is_kept, has_tag)
    }

    /// Opens the message that this place holds; its table and what is to be closed. `None` where nothing was opened.
    fn open_message(&mut self, found: &str) -> Result<(MessageId, Option<Opened<'a>>)> {
        if let Place::Content(id) = self.place {
            return Ok((id, None));
        }
        let (field, _) = self.single(found)?;
        let Some(id) = field.message() else {
            return Err(RustError::new(format!("expected a scalar, found {found}")));
        };
        let is_dropped_empty = matches!(self.place, Place::Field(_));
        Ok((id, Some(self.writer.open(field, is_dropped_empty)?)))
    }

    /// Opens what a list or map goes into: the repeated or map field itself, or the one inside a `Struct`, `ListValue`
    /// or `Value` (`member` is the number in a `Value` of what holds such a thing).
    fn open_many(mut self, found: &str, shape: Shape, member: u32) -> Result<Many<'m, 'a>> {
        let wanted = if shape == Shape::Struct { Cardinality::Map } else { Cardinality::Repeated };
        if let Place::Field(field) = self.place
            && field.spec.cardinality == wanted
        {
            return Ok(Many { writer: self.writer, field, opened: [None, None] });
        }
        let (id, outer) = self.open_message(found)?;
        let (mut table, mut inner) = (self.writer.tables.message(id), None);
        if table.shape == Shape::Value
            && let Some(member) = table.field_by_number(member).map(|id| table.field(id))
            && let Some(id) = member.message()
        {
            inner = Some(self.writer.open(member, false)?);
            table = self.writer.tables.message(id);
        }
        match table.fields.first() {
            Some(field) if table.shape == shape => Ok(Many { writer: self.writer, field, opened: [outer, inner] }),
            _ => Err(mismatch(found, &format!("a message `{}`", table.name))),
        }
    }

    fn enum_number(self, variant: &'static str, guess: u32) -> Result<()> {
        let (field, is_kept) = self.single("an enum")?;
        let Kind::Enum(id) = field.spec.kind else { return Err(mismatch("an enum", "another kind of value")) };
        let table = self.writer.tables.enumeration(id);
        let Some(number) = rust_names::number_of_variant(table, guess, variant) else {
            return Err(RustError::new(format!("`{}` has no value for the variant `{variant}`", table.name)));
        };
        let has_tag = !matches!(self.place, Place::Packed(_));
        self.writer.scalar(field, Scalar::Signed(number.into()), is_kept, has_tag)
    }
}

impl<'m, 'a> ser::Serializer for Slot<'m, 'a> {
    type Ok = ();
    type Error = RustError;
    type SerializeSeq = ListWriter<'m, 'a>;
    type SerializeTuple = Impossible<(), RustError>;
    type SerializeTupleStruct = Impossible<(), RustError>;
    type SerializeTupleVariant = Impossible<(), RustError>;
    type SerializeMap = MapWriter<'m, 'a>;
    type SerializeStruct = StructWriter<'m, 'a>;
    type SerializeStructVariant = Impossible<(), RustError>;

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.scalar("a boolean", Scalar::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<()> {
        self.scalar("an integer", Scalar::Signed(value.into()))
    }

    fn serialize_i16(self, value: i16) -> Result<()> {
        self.scalar("an integer", Scalar::Signed(value.into()))
    }

    fn serialize_i32(self, value: i32) -> Result<()> {
        self.scalar("an integer", Scalar::Signed(value.into()))
    }

    fn serialize_i64(self, value: i64) -> Result<()> {
        self.scalar("an integer", Scalar::Signed(value))
    }

    fn serialize_u8(self, value: u8) -> Result<()> {
        if matches!(self.place, Place::Octet) {
            self.writer.out.push(value);
            return Ok(());
        }
        self.scalar("an integer", Scalar::Unsigned(value.into()))
    }

    fn serialize_u16(self, value: u16) -> Result<()> {
        self.scalar("an integer", Scalar::Unsigned(value.into()))
    }

    fn serialize_u32(self, value: u32) -> Result<()> {
        self.scalar("an integer", Scalar::Unsigned(value.into()))
    }

    fn serialize_u64(self, value: u64) -> Result<()> {
        self.scalar("an integer", Scalar::Unsigned(value))
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        self.scalar("a number", Scalar::Float(value))
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        self.scalar("a number", Scalar::Double(value))
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        self.scalar("a string", Scalar::Text(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        self.scalar("bytes", Scalar::Bytes(value))
    }

    fn serialize_none(self) -> Result<()> {
        match self.place {
            Place::Field(_) | Place::Oneof(..) => Ok(()),
            _ => Err(mismatch("`None`", "a value")),
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        let place = match self.place {
            Place::Field(field) if field.spec.cardinality == Cardinality::Single => Place::Kept(field),
            other => other,
        };
        value.serialize(Slot { writer: self.writer, place })
    }

    /// The `null` of a `google.protobuf.Value`, or an empty message.
    fn serialize_unit(mut self) -> Result<()> {
        let (id, opened) = self.open_message("a unit")?;
        let table = self.writer.tables.message(id);
        match (table.shape, table.field_by_number(1)) {
            (Shape::Value, Some(null)) => {
                self.writer.scalar(table.field(null), Scalar::Signed(0), true, true)?;
            }
            (Shape::Empty, _) => {}
            _ => return Err(mismatch("a unit", &format!("a message `{}`", table.name))),
        }
        opened.into_iter().for_each(|opened| self.writer.close(opened));
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, variant: &'static str) -> Result<()> {
        self.enum_number(variant, index)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let Place::Oneof(table, oneof) = self.place else {
            // `Unknown(7)` of an enum: the number as it is.
            return value.serialize(self);
        };
        let Some(member) = rust_names::member(table, oneof, variant) else {
            let oneof = &table.oneofs[oneof.0 as usize];
            return Err(RustError::new(format!("`{oneof}` has no member for the variant `{variant}`")));
        };
        let place = Place::Kept(member);
        value.serialize(Slot { writer: self.writer, place }).map_err(|error| error.inside(&member.spec.name))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<ListWriter<'m, 'a>> {
        if let Place::Field(field) | Place::Kept(field) = self.place
            && field.spec.kind == Kind::Bytes
            && (field.spec.cardinality == Cardinality::Single || matches!(self.place, Place::Kept(_)))
        {
            let (_, is_kept) = self.single("a list")?;
            let opened = self.writer.open(field, !is_kept)?;
            return Ok(ListWriter::octets(self.writer, opened));
        }
        ListWriter::new(self.open_many("a list", Shape::ListValue, 6)?)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        Err(mismatch("a tuple", "a `Vec`"))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        Err(RustError::new(format!("`{name}` is a tuple: use a struct with named fields")))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(RustError::new(format!("`{name}::{variant}` has several fields: use a newtype variant with a struct")))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<MapWriter<'m, 'a>> {
        MapWriter::new(self.open_many("a map", Shape::Struct, 5)?)
    }

    fn serialize_struct(mut self, name: &'static str, _: usize) -> Result<StructWriter<'m, 'a>> {
        let (id, opened) = self.open_message(name)?;
        Ok(StructWriter::new(self.writer, id, opened))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(RustError::new(format!("`{name}::{variant}` has named fields: use a newtype variant with a struct")))
    }
}
