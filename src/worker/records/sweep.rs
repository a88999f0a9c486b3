//! The sweeper of a kind of documents: follows their bucket, sends what was left unsent, clears what was sent, and
//! removes what has expired. Every replica runs one; the compare-and-set decides who does the work.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::stored::{Pending, Stored, Work, from_text};
use super::{Inner, Keys};
use crate::fault::{Code, Fault};
use crate::store::{Change, Entry, Expected, Seen, StoreError, Watch};
use crate::worker::Context;

/// Records that wait for the sweeper; while there are as many, no more are read.
const WAITING_MAX: usize = 100_000;
/// Pause before the bucket is followed anew after an error.
const RETRY: Duration = Duration::from_secs(1);

/// The records that wait, by key.
#[derive(Default)]
struct List {
    waiting: Mutex<HashMap<String, Waiting>>,
    /// Some may have gone.
    room: Notify,
}

/// Why a record waits.
struct Waiting {
    /// Its oldest unsent work, by id, and since when that is the oldest.
    unsent: Option<(String, Instant)>,
    /// When it expires; 0 is never.
    expires_at_ms: i64,
}

pub(super) async fn run(inner: &Inner, context: &Context) {
    while context.cancelled().is_none() {
        if let Err(fault) = follow(inner, context).await {
            tracing::warn!(%fault, "the sweeper starts anew");
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = context.until_cancelled() => {}
            }
        }
    }
}

/// Reads go on while records are settled: what is known of the bucket rests on them.
async fn follow(inner: &Inner, context: &Context) -> Result<(), Fault> {
    let watch = inner.bucket.watch(Keys::All, None).await?;
    let list = List::default();
    let ended = tokio::select! {
        ended = read(inner, watch, &list) => ended,
        ended = settle_due(inner, context, &list) => ended,
        () = inner.known.until_gone_back() => Err(Fault::upstream(Code::Unavailable, "the bucket has gone back")),
    };
    inner.known.lose();
    ended
}

async fn read(inner: &Inner, mut watch: Watch, list: &List) -> Result<(), Fault> {
    let (mut newest, mut is_current) = (0, false);
    loop {
        list.room().await;
        match watch.next().await? {
            Seen::Current => {
                is_current = true;
                inner.known.begin(newest);
            }
            Seen::Change(change) => {
                newest = newest.max(change.revision);
                if is_current {
                    inner.known.follow(&change);
                }
                list.note(inner, change);
            }
        }
    }
}

async fn settle_due(inner: &Inner, context: &Context, list: &List) -> Result<(), Fault> {
    let mut ticks = tokio::time::interval_at(Instant::now() + inner.sweep, inner.sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = context.until_cancelled() => return Ok(()),
        }
        inner.oldest_pending.set(list.oldest().map_or(0.0, |since| since.elapsed().as_secs_f64()));
        for key in list.due(inner, context.now_ms()) {
            if context.cancelled().is_some() {
                return Ok(());
            }
            if let Err(fault) = settle(inner, context, &key).await {
                if fault.code() == Code::Unavailable {
                    return Err(fault);
                }
                // One record that cannot be read keeps nobody from the others.
                tracing::warn!(bucket = inner.name, key, %fault, "a record is not settled");
            }
        }
        list.room.notify_one();
    }
}

impl List {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn room(&self) {
        while self.waiting().len() >= WAITING_MAX {
            self.room.notified().await;
        }
    }

