//! A record as the bucket holds it: the document, what is still to be sent, and the last keyed calls. The document and
//! the replies stay JSON text here, so that this code is the same for all kinds of documents and stands in the program once.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Current, Done, Notice, fingerprint};
use crate::fault::{Code, Fault};
use crate::store::Entry;
use crate::worker::Context;
use crate::worker::repeat::key_hash;

/// Keyed calls that a record remembers.
const RECENT_MAX: usize = 16;
/// Unsent events and puts that a record may gather while logs do not answer.
const PENDING_MAX: usize = 64;

/// Something to do once the change is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Revision of the change; nothing where that is the record's own write.
    pub(super) revision: Option<u64>,
    pub(super) work: Work,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Work {
    Event(Notice),
    Put { bucket: String, key: String, value: serde_json::Value },
}

impl Pending {
    /// What tells it from others of its record.
    pub(super) fn id(&self, own_revision: u64) -> String {
        match &self.work {
            Work::Event(notice) => notice.id_at(self.revision.unwrap_or(own_revision)),
            Work::Put { bucket, key, .. } => format!("{bucket}/{key}"),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recent {
    /// Hash of the key and the subject.
    key: String,
    fingerprint: String,
    reply: Box<RawValue>,
    version: u64,
    /// As in [`Pending`].
    revision: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    schema: u32,
    /// Nothing where it was deleted.
    pub(super) value: Option<Box<RawValue>>,
    /// What its deletion has left to the next change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<Box<RawValue>>,
    pub(super) version: u64,
    updated_ms: i64,
    /// 0 is never.
    pub(super) expires_at_ms: i64,
    /// Revision of the last change where a later write only cleared `pending`.
    pub(super) changed_at: Option<u64>,
    pub(super) pending: Vec<Pending>,
    recent: VecDeque<Recent>,
    /// Revision under which it was read.
    #[serde(skip)]
    revision: u64,
}

/// What a change makes of a record.
pub(super) struct Effect {
    /// The new document; nothing where it goes.
    pub(super) value: Option<Box<RawValue>>,
    /// What a deletion leaves to the next change.
    pub(super) left: Option<Box<RawValue>>,
    /// What repeats of a keyed call get.
    pub(super) reply: Option<Box<RawValue>>,
    pub(super) expires_at_ms: i64,
    pub(super) pending: Vec<Pending>,
    pub(super) now_ms: i64,
}

impl Default for Stored {
    fn default() -> Stored {
        Stored {
            schema: 1,
            value: None,
            left: None,
            version: 0,
            updated_ms: 0,
            expires_at_ms: 0,
            changed_at: None,
            pending: Vec::new(),
            recent: VecDeque::new(),
            revision: 0,
        }
    }
}

impl Stored {
    pub(super) fn read(entry: &Entry) -> Result<Stored, Fault> {
        Stored::read_at(&entry.value, entry.revision)
    }

    pub(super) fn read_at(value: &Bytes, revision: u64) -> Result<Stored, Fault> {
        let mut stored: Stored = serde_json::from_slice(value).map_err(broken)?;
        stored.resolve(revision);
        Ok(stored)
    }

    pub(super) fn bytes(&self) -> Result<Bytes, Fault> {
        serde_json::to_vec(self).map(Bytes::from).map_err(broken)
    }

    /// Revision of the last change.
    pub(super) fn changed(&self) -> u64 {
        self.changed_at.unwrap_or(self.revision)
    }

    /// Gives what waits for the record's own revision that revision.
    pub(super) fn resolve(&mut self, revision: u64) {
        self.revision = revision;
        for pending in &mut self.pending {
            pending.revision.get_or_insert(revision);
        }
        for recent in &mut self.recent {
            recent.revision.get_or_insert(revision);
        }
    }

    pub(super) fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms > 0 && self.expires_at_ms <= now_ms
    }

    /// The document as a rule or a reader sees it.
    pub(super) fn current<T: DeserializeOwned>(&self, now_ms: i64) -> Result<Current<T>, Fault> {
        let value = self.value.as_deref().filter(|_| !self.is_expired(now_ms)).map(from_text).transpose()?;
        let left = self.left.as_deref().map(from_text).transpose()?;
        let (version, revision, updated_ms) = (self.version, self.changed(), self.updated_ms);
        Ok(Current { value, left, version, revision, updated_ms, now_ms })
    }

    /// The result of an earlier call with this call's key; a fault where that call was another request.
    pub(super) fn repeated(&self, context: &Context) -> Result<Option<Done<Box<RawValue>>>, Fault> {
        if context.idempotency_key().is_empty() {
            return Ok(None);
        }
        let key = key_hash(context);
        let Some(recent) = self.recent.iter().find(|recent| recent.key == key) else { return Ok(None) };
        if recent.fingerprint != fingerprint(context)? {
            let text = "the idempotency key was used for another request";
            return Err(Fault::client(Code::Conflict, text).detail("reason", "key_reused"));
        }
        context.label("idempotent_replay", "true");
        let revision = recent.revision.unwrap_or(self.revision);
        Ok(Some(Done { reply: recent.reply.clone(), version: recent.version, revision, is_repeat: true }))
    }

    /// The record that follows. `is_sent` says which pending work needs no keeping.
    pub(super) fn followed_by(
        self,
        context: &Context,
        effect: Effect,
        is_sent: &dyn Fn(&str) -> bool,
    ) -> Result<Stored, Fault> {
        let (version, mut recent, revision) = (self.version + 1, self.recent, self.revision);
        if let Some(reply) = effect.reply {
            let (key, fingerprint) = (key_hash(context), fingerprint(context)?);
            recent.push_back(Recent { key, fingerprint, reply, version, revision: None });
            if recent.len() > RECENT_MAX {
                recent.pop_front();
            }
        }
        let mut pending: Vec<Pending> =
            self.pending.into_iter().filter(|pending| !is_sent(&pending.id(revision))).collect();
        pending.extend(effect.pending);
        if pending.len() > PENDING_MAX {
            let text = "the events of earlier changes cannot be sent: try again later";
            return Err(Fault::upstream(Code::Unavailable, text).detail("reason", "events_pending"));
        }
        Ok(Stored {
            schema: 1,
            value: effect.value,
            left: effect.left,
            version,
            updated_ms: effect.now_ms,
            expires_at_ms: effect.expires_at_ms,
            changed_at: None,
            pending,
            recent,
            revision: 0,
        })
    }

    /// The record of a document that has expired, with what is told of it.
    pub(super) fn expired(mut self, told: Vec<Pending>, now_ms: i64) -> Stored {
        self.pending.extend(told);
        Stored {
            value: None,
            version: self.version + 1,
            updated_ms: now_ms,
            expires_at_ms: 0,
            changed_at: None,
            ..self
        }
    }

    /// The same document without work that was done.
    pub(super) fn cleared(mut self, is_sent: impl Fn(&str) -> bool) -> Stored {
        self.changed_at = Some(self.changed());
        let revision = self.revision;
        self.pending.retain(|pending| !is_sent(&pending.id(revision)));
        self
    }
}

/// A value from the text that a record holds.
pub(super) fn from_text<T: DeserializeOwned>(text: &RawValue) -> Result<T, Fault> {
    serde_json::from_slice(text.get().as_bytes()).map_err(broken)
}

/// The text of a value for a record.
pub(super) fn to_text<T: Serialize>(value: &T) -> Result<Box<RawValue>, Fault> {
    serde_json::value::to_raw_value(value).map_err(broken)
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn broken(error: serde_json::Error) -> Fault {
    Fault::ours(Code::Internal, "a stored record cannot be read").internal(error.to_string())
}
