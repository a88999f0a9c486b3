//! Maps: entries with their parts in any order, missing or repeated; of equal keys the last wins.

use super::super::error::Result;
use super::super::print;
use super::super::raw::Room;
use super::super::table::{Field, FieldId, Kind, MessageTable, WireType};
use super::super::wire::{Record, WireReader, kept_bits};
use super::fields::Shown;
use super::hopeful::{inside, next_of_field};
use super::{Printer, Source, Step};

/// One map entry: where its key and its value are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    key: (usize, usize),
    /// The last record of the value; `None` where there is none.
    value: Option<Record>,
    /// The value is a message in several pieces: the whole entry has to be read again.
    is_split: bool,
    entry: (usize, usize),
    /// A later entry has the same key.
    is_replaced: bool,
}

impl<'a> Printer<'a> {
    /// A map whose entries have a key, a value and rising keys, as most encoders write them; gives what comes behind it.
    /// `None` where some entry is not so: what was printed is then to be taken back.
    #[inline(never)]
    pub(super) fn quick_map(&mut self, field: &'a Field, mut reader: WireReader<'a>) -> Step<Option<WireReader<'a>>> {
        let Some(entry) = field.message().map(|id| self.tables.message(id)) else { return Ok(None) };
        let (key, value) = (entry.field(FieldId(0)), entry.field(FieldId(1)));
        if value.message().is_some() {
            // Taking back a map of maps of maps would double the work at every level.
            return Ok(None);
        }
        if (key.spec.kind, value.spec.kind) == (Kind::String, Kind::String) {
            return self.quick_texts(field, key, value, reader);
        }
        self.key(field);
        let brace = self.out.len();
        let mut before: Option<(usize, usize)> = None;
        loop {
            let mut part = reader.inside()?;
            if !part.eat(key.tag()[0]) {
                return Ok(None);
            }
            let place = part.value(1, key.spec.kind.wire_type())?;
            let is_rising = match before {
                Some(before) => self.is_below(key, before, place)?,
                None => true,
            };
            if !is_rising || !part.eat(value.tag()[0]) {
                return Ok(None);
            }
            before = Some(place);
            self.out.push(b',');
            self.map_key(key, place)?;
            self.out.push(b':');
            let (shown, rest) = self.value(value, part).map_err(|stop| inside(stop, &self.key_segment(place)))?;
            if matches!(shown, Shown::Unknown) || !rest.is_done() {
                return Ok(None);
            }
            if next_of_field(field, &mut reader)?.is_none() {
                self.close(brace, b'{', b'}');
                return Ok(Some(reader));
            }
        }
    }

    /// The same for texts by texts, the map that most messages have.
    #[inline(never)]
    fn quick_texts(
        &mut self,
        field: &'a Field,
        key: &'a Field,
        value: &'a Field,
        mut reader: WireReader<'a>,
    ) -> Step<Option<WireReader<'a>>> {
        self.key(field);
        let brace = self.out.len();
        let mut before: Option<&[u8]> = None;
        loop {
            let mut part = reader.inside()?;
            if !part.eat(key.tag()[0]) {
                return Ok(None);
            }
            let key_place = part.length()?;
            let text = &self.wire[key_place.0..key_place.1];
            if before.is_some_and(|before| before >= text) || !part.eat(value.tag()[0]) {
                return Ok(None);
            }
            before = Some(text);
            let (from, to) = part.length().map_err(|error| inside(error.into(), &self.key_segment(key_place)))?;
            if !part.is_done() {
                return Ok(None);
            }
            let mut room = Room::new(self.out, 2 + 2 * 18);
            room.byte(b',');
            let mut is_short = print::short_text(self.wire, key_place.0, key_place.1, &mut room);
            if is_short {
                room.byte(b':');
                is_short = print::short_text(self.wire, from, to, &mut room);
            }
            if is_short {
                room.keep();
            } else {
                room.forget();
                self.out.push(b',');
                self.text(key_place.0, key_place.1, key.spec.checks_utf8)?;
                self.out.push(b':');
                self.text(from, to, value.spec.checks_utf8)
                    .map_err(|stop| inside(stop, &self.key_segment(key_place)))?;
            }
            if next_of_field(field, &mut reader)?.is_none() {
                self.close(brace, b'{', b'}');
                return Ok(Some(reader));
            }
        }
    }

    /// A map field with its name from the records `first..last` of the scratch, one an entry.
    pub(super) fn map(&mut self, field: &'a Field, first: usize, last: usize) -> Step<()> {
        let start = self.out.len();
        self.key(field);
        let brace = self.out.len();
        self.map_entries(field, first, last)?;
        if self.out.len() == brace && self.options.defaults == super::Defaults::Omit {
            self.out.truncate(start);
        } else {
            self.close(brace, b'{', b'}');
        }
        Ok(())
    }

    /// The entries, each with a comma before it.
    pub(super) fn map_entries(&mut self, field: &'a Field, first: usize, last: usize) -> Step<()> {
        let Some(entry_table) = field.message().map(|id| self.tables.message(id)) else { return Ok(()) };
        let base = self.scratch.entries.len();
        let mut is_rising = true;
        for index in first..last {
            let record = self.scratch.records[index];
            let entry = self.read_entry(entry_table, record)?;
            if let Some(value) = entry.value
                && self.is_unknown_value(entry_table.field(FieldId(1)), value)?
            {
                continue;
            }
            if let Some(before) = self.scratch.entries[base..].last() {
                is_rising &= self.is_below(entry_table.field(FieldId(0)), before.key, entry.key)?;
            }
            self.scratch.entries.push(entry);
        }
        if !is_rising {
            self.mark_replaced(entry_table.field(FieldId(0)), base)?;
        }
        for index in base..self.scratch.entries.len() {
            let entry = self.scratch.entries[index];
            if !entry.is_replaced {
                self.entry(entry_table, entry)?;
            }
        }
        self.scratch.entries.truncate(base);
        Ok(())
    }

    fn read_entry(&self, table: &MessageTable, record: Record) -> Result<Entry> {
        let mut entry = Entry {
            key: (record.from, record.from),
            value: None,
            is_split: false,
            entry: (record.from, record.to),
            is_replaced: false,
        };
        let mut reader = WireReader::part(self.wire, record.from, record.to);
        while let Some(part) = reader.record()? {
            let Some(id) = table.field_by_number(part.number).filter(|id| table.field(*id).fits(part.wire_type)) else {
                continue;
            };
            if id == FieldId(0) {
                entry.key = (part.from, part.to);
            } else {
                entry.is_split = entry.value.is_some() && table.field(id).message().is_some();
                entry.value = Some(part);
            }
        }
        Ok(entry)
    }

    /// True where the first key comes before the second in some order in which equal keys are equal.
    #[inline(always)]
    fn is_below(&self, key: &Field, one: (usize, usize), other: (usize, usize)) -> Result<bool> {
        if key.spec.kind == Kind::String {
            return Ok(self.wire[one.0..one.1] < self.wire[other.0..other.1]);
        }
        Ok(self.number_key(key, one)? < self.number_key(key, other)?)
    }

    /// A number's bits as its kind keeps them, however many bytes it was written in; zero where it is missing.
    fn number_key(&self, key: &Field, (from, to): (usize, usize)) -> Result<u64> {
        let mut reader = WireReader::part(self.wire, from, to);
        if from == to {
            return Ok(0);
        }
        Ok(match key.spec.kind.wire_type() {
            WireType::Fixed32 => u64::from(reader.fixed32()?),
            WireType::Fixed64 => reader.fixed64()?,
            _ => kept_bits(key.spec.kind, reader.varint()?),
        })
    }

    /// Finds equal keys; they compare as bytes for text and by value for numbers.
    fn mark_replaced(&mut self, key: &Field, base: usize) -> Result<()> {
        let mut order: Vec<(Vec<u8>, usize)> = Vec::with_capacity(self.scratch.entries.len() - base);
        for index in base..self.scratch.entries.len() {
            let (from, to) = self.scratch.entries[index].key;
            let bytes = match key.spec.kind {
                Kind::String => self.wire[from..to].to_vec(),
                _ => self.number_key(key, (from, to))?.to_le_bytes().to_vec(),
            };
            order.push((bytes, index));
        }
        order.sort();
        for pair in order.windows(2) {
            if pair[0].0 == pair[1].0 {
                self.scratch.entries[pair[0].1].is_replaced = true;
            }
        }
        Ok(())
    }

    fn entry(&mut self, table: &'a MessageTable, entry: Entry) -> Step<()> {
        let comma = self.out.len();
        self.out.push(b',');
        self.map_key(table.field(FieldId(0)), entry.key)?;
        self.out.push(b':');
        let value = table.field(FieldId(1));
        let shown = match (entry.value, value.message()) {
            (Some(_), Some(id)) if entry.is_split => {
                let first = self.scratch.records.len();
                let mut reader = WireReader::part(self.wire, entry.entry.0, entry.entry.1);
                while let Some(part) = reader.record()? {
                    if part.number == value.spec.number && value.fits(part.wire_type) {
                        self.scratch.records.push(part);
                    }
                }
                let last = self.scratch.records.len();
                self.message(id, Source::Many(first, last))
                    .map_err(|stop| inside(stop, &self.key_segment(entry.key)))?;
                self.scratch.records.truncate(first);
                Shown::Value
            }
            (Some(part), Some(id)) => {
                self.message(id, Source::One(part.from, part.to))
                    .map_err(|stop| inside(stop, &self.key_segment(entry.key)))?;
                Shown::Value
            }
            (Some(part), None) => self.content(value, part.from, part.to)?,
            (None, Some(id)) => {
                self.message(id, Source::One(entry.entry.0, entry.entry.0))?;
                Shown::Value
            }
            (None, None) => {
                self.default_value(value);
                Shown::Zero
            }
        };
        if matches!(shown, Shown::Unknown) {
            self.out.truncate(comma);
        }
        Ok(())
    }

    #[cold]
    fn key_segment(&self, (from, to): (usize, usize)) -> String {
        format!("[\"{}\"]", String::from_utf8_lossy(&self.wire[from..to]))
    }

    #[inline(always)]
    fn map_key(&mut self, key: &'a Field, (from, to): (usize, usize)) -> Step<()> {
        if key.spec.kind == Kind::String {
            return self.text(from, to, key.spec.checks_utf8);
        }
        let start = self.out.len();
        self.out.push(b'"');
        if from == to {
            self.default_value(key);
        } else {
            self.value(key, WireReader::part(self.wire, from, to))?;
        }
        // 64-bit numbers bring quotes of their own.
        if self.out.get(start + 1) == Some(&b'"') {
            self.out.remove(start);
        } else {
            self.out.push(b'"');
        }
        Ok(())
    }
}
