//! The well-known types, whose JSON form is their own (ProtoJSON, "well-known types").

use super::super::error::{ErrorKind, Result, TranscodeError};
use super::super::scan::{self, DEPTH_MAX, expected, skip_space, skip_value};
use super::super::table::{FieldId, MessageTable, Shape};
use super::super::time;
use super::scalars::wrong_value;
use super::{NOTHING, Reader, mismatch};

/// Tags of `google.protobuf.Value`'s members, of `Struct.fields` with its entries, and of `ListValue.values`.
mod tags {
    pub(super) const NULL: u8 = 0x08;
    pub(super) const NUMBER: u8 = 0x11;
    pub(super) const STRING: u8 = 0x1a;
    pub(super) const BOOL: u8 = 0x20;
    pub(super) const STRUCT: u8 = 0x2a;
    pub(super) const LIST: u8 = 0x32;
    pub(super) const FIELDS: u8 = 0x0a;
    pub(super) const KEY: u8 = 0x0a;
    pub(super) const VALUE: u8 = 0x12;
    pub(super) const VALUES: u8 = 0x0a;
}

impl<'t> Reader<'t, '_, '_> {
    /// The content of a well-known message.
    pub(super) fn well_known(&mut self, table: &'t MessageTable) -> Result<()> {
        match table.shape {
            Shape::Timestamp => self.time(time::parse_timestamp, "a time such as `2026-01-31T12:00:00Z`"),
            Shape::Duration => self.time(time::parse_duration, "a duration such as `1.5s`"),
            Shape::FieldMask => self.field_mask(),
            Shape::Struct => self.structure(),
            Shape::Value => self.value(),
            Shape::ListValue => self.list_value(),
            Shape::Wrapper => self.single(table.field(FieldId(0)), false, &NOTHING),
            Shape::Any => self.any(),
            Shape::Empty | Shape::Plain => {
                self.open(b'{', "an object")?;
                let mut seen = super::Seen::default();
                self.members(table, &NOTHING, &mut seen)?;
                self.depth -= 1;
                Ok(())
            }
        }
    }

    fn time(&mut self, parse: fn(&[u8]) -> Option<(i64, i64)>, what: &str) -> Result<()> {
        if self.cursor.peek() != b'"' {
            return mismatch(&self.cursor, what);
        }
        let at = self.cursor.at();
        let token = scan::string(&mut self.cursor)?;
        let text = self.token_text(token)?;
        let Some((seconds, nanos)) = parse(text) else { return Err(wrong_value(at, what, text)) };
        if seconds != 0 {
            self.out.push(0x08);
            self.varint(seconds as u64);
        }
        if nanos != 0 {
            self.out.push(0x10);
            self.varint(nanos as u64);
        }
        Ok(())
    }

    /// `"a.b,cD"`: lower-camel paths, joined by commas, stored in snake case.
    fn field_mask(&mut self) -> Result<()> {
        let what = "field paths in lower camel case, joined by commas";
        if self.cursor.peek() != b'"' {
            return mismatch(&self.cursor, what);
        }
        let at = self.cursor.at();
        let token = scan::string(&mut self.cursor)?;
        let text = self.token_text(token)?.to_vec();
        if text.is_empty() {
            return Ok(());
        }
        for path in text.split(|byte| *byte == b',') {
            if path.is_empty() || path.contains(&b'_') || !path.is_ascii() {
                return Err(wrong_value(at, what, &text));
            }
            self.out.push(0x0a);
            let start = self.begin();
            for byte in path {
                if byte.is_ascii_uppercase() {
                    self.out.push(b'_');
                }
                self.out.push(byte.to_ascii_lowercase());
            }
            self.end(start);
        }
        Ok(())
    }

