//! Whether bytes are a valid encoding of a message, all the way down: what a protobuf body has to pass before it may
//! travel on.

use super::error::{ErrorKind, Result, TranscodeError};
use super::scan::{DEPTH_MAX, too_deep};
use super::table::{Cardinality, Kind, MessageId, Tables, WireType};
use super::wire::WireReader;

/// Checks framing, UTF-8 and depth of a message and everything in it.
pub fn check(tables: &Tables, message: MessageId, wire: &[u8]) -> Result<()> {
    check_part(tables, message, wire, 0, wire.len(), 0)
}

fn check_part(tables: &Tables, message: MessageId, wire: &[u8], from: usize, to: usize, depth: u32) -> Result<()> {
    if depth >= DEPTH_MAX {
        return Err(too_deep(from, DEPTH_MAX));
    }
    let table = tables.message(message);
    let mut reader = WireReader::part(wire, from, to);
    while let Some(record) = reader.record()? {
        let Some(field) = table.field_by_number(record.number).map(|id| table.field(id)) else { continue };
        let inside = |error: TranscodeError| error.inside(field.spec.name.as_str());
        // A map's entries are no level of their own: JSON shows none, and neither direction counts them.
        let below = depth + u32::from(field.spec.cardinality != Cardinality::Map);
        match field.spec.kind {
            Kind::Message(id) if record.wire_type == WireType::Length => {
                check_part(tables, id, wire, record.from, record.to, below).map_err(inside)?;
            }
            Kind::Group(id) if record.wire_type == WireType::StartGroup => {
                check_part(tables, id, wire, record.from, record.to, depth + 1).map_err(inside)?;
            }
            Kind::String
                if record.wire_type == WireType::Length
                    && field.spec.checks_utf8
                    && simdutf8::basic::from_utf8(&wire[record.from..record.to]).is_err() =>
            {
                return Err(inside(TranscodeError::new(ErrorKind::Wire, record.from, "text that is not UTF-8")));
            }
            kind if kind.is_packable()
                && record.wire_type == WireType::Length
                && field.spec.cardinality == Cardinality::Repeated =>
            {
                let mut packed = WireReader::part(wire, record.from, record.to);
                while !packed.is_done() {
                    packed.value(record.number, kind.wire_type()).map_err(inside)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
