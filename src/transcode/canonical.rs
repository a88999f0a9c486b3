//! Wire → canonical wire: equal messages in any legal encoding give equal bytes. What idempotency fingerprints and
//! cache keys are made of; not for the request path.
//!
//! Number order, maps sorted by key, lists packed as the schema says, shortest varints, zeros of fields without
//! presence left out, unknown fields behind the known ones by number.

use super::error::Result;
use super::scan::{DEPTH_MAX, too_deep};
use super::table::{Cardinality, Field, FieldId, Kind, MessageId, MessageTable, Presence, Tables, WireType};
use super::wire::{Record, WireReader, kept_bits, put_bytes, put_varint};

/// The canonical bytes of a message, without the field `leave_out` (the caller context, which differs from call to
/// call). Fails where the bytes are no legal encoding.
pub fn canonical(tables: &Tables, message: MessageId, leave_out: Option<FieldId>, wire: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(wire.len());
    let walk = Walk { tables, wire };
    walk.message(tables.message(message), leave_out, &[(0, wire.len())], 1, &mut out)?;
    Ok(out)
}

struct Walk<'a> {
    tables: &'a Tables,
    wire: &'a [u8],
}

/// Offsets of a message's pieces, which merge.
type Pieces<'p> = &'p [(usize, usize)];

