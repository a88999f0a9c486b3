//! A request for text, checked, with everything that it left open filled in.

use sha2::{Digest as _, Sha256};

use super::super::checks::{document, invalid, out_of_range, required, unknown_value};
use super::super::seed::{Part, canonical_json, seed, tenant_part};
use super::super::text::{self, WORDS_MAX};
use super::messages::{ChatMessages, Input, Parameters, Request, Role};
use super::models::Model;
use crate::fault::Fault;
use crate::worker::types::{Struct, Value};
use crate::worker::{CacheKey, Context};

/// Largest prompt, and longest chat.
const PROMPT_BYTES_MAX: usize = 256 * 1024;
const MESSAGES_MAX: usize = 256;
const STOPS_MAX: usize = 8;
const STOP_LETTERS_MAX: usize = 64;
/// Tokens where the request does not say, and most of them.
const TOKENS_DEFAULT: u32 = 1_000;
const TOKENS_MAX: u32 = 8_192;
/// Letters of the context that go before the prompt.
const CONTEXT_LETTERS_MAX: usize = 2_000;

const LAYERS: [&str; 4] = ["foundation", "customization", "interaction", "coordination"];
const MODES: [&str; 4] = ["full", "minimal", "story", "world"];

/// A request that is good, before a model was found for it.
pub(super) struct Asked {
    /// The model that the caller named; empty where the tier chooses.
    pub(super) model_id: String,
    /// The tier of its purpose.
    pub(super) tier: usize,
    layer: String,
    /// What the text is about.
    prompt: String,
    is_chat: bool,
    prompt_tokens: u32,
    tokens_max: u32,
    words_wanted: usize,
    stop: Vec<String>,
    seed: Option<u64>,
    is_greedy: bool,
    /// Hash of input, parameters and what is told of the context, without what only steers the way of the answer.
    content: String,
    /// The part of the context that goes before the prompt.
    pub(super) told: String,
}

/// What is to be generated, by which model.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) generation_id: String,
    pub(super) model: String,
    pub(super) layer: String,
    pub(super) prompt: String,
    pub(super) is_chat: bool,
    pub(super) prompt_tokens: u32,
    pub(super) tokens_max: u32,
    /// Words that the built-in engine is to write at least; 0 where one template will do.
    pub(super) words_wanted: usize,
    pub(super) stop: Vec<String>,
    /// The seed that the caller has given.
    pub(super) seed: Option<u64>,
    /// Seed of the draws.
    pub(super) drawn: u64,
    /// Where the answer is kept: the same request gets the same text.
    pub(super) cache_key: Option<CacheKey>,
}

impl Plan {
    /// Most tokens that it can cost.
    pub(super) fn estimate(&self) -> u32 {
        self.prompt_tokens + self.tokens_max
    }
}

/// Checks a request; its first fault in the order of fields.
pub(super) fn asked(request: &Request) -> Result<Asked, Fault> {
    let empty = Struct::default();
    let given = request.context.as_ref().unwrap_or(&empty);
    let defaults = Parameters::default();
    let params = request.params.as_ref().unwrap_or(&defaults);
    let (prompt, whole, is_chat) = match &request.input {
        None => return Err(invalid("input", "required", "prompt or chat_messages is required")),
        Some(Input::Prompt(prompt)) => (check_prompt(prompt)?, prompt.clone(), false),
        Some(Input::ChatMessages(chat)) => {
            let last = check_chat(chat)?;
            let turns = chat.messages.iter().map(|turn| format!("{:?}\u{1f}{}\u{1e}", turn.role, turn.content));
            (last, turns.collect(), true)
        }
    };
    check_params(params)?;
    document("context", given)?;
    let layer = listed(given, "layer", &LAYERS, "interaction")?;
    let words_wanted = words_wanted(given)?;
    let told = told(given, listed(given, "mode", &MODES, "full")?);
    Ok(Asked {
        model_id: request.model_id.clone(),
        tier: tier(given.str("purpose")),
        layer: layer.to_owned(),
        prompt: prompt.to_owned(),
        is_chat,
        prompt_tokens: match &request.input {
            Some(Input::ChatMessages(chat)) => chat.messages.iter().map(|turn| text::tokens(&turn.content)).sum(),
            _ => text::tokens(prompt),
        },
        tokens_max: params.max_tokens.unwrap_or(TOKENS_DEFAULT),
        words_wanted,
        stop: params.stop.clone(),
        seed: params.seed.or_else(|| given_seed(given)),
        is_greedy: params.temperature == Some(0.0),
        content: content(&whole, params, &told, words_wanted),
        told,
    })
}

