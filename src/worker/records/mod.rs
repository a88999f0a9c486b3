//! Documents of one kind in a bucket. A change, its events and its repeat key are written together or not at all: what
//! a crash leaves unsent is found in the record and sent later, under the same ids.
//!
//! A rule sees what is there and says what follows; it may run several times, because a lost race is run anew.

mod attempt;
mod config;
mod known;
mod mapped;
mod notice;
mod outbox;
mod stored;
mod sweep;
mod unreadable;
mod watch;

use std::hash::{Hash as _, Hasher as _};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::repeat::fingerprint;
use super::{Context, Failed};
use crate::fault::{Code, Fault};
use crate::store::{Bucket, Entry, Keys, Store};
use crate::telemetry;
use attempt::{Decision, Write, pause};
use known::Known;
use outbox::Outbox;
use stored::{Pending, Stored, Work};
pub(in crate::worker) use unreadable::Unreadable;

pub(super) use config::Forget;
pub use config::{Changed, Expired, RecordsConfig};
pub(crate) use notice::base64_text;
pub(in crate::worker) use notice::encoded;
pub use notice::{EventId, Notice, Seal, Sealed, plain_seal};
pub use watch::{RecordSeen, RecordWatch};

/// Queues of writers.
const LANES: usize = 256;
/// Tries of a change that keeps losing its race.
const TRIES: u32 = 20;

/// Documents of one kind. Cloning shares them.
pub struct Records<T>(Arc<Inner>, PhantomData<fn() -> T>);

impl<T> Clone for Records<T> {
    fn clone(&self) -> Records<T> {
        self.also()
    }
}

struct Inner {
    name: &'static str,
    bucket: Bucket,
    known: Known,
    keeps_tombstones: bool,
    sweep: Arc<dyn Fn() -> Duration + Send + Sync>,
    expired: Option<Expired>,
    changed: Option<Changed>,
    forget: Mutex<Vec<Forget>>,
    outbox: Outbox,
    oldest_pending: metrics::Gauge,
    unreadable: Arc<Unreadable>,
    /// Writers of one key queue here, so that a replica never races itself; keys that share a lane only wait longer.
    lanes: [tokio::sync::Mutex<()>; LANES],
}

/// A document as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<T> {
    /// Its content.
    pub value: T,
    /// Changes so far: 1, 2, 3, … counted on through deletions.
    pub version: u64,
    /// Revision of the change that made it: a resume point for watches.
    pub revision: u64,
    /// When that change was made, milliseconds since 1970.
    pub updated_ms: i64,
}

/// What a rule finds under a key.
#[derive(Clone, Debug)]
pub struct Current<T> {
    /// The document; nothing where there is none, or where it was deleted or has expired.
    pub value: Option<T>,
    /// What its deletion has left to the rule of the next change ([`Change::delete_leaving`]).
    pub left: Option<T>,
    /// Its version, or that of the deletion; 0 where there never was one.
    pub version: u64,
    /// Revision of its last change; 0 where there never was one.
    pub revision: u64,
    /// When its last change was made, milliseconds since 1970.
    pub updated_ms: i64,
    /// When the rule's own change is made: what the record will say.
    pub now_ms: i64,
}

/// What a rule wants: a write, events and puts that go with it, and the reply.
pub struct Change<T, R> {
    write: Write<T>,
    reply: R,
    expires_at_ms: i64,
    pending: Vec<Pending>,
}

impl<T, R> Change<T, R> {
    /// Nothing is written.
    pub fn nothing(reply: R) -> Change<T, R> {
        Change { write: Write::Nothing, reply, expires_at_ms: 0, pending: Vec::new() }
    }

    /// This becomes the document.
    pub fn put(value: T, reply: R) -> Change<T, R> {
        Change { write: Write::Put(value), ..Change::nothing(reply) }
    }

    /// The document goes.
    pub fn delete(reply: R) -> Change<T, R> {
        Change { write: Write::Delete(None), ..Change::nothing(reply) }
    }

    /// The document goes, and leaves this to the rule of the next change.
    pub fn delete_leaving(left: T, reply: R) -> Change<T, R> {
        Change { write: Write::Delete(Some(left)), ..Change::nothing(reply) }
    }

    /// The document counts as absent from then on; 0 is never.
    #[must_use]
    pub fn expires_at_ms(mut self, at_ms: i64) -> Change<T, R> {
        self.expires_at_ms = at_ms;
        self
    }

    /// An event to publish once the change is committed.
    #[must_use]
    pub fn event(mut self, notice: Notice) -> Change<T, R> {
        self.pending.push(Pending { revision: None, work: Work::Event(notice) });
        self
    }

    /// Events to publish once the change is committed.
    #[must_use]
    pub fn events(self, notices: impl IntoIterator<Item = Notice>) -> Change<T, R> {
        notices.into_iter().fold(self, Change::event)
    }

