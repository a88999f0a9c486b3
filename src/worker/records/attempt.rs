//! One try of a change: what the rule decides on a record, and the compare-and-set.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::known::SlotId;
use super::stored::{Pending, Stored};
use super::{Change, Current, Done, Inner, Write};
use crate::fault::Fault;
use crate::store::{Entry, Expected, StoreError};
use crate::worker::fail_point::{self, Place};
use crate::worker::{Context, Failed};

/// What follows from a record as it was found.
pub(super) enum Decision<T, R> {
    /// An earlier call had made the change; with the work of the record.
    Repeat(Done<R>, Vec<Pending>),
    /// Nothing is to be written.
    Nothing(Done<R>),
    /// This is to be written.
    Write(Next<T, R>),
}

/// A record that is to follow another one.
pub(super) struct Next<T, R> {
    after: Stored<T>,
    expected: Expected,
    reply: R,
    now_ms: i64,
}

impl Inner {
    pub(super) async fn decide<T, R, L, F>(
        &self,
        context: &Context,
        key: &str,
        entry: Option<Entry>,
        look: impl Fn(&Stored<T>) -> F,
        rule: impl Fn(&Current<T>, L) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Decision<T, R>, Failed<R>>
    where
        T: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        F: Future<Output = Result<L, Fault>>,
    {
        let (expected, mut before) = match entry {
            Some(entry) => (Expected::Revision(entry.revision), Stored::<T>::read(&entry)?),
            None => (Expected::Absent, Stored::default()),
        };
        if let Some(done) = before.repeated(context)? {
            return Ok(Decision::Repeat(done, before.pending));
        }
        let known = look(&before).await?;
        let current = before.take_current(context.now_ms());
        let change = rule(&current, known)?;
        let Current { version, revision, now_ms, .. } = current;
        if matches!(change.write, Write::Nothing) {
            return Ok(Decision::Nothing(Done { reply: change.reply, version, revision, is_repeat: false }));
        }
        let (after, reply) = before.followed_by(context, change, now_ms, |id| self.outbox.is_sent(key, id))?;
        Ok(Decision::Write(Next { after, expected, reply, now_ms }))
    }

    /// Writes what was decided, and sends what goes with it; nothing where the race was lost.
    pub(super) async fn commit<T: Serialize, R>(
        &self,
        context: &Context,
        key: &str,
        slot: Option<SlotId>,
        next: Next<T, R>,
    ) -> Result<Option<Done<R>>, Fault> {
        let Next { mut after, expected, reply, now_ms } = next;
        let bytes = after.bytes()?;
        fail_point::reached(Place::BeforeCommit, self.name);
        let revision = match self.put(key, slot, bytes, expected, now_ms).await {
            Ok(revision) => revision,
            Err(StoreError::Conflict) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        fail_point::reached(Place::AfterCommit, self.name);
        after.resolve(revision);
        if let Some(changed) = &self.changed {
            changed(key, after.value.as_ref().and_then(|value| serde_json::to_value(value).ok()));
        }
        self.outbox.keep_only(key, &after.pending);
        self.outbox.deliver(context, key, &after.pending).await;
        fail_point::reached(Place::AfterEvents, self.name);
        Ok(Some(Done { reply, version: after.version, revision, is_repeat: false }))
    }

    /// Writes a record, and notes it as known.
    pub(super) async fn put(
        &self,
        key: &str,
        slot: Option<SlotId>,
        value: Bytes,
        expected: Expected,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let revision = self.bucket.put(key, value.clone(), expected).await?;
        if let Some(slot) = slot {
            self.known.note(slot, Entry { key: key.to_owned(), value, revision, created_ms: now_ms });
        }
        Ok(revision)
    }
}
