//! Section `capability-registry`.

use std::time::Duration;

use super::{Keys, millis, seconds};

/// Which services are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityRegistry {
    /// Added to the 60 s beat before a registration counts as offline.
    pub grace: Duration,
}

impl CapabilityRegistry {
    pub(super) fn read(keys: &mut Keys) -> CapabilityRegistry {
        let key = keys.key("grace", "added to the 60 s beat before a registration counts as offline");
        CapabilityRegistry { grace: key.length(seconds(30), millis(0)..=seconds(3_600)) }
    }
}
