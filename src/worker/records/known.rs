//! What this process knows of a bucket's records: those that it has read or written lately, kept up by the sweeper's
//! watch. A read then asks the leader only how far the bucket is, once for all reads of the moment, and answers from here
//! once the watch is as far: no less new than the leader's own answer. A write may begin with what is known as it is,
//! because it names the revision that it follows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::store::{Bucket, Change, Entry, StoreError};

/// Most records of a generation, and their bytes. There are two: a full young one becomes the old one, whose records go
/// unless somebody asks for them.
const RECORDS_MAX: usize = 20_000;
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a slot holds beside its record, about.
const SLOT_BYTES: usize = 256;
/// Longest wait until the watch is as far as the bucket; then the leader is asked for the record itself.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);
/// How long nothing is answered from here after the watch has left out a revision: see [`Followed::gap`].
const REST: Duration = Duration::from_secs(1);

/// What is known of the records of a bucket.
pub(super) struct Known {
    bucket: Bucket,
    ttl: Option<Duration>,
    slots: Mutex<Slots>,
    followed: watch::Sender<Followed>,
    /// The last revision that the watch did not come to in time: until it has, nobody waits for it.
    missed: AtomicU64,
    newest: Newest,
    gone_back: Notify,
}

/// How far the watch is.
#[derive(Clone, Copy)]
struct Followed {
    /// Every write up to here was seen, but for those that another one of their key replaced in time; 0 while nothing is
    /// watched.
    revision: u64,
    /// When a write was left out, for the last time. The one that replaced it is kept by then, and comes, but may lie
    /// behind what a read at that moment waits for; a read that begins later waits for it, too.
    gap: Instant,
}

/// Tells a slot from earlier and later ones of its key. A slot takes in all that is watched from its making on, so what
/// was read or written since then can be put into it, too: the newest of all of them stays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotId(u64);

#[derive(Default)]
struct Slots {
    young: Generation,
    old: Generation,
    made: u64,
}

#[derive(Default)]
struct Generation {
    slots: HashMap<String, Slot>,
    bytes: usize,
}

struct Slot {
    id: SlotId,
    /// That of the record, or of its deletion; 0 where nothing is known yet.
    revision: u64,
    entry: Option<Entry>,
}

impl Known {
    pub(super) fn new(bucket: Bucket, ttl: Option<Duration>) -> Known {
        let followed = watch::Sender::new(Followed { revision: 0, gap: Instant::now() });
        let (slots, missed, newest, gone_back) = Default::default();
        Known { bucket, ttl, slots, followed, missed, newest, gone_back }
    }

    /// The live record of a key, as the leader has it.
    pub(super) async fn get(&self, key: &str, now_ms: i64) -> Result<Option<Entry>, StoreError> {
        if self.guess(key, now_ms).is_some()
            && self.is_up_to_date().await?
            && let Some(entry) = self.guess(key, now_ms)
        {
            return Ok(Some(entry));
        }
        self.read(key).await
    }

    /// The same, asked of the leader itself.
    pub(super) async fn read(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let slot = self.slot(key);
        let before = self.slots().young_slot(key).map_or(0, |slot| slot.revision);
        let entry = self.bucket.get(key).await?;
        match (slot, &entry) {
            (Some(slot), Some(entry)) => self.note(slot, entry.clone()),
            (Some(slot), None) => self.slots().empty(key, slot, before),
            (None, _) => {}
        }
        Ok(entry)
    }

    /// The record of a key as it was a moment ago, where it is known; for writes that name its revision.
    pub(super) fn guess(&self, key: &str, now_ms: i64) -> Option<Entry> {
        let mut slots = self.slots();
        let entry = slots.young_slot(key)?.entry.clone()?;
        let is_fresh = self.ttl.is_none_or(|ttl| now_ms - entry.created_ms < ttl.as_millis() as i64);
        is_fresh.then_some(entry)
    }

    /// Where to note the record of a key that is about to be read or written; nowhere where reads cost nothing.
    pub(super) fn slot(&self, key: &str) -> Option<SlotId> {
        (!self.bucket.is_near()).then(|| self.slots().slot(key))
    }

    /// Notes a record that was read or written after its slot was made.
    pub(super) fn note(&self, id: SlotId, entry: Entry) {
        let mut slots = self.slots();
        if slots.young_slot(&entry.key).is_some_and(|slot| slot.id == id) {
            let key = entry.key.clone();
            slots.put(&key, entry.revision, Some(entry));
        }
    }

    /// The watch is lost.
    pub(super) fn lose(&self) {
        self.begin(0);
    }

