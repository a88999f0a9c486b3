//! Tags, lengths and scalars onto the output.

use super::super::scan::DEPTH_MAX;
use super::super::table::{Cardinality, Field, Kind, Shape, Tables, WireType};
use super::super::wire::put_varint;
use super::{Result, RustError};

/// One walk over one value.
pub(super) struct Writer<'a> {
    pub(super) tables: &'a Tables,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) depth: u32,
}

/// A message, list or map entry whose length is not known yet.
#[derive(Clone, Copy)]
pub(super) struct Opened<'a> {
    field: &'a Field,
    /// Where its tag is.
    tag_at: usize,
    /// Where its content begins, behind one byte kept for the length.
    content_at: usize,
    /// Nothing is written where the content turns out empty.
    is_dropped_empty: bool,
}

/// A scalar as serde gives it.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'v> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Text(&'v str),
    Bytes(&'v [u8]),
}

impl Scalar<'_> {
    fn name(self) -> &'static str {
        match self {
            Scalar::Bool(_) => "a boolean",
            Scalar::Signed(_) | Scalar::Unsigned(_) => "an integer",
            Scalar::Float(_) | Scalar::Double(_) => "a floating-point number",
            Scalar::Text(_) => "a string",
            Scalar::Bytes(_) => "bytes",
        }
    }

    /// As an integer between two bounds.
    #[inline]
    fn signed(self, low: i64, high: i64) -> Result<i64> {
        let value = match self {
            Scalar::Signed(value) => value,
            Scalar::Unsigned(value) => i64::try_from(value).map_err(|_| out_of_range(value))?,
            other => return Err(mismatch(other.name(), "an integer")),
        };
        if value < low || value > high { Err(out_of_range(value)) } else { Ok(value) }
    }

    /// As an integer from zero to a bound.
    #[inline]
    fn unsigned(self, high: u64) -> Result<u64> {
        let value = match self {
            Scalar::Unsigned(value) => value,
            Scalar::Signed(value) => u64::try_from(value).map_err(|_| out_of_range(value))?,
            other => return Err(mismatch(other.name(), "an integer")),
        };
        if value > high { Err(out_of_range(value)) } else { Ok(value) }
    }

    fn double(self) -> Option<f64> {
        match self {
            Scalar::Float(value) => Some(value.into()),
            Scalar::Double(value) => Some(value),
            Scalar::Signed(value) => Some(value as f64),
            Scalar::Unsigned(value) => Some(value as f64),
            _ => None,
        }
    }
}

