//! A change seen from outside of its rule: what it writes, and the same change of another form of the document.

use super::attempt::Write;
use super::{Change, Current};
use crate::fault::Fault;

impl<T> Current<T> {
    /// The same with the document in another form.
    pub(in crate::worker) fn try_map<U>(&self, form: impl Fn(&T) -> Result<U, Fault>) -> Result<Current<U>, Fault> {
        let Current { version, revision, updated_ms, now_ms, .. } = *self;
        let value = self.value.as_ref().map(&form).transpose()?;
        let left = self.left.as_ref().map(form).transpose()?;
        Ok(Current { value, left, version, revision, updated_ms, now_ms })
    }
}

impl<T, R> Change<T, R> {
    /// The document that is written, where one is.
    pub(in crate::worker) fn document(&self) -> Option<&T> {
        match &self.write {
            Write::Put(value) => Some(value),
            Write::Nothing | Write::Delete(_) => None,
        }
    }

    /// The same change, whose document expires then unless it says something else.
    pub(in crate::worker) fn or_expires_at_ms(mut self, at_ms: i64) -> Change<T, R> {
        if self.expires_at_ms == 0 {
            self.expires_at_ms = at_ms;
        }
        self
    }

    /// True where the document goes.
    pub(in crate::worker) fn deletes(&self) -> bool {
        matches!(self.write, Write::Delete(_))
    }

    /// The same change with another reply.
    pub(in crate::worker) fn with_reply<S>(self, reply: impl FnOnce(R) -> S) -> Change<T, S> {
        Change { write: self.write, reply: reply(self.reply), expires_at_ms: self.expires_at_ms, pending: self.pending }
    }

    /// The same change with the document in another form.
    pub(in crate::worker) fn try_map<U>(
        self,
        form: impl FnOnce(&T) -> Result<U, Fault>,
    ) -> Result<Change<U, R>, Fault> {
        let write = match &self.write {
            Write::Nothing => Write::Nothing,
            Write::Put(value) => Write::Put(form(value)?),
            Write::Delete(left) => Write::Delete(left.as_ref().map(form).transpose()?),
        };
        Ok(Change { write, reply: self.reply, expires_at_ms: self.expires_at_ms, pending: self.pending })
    }
}
