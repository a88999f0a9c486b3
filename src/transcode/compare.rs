//! Two encodings of a message, compared field by field as their meaning goes: order of records, packing, defaults and split
//! messages make no difference. What is unknown to the tables is not looked at. Not for the request path.

use std::collections::BTreeMap;

use super::canonical::canonical;
use super::error::Result;
use super::scan::{DEPTH_MAX, too_deep};
use super::table::{Cardinality, Field, Kind, MessageId, MessageTable, Presence, Shape, Tables, WireType};
use super::wire::WireReader;

/// Most differing paths that one comparison gives.
pub const DIFFERENCES_MAX: usize = 32;
/// Longest list whose elements find each other in any order; those of longer ones are put in order first.
const UNORDERED_MAX: usize = 256;

/// What counts as the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sameness {
    /// Paths of field numbers that are not looked at. They go through lists and the values of maps.
    pub ignored: Vec<Box<[u32]>>,
    /// Paths of lists whose order says nothing.
    pub unordered: Vec<Box<[u32]>>,
    /// Numbers with fractions may lie apart by this part of the larger one, or by as much where both are below 1.
    pub tolerance: f64,
}

impl Sameness {
    /// Resolves `a.b.c` for `ignored` and `unordered`: through single messages, lists and values of maps. Fails with what
    /// is wrong.
    pub fn path(tables: &Tables, message: MessageId, text: &str) -> std::result::Result<(Box<[u32]>, bool), String> {
        let (mut numbers, mut inside, mut is_list) = (Vec::new(), Some(message), false);
        for segment in text.split('.') {
            let Some(here) = inside else { return Err(format!("`{text}`: nothing is below a value")) };
            let table = tables.message(here);
            let id = table.field_by_name(segment.as_bytes());
            let id = id.ok_or_else(|| format!("`{text}`: `{}` has no field `{segment}`", table.name))?;
            let field = table.field(id);
            numbers.push(field.spec.number);
            is_list = field.spec.cardinality == Cardinality::Repeated;
            inside = match field.spec.cardinality {
                Cardinality::Map => field.message().and_then(|entry| map_value(tables.message(entry))?.message()),
                _ => field.message(),
            };
        }
        Ok((numbers.into(), is_list))
    }
}

fn map_value(entry: &MessageTable) -> Option<&Field> {
    entry.field_by_number(2).map(|id| entry.field(id))
}

/// The dotted paths of the fields that differ, in proto names, each once; empty where the two mean the same. Lists and
/// maps are not numbered, so that equal differences have equal paths.
///
/// Fails where one of the two is no legal encoding.
pub fn differences(
    tables: &Tables,
    message: MessageId,
    sameness: &Sameness,
    before: &[u8],
    after: &[u8],
) -> Result<Vec<String>> {
    let mut walk = Walk { tables, sameness, numbers: Vec::new(), names: Vec::new(), found: Vec::new() };
    walk.message(message, &[before], &[after])?;
    Ok(walk.found)
}

struct Walk<'a> {
    tables: &'a Tables,
    sameness: &'a Sameness,
    /// Where the walk is.
    numbers: Vec<u32>,
    names: Vec<&'a str>,
    found: Vec<String>,
}

/// The pieces of a message, which merge.
type Pieces<'p> = [&'p [u8]];
/// The values of one field in one message, without tags.
type Values<'p> = Vec<&'p [u8]>;

impl<'a> Walk<'a> {
    fn differs(&mut self) {
        let path = self.names.join(".");
        if self.found.len() < DIFFERENCES_MAX && !self.found.contains(&path) {
            self.found.push(path);
        }
    }

    fn message(&mut self, id: MessageId, before: &Pieces<'_>, after: &Pieces<'_>) -> Result<()> {
        if self.names.len() > DEPTH_MAX as usize {
            return Err(too_deep(0, DEPTH_MAX));
        }
        let (tables, table) = (self.tables, self.tables.message(id));
        if table.shape == Shape::Any {
            return self.any(table, before, after);
        }
        let (mut was, mut is) = (fields(table, before)?, fields(table, after)?);
        let numbers: Vec<u32> =
            was.keys().chain(is.keys()).copied().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        for number in numbers {
            let Some(field) = table.field_by_number(number).map(|id| table.field(id)) else { continue };
            self.numbers.push(number);
            self.names.push(&field.spec.name);
            if !self.sameness.ignored.iter().any(|path| **path == *self.numbers) {
                let (was, is) = (was.remove(&number).unwrap_or_default(), is.remove(&number).unwrap_or_default());
                self.field(tables, field, &was, &is)?;
            }
            self.numbers.pop();
            self.names.pop();
        }
        Ok(())
    }

