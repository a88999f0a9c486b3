//! Section `model-management`.

use std::collections::BTreeMap;

use super::Keys;

/// The registry of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelManagement {
    /// Models beside the built-in ones.
    pub models: Vec<ModelRow>,
}

/// A further model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRow {
    /// Its id.
    pub model_id: String,
    /// Name for people; the id without one.
    pub name: String,
    /// Who makes it.
    pub provider: String,
    /// Its family.
    pub family: String,
    /// `chat`, `embedding`, ….
    pub modality: String,
    /// Selected at the first start, where its modality has no selected model yet.
    pub selected: bool,
    /// `context_length`, `status`, `use_case`, `tier` and whatever else.
    pub metadata: BTreeMap<String, String>,
}

impl ModelManagement {
    pub(super) fn read(keys: &mut Keys) -> ModelManagement {
        let models = keys.key("models", "further models, fields as in the built-in table").rows(None, ModelRow::read);
        ModelManagement { models: models.unwrap_or_default() }
    }
}

impl ModelRow {
    fn read(keys: &mut Keys) -> ModelRow {
        let model_id = keys.key("model_id", "its id").required_text();
        let name = keys.key("name", "name for people (default: its id)").optional_text();
        ModelRow {
            name: name.unwrap_or_else(|| model_id.clone()),
            model_id,
            provider: keys.key("provider", "who makes it").required_text(),
            family: keys.key("family", "its family").text(""),
            modality: keys.key("modality", "its modality").text("chat"),
            selected: keys.key("selected", "selected at the first start").truth(false),
            metadata: keys.key("metadata", "context_length, status, use_case, tier, …").text_map(),
        }
    }
}
