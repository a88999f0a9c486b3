//! The sweeper of a kind of documents: follows their bucket, sends what was left unsent, clears what was sent, and
//! removes what has expired. Every replica runs one; the compare-and-set decides who does the work.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::stored::{Pending, Stored, Work, from_text};
use super::{Inner, Keys};
use crate::fault::{Code, Fault};
use crate::store::{Change, Entry, Expected, Seen, StoreError, Watch};
use crate::worker::Context;

/// Most records that wait for the sweeper. Beyond it the later half is left out, and found again once its time has come
/// and few enough wait: then the bucket is followed anew.
const WAITING_MAX: usize = 100_000;
/// Records that may still wait by then, so that the bucket is not read again for a few.
const REST_MAX: usize = WAITING_MAX / 4;
/// Pause before the bucket is followed anew after an error.
const RETRY: Duration = Duration::from_secs(1);

/// The records that wait.
#[derive(Default)]
struct List(Mutex<Waits>);

struct Waits {
    by_key: HashMap<String, Waiting>,
    /// When the first of those that were left out is due; all that wait are due by then.
    left_out_ms: i64,
}

/// Why a record waits.
struct Waiting {
    /// Revision of the record.
    revision: u64,
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
    loop {
        let sweep = (inner.sweep)();
        tokio::select! {
            () = tokio::time::sleep(sweep) => {}
            _ = context.until_cancelled() => return Ok(()),
        }
        inner.oldest_pending.set(list.oldest().map_or(0.0, |since| since.elapsed().as_secs_f64()));
        for (key, revision) in list.due(inner, sweep, context.now_ms()) {
            if context.cancelled().is_some() {
                return Ok(());
            }
            match settle(inner, context, &key).await {
                Ok(Found::Record) => {}
                Ok(Found::Nothing) => list.waits().gone(&key, revision),
                Err(fault) if fault.code() == Code::Unavailable => return Err(fault),
                // One record that cannot be settled keeps nobody from the others.
                Err(fault) => tracing::warn!(bucket = inner.name, key, %fault, "a record is not settled"),
            }
        }
        if list.waits().has_left_out_what_is_due(context.now_ms()) {
            tracing::info!(
                bucket = inner.name,
                "the sweeper follows its bucket anew, for records that it had to leave out"
            );
            return Ok(());
        }
    }
}

impl List {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut waits = self.waits();
        match stored {
            Some(stored) if !stored.pending.is_empty() || stored.expires_at_ms > 0 => {
                let before = waits.by_key.get(&change.key).and_then(|waiting| waiting.unsent.as_ref());
                let unsent = stored.pending.first().map(|pending| {
                    let id = pending.id(change.revision);
                    let since = before.filter(|before| before.0 == id).map_or_else(Instant::now, |before| before.1);
                    (id, since)
                });
                let (revision, expires_at_ms) = (change.revision, stored.expires_at_ms);
                waits.put(change.key, Waiting { revision, unsent, expires_at_ms });
            }
            _ => {
                waits.by_key.remove(&change.key);
            }
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.waits().by_key.values().filter_map(|waiting| Some(waiting.unsent.as_ref()?.1)).min()
    }

    /// The keys of records to settle, and their revisions. Whoever wrote a record clears it first, unless its next write
    /// does; what is older was left behind.
    fn due(&self, inner: &Inner, sweep: Duration, now_ms: i64) -> Vec<(String, u64)> {
        let is_due = |key: &str, waiting: &Waiting| {
            let age = waiting.unsent.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
            (age >= sweep && inner.outbox.knows(key))
                || age >= sweep * 2
                || (waiting.expires_at_ms > 0 && waiting.expires_at_ms <= now_ms)
        };
        let waits = self.waits();
        let due = waits.by_key.iter().filter(|(key, waiting)| is_due(key, waiting));
        due.map(|(key, waiting)| (key.clone(), waiting.revision)).collect()
    }
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { by_key: HashMap::new(), left_out_ms: i64::MAX }
    }
}

impl Waits {
    fn put(&mut self, key: String, waiting: Waiting) {
        if waiting.due_ms() >= self.left_out_ms {
            self.by_key.remove(&key);
            return;
        }
        self.by_key.insert(key, waiting);
        if self.by_key.len() > WAITING_MAX {
            self.leave_out_the_later_half();
        }
    }

    fn leave_out_the_later_half(&mut self) {
        let mut due: Vec<i64> = self.by_key.values().map(Waiting::due_ms).collect();
        let (earlier, &mut bound, _) = due.select_nth_unstable(WAITING_MAX / 2);
        // Of those that are due together, as many stay as there is room for.
        let mut room = earlier.iter().filter(|due_ms| **due_ms == bound).count();
        self.by_key.retain(|_, waiting| match waiting.due_ms().cmp(&bound) {
            Ordering::Equal if room > 0 => {
                room -= 1;
                true
            }
            order => order == Ordering::Less,
        });
        self.left_out_ms = bound;
    }

