//! The parts of structs, lists, maps, enums and oneofs, one after the other, as serde asks for them.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::super::error::{Result, TranscodeError};
use super::super::rust_names::{self, Place};
use super::super::table::{Field, FieldId, MessageId, MessageTable};
use super::super::wire::WireReader;
use super::index::{Source, Walk, is_packed};
use super::inside;
use super::reader::{Node, Reader, mismatch};

/// The fields of a struct in the struct's order.
pub(super) struct Fields<'m, 'a> {
    walk: &'m mut Walk<'a>,
    table: &'a MessageTable,
    names: &'static [&'static str],
    next: usize,
    /// The table's field behind the one found last.
    guess: usize,
    base: usize,
    last: usize,
    /// Behind the records read last.
    hint: usize,
}

impl<'m, 'a> Fields<'m, 'a> {
    pub(super) fn new(walk: &'m mut Walk<'a>, id: MessageId, names: &'static [&'static str], base: usize) -> Self {
        let (table, last) = (walk.tables.message(id), walk.records.len());
        Fields { walk, table, names, next: 0, guess: 0, base, last, hint: base }
    }
}

impl de::SeqAccess<'static> for Fields<'_, '_> {
    type Error = TranscodeError;

    fn next_element_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some(name) = self.names.get(self.next) else { return Ok(None) };
        self.next += 1;
        match rust_names::place(self.table, name, self.guess) {
            Some(Place::Field(id)) => {
                self.guess = usize::from(id.0) + 1;
                let field = self.table.field(id);
                let (first, end) = self.walk.run(field.spec.number, self.base, self.last, self.hint);
                self.hint = end;
                let offset = self.walk.records[first..end].first().map_or(0, |record| record.from);
                Reader::of_field(self.walk, field, first, end)
                    .and_then(|reader| seed.deserialize(reader))
                    .map_err(|error| inside(error, name, offset))
                    .map(Some)
            }
            Some(Place::Oneof(oneof)) => {
                let (table, base, last) = (self.table, self.base, self.last);
                let mut members = rust_names::members(table, oneof);
                let is_absent = members.all(|field| {
                    let (first, end) = self.walk.run(field.spec.number, base, last, base);
                    first == end
                });
                let node = Node::Oneof(table, oneof, base, last);
                let value = seed.deserialize(Reader { walk: self.walk, node, is_absent });
                // A member's path is its own: only what concerns no member is said of the oneof.
                let place =
                    |error: TranscodeError| if error.path().is_empty() { inside(error, name, 0) } else { error };
                value.map_err(place).map(Some)
            }
            None => Err(mismatch(format!("`{}` has no field `{name}`", self.table.name))),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.names.len() - self.next)
    }
}

/// The elements of a list.
pub(super) struct Elements<'m, 'a> {
    walk: &'m mut Walk<'a>,
    field: &'a Field,
    next: usize,
    end: usize,
    /// What is left of a packed record.
    packed: (usize, usize),
    count: usize,
}

impl<'m, 'a> Elements<'m, 'a> {
    pub(super) fn new(walk: &'m mut Walk<'a>, field: &'a Field, first: usize, end: usize) -> Self {
        Elements { walk, field, next: first, end, packed: (0, 0), count: 0 }
    }

    /// Where the next value is.
    fn next_value(&mut self) -> Result<Option<(usize, usize)>> {
        loop {
            if self.packed.0 < self.packed.1 {
                let mut reader = WireReader::part(self.walk.wire, self.packed.0, self.packed.1);
                let value = reader.value(self.field.spec.number, self.field.spec.kind.wire_type())?;
                self.packed.0 = reader.at();
                if self.walk.knows(self.field, value.0, value.1)? {
                    return Ok(Some(value));
                }
                continue;
            }
            if self.next == self.end {
                return Ok(None);
            }
            let record = self.walk.records[self.next];
            self.next += 1;
            if !is_packed(self.field, &record) {
                return Ok(Some((record.from, record.to)));
            }
            self.packed = (record.from, record.to);
        }
    }
}

impl de::SeqAccess<'static> for Elements<'_, '_> {
    type Error = TranscodeError;

    fn next_element_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some((from, to)) = self.next_value()? else { return Ok(None) };
        let value = seed.deserialize(Reader::of_value(self.walk, self.field, from, to));
        let index = self.count;
        self.count += 1;
        value.map_err(|error| inside(error, &format!("[{index}]"), from)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.end - self.next + (self.packed.1 - self.packed.0))
    }
}

/// The entries of a map; of equal keys the later replaces the earlier, as the struct's map has it.
pub(super) struct Entries<'m, 'a> {
    walk: &'m mut Walk<'a>,
    table: &'a MessageTable,
    next: usize,
    end: usize,
    base: usize,
    /// Where the present entry's key is.
    key: (usize, usize),
}

