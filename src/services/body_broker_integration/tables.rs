//! The tables of the trade: parts, grades, methods, tools, families, temperaments, outcomes, drugs.

/// A part of a body: base value in drug money, and how many a target has.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) most: u32,
}

const fn part(name: &'static str, value: f64, most: u32) -> Part {
    Part { name, value, most }
}

pub(super) static PARTS: [Part; 10] = [
    part("heart", 50_000.0, 1),
    part("liver", 45_000.0, 1),
    part("kidney", 20_000.0, 2),
    part("lung", 15_000.0, 2),
    part("brain", 80_000.0, 1),
    part("eyes", 10_000.0, 1),
    part("blood", 500.0, 5),
    part("skin", 100.0, 2),
    part("bone", 5_000.0, 10),
    part("spinal_cord", 60_000.0, 1),
];

/// A grade: what a part is worth with it, and what it does for a negotiation.
#[derive(Debug, PartialEq)]
pub(super) struct Grade {
    pub(super) name: &'static str,
    /// Lowest score.
    from: f64,
    pub(super) factor: f64,
    pub(super) leverage: f64,
}

const fn grade(name: &'static str, from: f64, factor: f64, leverage: f64) -> Grade {
    Grade { name, from, factor, leverage }
}

/// Best first; no score is corrupted, which is what a part without freshness is.
pub(super) static GRADES: [Grade; 6] = [
    grade("pristine", 1.0, 2.0, 0.40),
    grade("prime", 0.75, 1.5, 0.20),
    grade("good", 0.5, 1.0, 0.0),
    grade("damaged", 0.3, 0.5, -0.15),
    grade("junk", f64::NEG_INFINITY, 0.25, -0.30),
    grade("corrupted", f64::INFINITY, 0.1, -0.30),
];
const CORRUPTED: &Grade = &GRADES[5];

/// The grade of a score at a freshness.
pub(super) fn grade_of(score: f64, freshness: f64) -> &'static Grade {
    if freshness <= 0.0 {
        return CORRUPTED;
    }
    GRADES.iter().find(|grade| score >= grade.from).unwrap_or(CORRUPTED)
}

pub(super) const METHODS: [(&str, f64); 4] =
    [("shotgun_blast", 0.25), ("blade_kill", 0.75), ("poison_kill", 0.90), ("live_extraction", 1.20)];

/// Classes of tools: value, and the tools that are of them.
pub(super) const TOOLS: [(&str, f64, &[&str]); 4] = [
    ("rusty", -0.20, &["rusty_knife", "rusty_saw"]),
    ("standard", 0.0, &["knife", "blade", "saw"]),
    ("surgical", 0.20, &["scalpel", "surgical_kit"]),
    ("advanced", 0.40, &["laser_scalpel", "advanced_kit"]),
];

pub(super) const TARGET_TYPES: [&str; 3] = ["deserving", "neutral", "innocent"];

/// Preservations, and the hours that a part keeps with them.
pub(super) const PRESERVATIONS: [(&str, f64); 3] = [("none", 24.0), ("formaldehyde", 48.0), ("cryogenic", 192.0)];

/// A family of the Dark World, in order of their unlocking.
pub(super) struct Family {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) drug: &'static str,
    pub(super) street_value: f64,
    pub(super) temperament: &'static Temperament,
    /// Deals with everybody from the start.
    pub(super) is_open: bool,
}

const fn family(
    id: &'static str,
    name: &'static str,
    drug: &'static str,
    street_value: f64,
    temperament: &'static Temperament,
    is_open: bool,
) -> Family {
    Family { id, name, drug, street_value, temperament, is_open }
}

pub(super) static FAMILIES: [Family; 8] = [
    family("carrion_kin", "Carrion Kin", "grave_dust", 50.0, &AGGRESSIVE, true),
    family("chatter_swarm", "Chatter-Swarm", "hive_nectar", 200.0, &DESPERATE, true),
    family("stitch_guild", "Stitch-Guild", "still_blood", 1_000.0, &COLD, false),
    family("moon_clans", "Moon-Clans", "moon_wine", 1_500.0, &AGGRESSIVE, false),
    family("vampiric_houses", "Vampiric Houses", "vitae", 5_000.0, &CALCULATED, false),
    family("obsidian_synod", "Obsidian Synod", "logic_spore", 10_000.0, &CALCULATED, false),
    family("silent_court", "Silent Court", "enchantment", 50_000.0, &WHIMSICAL, false),
    family("leviathan_conclave", "Leviathan Conclave", "aether", 100_000.0, &COLD, false),
];

/// How a family takes what is said to it.
pub(super) struct Temperament {
    pub(super) temper: f64,
    tactics: &'static [(&'static str, f64)],
}

impl Temperament {
    /// What a tactic does; what the family has no ear for does harm.
    pub(super) fn tactic(&self, name: &str) -> f64 {
        self.tactics.iter().find(|row| row.0 == name).map_or(-0.1, |row| row.1)
    }
}

static AGGRESSIVE: Temperament = Temperament {
    temper: 0.8,
    tactics: &[("intimidate", 0.2), ("charm", -0.1), ("logic", -0.2), ("appeal_to_greed", 0.15)],
};
static CALCULATED: Temperament = Temperament {
    temper: 0.3,
    tactics: &[("intimidate", -0.2), ("charm", 0.1), ("logic", 0.3), ("appeal_to_greed", 0.2)],
};
static WHIMSICAL: Temperament =
    Temperament { temper: 0.5, tactics: &[("intimidate", -0.3), ("charm", 0.2), ("logic", -0.1), ("riddle", 0.4)] };
