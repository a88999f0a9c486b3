//! Scenes, and how places sound and feel.

/// A kind of place.
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// Objects from and to.
    pub(super) objects: (u64, u64),
    /// Come first, in this order.
    pub(super) required: &'static [&'static str],
    pub(super) optional: &'static [&'static str],
    pub(super) theme: &'static str,
    pub(super) seconds: i32,
    pub(super) sound: &'static str,
}

pub(super) const SCENES: [Scene; 7] = [
    Scene {
        name: "abandoned_camp",
        objects: (8, 25),
        required: &["tent", "fire_ring", "supplies"],
        optional: &["bedroll", "cooking_pot", "weapon", "backpack"],
        theme: "desertion",
        seconds: 60,
        sound: "ember_crackle",
    },
    Scene {
        name: "battle_aftermath",
        objects: (10, 30),
        required: &["weapon", "damage_marker"],
        optional: &["stain", "broken_armor", "ammunition", "medical_supplies"],
        theme: "conflict",
        seconds: 45,
        sound: "crow_calls",
    },
    Scene {
        name: "recent_departure",
        objects: (5, 15),
        required: &["personal_item", "fresh_track"],
        optional: &["clothing", "food", "tool"],
        theme: "urgency",
        seconds: 30,
        sound: "footsteps_fading",
    },
    Scene {
        name: "long_term_settlement",
        objects: (20, 50),
        required: &["shelter", "storage", "workspace"],
        optional: &["furniture", "decoration", "tool", "supply"],
        theme: "establishment",
        seconds: 120,
        sound: "distant_voices",
    },
    Scene {
        name: "emergency",
        objects: (5, 20),
        required: &["alarm", "medical_supplies"],
        optional: &["overturned_chair", "torch", "radio"],
        theme: "panic",
        seconds: 30,
        sound: "alarm_loop",
    },
    Scene {
        name: "hideout",
        objects: (6, 18),
        required: &["bedroll", "lock"],
        optional: &["map", "weapon", "stash", "lamp"],
        theme: "secrecy",
        seconds: 60,
        sound: "held_breath",
    },
    Scene {
        name: "workshop",
        objects: (10, 30),
        required: &["workbench", "tool"],
        optional: &["blueprint", "scrap", "lamp", "vice"],
        theme: "craft",
        seconds: 90,
        sound: "metal_ticks",
    },
];

/// Types of scenes, each with the scene that it stands for.
pub(super) const SCENE_TYPES: [(&str, &str); 3] =
    [("ambient", "long_term_settlement"), ("discovery", "abandoned_camp"), ("transition", "recent_departure")];

/// Tags that stand for a scene.
pub(super) const SCENE_TAGS: [(&str, &str); 4] =
    [("battle", "battle_aftermath"), ("emergency", "emergency"), ("hideout", "hideout"), ("workshop", "workshop")];

/// Words for wear, each up to its value.
pub(super) const WEARS: [(f64, &str); 4] = [(0.2, "recent"), (0.5, "used"), (0.8, "worn"), (f64::INFINITY, "ancient")];

pub(super) const POSITIONS: [&str; 6] =
    ["by the door", "under the window", "half buried", "on the floor", "against the wall", "in plain sight"];

/// How much an object matters.
pub(super) struct Weight {
    pub(super) odds: f64,
    pub(super) reward: &'static str,
    pub(super) reward_type: &'static str,
    /// Added to the intensity.
    pub(super) intensity: f64,
}

/// Ambient, notable, critical.
pub(super) const WEIGHTS: [Weight; 3] = [
    Weight { odds: 6.0, reward: "1", reward_type: "narrative", intensity: 0.0 },
    Weight { odds: 3.0, reward: "5", reward_type: "narrative", intensity: 0.0 },
    Weight { odds: 1.0, reward: "10", reward_type: "lore", intensity: 0.2 },
];

/// Types of elements; they go round by the object's place in the set.
pub(super) const ELEMENT_TYPES: [&str; 4] = ["description", "visual", "sound", "interaction"];

/// The air of a place by tag.
pub(super) const AIRS: [(&str, &str); 5] = [
    ("horror", "dread"),
    ("tense", "uneasy"),
    ("mysterious", "hushed"),
    ("melancholic", "desolate"),
    ("battle", "raw"),
];

/// The air of a place by time of day.
pub(super) const HOURS: [(&str, &str); 3] = [("night", "hushed"), ("dawn", "fragile"), ("dusk", "uneasy")];

/// Sounds by weather; any other weather has [`ROOM_TONE`].
pub(super) const WEATHERS: [(&str, &str); 7] = [
    ("rain", "rain_on_roof"),
    ("heavy_rain", "rain_on_roof"),
    ("storm", "distant_thunder"),
    ("fog", "muffled_foghorn"),
    ("mist", "muffled_foghorn"),
    ("windy", "wind_through_gaps"),
    ("blizzard", "wind_through_gaps"),
];
pub(super) const ROOM_TONE: &str = "room_tone";
pub(super) const NIGHT_SOUND: &str = "night_insects";

/// What stands in a table under a name, compared without case.
pub(super) fn named(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| row.1)
}
