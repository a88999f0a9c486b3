//! What a player's settings are: overrides over defaults, and what is computed from both.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::{KNOWN, known};
use super::{Override, Overrides, Setting};
use crate::services::seed::{Draws, Part, seed, tenant_part};
use crate::services::settings::{Flag, PlayerSettings};
use crate::worker::Context;

/// Limits by account tier: name, and the value for free, premium and whale.
const LIMITS: [(&str, [&str; 3]); 2] =
    [("limits.max_characters", ["1", "3", "10"]), ("limits.max_storage_mb", ["100", "1000", "10000"])];
const TIERS: [&str; 3] = ["free", "premium", "whale"];

/// True where a wanted key, or a prefix such as `audio.*`, names a key.
pub(super) fn names(wanted: &str, key: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => key.starts_with(prefix),
        None => wanted == key,
    }
}

/// A player's point of view.
pub(super) struct View<'a> {
    pub(super) context: &'a Context,
    pub(super) player_id: &'a str,
    pub(super) settings: &'a PlayerSettings,
}

impl View<'_> {
    /// The settings with these keys or prefixes, in their order and without doubles; all of them by key without any.
    pub(super) fn wanted(&self, overrides: &Overrides, wanted: &[String]) -> Vec<Setting> {
        let mut all = self.all(overrides);
        if wanted.is_empty() {
            return all.into_values().collect();
        }
        // Keys of actions are not listed, but each has its default.
        for key in wanted.iter().filter(|wanted| !wanted.ends_with('*')) {
            if let Some(row) = known(key) {
                all.entry(key.clone()).or_insert_with(|| default(key, row.kind.name(), row.default.to_owned()));
            }
        }
        let mut seen = BTreeSet::new();
        let found = wanted.iter().flat_map(|wanted| all.values().filter(|setting| names(wanted, &setting.key)));
        found.filter(|setting| seen.insert(setting.key.clone())).cloned().collect()
    }

    /// Effective values by key.
    pub(super) fn effective(&self, overrides: &Overrides) -> BTreeMap<String, String> {
        self.all(overrides).into_iter().map(|(key, setting)| (key, setting.value)).collect()
    }

    fn all(&self, overrides: &Overrides) -> BTreeMap<String, Setting> {
        let mut all: BTreeMap<String, Setting> = KNOWN
            .iter()
            .map(|row| (row.key.to_owned(), default(row.key, row.kind.name(), row.default.to_owned())))
            .collect();
        for (key, Override { value_type, value, modified_ms }) in overrides {
            all.insert(
                key.clone(),
                Setting {
                    key: key.clone(),
                    value_type: value_type.clone(),
                    value: value.clone(),
                    is_default: false,
                    last_modified_ms: *modified_ms,
                },
            );
        }
        let tier = all.get("account.tier").map_or("free", |setting| setting.value.as_str()).to_owned();
        let rank = TIERS.iter().position(|name| **name == tier).unwrap_or(0);
        for (key, values) in LIMITS {
            all.insert(key.to_owned(), default(key, "int", values[rank].to_owned()));
        }
        for (name, flag) in &self.settings.flags {
            let key = format!("features.{name}");
            let setting = default(&key, "bool", self.is_on(name, flag, &tier).to_string());
            all.insert(key, setting);
        }
        all
    }

    /// The same player is in or out on every replica and after every restart.
    fn is_on(&self, name: &str, flag: &Flag, tier: &str) -> bool {
        let is_allowed = flag.tiers.is_empty() || flag.tiers.iter().any(|allowed| allowed == tier);
        let parts =
            [Part::Text("flag.v1"), tenant_part(self.context.tenant()), Part::Text(name), Part::Text(self.player_id)];
        is_allowed && Draws::new(seed(&parts)).below(100) < u64::from(flag.rollout)
    }
}

fn default(key: &str, value_type: &str, value: String) -> Setting {
    Setting { key: key.to_owned(), value_type: value_type.to_owned(), value, is_default: true, last_modified_ms: 0 }
}