static DESPERATE: Temperament = Temperament {
    temper: 0.2,
    tactics: &[("intimidate", 0.3), ("charm", 0.1), ("logic", 0.0), ("exploit_desperation", 0.4)],
};
static COLD: Temperament = Temperament {
    temper: 0.1,
    tactics: &[("intimidate", 0.0), ("charm", 0.0), ("logic", 0.3), ("data_driven_argument", 0.3)],
};

pub(super) const DEMANDS: [(&str, f64); 4] = [("low", -0.2), ("normal", 0.0), ("high", 0.2), ("critical", 0.5)];

/// How a negotiation ends.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    /// Lowest leverage.
    from: f64,
    /// What the price is multiplied with; nothing where there is no deal.
    pub(super) price: Option<f64>,
    pub(super) reputation: i32,
    pub(super) line: &'static str,
}

const fn outcome(name: &'static str, from: f64, price: Option<f64>, reputation: i32, line: &'static str) -> Outcome {
    Outcome { name, from, price, reputation, line }
}

static OUTCOMES: [Outcome; 6] = [
    outcome("excellent", 0.6, Some(1.5), 10, "My house will remember this. Add a measure."),
    outcome("good", 0.3, Some(1.2), 5, "Clean work. We are agreed."),
    outcome("fair", -0.1, Some(1.0), 0, "Market price, as always."),
    outcome("poor", -0.4, Some(0.8), -5, "Less than you hoped. Take it or leave it."),
    outcome("failed", f64::NEG_INFINITY, None, -10, "I have no use for this. Go."),
    outcome("hostile", f64::INFINITY, None, -50, "Then you are the goods."),
];
const FAILED: &Outcome = &OUTCOMES[4];
const HOSTILE: &Outcome = &OUTCOMES[5];
/// Below it, a family of enough temper turns on the player.
const HOSTILE_BELOW: f64 = -0.6;
const HOSTILE_TEMPER: f64 = 0.5;

/// How a negotiation with this leverage ends.
pub(super) fn outcome_of(leverage: f64, temper: f64) -> &'static Outcome {
    if leverage < HOSTILE_BELOW && temper > HOSTILE_TEMPER {
        return HOSTILE;
    }
    OUTCOMES.iter().find(|outcome| leverage >= outcome.from).unwrap_or(FAILED)
}

/// What is known of a family by deals made with it, best first.
const BOOK: [(u32, &str); 5] =
    [(25, "mastery"), (10, "expertise"), (3, "familiarity"), (1, "awareness"), (0, "whispers")];

pub(super) fn book_tier(deals: u32) -> &'static str {
    BOOK.iter().find(|row| deals >= row.0).map_or("whispers", |row| row.1)
}

/// Pairs of drugs that mix: what comes of them and how strong; fatal without a potency.
pub(super) const MIXTURES: [([&str; 2], &str, Option<f64>, &str); 3] = [
    (["grave_dust", "moon_wine"], "grave_dust", Some(1.5), "extreme_aggression"),
    (["vitae", "logic_spore"], "vitae", Some(1.3), "cognitive_overload"),
    (["still_blood", "aether"], "", None, "death"),
];

/// What a drug does: effects with magnitude and minutes, then its side effect in the same form.
pub(super) const EFFECTS: [(&str, &str, &str); 8] = [
    ("grave_dust", "strength 1.5, pain_resistance 1.3, 30 min", "paranoia 1.0, 60 min"),
    ("hive_nectar", "short_range_telepathy 1.0, 60 min", "sensory_overload 0.8, 60 min"),
    ("still_blood", "regeneration 2.0, 120 min", "necrosis_risk 0.5, 240 min"),
    ("moon_wine", "speed 2.0, senses 1.8, 45 min", "fury 1.5, 45 min"),
    ("vitae", "charm 1.8, influence 1.6, 180 min", "light_sensitivity 0.7, 240 min"),
    ("logic_spore", "data_sight 2.0, prediction 1.9, calculation 2.0, 120 min", "dissociation 1.2, 180 min"),
    ("enchantment", "reality_bending 2.0, permanent", "ironic_twist 2.0, permanent"),
    ("aether", "spellcasting 2.0, per unit", "rejection 2.0"),
];

/// What a death takes of health and stamina, by the level of veil-fray after it; the last one stays.
pub(super) const PENALTIES: [f64; 3] = [0.10, 0.25, 0.40];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_and_outcomes_begin_where_the_page_says() {
        let grades = [1.0, 0.999_999, 0.75, 0.5, 0.3, 0.299_999, -0.1].map(|score| grade_of(score, 1.0).name);
        assert_eq!(grades, ["pristine", "prime", "prime", "good", "damaged", "junk", "junk"]);
        assert_eq!(grade_of(2.0, 0.0).name, "corrupted");
        let outcomes = [0.6, 0.3, -0.1, -0.4, -0.400_001, -0.6].map(|leverage| outcome_of(leverage, 0.8).name);
        assert_eq!(outcomes, ["excellent", "good", "fair", "poor", "failed", "failed"]);
        assert_eq!([outcome_of(-0.61, 0.8).name, outcome_of(-0.61, 0.5).name], ["hostile", "failed"]);
        assert_eq!([0, 1, 3, 10, 25].map(book_tier), ["whispers", "awareness", "familiarity", "expertise", "mastery"]);
    }
}
