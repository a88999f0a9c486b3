//! The models that there are at first, and which one of them is selected.

use std::collections::BTreeMap;

use super::Model;

/// A model that there is at first; all are of modality chat and current.
struct BuiltIn {
    id: &'static str,
    name: &'static str,
    provider: &'static str,
    family: &'static str,
    is_selected: bool,
    /// What its metadata says besides its status.
    metadata: [(&'static str, &'static str); 3],
}

const BUILT_IN: [BuiltIn; 3] = [
    BuiltIn {
        id: "gpt-5-pro",
        name: "GPT-5 Pro",
        provider: "openai",
        family: "gpt",
        is_selected: true,
        metadata: [("context_length", "128000"), ("use_case", "story_generation"), ("tier", "silver")],
    },
    BuiltIn {
        id: "gemini-2.5-pro",
        name: "Gemini 2.5 Pro",
        provider: "google",
        family: "gemini",
        is_selected: false,
        metadata: [("context_length", "1000000"), ("use_case", "faction_decision"), ("tier", "bronze")],
    },
    BuiltIn {
        id: "claude-4.5-sonnet",
        name: "Claude 4.5 Sonnet",
        provider: "anthropic",
        family: "claude",
        is_selected: false,
        metadata: [("context_length", "200000"), ("use_case", "npc_dialogue"), ("tier", "gold")],
    },
];

/// The models, each with whether it is selected.
pub(super) fn models() -> impl Iterator<Item = (Model, bool)> {
    BUILT_IN.iter().map(|row| {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut metadata: BTreeMap<String, String> = row.metadata.map(pair).into();
        metadata.insert("status".to_owned(), "current".to_owned());
        let model = Model {
            model_id: row.id.to_owned(),
            name: row.name.to_owned(),
            provider: row.provider.to_owned(),
            family: row.family.to_owned(),
            modality: "chat".to_owned(),
            metadata,
            ..Model::default()
        };
        (model, row.is_selected)
    })
}
