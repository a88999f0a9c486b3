//! Section `event-bus`.

use std::time::Duration;

use super::{Keys, seconds};

/// Events of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBus {
    /// Dispatcher lease of a stream.
    pub lease: Duration,
}

impl EventBus {
    pub(super) fn read(keys: &mut Keys) -> EventBus {
        let lease = keys.key("lease", "dispatcher lease of a stream").needs_restart();
        EventBus { lease: lease.length(seconds(5), seconds(1)..=seconds(60)) }
    }
}