impl Walk<'_> {
    fn message(
        &self,
        table: &MessageTable,
        leave_out: Option<FieldId>,
        pieces: Pieces<'_>,
        depth: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(too_deep(pieces.first().map_or(0, |piece| piece.0), DEPTH_MAX));
        }
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (from, to) in pieces {
            let mut reader = WireReader::part(self.wire, *from, *to);
            loop {
                let start = reader.at();
                let Some(record) = reader.record()? else { break };
                let id = table.field_by_number(record.number).filter(|id| table.field(*id).fits(record.wire_type));
                match id {
                    Some(id) if Some(id) == leave_out => {}
                    Some(id) if !self.is_unknown_value(table.field(id), record)? => known.push((id, record)),
                    _ => unknown.push((record.number, start, reader.at())),
                }
            }
        }
        drop_losing_members(table, &mut known);
        known.sort_by_key(|(id, _)| *id);
        for run in known.chunk_by(|a, b| a.0 == b.0) {
            let records: Vec<Record> = run.iter().map(|(_, record)| *record).collect();
            self.field(table.field(run[0].0), &records, depth, out)?;
        }
        unknown.sort_by_key(|row| row.0);
        unknown.iter().for_each(|(_, from, to)| out.extend_from_slice(&self.wire[*from..*to]));
        Ok(())
    }

    fn field(&self, field: &Field, records: &[Record], depth: u32, out: &mut Vec<u8>) -> Result<()> {
        match (field.spec.cardinality, field.message()) {
            (Cardinality::Map, Some(entry)) => self.map(field, self.tables.message(entry), records, depth, out),
            (Cardinality::Single, Some(id)) => {
                let pieces: Vec<_> = records.iter().map(|record| (record.from, record.to)).collect();
                self.inner(field, id, &pieces, depth, out)
            }
            (_, Some(id)) => {
                records.iter().try_for_each(|record| self.inner(field, id, &[(record.from, record.to)], depth, out))
            }
            (Cardinality::Repeated, None) => self.list(field, records, out),
            (_, None) => {
                let Some(last) = records.last() else { return Ok(()) };
                let mut value = Vec::new();
                let is_zero = self.scalar(field.spec.kind, *last, &mut value)?;
                if !is_zero || field.spec.presence != Presence::Implicit {
                    out.extend_from_slice(field.tag());
                    out.extend_from_slice(&value);
                }
                Ok(())
            }
        }
    }

    /// A message or group with its tag.
    fn inner(&self, field: &Field, id: MessageId, pieces: Pieces<'_>, depth: u32, out: &mut Vec<u8>) -> Result<()> {
        let mut content = Vec::new();
        self.message(self.tables.message(id), None, pieces, depth + 1, &mut content)?;
        out.extend_from_slice(field.tag());
        if matches!(field.spec.kind, Kind::Group(_)) {
            out.extend_from_slice(&content);
            put_varint(u64::from(field.spec.number) << 3 | WireType::EndGroup as u64, out);
        } else {
            put_varint(content.len() as u64, out);
            out.extend_from_slice(&content);
        }
        Ok(())
    }

    fn list(&self, field: &Field, records: &[Record], out: &mut Vec<u8>) -> Result<()> {
        let mut values = Vec::new();
        for record in records {
            let is_packed = record.wire_type == WireType::Length && field.spec.kind.is_packable();
            let mut reader = WireReader::part(self.wire, record.from, record.to);
            while is_packed && !reader.is_done() {
                let (from, to) = reader.value(record.number, field.spec.kind.wire_type())?;
                values.push(Record { from, to, ..*record });
            }
            if !is_packed {
                values.push(*record);
            }
        }
        let mut packed = Vec::new();
        for value in values {
            if field.spec.is_packed {
                self.scalar(field.spec.kind, value, &mut packed)?;
            } else {
                out.extend_from_slice(field.tag());
                self.scalar(field.spec.kind, value, out)?;
            }
        }
        if !packed.is_empty() {
            out.extend_from_slice(field.tag());
            put_varint(packed.len() as u64, out);
            out.extend_from_slice(&packed);
        }
        Ok(())
    }

    /// Entries sorted by the bytes of their keys, each with key and value; of equal keys the last one stays.
    fn map(
        &self,
        field: &Field,
        entry: &MessageTable,
        records: &[Record],
        depth: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let (key, value) = (entry.field(FieldId(0)), entry.field(FieldId(1)));
        let mut entries: Vec<(Vec<u8>, usize)> = Vec::with_capacity(records.len());
        let mut unknown = Vec::new();
        for (index, record) in records.iter().enumerate() {
            if let Some(last) = self.parts(entry, value, *record)?.last()
                && self.is_unknown_value(value, *last)?
            {
                unknown.push(record);
                continue;
            }
            let mut bytes = Vec::new();
            match self.parts(entry, key, *record)?.last() {
                Some(last) => self.scalar(key.spec.kind, *last, &mut bytes).map(|_| ())?,
                None => put_zero(key.spec.kind, &mut bytes),
            }
            entries.push((bytes, index));
        }
        entries.sort();
        let mut entries = entries.into_iter().peekable();
        while let Some((bytes, index)) = entries.next() {
            if entries.peek().is_some_and(|(next, _)| *next == bytes) {
                continue;
            }
            let mut content = key.tag().to_vec();
            content.extend_from_slice(&bytes);
            let parts = self.parts(entry, value, records[index])?;
            match (value.message(), parts.last()) {
                (Some(id), _) => {
                    let pieces: Vec<_> = parts.iter().map(|part| (part.from, part.to)).collect();
                    self.inner(value, id, &pieces, depth, &mut content)?;
                }
                (None, last) => {
                    content.extend_from_slice(value.tag());
                    match last {
                        Some(last) => self.scalar(value.spec.kind, *last, &mut content).map(|_| ())?,
                        None => put_zero(value.spec.kind, &mut content),
                    }
                }
            }
            out.extend_from_slice(field.tag());
            put_varint(content.len() as u64, out);
            out.extend_from_slice(&content);
        }
        for record in unknown {
            put_bytes(field.spec.number, &self.wire[record.from..record.to], out);
        }
        Ok(())
    }

    /// A number that a closed enum does not know: the record counts as an unknown field.
    fn is_unknown_value(&self, field: &Field, record: Record) -> Result<bool> {
        let Kind::Enum(id) = field.spec.kind else { return Ok(false) };
        let table = self.tables.enumeration(id);
        if field.spec.cardinality != Cardinality::Single || !table.is_closed {
            return Ok(false);
        }
        let number = WireReader::part(self.wire, record.from, record.to).varint()? as i32;
        Ok(table.printed_name(number).is_none())
    }

    /// The records of one field of a map entry.
    fn parts(&self, entry: &MessageTable, field: &Field, record: Record) -> Result<Vec<Record>> {
        let mut reader = WireReader::part(self.wire, record.from, record.to);
        let mut parts = Vec::new();
        while let Some(part) = reader.record()? {
            let id = entry.field_by_number(part.number);
            if id.is_some_and(|id| entry.field(id).spec.number == field.spec.number) && field.fits(part.wire_type) {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// One value without its tag; true where it is zero.
    fn scalar(&self, kind: Kind, record: Record, out: &mut Vec<u8>) -> Result<bool> {
        let bytes = &self.wire[record.from..record.to];
        match kind.wire_type() {
            WireType::Varint => {
                let bits = WireReader::part(self.wire, record.from, record.to).varint()?;
                let bits = kept_bits(kind, bits);
                put_varint(bits, out);
                Ok(bits == 0)
            }
            WireType::Length => {
                put_varint(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
                Ok(bytes.is_empty())
            }
            _ => {
                out.extend_from_slice(bytes);
                Ok(bytes.iter().all(|byte| *byte == 0))
            }
        }
    }
}

/// Appends the zero of a scalar kind, without a tag.
fn put_zero(kind: Kind, out: &mut Vec<u8>) {
    let len = match kind.wire_type() {
        WireType::Fixed64 => 8,
        WireType::Fixed32 => 4,
        _ => 1,
    };
    out.extend_from_slice(&[0; 8][..len]);
}

/// Of each oneof only the records of its last member stay, and of those only the ones behind every other member.
fn drop_losing_members(table: &MessageTable, known: &mut Vec<(FieldId, Record)>) {
    let mut last: Vec<Option<FieldId>> = vec![None; table.oneofs.len()];
    let mut is_over = vec![false; table.oneofs.len()];
    let mut stays = vec![true; known.len()];
    for (index, (id, _)) in known.iter().enumerate().rev() {
        let Some(oneof) = table.field(*id).spec.oneof.map(|oneof| usize::from(oneof.0)) else { continue };
        is_over[oneof] |= last[oneof].is_some_and(|last| last != *id);
        last[oneof].get_or_insert(*id);
        stays[index] = !is_over[oneof];
    }
    let mut stays = stays.into_iter();
    known.retain(|_| stays.next().unwrap_or(true));
}
