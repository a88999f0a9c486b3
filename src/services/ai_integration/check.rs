//! A request for text, checked, with everything that it left open filled in.

use sha2::{Digest as _, Sha256};

use super::super::checks::{invalid, out_of_range, required};
use super::super::seed::{Part, canonical_json, seed, tenant_part};
use super::super::text;
use super::{ChatMessages, Input, Parameters, Request, Role, TIERS};
use crate::fault::{Code, Fault};
use crate::worker::Context;
use crate::worker::types::{Struct, Value};

/// Largest prompt, and longest chat.
const PROMPT_BYTES_MAX: usize = 256 * 1024;
const MESSAGES_MAX: usize = 256;
const STOPS_MAX: usize = 8;
const STOP_LETTERS_MAX: usize = 64;
/// Tokens where the request does not say, and most of them.
const TOKENS_DEFAULT: u32 = 1_000;
const TOKENS_MAX: u32 = 8_192;

/// Registered models and how many tokens they take, prompt included.
const MODELS: [(&str, u32); 5] = [
    ("gpt-5-pro", 128_000),
    ("gemini-2.5-pro", 1_000_000),
    ("claude-4.5-sonnet", 200_000),
    ("phi3-mini", 128_000),
    ("llama3.1-8b", 128_000),
];

const LAYERS: [&str; 4] = ["foundation", "customization", "interaction", "coordination"];

/// What is to be generated.
pub(super) struct Plan {
    pub(super) generation_id: String,
    pub(super) model: String,
    /// The tier that chose the model; nothing where the caller did.
    pub(super) tier: Option<usize>,
    pub(super) layer: String,
    /// What the text is about.
    pub(super) prompt: String,
    pub(super) is_chat: bool,
    pub(super) prompt_tokens: u32,
    pub(super) tokens_max: u32,
    pub(super) stop: Vec<String>,
    /// The seed that the caller has given.
    pub(super) seed: Option<u64>,
    /// Seed of the draws.
    pub(super) drawn: u64,
}

/// Checks a request; its first fault in the order of fields.
pub(super) fn plan(context: &Context, request: &Request) -> Result<Plan, Fault> {
    let empty = Struct::default();
    let given = request.context.as_ref().unwrap_or(&empty);
    let defaults = Parameters::default();
    let params = request.params.as_ref().unwrap_or(&defaults);
    let (prompt, whole, is_chat) = match &request.input {
        None => return Err(invalid("input", "required", "prompt or chat_messages is required")),
        Some(Input::Prompt(prompt)) => (check_prompt(prompt)?, prompt.clone(), false),
        Some(Input::ChatMessages(chat)) => {
            let last = check_chat(chat)?;
            let all: Vec<&str> = chat.messages.iter().map(|message| message.content.as_str()).collect();
            (last, all.join("\n"), true)
        }
    };
    check_params(params)?;
    let tier = request.model_id.is_empty().then(|| tier(given.str("purpose")));
    let model = tier.map_or(request.model_id.as_str(), |tier| TIERS[tier].model).to_owned();
    let Some((_, context_length)) = MODELS.iter().find(|row| row.0 == model) else {
        return Err(
            Fault::client(Code::NotFound, format!("model {model} is not registered")).detail("field", "model_id")
        );
    };
    let asked = params.max_tokens.unwrap_or(TOKENS_DEFAULT);
    let tokens_max = tier.map_or(asked, |tier| asked.min(TIERS[tier].tokens_max));
    let prompt_tokens = text::tokens(&whole);
    if prompt_tokens.saturating_add(tokens_max) > *context_length {
        return Err(out_of_range("params.max_tokens", 1, context_length.saturating_sub(prompt_tokens)));
    }
    let layer = given.str("layer").unwrap_or("interaction");
    if !LAYERS.contains(&layer) {
        let text = "layer must be foundation, customization, interaction or coordination";
        return Err(super::super::checks::unknown_value("context.layer", text, &LAYERS));
    }
    let (tenant, call) = (tenant_part(context.tenant()), Part::Text(context.request_id()));
    let seed_given = params.seed.or_else(|| given_seed(given));
    let chosen = seed_given.unwrap_or_else(|| seed(&[Part::Text("llm.seed.v1"), tenant, call]));
    Ok(Plan {
        generation_id: format!("gen_{:016x}", seed(&[Part::Text("llm.v1"), tenant, call])),
        seed: seed_given,
        drawn: drawn(&model, layer, &whole, params, given, chosen),
        model,
        tier,
        layer: layer.to_owned(),
        prompt: prompt.to_owned(),
        is_chat,
        prompt_tokens,
        tokens_max,
        stop: params.stop.clone(),
    })
}