    /// A value to write under a key of another bucket once the change is committed, unless that key has one.
    #[must_use]
    pub fn also_put(mut self, bucket: &'static str, key: String, value: serde_json::Value) -> Change<T, R> {
        self.pending.push(Pending { revision: None, work: Work::Put { bucket: bucket.to_owned(), key, value } });
        self
    }
}

/// A change that was made, or had been made by an earlier call with the same idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub struct Done<R> {
    /// The rule's reply.
    pub reply: R,
    /// Version of the document.
    pub version: u64,
    /// Revision of the change; that of the document as found where nothing was written.
    pub revision: u64,
    /// An earlier call had made it.
    pub is_repeat: bool,
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Records<T> {
    /// Opens a kind of documents; its bucket is made where there is none yet. The service has to run
    /// [`Records::sweeper`] as one of its tasks.
    pub async fn open(store: &Store, config: RecordsConfig) -> Result<Records<T>, Fault> {
        let (name, ttl) = (config.bucket.name, config.bucket.ttl);
        let bucket = store.bucket(config.bucket).await?;
        let inner = Inner {
            oldest_pending: metrics::gauge!(telemetry::PENDING_OLDEST, "bucket" => name),
            unreadable: Arc::new(Unreadable::new(name)),
            name,
            known: Known::new(bucket.clone(), ttl),
            bucket,
            keeps_tombstones: config.keeps_tombstones,
            sweep: config.sweep,
            expired: config.expired,
            changed: config.changed,
            forget: Mutex::default(),
            outbox: Outbox::new(config.seal, config.others),
            lanes: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        };
        Ok(Records(Arc::new(inner), PhantomData))
    }

    /// The bucket below, for what is no document.
    pub fn bucket(&self) -> &Bucket {
        &self.0.bucket
    }

    /// The document as the leader has it: a caller reads its own write on any replica.
    pub async fn get(&self, context: &Context, key: &str) -> Result<Option<Document<T>>, Fault> {
        live(self.0.known.get(key, context.now_ms()).await?, context.now_ms())
    }

    /// The document as any replica has it, a moment behind; where there is none, the leader is asked.
    pub async fn get_cached(&self, context: &Context, key: &str) -> Result<Option<Document<T>>, Fault> {
        match live(self.0.bucket.get_cached(key).await?, context.now_ms())? {
            Some(document) => Ok(Some(document)),
            None => self.get(context, key).await,
        }
    }

    /// The documents under some keys, in order of keys: this process's own writes are in it, others' after a moment.
    /// Records that cannot be read are left out, which is logged and counted once.
    pub async fn list(&self, context: &Context, keys: &Keys) -> Result<Vec<(String, Document<T>)>, Fault> {
        self.list_behind(context, keys, 0).await
    }

    /// The same, not before what anybody has written up to the revision `after` is in it.
    pub(in crate::worker) async fn list_behind(
        &self,
        context: &Context,
        keys: &Keys,
        after: u64,
    ) -> Result<Vec<(String, Document<T>)>, Fault> {
        let entries = self.0.bucket.list_behind(keys, after).await?;
        let mut documents = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, revision) = (entry.key.clone(), entry.revision);
            match live(Some(entry), context.now_ms()) {
                Ok(document) => documents.extend(document.map(|document| (key, document))),
                Err(fault) => self.leave_out(&key, revision, &fault),
            }
        }
        Ok(documents)
    }

    /// Watches documents: first what is there, then each change; with `after`, only what changed behind that revision.
    /// Of many, records that cannot be read are left out as in [`Records::list`]; a watch of one fails with that.
    pub async fn watch(&self, keys: Keys, after: Option<u64>) -> Result<RecordWatch<T>, Fault> {
        let after = after.unwrap_or(0);
        let one = if let Keys::One(key) = &keys { Some(key.clone()) } else { None };
        let watch = self.0.bucket.watch(keys, (after > 0).then_some(after)).await?;
        let mut is_reset = watch.is_reset();
        let leaves_out = one.is_none().then(|| self.0.unreadable.clone());
        if let Some(key) = one.filter(|_| is_reset)
            && let Some(entry) = self.0.bucket.get(&key).await?
        {
            // The revision may be gone because what was sent has been cleared: then nothing was missed.
            is_reset = Stored::read(&entry)?.changed() > after;
        }
        Ok(RecordWatch::new(watch, after, is_reset, leaves_out))
    }

    /// Changes the document of a key as the rule says, and sends what goes with the change.
    ///
    /// A repeat of a keyed call among the last 16 of the record gets that call's reply, and nothing is written.
    /// Fails as the rule does, with ABORTED where the race was lost too often, with UNAVAILABLE where the store does
    /// not answer: then the change may have been made, and a repeat with its key finds out.
    pub async fn change<R: Serialize + DeserializeOwned>(
        &self,
        context: &Context,
        key: &str,
        rule: impl Fn(&Current<T>) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Done<R>, Failed<R>> {
        let look = |_: &Stored| std::future::ready(Ok(()));
        self.change_until_won(context, key, true, look, |current, ()| rule(current)).await
    }

    /// As [`Records::change`], for a rule that must know what earlier changes of this key have put into other buckets
    /// ([`Change::also_put`]): before each try those puts are done, then `look` reads what the rule gets. What it reads
    /// is as old as the record: a change in between is a lost race, and both are read anew.
    ///
    /// Fails as [`Records::change`] and `look` do.
    pub async fn change_knowing<R, L, F>(
        &self,
        context: &Context,
        key: &str,
        look: impl Fn() -> F,
        rule: impl Fn(&Current<T>, L) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Done<R>, Failed<R>>
    where
        R: Serialize + DeserializeOwned,
        F: Future<Output = Result<L, Fault>>,
    {
        let look = |before: &Stored| {
            let (puts, reading) = (self.0.outbox.unfinished_puts(key, &before.pending), look());
            async move {
                self.0.outbox.finish(key, &puts).await?;
                reading.await
            }
        };
        self.change_until_won(context, key, false, look, rule).await
    }

    /// Does what earlier changes of a key have still to put into other buckets, so that it can be read there.
    pub async fn finish_puts(&self, key: &str) -> Result<(), Fault> {
        let Some(entry) = self.0.bucket.get(key).await? else { return Ok(()) };
        let puts = self.0.outbox.unfinished_puts(key, &Stored::read(&entry)?.pending);
        self.0.outbox.finish(key, &puts).await
    }

    async fn change_until_won<R, L, F>(
        &self,
        context: &Context,
        key: &str,
        may_guess: bool,
        look: impl Fn(&Stored) -> F,
        rule: impl Fn(&Current<T>, L) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Done<R>, Failed<R>>
    where
        R: Serialize + DeserializeOwned,
        F: Future<Output = Result<L, Fault>>,
    {
        let inner = &*self.0;
        let _turn = inner.lane(key).lock().await;
        let slot = inner.known.slot(key);
        let mut guess = if may_guess { inner.known.guess(key, context.now_ms()) } else { None };
        for attempt in 0..TRIES {
            let (entry, is_guess) = match guess.take() {
                Some(entry) => (Some(entry), true),
                None => (inner.known.read(key).await.map_err(Fault::from)?, false),
            };
            match inner.decide(context, key, entry, &look, &rule).await {
                Ok(Decision::Write(next, reply)) => {
                    if let Some((version, revision)) = inner.commit(context, key, slot, next).await? {
                        return Ok(Done { reply, version, revision, is_repeat: false });
                    }
                    pause(attempt).await;
                }
                // Only a write finds out where a guess was wrong.
                _ if is_guess => {}
                Ok(Decision::Nothing(done)) => return Ok(done),
                Ok(Decision::Repeat(done, pending)) => {
                    tokio::join!(inner.forget(context, key), inner.outbox.deliver(context, key, &pending));
                    return Ok(done);
                }
                Err(failed) => return Err(failed),
            }
        }
        Err(Fault::ours(Code::Aborted, "too many writers at once: try again").detail("reason", "race").into())
    }

    /// Sends what a crash has left unsent, and removes what has expired: run it as a task of the service.
    pub async fn sweeper(&self, context: &Context) {
        sweep::run(&self.0, context).await;
    }
}

impl<T> Records<T> {
    /// Documents of another kind in the same bucket, which their keys tell apart. One sweeper serves both.
    pub fn also<U>(&self) -> Records<U> {
        Records(self.0.clone(), PhantomData)
    }

    /// Says, once for each revision, that a reader of many leaves a record out.
    pub(in crate::worker) fn leave_out(&self, key: &str, revision: u64, fault: &Fault) {
        self.0.unreadable.say(key, revision, fault);
    }

    /// Adds what drops what is kept elsewhere of a document that is changed here, whoever changes it.
    pub(in crate::worker) fn forgetting(&self, forget: Forget) {
        self.0.forget.lock().unwrap_or_else(PoisonError::into_inner).push(forget);
    }

    /// Name of the bucket.
    pub fn name(&self) -> &'static str {
        self.0.name
    }
}

impl Inner {
    async fn forget(&self, context: &Context, key: &str) {
        let all = self.forget.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for forget in &all {
            forget(context, key).await;
        }
    }

    fn lane(&self, key: &str) -> &tokio::sync::Mutex<()> {
        let mut hash = std::hash::DefaultHasher::new();
        key.hash(&mut hash);
        &self.lanes[hash.finish() as usize % LANES]
    }
}

fn live<T: DeserializeOwned>(entry: Option<Entry>, now_ms: i64) -> Result<Option<Document<T>>, Fault> {
    let Some(entry) = entry else { return Ok(None) };
    let Current { value, version, revision, updated_ms, .. } = Stored::read(&entry)?.current(now_ms)?;
    Ok(value.map(|value| Document { value, version, revision, updated_ms }))
}