impl<'m, 'a> Entries<'m, 'a> {
    /// Hands a map's records to a visitor.
    pub(super) fn visit<V: Visitor<'static>>(
        walk: &'m mut Walk<'a>,
        field: &'a Field,
        first: usize,
        end: usize,
        visitor: V,
    ) -> Result<V::Value> {
        let Some(entry) = field.message() else { return Err(mismatch("a map without entries".to_owned())) };
        let (table, base) = (walk.tables.message(entry), walk.records.len());
        let value = visitor.visit_map(Entries { walk: &mut *walk, table, next: first, end, base, key: (0, 0) })?;
        walk.records.truncate(base);
        Ok(value)
    }

    fn inside(&self, error: TranscodeError) -> TranscodeError {
        let key = String::from_utf8_lossy(&self.walk.wire[self.key.0..self.key.1]);
        inside(error, &format!("[\"{key}\"]"), self.key.0)
    }
}

impl de::MapAccess<'static> for Entries<'_, '_> {
    type Error = TranscodeError;

    fn next_key_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        loop {
            self.walk.records.truncate(self.base);
            if self.next == self.end {
                return Ok(None);
            }
            let record = self.walk.records[self.next];
            self.next += 1;
            let is_whole = self.walk.index(self.table, Source::One(record.from, record.to))?;
            let last = self.walk.records.len();
            let (first, end) = self.walk.run(1, self.base, last, self.base);
            if !is_whole && end == last {
                // The value is a number that its closed enum does not know: the entry counts as unknown.
                continue;
            }
            self.key = self.walk.records[first..end].last().map_or((0, 0), |record| (record.from, record.to));
            let reader = Reader::of_field(self.walk, self.table.field(FieldId(0)), first, end)?;
            return seed.deserialize(reader).map_err(|error| self.inside(error)).map(Some);
        }
    }

    fn next_value_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<S::Value> {
        let last = self.walk.records.len();
        let (first, end) = self.walk.run(2, self.base, last, self.base);
        let mut reader = Reader::of_field(self.walk, self.table.field(FieldId(1)), first, end)?;
        reader.is_absent = false;
        seed.deserialize(reader).map_err(|error| self.inside(error))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.end - self.next)
    }
}

/// An enum's number as one of the Rust enum's variants.
pub(super) struct EnumNumber {
    pub(super) number: i32,
    pub(super) variant: u32,
}

impl de::EnumAccess<'static> for EnumNumber {
    type Error = TranscodeError;
    type Variant = EnumNumber;

    fn variant_seed<S: DeserializeSeed<'static>>(self, seed: S) -> Result<(S::Value, EnumNumber)> {
        let variant: de::value::U32Deserializer<TranscodeError> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl de::VariantAccess<'static> for EnumNumber {
    type Error = TranscodeError;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'static>>(self, seed: S) -> Result<S::Value> {
        let number: de::value::I32Deserializer<TranscodeError> = self.number.into_deserializer();
        seed.deserialize(number)
    }

    fn tuple_variant<V: Visitor<'static>>(self, _: usize, _: V) -> Result<V::Value> {
        Err(mismatch("an enum's variants are units, but for `Unknown(i32)`".to_owned()))
    }

    fn struct_variant<V: Visitor<'static>>(self, _: &'static [&'static str], _: V) -> Result<V::Value> {
        Err(mismatch("an enum's variants are units, but for `Unknown(i32)`".to_owned()))
    }
}

/// The member of a oneof that is set.
pub(super) struct Member<'m, 'a> {
    pub(super) walk: &'m mut Walk<'a>,
    pub(super) field: &'a Field,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) variants: &'static [&'static str],
}

impl de::EnumAccess<'static> for Member<'_, '_> {
    type Error = TranscodeError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'static>>(self, seed: S) -> Result<(S::Value, Self)> {
        let name = &self.field.spec.name;
        let Some(index) = self.variants.iter().position(|variant| rust_names::same_words(variant, name)) else {
            return Err(mismatch(format!("no variant for the member `{name}`")));
        };
        let variant: de::value::U32Deserializer<TranscodeError> = (index as u32).into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl de::VariantAccess<'static> for Member<'_, '_> {
    type Error = TranscodeError;

    fn unit_variant(self) -> Result<()> {
        Err(mismatch("a oneof's variants hold their member's value".to_owned()))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'static>>(self, seed: S) -> Result<S::Value> {
        let offset = self.walk.records.get(self.first).map_or(0, |record| record.from);
        let reader = Reader::of_field(self.walk, self.field, self.first, self.end)?;
        seed.deserialize(reader).map_err(|error| inside(error, &self.field.spec.name, offset))
    }

    fn tuple_variant<V: Visitor<'static>>(self, _: usize, _: V) -> Result<V::Value> {
        self.unit_variant().and(Err(mismatch(String::new())))
    }

    fn struct_variant<V: Visitor<'static>>(self, _: &'static [&'static str], _: V) -> Result<V::Value> {
        self.unit_variant().and(Err(mismatch(String::new())))
    }
}

/// Bytes one by one, for `Vec<u8>`.
pub(super) struct Octets<'a>(std::slice::Iter<'a, u8>);

impl<'a> Octets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Octets<'a> {
        Octets(bytes.iter())
    }
}

impl de::SeqAccess<'static> for Octets<'_> {
    type Error = TranscodeError;

    fn next_element_seed<S: DeserializeSeed<'static>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let octet =
            self.0.next().map(|octet| -> de::value::U8Deserializer<TranscodeError> { (*octet).into_deserializer() });
        octet.map(|octet| seed.deserialize(octet)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}
