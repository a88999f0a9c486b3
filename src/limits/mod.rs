//! What a route may take: token buckets, slots. Values with owners: taking gives a permit, dropping it frees it. The
//! clock is a parameter.

mod bucket;
mod slots;

pub use bucket::{Admitted, Bucket, Quota, Refusal};
pub use slots::{Slot, Slots};
