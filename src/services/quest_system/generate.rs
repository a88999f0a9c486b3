//! The generator: the same plan gives the same quest, byte for byte. The order of the draws is part of the contract.

use std::collections::{BTreeMap, HashSet};

use super::super::checks::{document, id, invalid, out_of_range, unknown_value};
use super::super::seed::{Draws, Part, canonical_json, seed, tenant_part};
use super::super::text::capitalised;
use super::{Generation, Objective, Quest};
use crate::fault::Fault;
use crate::worker::Context;
use crate::worker::types::{Struct, Value};

const ADJECTIVES: [&str; 8] = ["Dark", "Bloody", "Corrupt", "Hollow", "Silent", "Rusted", "Ashen", "Drowned"];
const NOUNS: [&str; 8] = ["Hunt", "Trade", "Contract", "Debt", "Errand", "Reckoning", "Delivery", "Vigil"];
const THEMES: [&str; 3] = ["horror", "corruption", "survival"];
const LOCATIONS: [&str; 3] = ["urban", "warehouse", "underground"];
const GIVERS: [&str; 6] =
    ["the Ferryman", "Doctor Vale", "Old Mags", "the Ledger Clerk", "a masked courier", "Sister Umber"];

/// Levels that a player can have.
const LEVEL_MAX: f64 = 100.0;
/// Longest text of a context value.
const TEXT_MAX: usize = 64;
/// Most quests that can come before one.
const PREREQUISITES_MAX: usize = 64;
/// Below this level there is no combat, unless the quest is hard.
const COMBAT_LEVEL: f64 = 3.0;

/// One row a type of objective.
struct Kind {
    name: &'static str,
    kind: &'static str,
    verb: &'static str,
    /// Follows the target in the description; empty for negotiations, which name neither count nor place.
    rest: &'static str,
    targets: &'static [&'static str],
    is_daily: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "harvest",
        kind: "collect",
        verb: "Harvest",
        rest: "in the",
        targets: &["kidney", "liver", "blood", "bone"],
        is_daily: false,
    },
    Kind {
        name: "delivery",
        kind: "go",
        verb: "Deliver",
        rest: "to a drop in the",
        targets: &["sealed cooler", "ledger page", "grave_dust vial", "coded phone"],
        is_daily: true,
    },
    Kind {
        name: "negotiation",
        kind: "talk",
        verb: "Negotiate terms with",
        rest: "",
        targets: &[
            "carrion_kin",
            "chatter_swarm",
            "stitch_guild",
            "moon_clans",
            "vampiric_houses",
            "obsidian_synod",
            "silent_court",
            "leviathan_conclave",
        ],
        is_daily: true,
    },
    Kind {
        name: "combat",
        kind: "kill",
        verb: "Defeat",
        rest: "in the",
        targets: &["ghoul scavenger", "rival cutter", "hired enforcer", "feral hound"],
        is_daily: false,
    },
];

/// One row a difficulty: objectives and counts from and to, factor of the rewards.
struct Difficulty {
    name: &'static str,
    objectives: (u64, u64),
    counts: (u64, u64),
    factor: f64,
}

const DIFFICULTIES: [Difficulty; 3] = [
    Difficulty { name: "EASY", objectives: (2, 2), counts: (1, 2), factor: 0.75 },
    Difficulty { name: "NORMAL", objectives: (2, 3), counts: (2, 4), factor: 1.0 },
    Difficulty { name: "HARD", objectives: (3, 4), counts: (3, 5), factor: 1.5 },
];

