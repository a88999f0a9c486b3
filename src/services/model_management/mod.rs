//! The registry of models: which there are, which one is selected for each modality, and how they rank.

mod at_first;
mod messages;
mod rank;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{id, unknown_value};
use super::notices::{notice, records};
use super::paging::Page;
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Keys, Store, key, key_token};
use crate::worker::records::{Change, Current, Document, EventId, Records};
use crate::worker::types::Timestamp;
use crate::worker::{Context, Failed, Repeats, Rule, Service};
use messages::{Get, Got, List, Listed, ModelInfo, Rank, Ranked, RankedModel, Select, Selected, SetStatus};
use rank::Ranking;

/// The life of a model, in order.
const STATUSES: [&str; 4] = ["candidate", "testing", "current", "deprecated"];

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_models", ttl: None, history: 16 };
    let models = Models {
        entries: Records::open(store, records(settings, bucket)).await?,
        repeats: Repeats::open(store).await?,
    };
    let settings = settings.clone();
    Ok(Service::new("model-management", VERSION)
        .keeping(&models.entries)
        .sweeping("sweeper", &models.entries)
        .beginning_with(&models.entries, move || settings.now(), at_first::entries)
        .hook_list("model_mgmt.v1.ModelManagementService/ListModels", list)
        .hook_put_at_beside("model_mgmt.v1.ModelManagementService/SelectModel", select)
        .hook_watch_knowing("model_mgmt.v1.ModelManagementService/WatchModels", watch::watch)
        .sharing(models)
        .unary("model_mgmt.v1.ModelManagementService/GetModel", Models::get)
        .unary("model_mgmt.v1.ModelManagementService/RankModels", Models::rank)
        .unary("model_mgmt.v1.ModelManagementService/SetModelStatus", Models::set_status)
        .done())
}

struct Models {
    entries: Records<Entry>,
    repeats: Repeats,
}

