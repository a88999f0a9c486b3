//! The hopeful way: records in order of field numbers, each printed as it comes.

use super::super::table::{Cardinality, Field, FieldId, MessageTable, WireType};
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
            let Some((id, wire_type)) = next_field(table, &mut reader)? else { continue };
            let field = table.field(id);
            let index = usize::from(id.0);
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
            self.hopeful_field(field, wire_type, &mut reader).map_err(|stop| inside(stop, &field.spec.name))?;
        }
        if prints_defaults {
            self.print_defaults(table, next, table.fields.len());
        }
        Ok(())
    }

    #[inline(always)]
    fn hopeful_field(&mut self, field: &'a Field, wire_type: WireType, reader: &mut WireReader<'a>) -> Step<()> {
        match field.spec.cardinality {
            Cardinality::Single => self.single(field, reader),
            Cardinality::Repeated => {
                let start = self.out.len();
                self.key(field);
                let bracket = self.out.len();
                let mut wire_type = wire_type;
                loop {
                    self.elements(field, wire_type, reader)?;
                    match next_of_field(field, reader)? {
                        Some(next) => wire_type = next,
                        None => break,
                    }
                }
                self.close_list(start, bracket);
                Ok(())
            }
            Cardinality::Map => {
                let (start, behind_tag) = (self.out.len(), reader.clone());
                if self.quick_map(field, reader)? {
                    return Ok(());
                }
                self.out.truncate(start);
                *reader = behind_tag;
                let first = self.scratch.records.len();
                loop {
                    let (from, to) = reader.length()?;
                    self.scratch.records.push(Record { number: field.spec.number, wire_type, from, to });
                    if next_of_field(field, reader)?.is_none() {
                        break;
                    }
                }
                let last = self.scratch.records.len();
                let result = self.map(field, first, last);
                self.scratch.records.truncate(first);
                result
            }
        }
    }
}

/// Steps over the next tag; over the whole record, and `None`, where it is no value of a field.
#[inline]
fn next_field(table: &MessageTable, reader: &mut WireReader) -> Step<Option<(FieldId, WireType)>> {
    if let Some(tag) = reader.short()
        && let Some(id) = table.field_by_short_tag(tag)
    {
        reader.step();
        let own = table.field(id).spec.kind.wire_type();
        let is_own = tag & 7 == own as u8;
        return Ok(Some((id, if is_own { own } else { WireType::Length })));
    }
    next_field_long(table, reader)
}

#[inline(never)]
fn next_field_long(table: &MessageTable, reader: &mut WireReader) -> Step<Option<(FieldId, WireType)>> {
    let (number, wire_type) = reader.tag()?;
    match table.field_by_number(number).filter(|id| table.field(*id).fits(wire_type)) {
        Some(id) => Ok(Some((id, wire_type))),
        None => reader.value(number, wire_type).map(|_| None).map_err(Stop::Error),
    }
}

/// Steps over the next tag if it belongs to the same field.
#[inline(always)]
pub(super) fn next_of_field(field: &Field, reader: &mut WireReader) -> Step<Option<WireType>> {
    if reader.is_done() || reader.short().is_some_and(|tag| u32::from(tag >> 3) != field.spec.number) {
        return Ok(None);
    }
    let mut ahead = reader.clone();
    let (number, wire_type) = ahead.tag()?;
    if number != field.spec.number || !field.fits(wire_type) {
        return Ok(None);
    }
    *reader = ahead;
    Ok(Some(wire_type))
}

/// The same stop, seen from the field around it.
#[cold]
pub(super) fn inside(stop: Stop, segment: &str) -> Stop {
    match stop {
        Stop::Error(error) => Stop::Error(error.inside(segment)),
        Stop::Disorder => Stop::Disorder,
    }
}