impl<'a> Writer<'a> {
    /// Begins a length-delimited value, a group or a list of packed numbers with its tag.
    pub(super) fn open(&mut self, field: &'a Field, is_dropped_empty: bool) -> Result<Opened<'a>> {
        if is_level(field) {
            if self.depth >= DEPTH_MAX {
                return Err(RustError::new(format!("nested more than {DEPTH_MAX} levels deep")));
            }
            self.depth += 1;
        }
        let tag_at = self.out.len();
        self.tag(field);
        if !is_group(field) {
            self.out.push(0);
        }
        Ok(Opened { field, tag_at, content_at: self.out.len(), is_dropped_empty })
    }

    /// Ends what `open` began: writes the length before it, or the end tag of a group behind it.
    pub(super) fn close(&mut self, opened: Opened<'a>) {
        self.depth -= u32::from(is_level(opened.field));
        let len = self.out.len() - opened.content_at;
        if len == 0 && opened.is_dropped_empty {
            self.out.truncate(opened.tag_at);
        } else if is_group(opened.field) {
            put_varint(u64::from(opened.field.spec.number) << 3 | WireType::EndGroup as u64, self.out);
        } else if len < 0x80 {
            self.out[opened.content_at - 1] = len as u8;
        } else {
            let end = self.out.len();
            put_varint(len as u64, self.out);
            let width = self.out.len() - end;
            let mut length = [0; 10];
            length[..width].copy_from_slice(&self.out[end..]);
            self.out.copy_within(opened.content_at..end, opened.content_at + width - 1);
            self.out.truncate(end + width - 1);
            self.out[opened.content_at - 1..opened.content_at - 1 + width].copy_from_slice(&length[..width]);
        }
    }

    /// A scalar with its tag (without it inside a packed list). A default is left out unless `is_kept`.
    #[inline]
    pub(super) fn scalar(&mut self, field: &'a Field, scalar: Scalar, is_kept: bool, has_tag: bool) -> Result<()> {
        if let Kind::Message(id) | Kind::Group(id) = field.spec.kind {
            return self.wrapped(field, id, scalar);
        }
        let start = self.out.len();
        if has_tag {
            self.tag(field);
        }
        let is_default = self.bare(field.spec.kind, scalar)?;
        if is_default && !is_kept {
            self.out.truncate(start);
        }
        Ok(())
    }

    /// A scalar in a wrapper or a `google.protobuf.Value`.
    fn wrapped(&mut self, field: &'a Field, id: super::super::table::MessageId, scalar: Scalar) -> Result<()> {
        let table = self.tables.message(id);
        let opened = self.open(field, false)?;
        match (table.shape, scalar) {
            (Shape::Wrapper, _) if !table.fields.is_empty() => self.scalar(&table.fields[0], scalar, false, true)?,
            (Shape::Value, _) => {
                let number = match scalar {
                    Scalar::Bool(_) => 4,
                    Scalar::Text(_) => 3,
                    Scalar::Bytes(_) => return Err(mismatch("bytes", "a JSON value")),
                    _ => 2,
                };
                if let Some(id) = table.field_by_number(number) {
                    self.scalar(table.field(id), scalar, true, true)?;
                }
            }
            _ => return Err(RustError::new(format!("{} is no message `{}`", scalar.name(), table.name))),
        }
        self.close(opened);
        Ok(())
    }

    /// A value without tag; true where it is the kind's zero.
    #[inline]
    fn bare(&mut self, kind: Kind, scalar: Scalar) -> Result<bool> {
        let value = match kind {
            Kind::Int32 | Kind::Enum(_) => scalar.signed(i32::MIN.into(), i32::MAX.into())? as u64,
            Kind::Int64 => scalar.signed(i64::MIN, i64::MAX)? as u64,
            Kind::Uint32 => scalar.unsigned(u32::MAX.into())?,
            Kind::Uint64 => scalar.unsigned(u64::MAX)?,
            Kind::Sint32 => zigzag(scalar.signed(i32::MIN.into(), i32::MAX.into())?),
            Kind::Sint64 => zigzag(scalar.signed(i64::MIN, i64::MAX)?),
            Kind::Bool => match scalar {
                Scalar::Bool(value) => u64::from(value),
                other => return Err(mismatch(other.name(), "a boolean")),
            },
            Kind::Fixed32 => return Ok(self.four(scalar.unsigned(u32::MAX.into())? as u32)),
            Kind::Sfixed32 => return Ok(self.four(scalar.signed(i32::MIN.into(), i32::MAX.into())? as u32)),
            Kind::Float => match scalar {
                Scalar::Float(value) => return Ok(self.four(value.to_bits())),
                other => return Err(mismatch(other.name(), "an `f32`")),
            },
            Kind::Fixed64 => return Ok(self.eight(scalar.unsigned(u64::MAX)?)),
            Kind::Sfixed64 => return Ok(self.eight(scalar.signed(i64::MIN, i64::MAX)? as u64)),
            Kind::Double => match scalar.double() {
                Some(value) => return Ok(self.eight(value.to_bits())),
                None => return Err(mismatch(scalar.name(), "a number")),
            },
            Kind::String => match scalar {
                Scalar::Text(text) => return Ok(self.counted(text.as_bytes())),
                other => return Err(mismatch(other.name(), "a string")),
            },
            Kind::Bytes => match scalar {
                Scalar::Bytes(bytes) => return Ok(self.counted(bytes)),
                other => return Err(mismatch(other.name(), "bytes")),
            },
            Kind::Message(_) | Kind::Group(_) => return Err(mismatch(scalar.name(), "a message")),
        };
        put_varint(value, self.out);
        Ok(value == 0)
    }

    /// Nearly every tag is one byte, which needs no copy of unknown length.
    #[inline]
    fn tag(&mut self, field: &Field) {
        match field.tag() {
            [tag] => self.out.push(*tag),
            tag => self.out.extend_from_slice(tag),
        }
    }

    fn four(&mut self, bits: u32) -> bool {
        self.out.extend_from_slice(&bits.to_le_bytes());
        bits == 0
    }

    fn eight(&mut self, bits: u64) -> bool {
        self.out.extend_from_slice(&bits.to_le_bytes());
        bits == 0
    }

    fn counted(&mut self, bytes: &[u8]) -> bool {
        put_varint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
        bytes.is_empty()
    }
}

#[cold]
pub(super) fn mismatch(found: &str, expected: &str) -> RustError {
    RustError::new(format!("expected {expected}, found {found}"))
}

#[cold]
fn out_of_range(value: impl std::fmt::Display) -> RustError {
    RustError::new(format!("{value} is out of range"))
}

/// Small magnitudes become small varints (protobuf encoding, "signed integers").
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// True where the field's values are groups, which have an end tag instead of a length.
fn is_group(field: &Field) -> bool {
    matches!(field.spec.kind, Kind::Group(_)) && field.spec.cardinality != Cardinality::Map
}

/// True where the field's values are messages, which the depth counts; entries of maps are not.
fn is_level(field: &Field) -> bool {
    field.message().is_some() && field.spec.cardinality != Cardinality::Map
}