    fn note(&self, inner: &Inner, change: Change) {
        inner.unreadable.is_past(&change.key, change.revision);
        let stored = match change.value.as_ref().map(|value| Stored::read_at(value, change.revision)).transpose() {
            Ok(stored) => stored,
            Err(fault) => {
                inner.unreadable.say(&change.key, change.revision, &fault);
                None
            }
        };
        let mut waiting = self.waiting();
        match stored {
            Some(stored) if !stored.pending.is_empty() || stored.expires_at_ms > 0 => {
                let before = waiting.get(&change.key).and_then(|waiting| waiting.unsent.as_ref());
                let unsent = stored.pending.first().map(|pending| {
                    let id = pending.id(change.revision);
                    let since = before.filter(|before| before.0 == id).map_or_else(Instant::now, |before| before.1);
                    (id, since)
                });
                waiting.insert(change.key, Waiting { unsent, expires_at_ms: stored.expires_at_ms });
            }
            _ => {
                waiting.remove(&change.key);
            }
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.waiting().values().filter_map(|waiting| Some(waiting.unsent.as_ref()?.1)).min()
    }

    /// The keys of records to settle. Whoever wrote a record clears it first, unless its next write does; what is older
    /// was left behind.
    fn due(&self, inner: &Inner, now_ms: i64) -> Vec<String> {
        let is_due = |key: &str, waiting: &Waiting| {
            let age = waiting.unsent.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
            (age >= inner.sweep && inner.outbox.knows(key))
                || age >= inner.sweep * 2
                || (waiting.expires_at_ms > 0 && waiting.expires_at_ms <= now_ms)
        };
        self.waiting().iter().filter(|(key, waiting)| is_due(key, waiting)).map(|(key, _)| key.clone()).collect()
    }
}

/// Sends what is unsent, then writes the record without it; lets an expired document go. A lost race is no loss: the
/// winner's record comes by on the watch.
async fn settle(inner: &Inner, context: &Context, key: &str) -> Result<(), Fault> {
    let _turn = inner.lane(key).lock().await;
    let Some(entry) = newest(inner, context, key).await? else { return Ok(()) };
    let (slot, now_ms) = (inner.known.slot(key), context.now_ms());
    let Ok(mut stored) = Stored::read(&entry) else { return Ok(()) };
    if stored.is_expired(now_ms)
        && let Some(value) = stored.value.take()
    {
        let told = inner.expired.as_ref().map(|expired| expired(context, key, &from_text(&value)?)).transpose()?;
        let told = told.unwrap_or_default().into_iter().map(Work::Event);
        stored = stored.expired(told.map(|work| Pending { revision: None, work }).collect(), now_ms);
        if !inner.keeps_tombstones && stored.pending.is_empty() {
            return ignore_conflict(inner.bucket.delete(key, Expected::Revision(entry.revision)).await);
        }
        let written = inner.put(key, slot, stored.bytes()?, Expected::Revision(entry.revision), now_ms).await;
        if let Ok(revision) = written {
            stored.resolve(revision);
            inner.outbox.deliver(context, key, &stored.pending).await;
        }
        return ignore_conflict(written);
    }
    if stored.pending.is_empty() {
        return Ok(());
    }
    inner.outbox.deliver(context, key, &stored.pending).await;
    let before = stored.pending.len();
    let stored = stored.cleared(|id| inner.outbox.is_sent(key, id));
    let written = if stored.pending.len() == before {
        return Ok(());
    } else if stored.value.is_none() && stored.pending.is_empty() && !inner.keeps_tombstones {
        inner.bucket.delete(key, Expected::Revision(entry.revision)).await
    } else {
        inner.put(key, slot, stored.bytes()?, Expected::Revision(entry.revision), now_ms).await
    };
    if written.is_ok() {
        inner.outbox.keep_only(key, &stored.pending);
    }
    ignore_conflict(written)
}

/// The record of a key: where it is known and holds nothing but work that was sent from here, without asking.
async fn newest(inner: &Inner, context: &Context, key: &str) -> Result<Option<Entry>, StoreError> {
    let is_sent = |entry: &Entry| {
        let is_sent = |pending: &Pending| inner.outbox.is_sent(key, &pending.id(entry.revision));
        Stored::read(entry).is_ok_and(|stored| !stored.pending.is_empty() && stored.pending.iter().all(is_sent))
    };
    match inner.known.guess(key, context.now_ms()).filter(is_sent) {
        Some(entry) => Ok(Some(entry)),
        None => inner.known.read(key).await,
    }
}

fn ignore_conflict(written: Result<u64, StoreError>) -> Result<(), Fault> {
    match written {
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
