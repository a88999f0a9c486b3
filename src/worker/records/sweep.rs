//! The sweeper of a kind of documents: follows their bucket, sends what was left unsent, clears what was sent, and
//! removes what has expired. Every replica runs one; the compare-and-set decides who does the work.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::stored::{Pending, Stored, Work};
use super::{Inner, Keys};
use crate::fault::Fault;
use crate::store::{Expected, Seen, StoreError};
use crate::worker::Context;

/// Records that wait for the sweeper; while there are as many, no more are read.
const WAITING_MAX: usize = 100_000;
/// Pause before the bucket is followed anew after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Why a record waits.
struct Waiting {
    /// Since when it has unsent work.
    unsent: Option<Instant>,
    /// When it expires; 0 is never.
    expires_at_ms: i64,
}

type Raw = Stored<serde_json::Value>;

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

async fn follow(inner: &Inner, context: &Context) -> Result<(), Fault> {
    let mut watch = inner.bucket.watch(Keys::All, None).await?;
    let mut waiting: HashMap<String, Waiting> = HashMap::new();
    let mut ticks = tokio::time::interval_at(Instant::now() + inner.sweep, inner.sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            seen = watch.next(), if waiting.len() < WAITING_MAX => {
                let Seen::Change(change) = seen? else { continue };
                let stored = change.value.as_ref().map(|value| Raw::read_at(value, change.revision)).transpose();
                match stored.ok().flatten() {
                    Some(stored) if !stored.pending.is_empty() || stored.expires_at_ms > 0 => {
                        let before = waiting.get(&change.key).and_then(|waiting| waiting.unsent);
                        let unsent = (!stored.pending.is_empty()).then(|| before.unwrap_or_else(Instant::now));
                        waiting.insert(change.key, Waiting { unsent, expires_at_ms: stored.expires_at_ms });
                    }
                    _ => {
                        waiting.remove(&change.key);
                    }
                }
            }
            _ = ticks.tick() => {
                let now_ms = context.now_ms();
                let oldest = waiting.values().filter_map(|waiting| waiting.unsent).min();
                inner.oldest_pending.set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
                // Whoever wrote a record clears it first; what is older was left behind.
                let is_left = |since: Instant| since.elapsed() >= inner.sweep * 2;
                let is_due = |key: &str, waiting: &Waiting| {
                    waiting.unsent.is_some_and(|since| inner.outbox.knows(key) || is_left(since))
                        || (waiting.expires_at_ms > 0 && waiting.expires_at_ms <= now_ms)
                };
                let due: Vec<String> =
                    waiting.iter().filter(|(key, waiting)| is_due(key, waiting)).map(|(key, _)| key.clone()).collect();
                for key in due {
                    if context.cancelled().is_some() {
                        return Ok(());
                    }
                    settle(inner, context, &key).await?;
                }
            }
            _ = context.until_cancelled() => return Ok(()),
        }
    }
}

/// Sends what is unsent, then writes the record without it; lets an expired document go. A lost race is no loss: the
/// winner's record comes by on the watch.
async fn settle(inner: &Inner, context: &Context, key: &str) -> Result<(), Fault> {
    let _turn = inner.lane(key).lock().await;
    let Some(entry) = inner.bucket.get(key).await? else { return Ok(()) };
    let Ok(mut stored) = Raw::read(&entry) else { return Ok(()) };
    if stored.is_expired(context.now_ms())
        && let Some(value) = stored.value.take()
    {
        let told = inner.expired.as_ref().map(|expired| expired(context, key, &value)).transpose()?;
        let told = told.unwrap_or_default().into_iter().map(Work::Event);
        stored = stored.expired(told.map(|work| Pending { revision: None, work }).collect(), context.now_ms());
        if !inner.keeps_tombstones && stored.pending.is_empty() {
            return ignore_conflict(inner.bucket.delete(key, Expected::Revision(entry.revision)).await);
        }
        let written = inner.bucket.put(key, stored.bytes()?, Expected::Revision(entry.revision)).await;
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
        inner.bucket.put(key, stored.bytes()?, Expected::Revision(entry.revision)).await
    };
    if written.is_ok() {
        inner.outbox.keep_only(key, &stored.pending);
    }
    ignore_conflict(written)
}

fn ignore_conflict(written: Result<u64, StoreError>) -> Result<(), Fault> {
    match written {
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