/// What the bucket holds: models, and for each modality which one is selected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Entry {
    Model(Model),
    Selected { model_id: String, since_ms: i64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Model {
    model_id: String,
    name: String,
    provider: String,
    family: String,
    modality: String,
    metadata: BTreeMap<String, String>,
    created_ms: i64,
    updated_ms: i64,
}

impl Model {
    fn info(&self, is_default: bool) -> ModelInfo {
        ModelInfo {
            model_id: self.model_id.clone(),
            name: self.name.clone(),
            provider: self.provider.clone(),
            family: self.family.clone(),
            modality: self.modality.clone(),
            is_default,
            metadata: self.metadata.clone(),
            created_at: Some(Timestamp::from_millis(self.created_ms)),
            updated_at: Some(Timestamp::from_millis(self.updated_ms)),
        }
    }

    fn status(&self) -> &str {
        self.metadata.get("status").map_or("current", String::as_str)
    }

    fn passes(&self, modality: &str, provider: &str) -> bool {
        let passes = |filter: &str, value: &str| filter.is_empty() || filter.eq_ignore_ascii_case(value);
        passes(modality, &self.modality) && passes(provider, &self.provider)
    }
}

/// All of a tenant's entries.
#[derive(Default)]
struct Registry {
    models: BTreeMap<String, Model>,
    /// Model by modality.
    selected: BTreeMap<String, String>,
}

impl Registry {
    fn take(&mut self, key: &str, entry: Entry) {
        match entry {
            Entry::Model(model) => drop(self.models.insert(model.model_id.clone(), model)),
            Entry::Selected { model_id, .. } => {
                let modality = key.rsplit('.').next().unwrap_or_default();
                self.selected.insert(modality.to_owned(), model_id);
            }
        }
    }

    fn is_default(&self, model: &Model) -> bool {
        self.selected.get(&key_token(&model.modality)) == Some(&model.model_id)
    }

    fn info(&self, model: &Model) -> ModelInfo {
        model.info(self.is_default(model))
    }
}

impl FromIterator<(String, Document<Entry>)> for Registry {
    fn from_iter<I: IntoIterator<Item = (String, Document<Entry>)>>(documents: I) -> Registry {
        let mut registry = Registry::default();
        documents.into_iter().for_each(|(key, document)| registry.take(&key, document.value));
        registry
    }
}

/// The hook of the declared list: which models pass, those that are selected first.
fn list(_: &Context, request: &List, documents: Vec<(String, Document<Entry>)>) -> Result<Listed, Fault> {
    let page = Page::of(request.page.as_ref())?;
    let registry: Registry = documents.into_iter().collect();
    let passing =
        registry.models.values().filter(|model| model.passes(&request.modality_filter, &request.provider_filter));
    let mut rows: Vec<(String, ModelInfo)> = passing
        .map(|model| {
            let rank = if registry.is_default(model) { "0" } else { "1" };
            // A blank comes before everything that a name has, so `open` comes before `open-x`.
            (format!("{rank} {} {}", model.provider, model.model_id), registry.info(model))
        })
        .collect();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let (models, next_page_token) = page.take(rows);
    Ok(Listed { models, next_page_token })
}

/// The hook of the declared put: the model is selected for its modality, unless its status or the one selected before
/// says otherwise.
fn select(
    context: Context,
    request: Select,
    model: Option<Document<Entry>>,
) -> Result<(Vec<String>, impl Rule<Entry, Selected>), Fault> {
    let model = the_model(&request.model_id, model)?;
    if matches!(model.status(), "deprecated" | "candidate") {
        return Err(Fault::client(Code::FailedPrecondition, format!("model {} is {}", model.model_id, model.status()))
            .detail("reason", "status")
            .detail("status", model.status()));
    }
    let tokens = vec!["selected".to_owned(), model.modality.clone()];
    let rule = move |current: &Current<Entry>| {
        let before = match &current.value {
            Some(Entry::Selected { model_id, .. }) => model_id.as_str(),
            _ => "",
        };
        if !request.expected_model_id.is_empty() && request.expected_model_id != before {
            let text = format!("{before} is selected, expected {}", request.expected_model_id);
            return Err(Fault::client(Code::FailedPrecondition, text)
                .detail("reason", "model_mismatch")
                .detail("current_model_id", before)
                .into());
        }
        if before == model.model_id {
            return Ok(Change::nothing(Selected { ok: true }));
        }
        let told = |subject: &str, id: String| {
            let info = model.info(true);
            Ok::<_, Fault>(
                notice(&context, subject, EventId::AtRevision(id), "model_mgmt.v1.ModelInfo", &info)?
                    .with("previous_model_id", before)
                    .with("modality", &*model.modality)
                    .with("user_id", context.user()),
            )
        };
        let (model_id, since_ms) = (model.model_id.clone(), current.now_ms);
        let event = told("evt.ai.model.selected.v1", format!("select:{}", model.modality))?;
        let audit = told("audit.model_management.selected", format!("audit:select:{}", model.modality))?;
        Ok(Change::put(Entry::Selected { model_id, since_ms }, Selected { ok: true }).event(event).event(audit))
    };
    Ok((tokens, rule))
}

impl Models {
    async fn get(self: Arc<Self>, context: Context, request: Get) -> Result<Got, Fault> {
        id("model_id", &request.model_id)?;
        let place = key(&[context.tenant(), "model", &request.model_id]);
        let model = the_model(&request.model_id, self.entries.get_cached(&context, &place).await?)?;
        let is_default = self.selection(&context, &model.modality).await? == model.model_id;
        if is_default && model.status() == "deprecated" {
            context.label("selected_deprecated", "true");
        }
        Ok(Got { model: Some(model.info(is_default)) })
    }

    async fn rank(self: Arc<Self>, context: Context, request: Rank) -> Result<Ranked, Fault> {
        let ranking = Ranking::read(&request.use_case, &request.priority, &request.task_type)?;
        let registry = self.registry(&context).await?;
        let models = registry.models.values().filter(|model| model.status() != "deprecated");
        let mut ranked: Vec<RankedModel> = models
            .map(|model| {
                let scored = ranking.score(model);
                RankedModel { model: Some(registry.info(model)), score: scored.score, parts: scored.parts }
            })
            .collect();
        // Models come in order of their ids, and the sort is stable: of equal ones the lower id is first.
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(Ranked { ranked })
    }

    async fn set_status(self: Arc<Self>, context: Context, request: SetStatus) -> Result<Got, Failed<Got>> {
        id("model_id", &request.model_id)?;
        let status = request.status.to_ascii_lowercase();
        if !STATUSES.contains(&status.as_str()) {
            return Err(unknown_value("status", format!("unknown status {}", request.status), &STATUSES).into());
        }
        let write = async {
            let model = self.move_on(&context, &request.model_id, &status).await?;
            if status == "current" {
                self.deprecate_others(&context, &model).await?;
            }
            let is_default = self.selection(&context, &model.modality).await? == model.model_id;
            Ok(Got { model: Some(model.info(is_default)) })
        };
        self.repeats.once(&context, write).await
    }

    /// Moves a model on to a later status.
    async fn move_on(&self, context: &Context, model_id: &str, status: &str) -> Result<Model, Fault> {
        let rank = |status: &str| STATUSES.iter().position(|row| *row == status).unwrap_or(0);
        let rule = |current: &Current<Entry>| {
            let Some(Entry::Model(before)) = &current.value else { return Err(unknown(model_id).into()) };
            if before.status() == status {
                return Ok(Change::nothing(before.clone()));
            }
            if rank(status) < rank(before.status()) {
                let text = format!("model {model_id} is {} and cannot become {status} again", before.status());
                return Err(Fault::client(Code::FailedPrecondition, text)
                    .detail("reason", "status")
                    .detail("status", before.status())
                    .into());
            }
            let mut after = Model { updated_ms: current.now_ms, ..before.clone() };
            after.metadata.insert("status".to_owned(), status.to_owned());
            Ok(Change::put(Entry::Model(after.clone()), after))
        };
        let place = key(&[context.tenant(), "model", model_id]);
        Ok(self.entries.change(context, &place, rule).await.map_err(|failed| failed.fault)?.reply)
    }

    /// There is one current model for a use case; those that are selected step back last.
    async fn deprecate_others(&self, context: &Context, model: &Model) -> Result<(), Fault> {
        let Some(use_case) = model.metadata.get("use_case") else { return Ok(()) };
        let registry = self.registry(context).await?;
        let is_other = |other: &&Model| {
            other.model_id != model.model_id
                && other.status() == "current"
                && other.metadata.get("use_case") == Some(use_case)
        };
        let mut others: Vec<&Model> = registry.models.values().filter(is_other).collect();
        others.sort_by_key(|other| registry.is_default(other));
        for other in others {
            self.move_on(context, &other.model_id, "deprecated").await?;
        }
        Ok(())
    }

    async fn registry(&self, context: &Context) -> Result<Registry, Fault> {
        let documents = self.entries.list(context, &Keys::Under(key(&[context.tenant()]))).await?;
        Ok(documents.into_iter().collect())
    }

    /// The model that is selected for a modality; empty where none is.
    async fn selection(&self, context: &Context, modality: &str) -> Result<String, Fault> {
        let place = key(&[context.tenant(), "selected", modality]);
        match self.entries.get_cached(context, &place).await?.map(|document| document.value) {
            Some(Entry::Selected { model_id, .. }) => Ok(model_id),
            _ => Ok(String::new()),
        }
    }
}

fn the_model(model_id: &str, found: Option<Document<Entry>>) -> Result<Model, Fault> {
    match found.map(|document| document.value) {
        Some(Entry::Model(model)) => Ok(model),
        _ => Err(unknown(model_id)),
    }
}

fn unknown(model_id: &str) -> Fault {
    Fault::client(Code::NotFound, format!("model {model_id} is not registered")).detail("field", "model_id")
}