/// A type of quest: its name, and money, experience, reputation.
type QuestType = (&'static str, [f64; 3]);

const QUEST_TYPES: [QuestType; 4] = [
    ("main", [500.0, 100.0, 25.0]),
    ("side", [100.0, 50.0, 10.0]),
    ("daily", [60.0, 30.0, 5.0]),
    ("event", [250.0, 75.0, 15.0]),
];

const REWARDS: [&str; 3] = ["money", "experience", "reputation"];

/// A request, checked, with everything that it left open filled in.
pub(super) struct Plan {
    seed: u64,
    /// Seed of the draws, which is the quest's identity, too.
    drawn: u64,
    difficulty: &'static Difficulty,
    quest_type: &'static QuestType,
    level: f64,
    is_day: bool,
    multiplier: f64,
    location: Option<String>,
    giver: Option<String>,
    pub(super) prerequisites: Vec<String>,
}

/// Checks a request; its first fault in the order of fields.
pub(super) fn plan(context: &Context, request: &Generation) -> Result<Plan, Fault> {
    id("player_id", &request.player_id)?;
    let mut given = request.context.clone().unwrap_or_default();
    document("context", &given)?;
    let wanted = text(&given, "quest_type")?.unwrap_or("side");
    let mut quest_type = type_of_name("context.quest_type", wanted)?;
    let level = number(&given, "player_level", 1.0, LEVEL_MAX, 1.0)?;
    if level.fract() != 0.0 {
        return Err(invalid("context.player_level", "bad_format", "player_level must be a whole number"));
    }
    let is_day = match text(&given, "world_phase")?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("night") => false,
        Some("day") => true,
        Some(_) => {
            let text = "world_phase must be day or night";
            return Err(unknown_value("context.world_phase", text, &["day", "night"]));
        }
    };
    let multiplier = number(&given, "reward_multiplier", 0.1, 10.0, 1.0)?;
    let location = short_text(&given, "location")?;
    let giver = short_text(&given, "giver")?;
    let prerequisites = prerequisites(&given)?;
    let upper = request.difficulty.to_ascii_uppercase();
    let wanted = if upper.is_empty() { "NORMAL" } else { &upper };
    let Some(difficulty) = DIFFICULTIES.iter().find(|row| row.name == wanted) else {
        let text = "difficulty must be EASY, NORMAL or HARD";
        return Err(unknown_value("difficulty", text, &["EASY", "NORMAL", "HARD"]));
    };
    if !request.quest_type.is_empty() {
        quest_type = type_of_name("quest_type", &request.quest_type)?;
        given.set("quest_type", quest_type.0);
    }
    let (tenant, player) = (tenant_part(context.tenant()), Part::Text(&request.player_id));
    let chosen = match request.seed {
        0 => {
            let key = Some(context.idempotency_key()).filter(|key| !key.is_empty());
            let call = Part::Text(key.unwrap_or(context.request_id()));
            seed(&[Part::Text("quest.seed.v1"), tenant, player, call])
        }
        given => given,
    };
    let json = canonical_json(&given);
    let parts =
        [Part::Text("quest.v1"), tenant, player, Part::Number(chosen), Part::Text(difficulty.name), Part::Text(&json)];
    let drawn = seed(&parts);
    Ok(Plan { seed: chosen, drawn, difficulty, quest_type, level, is_day, multiplier, location, giver, prerequisites })
}

impl Plan {
    /// Seed of the quest's prose.
    pub(super) fn prose_seed(&self) -> u64 {
        self.drawn
    }
}

