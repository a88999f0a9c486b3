//! The messages of the registry of models, as plain structs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::services::paging::Pagination;
use crate::worker::types::Timestamp;

/// `model_mgmt.v1.ModelInfo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ModelInfo {
    pub(super) model_id: String,
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) family: String,
    pub(super) modality: String,
    pub(super) is_default: bool,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) updated_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct List {
    pub(super) modality_filter: String,
    pub(super) provider_filter: String,
    pub(super) page: Option<Pagination>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) models: Vec<ModelInfo>,
    pub(super) next_page_token: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Get {
    pub(super) model_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Got {
    pub(super) model: Option<ModelInfo>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Select {
    pub(super) model_id: String,
    pub(super) expected_model_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Selected {
    pub(super) ok: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Rank {
    pub(super) use_case: String,
    pub(super) priority: String,
    pub(super) task_type: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Ranked {
    pub(super) ranked: Vec<RankedModel>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RankedModel {
    pub(super) model: Option<ModelInfo>,
    pub(super) score: f64,
    pub(super) parts: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SetStatus {
    pub(super) model_id: String,
    pub(super) status: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) modality_filter: String,
    pub(super) provider_filter: String,
    pub(super) after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) revision: u64,
    pub(super) model: Option<ModelInfo>,
    pub(super) change: String,
}