    /// The record has gone without a word, as one does that its bucket holds for too old: unless another has come since.
    fn gone(&mut self, key: &str, revision: u64) {
        if self.by_key.get(key).is_some_and(|waiting| waiting.revision == revision) {
            self.by_key.remove(key);
        }
    }

    fn has_left_out_what_is_due(&self, now_ms: i64) -> bool {
        self.left_out_ms <= now_ms && self.by_key.len() <= REST_MAX
    }
}

impl Waiting {
    /// What is unsent is due first.
    fn due_ms(&self) -> i64 {
        if self.unsent.is_some() { 0 } else { self.expires_at_ms }
    }
}

/// Whether there was a record to settle.
enum Found {
    Record,
    Nothing,
}

/// Sends what is unsent, then writes the record without it; lets an expired document go. A lost race is no loss: the
/// winner's record comes by on the watch.
async fn settle(inner: &Inner, context: &Context, key: &str) -> Result<Found, Fault> {
    let _turn = inner.lane(key).lock().await;
    let Some(entry) = newest(inner, context, key).await? else { return Ok(Found::Nothing) };
    settle_found(inner, context, key, &entry).await.map(|()| Found::Record)
}

async fn settle_found(inner: &Inner, context: &Context, key: &str, entry: &Entry) -> Result<(), Fault> {
    let (slot, now_ms) = (inner.known.slot(key), context.now_ms());
    let Ok(mut stored) = Stored::read(entry) else { return Ok(()) };
    if stored.is_expired(now_ms)
        && let Some(value) = stored.value.take()
    {
        let told = inner.expired.as_ref().map(|expired| expired(context, key, &from_text(&value)?)).transpose()?;
        let told = told.unwrap_or_default().into_iter().map(Work::Event);
        stored = stored.expired(told.map(|work| Pending { revision: None, work }).collect(), now_ms);
        if !inner.keeps_tombstones && stored.pending.is_empty() {
            let deleted = inner.bucket.delete(key, Expected::Revision(entry.revision)).await;
            if deleted.is_ok() {
                inner.forget(context, key).await;
            }
            return ignore_conflict(deleted);
        }
        let written = inner.put(key, slot, stored.bytes()?, Expected::Revision(entry.revision), now_ms).await;
        if let Ok(revision) = written {
            stored.resolve(revision);
            tokio::join!(inner.forget(context, key), inner.outbox.deliver(context, key, &stored.pending));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn expiring(at_ms: i64) -> Waiting {
        Waiting { revision: 1, unsent: None, expires_at_ms: at_ms }
    }

    fn unsent() -> Waiting {
        Waiting { unsent: Some(("id".to_owned(), Instant::now())), ..expiring(0) }
    }

    /// Puts records that are due then, under their place in the row.
    fn waits(due: impl Iterator<Item = i64>) -> Waits {
        let mut waits = Waits::default();
        for (place, at_ms) in due.enumerate() {
            waits.put(place.to_string(), expiring(at_ms));
            assert!(waits.by_key.len() <= WAITING_MAX);
        }
        waits
    }

    #[test]
    fn the_soonest_wait_and_the_others_are_found_again() {
        const ALL: i64 = 3 * WAITING_MAX as i64;
        for order in [|place: i64| place + 1, |place: i64| ALL - place, |place: i64| place * 7 % ALL + 1] {
            let mut waits = waits((0..ALL).map(order));
            let soonest = waits.by_key.values().map(Waiting::due_ms).min();
            assert_eq!(soonest, Some(1));
            assert!(waits.by_key.values().all(|waiting| waiting.due_ms() <= waits.left_out_ms));
            assert_eq!(waits.by_key.len() as i64, waits.left_out_ms - 1, "nothing before the bound is missing");
            // What is unsent finds its place all the same.
            waits.put("new".to_owned(), unsent());
            assert!(waits.by_key.contains_key("new"));
            let now_ms = waits.left_out_ms;
            assert!(!waits.has_left_out_what_is_due(now_ms), "those that wait come first");
            waits.by_key.retain(|_, waiting| waiting.due_ms() > now_ms);
            assert!(!waits.has_left_out_what_is_due(now_ms - 1));
            assert!(waits.has_left_out_what_is_due(now_ms));
        }
    }

    #[test]
    fn records_that_are_due_together_are_no_reason_to_drop_all() {
        let waits = waits(std::iter::repeat_n(7, WAITING_MAX + 1));
        assert_eq!((waits.by_key.len(), waits.left_out_ms), (WAITING_MAX / 2, 7));
    }

    #[test]
    fn a_record_that_comes_to_be_due_later_is_left_out_with_the_others() {
        let mut waits = waits(1..=WAITING_MAX as i64 + 1);
        assert!(waits.by_key.contains_key("0"));
        waits.put("0".to_owned(), expiring(waits.left_out_ms));
        assert!(!waits.by_key.contains_key("0"));
    }

    #[test]
    fn a_record_that_has_gone_waits_no_more_unless_another_has_come() {
        let mut waits = waits([5].into_iter());
        waits.gone("0", 2);
        assert!(waits.by_key.contains_key("0"));
        waits.gone("0", 1);
        assert!(waits.by_key.is_empty());
    }
}
