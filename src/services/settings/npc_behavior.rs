//! Section `npc-behavior`.

use super::Keys;

/// Plans of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpcBehavior {
    /// Plans of one character in a second; 0 = no limit.
    pub plans_per_second: u32,
}

impl NpcBehavior {
    pub(super) fn read(keys: &mut Keys) -> NpcBehavior {
        let key = keys.key("plans_per_second", "plans of one character in a second; 0 = no limit");
        NpcBehavior { plans_per_second: key.count(0, 0..=10_000) }
    }
}
