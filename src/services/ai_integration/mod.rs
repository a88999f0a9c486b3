//! One door to text generation, whole or piece by piece, by the built-in engine or an endpoint beside it.

mod check;
mod generate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::VERSION;
use super::checks::id;
use super::notices::{notice, publish};
use super::settings::LiveSettings;
use super::text::Engine;
use crate::fault::{Code, Fault};
use crate::store::Store;
use crate::worker::records::EventId;
use crate::worker::types::Struct;
use crate::worker::{Chunks, Context, Failed, Repeats, Service};

use check::Plan;
use generate::Text;

/// Generations that one replica keeps a cancel switch for.
const RUNNING_MAX: usize = 4_096;

/// One row a tier: model, most tokens, latency target in milliseconds, generations at once.
struct Tier {
    model: &'static str,
    tokens_max: u32,
    latency_ms: u64,
    parallel: usize,
}

/// From the cheapest up.
const TIERS: [Tier; 3] = [
    Tier { model: "phi3-mini", tokens_max: 256, latency_ms: 150, parallel: 20 },
    Tier { model: "llama3.1-8b", tokens_max: 512, latency_ms: 300, parallel: 10 },
    Tier { model: "llama3.1-8b", tokens_max: 512, latency_ms: 500, parallel: 5 },
];

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    const INFER: &str = "ai_integration.v1.AiIntegrationService/Infer";
    let ai = Arc::new(Ai {
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
        engine: Engine::new()?,
        slots: TIERS.map(|tier| Semaphore::new(tier.parallel)),
        running: Mutex::default(),
    });
    let (inferring, streaming, cancelling) = (ai.clone(), ai.clone(), ai);
    Ok(Service::new("ai-integration", VERSION)
        .unary(INFER, move |context: Context, request: Request| {
            let ai = inferring.clone();
            async move { ai.repeats.once(&context, ai.infer(&context, &request)).await }
        })
        .stream(INFER, move |context, request, chunks| {
            let ai = streaming.clone();
            async move { ai.stream(&context, &request, chunks).await }
        })
        .unary("ai_integration.v1.AiIntegrationService/CancelGeneration", move |_: Context, request: Cancel| {
            let ai = cancelling.clone();
            async move { ai.cancel(&request) }
        }))
}

struct Ai {
    repeats: Repeats,
    settings: LiveSettings,
    engine: Engine,
    slots: [Semaphore; 3],
    /// Cancel switches of the generations that run here.
    running: Mutex<HashMap<String, watch::Sender<bool>>>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    model_id: String,
    input: Option<Input>,
    params: Option<Parameters>,
    context: Option<Struct>,
}

