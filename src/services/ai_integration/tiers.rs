//! Slots of the tiers: as many generations at once as the settings in force say, and the cheaper tier where one is full.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::settings::TierSettings;
use crate::fault::{Code, Fault};

/// Generations that run, by tier from the cheapest up.
#[derive(Default)]
pub(super) struct Tiers([AtomicUsize; 3]);

/// A place in a tier; dropping it gives it back.
pub(super) struct Slot<'t> {
    running: &'t AtomicUsize,
    /// The tier that had a place.
    pub(super) tier: usize,
}

impl Tiers {
    /// A place in a tier, or in the next cheaper one that has any.
    pub(super) fn take(&self, settings: &[TierSettings; 3], wanted: usize) -> Result<Slot<'_>, Fault> {
        for tier in (0..=wanted).rev() {
            let (running, parallel) = (&self.0[tier], settings[tier].parallel);
            let more = |count: usize| (count < parallel).then_some(count + 1);
            if running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
                return Ok(Slot { running, tier });
            }
        }
        Err(Fault::ours(Code::ResourceExhausted, "all generation slots are busy")
            .detail("reason", "tier_full")
            .retry_after(settings[0].latency))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}