    fn field(&mut self, tables: &'a Tables, field: &'a Field, was: &Values<'_>, is: &Values<'_>) -> Result<()> {
        match (field.spec.cardinality, field.message()) {
            (Cardinality::Map, Some(entry)) => self.map(tables.message(entry), was, is),
            (Cardinality::Single, Some(id)) => {
                if was.is_empty() != is.is_empty() {
                    self.differs();
                    return Ok(());
                }
                self.message(id, was, is)
            }
            (Cardinality::Repeated, _) => self.list(field, was, is),
            (_, None) => self.scalar(field, was.last().copied(), is.last().copied()),
        }
    }

    /// A single value; absent is the zero, unless the schema tells them apart.
    fn scalar(&mut self, field: &Field, was: Option<&[u8]>, is: Option<&[u8]>) -> Result<()> {
        if field.spec.presence != Presence::Implicit && was.is_some() != is.is_some() {
            self.differs();
            return Ok(());
        }
        if !self.equal(field.spec.kind, was.unwrap_or_default(), is.unwrap_or_default())? {
            self.differs();
        }
        Ok(())
    }

    /// Values as they lie on the wire, without tag; nothing is the zero.
    fn equal(&self, kind: Kind, was: &[u8], is: &[u8]) -> Result<bool> {
        let number = |value: &[u8]| -> Result<u64> {
            if value.is_empty() {
                return Ok(0);
            }
            let mut reader = WireReader::new(value);
            match kind.wire_type() {
                WireType::Fixed64 => reader.fixed64(),
                WireType::Fixed32 => reader.fixed32().map(u64::from),
                _ => reader.varint(),
            }
        };
        Ok(match kind {
            Kind::String | Kind::Bytes => was == is,
            Kind::Double => self.near(f64::from_bits(number(was)?), f64::from_bits(number(is)?)),
            Kind::Float => {
                let float = |bits: u64| f64::from(f32::from_bits(bits as u32));
                self.near(float(number(was)?), float(number(is)?))
            }
            Kind::Bool => (number(was)? != 0) == (number(is)? != 0),
            // Small numbers may come with all 64 bits of their sign, or without.
            Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Enum(_) => number(was)? as u32 == number(is)? as u32,
            _ => number(was)? == number(is)?,
        })
    }

    fn near(&self, was: f64, is: f64) -> bool {
        let most = was.abs().max(is.abs()).max(1.0) * self.sameness.tolerance;
        was == is || was.is_nan() && is.is_nan() || most.is_finite() && (was - is).abs() <= most
    }

