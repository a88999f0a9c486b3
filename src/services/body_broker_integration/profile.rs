//! What a player has and stands for in the trade. All of it is one document, so that a deal's parts, drugs and
//! reputation change together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::messages::{BodyPart, BrokerProfile, Completed};
use super::tables::{FAMILIES, Family, Grade, PARTS, grade_of};
use crate::services::numbers::rounded;
use crate::worker::Context;

/// Reputation with a family at first, and at most.
pub(super) const REPUTATION_START: i32 = 50;
const REPUTATION_MAX: i32 = 100;
/// Deals with the family before it that unlock a family.
const UNLOCKING_DEALS: u32 = 3;
/// Shares of kills that make a butcher and a surgeon.
const BUTCHER_SHARE: f64 = 0.30;
const SURGEON_SHARE: f64 = 0.70;
/// How long a finished deal is remembered: as long as its terms are; and how many at most.
const FINISHED_MS: i64 = 24 * 3_600 * 1_000;
const FINISHED_MAX: usize = 1_000;
const HOUR_MS: f64 = 3_600_000.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) tenant_id: String,
    pub(super) player_id: String,
    pub(super) skill_xp: f64,
    /// Kills by type of target.
    pub(super) kills: BTreeMap<String, u32>,
    /// What the paths have left: `heat`, `notoriety`, …
    pub(super) effects: BTreeMap<String, i32>,
    /// By family, where it is not as at the start.
    pub(super) reputation: BTreeMap<String, i32>,
    pub(super) deals: BTreeMap<String, u32>,
    /// By family, until when it is hostile.
    pub(super) hostile_until: BTreeMap<String, i64>,
    pub(super) drugs: BTreeMap<String, i32>,
    pub(super) parts: BTreeMap<String, OwnedPart>,
    pub(super) open: BTreeMap<String, OpenDeal>,
    pub(super) finished: BTreeMap<String, FinishedDeal>,
    /// Drugs that payment has still to credit, by deal.
    pub(super) owed: BTreeMap<String, Owed>,
    pub(super) veil_fray: i32,
    /// What the last change was.
    pub(super) change: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OwnedPart {
    pub(super) part_type: String,
    pub(super) score: f64,
    pub(super) harvested_at_ms: i64,
    /// How long it had been dead by then.
    pub(super) hours_before: f64,
    pub(super) decay_rate: f64,
    pub(super) decay_hours: f64,
    pub(super) target_id: String,
}

