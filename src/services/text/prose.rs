//! Prose of other services: a prompt to the inference service, on the service's own account.

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::worker::Context;

/// What a provider writes to a prompt; nothing where none can, so that the caller keeps what it has. The seed makes a
/// repeat likely to read the same; who needs more keeps the text.
pub(in crate::services) async fn prose(context: &Context, prompt: &str, seed: u64) -> Option<String> {
    match ask(context, prompt, seed).await {
        Ok(reply) => written(&reply),
        Err(fault) => {
            tracing::warn!(%fault, "no prose: the text stays as it is");
            None
        }
    }
}

async fn ask(context: &Context, prompt: &str, seed: u64) -> Result<Value, Fault> {
    let params = json!({ "temperature": 0, "seed": seed.to_string() });
    let request = json!({ "prompt": prompt, "params": params });
    context.peer("ai_integration.v1.AiIntegrationService/Infer")?.as_service().ask_json(&request).await
}

/// The whole text of a reply. One that was cut, or that the built-in engine wrote in a provider's place, is none.
fn written(reply: &Value) -> Option<String> {
    let is_whole = reply["finish_reason"] == "stop";
    let is_degraded = reply["meta"]["labels"]["degraded"] == "true";
    let text = reply["output_text"].as_str()?.trim();
    (is_whole && !is_degraded && !text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_text_of_a_provider_counts() {
        let reply = |text: &str, why: &str, degraded: &str| {
            let labels = json!({ "degraded": degraded });
            json!({ "output_text": text, "finish_reason": why, "meta": { "labels": labels } })
        };
        assert_eq!(written(&reply(" Le parapluie. ", "stop", "")).as_deref(), Some("Le parapluie."));
        assert_eq!(written(&reply("Le para", "length", "")), None);
        assert_eq!(written(&reply("A widow waits.", "stop", "true")), None);
        assert_eq!(written(&reply(" ", "stop", "")), None);
        assert_eq!(written(&json!({})), None);
    }
}
