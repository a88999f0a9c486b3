//! The well-known types, whose JSON form is their own (ProtoJSON, "well-known types").

use super::super::error::{ErrorKind, Result, TranscodeError};
use super::super::print;
use super::super::table::{FieldId, MessageTable, Shape, WireType};
use super::super::time;
use super::super::wire::{Record, WireReader};
use super::hopeful::inside;
use super::{Printer, Source, Step};

impl<'a> Printer<'a> {
    /// The JSON form of a well-known message.
    pub(super) fn well_known(&mut self, table: &'a MessageTable, source: Source) -> Step<()> {
        match table.shape {
            Shape::Timestamp => self.timestamp(source),
            Shape::Duration => self.duration(source),
            Shape::FieldMask => self.field_mask(source),
            Shape::Wrapper => self.wrapper(table, source),
            Shape::Any => self.any(source),
            Shape::Struct => {
                let brace = self.out.len();
                let (first, last) = self.records_of(source, 1, WireType::Length)?;
                self.map_entries(table.field(FieldId(0)), first, last)?;
                self.scratch.records.truncate(first);
                self.close(brace, b'{', b'}');
                Ok(())
            }
            Shape::ListValue => {
                let bracket = self.out.len();
                let (first, last) = self.records_of(source, 1, WireType::Length)?;
                self.merged_elements(table.field(FieldId(0)), first, last)?;
                self.scratch.records.truncate(first);
                self.close(bracket, b'[', b']');
                Ok(())
            }
            Shape::Value => self.any_value(table, source),
            Shape::Empty | Shape::Plain => {
                self.each_piece(source, |mut reader| {
                    while reader.record()?.is_some() {}
                    Ok(())
                })?;
                self.out.extend_from_slice(b"{}");
                Ok(())
            }
        }
    }

    /// Puts the records of one field behind those in the scratch; where they begin and end there.
    fn records_of(&mut self, source: Source, number: u32, wire_type: WireType) -> Result<(usize, usize)> {
        let first = self.scratch.records.len();
        let mut found = std::mem::take(&mut self.scratch.records);
        let result = self.each_piece_with(&mut found, source, |found, record| {
            if record.number == number && record.wire_type == wire_type {
                found.push(record);
            }
        });
        let last = found.len();
        self.scratch.records = found;
        result.map(|()| (first, last))
    }

    /// Calls `visit` with each record of a message; `records` is the scratch's list, taken out for the while.
    fn each_piece_with(
        &self,
        records: &mut Vec<Record>,
        source: Source,
        mut visit: impl FnMut(&mut Vec<Record>, Record),
    ) -> Result<()> {
        let (first, last) = match source {
            Source::One(..) => (0, 1),
            Source::Many(first, last) => (first, last),
        };
        for piece in first..last {
            let (from, to) = match source {
                Source::One(from, to) => (from, to),
                Source::Many(..) => (records[piece].from, records[piece].to),
            };
            let mut reader = WireReader::part(self.wire, from, to);
            while let Some(record) = reader.record()? {
                visit(records, record);
            }
        }
        Ok(())
    }

    /// The last varint of fields 1 and 2.
    #[inline(always)]
    fn two_numbers(&self, source: Source) -> Result<(i64, i64)> {
        if let Source::One(from, to) = source {
            // As every encoder writes them.
            let mut reader = WireReader::part(self.wire, from, to);
            let one = if reader.eat(0x08) { reader.varint()? as i64 } else { 0 };
            let two = if reader.eat(0x10) { i64::from(reader.varint()? as i32) } else { 0 };
            if reader.is_done() {
                return Ok((one, two));
            }
        }
        self.two_numbers_anywhere(source)
    }

    #[inline(never)]
    fn two_numbers_anywhere(&self, source: Source) -> Result<(i64, i64)> {
        let (mut one, mut two) = (0, 0);
        self.each_piece(source, |mut reader| {
            while !reader.is_done() {
                match reader.tag()? {
                    (1, WireType::Varint) => one = reader.varint()? as i64,
                    (2, WireType::Varint) => two = i64::from(reader.varint()? as i32),
                    (number, wire_type) => reader.value(number, wire_type).map(|_| ())?,
                }
            }
            Ok(())
        })?;
        Ok((one, two))
    }

