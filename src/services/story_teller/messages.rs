//! The messages of `story_teller.v1`, without what the house style keeps for itself, and what the service keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) story_type: String,
    pub(super) context: BTreeMap<String, String>,
    pub(super) themes: Vec<String>,
    pub(super) min_length: i32,
    pub(super) max_length: i32,
    pub(super) tone: String,
    pub(super) seed: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Story {
    pub(super) content_id: String,
    pub(super) content_type: String,
    pub(super) content: String,
    pub(super) dialogue_lines: Vec<String>,
    pub(super) choices: Vec<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) quality_score: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Generated {
    pub(super) story: Option<Story>,
    pub(super) alternatives: Vec<Story>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Evaluate {
    pub(super) story_branch_id: String,
    pub(super) player_choice: String,
    pub(super) context: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Evaluated {
    pub(super) evaluation: Option<Evaluation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evaluation {
    pub(super) branch_id: String,
    pub(super) coherence_score: f64,
    pub(super) impact_score: f64,
    pub(super) consequences: Vec<String>,
    pub(super) state_changes: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Continue {
    pub(super) checkpoint_id: String,
    pub(super) context: BTreeMap<String, String>,
    pub(super) player_choice: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Continued {
    pub(super) continuation: Option<Story>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) revision: u64,
    pub(super) content_delta: String,
    pub(super) story: Option<Story>,
}

/// A story that was told, and how to go on from it. `GetCheckpoint` is declared and shows the fields that it names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) asked: Asked,
    pub(super) story: Story,
    pub(super) depth: u32,
    pub(super) parent_checkpoint_id: String,
}

/// A way on from a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Branch {
    pub(super) checkpoint_id: String,
    /// Place of its choice, from 0.
    pub(super) index: usize,
    pub(super) kind: String,
}

/// A request for a story, checked, with everything that it left open filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) story_type: String,
    pub(super) context: BTreeMap<String, String>,
    pub(super) themes: Vec<String>,
    pub(super) min_length: usize,
    pub(super) max_length: usize,
    pub(super) tone: String,
}
