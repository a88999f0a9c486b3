//! Which field paths a binding has claimed, so that no other door can set them.
//!
//! Path variables, presets, bound headers and the caller context claim; the body scanner skips what is claimed,
//! [`unclaimed`] cuts it out of a binary body, and the query binder refuses it. That makes `body ++ path ++ query ++ context` a valid encoding with nothing
//! overwritten.

use super::error::{ErrorKind, Result, TranscodeError};
use super::field_path::FieldPath;
use super::table::{FieldId, MessageId, OneofId, Tables, WireType};
use super::wire::{WireReader, put_bytes};

/// When a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// For every request.
    Always,
    /// For requests that carry the header with this number (0 to 31).
    WhenHeader(u8),
}

/// Claimed field paths of one message, as a trie over its fields.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    field: FieldId,
    oneof: Option<OneofId>,
    /// When the whole field is claimed.
    whole: Option<Claim>,
    /// Claims inside the field's message.
    below: Claims,
}

/// What a claim says of one field.
pub(super) enum Verdict<'c> {
    /// Nothing claims it.
    Free,
    /// All of it is claimed.
    Claimed,
    /// Parts of it are claimed.
    Partly(&'c Claims),
    /// Another member of its oneof is claimed.
    OtherMember(FieldId),
}

impl Claim {
    fn holds(self, active: u32) -> bool {
        match self {
            Claim::Always => true,
            Claim::WhenHeader(number) => active >> (number & 31) & 1 == 1,
        }
    }
}

impl Entry {
    fn is_whole(&self, active: u32) -> bool {
        self.whole.is_some_and(|claim| claim.holds(active))
    }

    fn holds(&self, active: u32) -> bool {
        self.is_whole(active) || self.below.entries.iter().any(|entry| entry.holds(active))
    }
}

impl Claims {
    /// No claims.
    pub const fn new() -> Claims {
        Claims { entries: Vec::new() }
    }

    /// True where nothing is claimed.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a path; `Always` wins over a claim that depends on a header.
    pub fn claim(&mut self, tables: &Tables, path: &FieldPath, claim: Claim) {
        let mut level = self;
        for (index, (message, field)) in path.steps().iter().enumerate() {
            let at = level.entries.iter().position(|entry| entry.field == *field).unwrap_or_else(|| {
                let oneof = tables.message(*message).field(*field).spec.oneof;
                level.entries.push(Entry { field: *field, oneof, whole: None, below: Claims::new() });
                level.entries.len() - 1
            });
            if index + 1 == path.steps().len() {
                let entry = &mut level.entries[at];
                entry.whole = if entry.whole == Some(Claim::Always) { entry.whole } else { Some(claim) };
                return;
            }
            level = &mut level.entries[at].below;
        }
    }

    /// The claims inside a field's message, where there are some.
    pub fn below(&self, field: FieldId) -> Option<&Claims> {
        self.entries.iter().find(|entry| entry.field == field).map(|entry| &entry.below)
    }

    /// True where a field is claimed for every request, all of it.
    pub fn takes(&self, field: FieldId) -> bool {
        self.entries.iter().any(|entry| entry.field == field && entry.whole == Some(Claim::Always))
    }

    /// What the claims that hold now say of a field with this oneof.
    pub(super) fn verdict(&self, field: FieldId, oneof: Option<OneofId>, active: u32) -> Verdict<'_> {
        let mut verdict = Verdict::Free;
        for entry in &self.entries {
            if entry.field == field {
                if entry.is_whole(active) {
                    return Verdict::Claimed;
                }
                if !entry.below.is_empty() {
                    verdict = Verdict::Partly(&entry.below);
                }
            } else if oneof.is_some() && entry.oneof == oneof && entry.holds(active) {
                return Verdict::OtherMember(entry.field);
            }
        }
        verdict
    }

    /// True where the path or a message around it is claimed, or something inside it.
    pub fn covers(&self, path: &FieldPath, active: u32) -> bool {
        let mut level = self;
        for (_, field) in path.steps() {
            match level.verdict(*field, None, active) {
                Verdict::Claimed => return true,
                Verdict::Partly(below) => level = below,
                Verdict::Free | Verdict::OtherMember(_) => return false,
            }
        }
        level.entries.iter().any(|entry| entry.holds(active))
    }

    /// The name of the claimed oneof member that excludes this path, where there is one.
    pub fn excluded_by<'t>(&self, tables: &'t Tables, path: &FieldPath, active: u32) -> Option<&'t str> {
        let mut level = self;
        for (message, field) in path.steps() {
            let table = tables.message(*message);
            match level.verdict(*field, table.field(*field).spec.oneof, active) {
                Verdict::OtherMember(other) => return Some(&table.field(other).spec.name),
                Verdict::Partly(below) => level = below,
                Verdict::Free | Verdict::Claimed => return None,
            }
        }
        None
    }
}

/// Appends an encoding without what is claimed in it, however often and however deep: what a binary body keeps. `active`
/// as for `json_to_wire`. Fails where the bytes are broken, or set another member of a claimed oneof.
pub fn unclaimed(
    tables: &Tables,
    message: MessageId,
    claims: &Claims,
    active: u32,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    keep(tables, message, claims, active, WireReader::new(wire), wire, out)
}

/// Goes no deeper than the longest claimed path.
fn keep(
    tables: &Tables,
    message: MessageId,
    claims: &Claims,
    active: u32,
    mut reader: WireReader<'_>,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let table = tables.message(message);
    loop {
        let start = reader.at();
        let Some(record) = reader.record()? else { return Ok(()) };
        let whole = &wire[start..reader.at()];
        let Some(id) = table.field_by_number(record.number) else {
            out.extend_from_slice(whole);
            continue;
        };
        let field = table.field(id);
        match (claims.verdict(id, field.spec.oneof, active), field.message()) {
            (Verdict::Claimed, _) => {}
            (Verdict::OtherMember(other), _) => {
                let text = format!("excluded by `{}`, which the path or a header sets", table.field(other).spec.name);
                return Err(TranscodeError::new(ErrorKind::Conflict, start, text).inside(field.spec.name.as_str()));
            }
            (Verdict::Partly(below), Some(inner)) if field.fits(record.wire_type) => {
                let part = WireReader::part(wire, record.from, record.to);
                let mut content = Vec::with_capacity(record.to - record.from);
                keep(tables, inner, below, active, part, wire, &mut content)
                    .map_err(|error| error.inside(field.spec.name.as_str()))?;
                if record.wire_type == WireType::Length {
                    put_bytes(record.number, &content, out);
                } else {
                    out.extend_from_slice(&wire[start..record.from]);
                    out.extend_from_slice(&content);
                    out.extend_from_slice(&wire[record.to..reader.at()]);
                }
            }
            _ => out.extend_from_slice(whole),
        }
    }
}