/// The quest of a plan.
pub(super) fn quest(plan: &Plan) -> Quest {
    let mut draws = Draws::new(plan.drawn);
    let adjective = draws.pick(&ADJECTIVES);
    let noun = draws.pick(&NOUNS);
    let theme = draws.pick(&THEMES);
    let drawn_location = draws.pick(&LOCATIONS);
    let drawn_giver = draws.pick(&GIVERS);
    let location = plan.location.as_deref().unwrap_or(drawn_location);
    let giver = plan.giver.as_deref().unwrap_or(drawn_giver);
    let count = draws.between(plan.difficulty.objectives.0, plan.difficulty.objectives.1);
    let objectives = objectives(plan, location, count, &mut draws);
    let steps: Vec<&str> = objectives.iter().map(|objective| objective.description.as_str()).collect();
    let description = format!(
        "{} offers a {theme} job in the {location} district, {count} steps: {}.",
        capitalised(giver),
        steps.join("; ")
    );
    let rewards = rewards(plan);
    let mut tags: BTreeMap<String, String> = [
        ("theme", theme),
        ("location", location),
        ("giver", giver),
        ("quest_type", plan.quest_type.0),
        ("world_phase", if plan.is_day { "day" } else { "night" }),
        ("status", "active"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    tags.insert("seed".to_owned(), plan.seed.to_string());
    tags.extend(rewards.iter().map(|(name, value)| (format!("reward_{name}"), value.to_string())));
    Quest {
        quest_id: format!("qst_{:016x}", plan.drawn),
        title: format!("The {adjective} {noun}"),
        description,
        objectives,
        difficulty: plan.difficulty.name.to_owned(),
        tags,
        rewards,
    }
}

fn objectives(plan: &Plan, location: &str, count: u64, draws: &mut Draws) -> Vec<Objective> {
    let mut used = HashSet::new();
    let mut previous = None;
    let mut objectives = Vec::new();
    for step in 1..=count {
        let at = draws.weighted(&weights(plan, previous));
        previous = Some(at);
        let kind = &KINDS[at];
        let mut target = draws.below(kind.targets.len() as u64) as usize;
        while !used.insert((at, target)) {
            target = (target + 1) % kind.targets.len();
        }
        let (from, to) = plan.difficulty.counts;
        let drawn = draws.between(from, to);
        let target = kind.targets[target];
        let (amount, description) = match kind.rest {
            "" => (1, format!("{} {target}", kind.verb)),
            rest => (drawn, format!("{} {drawn} x {target} {rest} {location} district", kind.verb)),
        };
        let params = [
            ("target_count", amount.to_string()),
            ("target", target.to_owned()),
            ("kind", kind.kind.to_owned()),
            ("location", location.to_owned()),
            ("progress", "0".to_owned()),
        ];
        objectives.push(Objective {
            objective_id: format!("obj{step}"),
            description,
            r#type: kind.name.to_owned(),
            params: params.map(|(name, value)| (name.to_owned(), value)).into(),
        });
    }
    objectives
}

fn weights(plan: &Plan, previous: Option<usize>) -> [f64; 4] {
    let mut weights = [1.0; 4];
    for (index, (weight, kind)) in weights.iter_mut().zip(&KINDS).enumerate() {
        if kind.is_daily == plan.is_day {
            *weight *= 2.0;
        }
        if kind.name == "combat" && plan.level < COMBAT_LEVEL && plan.difficulty.name != "HARD" {
            *weight = 0.0;
        }
        if previous == Some(index) {
            *weight /= 4.0;
        }
    }
    weights
}

fn rewards(plan: &Plan) -> BTreeMap<String, i64> {
    let level_factor = (1.0 + 0.1 * (plan.level - 1.0)).min(5.0);
    let reward = |base: f64| {
        let exact = base * plan.difficulty.factor * level_factor * plan.multiplier;
        // Compared after rounding to six decimals, so that 209.99999999999997 is 210.
        ((exact * 1e6).round() / 1e6).floor() as i64
    };
    REWARDS.iter().zip(plan.quest_type.1).map(|(name, base)| ((*name).to_owned(), reward(base))).collect()
}

/// The type of quest that a field names.
fn type_of_name(field: &str, name: &str) -> Result<&'static QuestType, Fault> {
    QUEST_TYPES.iter().find(|row| row.0.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let text = "quest_type must be main, side, daily or event";
        unknown_value(field, text, &QUEST_TYPES.map(|row| row.0))
    })
}

fn number(given: &Struct, name: &str, min: f64, max: f64, default: f64) -> Result<f64, Fault> {
    let field = format!("context.{name}");
    match given.get(name) {
        None => Ok(default),
        Some(Value::Number(value)) if (min..=max).contains(value) => Ok(*value),
        Some(Value::Number(_)) => Err(out_of_range(&field, min, max)),
        Some(_) => Err(invalid(&field, "bad_format", format!("{name} must be a number"))),
    }
}

fn text<'a>(given: &'a Struct, name: &str) -> Result<Option<&'a str>, Fault> {
    match given.get(name) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(invalid(&format!("context.{name}"), "bad_format", format!("{name} must be a text"))),
    }
}

fn short_text(given: &Struct, name: &str) -> Result<Option<String>, Fault> {
    match text(given, name)? {
        Some(value) if value.is_empty() || value.chars().count() > TEXT_MAX => {
            let text = format!("{name} must have 1 to {TEXT_MAX} characters");
            Err(invalid(&format!("context.{name}"), "too_long", text))
        }
        value => Ok(value.map(str::to_owned)),
    }
}

fn prerequisites(given: &Struct) -> Result<Vec<String>, Fault> {
    const FIELD: &str = "context.prerequisites";
    let bad = || invalid(FIELD, "bad_format", "prerequisites must be a list of quest ids");
    let Some(value) = given.get("prerequisites") else { return Ok(Vec::new()) };
    let list = value.as_list().ok_or_else(bad)?;
    if list.len() > PREREQUISITES_MAX {
        return Err(invalid(FIELD, "too_many", format!("at most {PREREQUISITES_MAX} prerequisites")));
    }
    let ids: Result<Vec<String>, Fault> =
        list.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(bad)).collect();
    let ids = ids?;
    ids.iter().try_for_each(|quest_id| id(FIELD, quest_id))?;
    Ok(ids)
}
