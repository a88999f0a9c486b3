//! The current snapshot: pinned by requests, swapped by a reload.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::Snapshot;

/// Most generations that are alive at once; above it the streams of the oldest have to end.
const GENERATIONS_MAX: usize = 8;

/// The current snapshot and those that still have readers.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
    older: Mutex<Vec<Weak<Snapshot>>>,
    generation: AtomicU64,
    /// The oldest generation that streams may still belong to.
    floor: watch::Sender<u64>,
    changes: watch::Sender<u64>,
}

impl Live {
    /// Starts with a snapshot.
    pub fn new(first: Snapshot) -> Arc<Live> {
        let generation = first.generation;
        Arc::new(Live {
            current: ArcSwap::from_pointee(first),
            older: Mutex::default(),
            generation: AtomicU64::new(generation),
            floor: watch::Sender::new(0),
            changes: watch::Sender::new(generation),
        })
    }

    /// The current snapshot, held as long as the caller likes.
    #[inline]
    pub fn pin(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes a snapshot the current one, under the next generation's number.
    pub fn swap(&self, mut next: Snapshot) {
        next.generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let generation = next.generation;
        let before = self.current.swap(Arc::new(next));
        let mut older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.retain(|snapshot| snapshot.strong_count() > 0);
        older.push(Arc::downgrade(&before));
        let over = (older.len() + 1).saturating_sub(GENERATIONS_MAX);
        if let Some(first_kept) = older.get(over).and_then(Weak::upgrade).filter(|_| over > 0) {
            self.floor.send_if_modified(|floor| {
                let is_higher = *floor < first_kept.generation;
                *floor = first_kept.generation.max(*floor);
                is_higher
            });
        }
        drop(older);
        self.changes.send_replace(generation);
    }

    /// Generations alive, the current one included.
    pub fn generations(&self) -> usize {
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.iter().filter(|snapshot| snapshot.strong_count() > 0).count() + 1
    }

    /// The oldest generation that streams may belong to; those of older ones end.
    pub fn floor(&self) -> watch::Receiver<u64> {
        self.floor.subscribe()
    }

    /// The generation of the current snapshot, now and later.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