    fn map(&mut self, entry: &'a MessageTable, was: &Values<'_>, is: &Values<'_>) -> Result<()> {
        let Some(value) = map_value(entry) else { return Ok(()) };
        let (was, is) = (entries(entry, was)?, entries(entry, is)?);
        if was.len() != is.len() || was.keys().any(|key| !is.contains_key(key)) {
            self.differs();
        }
        for (key, before) in &was {
            let Some(after) = is.get(key) else { continue };
            match value.message() {
                Some(id) => self.message(id, before, after)?,
                None => {
                    let (before, after) = (before.last().copied(), after.last().copied());
                    if !self.equal(value.spec.kind, before.unwrap_or_default(), after.unwrap_or_default())? {
                        self.differs();
                    }
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, field: &'a Field, was: &Values<'_>, is: &Values<'_>) -> Result<()> {
        let (mut was, mut is) = (elements(field, was)?, elements(field, is)?);
        if self.sameness.unordered.iter().any(|path| **path == *self.numbers) {
            if was.len().max(is.len()) > UNORDERED_MAX {
                self.sort(field, &mut was)?;
                self.sort(field, &mut is)?;
            } else {
                self.pair_off(field, &mut was, &mut is)?;
            }
        }
        if was.len() != is.len() {
            self.differs();
            return Ok(());
        }
        for (before, after) in was.iter().zip(&is) {
            self.element(field, before, after)?;
        }
        Ok(())
    }

    fn element(&mut self, field: &'a Field, before: &[u8], after: &[u8]) -> Result<()> {
        match field.message() {
            Some(id) => self.message(id, &[before], &[after]),
            None => {
                if !self.equal(field.spec.kind, before, after)? {
                    self.differs();
                }
                Ok(())
            }
        }
    }

    /// Takes out the elements that have an equal on the other side.
    fn pair_off<'p>(&mut self, field: &'a Field, was: &mut Values<'p>, is: &mut Values<'p>) -> Result<()> {
        let before = self.found.clone();
        let mut left = Vec::new();
        'elements: for element in was.drain(..) {
            for at in 0..is.len() {
                self.found.clear();
                self.element(field, element, is[at])?;
                if self.found.is_empty() {
                    is.remove(at);
                    continue 'elements;
                }
            }
            left.push(element);
        }
        (*was, self.found) = (left, before);
        Ok(())
    }

    fn sort(&self, field: &Field, values: &mut Values<'_>) -> Result<()> {
        let Some(id) = field.message() else {
            values.sort_unstable();
            return Ok(());
        };
        let keys = values.iter().map(|value| canonical(self.tables, id, None, value));
        let mut keyed: Vec<_> = keys.collect::<Result<Vec<_>>>()?.into_iter().zip(values.iter().copied()).collect();
        keyed.sort();
        *values = keyed.into_iter().map(|row| row.1).collect();
        Ok(())
    }

    /// The message inside, where both hold the same known one; else the bytes.
    fn any(&mut self, table: &'a MessageTable, before: &Pieces<'_>, after: &Pieces<'_>) -> Result<()> {
        let (was, is) = (fields(table, before)?, fields(table, after)?);
        let last = |values: &BTreeMap<u32, Values<'_>>, number: u32| {
            values.get(&number).and_then(|values| values.last()).map_or(Vec::new(), |value| value.to_vec())
        };
        let (kind, other) = (last(&was, 1), last(&is, 1));
        let (was, is) = (last(&was, 2), last(&is, 2));
        let name = std::str::from_utf8(&kind).ok().and_then(|url| url.rsplit('/').next());
        match name.and_then(|name| self.tables.message_id(name)) {
            Some(id) if kind == other => {
                self.names.push("value");
                self.numbers.push(2);
                let walked = self.message(id, &[&was], &[&is]);
                self.names.pop();
                self.numbers.pop();
                walked
            }
            _ => {
                if kind != other || was != is {
                    self.differs();
                }
                Ok(())
            }
        }
    }
}

/// The values of a message's known fields by number. Of a oneof the last member wins, and what came before is gone.
fn fields<'p>(table: &MessageTable, pieces: &Pieces<'p>) -> Result<BTreeMap<u32, Values<'p>>> {
    let mut found: BTreeMap<u32, Values<'p>> = BTreeMap::new();
    for piece in pieces {
        let mut reader = WireReader::new(piece);
        while let Some(record) = reader.record()? {
            let id = table.field_by_number(record.number).filter(|id| table.field(*id).fits(record.wire_type));
            let Some(id) = id else { continue };
            let field = table.field(id);
            if let Some(oneof) = field.spec.oneof {
                let rivals = table.fields.iter().filter(|other| other.spec.oneof == Some(oneof));
                for rival in rivals.filter(|other| other.spec.number != record.number) {
                    found.remove(&rival.spec.number);
                }
            }
            found.entry(record.number).or_default().push(&piece[record.from..record.to]);
        }
    }
    Ok(found)
}

/// The entries of a map by key; of equal keys the last one, whole.
fn entries<'p>(entry: &MessageTable, records: &Values<'p>) -> Result<BTreeMap<Vec<u8>, Values<'p>>> {
    let mut found = BTreeMap::new();
    for record in records {
        let mut parts = fields(entry, &[record])?;
        let key = parts.remove(&1).and_then(|keys| keys.last().map(|key| key.to_vec())).unwrap_or_default();
        // An absent key is the zero, which others write.
        let is_zero = key.iter().all(|byte| *byte == 0) && !matches!(key_kind(entry), Some(Kind::String));
        found.insert(if is_zero { Vec::new() } else { key }, parts.remove(&2).unwrap_or_default());
    }
    Ok(found)
}

fn key_kind(entry: &MessageTable) -> Option<Kind> {
    entry.field_by_number(1).map(|id| entry.field(id).spec.kind)
}

/// The elements of a list, packed or not.
fn elements<'p>(field: &Field, records: &Values<'p>) -> Result<Values<'p>> {
    let kind = field.spec.kind;
    if !kind.is_packable() {
        return Ok(records.clone());
    }
    let mut found = Vec::new();
    for record in records {
        let mut reader = WireReader::new(record);
        while !reader.is_done() {
            let from = reader.at();
            match kind.wire_type() {
                WireType::Fixed64 => drop(reader.fixed64()?),
                WireType::Fixed32 => drop(reader.fixed32()?),
                _ => drop(reader.varint()?),
            }
            found.push(&record[from..reader.at()]);
        }
    }
    Ok(found)
}
