//! How a quest is drawn: a pure function of its input. Knows neither store nor bus.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::refuse::{out_of_range, unknown_value, wrong_type};
use super::seed::{Draws, Part, canonical_json, seed_of, tenant_token};
use crate::fault::Fault;
use crate::worker::types::{Struct, Value};

const ADJECTIVES: [&str; 8] = ["Dark", "Bloody", "Corrupt", "Hollow", "Silent", "Rusted", "Ashen", "Drowned"];
const NOUNS: [&str; 8] = ["Hunt", "Trade", "Contract", "Debt", "Errand", "Reckoning", "Delivery", "Vigil"];
const THEMES: [&str; 3] = ["horror", "corruption", "survival"];
const LOCATIONS: [&str; 3] = ["urban", "warehouse", "underground"];
const GIVERS: [&str; 6] =
    ["the Ferryman", "Doctor Vale", "Old Mags", "the Ledger Clerk", "a masked courier", "Sister Umber"];

/// One type of objective: name, kind, targets.
struct ObjectiveRow(&'static str, &'static str, &'static [&'static str]);

const OBJECTIVES: [ObjectiveRow; 4] = [
    ObjectiveRow("harvest", "collect", &["kidney", "liver", "blood", "bone"]),
    ObjectiveRow("delivery", "go", &["sealed cooler", "ledger page", "grave_dust vial", "coded phone"]),
    ObjectiveRow(
        "negotiation",
        "talk",
        &[
            "carrion_kin",
            "chatter_swarm",
            "stitch_guild",
            "moon_clans",
            "vampiric_houses",
            "obsidian_synod",
            "silent_court",
            "leviathan_conclave",
        ],
    ),
    ObjectiveRow("combat", "kill", &["ghoul scavenger", "rival cutter", "hired enforcer", "feral hound"]),
];
const NEGOTIATION: usize = 2;
const COMBAT: usize = 3;
/// Level below which combat comes only in hard quests.
const COMBAT_LEVEL: f64 = 3.0;

/// A difficulty: name, objectives from and to, counts from and to, factor of the rewards.
struct DifficultyRow(&'static str, (u64, u64), (u64, u64), f64);

const DIFFICULTIES: [DifficultyRow; 3] = [
    DifficultyRow("EASY", (2, 2), (1, 2), 0.75),
    DifficultyRow("NORMAL", (2, 3), (2, 4), 1.0),
    DifficultyRow("HARD", (3, 4), (3, 5), 1.5),
];

/// A quest type: name, money, experience, reputation.
const REWARDS: [(&str, f64, f64, f64); 4] = [
    ("main", 500.0, 100.0, 25.0),
    ("side", 100.0, 50.0, 10.0),
    ("daily", 60.0, 30.0, 5.0),
    ("event", 250.0, 75.0, 15.0),
];

/// `quest.v1.QuestObjective`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct QuestObjective {
    pub(super) objective_id: String,
    pub(super) description: String,
    pub(super) r#type: String,
    pub(super) params: BTreeMap<String, String>,
}

/// `quest.v1.Quest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Quest {
    pub(super) quest_id: String,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) objectives: Vec<QuestObjective>,
    pub(super) difficulty: String,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) rewards: BTreeMap<String, i64>,
}

/// What a quest depends on, checked.
pub(super) struct QuestInput<'a> {
    pub(super) tenant: &'a str,
    pub(super) player_id: &'a str,
    pub(super) seed: u64,
    difficulty: &'static DifficultyRow,
    quest_type: &'static (&'static str, f64, f64, f64),
    level: f64,
    is_day: bool,
    multiplier: f64,
    location: Option<&'a str>,
    giver: Option<&'a str>,
    context: &'a Struct,
}