/// A deal that waits to be completed. Its parts are reserved until it lapses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenDeal {
    pub(super) family_id: String,
    pub(super) units: i32,
    pub(super) value: f64,
    pub(super) reputation: i32,
    pub(super) parts: Vec<String>,
    pub(super) expires_at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FinishedDeal {
    pub(super) reply: Completed,
    at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Owed {
    pub(super) drug: String,
    pub(super) units: i32,
}

impl OwnedPart {
    /// How fresh it is: 1 at first, 0 where it is spoilt.
    pub(super) fn freshness(&self, now_ms: i64) -> f64 {
        let hours = self.hours_before + (now_ms - self.harvested_at_ms).max(0) as f64 / HOUR_MS;
        rounded((1.0 - hours * self.decay_rate / self.decay_hours).clamp(0.0, 1.0), 4)
    }

    pub(super) fn grade(&self, now_ms: i64) -> &'static Grade {
        grade_of(self.score, self.freshness(now_ms))
    }

    pub(super) fn shown(&self, part_id: &str, now_ms: i64) -> BodyPart {
        let grade = self.grade(now_ms);
        let value = PARTS.iter().find(|part| part.name == self.part_type).map_or(0.0, |part| part.value);
        let properties = [
            ("part_id", part_id.to_owned()),
            ("value", rounded(value * grade.factor, 0).to_string()),
            ("score", rounded(self.score, 4).to_string()),
            ("harvested_at_ms", self.harvested_at_ms.to_string()),
            ("decay_hours", self.decay_hours.to_string()),
            ("target_id", self.target_id.clone()),
        ];
        BodyPart {
            part_type: self.part_type.clone(),
            quality: grade.name.to_owned(),
            freshness: self.freshness(now_ms),
            properties: properties.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
}

impl Profile {
    pub(super) fn new(context: &Context, player_id: &str) -> Profile {
        Profile { tenant_id: context.tenant().to_owned(), player_id: player_id.to_owned(), ..Profile::default() }
    }

    pub(super) fn skill(&self) -> f64 {
        (0.5 + self.skill_xp / 10_000.0).min(1.0)
    }

    fn total(&self) -> u32 {
        self.kills.values().sum()
    }

    pub(super) fn path(&self) -> &'static str {
        let total = self.total();
        let share = |kind: &str| f64::from(self.kills.get(kind).copied().unwrap_or(0)) / f64::from(total.max(1));
        if total > 0 && share("innocent") >= BUTCHER_SHARE {
            "butcher"
        } else if total > 0 && share("deserving") >= SURGEON_SHARE {
            "surgeon"
        } else {
            "mixed"
        }
    }

    /// Counts a kill, and what the path that the player is then on makes of it.
    pub(super) fn kill(&mut self, target_type: &str) {
        *self.kills.entry(target_type.to_owned()).or_default() += 1;
        let (path, total) = (self.path(), self.total() as i32);
        let mut add = |name: &str, by: i32, most: i32| {
            let effect = self.effects.entry(name.to_owned()).or_default();
            *effect = effect.saturating_add(by).min(most);
        };
        match (path, target_type) {
            ("surgeon", "deserving") => add("vigilante_respect", 2, 100),
            ("surgeon", "innocent") => add("fae_amusement", 10, i32::MAX),
            ("butcher", "innocent") => add("heat", 5, i32::MAX),
            _ => {}
        }
        let mut set = |name: &str, value: i32| *self.effects.entry(name.to_owned()).or_default() = value;
        match path {
            // In hundredths: 0.01 a kill, at most a half.
            "surgeon" => set("supply_penalty_percent", total.min(50)),
            "butcher" => {
                set("efficiency", total.saturating_add(50).min(100));
                set("notoriety", total.saturating_mul(2).min(100));
            }
            _ => {}
        }
    }

    pub(super) fn reputation(&self, family: &Family) -> i32 {
        self.reputation.get(family.id).copied().unwrap_or(REPUTATION_START)
    }

    /// Changes the reputation with a family, and gives the new one.
    pub(super) fn regard(&mut self, family: &Family, by: i32) -> i32 {
        let reputation = (self.reputation(family) + by).clamp(0, REPUTATION_MAX);
        self.reputation.insert(family.id.to_owned(), reputation);
        reputation
    }

    pub(super) fn is_unlocked(&self, family: &Family) -> bool {
        let before = FAMILIES.iter().take_while(|row| row.id != family.id).last();
        family.is_open || before.is_some_and(|before| self.deals_with(before) >= UNLOCKING_DEALS)
    }

    pub(super) fn deals_with(&self, family: &Family) -> u32 {
        self.deals.get(family.id).copied().unwrap_or(0)
    }

    /// True where a deal that has not lapsed holds the part.
    pub(super) fn is_reserved(&self, part_id: &str, now_ms: i64) -> bool {
        let holds = |deal: &OpenDeal| deal.expires_at_ms > now_ms && deal.parts.iter().any(|held| held == part_id);
        self.open.values().any(holds)
    }

    pub(super) fn finish(&mut self, deal_id: &str, reply: &Completed, now_ms: i64) {
        self.finished.insert(deal_id.to_owned(), FinishedDeal { reply: reply.clone(), at_ms: now_ms });
    }

    /// Forgets deals that nobody can ask for any more.
    pub(super) fn forget(&mut self, now_ms: i64) {
        self.open.retain(|_, deal| deal.expires_at_ms > now_ms);
        self.finished.retain(|_, deal| deal.at_ms + FINISHED_MS > now_ms);
        while self.finished.len() > FINISHED_MAX {
            let oldest = self.finished.iter().min_by_key(|(_, deal)| deal.at_ms).map(|(id, _)| id.clone());
            oldest.map(|id| self.finished.remove(&id));
        }
        self.hostile_until.retain(|_, until_ms| *until_ms > now_ms);
    }

    pub(super) fn shown(&self, now_ms: i64) -> BrokerProfile {
        let mut counters = self.effects.clone();
        counters.extend(self.kills.iter().map(|(kind, count)| (kind.clone(), *count as i32)));
        counters.insert("total".to_owned(), self.total() as i32);
        counters.insert("veil_fray".to_owned(), self.veil_fray);
        BrokerProfile {
            player_id: self.player_id.clone(),
            reputation: FAMILIES.iter().map(|family| (family.id.to_owned(), self.reputation(family))).collect(),
            deals: self.deals.iter().map(|(family, count)| (family.clone(), *count as i32)).collect(),
            drugs: self.drugs.clone(),
            parts: self.parts.iter().map(|(part_id, part)| part.shown(part_id, now_ms)).collect(),
            path: self.path().to_owned(),
            counters,
            skill_xp: self.skill_xp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_make_a_path_and_a_path_makes_kills_count() {
        let mut profile = Profile::default();
        assert_eq!(profile.path(), "mixed");
        (0..7).for_each(|_| profile.kill("deserving"));
        assert_eq!((profile.path(), profile.effects["vigilante_respect"]), ("surgeon", 14));
        profile.kill("innocent");
        assert_eq!((profile.path(), profile.effects["fae_amusement"]), ("surgeon", 10));
        (0..3).for_each(|_| profile.kill("innocent"));
        assert_eq!((profile.path(), profile.effects["notoriety"], profile.effects["heat"]), ("butcher", 22, 10));
    }

    #[test]
    fn parts_spoil() {
        let part = OwnedPart {
            part_type: "heart".to_owned(),
            score: 1.1,
            harvested_at_ms: 0,
            hours_before: 6.0,
            decay_rate: 1.0,
            decay_hours: 24.0,
            target_id: String::new(),
        };
        let hours = |hours: i64| (part.freshness(hours * 3_600_000), part.grade(hours * 3_600_000).name);
        assert_eq!([hours(0), hours(6), hours(18)], [(0.75, "pristine"), (0.5, "pristine"), (0.0, "corrupted")]);
    }
}
