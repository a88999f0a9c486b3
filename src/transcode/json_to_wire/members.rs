//! The members of an object: names found, claims and oneofs kept, field masks noted.

use super::super::claims::{Claims, Verdict};
use super::super::error::{ErrorKind, Result, TranscodeError};
use super::super::scan::{self, DEPTH_MAX, expected, skip_space, skip_value};
use super::super::table::{Cardinality, Field, FieldId, Kind, MessageTable, Presence, Shape};
use super::{NOTHING, Reader, Seen, Unknown, mismatch};

impl<'t> Reader<'t, '_, '_> {
    /// Reads a member's name and the colon; the field that follows the last one is tried first.
    #[inline(always)]
    pub(super) fn key(&mut self, table: &MessageTable, next: usize) -> Result<Option<FieldId>> {
        if self.cursor.peek() == b'"'
            && let Some(field) = table.fields.get(next)
        {
            let sixteen = self.cursor.sixteen(self.cursor.at() + 1);
            for key in field.keys().iter().flatten() {
                if key.matches(sixteen, || &self.cursor.rest()[1..]) {
                    self.cursor.advance(1 + key.len());
                    skip_space(&mut self.cursor);
                    return Ok(Some(FieldId(next as u16)));
                }
            }
        }
        let found = self.key_by_name(table)?;
        skip_space(&mut self.cursor);
        if !self.cursor.eat(b':') {
            return expected(&self.cursor, "`:`");
        }
        skip_space(&mut self.cursor);
        Ok(found)
    }

    #[inline(never)]
    pub(super) fn key_by_name(&mut self, table: &MessageTable) -> Result<Option<FieldId>> {
        let token = scan::string(&mut self.cursor)?;
        if !token.has_escapes {
            return Ok(table.field_by_name(self.cursor.slice(token.from, token.to)));
        }
        self.text.clear();
        scan::append_text(&self.cursor, token, &mut self.text)?;
        Ok(table.field_by_name(&self.text))
    }

    /// A member that is no field: lifted, skipped or refused.
    pub(super) fn unknown_member(&mut self, table: &MessageTable, at: usize) -> Result<()> {
        let behind_colon = self.cursor.at();
        self.cursor.seek(at);
        let token = scan::string(&mut self.cursor)?;
        let mut name = Vec::new();
        scan::append_text(&self.cursor, token, &mut name)?;
        self.cursor.seek(behind_colon);
        let is_top = self.depth == 1;
        if let Some(lift) = self.lift.filter(|lift| is_top && lift.as_bytes() == name) {
            return self.lifted_member(at).map_err(|error| error.inside(lift));
        }
        if self.unknown == Unknown::Reject {
            let text = format!("`{}` has no field `{}`", table.name, String::from_utf8_lossy(&name));
            return Err(TranscodeError::new(ErrorKind::Mismatch, at, text));
        }
        skip_value(&mut self.cursor, self.depth, DEPTH_MAX)
    }

    /// The member that is taken out of the body: text, or null as if it were not there. A key of another kind would be
    /// one that its sender relies on and nobody keeps.
    fn lifted_member(&mut self, at: usize) -> Result<()> {
        match self.cursor.peek() {
            b'n' => return skip_value(&mut self.cursor, self.depth, DEPTH_MAX),
            b'"' if self.lifted.is_some() => return Err(TranscodeError::new(ErrorKind::Conflict, at, "given twice")),
            b'"' => {}
            _ => return mismatch(&self.cursor, "a string"),
        }
        let token = scan::string(&mut self.cursor)?;
        let mut text = Vec::new();
        scan::append_text(&self.cursor, token, &mut text)?;
        self.lifted = String::from_utf8(text).ok();
        Ok(())
    }

    /// One member of a message; the cursor stands at its value.
    #[inline(always)]
    pub(super) fn member(
        &mut self,
        table: &MessageTable,
        id: FieldId,
        field: &'t Field,
        claims: &Claims,
        seen: &mut Seen,
        at: usize,
    ) -> Result<()> {
        let mut below = &NOTHING;
        if !claims.is_empty() {
            match claims.verdict(id, field.spec.oneof, self.active) {
                Verdict::Free => {}
                Verdict::Claimed => return skip_value(&mut self.cursor, self.depth, DEPTH_MAX),
                Verdict::Partly(inside) => below = inside,
                Verdict::OtherMember(other) => return self.excluded(table, field, other, at),
            }
        }
        if !seen.field(id) {
            return Err(TranscodeError::new(ErrorKind::Conflict, at, "given twice"));
        }
        if self.cursor.peek() == b'n' && !self.takes_null(field) {
            let is_null = field.spec.presence != Presence::Required && self.cursor.eat_word(b"null");
            return if is_null { Ok(()) } else { expected(&self.cursor, "a value") };
        }
        if let Some(oneof) = field.spec.oneof
            && !seen.oneof(oneof)
        {
            let text = format!("a second member of the oneof `{}`", table.oneofs[oneof.0 as usize]);
            return Err(TranscodeError::new(ErrorKind::Conflict, at, text));
        }
        self.field(field, below)
    }

    /// A member whose oneof is claimed by another: refused, unless it is null.
    #[cold]
    pub(super) fn excluded(&mut self, table: &MessageTable, field: &Field, other: FieldId, at: usize) -> Result<()> {
        if !self.takes_null(field) && self.cursor.eat_word(b"null") {
            return Ok(());
        }
        let text = format!("excluded by `{}`, which the path or a header sets", table.field(other).spec.name);
        Err(TranscodeError::new(ErrorKind::Conflict, at, text))
    }

    /// True for the two types whose value may be null.
    #[inline(always)]
    pub(super) fn takes_null(&self, field: &Field) -> bool {
        match field.spec.kind {
            _ if field.spec.cardinality != Cardinality::Single => false,
            Kind::Message(id) => self.tables.message(id).shape == Shape::Value,
            Kind::Enum(id) => self.tables.enumeration(id).is_null,
            _ => false,
        }
    }

    /// A field's value of any cardinality.
    #[inline(always)]
    pub(super) fn field(&mut self, field: &'t Field, claims: &Claims) -> Result<()> {
        if self.mask.is_some() {
            return self.masked_field(field, claims);
        }
        match field.spec.cardinality {
            Cardinality::Single => self.single(field, field.spec.presence != Presence::Implicit, claims),
            Cardinality::Repeated => self.list(field),
            Cardinality::Map => self.map(field),
        }
    }

    /// True for a single message with members of its own.
    pub(super) fn is_branch(&self, field: &Field) -> bool {
        field.spec.cardinality == Cardinality::Single
            && field.message().is_some_and(|id| self.tables.message(id).shape == Shape::Plain)
    }

    /// A field's value, its path noted for the field mask.
    #[inline(never)]
    pub(super) fn masked_field(&mut self, field: &'t Field, claims: &Claims) -> Result<()> {
        let Some(mask) = self.mask.take() else { return Ok(()) };
        let old = mask.prefix.len();
        if old > 0 {
            mask.prefix.push('.');
        }
        mask.prefix.push_str(&field.spec.name);
        let is_branch = self.is_branch(field);
        let noted = mask.paths.len();
        let result = if is_branch {
            self.mask = Some(mask);
            self.single(field, true, claims)
        } else {
            let result = self.field(field, claims);
            self.mask = Some(mask);
            result
        };
        if let Some(mask) = self.mask.as_deref_mut() {
            if mask.paths.len() == noted {
                mask.paths.push(mask.prefix.clone());
            }
            mask.prefix.truncate(old);
        }
        result
    }
}
