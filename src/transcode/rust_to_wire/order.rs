//! Puts records into number order, and map entries into key order, where a struct or a hash map gave them otherwise.
//! The cold half: what is in order already is only looked at.

use super::super::error::Result;
use super::super::table::{Field, Kind, WireType};
use super::super::wire::WireReader;

/// Sorts the top-level records of `out` from `from` on by field number, those of one number in the order they have.
///
/// Fails where the bytes are no records; `out` is then unchanged.
pub fn number_order(out: &mut [u8], from: usize) -> Result<()> {
    let mut reader = WireReader::part(out, from, out.len());
    let mut before = 0;
    let mut is_rising = true;
    while let Some(record) = reader.record()? {
        is_rising &= before <= record.number;
        before = record.number;
    }
    if is_rising {
        return Ok(());
    }
    let mut records = Vec::new();
    let mut reader = WireReader::part(out, from, out.len());
    let mut at = from;
    while let Some(record) = reader.record()? {
        records.push((record.number, at, reader.at()));
        at = reader.at();
    }
    records.sort_by_key(|record| record.0);
    permute(out, from, records.iter().map(|record| (record.1, record.2)));
    Ok(())
}

/// Sorts the entries of one map, which are the records of `out` from `from` on, by their keys.
pub(super) fn key_order(key: &Field, out: &mut [u8], from: usize) -> Result<()> {
    let mut entries = Vec::new();
    let mut reader = WireReader::part(out, from, out.len());
    while !reader.is_done() {
        let at = reader.at();
        let found = key_at(key, out, at)?;
        reader.record()?;
        entries.push((found, at, reader.at()));
    }
    entries.sort();
    let places: Vec<(usize, usize)> = entries.iter().map(|entry| (entry.1, entry.2)).collect();
    permute(out, from, places.into_iter());
    Ok(())
}

/// A map key as it is ordered: numbers by value, text by its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'o> {
    Number(i128),
    Text(&'o [u8]),
}

/// The key of the map entry whose tag is at `at`; our own entries begin with their key.
pub(super) fn key_at<'o>(key: &Field, out: &'o [u8], at: usize) -> Result<Key<'o>> {
    let mut reader = WireReader::part(out, at, out.len());
    reader.tag()?;
    reader.varint()?;
    reader.tag()?;
    Ok(match key.spec.kind {
        Kind::Int32 | Kind::Int64 => Key::Number((reader.varint()? as i64).into()),
        Kind::Sint32 | Kind::Sint64 => {
            let value = reader.varint()?;
            Key::Number(((value >> 1) as i64 ^ -((value & 1) as i64)).into())
        }
        Kind::Sfixed32 => Key::Number((reader.fixed32()? as i32).into()),
        Kind::Sfixed64 => Key::Number((reader.fixed64()? as i64).into()),
        kind => match kind.wire_type() {
            WireType::Varint => Key::Number(reader.varint()?.into()),
            WireType::Fixed32 => Key::Number(reader.fixed32()?.into()),
            WireType::Fixed64 => Key::Number(reader.fixed64()?.into()),
            _ => {
                let (from, to) = reader.length()?;
                Key::Text(&out[from..to])
            }
        },
    })
}

/// Lays the pieces of `out` from `from` on anew, in this order.
fn permute(out: &mut [u8], from: usize, pieces: impl Iterator<Item = (usize, usize)>) {
    let old = out[from..].to_vec();
    let mut at = from;
    for (start, end) in pieces {
        let len = end - start;
        out[at..at + len].copy_from_slice(&old[start - from..end - from]);
        at += len;
    }
}
