//! Section `performance-mode`.

use std::time::Duration;

use super::{Keys, millis, seconds};

/// Modes of performance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerformanceMode {
    /// Shortest time between two switches.
    pub cooldown: Duration,
}

impl PerformanceMode {
    pub(super) fn read(keys: &mut Keys) -> PerformanceMode {
        let key = keys.key("cooldown", "shortest time between two mode switches");
        PerformanceMode { cooldown: key.length(millis(1_000), millis(0)..=seconds(600)) }
    }
}
