//! Single values and lists: one row a kind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::error::{ErrorKind, TranscodeError};
use super::super::print;
use super::super::raw::Room;
use super::super::table::{Cardinality, EnumTable, Field, Kind, Presence, Tables, WireType};
use super::super::wire::WireReader;
use super::{Defaults, Enums, Printer, Source, Step};

/// What one value of any kind takes that is no message and no long text, with its name where that is short.
const MEMBER_ROOM: usize = KEY_ROOM + VALUE_ROOM;
const KEY_ROOM: usize = 32;
/// A comma, quotes, a sign, and the block that a number or a name is copied as.
const VALUE_ROOM: usize = 40;

impl<'a> Printer<'a> {
    /// A comma and the member's name.
    // Here and below: inlined in a debug build, it would make the frames of the recursion around it too large.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn key(&mut self, field: &Field) {
        let mut room = Room::new(self.out, KEY_ROOM);
        field.key(self.options.names).put(&mut room);
        room.keep();
    }

    /// A single field with its name; nothing where it holds the zero of a field without presence.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn single(&mut self, field: &'a Field, reader: &mut WireReader<'a>) -> Step<()> {
        let keeps_zero = field.spec.presence != Presence::Implicit || self.options.defaults == Defaults::Print;
        let mut room = Room::new(self.out, MEMBER_ROOM);
        field.key(self.options.names).put(&mut room);
        match field.spec.kind {
            Kind::String => {
                let (from, to) = reader.length()?;
                if from == to && !keeps_zero {
                    room.forget();
                } else if print::short_text(self.wire, from, to, &mut room) {
                    room.keep();
                } else {
                    room.keep();
                    self.long_text(from, to, field.spec.checks_utf8)?;
                }
                Ok(())
            }
            Kind::Message(id) => {
                room.keep();
                let (from, to) = reader.length()?;
                self.message(id, Source::One(from, to))
            }
            Kind::Group(id) => {
                room.keep();
                let (from, to) = reader.value(field.spec.number, WireType::StartGroup)?;
                self.message(id, Source::One(from, to))
            }
            Kind::Bytes => {
                let (from, to) = reader.length()?;
                if from == to && !keeps_zero {
                    room.forget();
                } else {
                    room.keep();
                    self.bytes(from, to);
                }
                Ok(())
            }
            kind => {
                match number(self.tables, self.options.enums, kind, reader, &mut room)? {
                    Shown::Value => room.keep(),
                    Shown::Zero if keeps_zero => room.keep(),
                    Shown::Zero | Shown::Unknown => room.forget(),
                }
                Ok(())
            }
        }
    }

    /// The elements of one record of a list, each with a comma before it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn elements(&mut self, field: &'a Field, is_length: bool, reader: &mut WireReader<'a>) -> Step<()> {
        match field.spec.kind {
            Kind::String => {
                let (from, to) = reader.length()?;
                self.out.push(b',');
                self.text(from, to, field.spec.checks_utf8)
            }
            Kind::Message(id) => {
                let (from, to) = reader.length()?;
                self.out.push(b',');
                self.message(id, Source::One(from, to))
            }
            kind if kind.is_packable() && is_length => {
                let mut packed = reader.inside()?;
                while !packed.is_done() {
                    self.number_element(kind, &mut packed)?;
                }
                Ok(())
            }
            kind if kind.is_packable() => self.number_element(kind, reader),
            _ => {
                self.out.push(b',');
                *reader = self.value(field, reader.clone())?.1;
                Ok(())
            }
        }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn number_element(&mut self, kind: Kind, reader: &mut WireReader<'a>) -> Step<()> {
        let mut room = Room::new(self.out, VALUE_ROOM);
        room.byte(b',');
        match number(self.tables, self.options.enums, kind, reader, &mut room)? {
            Shown::Unknown => room.forget(),
            _ => room.keep(),
        }
        Ok(())
    }

    /// Ends a list that began at `bracket`; an empty one is taken back unless defaults are printed.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn close_list(&mut self, start: usize, bracket: usize) {
        if self.out.len() == bracket && self.options.defaults == Defaults::Omit {
            self.out.truncate(start);
        } else {
            self.close(bracket, b'[', b']');
        }
    }

    /// One value behind its tag, and what comes behind it: for wherever it is not worth a copy of this code.
    #[inline(never)]
    pub(super) fn value(&mut self, field: &'a Field, mut reader: WireReader<'a>) -> Step<(Shown, WireReader<'a>)> {
        let shown = match field.spec.kind {
            Kind::String | Kind::Bytes | Kind::Message(_) => {
                let (from, to) = reader.length()?;
                self.content(field, from, to)?
            }
            Kind::Group(_) => {
                let (from, to) = reader.value(field.spec.number, WireType::StartGroup)?;
                self.content(field, from, to)?
            }
            kind => {
                let mut room = Room::new(self.out, VALUE_ROOM);
                let shown = number(self.tables, self.options.enums, kind, &mut reader, &mut room)?;
                room.keep();
                shown
            }
        };
        Ok((shown, reader))
    }

    /// One value whose bytes are known: the content of a length-delimited one, the number of another.
    pub(super) fn content(&mut self, field: &'a Field, from: usize, to: usize) -> Step<Shown> {
        match field.spec.kind {
            Kind::String => self.text(from, to, field.spec.checks_utf8)?,
            Kind::Bytes => self.bytes(from, to),
            Kind::Message(id) | Kind::Group(id) => {
                self.message(id, Source::One(from, to))?;
                return Ok(Shown::Value);
            }
            _ => return Ok(self.value(field, WireReader::part(self.wire, from, to))?.0),
        }
        Ok(Shown::zero(from == to))
    }

    /// A text, checked to be UTF-8: JSON has no other.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn text(&mut self, from: usize, to: usize, is_checked: bool) -> Step<()> {
        let mut room = Room::new(self.out, VALUE_ROOM);
        if print::short_text(self.wire, from, to, &mut room) {
            room.keep();
            return Ok(());
        }
        self.long_text(from, to, is_checked)
    }

    #[inline(never)]
    fn long_text(&mut self, from: usize, to: usize, is_checked: bool) -> Step<()> {
        let start = self.out.len();
        let Some((first, last)) = print::string_part(self.wire, from, to, self.out) else { return Ok(()) };
        // What is before and behind is ASCII, which begins and ends no character of several bytes.
        if simdutf8::basic::from_utf8(&self.wire[first..last]).is_ok() {
            return Ok(());
        }
        self.out.truncate(start);
        self.not_utf8(from, to, is_checked)
    }

    #[cold]
    fn not_utf8(&mut self, from: usize, to: usize, is_checked: bool) -> Step<()> {
        if is_checked {
            return Err(TranscodeError::new(ErrorKind::Wire, from, "text that is not UTF-8").into());
        }
        // proto2 strings may hold anything; JSON shows what it can.
        print::string(String::from_utf8_lossy(&self.wire[from..to]).as_bytes(), self.out);
        Ok(())
    }

    pub(super) fn bytes(&mut self, from: usize, to: usize) {
        let bytes = &self.wire[from..to];
        self.out.push(b'"');
        let old = self.out.len();
        self.out.resize(old + bytes.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(bytes, &mut self.out[old..]).unwrap_or(0);
        self.out.truncate(old + written);
        self.out.push(b'"');
    }

    /// The JSON form of a field that is absent.
    pub(super) fn default_value(&mut self, field: &'a Field) {
        let text: &[u8] = match (field.spec.cardinality, field.spec.kind) {
            (Cardinality::Repeated, _) => b"[]",
            (Cardinality::Map, _) => b"{}",
            (_, Kind::String | Kind::Bytes) => b"\"\"",
            (_, Kind::Bool) => b"false",
            (_, Kind::Message(_) | Kind::Group(_)) => b"null",
            (_, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64) => b"\"0\"",
            (_, Kind::Enum(id)) => {
                let mut room = Room::new(self.out, VALUE_ROOM);
                let table = self.tables.enumeration(id);
                enumeration(table, self.options.enums, table.default, &mut room);
                return room.keep();
            }
            _ => b"0",
        };
        self.out.extend_from_slice(text);
    }
}

