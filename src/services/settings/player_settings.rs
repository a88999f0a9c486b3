//! Section `settings`: what the service of that name does with the players' settings.

use std::collections::BTreeMap;

use super::Keys;

/// The players' settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlayerSettings {
    /// What becomes of keys outside of the table.
    pub unknown_keys: UnknownKeys,
    /// Feature flags by feature, wherever they are written.
    pub flags: BTreeMap<String, Flag>,
}

/// What becomes of keys outside of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKeys {
    /// They are kept.
    Accept,
    /// INVALID_ARGUMENT, `unknown_value`.
    Refuse,
}

/// Who gets a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Account tiers; all without any.
    pub tiers: Vec<String>,
    /// Percentage of players, 0 to 100.
    pub rollout: u32,
}

impl PlayerSettings {
    pub(super) fn read(keys: &mut Keys) -> PlayerSettings {
        let choices = [("accept", UnknownKeys::Accept), ("refuse", UnknownKeys::Refuse)];
        let unknown_keys = keys.key("unknown_keys", "keys outside of the table").choice(UnknownKeys::Accept, &choices);
        let flags = keys.key("flags", "feature → tiers and rollout; or the path of a flag file");
        let flags = flags.named_rows_or_file(Flag::read).unwrap_or_default();
        PlayerSettings { unknown_keys, flags }
    }
}

impl Flag {
    fn read(keys: &mut Keys) -> Flag {
        let tier = |name: &str| match ["free", "premium", "whale"].contains(&name) {
            true => Ok(()),
            false => Err(format!("expected `free` or `premium` or `whale`, found `{name}`")),
        };
        Flag {
            tiers: keys.key("tiers", "account tiers; all without any").texts(&[], tier),
            rollout: keys.key("rollout", "percentage of players").count(100, 0..=100),
        }
    }
}