impl Asked {
    /// Gives the request to a model; `cap` is the tier's where it chose the model.
    pub(super) fn plan(&self, context: &Context, model: &Model, cap: Option<u32>) -> Result<Plan, Fault> {
        let tokens_max = cap.map_or(self.tokens_max, |cap| self.tokens_max.min(cap));
        let room = model.context_length.unwrap_or(u32::MAX);
        if self.prompt_tokens.saturating_add(tokens_max) > room {
            return Err(out_of_range("params.max_tokens", 1, room.saturating_sub(self.prompt_tokens)));
        }
        let (tenant, call) = (tenant_part(context.tenant()), Part::Text(context.request_id()));
        let chosen = self.seed.unwrap_or_else(|| seed(&[Part::Text("llm.seed.v1"), tenant, call]));
        // Output depends on model, layer, input, parameters without `stream`, and seed; on nothing else.
        let parts = [&model.id, &self.layer, &self.content].map(|part| Part::Text(part));
        let drawn = seed(&[Part::Text("llm.text.v1"), parts[0], parts[1], parts[2], Part::Number(chosen)]);
        let repeats = self.is_greedy || self.seed.is_some();
        let cache_key = repeats.then(|| {
            let (limit, given) = (tokens_max.to_le_bytes(), format!("{:?}", self.seed));
            let parts = [&model.id, &self.layer, &self.content, &given].map(|part| part.as_bytes());
            CacheKey::of_parts(context, &[parts[0], parts[1], parts[2], parts[3], &limit])
        });
        Ok(Plan {
            generation_id: format!("gen_{:016x}", seed(&[Part::Text("llm.v1"), tenant, call])),
            model: model.id.clone(),
            layer: self.layer.clone(),
            prompt: self.prompt.clone(),
            is_chat: self.is_chat,
            prompt_tokens: self.prompt_tokens,
            tokens_max,
            words_wanted: self.words_wanted,
            stop: self.stop.clone(),
            seed: self.seed,
            drawn,
            cache_key,
        })
    }
}

fn content(input: &str, params: &Parameters, told: &str, words_wanted: usize) -> String {
    let params = Parameters { stream: None, seed: None, ..params.clone() };
    let mut hash = Sha256::new();
    hash.update(input);
    hash.update([0]);
    // A struct of numbers and texts always prints.
    hash.update(serde_json::to_vec(&params).unwrap_or_default());
    hash.update([0]);
    hash.update(told);
    hash.update([0]);
    hash.update(words_wanted.to_string());
    crate::worker::hex(&hash.finalize())
}

/// A text of the context that is one of a list, in whatever case.
fn listed(given: &Struct, name: &str, allowed: &[&'static str], default: &'static str) -> Result<&'static str, Fault> {
    let said = given.str(name).unwrap_or(default);
    allowed.iter().copied().find(|value| value.eq_ignore_ascii_case(said)).ok_or_else(|| {
        let text = format!("{name} must be one of {}", allowed.join(", "));
        unknown_value(&format!("context.{name}"), text, allowed)
    })
}

/// The part of the context that a mode chooses, as canonical JSON.
fn told(given: &Struct, mode: &str) -> String {
    let is_chosen = |name: &str| match mode {
        "minimal" => matches!(name, "topic" | "npc"),
        "story" | "world" => name.starts_with(mode),
        _ => !matches!(name, "mode" | "layer" | "seed" | "purpose"),
    };
    let members = given.0.iter().filter(|(name, _)| is_chosen(name));
    let part = Struct(members.map(|(name, value)| (name.clone(), value.clone())).collect());
    if part.0.is_empty() {
        return String::new();
    }
    canonical_json(&part).chars().take(CONTEXT_LETTERS_MAX).collect()
}

fn given_seed(given: &Struct) -> Option<u64> {
    match given.get("seed") {
        Some(Value::Number(seed)) if *seed >= 0.0 && seed.fract() == 0.0 => Some(*seed as u64),
        _ => None,
    }
}

/// How long a text the caller wants, in words. An endpoint is told so with the rest of the context.
fn words_wanted(given: &Struct) -> Result<usize, Fault> {
    const FIELD: &str = "context.wanted_words";
    match given.get("wanted_words") {
        None | Some(Value::Null) => Ok(0),
        Some(Value::Number(words)) if words.fract() == 0.0 => match (1.0..=WORDS_MAX as f64).contains(words) {
            true => Ok(*words as usize),
            false => Err(out_of_range(FIELD, 1, WORDS_MAX)),
        },
        Some(_) => Err(invalid(FIELD, "bad_format", "wanted_words must be a whole number")),
    }
}

fn tier(purpose: Option<&str>) -> usize {
    match purpose.map(str::to_ascii_lowercase).as_deref() {
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
        return Err(unknown_value(&field, "the last message must be from USER or TOOL", &["USER", "TOOL"]));
    }
    Ok(&last.content)
}

fn check_params(params: &Parameters) -> Result<(), Fault> {
    let within = |field: &str, value: Option<f64>, min: f64, max: f64| match value {
        Some(value) if !(min..=max).contains(&value) => Err(out_of_range(field, min, max)),
        _ => Ok(()),
    };
    within("params.temperature", params.temperature, 0.0, 2.0)?;
    if params.top_p.is_some_and(|share| !(f64::MIN_POSITIVE..=1.0).contains(&share)) {
        return Err(out_of_range("params.top_p", "more than 0", 1));
    }
    within("params.max_tokens", params.max_tokens.map(f64::from), 1.0, f64::from(TOKENS_MAX))?;
    within("params.top_k", params.top_k.map(f64::from), 1.0, 1_000.0)?;
    within("params.presence_penalty", params.presence_penalty, -2.0, 2.0)?;
    within("params.frequency_penalty", params.frequency_penalty, -2.0, 2.0)?;
    if params.stop.len() > STOPS_MAX {
        return Err(invalid("params.stop", "too_many", format!("at most {STOPS_MAX} stop sequences")));
    }
    for (index, stop) in params.stop.iter().enumerate() {
        let field = format!("params.stop[{index}]");
        if stop.is_empty() {
            return Err(required(&field));
        }
        if stop.chars().count() > STOP_LETTERS_MAX {
            return Err(invalid(&field, "too_long", format!("a stop sequence has 1 to {STOP_LETTERS_MAX} characters")));
        }
    }
    Ok(())
}
