//! Blocks and words of stories, kinds of choices, and what follows from what.

/// A type of story.
pub(super) struct StoryType {
    pub(super) name: &'static str,
    /// Told round after round.
    pub(super) blocks: &'static [[&'static str; 2]],
    pub(super) has_choices: bool,
    pub(super) has_lines: bool,
    /// Layer of the text service.
    pub(super) layer: &'static str,
}

const HOOK: [&str; 2] = [
    "{person} asks for help {time}; the matter is {motif}.",
    "At {place} somebody left {object}, and with it {motif}.",
];
const STAKES: [&str; 2] = ["If nobody acts, {place} is lost.", "The price is {motif}, and it is due {time}."];
const OBSTACLE: [&str; 2] =
    ["{person} guards {object} and trusts no one.", "The way leads past {place}, and {sound} follows."];
const CALL: [&str; 2] = ["Bring {object} back {time}.", "Choose, {player}: the {tone} road or none."];
const LINE: [&str; 2] =
    [r#""{motif}? Speak softly," says {person}."#, r#""I saw {object} at {place}," says {person}."#];
const REPLY: [&str; 2] = [r#""Then we both know the price," you answer."#, r#""And you kept silent," you answer."#];
const BEAT: [&str; 2] = ["{sound}, and then nothing.", "For a moment it smells of {smell}."];
const ORIGIN: [&str; 2] =
    ["Long before the first ledger, {motif} began at {place}.", "They say {person} found {object} {time}."];
const CUSTOM: [&str; 2] = ["Since then every family keeps {object}.", "Nobody crosses {place} without naming {motif}."];
const WARNING: [&str; 2] = ["Those who forgot it heard {sound}.", "The {tone} part is never written down."];
const ESTABLISH: [&str; 2] = ["{place}, {time}: {tone} light, {sound}.", "A {tone} silence lies over {place}."];
const ACTION: [&str; 2] = ["{person} sets {object} on the table.", "Someone runs; {object} falls."];
const IMAGE: [&str; 2] = ["Last seen: {object}, and {motif}.", "The frame holds on {place}."];

pub(super) const STORY_TYPES: [StoryType; 4] = [
    StoryType {
        name: "quest",
        blocks: &[HOOK, STAKES, OBSTACLE, CALL],
        has_choices: true,
        has_lines: false,
        layer: "customization",
    },
    StoryType {
        name: "dialogue",
        blocks: &[LINE, REPLY, BEAT],
        has_choices: true,
        has_lines: true,
        layer: "interaction",
    },
    StoryType {
        name: "lore",
        blocks: &[ORIGIN, CUSTOM, WARNING],
        has_choices: false,
        has_lines: false,
        layer: "customization",
    },
    StoryType {
        name: "cutscene",
        blocks: &[ESTABLISH, ACTION, BEAT, IMAGE],
        has_choices: false,
        has_lines: false,
        layer: "foundation",
    },
];

/// Motifs by theme; any other theme is its own, behind `the matter of`.
pub(super) const THEMES: [(&str, [&str; 3]); 8] = [
    ("horror", ["something breathing under the boards", "a face behind the glass", "teeth in the wrong place"]),
    ("betrayal", ["a promise sold twice", "the letter that named you", "a friend's handwriting"]),
    ("redemption", ["a debt nobody asked for", "one life given back", "the first clean cut"]),
    ("survival", ["the last warm room", "three matches", "water that does not taste of iron"]),
    ("corruption", ["a judge's ring", "the fee for silence", "a ward that pays by weight"]),
    ("greed", ["a ledger with two endings", "the weight of a purse", "coins still warm"]),
    ("revenge", ["an old name on a new list", "the blade kept sharp", "a grave with room"]),
    ("mystery", ["a door that was never built", "the eighth chair", "a date that has not come"]),
];

/// Words by tone; any other tone is its own.
pub(super) const TONES: [(&str, [&str; 3]); 6] = [
    ("dark", ["dark", "starless", "sunless"]),
    ("tense", ["tight", "held", "brittle"]),
    ("mysterious", ["veiled", "odd", "half-lit"]),
    ("melancholic", ["grey", "slow", "rain-worn"]),
    ("grim", ["hard", "cold", "bare"]),
    ("hopeful", ["pale", "mending", "open"]),
];

/// Tones by their column of coherence; any other tone has the last one.
pub(super) const COHERENCE_TONES: [(&str, usize); 5] =
    [("dark", 0), ("grim", 0), ("tense", 1), ("mysterious", 2), ("melancholic", 3)];

/// A kind of choice and what it does.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) impact: f64,
    pub(super) coherence: [f64; 5],
    pub(super) changes: &'static [(&'static str, i64)],
    pub(super) causes: &'static [&'static str],
}

