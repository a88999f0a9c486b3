//! The buckets of the services and of the gateway, as data, for provisioning. A service opens its own with the same
//! settings; where they differ, `tests/provisioning.rs` says so.

use std::time::Duration;

use crate::store::BucketConfig;

/// Every bucket: name, age at which a record goes, revisions kept of each key.
pub const BUCKETS: &[BucketConfig] = &[
    bucket("tg_idem", hours(24), 1),
    bucket("tg_routes", None, 16),
    bucket("tg_llm", seconds(300), 1),
    bucket("tg_llm_quota", minutes(10), 1),
    bucket("tg_models", None, 16),
    bucket("tg_state", None, 8),
    bucket("tg_quests", days(7), 4),
    bucket("tg_npc", days(30), 1),
    bucket("tg_worlds", None, 8),
    bucket("tg_world_subs", hours(24), 1),
    bucket("tg_exec", days(7), 4),
    bucket("tg_router", hours(1), 1),
    bucket("tg_event_subs", days(7), 1),
    bucket("tg_time", None, 4),
    bucket("tg_schedules", None, 2),
    bucket("tg_weather", None, 8),
    bucket("tg_sessions", days(30), 2),
    bucket("tg_limits", minutes(10), 1),
    bucket("tg_settings", None, 8),
    bucket("tg_wallets", None, 4),
    bucket("tg_ledger", None, 1),
    bucket("tg_perf", None, 4),
    bucket("tg_caps", seconds(330), 1),
    bucket("tg_kb", None, 4),
    bucket("tg_l10n", None, 4),
    bucket("tg_lang", None, 1),
    bucket("tg_narrative", days(30), 4),
    bucket("tg_story", days(30), 2),
    bucket("tg_broker", None, 4),
    bucket("tg_deals", hours(24), 2),
];

const fn bucket(name: &'static str, ttl: Option<Duration>, history: u8) -> BucketConfig {
    BucketConfig { name, ttl, history }
}

const fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

const fn minutes(count: u64) -> Option<Duration> {
    seconds(count * 60)
}

const fn hours(count: u64) -> Option<Duration> {
    minutes(count * 60)
}

const fn days(count: u64) -> Option<Duration> {
    hours(count * 24)
}