    fn structure(&mut self) -> Result<()> {
        self.open(b'{', "an object")?;
        if self.cursor.eat(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            self.out.push(tags::FIELDS);
            let entry = self.begin();
            self.out.push(tags::KEY);
            self.string_value()?;
            skip_space(&mut self.cursor);
            if !self.cursor.eat(b':') {
                return expected(&self.cursor, "`:`");
            }
            skip_space(&mut self.cursor);
            self.out.push(tags::VALUE);
            let value = self.begin();
            self.value()?;
            self.end(value);
            self.end(entry);
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

    fn list_value(&mut self) -> Result<()> {
        self.open(b'[', "an array")?;
        if self.cursor.eat(b']') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            self.out.push(tags::VALUES);
            let value = self.begin();
            self.value()?;
            self.end(value);
            skip_space(&mut self.cursor);
            if self.cursor.eat(b',') {
                skip_space(&mut self.cursor);
                continue;
            }
            if !self.cursor.eat(b']') {
                return expected(&self.cursor, "`,` or `]`");
            }
            self.depth -= 1;
            return Ok(());
        }
    }

    /// Any JSON value as `google.protobuf.Value`: a message of its own around every scalar, object and array, and
    /// counted as one, so that what is read can be printed again.
    fn value(&mut self) -> Result<()> {
        if self.depth >= DEPTH_MAX {
            return Err(scan::too_deep(self.cursor.at(), DEPTH_MAX));
        }
        self.depth += 1;
        self.value_member()?;
        self.depth -= 1;
        Ok(())
    }

    fn value_member(&mut self) -> Result<()> {
        match self.cursor.peek() {
            b'"' => {
                self.out.push(tags::STRING);
                self.string_value()
            }
            b'{' => {
                self.out.push(tags::STRUCT);
                let at = self.begin();
                self.structure()?;
                self.end(at);
                Ok(())
            }
            b'[' => {
                self.out.push(tags::LIST);
                let at = self.begin();
                self.list_value()?;
                self.end(at);
                Ok(())
            }
            b't' | b'f' => {
                self.out.push(tags::BOOL);
                let value = self.boolean()?;
                self.out.push(u8::from(value));
                Ok(())
            }
            b'n' if self.cursor.eat_word(b"null") => {
                self.out.extend_from_slice(&[tags::NULL, 0]);
                Ok(())
            }
            b'-' | b'0'..=b'9' => {
                self.out.push(tags::NUMBER);
                let value = self.double_value("a number")?;
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            _ => expected(&self.cursor, "a value"),
        }
    }

    /// `{"@type": "…/full.Name", …}`: the type is looked for first, wherever it stands among the members.
    fn any(&mut self) -> Result<()> {
        let start = self.cursor.at();
        self.open(b'{', "an object")?;
        if self.cursor.eat(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        let url = self.find_type(start)?;
        let name = url.rsplit('/').next().unwrap_or_default();
        let known = self.tables.message_id(name).filter(|_| url.contains('/'));
        let Some(id) = known else {
            let text = format!("`@type` is `{url}`: expected a type of this schema, as `type.googleapis.com/pkg.Name`");
            return Err(TranscodeError::new(ErrorKind::Mismatch, start, text));
        };
        self.out.push(0x0a);
        self.varint(url.len() as u64);
        self.out.extend_from_slice(url.as_bytes());
        self.out.push(0x12);
        let at = self.begin();
        let table = self.tables.message(id);
        let mut seen = super::Seen::default();
        let mut has_value = table.shape == Shape::Plain;
        let mut has_type = false;
        loop {
            let member = self.cursor.at();
            let token = scan::string(&mut self.cursor)?;
            let name = self.token_text(token)?;
            let (is_type, is_value) = (name == b"@type", name == b"value");
            let field = table.field_by_name(name);
            skip_space(&mut self.cursor);
            if !self.cursor.eat(b':') {
                return expected(&self.cursor, "`:`");
            }
            skip_space(&mut self.cursor);
            if is_type && std::mem::replace(&mut has_type, true) || table.shape != Shape::Plain && is_value && has_value
            {
                let name = if is_type { "@type" } else { "value" };
                return Err(TranscodeError::new(ErrorKind::Conflict, member, "given twice").inside(name));
            } else if is_type {
                skip_value(&mut self.cursor, self.depth, DEPTH_MAX)?;
            } else if table.shape != Shape::Plain && is_value {
                has_value = true;
                self.message(id, &NOTHING).map_err(|error| error.inside("value"))?;
            } else if let Some(id) = field.filter(|_| table.shape == Shape::Plain) {
                let field = table.field(id);
                self.member(table, id, field, &NOTHING, &mut seen, member)
                    .map_err(|error| error.inside(field.spec.name.as_str()))?;
            } else {
                self.unknown_member(table, member)?;
            }
            skip_space(&mut self.cursor);
            if self.cursor.eat(b',') {
                skip_space(&mut self.cursor);
                continue;
            }
            if !self.cursor.eat(b'}') {
                return expected(&self.cursor, "`,` or `}`");
            }
            break;
        }
        if !has_value {
            let text = format!("a `{}` in an Any needs a member `value`", table.name);
            return Err(TranscodeError::new(ErrorKind::Mismatch, start, text));
        }
        self.end(at);
        self.depth -= 1;
        Ok(())
    }

    /// The text of the member `@type`; the cursor stays where it is, at the first member.
    fn find_type(&mut self, start: usize) -> Result<String> {
        let first = self.cursor.at();
        loop {
            let token = scan::string(&mut self.cursor)?;
            let is_type = self.token_text(token)? == b"@type";
            skip_space(&mut self.cursor);
            if !self.cursor.eat(b':') {
                return expected(&self.cursor, "`:`");
            }
            skip_space(&mut self.cursor);
            if is_type {
                let token = scan::string(&mut self.cursor)?;
                let url = String::from_utf8_lossy(self.token_text(token)?).into_owned();
                self.cursor.seek(first);
                return Ok(url);
            }
            skip_value(&mut self.cursor, self.depth, DEPTH_MAX)?;
            skip_space(&mut self.cursor);
            if !self.cursor.eat(b',') {
                return Err(TranscodeError::new(ErrorKind::Mismatch, start, "an Any needs a member `@type`"));
            }
            skip_space(&mut self.cursor);
        }
    }
}
