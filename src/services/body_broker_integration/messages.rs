//! The messages, by the descriptors' names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct Harvest {
    pub(super) player_id: String,
    pub(super) target_id: String,
    pub(super) body_parts: Vec<String>,
    pub(super) tool_used: String,
    pub(super) context: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BodyPart {
    pub(super) part_type: String,
    pub(super) quality: String,
    pub(super) freshness: f64,
    pub(super) properties: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Harvested {
    pub(super) harvested_parts: Vec<BodyPart>,
    pub(super) skill_xp_gained: f64,
    pub(super) morality_impact: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Negotiate {
    pub(super) player_id: String,
    pub(super) family_id: String,
    pub(super) offered_parts: Vec<BodyPart>,
    pub(super) requested_drug: String,
    pub(super) requested_quantity: i32,
    pub(super) context: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Negotiated {
    pub(super) accepted: bool,
    pub(super) counter_offer_drug: String,
    pub(super) counter_offer_quantity: i32,
    pub(super) relationship_change: f64,
    pub(super) dialogue_lines: Vec<String>,
    pub(super) deal_id: String,
    pub(super) outcome: String,
    pub(super) expires_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Complete {
    pub(super) player_id: String,
    pub(super) deal_id: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Completed {
    pub(super) success: bool,
    pub(super) rewards: Vec<String>,
    pub(super) quantities: BTreeMap<String, i32>,
    pub(super) new_reputation: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) player_id: String,
    pub(super) after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct BrokerProfile {
    pub(super) player_id: String,
    pub(super) reputation: BTreeMap<String, i32>,
    pub(super) deals: BTreeMap<String, i32>,
    pub(super) drugs: BTreeMap<String, i32>,
    pub(super) parts: Vec<BodyPart>,
    pub(super) path: String,
    pub(super) counters: BTreeMap<String, i32>,
    pub(super) skill_xp: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) revision: u64,
    pub(super) profile: Option<BrokerProfile>,
    pub(super) change: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GetProfile {
    pub(super) player_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GotProfile {
    pub(super) profile: Option<BrokerProfile>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Mix {
    pub(super) player_id: String,
    pub(super) first: String,
    pub(super) second: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Mixed {
    pub(super) result: String,
    pub(super) potency: f64,
    pub(super) fatal: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RecordDeath {
    pub(super) player_id: String,
    pub(super) world: String,
    pub(super) tithe_value: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DeathRecorded {
    pub(super) veil_fray_level: i32,
    pub(super) stat_penalty: f64,
    pub(super) area_pacified: bool,
}

/// `payment.v1.CreditRequest`.
#[derive(Serialize, Deserialize)]
pub(super) struct Credit {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) amount: i32,
    pub(super) reason: String,
}

/// `payment.v1.CreditResponse`, as far as it matters here.
#[derive(Serialize, Deserialize)]
pub(super) struct Credited {
    pub(super) transaction_id: String,
}
