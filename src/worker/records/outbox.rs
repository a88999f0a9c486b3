//! What goes with committed changes: sent after the commit, and remembered as sent until the record forgets it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::notice::{Notice, Seal};
use super::stored::{Pending, Work};
use crate::fault::{Code, Fault};
use crate::store::{Bucket, Expected, StoreError};
use crate::telemetry;
use crate::worker::Context;

/// Tries to send an event, and the first pause between two, which doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait of a reply for its events.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Keys whose sent work is remembered. Beyond it the memory starts anew: work is then sent once more under the same id.
const KEYS_MAX: usize = 100_000;

pub(super) struct Outbox {
    seal: Seal,
    others: Vec<(&'static str, Bucket)>,
    sent: Arc<Sent>,
}

/// Ids of sent work by key.
#[derive(Default)]
struct Sent(Mutex<HashMap<String, BTreeSet<String>>>);

impl Sent {
    fn with<A>(&self, use_it: impl FnOnce(&mut HashMap<String, BTreeSet<String>>) -> A) -> A {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, key: &str, id: String) {
        self.with(|sent| {
            if sent.len() >= KEYS_MAX {
                sent.clear();
            }
            sent.entry(key.to_owned()).or_default().insert(id);
        });
    }
}

impl Outbox {
    pub(super) fn new(seal: Seal, others: Vec<(&'static str, Bucket)>) -> Outbox {
        Outbox { seal, others, sent: Arc::default() }
    }

    pub(super) fn is_sent(&self, key: &str, id: &str) -> bool {
        self.sent.with(|sent| sent.get(key).is_some_and(|ids| ids.contains(id)))
    }

    /// True where work of this key was sent here.
    pub(super) fn knows(&self, key: &str) -> bool {
        self.sent.with(|sent| sent.contains_key(key))
    }

    /// Forgets the work of a key that its record does not hold any more.
    pub(super) fn keep_only(&self, key: &str, pending: &[Pending]) {
        self.sent.with(|sent| {
            let Some(ids) = sent.get_mut(key) else { return };
            ids.retain(|id| pending.iter().any(|pending| pending.id(0) == *id));
            if ids.is_empty() {
                sent.remove(key);
            }
        });
    }

    /// Does the work of a committed record: puts at once, events for at most 250 ms before it goes on behind the
    /// caller's back. What fails stays in the record, and the sweeper comes to it.
    pub(super) async fn deliver(&self, context: &Context, key: &str, pending: &[Pending]) {
        let mut sending = tokio::task::JoinSet::new();
        for pending in pending {
            let id = pending.id(0);
            if self.is_sent(key, &id) {
                continue;
            }
            match &pending.work {
                Work::Put { bucket, key: to, value } => match self.put(bucket, to, value).await {
                    Ok(()) => self.sent.note(key, id),
                    Err(fault) => tracing::warn!(bucket, key = to, %fault, "a put behind a change waits"),
                },
                Work::Event(notice) => {
                    let (context, notice, seal, sent) = (context.clone(), notice.clone(), self.seal, self.sent.clone());
                    let key = key.to_owned();
                    sending.spawn(async move {
                        match send(&context, &notice, seal, &id).await {
                            Ok(()) => sent.note(&key, id),
                            Err(fault) => tracing::warn!(subject = notice.subject, id, %fault, "an event waits"),
                        }
                    });
                }
            }
        }
        let all = async { while sending.join_next().await.is_some() {} };
        if tokio::time::timeout(WAIT_MAX, all).await.is_err() {
            sending.detach_all();
        }
    }

    /// The puts among the work of a record that are not known as done here.
    pub(super) fn unfinished_puts(&self, key: &str, pending: &[Pending]) -> Vec<Pending> {
        let is_put =
            |pending: &&Pending| matches!(pending.work, Work::Put { .. }) && !self.is_sent(key, &pending.id(0));
        pending.iter().filter(is_put).cloned().collect()
    }

    /// Does these puts of a record; fails where one of them cannot be done now.
    pub(super) async fn finish(&self, key: &str, puts: &[Pending]) -> Result<(), Fault> {
        for pending in puts {
            if let Work::Put { bucket, key: to, value } = &pending.work {
                self.put(bucket, to, value).await?;
                self.sent.note(key, pending.id(0));
            }
        }
        Ok(())
    }

    /// A put that nobody has done yet.
    async fn put(&self, bucket: &str, key: &str, value: &serde_json::Value) -> Result<(), Fault> {
        let Some((_, bucket)) = self.others.iter().find(|(name, _)| *name == bucket) else {
            return Err(Fault::ours(Code::Internal, format!("no bucket `{bucket}` was opened for these documents")));
        };
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Fault::ours(Code::Internal, "a value does not encode").internal(error.to_string()))?;
        match bucket.put(key, bytes.into(), Expected::Absent).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Context {
    /// Publishes the event of an operation that writes no record: tried a few times behind the reply, which waits at
    /// most 250 ms for it. What is dropped in the end is counted and logged.
    pub async fn publish_later(&self, notice: Notice, seal: Seal) {
        let context = self.clone();
        let sending = tokio::spawn(async move {
            // Nothing is written, so there is no revision.
            let id = notice.id_at(0);
            if let Err(fault) = send(&context, &notice, seal, &id).await {
                metrics::counter!(telemetry::EVENTS_DROPPED, "service" => context.service().to_owned()).increment(1);
                tracing::warn!(subject = notice.subject, id, %fault, "an event is dropped");
            }
        });
        // Past the wait the task goes on by itself.
        let _ = tokio::time::timeout(WAIT_MAX, sending).await;
    }
}

/// Publishes an event until a log has it.
async fn send(context: &Context, notice: &Notice, seal: Seal, id: &str) -> Result<(), Fault> {
    let sealed = seal(context, notice, id)?;
    let mut pause = PAUSE;
    for attempt in 1.. {
        let kept = context.append_sealed(&notice.subject, &sealed, id).await;
        match kept {
            Ok(_) => break,
            Err(fault) if fault.code() == Code::Unavailable && attempt < TRIES => tokio::time::sleep(pause).await,
            Err(fault) => return Err(fault),
        }
        pause *= 2;
    }
    Ok(())
}
