//! Rust names against proto names: struct fields, enum variants, oneof variants. Shared by the two serde directions
//! and the check of shapes, so that all three agree.

use super::table::{EnumTable, Field, FieldId, MessageTable, OneofId};

/// The variant that catches numbers without a name: `Unknown(i32)`.
pub(super) const CATCH_ALL: &str = "Unknown";

/// What a struct field stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A field of the message.
    Field(FieldId),
    /// One of its oneofs.
    Oneof(OneofId),
}

/// Finds the field or oneof with that proto name; `guess` is tried first, because structs usually list fields in the
/// order of the message.
#[inline]
pub(super) fn place(table: &MessageTable, name: &str, guess: usize) -> Option<Place> {
    if table.fields.get(guess).is_some_and(|field| field.spec.name == name) {
        return Some(Place::Field(FieldId(guess as u16)));
    }
    if let Some(id) = table.field_by_name(name.as_bytes()).filter(|id| table.field(*id).spec.name == name) {
        return Some(Place::Field(id));
    }
    let oneof = table.oneofs.iter().position(|oneof| **oneof == *name);
    let field =
        || table.fields.iter().position(|field| field.spec.name == name).map(|i| Place::Field(FieldId(i as u16)));
    oneof.map(|index| Place::Oneof(OneofId(index as u16))).or_else(field)
}

/// The members of a oneof.
pub(super) fn members(table: &MessageTable, oneof: OneofId) -> impl Iterator<Item = &Field> {
    table.fields.iter().filter(move |field| field.spec.oneof == Some(oneof))
}

/// The member of a oneof that a variant stands for: `PlayerId` is `player_id`.
pub(super) fn member<'t>(table: &'t MessageTable, oneof: OneofId, variant: &str) -> Option<&'t Field> {
    members(table, oneof).find(|field| same_words(variant, &field.spec.name))
}

/// The variant for an enum's number; the catch-all for numbers without a name or a variant.
#[inline]
pub(super) fn variant_of_number(table: &EnumTable, number: i32, variants: &[&str]) -> Option<usize> {
    let catch_all = || variants.iter().position(|variant| *variant == CATCH_ALL);
    let Some(name) = table.name_of(number) else { return catch_all() };
    // Variants usually stand in the order of numbers, from zero.
    if variants.get(number as usize).is_some_and(|variant| is_value(table, variant, name)) {
        return Some(number as usize);
    }
    variants.iter().position(|variant| is_value(table, variant, name)).or_else(catch_all)
}

/// The number that a variant stands for.
#[inline]
pub(super) fn number_of_variant(table: &EnumTable, guess: u32, variant: &str) -> Option<i32> {
    let guess = guess as i32;
    if table.name_of(guess).is_some_and(|name| is_value(table, variant, name)) {
        return Some(guess);
    }
    table.values().find(|(name, _)| is_value(table, variant, name)).map(|row| row.1)
}

/// True where a variant stands for an enum value: its whole name, or its name without the enum's own name in front.
pub(super) fn is_value(table: &EnumTable, variant: &str, value: &str) -> bool {
    same_words(variant, value) || {
        let own = table.name.rsplit('.').next().unwrap_or_default();
        after_words(own, value).is_some_and(|rest| same_words(variant, rest))
    }
}

/// Equal but for case and underscores.
pub(super) fn same_words(left: &str, right: &str) -> bool {
    after_words(left, right).is_some_and(str::is_empty)
}

/// What stands in `text` behind the words of `words`.
fn after_words<'t>(words: &str, text: &'t str) -> Option<&'t str> {
    let mut rest = text.as_bytes();
    for byte in words.bytes().filter(|byte| *byte != b'_') {
        while let [b'_', tail @ ..] = rest {
            rest = tail;
        }
        match rest {
            [first, tail @ ..] if first.eq_ignore_ascii_case(&byte) => rest = tail,
            _ => return None,
        }
    }
    text.get(text.len() - rest.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_without_case_and_underscores() {
        for (left, right, is_same) in [
            ("PlayerId", "player_id", true),
            ("OperationUnspecified", "OPERATION_UNSPECIFIED", true),
            ("Http2", "http_2", true),
            ("Player", "player_id", false),
            ("PlayerId", "player", false),
        ] {
            assert_eq!(same_words(left, right), is_same, "{left} {right}");
        }
    }
}
