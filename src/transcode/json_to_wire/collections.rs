//! Lists and maps.

use super::super::error::{Result, TranscodeError};
use super::super::scalar;
use super::super::scan::{self, expected, skip_space};
use super::super::table::{Field, FieldId, Kind};
use super::super::wire::varint_block;
use super::scalars::wrong_value;
use super::{NOTHING, Reader, mismatch};

impl<'t> Reader<'t, '_, '_> {
    /// An array as a packed record or as a record an element.
    pub(super) fn list(&mut self, field: &'t Field) -> Result<()> {
        self.open(b'[', "an array")?;
        if self.cursor.eat(b']') {
            self.depth -= 1;
            return Ok(());
        }
        let packed = field.spec.is_packed.then(|| {
            self.tag(field);
            self.begin()
        });
        let mut index = 0;
        loop {
            let takes_null = self.cursor.peek() == b'n' && self.element_takes_null(field.spec.kind);
            let result = if self.cursor.peek() == b'n' && !takes_null {
                mismatch(&self.cursor, "an element")
            } else if packed.is_some() {
                self.bare(field.spec.kind)
            } else {
                self.element(field, &NOTHING)
            };
            result.map_err(|error| error.inside(format!("[{index}]")))?;
            index += 1;
            skip_space(&mut self.cursor);
            if self.cursor.eat(b',') {
                skip_space(&mut self.cursor);
                continue;
            }
            if !self.cursor.eat(b']') {
                return expected(&self.cursor, "`,` or `]`");
            }
            break;
        }
        if let Some(at) = packed {
            self.end(at);
        }
        self.depth -= 1;
        Ok(())
    }

    fn element_takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(id) => self.tables.message(id).shape == super::Shape::Value,
            Kind::Enum(id) => self.tables.enumeration(id).is_null,
            _ => false,
        }
    }

    /// An object as map entries: key and value of each are always written.
    pub(super) fn map(&mut self, field: &'t Field) -> Result<()> {
        self.open(b'{', "an object")?;
        if self.cursor.eat(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        let Some(entry) = field.message().map(|id| self.tables.message(id)) else { return Ok(()) };
        let (key, value) = (entry.field(FieldId(0)), entry.field(FieldId(1)));
        loop {
            self.tag(field);
            let at = self.begin();
            let start = self.cursor.at();
            self.map_key(key)?;
            skip_space(&mut self.cursor);
            if !self.cursor.eat(b':') {
                return expected(&self.cursor, "`:`");
            }
            skip_space(&mut self.cursor);
            let result = if self.cursor.peek() == b'n' && !self.element_takes_null(value.spec.kind) {
                mismatch(&self.cursor, "a value")
            } else {
                self.element(value, &NOTHING)
            };
            result.map_err(|error| self.inside_entry(error, start))?;
            self.end(at);
            skip_space(&mut self.cursor);
            if self.cursor.eat(b',') {
                skip_space(&mut self.cursor);
                continue;
            }
            if !self.cursor.eat(b'}') {
                return expected(&self.cursor, "`,` or `}`");
            }
            self.depth -= 1;
            return Ok(());
        }
    }

    #[cold]
    fn inside_entry(&mut self, error: TranscodeError, key_at: usize) -> TranscodeError {
        let mut cursor = super::Cursor::new(self.cursor.padded());
        cursor.seek(key_at);
        match scan::string(&mut cursor) {
            Ok(token) => error.inside(format!("[\"{}\"]", String::from_utf8_lossy(cursor.slice(token.from, token.to)))),
            Err(_) => error,
        }
    }

    /// A map key: always a JSON string, parsed by the key's kind.
    fn map_key(&mut self, key: &Field) -> Result<()> {
        if self.cursor.peek() != b'"' {
            return expected(&self.cursor, "a map key");
        }
        self.tag(key);
        if key.spec.kind == Kind::String {
            return self.string_value();
        }
        let at = self.cursor.at();
        if key.spec.kind != Kind::Bool {
            return self.bare(key.spec.kind);
        }
        let token = scan::string(&mut self.cursor)?;
        let value = match self.token_text(token)? {
            b"true" => 1,
            b"false" => 0,
            other => return Err(wrong_value(at, "the map key `true` or `false`", other)),
        };
        self.out.push(value);
        Ok(())
    }
}

/// A map key from URL text: its kind's text form, appended with its tag.
pub(in super::super) fn map_key_to_wire(
    key: &Field,
    text: &str,
    out: &mut Vec<u8>,
) -> std::result::Result<(), &'static str> {
    out.extend_from_slice(key.tag());
    let integer = |low: i128, high: i128| {
        scalar::integer(text.as_bytes()).filter(|value| *value >= low && *value <= high).ok_or("an integer map key")
    };
    let varint = |value: u64, out: &mut Vec<u8>| {
        let (block, len) = varint_block(value);
        out.extend_from_slice(&block[..len]);
    };
    match key.spec.kind {
        Kind::String => {
            varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
        Kind::Bool => match text {
            "true" => out.push(1),
            "false" => out.push(0),
            _ => return Err("the map key `true` or `false`"),
        },
        Kind::Int32 => varint(integer(i32::MIN.into(), i32::MAX.into())? as i64 as u64, out),
        Kind::Int64 => varint(integer(i64::MIN.into(), i64::MAX.into())? as i64 as u64, out),
        Kind::Uint32 => varint(integer(0, u32::MAX.into())? as u64, out),
        Kind::Uint64 => varint(integer(0, u64::MAX.into())? as u64, out),
        Kind::Sint32 | Kind::Sint64 => {
            let value = integer(i64::MIN.into(), i64::MAX.into())? as i64;
            varint((value << 1 ^ value >> 63) as u64, out);
        }
        Kind::Fixed32 => out.extend_from_slice(&(integer(0, u32::MAX.into())? as u32).to_le_bytes()),
        Kind::Sfixed32 => out.extend_from_slice(&(integer(i32::MIN.into(), i32::MAX.into())? as i32).to_le_bytes()),
        Kind::Fixed64 => out.extend_from_slice(&(integer(0, u64::MAX.into())? as u64).to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&(integer(i64::MIN.into(), i64::MAX.into())? as i64).to_le_bytes()),
        _ => return Err("a map key"),
    }
    Ok(())
}
