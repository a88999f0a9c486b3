//! The messages of `ai_integration.v1`, without what the house style keeps for itself, and what the service keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::worker::types::Struct;

#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) model_id: String,
    pub(super) input: Option<Input>,
    pub(super) params: Option<Parameters>,
    pub(super) context: Option<Struct>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Input {
    Prompt(String),
    ChatMessages(ChatMessages),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ChatMessages {
    pub(super) messages: Vec<ChatMessage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ChatMessage {
    pub(super) role: Role,
    pub(super) content: String,
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Unspecified,
    System,
    User,
    Assistant,
    Tool,
    Unknown(i32),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Parameters {
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) max_tokens: Option<u32>,
    pub(super) top_k: Option<u32>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) stop: Vec<String>,
    pub(super) stream: Option<bool>,
    pub(super) seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
    pub(super) total_tokens: u32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) generation_id: String,
    pub(super) output: Option<Output>,
    pub(super) finish_reason: String,
    pub(super) usage: Option<Usage>,
    pub(super) model_id: String,
    pub(super) cached: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Output {
    OutputText(String),
    ChatMessages(ChatMessages),
}

#[derive(Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) generation_id: String,
    pub(super) delta: Option<Delta>,
    pub(super) finish_reason: String,
    pub(super) usage: Option<Usage>,
    pub(super) model_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Delta {
    OutputTextDelta(String),
    MessageDelta(ChatMessage),
}

#[derive(Deserialize)]
pub(super) struct Cancel {
    pub(super) generation_id: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Cancelled {
    pub(super) cancelled: bool,
}

/// A generation as its event tells it.
#[derive(Serialize)]
pub(super) struct Generated<'a> {
    pub(super) generation_id: &'a str,
    pub(super) output: Option<Output>,
    pub(super) finish_reason: &'a str,
    pub(super) usage: Option<Usage>,
    pub(super) error: Option<Failure<'a>>,
    pub(super) model_id: &'a str,
    pub(super) cached: bool,
}

/// `common.v1.Error`.
#[derive(Serialize)]
pub(super) struct Failure<'a> {
    pub(super) code: CodeName,
    pub(super) message: &'a str,
    pub(super) details: BTreeMap<&'a str, &'a str>,
}

/// A value of `common.v1.Error.Code`, by its name.
pub(super) struct CodeName(pub(super) &'static str);

impl Serialize for CodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant("Code", 0, self.0)
    }
}

/// A text that was written, as the response cache keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) model: String,
    pub(super) text: String,
    pub(super) finish_reason: String,
    pub(super) usage: Usage,
    /// A cheaper tier than the wanted one had to do.
    pub(super) was_tier_dropped: bool,
    /// Who stood in for the first provider of the chain.
    pub(super) stand_in: Option<String>,
}

/// `model_mgmt.v1.ModelInfo`, as far as a selection says it.
#[derive(Deserialize)]
pub(super) struct SelectedModel {
    pub(super) model_id: String,
}
