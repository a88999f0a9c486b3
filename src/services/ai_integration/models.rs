//! Which models there are: as model-management says where it runs, else the built-in ones and those of the settings.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::super::settings::Settings;
use crate::fault::{Code, Fault, Reason};
use crate::worker::Context;

/// How long an answer of the registry is believed, and how long it is not asked after nobody was there.
const SEEN_MS: i64 = 5_000;
const ABSENT_MS: i64 = 30_000;
/// Most answers that are remembered.
const SEEN_MAX: usize = 4_096;
/// What tiers fall back to where their model is not registered.
const MODALITY: &str = "chat";

/// The registry's built-in models with the tokens that they take, the one that is selected first.
const BUILT_IN: [(&str, u32); 3] =
    [("gpt-5-pro", 128_000), ("gemini-2.5-pro", 1_000_000), ("claude-4.5-sonnet", 200_000)];

/// A registered model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) id: String,
    /// Tokens that it takes, prompt included; nothing where the registry does not say.
    pub(super) context_length: Option<u32>,
    pub(super) is_deprecated: bool,
}

/// Models as this replica has last seen them, by tenant and id; the selected one has an empty id.
#[derive(Default)]
pub(super) struct Models(Mutex<HashMap<(String, String), Seen>>);

struct Seen {
    model: Option<Model>,
    until_ms: i64,
}

#[derive(Serialize)]
struct GetModel<'a> {
    model_id: &'a str,
}

#[derive(Serialize)]
struct ListModels<'a> {
    modality_filter: &'a str,
}

#[derive(Deserialize)]
struct OneModel {
    model: Option<ModelInfo>,
}

#[derive(Deserialize)]
struct ManyModels {
    models: Vec<ModelInfo>,
}

#[derive(Deserialize)]
struct ModelInfo {
    model_id: String,
    is_default: bool,
    metadata: HashMap<String, String>,
}

impl From<ModelInfo> for Model {
    fn from(info: ModelInfo) -> Model {
        let said = |name: &str| info.metadata.get(name).map(String::as_str);
        Model {
            context_length: said("context_length").and_then(|text| text.parse().ok()),
            is_deprecated: said("status") == Some("deprecated"),
            id: info.model_id,
        }
    }
}

impl Models {
    /// The model of that id, if it is registered.
    pub(super) async fn find(&self, context: &Context, settings: &Settings, id: &str) -> Result<Option<Model>, Fault> {
        self.look(context, settings, id).await
    }

    /// The model that is selected for chats.
    pub(super) async fn selected(&self, context: &Context, settings: &Settings) -> Result<Option<Model>, Fault> {
        self.look(context, settings, "").await
    }

    /// The registry has changed.
    pub(super) fn forget(&self) {
        self.seen().clear();
    }

    async fn look(&self, context: &Context, settings: &Settings, id: &str) -> Result<Option<Model>, Fault> {
        let place = (context.tenant().to_owned(), id.to_owned());
        let now_ms = context.now_ms();
        if let Some(seen) = self.seen().get(&place).filter(|seen| now_ms < seen.until_ms) {
            return Ok(seen.model.clone());
        }
        let asked = match id {
            "" => selected(context).await,
            id => registered(context, id).await,
        };
        let (model, age_ms) = match asked {
            Ok(model) => (model, SEEN_MS),
            Err(fault) if is_absent(&fault) => (built_in(settings, id), ABSENT_MS),
            // The registry runs and does not answer now: what is known without it still holds.
            Err(fault) => match built_in(settings, id) {
                Some(model) => return Ok(Some(model)),
                None => return Err(fault),
            },
        };
        let mut seen = self.seen();
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(place, Seen { model: model.clone(), until_ms: now_ms + age_ms });
        Ok(model)
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<(String, String), Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn registered(context: &Context, id: &str) -> Result<Option<Model>, Fault> {
    const GET: &str = "model_mgmt.v1.ModelManagementService/GetModel";
    match context.call_as_service::<_, OneModel>(GET, &GetModel { model_id: id }).await {
        Ok(reply) => Ok(reply.model.map(Model::from)),
        Err(fault) if fault.code() == Code::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

async fn selected(context: &Context) -> Result<Option<Model>, Fault> {
    const LIST: &str = "model_mgmt.v1.ModelManagementService/ListModels";
    // Selected models come first in the list.
    let reply: ManyModels = context.call_as_service(LIST, &ListModels { modality_filter: MODALITY }).await?;
    Ok(reply.models.into_iter().find(|model| model.is_default).map(Model::from))
}

/// Nobody is there to ask, or these tables do not have the registry at all.
fn is_absent(fault: &Fault) -> bool {
    fault.why() == Reason::NoResponders || fault.code() == Code::Internal
}

fn built_in(settings: &Settings, id: &str) -> Option<Model> {
    let configured = settings.model_management.models.iter();
    let mut configured = configured.map(|row| ModelInfo {
        model_id: row.model_id.clone(),
        is_default: false,
        metadata: row.metadata.clone().into_iter().collect(),
    });
    let wanted = if id.is_empty() { BUILT_IN[0].0 } else { id };
    let built_in = BUILT_IN.iter().find(|row| row.0 == wanted).map(|(id, context_length)| Model {
        id: (*id).to_owned(),
        context_length: Some(*context_length),
        is_deprecated: false,
    });
    built_in.or_else(|| configured.find(|model| model.model_id == wanted).map(Model::from))
}
