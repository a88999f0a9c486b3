//! The messages of `environmental_narrative.v1`, without what the house style keeps for itself, and what the service
//! keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::common::{Error, Meta};

/// What the store holds of a place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kept {
    Context(Known),
    /// The last set, with its seed.
    Set(u64, Generated),
    /// The prose that a model wrote for a set, element by element.
    Prose(Vec<String>),
}

/// What is known about a place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) context: BTreeMap<String, String>,
    pub(super) active_events: Vec<String>,
    /// Elements that the last change touched.
    pub(super) affected_elements: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) location_id: String,
    pub(super) scene_type: String,
    pub(super) context: BTreeMap<String, String>,
    pub(super) tags: Vec<String>,
    pub(super) seed: u64,
    pub(super) max_elements: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Element {
    pub(super) element_id: String,
    pub(super) element_type: String,
    pub(super) content: String,
    pub(super) intensity: f64,
    pub(super) duration_seconds: i32,
    pub(super) triggers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Generated {
    pub(super) elements: Vec<Element>,
    pub(super) atmosphere: String,
    pub(super) recommended_sounds: Vec<String>,
    pub(super) context_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Update {
    pub(super) location_id: String,
    pub(super) context_updates: BTreeMap<String, String>,
    pub(super) active_events: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Updated {
    pub(super) success: bool,
    pub(super) affected_elements: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WatchLocation {
    pub(super) location_id: String,
    pub(super) after_revision: u64,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) revision: u64,
    pub(super) context: BTreeMap<String, String>,
    pub(super) affected_elements: Vec<String>,
    pub(super) generated: Option<SeenSet>,
}

/// A set inside of a watch's item.
#[derive(Serialize, Deserialize)]
pub(super) struct SeenSet {
    pub(super) meta: Option<Meta>,
    pub(super) elements: Vec<Element>,
    pub(super) atmosphere: String,
    pub(super) recommended_sounds: Vec<String>,
    pub(super) error: Option<Error>,
    pub(super) context_revision: u64,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) revision: u64,
    pub(super) element: Option<Element>,
    pub(super) atmosphere: String,
    pub(super) recommended_sounds: Vec<String>,
}
