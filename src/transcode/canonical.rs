//! Wire → canonical wire: equal messages in any legal encoding give equal bytes. What idempotency fingerprints and
//! cache keys are made of; not for the request path.
//!
//! Number order, maps sorted by key, lists packed as the schema says, shortest varints, zeros of fields without
//! presence left out, unknown fields behind the known ones by number.

use super::error::Result;
use super::scan::{DEPTH_MAX, too_deep};
use super::table::{Cardinality, Field, FieldId, Kind, MessageId, MessageTable, Presence, Tables, WireType};
use super::wire::{Record, WireReader, put_varint};

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
                match table.field_by_number(record.number).filter(|id| table.field(*id).fits(record.wire_type)) {
                    Some(id) if Some(id) == leave_out => {}
                    Some(id) => known.push((id, record)),
                    None => unknown.push((record.number, start, reader.at())),
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

    /// Entries sorted by the bytes of their keys; of equal keys the last one stays.
    fn map(
        &self,
        field: &Field,
        entry: &MessageTable,
        records: &[Record],
        depth: u32,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for record in records {
            let mut content = Vec::new();
            self.message(entry, None, &[(record.from, record.to)], depth + 1, &mut content)?;
            let mut reader = WireReader::new(&content);
            let first = reader.record()?.filter(|part| part.number == 1);
            let key = first.map_or_else(Vec::new, |part| content[part.from..part.to].to_vec());
            entries.retain(|known| known.0 != key);
            entries.push((key, content));
        }
        entries.sort();
        for (_, content) in entries {
            out.extend_from_slice(field.tag());
            put_varint(content.len() as u64, out);
            out.extend_from_slice(&content);
        }
        Ok(())
    }

    /// One value without its tag; true where it is zero.
    fn scalar(&self, kind: Kind, record: Record, out: &mut Vec<u8>) -> Result<bool> {
        let bytes = &self.wire[record.from..record.to];
        match kind.wire_type() {
            WireType::Varint => {
                let bits = WireReader::part(self.wire, record.from, record.to).varint()?;
                let bits = match kind {
                    // 32-bit kinds keep 32 bits, whatever was written; int32 and enums are sign-extended.
                    Kind::Int32 | Kind::Enum(_) => bits as i32 as i64 as u64,
                    Kind::Uint32 | Kind::Sint32 => u64::from(bits as u32),
                    Kind::Bool => u64::from(bits != 0),
                    _ => bits,
                };
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

/// Of each oneof only the records since its last member was first set stay.
fn drop_losing_members(table: &MessageTable, known: &mut Vec<(FieldId, Record)>) {
    let oneof_of = |id: FieldId| table.field(id).spec.oneof;
    let mut lost = vec![false; known.len()];
    for (index, (id, _)) in known.iter().enumerate() {
        let Some(oneof) = oneof_of(*id) else { continue };
        let is_replaced = known[index + 1..].iter().any(|(later, _)| oneof_of(*later) == Some(oneof) && later != id);
        lost[index] = is_replaced;
    }
    let mut lost = lost.into_iter();
    known.retain(|_| !lost.next().unwrap_or(false));
}
