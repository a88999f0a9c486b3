//! One door to text generation, whole or piece by piece, by a chain of providers: tiers, budgets, a response cache, and
//! a cancel that reaches every replica.

mod answer;
mod budget;
mod check;
mod generate;
mod messages;
mod models;
mod running;
mod stream;
mod tiers;

use std::sync::Arc;
use std::time::Duration;

use super::VERSION;
use super::checks::id;
use super::notices::GameEvent;
use super::settings::LiveSettings;
use crate::fault::Fault;
use crate::store::{BucketConfig, Store};
use crate::worker::{Cache, CacheConfig, Context, Repeats, Service};

use budget::Budgets;
use generate::Writers;
use messages::{Cancel, Cancelled, Written};
use models::Models;
use running::Running;
use tiers::Tiers;

/// How long a replica answers from its memory without a look at the shared cache, and how much it remembers.
const CACHE_LOCAL_TTL: Duration = Duration::from_secs(5);
const CACHE_LOCAL_MAX: usize = 2_048;
/// Age at which the shared cache drops an answer: the longest that the settings allow.
const CACHE_TTL_MAX: Duration = Duration::from_secs(300);
/// Pause before the log of selections is opened anew.
const REOPEN: Duration = Duration::from_secs(1);

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    const INFER: &str = "ai_integration.v1.AiIntegrationService/Infer";
    const CANCEL: &str = "ai_integration.v1.AiIntegrationService/CancelGeneration";
    let ai = Ai {
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
        writers: Writers::new()?,
        models: Models::default(),
        tiers: Tiers::default(),
        budgets: Budgets::open(store).await?,
        cache: Cache::open(
            store,
            CacheConfig {
                name: "llm",
                bucket: BucketConfig { name: "tg_llm", ttl: Some(CACHE_TTL_MAX), history: 1 },
                local_ttl: CACHE_LOCAL_TTL,
                local_max: CACHE_LOCAL_MAX,
            },
        )
        .await?,
        running: Running::default(),
    };
    Ok(Service::new("ai-integration", VERSION)
        .sharing(ai)
        .unary(INFER, Ai::infer)
        .stream(INFER, Ai::infer_stream)
        .unary(CANCEL, Ai::cancel)
        .task("cancel notices", Ai::hear_cancels)
        .task("selected models", Ai::follow_selections)
        .done())
}

struct Ai {
    repeats: Repeats,
    settings: LiveSettings,
    writers: Writers,
    models: Models,
    tiers: Tiers,
    budgets: Budgets,
    cache: Cache<Written>,
    running: Running,
}

impl Ai {
    async fn cancel(self: Arc<Self>, context: Context, request: Cancel) -> Result<Cancelled, Fault> {
        id("generation_id", &request.generation_id)?;
        Ok(Cancelled { cancelled: self.running.cancel(&context, &request.generation_id).await? })
    }

    async fn hear_cancels(self: Arc<Self>, context: Context) {
        self.running.hear(&context).await;
    }

    /// Drops the cached answers of models that lose or gain a selection, on every replica.
    async fn follow_selections(self: Arc<Self>, context: Context) {
        let mut after = 0;
        loop {
            let error = tokio::select! {
                _ = context.until_cancelled() => return,
                Err(fault) = self.follow_log(&context, &mut after) => fault,
            };
            tracing::warn!(fault = %error, "selections of models are not followed, and tried again");
            tokio::select! {
                _ = context.until_cancelled() => return,
                () = tokio::time::sleep(REOPEN) => {}
            }
        }
    }

    async fn follow_log(&self, context: &Context, after: &mut u64) -> Result<std::convert::Infallible, Fault> {
        let mut log = context.store().read_log("AI_EVENTS", "evt.ai.model.selected.v1", *after).await?;
        loop {
            let logged = log.next().await?;
            *after = logged.sequence;
            let event: GameEvent = context.read_message("event_bus.v1.GameEvent", &logged.payload)?;
            let selected: messages::SelectedModel = context.read_message("model_mgmt.v1.ModelInfo", &event.payload)?;
            let said = |name: &str| event.metadata.get(name).map(String::as_str).unwrap_or_default();
            self.models.forget();
            for model in [selected.model_id.as_str(), said("previous_model_id")] {
                if !model.is_empty() {
                    self.cache.drop_tagged(Some(said("tenant_id")), model).await?;
                }
            }
        }
    }
}
