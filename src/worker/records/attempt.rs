//! One try of a change: what the rule decides on a record, and the compare-and-set. Only the rule's part knows types; the
//! rest stands in the program once, not once for each rule.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::known::SlotId;
use super::stored::{Effect, Pending, Stored, from_text, to_text};
use super::{Change, Current, Done, Inner};
use crate::fault::Fault;
use crate::store::{Entry, Expected, StoreError, VALUE_BYTES_MAX};
use crate::worker::fail_point::{self, Place};
use crate::worker::{Context, Failed};

/// Longest pause between two tries.
const PAUSE_MAX_MS: u64 = 50;

/// What a change does to the document; a deletion may leave something to the next one's rule.
pub(super) enum Write<T> {
    Nothing,
    Put(T),
    Delete(Option<T>),
}

/// What follows from a record as it was found.
pub(super) enum Decision<R> {
    /// An earlier call had made the change; with the work of the record.
    Repeat(Done<R>, Vec<Pending>),
    /// Nothing is to be written.
    Nothing(Done<R>),
    /// This is to be written.
    Write(Next, R),
}

/// A record that is to follow another one.
pub(super) struct Next {
    after: Stored,
    expected: Expected,
    now_ms: i64,
}

impl Inner {
    pub(super) async fn decide<T, R, L, F>(
        &self,
        context: &Context,
        key: &str,
        entry: Option<Entry>,
        look: impl Fn(&Stored) -> F,
        rule: impl Fn(&Current<T>, L) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Decision<R>, Failed<R>>
    where
        T: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        F: Future<Output = Result<L, Fault>>,
    {
        let (expected, before) = match entry {
            Some(entry) => (Expected::Revision(entry.revision), Stored::read(&entry)?),
            None => (Expected::Absent, Stored::default()),
        };
        if let Some(Done { reply, version, revision, is_repeat }) = before.repeated(context)? {
            let done = Done { reply: from_text(&reply)?, version, revision, is_repeat };
            return Ok(Decision::Repeat(done, before.pending));
        }
        let known = look(&before).await?;
        let current = before.current(context.now_ms())?;
        let Change { write, reply, expires_at_ms, pending } = rule(&current, known)?;
        let Current { version, revision, now_ms, .. } = current;
        let (value, left) = match write {
            Write::Nothing => return Ok(Decision::Nothing(Done { reply, version, revision, is_repeat: false })),
            Write::Put(value) => (Some(to_text(&value)?), None),
            Write::Delete(left) => (None, left.as_ref().map(to_text).transpose()?),
        };
        let is_keyed = !context.idempotency_key().is_empty();
        let kept = is_keyed.then(|| to_text(&reply)).transpose()?;
        let effect = Effect { value, left, reply: kept, expires_at_ms, pending, now_ms };
        let after = before.followed_by(context, effect, &|id| self.outbox.is_sent(key, id))?;
        Ok(Decision::Write(Next { after, expected, now_ms }, reply))
    }

    /// Writes what was decided, and sends what goes with it: the record's version and revision, nothing where the race
    /// was lost.
    pub(super) async fn commit(
        &self,
        context: &Context,
        key: &str,
        slot: Option<SlotId>,
        next: Next,
    ) -> Result<Option<(u64, u64)>, Fault> {
        let Next { mut after, expected, now_ms } = next;
        let mut bytes = after.bytes()?;
        if bytes.len() > VALUE_BYTES_MAX {
            // Another replica may have sent long since what it has not cleared yet, and what keeps this from fitting.
            let carried: Vec<Pending> = after.pending.iter().filter(|work| work.revision.is_some()).cloned().collect();
            self.outbox.deliver(context, key, &carried).await;
            after.pending.retain(|work| work.revision.is_none() || !self.outbox.is_sent(key, &work.id(0)));
            bytes = after.bytes()?;
        }
        fail_point::reached(Place::BeforeCommit, self.name);
        let revision = match self.put(key, slot, bytes, expected, now_ms).await {
            Ok(revision) => revision,
            Err(StoreError::Conflict) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        fail_point::reached(Place::AfterCommit, self.name);
        after.resolve(revision);
        if let Some(changed) = &self.changed {
            changed(key, after.value.as_deref().and_then(|value| from_text(value).ok()));
        }
        self.outbox.keep_only(key, &after.pending);
        tokio::join!(self.forget(context, key), self.outbox.deliver(context, key, &after.pending));
        fail_point::reached(Place::AfterEvents, self.name);
        Ok(Some((after.version, revision)))
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

/// The first re-read comes at once, later ones after 5 to 50 ms.
pub(super) async fn pause(attempt: u32) {
    if attempt > 0 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..=PAUSE_MAX_MS))).await;
    }
}
