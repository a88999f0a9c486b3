//! The hopeful way: records in order of field numbers, each printed as it comes.

use super::super::table::{Cardinality, Field, MessageTable, WireType};
use super::super::wire::{Record, WireReader};
use super::{Defaults, Oneofs, Printer, Step, Stop};

impl<'a> Printer<'a> {
    /// The members of a message that lies in one piece.
    pub(super) fn hopeful_members(&mut self, table: &'a MessageTable, from: usize, to: usize) -> Step<()> {
        let mut reader = WireReader::part(self.wire, from, to);
        let mut next = 0;
        let mut oneofs = Oneofs::default();
        let prints_defaults = self.options.defaults == Defaults::Print;
        while !reader.is_done() {
            let Some((index, field, is_length)) = next_field(table, &mut reader)? else { continue };
            if index < next {
                return Err(Stop::Disorder);
            }
            if let Some(oneof) = field.spec.oneof
                && !oneofs.insert(oneof)
            {
                return Err(Stop::Disorder);
            }
            if prints_defaults {
                self.print_defaults(table, next, index);
            }
            next = index + 1;
            match field.spec.cardinality {
                Cardinality::Single => self.single(field, &mut reader),
                Cardinality::Repeated => self.list(field, is_length, &mut reader),
                Cardinality::Map => self.hopeful_map(field, &mut reader),
            }
            .map_err(|stop| inside(stop, &field.spec.name))?;
        }
        if prints_defaults {
            self.print_defaults(table, next, table.fields.len());
        }
        Ok(())
    }

    #[inline(always)]
    fn list(&mut self, field: &'a Field, is_length: bool, reader: &mut WireReader<'a>) -> Step<()> {
        *reader = self.whole_list(field, is_length, reader.clone())?;
        Ok(())
    }

    /// A list whose first record `reader` stands in; gives what comes behind its last one.
    #[inline(never)]
    fn whole_list(
        &mut self,
        field: &'a Field,
        mut is_length: bool,
        mut reader: WireReader<'a>,
    ) -> Step<WireReader<'a>> {
        let start = self.out.len();
        self.key(field);
        let bracket = self.out.len();
        loop {
            self.elements(field, is_length, &mut reader)?;
            match next_of_field(field, &mut reader)? {
                Some(next) => is_length = next,
                None => break,
            }
        }
        self.close_list(start, bracket);
        Ok(reader)
    }

    #[inline(always)]
    fn hopeful_map(&mut self, field: &'a Field, reader: &mut WireReader<'a>) -> Step<()> {
        let start = self.out.len();
        *reader = match self.quick_map(field, reader.clone())? {
            Some(behind) => behind,
            None => {
                self.out.truncate(start);
                self.any_map(field, reader.clone())?
            }
        };
        Ok(())
    }

    /// A map with its entries in any form and order.
    #[inline(never)]
    fn any_map(&mut self, field: &'a Field, mut reader: WireReader<'a>) -> Step<WireReader<'a>> {
        let first = self.scratch.records.len();
        loop {
            let (from, to) = reader.length()?;
            self.scratch.records.push(Record { number: field.spec.number, wire_type: WireType::Length, from, to });
            if next_of_field(field, &mut reader)?.is_none() {
                break;
            }
        }
        let last = self.scratch.records.len();
        let result = self.map(field, first, last);
        self.scratch.records.truncate(first);
        result.map(|()| reader)
    }
}

/// A field's index, the field, and whether its record is length-delimited.
type Found<'t> = Option<(usize, &'t Field, bool)>;

/// Steps over the next tag; over the whole record, and `None`, where it is no value of a field.
#[inline(always)]
fn next_field<'t>(table: &'t MessageTable, reader: &mut WireReader) -> Step<Found<'t>> {
    if let Some(tag) = reader.peek()
        && let Some((index, field)) = table.field_by_short_tag(tag)
    {
        reader.step();
        return Ok(Some((index, field, tag & 7 == WireType::Length as u8)));
    }
    let (found, behind) = next_field_long(table, reader.clone())?;
    *reader = behind;
    Ok(found)
}

#[inline(never)]
fn next_field_long<'t, 'a>(table: &'t MessageTable, mut reader: WireReader<'a>) -> Step<(Found<'t>, WireReader<'a>)> {
    let (number, wire_type) = reader.tag()?;
    match table.field_by_number(number).map(|id| (usize::from(id.0), table.field(id))) {
        Some((index, field)) if field.fits(wire_type) => {
            Ok((Some((index, field, wire_type == WireType::Length)), reader))
        }
        _ => {
            reader.value(number, wire_type)?;
            Ok((None, reader))
        }
    }
}

/// Steps over the next tag if it belongs to the same field; whether its record is length-delimited.
#[inline(always)]
pub(super) fn next_of_field(field: &Field, reader: &mut WireReader) -> Step<Option<bool>> {
    let Some(tag) = reader.peek() else { return Ok(None) };
    if tag < 0x80 && u32::from(tag >> 3) != field.spec.number {
        return Ok(None);
    }
    let mut ahead = reader.clone();
    let (number, wire_type) = ahead.tag()?;
    if number != field.spec.number || !field.fits(wire_type) {
        return Ok(None);
    }
    *reader = ahead;
    Ok(Some(wire_type == WireType::Length))
}

/// The same stop, seen from the field around it.
#[cold]
pub(super) fn inside(stop: Stop, segment: &str) -> Stop {
    match stop {
        Stop::Error(error) => Stop::Error(error.inside(segment)),
        Stop::Disorder => Stop::Disorder,
    }
}
