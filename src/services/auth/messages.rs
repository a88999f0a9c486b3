//! The messages, by the descriptors' names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct Validate {
    pub(super) session_token: String,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Validated {
    pub(super) is_valid: bool,
    pub(super) user_id: String,
    pub(super) session_data: BTreeMap<String, String>,
    pub(super) expires_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Create {
    pub(super) user_id: String,
    pub(super) session_data: BTreeMap<String, String>,
    pub(super) ttl_seconds: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Created {
    pub(super) session_token: String,
    pub(super) expires_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Revoke {
    pub(super) session_token: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Revoked {
    pub(super) success: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CheckRateLimit {
    pub(super) user_id: String,
    pub(super) resource: String,
    pub(super) action: String,
    pub(super) cost: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RateLimit {
    pub(super) allowed: bool,
    pub(super) remaining: i32,
    pub(super) limit: i32,
    pub(super) reset_at_ms: i64,
    pub(super) retry_after_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct List {
    pub(super) user_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) sessions: Vec<SessionInfo>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SessionInfo {
    pub(super) session_id: String,
    pub(super) created_at_ms: i64,
    pub(super) last_seen_ms: i64,
    pub(super) expires_at_ms: i64,
    pub(super) session_data: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) revision: u64,
    pub(super) token_hash: String,
    pub(super) user_id: String,
}

/// `settings.v1.GetRequest`.
#[derive(Serialize, Deserialize)]
pub(super) struct GetSettings {
    pub(super) player_id: String,
    pub(super) setting_keys: Vec<String>,
}

/// `settings.v1.GetResponse`, as far as it matters here.
#[derive(Serialize, Deserialize)]
pub(super) struct GotSettings {
    pub(super) settings: Vec<Setting>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) is_default: bool,
}
