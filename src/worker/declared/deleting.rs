//! What follows from a declared delete: whether the document may go, the event that tells it, and the reply.

use super::documents::{check_version, key_of, missing, notice};
use super::fields::Found;
use crate::fault::Fault;
use crate::schema::operation::{Delete, DocumentKind, Token};
use crate::transcode::wire::put_number;
use crate::worker::records::{Change, Current, Done};

/// A delete of one document by its declaration.
pub(super) struct Deletion<'a> {
    found: &'a Found<'a>,
    kind: &'a DocumentKind,
    key: &'a [Token],
    plan: &'a Delete,
    /// The key with its tenant.
    pub(super) place: String,
}

impl<'a> Deletion<'a> {
    pub(super) fn of(
        found: &'a Found<'a>,
        kind: &'a DocumentKind,
        key: &'a [Token],
        plan: &'a Delete,
    ) -> Result<Deletion<'a>, Fault> {
        Ok(Deletion { found, kind, key, plan, place: key_of(found, key)? })
    }

    /// The change, whose reply says whether there was something. `content` makes the event's payload of what was there.
    pub(super) fn decided<T>(
        &self,
        current: &Current<T>,
        content: impl Fn(&T) -> Result<Vec<u8>, Fault>,
    ) -> Result<Change<T, bool>, Fault> {
        let Deletion { found, kind, key, plan, place } = self;
        let Some(value) = &current.value else {
            return if plan.may_be_missing { Ok(Change::nothing(false)) } else { Err(missing(found, kind, key)) };
        };
        check_version(found.number(plan.expected_version.as_ref()), current)?;
        let was = if plan.event.is_some() { content(value)? } else { Vec::new() };
        let told = notice(found, kind, plan.event.as_deref(), place, current.version + 1, was)?;
        Ok(Change::delete(true).events(told.map(|notice| notice.with("op", "delete"))))
    }

    /// The reply's fields.
    pub(super) fn reply(&self, done: &Done<bool>) -> Vec<u8> {
        let mut reply = Vec::new();
        if let Some(number) = self.plan.version_into {
            put_number(number, done.version, &mut reply);
        }
        if let Some(number) = self.plan.deleted_into.filter(|_| done.reply) {
            put_number(number, 1, &mut reply);
        }
        reply
    }
}
