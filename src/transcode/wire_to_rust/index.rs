//! Where the records of a message are: found in one pass, sorted by field number where they do not rise.

use super::super::error::Result;
use super::super::scan::{DEPTH_MAX, too_deep};
use super::super::table::{Cardinality, Field, Kind, MessageId, MessageTable, Tables, WireType};
use super::super::wire::{Record, WireReader};

/// Records for which the index has room from the start.
const RECORDS_AT_START: usize = 32;

/// Where a message's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// From one offset to another.
    One(usize, usize),
    /// The values of the index's records from one position to another, which merge.
    Many(usize, usize),
}

/// One walk over one message.
pub(super) struct Walk<'a> {
    pub(super) tables: &'a Tables,
    pub(super) wire: &'a [u8],
    /// A stack: the records of the present message lie on those of the messages around it.
    pub(super) records: Vec<Record>,
    depth: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tables: &'a Tables, wire: &'a [u8]) -> Walk<'a> {
        Walk { tables, wire, records: Vec::with_capacity(RECORDS_AT_START), depth: 0 }
    }

    /// Indexes a message one level deeper; the position of its first record. To be followed by [`Walk::leave`].
    pub(super) fn enter(&mut self, id: MessageId, source: Source) -> Result<usize> {
        if self.depth >= DEPTH_MAX {
            return Err(too_deep(self.offset(source), DEPTH_MAX));
        }
        self.depth += 1;
        let base = self.records.len();
        self.index(self.tables.message(id), source)?;
        Ok(base)
    }

    /// Forgets the records from `base` on.
    pub(super) fn leave(&mut self, base: usize) {
        self.records.truncate(base);
        self.depth -= 1;
    }

    /// Puts the records of known fields on the stack, in order of field numbers; of one number in order of appearance.
    /// False where a number that a closed enum does not know has been left out.
    pub(super) fn index(&mut self, table: &MessageTable, source: Source) -> Result<bool> {
        let base = self.records.len();
        let (mut is_rising, mut is_whole, mut before) = (true, true, 0);
        let pieces = match source {
            Source::One(..) => 0..1,
            Source::Many(first, last) => first..last,
        };
        for piece in pieces {
            let (from, to) = match source {
                Source::One(from, to) => (from, to),
                Source::Many(..) => (self.records[piece].from, self.records[piece].to),
            };
            let mut reader = WireReader::part(self.wire, from, to);
            while let Some(record) = reader.record()? {
                let Some(id) = table.field_by_number(record.number) else { continue };
                let field = table.field(id);
                if !field.fits(record.wire_type) {
                    continue;
                }
                if record.wire_type == WireType::Varint && !self.knows(field, record.from, record.to)? {
                    is_whole = false;
                    continue;
                }
                is_rising &= before <= record.number;
                before = record.number;
                self.records.push(record);
            }
        }
        if !is_rising {
            self.records[base..].sort_by_key(|record| record.number);
        }
        Ok(is_whole)
    }

    /// False for a number that a closed enum does not know, which counts as an unknown field.
    #[inline]
    pub(super) fn knows(&self, field: &Field, from: usize, to: usize) -> Result<bool> {
        let Kind::Enum(id) = field.spec.kind else { return Ok(true) };
        let table = self.tables.enumeration(id);
        if !table.is_closed {
            return Ok(true);
        }
        let number = WireReader::part(self.wire, from, to).varint()? as i32;
        Ok(table.printed_name(number).is_some())
    }

    /// The run of records with that number among those from `base` on; `hint` is tried first.
    #[inline]
    pub(super) fn run(&self, number: u32, base: usize, last: usize, hint: usize) -> (usize, usize) {
        let records = &self.records[..last];
        let is_hit = records.get(hint).is_some_and(|record| record.number >= number)
            && (hint == base || records[hint - 1].number < number);
        let first = if is_hit { hint } else { base + records[base..].partition_point(|record| record.number < number) };
        let len = records[first..].iter().take_while(|record| record.number == number).count();
        (first, first + len)
    }

    /// Where a message begins.
    pub(super) fn offset(&self, source: Source) -> usize {
        match source {
            Source::One(from, _) => from,
            Source::Many(first, _) => self.records.get(first).map_or(0, |record| record.from),
        }
    }
}

/// True where a record is a run of packed values.
pub(super) fn is_packed(field: &Field, record: &Record) -> bool {
    record.wire_type == WireType::Length
        && field.spec.cardinality == Cardinality::Repeated
        && field.spec.kind.is_packable()
}