    fn timestamp(&mut self, source: Source) -> Step<()> {
        let (seconds, nanos) = self.two_numbers(source)?;
        if !time::TIMESTAMP_SECONDS.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
            let text = "a time outside the years 1 to 9999";
            return Err(TranscodeError::new(ErrorKind::Wire, self.start_of(source), text).into());
        }
        time::print_timestamp(seconds, nanos as u32, self.out);
        Ok(())
    }

    fn duration(&mut self, source: Source) -> Step<()> {
        let (seconds, nanos) = self.two_numbers(source)?;
        let is_in_range = seconds.unsigned_abs() <= time::DURATION_SECONDS_MAX as u64 && nanos.abs() < 1_000_000_000;
        if !is_in_range || seconds.signum() * nanos.signum() < 0 {
            let text = "a duration out of range, or with parts of two signs";
            return Err(TranscodeError::new(ErrorKind::Wire, self.start_of(source), text).into());
        }
        self.out.push(b'"');
        time::print_duration(seconds, nanos as i32, self.out);
        self.out.push(b'"');
        Ok(())
    }

    fn field_mask(&mut self, source: Source) -> Step<()> {
        let (first, last) = self.records_of(source, 1, WireType::Length)?;
        let mut text = Vec::new();
        for index in first..last {
            let record = self.scratch.records[index];
            let path = &self.wire[record.from..record.to];
            if index > first {
                text.push(b',');
            }
            let mut is_behind_underscore = false;
            for byte in path {
                let is_fine = !byte.is_ascii_uppercase() && (!is_behind_underscore || byte.is_ascii_lowercase());
                if !is_fine || !byte.is_ascii() {
                    let text = "a field mask path that lower camel case cannot hold";
                    return Err(TranscodeError::new(ErrorKind::Wire, record.from, text).into());
                }
                if *byte != b'_' {
                    text.push(if is_behind_underscore { byte.to_ascii_uppercase() } else { *byte });
                }
                is_behind_underscore = *byte == b'_';
            }
            if is_behind_underscore {
                let text = "a field mask path that lower camel case cannot hold";
                return Err(TranscodeError::new(ErrorKind::Wire, record.from, text).into());
            }
        }
        self.scratch.records.truncate(first);
        print::string(&text, self.out);
        Ok(())
    }

    fn wrapper(&mut self, table: &'a MessageTable, source: Source) -> Step<()> {
        let field = table.field(FieldId(0));
        let (first, last) = self.records_of(source, 1, field.spec.kind.wire_type())?;
        let record = self.scratch.records[first..last].last().copied();
        self.scratch.records.truncate(first);
        match record {
            Some(record) => self.content(field, record.from, record.to).map(|_| ()),
            None => {
                self.default_value(field);
                Ok(())
            }
        }
    }

    /// `google.protobuf.Value`: the last member wins, and its records since then merge.
    fn any_value(&mut self, table: &'a MessageTable, source: Source) -> Step<()> {
        let base = self.scratch.records.len();
        let mut found = std::mem::take(&mut self.scratch.records);
        let result = self.each_piece_with(&mut found, source, |found, record| {
            let fits = table.field_by_number(record.number).map(|id| table.field(id).spec.kind.wire_type());
            if fits != Some(record.wire_type) {
                return;
            }
            if found.get(base).is_some_and(|first| first.number != record.number) {
                found.truncate(base);
            }
            found.push(record);
        });
        self.scratch.records = found;
        result?;
        let Some(record) = self.scratch.records[base..].last().copied() else {
            self.out.extend_from_slice(b"null");
            return Ok(());
        };
        let Some(id) = table.field_by_number(record.number) else { return Ok(()) };
        let field = table.field(id);
        match field.message() {
            Some(message) => {
                let last = self.scratch.records.len();
                let source =
                    if last - base == 1 { Source::One(record.from, record.to) } else { Source::Many(base, last) };
                self.message(message, source)?;
            }
            None => {
                let is_double = field.spec.number == 2;
                let bytes = &self.wire[record.from..record.to];
                if is_double && bytes.try_into().is_ok_and(|bits| !f64::from_le_bytes(bits).is_finite()) {
                    let text = "a number that JSON cannot hold in a `google.protobuf.Value`";
                    return Err(TranscodeError::new(ErrorKind::Wire, record.from, text).into());
                }
                self.content(field, record.from, record.to)?;
            }
        }
        self.scratch.records.truncate(base);
        Ok(())
    }

    /// `{"@type": …}` and the members of the message inside.
    fn any(&mut self, source: Source) -> Step<()> {
        let (mut url, mut value) = ((0, 0), (0, 0));
        self.each_piece(source, |mut reader| {
            while let Some(record) = reader.record()? {
                match (record.number, record.wire_type) {
                    (1, WireType::Length) => url = (record.from, record.to),
                    (2, WireType::Length) => value = (record.from, record.to),
                    _ => {}
                }
            }
            Ok(())
        })?;
        if url.0 == url.1 && value.0 < value.1 {
            return Err(TranscodeError::new(ErrorKind::Wire, value.0, "an Any with a value and no type").into());
        }
        if url.0 == url.1 {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.wire[url.0..url.1]);
        let name = text.rsplit('/').next().unwrap_or_default();
        let Some(id) = self.tables.message_id(name).filter(|_| text.contains('/')) else {
            let text = format!("an Any of type `{text}`, which this schema does not have");
            return Err(TranscodeError::new(ErrorKind::Wire, url.0, text).into());
        };
        let table = self.tables.message(id);
        self.out.extend_from_slice(b"{\"@type\":");
        self.text(url.0, url.1, true)?;
        if table.shape == Shape::Plain {
            if self.depth >= super::DEPTH_MAX {
                return Err(super::too_deep(value.0, super::DEPTH_MAX).into());
            }
            self.depth += 1;
            self.members(table, Source::One(value.0, value.1))?;
            self.depth -= 1;
        } else {
            self.out.extend_from_slice(b",\"value\":");
            self.message(id, Source::One(value.0, value.1)).map_err(|stop| inside(stop, "value"))?;
        }
        self.out.push(b'}');
        Ok(())
    }
}
