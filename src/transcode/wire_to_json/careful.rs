//! The careful way: the records of a message indexed, sorted by field number (stable, so that later still means
//! later), and merged.

use super::super::error::Result;
use super::super::table::{Cardinality, Field, FieldId, Kind, MessageId, MessageTable, WireType};
use super::super::wire::{Record, WireReader};
use super::fields::Shown;
use super::hopeful::inside;
use super::{Defaults, Printer, Source, Step};

/// The winning member of a oneof: its number, and where its present run of records began.
struct Winner {
    oneof: u16,
    number: u32,
    from: usize,
}

impl<'a> Printer<'a> {
    /// The members of a message in any number of pieces.
    pub(super) fn careful_members(&mut self, table: &'a MessageTable, source: Source) -> Step<()> {
        let base = self.scratch.records.len();
        let winners = self.index(table, source)?;
        let last = self.scratch.records.len();
        let (mut first, mut next) = (base, 0);
        while first < last {
            let number = self.scratch.records[first].number;
            let end = first + self.scratch.records[first..last].partition_point(|record| record.number == number);
            if let Some(id) = table.field_by_number(number) {
                let index = usize::from(id.0);
                if self.options.defaults == Defaults::Print {
                    self.print_defaults(table, next, index);
                }
                next = index + 1;
                let field = table.field(id);
                self.merged(field, &winners, first, end).map_err(|stop| inside(stop, &field.spec.name))?;
            }
            first = end;
        }
        if self.options.defaults == Defaults::Print {
            self.print_defaults(table, next, table.fields.len());
        }
        self.scratch.records.truncate(base);
        Ok(())
    }

    /// Puts the records of known fields behind those in the scratch, sorted, and finds who wins each oneof.
    fn index(&mut self, table: &MessageTable, source: Source) -> Step<Vec<Winner>> {
        let base = self.scratch.records.len();
        let mut winners: Vec<Winner> = Vec::new();
        let (mut is_sorted, mut before) = (true, 0);
        let pieces = match source {
            Source::One(..) => 0..1,
            Source::Many(first, last) => first..last,
        };
        for piece in pieces {
            let mut reader = match source {
                Source::One(from, to) => WireReader::part(self.wire, from, to),
                Source::Many(..) => {
                    let record = self.scratch.records[piece];
                    WireReader::part(self.wire, record.from, record.to)
                }
            };
            while let Some(record) = reader.record()? {
                let Some(id) = table.field_by_number(record.number) else { continue };
                let field = table.field(id);
                if !field.fits(record.wire_type) {
                    continue;
                }
                is_sorted &= before <= record.number;
                before = record.number;
                if let Some(oneof) = field.spec.oneof {
                    if self.is_unknown_value(field, record)? {
                        continue;
                    }
                    note_winner(&mut winners, oneof.0, record);
                }
                self.scratch.records.push(record);
            }
        }
        if !is_sorted {
            self.scratch.records[base..].sort_by_key(|record| record.number);
        }
        Ok(winners)
    }

    /// A number that a closed enum does not know sets nothing, no oneof either.
    pub(super) fn is_unknown_value(&self, field: &Field, record: Record) -> Result<bool> {
        let Kind::Enum(id) = field.spec.kind else { return Ok(false) };
        let table = self.tables.enumeration(id);
        let number = WireReader::part(self.wire, record.from, record.to).varint()? as i32;
        Ok(table.is_closed && table.printed_name(number).is_none())
    }

