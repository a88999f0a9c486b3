//! What a route may take: token buckets, slots, breakers, shares. Values with owners: taking gives a permit, dropping it frees it. The
//! clock is a parameter.

mod breaker;
mod bucket;
mod cutover;
mod slots;

pub use breaker::{Breaker, BreakerRule, Pass};
pub use bucket::{Admitted, Bucket, Quota, Refusal};
pub use cutover::{Course, Cutover, CutoverRule, Evidence, Move, Standing, Verdict, WHOLE};
pub use slots::{Slot, Slots};
