//! Structs, lists and maps, part by part, as serde gives them.

use serde::ser::{self, Serialize};

use super::super::error::TranscodeError;
use super::super::rust_names::{self, Place as Named};
use super::super::table::{Field, FieldId, MessageId, MessageTable, WireType};
use super::super::wire::WireReader;
use super::order::{key_at, key_order, number_order};
use super::slot::{Place, Slot};
use super::writer::{Opened, Writer};
use super::{Result, RustError};

/// A repeated or map field to be filled, and the messages opened around it.
pub(super) struct Many<'m, 'a> {
    pub(super) writer: &'m mut Writer<'a>,
    pub(super) field: &'a Field,
    pub(super) opened: [Option<Opened<'a>>; 2],
}

impl Many<'_, '_> {
    fn close(self) {
        let Many { writer, opened, .. } = self;
        opened.into_iter().rev().flatten().for_each(|opened| writer.close(opened));
    }
}

/// A list.
pub(super) struct ListWriter<'m, 'a> {
    writer: &'m mut Writer<'a>,
    element: Place<'a>,
    /// What is to be closed, the innermost last.
    opened: [Option<Opened<'a>>; 3],
    count: usize,
}

impl<'m, 'a> ListWriter<'m, 'a> {
    pub(super) fn new(many: Many<'m, 'a>) -> Result<ListWriter<'m, 'a>> {
        let Many { writer, field, opened: [outer, inner] } = many;
        let is_packed = field.spec.is_packed && field.spec.kind.is_packable();
        let packed = if is_packed { Some(writer.open(field, true)?) } else { None };
        let element = if is_packed { Place::Packed(field) } else { Place::Kept(field) };
        Ok(ListWriter { writer, element, opened: [outer, inner, packed], count: 0 })
    }

    /// A bytes field given octet by octet.
    pub(super) fn octets(writer: &'m mut Writer<'a>, opened: Opened<'a>) -> ListWriter<'m, 'a> {
        ListWriter { writer, element: Place::Octet, opened: [Some(opened), None, None], count: 0 }
    }
}

impl ser::SerializeSeq for ListWriter<'_, '_> {
    type Ok = ();
    type Error = RustError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let index = self.count;
        self.count += 1;
        let slot = Slot { writer: self.writer, place: self.element };
        value.serialize(slot).map_err(|error| error.inside(&format!("[{index}]")))
    }

    fn end(self) -> Result<()> {
        self.opened.into_iter().rev().flatten().for_each(|opened| self.writer.close(opened));
        Ok(())
    }
}

/// A map.
pub(super) struct MapWriter<'m, 'a> {
    many: Many<'m, 'a>,
    entry: &'a MessageTable,
    start: usize,
    /// The entry whose value is missing yet, and where its tag is.
    open: Option<(Opened<'a>, usize)>,
    /// Where the tag of the entry before is.
    before: Option<usize>,
    is_rising: bool,
}

impl<'m, 'a> MapWriter<'m, 'a> {
    pub(super) fn new(many: Many<'m, 'a>) -> Result<MapWriter<'m, 'a>> {
        let Some(id) = many.field.message() else { return Err(RustError::new("a map without entries")) };
        let (entry, start) = (many.writer.tables.message(id), many.writer.out.len());
        Ok(MapWriter { many, entry, start, open: None, before: None, is_rising: true })
    }

    /// The key written last, for error texts.
    fn segment(&self, at: usize) -> String {
        match key_at(self.entry.field(FieldId(0)), self.many.writer.out, at) {
            Ok(super::order::Key::Text(text)) => format!("[\"{}\"]", String::from_utf8_lossy(text)),
            Ok(super::order::Key::Number(number)) => format!("[\"{number}\"]"),
            Err(_) => "[?]".to_owned(),
        }
    }
}

impl ser::SerializeMap for MapWriter<'_, '_> {
    type Ok = ();
    type Error = RustError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        let at = self.many.writer.out.len();
        self.open = Some((self.many.writer.open(self.many.field, false)?, at));
        key.serialize(Slot { writer: self.many.writer, place: Place::Kept(self.entry.field(FieldId(0))) })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let Some((opened, at)) = self.open.take() else { return Err(RustError::new("a map value without its key")) };
        let slot = Slot { writer: self.many.writer, place: Place::Kept(self.entry.field(FieldId(1))) };
        value.serialize(slot).map_err(|error| error.inside(&self.segment(at)))?;
        self.many.writer.close(opened);
        if let Some(before) = self.before.filter(|_| self.is_rising) {
            let (key, out) = (self.entry.field(FieldId(0)), &*self.many.writer.out);
            self.is_rising = key_at(key, out, before).map_err(RustError)? < key_at(key, out, at).map_err(RustError)?;
        }
        self.before = Some(at);
        Ok(())
    }

    fn end(self) -> Result<()> {
        if !self.is_rising {
            key_order(self.entry.field(FieldId(0)), self.many.writer.out, self.start).map_err(RustError)?;
        }
        self.many.close();
        Ok(())
    }
}

/// A message.
pub(super) struct StructWriter<'m, 'a> {
    writer: &'m mut Writer<'a>,
    table: &'a MessageTable,
    opened: Option<Opened<'a>>,
    start: usize,
    /// The table's field behind the one written last.
    guess: usize,
    /// The number written last.
    before: u32,
    is_rising: bool,
}

impl<'m, 'a> StructWriter<'m, 'a> {
    pub(super) fn new(writer: &'m mut Writer<'a>, id: MessageId, opened: Option<Opened<'a>>) -> StructWriter<'m, 'a> {
        let (table, start) = (writer.tables.message(id), writer.out.len());
        StructWriter { writer, table, opened, start, guess: 0, before: 0, is_rising: true }
    }

    /// Whether the record at `at` comes behind those before it.
    fn note_number(&mut self, at: usize) -> std::result::Result<(), TranscodeError> {
        let end = self.writer.out.len();
        if at < end {
            let (number, _): (u32, WireType) = WireReader::part(self.writer.out, at, end).tag()?;
            self.is_rising &= self.before <= number;
            self.before = number;
        }
        Ok(())
    }
}

impl ser::SerializeStruct for StructWriter<'_, '_> {
    type Ok = ();
    type Error = RustError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        let at = self.writer.out.len();
        match rust_names::place(self.table, name, self.guess) {
            Some(Named::Field(id)) => {
                self.guess = usize::from(id.0) + 1;
                let place = Place::Field(self.table.field(id));
                value.serialize(Slot { writer: self.writer, place }).map_err(|error| error.inside(name))?;
            }
            Some(Named::Oneof(oneof)) => {
                let place = Place::Oneof(self.table, oneof);
                let slot = Slot { writer: self.writer, place };
                // A member's path is its own: only what concerns no member is said of the oneof.
                value
                    .serialize(slot)
                    .map_err(|error| if error.path().is_empty() { error.inside(name) } else { error })?;
            }
            None => return Err(RustError::new(format!("`{}` has no field `{name}`", self.table.name))),
        }
        self.note_number(at).map_err(RustError)
    }

    fn end(self) -> Result<()> {
        if !self.is_rising {
            number_order(self.writer.out, self.start).map_err(RustError)?;
        }
        if let Some(opened) = self.opened {
            self.writer.close(opened);
        }
        Ok(())
    }
}
