//! The models that every tenant has from the beginning, built-in and configured ones, and which of them are selected.

use std::collections::BTreeMap;

use super::{Entry, Model};
use crate::services::Settings;

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

/// The models and selections, each with the tokens of its key. Of two with one key the first one counts.
pub(super) fn entries(settings: &Settings, now_ms: i64) -> Vec<(Vec<String>, Entry)> {
    let place = |kind: &str, name: &str| vec![kind.to_owned(), name.to_owned()];
    let mut entries = Vec::new();
    for (model, is_selected) in built_in().chain(configured(settings)) {
        let (model_id, modality) = (model.model_id.clone(), model.modality.clone());
        let model = Model { created_ms: now_ms, updated_ms: now_ms, ..model };
        entries.push((place("model", &model_id), Entry::Model(model)));
        if is_selected {
            entries.push((place("selected", &modality), Entry::Selected { model_id, since_ms: now_ms }));
        }
    }
    entries
}

fn built_in() -> impl Iterator<Item = (Model, bool)> {
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

fn configured(settings: &Settings) -> impl Iterator<Item = (Model, bool)> {
    settings.model_management.models.iter().map(|row| {
        let mut metadata = row.metadata.clone();
        metadata.entry("status".to_owned()).or_insert_with(|| "current".to_owned());
        let model = Model {
            model_id: row.model_id.clone(),
            name: row.name.clone(),
            provider: row.provider.clone(),
            family: row.family.clone(),
            modality: row.modality.clone(),
            metadata,
            ..Model::default()
        };
        (model, row.selected)
    })
}