pub(super) const KINDS: [Kind; 5] = [
    Kind {
        name: "aggressive",
        text: "Strike before they do.",
        impact: 0.8,
        coherence: [0.9, 0.9, 0.6, 0.6, 0.5],
        changes: &[("reputation", -10), ("experience", 20)],
        causes: &["player kills npc", "npc kill"],
    },
    Kind {
        name: "diplomatic",
        text: "Offer them a bargain.",
        impact: 0.6,
        coherence: [0.7, 0.7, 0.8, 0.7, 0.9],
        changes: &[("reputation", 5), ("experience", 10)],
        causes: &["alliance"],
    },
    Kind {
        name: "greedy",
        text: "Take it and say nothing.",
        impact: 0.6,
        coherence: [0.85, 0.7, 0.7, 0.5, 0.4],
        changes: &[("money", 50), ("reputation", -5)],
        causes: &["steal", "price spike"],
    },
    Kind {
        name: "merciful",
        text: "Let them go.",
        impact: 0.5,
        coherence: [0.6, 0.6, 0.7, 0.9, 0.95],
        changes: &[("reputation", 10)],
        causes: &[],
    },
    Kind {
        name: "evasive",
        text: "Walk away.",
        impact: 0.2,
        coherence: [0.7, 0.8, 0.8, 0.8, 0.6],
        changes: &[],
        causes: &[],
    },
];

/// What follows from a cause.
pub(super) struct Consequence {
    pub(super) cause: &'static str,
    pub(super) text: &'static str,
    /// In game days.
    pub(super) delay: f64,
    pub(super) probability: f64,
}

const fn row(cause: &'static str, text: &'static str, delay: f64, probability: f64) -> Consequence {
    Consequence { cause, text, delay, probability }
}

pub(super) const CONSEQUENCES: [Consequence; 10] = [
    row("military expansion", "defensive response of the other factions", 1.0, 0.7),
    row("alliance", "counter-alliance", 2.0, 0.5),
    row("npc kill", "fear among those near", 0.5, 0.8),
    row("betrayal", "relation -0.3", 0.0, 1.0),
    row("price spike", "hoarding", 1.0, 0.6),
    row("shortage", "resource war", 2.0, 0.7),
    row("territory lost", "attempt to reclaim", 3.0, 0.5),
    row("territory lost", "loyalty shift of its people", 1.0, 0.8),
    row("player kills npc", "retaliation against the player", 2.0, 0.9),
    row("steal", "hostile witnesses", 0.5, 0.7),
];

/// Causes that a context can name as its event.
pub(super) const EVENTS: [(&str, &str); 4] = [
    ("military_expansion", "military expansion"),
    ("territory_lost", "territory lost"),
    ("shortage", "shortage"),
    ("betrayal", "betrayal"),
];

/// Goods with their base prices.
pub(super) const GOODS: [(&str, f64); 6] = [
    ("body_part", 100.0),
    ("augmentation", 500.0),
    ("weapon", 200.0),
    ("medicine", 50.0),
    ("information", 150.0),
    ("service", 75.0),
];

/// What stands in a table under a name, compared without case.
pub(super) fn named<'t, T>(table: &'t [(&'static str, T)], name: &str) -> Option<&'t T> {
    table.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| &row.1)
}