/// Output depends on model, layer, input, parameters without `stream`, and seed; on nothing else.
fn drawn(model: &str, layer: &str, input: &str, params: &Parameters, given: &Struct, chosen: u64) -> u64 {
    let params = Parameters { stream: None, seed: None, ..params.clone() };
    let mut hash = Sha256::new();
    hash.update(input);
    hash.update([0]);
    // A struct of numbers and texts always prints.
    hash.update(serde_json::to_vec(&params).unwrap_or_default());
    hash.update([0]);
    let mut given = given.clone();
    given.0.remove("seed");
    hash.update(canonical_json(&given));
    let input = crate::worker::hex(&hash.finalize());
    seed(&[Part::Text("llm.text.v1"), Part::Text(model), Part::Text(layer), Part::Text(&input), Part::Number(chosen)])
}

fn given_seed(given: &Struct) -> Option<u64> {
    match given.get("seed") {
        Some(Value::Number(seed)) if *seed >= 0.0 && seed.fract() == 0.0 => Some(*seed as u64),
        _ => None,
    }
}

fn tier(purpose: Option<&str>) -> usize {
    match purpose {
        Some("greeting" | "farewell" | "generic") => 0,
        Some("major_npc" | "story_critical") => 2,
        _ => 1,
    }
}

fn check_prompt(prompt: &str) -> Result<&str, Fault> {
    if prompt.is_empty() {
        return Err(required("prompt"));
    }
    if prompt.len() > PROMPT_BYTES_MAX {
        return Err(invalid("prompt", "too_long", format!("prompt has more than {PROMPT_BYTES_MAX} bytes")));
    }
    Ok(prompt)
}

/// The chat's last turn, which is what is answered.
fn check_chat(chat: &ChatMessages) -> Result<&str, Fault> {
    let Some(last) = chat.messages.last() else { return Err(required("chat_messages.messages")) };
    if chat.messages.len() > MESSAGES_MAX {
        return Err(invalid("chat_messages.messages", "too_many", format!("at most {MESSAGES_MAX} messages")));
    }
    for (index, message) in chat.messages.iter().enumerate() {
        let field = |name: &str| format!("chat_messages.messages[{index}].{name}");
        if matches!(message.role, Role::Unspecified | Role::Unknown(_)) {
            return Err(required(&field("role")));
        }
        if message.content.is_empty() {
            return Err(required(&field("content")));
        }
        if message.content.len() > PROMPT_BYTES_MAX {
            return Err(invalid(&field("content"), "too_long", format!("more than {PROMPT_BYTES_MAX} bytes")));
        }
    }
    if !matches!(last.role, Role::User | Role::Tool) {
        let field = format!("chat_messages.messages[{}].role", chat.messages.len() - 1);
        return Err(invalid(&field, "unknown_value", "the last message must be from USER or TOOL"));
    }
    Ok(&last.content)
}

fn check_params(params: &Parameters) -> Result<(), Fault> {
    let within = |field: &str, value: Option<f64>, min: f64, max: f64| match value {
        Some(value) if !(min..=max).contains(&value) => Err(out_of_range(field, min, max)),
        _ => Ok(()),
    };
    within("params.temperature", params.temperature, 0.0, 2.0)?;
    within("params.top_p", params.top_p, f64::MIN_POSITIVE, 1.0)?;
    within("params.max_tokens", params.max_tokens.map(f64::from), 1.0, f64::from(TOKENS_MAX))?;
    within("params.top_k", params.top_k.map(f64::from), 1.0, 1_000.0)?;
    within("params.presence_penalty", params.presence_penalty, -2.0, 2.0)?;
    within("params.frequency_penalty", params.frequency_penalty, -2.0, 2.0)?;
    if params.stop.len() > STOPS_MAX {
        return Err(invalid("params.stop", "too_many", format!("at most {STOPS_MAX} stop sequences")));
    }
    for (index, stop) in params.stop.iter().enumerate() {
        if stop.is_empty() || stop.chars().count() > STOP_LETTERS_MAX {
            let field = format!("params.stop[{index}]");
            return Err(invalid(&field, "too_long", format!("a stop sequence has 1 to {STOP_LETTERS_MAX} characters")));
        }
    }
    Ok(())
}