    /// One field from all its records.
    fn merged(&mut self, field: &'a Field, winners: &[Winner], first: usize, end: usize) -> Step<()> {
        match field.spec.cardinality {
            Cardinality::Map => self.map(field, first, end),
            Cardinality::Repeated => {
                let start = self.out.len();
                self.key(field);
                let bracket = self.out.len();
                self.merged_elements(field, first, end)?;
                self.close_list(start, bracket);
                Ok(())
            }
            Cardinality::Single => {
                let mut first = first;
                if let Some(oneof) = field.spec.oneof {
                    let winner = winners.iter().find(|winner| winner.oneof == oneof.0);
                    match winner.filter(|winner| winner.number == field.spec.number) {
                        Some(winner) => {
                            let run = &self.scratch.records[first..end];
                            first += run.partition_point(|record| record.from < winner.from);
                        }
                        None => return Ok(()),
                    }
                }
                self.merged_single(field, first, end)
            }
        }
    }

    fn merged_single(&mut self, field: &'a Field, first: usize, end: usize) -> Step<()> {
        if let Some(id) = field.message() {
            self.key(field);
            return self.merged_message(id, first, end);
        }
        // The last record wins; one with a number that a closed enum does not know is no record of this field.
        let start = self.out.len();
        for index in (first..end).rev() {
            self.key(field);
            let record = self.scratch.records[index];
            match self.content(field, record.from, record.to)? {
                Shown::Unknown => self.out.truncate(start),
                Shown::Zero if !keeps_zero(field) && self.options.defaults == Defaults::Omit => {
                    self.out.truncate(start);
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn merged_message(&mut self, id: MessageId, first: usize, end: usize) -> Step<()> {
        if end - first == 1 {
            let record = self.scratch.records[first];
            return self.message(id, Source::One(record.from, record.to));
        }
        self.message(id, Source::Many(first, end))
    }

    /// The elements of a list from all its records, each with a comma before it.
    pub(super) fn merged_elements(&mut self, field: &'a Field, first: usize, end: usize) -> Step<()> {
        for index in first..end {
            let record = self.scratch.records[index];
            let is_packed = record.wire_type == WireType::Length && field.spec.kind.is_packable();
            let mut reader = WireReader::part(self.wire, record.from, record.to);
            while is_packed && !reader.is_done() {
                let comma = self.out.len();
                self.out.push(b',');
                let (shown, rest) = self.value(field, reader)?;
                if matches!(shown, Shown::Unknown) {
                    self.out.truncate(comma);
                }
                reader = rest;
            }
            if !is_packed {
                let comma = self.out.len();
                self.out.push(b',');
                if matches!(self.content(field, record.from, record.to)?, Shown::Unknown) {
                    self.out.truncate(comma);
                }
            }
        }
        Ok(())
    }

    /// One field's value alone, its default form where it is absent.
    pub(super) fn one_field(&mut self, message: MessageId, id: FieldId, source: Source) -> Step<()> {
        let table = self.tables.message(message);
        let field = table.field(id);
        let base = self.scratch.records.len();
        self.depth = 1;
        let winners = self.index(table, source)?;
        let own = self.scratch.records[base..].iter().filter(|record| record.number == field.spec.number);
        let own: Vec<Record> = own.copied().collect();
        self.scratch.records.truncate(base);
        self.scratch.records.extend(own);
        let last = self.scratch.records.len();
        let start = self.out.len();
        self.merged(field, &winners, base, last)?;
        // What `merged` wrote begins with a comma and the name, which a bare value does not have.
        let prefix = field.key(self.options.names).len();
        if self.out.len() > start {
            self.out.drain(start..start + prefix);
        } else if let Some(id) = field.message().filter(|_| field.spec.cardinality == Cardinality::Single) {
            self.message(id, Source::One(0, 0))?;
        } else {
            self.default_value(field);
        }
        Ok(())
    }
}

fn keeps_zero(field: &Field) -> bool {
    field.spec.presence != super::Presence::Implicit
}

fn note_winner(winners: &mut Vec<Winner>, oneof: u16, record: Record) {
    match winners.iter_mut().find(|winner| winner.oneof == oneof) {
        Some(winner) if winner.number != record.number => {
            (winner.number, winner.from) = (record.number, record.from);
        }
        Some(_) => {}
        None => winners.push(Winner { oneof, number: record.number, from: record.from }),
    }
}
