//! A fixed number of slots, for calls in flight and open streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of slots.
#[derive(Debug)]
pub struct Slots {
    max: usize,
    taken: AtomicUsize,
}

/// A taken slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// That many slots.
    pub fn new(max: usize) -> Arc<Slots> {
        Arc::new(Slots { max, taken: AtomicUsize::new(0) })
    }

    /// A slot, where one is free.
    pub fn take(self: &Arc<Slots>) -> Option<Slot> {
        let taken = self.taken.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(self.clone());
        if taken < self.max { Some(slot) } else { None }
    }

    /// Slots in use.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// All of them.
    pub fn max(&self) -> usize {
        self.max
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_back_when_its_owner_is_dropped() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take(), slots.take());
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(first);
        assert_eq!(slots.taken(), 1);
        assert!(slots.take().is_some());
    }
}
