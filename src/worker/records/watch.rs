//! Changes of documents as they come, without the writes that only clear what was sent.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::stored::Stored;
use super::unreadable::Unreadable;
use super::{Current, Document};
use crate::fault::Fault;
use crate::store::{Change, Seen, Watch};
use crate::worker::Context;

/// Changes of some documents. Slow readers miss changes that were replaced meanwhile, never the newest one.
pub struct RecordWatch<T> {
    watch: Watch,
    /// Changes up to here are known to the reader.
    after: u64,
    is_reset: bool,
    /// What was there has been told, and the reader has not come back since.
    is_current: bool,
    /// Revision of the last change told, by key.
    told: HashMap<String, u64>,
    /// Where records that cannot be read are said; a watch of one document fails with its own instead.
    leaves_out: Option<Arc<Unreadable>>,
    kind: std::marker::PhantomData<fn() -> T>,
}

/// What a watch of documents tells.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordSeen<T> {
    /// A document that was there, or a change.
    Change {
        /// Its key.
        key: String,
        /// The document; nothing where it was deleted or has expired.
        document: Option<Document<T>>,
        /// Version of the document, or of its deletion; 0 where the deletion left none behind.
        version: u64,
        /// Revision of the change.
        revision: u64,
        /// When it was made, milliseconds since 1970.
        at_ms: i64,
    },
    /// Everything that was there when the watch began has been told. Once.
    Current,
}

impl<T: DeserializeOwned> RecordWatch<T> {
    pub(super) fn new(watch: Watch, after: u64, is_reset: bool, leaves_out: Option<Arc<Unreadable>>) -> RecordWatch<T> {
        let (told, kind) = (HashMap::new(), std::marker::PhantomData);
        RecordWatch { watch, after, is_reset, is_current: false, told, leaves_out, kind }
    }

    /// The next change, as soon as there is one. Can be dropped while it waits.
    pub async fn next(&mut self, context: &Context) -> Result<RecordSeen<T>, Fault> {
        // Nothing of what was there was refused: a stream about it has begun, even with nothing to tell.
        if std::mem::take(&mut self.is_current) {
            context.begin_stream();
        }
        loop {
            match self.watch.next().await? {
                Seen::Current => {
                    self.is_current = true;
                    return Ok(RecordSeen::Current);
                }
                Seen::Change(change) => match self.read(&change, context.now_ms()) {
                    Ok(Some(seen)) => return Ok(seen),
                    Ok(None) => {}
                    Err(fault) => self.leave_out(&change.key, change.revision, fault)?,
                },
            }
        }
    }

    /// Leaves out a change whose document cannot be read; fails with that where it is the only one watched.
    pub(in crate::worker) fn leave_out(&self, key: &str, revision: u64, fault: Fault) -> Result<(), Fault> {
        match &self.leaves_out {
            Some(unreadable) => unreadable.say(key, revision, &fault),
            None => return Err(fault),
        }
        Ok(())
    }

    /// The revision asked for is no longer kept, so the watch began with what is there.
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }

    fn read(&mut self, change: &Change, now_ms: i64) -> Result<Option<RecordSeen<T>>, Fault> {
        let Change { value, revision, created_ms, .. } = change;
        let (key, revision) = (change.key.clone(), *revision);
        let Some(value) = value else {
            self.told.remove(&key);
            let (document, version, at_ms) = (None, 0, *created_ms);
            return Ok(Some(RecordSeen::Change { key, document, version, revision, at_ms }));
        };
        let stored = Stored::read_at(value, revision)?;
        let Current { value, version, revision: changed, updated_ms, .. } = stored.current(now_ms)?;
        let is_known = changed <= self.after && !self.is_reset;
        if is_known || self.told.insert(key.clone(), changed) == Some(changed) {
            return Ok(None);
        }
        let document = value.map(|value| Document { value, version, revision: changed, updated_ms });
        Ok(Some(RecordSeen::Change { key, document, version, revision: changed, at_ms: updated_ms }))
    }
}
