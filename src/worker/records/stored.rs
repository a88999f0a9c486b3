//! A record as the bucket holds it: the document, what is still to be sent, and the last keyed calls.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Change, Current, Done, Notice, Write, fingerprint};
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
    reply: serde_json::Value,
    version: u64,
    /// As in [`Pending`].
    revision: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored<T> {
    schema: u32,
    /// Nothing where it was deleted.
    pub(super) value: Option<T>,
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

impl<T> Default for Stored<T> {
    fn default() -> Stored<T> {
        Stored {
            schema: 1,
            value: None,
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

impl<T> Stored<T> {
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

    /// Takes the document out, as a rule or a reader sees it.
    pub(super) fn take_current(&mut self, now_ms: i64) -> Current<T> {
        let value = self.value.take().filter(|_| !self.is_expired(now_ms));
        Current { value, version: self.version, revision: self.changed(), updated_ms: self.updated_ms, now_ms }
    }
}

impl<T: DeserializeOwned> Stored<T> {
    pub(super) fn read(entry: &Entry) -> Result<Stored<T>, Fault> {
        Stored::read_at(&entry.value, entry.revision)
    }

    pub(super) fn read_at(value: &Bytes, revision: u64) -> Result<Stored<T>, Fault> {
        let mut stored: Stored<T> = serde_json::from_slice(value).map_err(broken)?;
        stored.resolve(revision);
        Ok(stored)
    }
}

impl<T: Serialize> Stored<T> {
    pub(super) fn bytes(&self) -> Result<Bytes, Fault> {
        serde_json::to_vec(self).map(Bytes::from).map_err(broken)
    }
}

impl<T> Stored<T> {
    /// The result of an earlier call with this call's key; a fault where that call was another request.
    pub(super) fn repeated<R: DeserializeOwned>(&self, context: &Context) -> Result<Option<Done<R>>, Fault> {
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
        let reply = serde_json::from_value(recent.reply.clone()).map_err(broken)?;
        let revision = recent.revision.unwrap_or(self.revision);
        Ok(Some(Done { reply, version: recent.version, revision, is_repeat: true }))
    }

    /// The record that follows, and the change's reply. `is_sent` says which pending work needs no keeping.
    pub(super) fn followed_by<R: Serialize>(
        self,
        context: &Context,
        change: Change<T, R>,
        now_ms: i64,
        is_sent: impl Fn(&str) -> bool,
    ) -> Result<(Stored<T>, R), Fault> {
        let (version, mut recent, revision) = (self.version + 1, self.recent, self.revision);
        if !context.idempotency_key().is_empty() {
            recent.push_back(Recent {
                key: key_hash(context),
                fingerprint: fingerprint(context)?,
                reply: serde_json::to_value(&change.reply).map_err(broken)?,
                version,
                revision: None,
            });
            if recent.len() > RECENT_MAX {
                recent.pop_front();
            }
        }
        let mut pending: Vec<Pending> =
            self.pending.into_iter().filter(|pending| !is_sent(&pending.id(revision))).collect();
        pending.extend(change.pending);
        if pending.len() > PENDING_MAX {
            let text = "the events of earlier changes cannot be sent: try again later";
            return Err(Fault::upstream(Code::Unavailable, text).detail("reason", "events_pending"));
        }
        let value = match change.write {
            Write::Put(value) => Some(value),
            Write::Delete | Write::Nothing => None,
        };
        let after = Stored {
            schema: 1,
            value,
            version,
            updated_ms: now_ms,
            expires_at_ms: change.expires_at_ms,
            changed_at: None,
            pending,
            recent,
            revision: 0,
        };
        Ok((after, change.reply))
    }

    /// The record of a document that has expired, with what is told of it.
    pub(super) fn expired(mut self, told: Vec<Pending>, now_ms: i64) -> Stored<T> {
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
    pub(super) fn cleared(mut self, is_sent: impl Fn(&str) -> bool) -> Stored<T> {
        self.changed_at = Some(self.changed());
        let revision = self.revision;
        self.pending.retain(|pending| !is_sent(&pending.id(revision)));
        self
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn broken(error: serde_json::Error) -> Fault {
    Fault::ours(Code::Internal, "a stored record cannot be read").internal(error.to_string())
}