impl<'a> QuestInput<'a> {
    /// Checks difficulty and context; the first fault in order of fields.
    pub(super) fn read(
        tenant: &'a str,
        player_id: &'a str,
        seed: u64,
        difficulty: &str,
        context: &'a Struct,
    ) -> Result<QuestInput<'a>, Fault> {
        let quest_type = text_of(context, "quest_type", "side")?;
        let names: Vec<&str> = REWARDS.iter().map(|row| row.0).collect();
        let quest_type = REWARDS.iter().find(|row| row.0.eq_ignore_ascii_case(quest_type));
        let quest_type = quest_type.ok_or_else(|| unknown_value("context.quest_type", &names))?;
        let level = number_of(context, "player_level", 1.0)?;
        if !(1.0..=100.0).contains(&level) {
            return Err(out_of_range("context.player_level", "player_level must be 1 to 100", "1", "100"));
        }
        if level.fract() != 0.0 {
            return Err(wrong_type("context.player_level", "a whole number"));
        }
        let phase = text_of(context, "world_phase", "night")?;
        let is_day = phase.eq_ignore_ascii_case("day");
        if !is_day && !phase.eq_ignore_ascii_case("night") {
            return Err(unknown_value("context.world_phase", &["day", "night"]));
        }
        let multiplier = number_of(context, "reward_multiplier", 1.0)?;
        if !(0.1..=10.0).contains(&multiplier) {
            let text = "reward_multiplier must be 0.1 to 10";
            return Err(out_of_range("context.reward_multiplier", text, "0.1", "10"));
        }
        let (location, giver) = (override_of(context, "location")?, override_of(context, "giver")?);
        let wanted = if difficulty.is_empty() { "NORMAL" } else { difficulty };
        let difficulty = DIFFICULTIES.iter().find(|row| row.0.eq_ignore_ascii_case(wanted));
        let difficulty = difficulty.ok_or_else(|| {
            let names: Vec<&str> = DIFFICULTIES.iter().map(|row| row.0).collect();
            unknown_value("difficulty", &names)
        })?;
        Ok(QuestInput { tenant, player_id, seed, difficulty, quest_type, level, is_day, multiplier, location, giver, context })
    }

    /// The quest: the same input gives the same quest, byte for byte.
    pub(super) fn quest(&self) -> Quest {
        let seed = seed_of(&[
            Part::Text("quest.v1"),
            Part::Text(tenant_token(self.tenant)),
            Part::Text(self.player_id),
            Part::Number(self.seed),
            Part::Text(self.difficulty.0),
            Part::Text(&canonical_json(self.context)),
        ]);
        let mut draws = Draws::new(seed);
        let (adjective, noun) = (draws.pick(&ADJECTIVES), draws.pick(&NOUNS));
        let theme = draws.pick(&THEMES);
        // A draw is made also where it is overridden, so that the rest of the sequence does not move.
        let (location, giver) = (draws.pick(&LOCATIONS), draws.pick(&GIVERS));
        let (location, giver) = (self.location.unwrap_or(location), self.giver.unwrap_or(giver));
        let objectives = self.objectives(&mut draws, location);
        let steps: Vec<&str> = objectives.iter().map(|objective| objective.description.as_str()).collect();
        let description = format!(
            "{} offers a {theme} job in the {location} district, {} steps: {}.",
            capital(giver),
            objectives.len(),
            steps.join("; ")
        );
        let rewards = self.rewards();
        let mut tags = BTreeMap::from([
            ("theme", theme.to_owned()),
            ("location", location.to_owned()),
            ("giver", giver.to_owned()),
            ("quest_type", self.quest_type.0.to_owned()),
            ("world_phase", if self.is_day { "day" } else { "night" }.to_owned()),
            ("seed", self.seed.to_string()),
            ("status", "active".to_owned()),
        ]);
        tags.extend([
            ("reward_money", rewards["money"].to_string()),
            ("reward_experience", rewards["experience"].to_string()),
            ("reward_reputation", rewards["reputation"].to_string()),
        ]);
        Quest {
            quest_id: format!("qst_{seed:016x}"),
            title: format!("The {adjective} {noun}"),
            description,
            objectives,
            difficulty: self.difficulty.0.to_owned(),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            rewards,
        }
    }

    fn objectives(&self, draws: &mut Draws, location: &str) -> Vec<QuestObjective> {
        let DifficultyRow(_, (from, to), (count_from, count_to), _) = *self.difficulty;
        let mut used: Vec<(usize, usize)> = Vec::new();
        let mut objectives = Vec::new();
        for index in 0..draws.between(from, to) {
            let row = draws.weighted(&self.weights(used.last().map(|last| last.0)));
            let ObjectiveRow(name, kind, targets) = OBJECTIVES[row];
            let mut target = draws.below(targets.len() as u64) as usize;
            while used.contains(&(row, target)) {
                target = (target + 1) % targets.len();
            }
            used.push((row, target));
            let drawn = draws.between(count_from, count_to);
            let count = if row == NEGOTIATION { 1 } else { drawn };
            let target = targets[target];
            let description = match row {
                0 => format!("Harvest {count} x {target} in the {location} district"),
                1 => format!("Deliver {count} x {target} to a drop in the {location} district"),
                NEGOTIATION => format!("Negotiate terms with {target}"),
                _ => format!("Defeat {count} x {target} in the {location} district"),
            };
            let params = [
                ("target_count", count.to_string()),
                ("target", target.to_owned()),
                ("kind", kind.to_owned()),
                ("location", location.to_owned()),
                ("progress", "0".to_owned()),
            ];
            objectives.push(QuestObjective {
                objective_id: format!("obj{}", index + 1),
                description,
                r#type: name.to_owned(),
                params: params.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            });
        }
        objectives
    }

    /// Weights of harvest, delivery, negotiation, combat.
    fn weights(&self, previous: Option<usize>) -> [f64; 4] {
        let mut weights = if self.is_day { [1.0, 2.0, 2.0, 1.0] } else { [2.0, 1.0, 1.0, 2.0] };
        if self.level < COMBAT_LEVEL && self.difficulty.0 != "HARD" {
            weights[COMBAT] = 0.0;
        }
        if let Some(previous) = previous {
            weights[previous] /= 4.0;
        }
        weights
    }

    fn rewards(&self) -> BTreeMap<String, i64> {
        let level = (1.0 + 0.1 * (self.level - 1.0)).min(5.0);
        let (_, money, experience, reputation) = *self.quest_type;
        let reward = |base: f64| {
            // Six decimals first, so that 0.1 × 3 does not fall below a whole number.
            let value = base * self.difficulty.3 * level * self.multiplier;
            ((value * 1e6).round() / 1e6).floor() as i64
        };
        [("money", money), ("experience", experience), ("reputation", reputation)]
            .map(|(name, base)| (name.to_owned(), reward(base)))
            .into()
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

fn text_of<'a>(context: &'a Struct, key: &str, default: &'a str) -> Result<&'a str, Fault> {
    match context.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_str().ok_or_else(|| wrong_type(&format!("context.{key}"), "text")),
    }
}

fn number_of(context: &Struct, key: &str, default: f64) -> Result<f64, Fault> {
    match context.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_number().ok_or_else(|| wrong_type(&format!("context.{key}"), "a number")),
    }
}

/// A text of 1 to 64 characters that replaces a draw.
fn override_of<'a>(context: &'a Struct, key: &str) -> Result<Option<&'a str>, Fault> {
    match context.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let text = value.as_str().filter(|text| (1..=64).contains(&text.chars().count()));
            text.map(Some).ok_or_else(|| wrong_type(&format!("context.{key}"), "text of 1 to 64 characters"))
        }
    }
}
