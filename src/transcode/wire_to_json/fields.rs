//! Single values and lists: one row a kind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::error::{ErrorKind, TranscodeError};
use super::super::print;
use super::super::table::{Cardinality, EnumId, Field, Kind, Presence, WireType};
use super::super::wire::WireReader;
use super::{Enums, Names, Printer, Source, Step};

impl<'a> Printer<'a> {
    /// A comma and the member's name.
    #[inline(always)]
    pub(super) fn key(&mut self, field: &Field) {
        match self.options.names {
            Names::Camel => field.key_camel().put(self.out),
            Names::Proto => field.key_proto().put(self.out),
        }
    }

    /// A single field with its name; nothing where it holds the zero of a field without presence.
    #[inline(always)]
    pub(super) fn single(&mut self, field: &'a Field, reader: &mut WireReader<'a>) -> Step<()> {
        let start = self.out.len();
        self.key(field);
        let is_shown = self.value(field, reader)?;
        let is_zero_kept = field.spec.presence != Presence::Implicit || self.options.defaults == super::Defaults::Print;
        match is_shown {
            Shown::Value => {}
            Shown::Zero if is_zero_kept => {}
            Shown::Zero | Shown::Unknown => self.out.truncate(start),
        }
        Ok(())
    }

    /// The elements of one record of a list, each with a comma before it.
    #[inline(always)]
    pub(super) fn elements(&mut self, field: &'a Field, wire_type: WireType, reader: &mut WireReader<'a>) -> Step<()> {
        if wire_type == WireType::Length && field.spec.kind.is_packable() {
            let (from, to) = reader.length()?;
            let mut packed = WireReader::part(self.wire, from, to);
            while !packed.is_done() {
                self.element(field, &mut packed)?;
            }
            return Ok(());
        }
        self.element(field, reader)
    }

    #[inline(always)]
    fn element(&mut self, field: &'a Field, reader: &mut WireReader<'a>) -> Step<()> {
        let comma = self.out.len();
        self.out.push(b',');
        if matches!(self.value(field, reader)?, Shown::Unknown) {
            self.out.truncate(comma);
        }
        Ok(())
    }

    /// Ends a list that began at `bracket`; an empty one is taken back unless defaults are printed.
    #[inline(always)]
    pub(super) fn close_list(&mut self, start: usize, bracket: usize) {
        if self.out.len() == bracket && self.options.defaults == super::Defaults::Omit {
            self.out.truncate(start);
        } else {
            self.close(bracket, b'[', b']');
        }
    }

    /// One value behind its tag.
    #[inline(always)]
    pub(super) fn value(&mut self, field: &'a Field, reader: &mut WireReader<'a>) -> Step<Shown> {
        match field.spec.kind {
            Kind::String => {
                let (from, to) = reader.length()?;
                self.text(from, to, field.spec.checks_utf8)?;
                Ok(Shown::zero(from == to))
            }
            Kind::Message(id) => {
                let (from, to) = reader.length()?;
                self.message(id, Source::One(from, to))?;
                Ok(Shown::Value)
            }
            Kind::Group(id) => {
                let (from, to) = reader.value(field.spec.number, WireType::StartGroup)?;
                self.message(id, Source::One(from, to))?;
                Ok(Shown::Value)
            }
            Kind::Bytes => {
                let (from, to) = reader.length()?;
                self.bytes(from, to);
                Ok(Shown::zero(from == to))
            }
            kind => self.number(kind, reader),
        }
    }

    #[inline(always)]
    fn number(&mut self, kind: Kind, reader: &mut WireReader<'a>) -> Step<Shown> {
        let is_zero = match kind {
            Kind::Int32 => {
                let value = reader.varint()? as i32;
                print::integer(value, self.out);
                value == 0
            }
            Kind::Uint32 => {
                let value = reader.varint()? as u32;
                print::integer(value, self.out);
                value == 0
            }
            Kind::Sint32 => {
                let value = reader.varint()? as u32;
                print::integer((value >> 1) as i32 ^ -((value & 1) as i32), self.out);
                value == 0
            }
            Kind::Fixed32 => {
                let value = reader.fixed32()?;
                print::integer(value, self.out);
                value == 0
            }
            Kind::Sfixed32 => {
                let value = reader.fixed32()? as i32;
                print::integer(value, self.out);
                value == 0
            }
            Kind::Float => {
                let bits = reader.fixed32()?;
                print::float(f32::from_bits(bits), self.out);
                bits == 0
            }
            Kind::Bool => {
                let value = reader.varint()? != 0;
                print::boolean(value, self.out);
                !value
            }
            Kind::Enum(id) => return Ok(self.enumeration(id, reader.varint()? as i32)),
            wide => self.wide_number(wide, reader)?,
        };
        Ok(Shown::zero(is_zero))
    }

    #[inline(always)]
    fn wide_number(&mut self, kind: Kind, reader: &mut WireReader<'a>) -> Step<bool> {
        let bits = match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => reader.fixed64()?,
            _ => reader.varint()?,
        };
        match kind {
            Kind::Double => print::float(f64::from_bits(bits), self.out),
            Kind::Int64 | Kind::Sfixed64 => print::quoted_integer(bits as i64, self.out),
            Kind::Sint64 => print::quoted_integer((bits >> 1) as i64 ^ -((bits & 1) as i64), self.out),
            _ => print::quoted_integer(bits, self.out),
        }
        Ok(bits == 0)
    }

    #[inline(always)]
    fn enumeration(&mut self, id: EnumId, number: i32) -> Shown {
        let table = self.tables.enumeration(id);
        match table.printed(number) {
            None if table.is_closed => return Shown::Unknown,
            _ if table.is_null => self.out.extend_from_slice(b"null"),
            Some(name) if self.options.enums == Enums::Name => name.put(self.out),
            _ => print::integer(number, self.out),
        }
        Shown::zero(number == 0)
    }

    /// A text, checked to be UTF-8: JSON has no other.
    #[inline(always)]
    pub(super) fn text(&mut self, from: usize, to: usize, is_checked: bool) -> Step<()> {
        let start = self.out.len();
        let Some(at) = print::string_part(self.wire, from, to, self.out) else { return Ok(()) };
        // Everything before is ASCII.
        if simdutf8::basic::from_utf8(&self.wire[at..to]).is_ok() {
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
                self.enumeration(id, self.tables.enumeration(id).default);
                return;
            }
            _ => b"0",
        };
        self.out.extend_from_slice(text);
    }
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
    #[inline(always)]
    fn zero(is_zero: bool) -> Shown {
        if is_zero { Shown::Zero } else { Shown::Value }
    }
}
