//! Section `auth`.

use std::collections::BTreeMap;

use super::{Keys, Secret};

/// Sessions and shared limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Role and owner checks of all services.
    pub enforce: bool,
    /// AES-256-GCM key for stored replies of create_session; without it that operation has no idempotency.
    pub seal_key: Option<Secret>,
    /// Live sessions of a user.
    pub max_sessions: usize,
    /// Resource → calls in a minute.
    pub limits: BTreeMap<String, u32>,
    /// Calls in a minute of resources that `limits` does not name.
    pub other_limit: u32,
}

/// Calls in a minute where the file says nothing else.
const LIMITS: [(&str, u32); 5] =
    [("public_read", 200), ("public_write", 50), ("authenticated", 500), ("admin", 1_000), ("ai_generation", 10)];
/// The row of all other resources.
const OTHER: (&str, u32) = ("*", 100);

impl Auth {
    pub(super) fn read(keys: &mut Keys) -> Auth {
        let default: Vec<(&str, u32)> = LIMITS.into_iter().chain([OTHER]).collect();
        let mut limits = keys
            .key("limits", "resource → calls in a minute; `*` is any other resource")
            .count_map(&default, 1..=60_000);
        Auth {
            enforce: keys.key("enforce", "role and owner checks of all services").truth(false),
            seal_key: keys.key("seal_key", "AES-256-GCM key for stored create_session replies").secret(),
            max_sessions: keys.key("max_sessions", "live sessions of a user").count(20, 1..=1_000) as usize,
            other_limit: limits.remove(OTHER.0).unwrap_or(OTHER.1),
            limits,
        }
    }
}