    /// The watch has told what was there, up to a revision, and tells each write from now on. What was known may be old:
    /// deletions were left out.
    pub(super) fn begin(&self, revision: u64) {
        self.slots().forget();
        self.followed.send_replace(Followed { revision, gap: Instant::now() });
    }

    /// Returns once the bucket has been seen behind what was watched: it was emptied, restored or made anew, and has to be
    /// watched anew.
    pub(super) async fn until_gone_back(&self) {
        self.gone_back.notified().await;
    }

    /// Takes in a write that the watch tells.
    pub(super) fn follow(&self, change: &Change) {
        self.slots().put_watched(change);
        self.followed.send_modify(|followed| {
            if change.revision != followed.revision + 1 {
                followed.gap = Instant::now();
            }
            followed.revision = followed.revision.max(change.revision);
        });
    }

    /// True where everything that was written before the call has come by on the watch.
    async fn is_up_to_date(&self) -> Result<bool, StoreError> {
        let asked = Instant::now();
        let has_rested = |followed: &Followed| followed.gap + REST <= asked;
        let followed = *self.followed.borrow();
        if !has_rested(&followed) || followed.revision < self.missed.load(Ordering::Relaxed).max(1) {
            return Ok(false);
        }
        let newest = self.newest.ask(&self.bucket).await?;
        // What was watched was written before the question.
        if newest < followed.revision {
            // 0 is said where the last write itself was purged: how far the bucket is cannot be told then.
            if newest > 0 {
                self.lose();
                self.gone_back.notify_one();
            }
            return Ok(false);
        }
        let mut followed = self.followed.subscribe();
        let caught_up = followed.wait_for(|followed| followed.revision >= newest);
        if let Ok(Ok(followed)) = tokio::time::timeout(CATCH_UP_MAX, caught_up).await {
            return Ok(has_rested(&followed));
        }
        self.missed.fetch_max(newest, Ordering::Relaxed);
        Ok(false)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// The slot of a key, which is young from now on.
    fn young_slot(&mut self, key: &str) -> Option<&Slot> {
        if let Some((key, slot)) = self.old.remove(key) {
            self.make_room();
            self.young.insert(key, slot);
        }
        self.young.slots.get(key)
    }

    fn slot(&mut self, key: &str) -> SlotId {
        if let Some(slot) = self.young_slot(key) {
            return slot.id;
        }
        self.made += 1;
        let id = SlotId(self.made);
        self.make_room();
        self.young.insert(key.to_owned(), Slot { id, revision: 0, entry: None });
        id
    }

    fn forget(&mut self) {
        *self = Slots { made: self.made, ..Slots::default() };
    }

    /// Puts a record, or a deletion, into the slot of its key, unless that has a newer one.
    fn put(&mut self, key: &str, revision: u64, entry: Option<Entry>) {
        for generation in [&mut self.young, &mut self.old] {
            if let Some(slot) = generation.slots.get_mut(key).filter(|slot| slot.revision < revision) {
                generation.bytes -= slot.size();
                (slot.revision, slot.entry) = (revision, entry);
                generation.bytes += slot.size();
                break;
            }
        }
        self.make_room();
        // Records that grow where they are; a dropped slot is only asked for anew.
        if self.old.bytes >= 2 * BYTES_MAX {
            self.old = Generation::default();
        }
    }

    /// The leader has no record of a key whose slot is as it was before it was asked.
    fn empty(&mut self, key: &str, id: SlotId, revision: u64) {
        for generation in [&mut self.young, &mut self.old] {
            if let Some(slot) = generation.slots.get_mut(key).filter(|slot| slot.id == id && slot.revision == revision)
            {
                generation.bytes -= slot.size();
                slot.entry = None;
                generation.bytes += slot.size();
            }
        }
    }

    fn put_watched(&mut self, change: &Change) {
        let Change { key, value, revision, created_ms } = change;
        if self.young.slots.contains_key(key) || self.old.slots.contains_key(key) {
            // A copy: what comes from a watch is a part of all that was read from the socket with it.
            let value = value.as_deref().map(Bytes::copy_from_slice);
            let entry = |value| Entry { key: key.clone(), value, revision: *revision, created_ms: *created_ms };
            self.put(key, *revision, value.map(entry));
        }
    }

    /// A full young generation becomes the old one.
    fn make_room(&mut self) {
        if self.young.slots.len() >= RECORDS_MAX || self.young.bytes >= BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

impl Generation {
    fn insert(&mut self, key: String, slot: Slot) {
        self.bytes += slot.size();
        self.slots.insert(key, slot);
    }

    fn remove(&mut self, key: &str) -> Option<(String, Slot)> {
        let (key, slot) = self.slots.remove_entry(key)?;
        self.bytes -= slot.size();
        Some((key, slot))
    }
}

impl Slot {
    fn size(&self) -> usize {
        SLOT_BYTES + self.entry.as_ref().map_or(0, |entry| entry.key.len() + entry.value.len())
    }
}

/// The bucket's newest revision, asked for once for all that want to know it at the same time.
#[derive(Default)]
struct Newest {
    begun: AtomicU64,
    /// The last question and its answer.
    last: tokio::sync::Mutex<Option<(u64, Result<u64, StoreError>)>>,
}

impl Newest {
    /// An answer counts for those who came before its question was asked.
    async fn ask(&self, bucket: &Bucket) -> Result<u64, StoreError> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some((question, answer)) = &*last
            && *question > begun
        {
            return answer.clone();
        }
        let question = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = bucket.newest_revision().await;
        *last = Some((question, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, revision: u64, bytes: usize) -> Entry {
        Entry { key: key.to_owned(), value: vec![0; bytes].into(), revision, created_ms: 0 }
    }

    fn change(key: &str, revision: u64, value: Option<&'static str>) -> Change {
        Change {
            key: key.to_owned(),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            revision,
            created_ms: 0,
        }
    }

    fn known(slots: &mut Slots, key: &str) -> Option<u64> {
        slots.young_slot(key)?.entry.as_ref().map(|entry| entry.revision)
    }

    #[test]
    fn the_newest_of_what_is_read_and_watched_stays() {
        let mut slots = Slots::default();
        slots.put_watched(&change("k", 1, Some("nobody asked for it")));
        assert_eq!(known(&mut slots, "k"), None);
        let id = slots.slot("k");
        slots.put("k", 2, Some(entry("k", 2, 1)));
        slots.put_watched(&change("k", 4, Some("newer")));
        slots.put("k", 3, Some(entry("k", 3, 1)));
        assert_eq!(known(&mut slots, "k"), Some(4));
        slots.put_watched(&change("k", 5, None));
        slots.put("k", 4, Some(entry("k", 4, 1)));
        assert_eq!(known(&mut slots, "k"), None, "a read that a deletion overtook brings nothing back");
        assert!(slots.slot("k") == id, "the slot is still the same");
        slots.forget();
        assert!(slots.slot("k") != id, "what was read before is not put into a later slot");
    }

    #[test]
    fn what_nobody_asks_for_goes_and_the_rest_stays() {
        let mut slots = Slots::default();
        for number in 0..RECORDS_MAX * 3 {
            let key = format!("k{number}");
            slots.slot(&key);
            slots.put(&key, 1, Some(entry(&key, 1, 1)));
            assert_eq!(known(&mut slots, "k0"), Some(1), "{number}");
        }
        assert!(slots.young.slots.len() + slots.old.slots.len() <= RECORDS_MAX * 2);
        assert_eq!(known(&mut slots, "k1"), None);
    }

    #[test]
    fn records_that_grow_where_they_are_stay_within_the_bound() {
        const BYTES: usize = 512 * 1024;
        let mut slots = Slots::default();
        let keys: Vec<String> = (0..1_000).map(|number| format!("k{number}")).collect();
        for (revision, bytes) in [(1, 1), (2, BYTES)] {
            for key in &keys {
                if revision == 1 {
                    slots.slot(key);
                }
                slots.put(key, revision, Some(entry(key, revision, bytes)));
                let kept = slots.young.bytes + slots.old.bytes;
                assert!(kept <= 3 * BYTES_MAX + 2 * (BYTES + SLOT_BYTES * 2), "{kept}");
            }
        }
    }

    #[test]
    fn what_the_leader_does_not_have_is_forgotten_unless_something_newer_has_come() {
        let mut slots = Slots::default();
        let id = slots.slot("k");
        slots.put("k", 2, Some(entry("k", 2, 1)));
        slots.empty("k", id, 1);
        assert_eq!(known(&mut slots, "k"), Some(2), "the slot has changed since the question");
        slots.empty("k", id, 2);
        assert_eq!(known(&mut slots, "k"), None);
    }

    #[test]
    fn large_records_are_counted_by_their_bytes() {
        const BYTES: usize = 512 * 1024;
        let mut slots = Slots::default();
        for number in 0..100 {
            let key = format!("k{number}");
            slots.slot(&key);
            slots.put(&key, 1, Some(entry(&key, 1, BYTES)));
        }
        let kept: usize = [&slots.young, &slots.old].iter().map(|generation| generation.bytes).sum();
        assert!(kept <= 2 * (BYTES_MAX + BYTES + SLOT_BYTES * 2), "{kept}");
        assert!(slots.young.slots.len() + slots.old.slots.len() < 40);
    }
}