#[derive(Serialize, Deserialize)]
enum Input {
    Prompt(String),
    ChatMessages(ChatMessages),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ChatMessages {
    messages: Vec<ChatMessage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ChatMessage {
    role: Role,
    content: String,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    Unspecified,
    System,
    User,
    Assistant,
    Tool,
    Unknown(i32),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Parameters {
    temperature: Option<f64>,
    top_p: Option<f64>,
    max_tokens: Option<u32>,
    top_k: Option<u32>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    stop: Vec<String>,
    stream: Option<bool>,
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
}

#[derive(Serialize, Deserialize)]
struct Response {
    generation_id: String,
    output: Option<Output>,
    finish_reason: String,
    usage: Option<Usage>,
    model_id: String,
    cached: bool,
}

#[derive(Clone, Serialize, Deserialize)]
enum Output {
    OutputText(String),
    ChatMessages(ChatMessages),
}

#[derive(Serialize, Deserialize)]
struct Chunk {
    generation_id: String,
    delta: Option<Delta>,
    finish_reason: String,
    usage: Option<Usage>,
    model_id: String,
}

#[derive(Serialize, Deserialize)]
enum Delta {
    OutputTextDelta(String),
    MessageDelta(ChatMessage),
}

#[derive(Serialize, Deserialize)]
struct Cancel {
    generation_id: String,
}

#[derive(Serialize, Deserialize)]
struct Cancelled {
    cancelled: bool,
}

impl Ai {
    async fn infer(&self, context: &Context, request: &Request) -> Result<Response, Failed<Response>> {
        let settings = self.settings.now();
        let plan = check::plan(context, request)?;
        let (plan, _slot) = self.slot(context, plan)?;
        let mut text = Text::start(&self.engine, &settings, context, &plan, request).await?;
        let mut whole = String::new();
        while let Some(piece) = text.next().await? {
            whole.push_str(&piece);
        }
        let ended = Ended { usage: usage(&plan, &whole), finish_reason: text.finish_reason() };
        let output = match plan.is_chat {
            false => Output::OutputText(whole),
            true => Output::ChatMessages(ChatMessages { messages: vec![assistant(&whole)] }),
        };
        self.announce(context, &plan, &ended).await?;
        Ok(response(&plan, &ended, Some(output)))
    }

    /// The same text, a chunk a piece, and a last chunk with what it cost.
    async fn stream(&self, context: &Context, request: &Request, mut chunks: Chunks<Chunk>) -> Result<(), Fault> {
        let settings = self.settings.now();
        let plan = check::plan(context, request)?;
        let (plan, _slot) = self.slot(context, plan)?;
        let mut text = Text::start(&self.engine, &settings, context, &plan, request).await?;
        let mut running = Running::new(self, &plan.generation_id);
        let (mut whole, mut was_cancelled) = (String::new(), false);
        loop {
            let piece = tokio::select! {
                biased;
                _ = running.is_cancelled.wait_for(|is_cancelled| *is_cancelled) => { was_cancelled = true; break }
                _ = context.until_cancelled() => { was_cancelled = true; break }
                piece = text.next() => piece?,
            };
            let Some(piece) = piece else { break };
            let model_id = if whole.is_empty() { plan.model.clone() } else { String::new() };
            whole.push_str(&piece);
            let delta = match plan.is_chat {
                false => Delta::OutputTextDelta(piece),
                true => Delta::MessageDelta(assistant(&piece)),
            };
            chunks.send(&chunk(&plan, Some(delta), model_id)).await?;
            // Lets a cancel in between two pieces, where nothing else waits.
            tokio::task::yield_now().await;
        }
        let finish_reason = if was_cancelled { "cancelled" } else { text.finish_reason() };
        let ended = Ended { usage: usage(&plan, &whole), finish_reason };
        let last = Chunk {
            finish_reason: finish_reason.to_owned(),
            usage: Some(ended.usage),
            ..chunk(&plan, None, String::new())
        };
        chunks.finish(&last).await?;
        self.announce(context, &plan, &ended).await
    }

    /// A place in the plan's tier, or in a cheaper one; a model that the caller chose needs none.
    fn slot(&self, context: &Context, mut plan: Plan) -> Result<(Plan, Option<SemaphorePermit<'_>>), Fault> {
        let Some(wanted) = plan.tier else { return Ok((plan, None)) };
        for tier in (0..=wanted).rev() {
            let Ok(slot) = self.slots[tier].try_acquire() else { continue };
            if tier < wanted {
                context.label("tier_dropped", "true");
                TIERS[tier].model.clone_into(&mut plan.model);
                plan.tokens_max = plan.tokens_max.min(TIERS[tier].tokens_max);
            }
            return Ok((plan, Some(slot)));
        }
        let wait = Duration::from_millis(TIERS[0].latency_ms);
        Err(Fault::ours(Code::ResourceExhausted, "all generation slots are busy")
            .detail("reason", "tier_full")
            .retry_after(wait))
    }

    fn cancel(&self, request: &Cancel) -> Result<Cancelled, Fault> {
        id("generation_id", &request.generation_id)?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let switch = running.get(&request.generation_id);
        Ok(Cancelled { cancelled: switch.is_some_and(|switch| !switch.send_replace(true)) })
    }

    /// The generation has ended; its text stays out of the event.
    async fn announce(&self, context: &Context, plan: &Plan, ended: &Ended) -> Result<(), Fault> {
        let id = EventId::Text(plan.generation_id.clone());
        let message = "ai_integration.v1.LLMInferenceResponse";
        publish(context, notice(context, "evt.ai.llm.generated.v1", id, message, &response(plan, ended, None))?).await;
        Ok(())
    }
}

/// How a generation ended.
struct Ended {
    usage: Usage,
    finish_reason: &'static str,
}

/// A generation that can be cancelled; dropping it gives its place back.
struct Running<'a> {
    ai: &'a Ai,
    generation_id: &'a str,
    is_cancelled: watch::Receiver<bool>,
}

impl<'a> Running<'a> {
    fn new(ai: &'a Ai, generation_id: &'a str) -> Running<'a> {
        let (switch, is_cancelled) = watch::channel(false);
        let mut running = ai.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() < RUNNING_MAX {
            running.insert(generation_id.to_owned(), switch);
        }
        Running { ai, generation_id, is_cancelled }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.ai.running.lock().unwrap_or_else(PoisonError::into_inner).remove(self.generation_id);
    }
}

fn assistant(content: &str) -> ChatMessage {
    ChatMessage { role: Role::Assistant, content: content.to_owned(), name: String::new() }
}

fn usage(plan: &Plan, text: &str) -> Usage {
    let completion_tokens = super::text::tokens(text);
    let prompt_tokens = plan.prompt_tokens;
    Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}

fn response(plan: &Plan, ended: &Ended, output: Option<Output>) -> Response {
    Response {
        generation_id: plan.generation_id.clone(),
        output,
        finish_reason: ended.finish_reason.to_owned(),
        usage: Some(ended.usage),
        model_id: plan.model.clone(),
        cached: false,
    }
}

fn chunk(plan: &Plan, delta: Option<Delta>, model_id: String) -> Chunk {
    let generation_id = plan.generation_id.clone();
    Chunk { generation_id, delta, finish_reason: String::new(), usage: None, model_id }
}