/// A number, boolean or enum value behind its tag.
#[cfg_attr(not(debug_assertions), inline(always))]
fn number(tables: &Tables, enums: Enums, kind: Kind, reader: &mut WireReader, room: &mut Room) -> Step<Shown> {
    let is_zero = match kind {
        Kind::Int32 => small(reader.varint()? as u32, room, |bits| (bits as i32).into()),
        Kind::Sint32 => small(reader.varint()? as u32, room, |bits| ((bits >> 1) as i32 ^ -((bits & 1) as i32)).into()),
        Kind::Sfixed32 => small(reader.fixed32()?, room, |bits| (bits as i32).into()),
        Kind::Uint32 => small(reader.varint()? as u32, room, i64::from),
        Kind::Fixed32 => small(reader.fixed32()?, room, i64::from),
        Kind::Bool => {
            let value = reader.varint()? != 0;
            print::boolean(value, room);
            !value
        }
        Kind::Enum(id) => return Ok(enumeration(tables.enumeration(id), enums, reader.varint()? as i32, room)),
        Kind::Float => {
            let bits = reader.fixed32()?;
            print::float(f32::from_bits(bits), room);
            bits == 0
        }
        Kind::Double => {
            let bits = reader.fixed64()?;
            print::float(f64::from_bits(bits), room);
            bits == 0
        }
        Kind::Int64 => wide(reader.varint()?, room, |bits| bits as i64),
        Kind::Sint64 => wide(reader.varint()?, room, |bits| (bits >> 1) as i64 ^ -((bits & 1) as i64)),
        Kind::Sfixed64 => wide(reader.fixed64()?, room, |bits| bits as i64),
        unsigned => {
            let bits = if unsigned == Kind::Fixed64 { reader.fixed64()? } else { reader.varint()? };
            print::quoted_unsigned(bits, room);
            bits == 0
        }
    };
    Ok(Shown::zero(is_zero))
}

/// Prints a number of 32 bits; true where it is zero.
#[cfg_attr(not(debug_assertions), inline(always))]
fn small(bits: u32, room: &mut Room, value: impl Fn(u32) -> i64) -> bool {
    print::signed(value(bits), room);
    bits == 0
}

/// Prints a number of 64 bits with a sign; true where it is zero.
#[cfg_attr(not(debug_assertions), inline(always))]
fn wide(bits: u64, room: &mut Room, value: impl Fn(u64) -> i64) -> bool {
    print::quoted_signed(value(bits), room);
    bits == 0
}

#[cfg_attr(not(debug_assertions), inline(always))]
fn enumeration(table: &EnumTable, enums: Enums, number: i32, room: &mut Room) -> Shown {
    match table.printed(number) {
        None if table.is_closed => return Shown::Unknown,
        _ if table.is_null => room.text(b"null"),
        Some(name) if enums == Enums::Name => name.put(room),
        _ => print::signed(number.into(), room),
    }
    Shown::zero(number == 0)
}

/// What a value's printing showed.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// A value.
    Value,
    /// The zero of its kind.
    Zero,
    /// A number that a closed enum does not know: as if it were not there.
    Unknown,
}

impl Shown {
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn zero(is_zero: bool) -> Shown {
        if is_zero { Shown::Zero } else { Shown::Value }
    }
}
