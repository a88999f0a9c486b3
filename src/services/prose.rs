//! Prose by a language model, where a service's `text.llm` is on: asked of the text service on the own account. What
//! comes back replaces prose alone, and the service keeps it, so that a repeat reads the same words.

use serde_json::{Value, json};

use crate::fault::{Code, Fault};
use crate::worker::Context;

use super::text::WORDS_MAX;

/// Characters that a token is counted as.
const LETTERS_PER_TOKEN: usize = 3;

/// What a model shall write.
pub(super) struct Wish<'a> {
    /// The built-in text, which says everything that the new one must say.
    pub(super) text: &'a str,
    /// What it is about.
    pub(super) about: &'a str,
    /// Chooses the tier.
    pub(super) purpose: &'a str,
    /// Chooses the model's preamble: foundation, customization, interaction, coordination.
    pub(super) layer: &'a str,
    pub(super) seed: u64,
    /// Longest text in characters.
    pub(super) letters_max: usize,
}

/// The model's text, on one line and not longer than wished for; nothing where there is none, and the built-in text has to
/// do. The reply carries the label `degraded = true` then, and where another provider than the first one wrote it.
pub(super) async fn written(context: &Context, wish: &Wish<'_>) -> Option<String> {
    match asked(context, wish).await {
        Ok(text) => Some(text),
        Err(fault) => {
            tracing::warn!(%fault, purpose = wish.purpose, "built-in prose has to do");
            context.label("degraded", "true");
            None
        }
    }
}

async fn asked(context: &Context, wish: &Wish<'_>) -> Result<String, Fault> {
    let prompt = format!(
        "Rewrite this for a dark urban game, about {}. Keep every fact, name and number. Answer with the text alone, \
         at most {} characters:\n{}",
        wish.about, wish.letters_max, wish.text
    );
    let max_tokens = (wish.letters_max / LETTERS_PER_TOKEN).clamp(16, 4_096);
    let params = json!({ "max_tokens": max_tokens, "seed": wish.seed.to_string() });
    let words = wish.text.split_whitespace().count().clamp(1, WORDS_MAX);
    let about = json!({ "purpose": wish.purpose, "layer": wish.layer, "topic": wish.about, "wanted_words": words });
    let reply = ask(context, &json!({ "prompt": prompt, "params": params, "context": about })).await?;
    let labels = &reply["meta"]["labels"];
    if labels["degraded"] == "true" {
        context.label("degraded", "true");
        context.label("provider", labels["provider"].as_str().unwrap_or_default());
    }
    let text = reply["output_text"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    match cut(&text, wish.letters_max) {
        "" => Err(Fault::upstream(Code::Unavailable, "the text service answered without text")),
        text => Ok(text.to_owned()),
    }
}

/// What a provider answers to a prompt; nothing where none can, so that the caller keeps what it has, and its reply the
/// label `degraded = true`. The seed makes a repeat likely to read the same; who needs more keeps the text.
pub(super) async fn answer(context: &Context, prompt: &str, seed: u64) -> Option<String> {
    let params = json!({ "temperature": 0, "seed": seed.to_string() });
    let answer = match ask(context, &json!({ "prompt": prompt, "params": params })).await {
        Ok(reply) => whole(&reply),
        Err(fault) => {
            tracing::warn!(%fault, "no answer: the text stays as it is");
            None
        }
    };
    if answer.is_none() {
        context.label("degraded", "true");
    }
    answer
}

async fn ask(context: &Context, request: &Value) -> Result<Value, Fault> {
    context.peer("ai_integration.v1.AiIntegrationService/Infer")?.as_service().ask_json(request).await
}

/// The whole text of a reply. One that was cut, or that the built-in engine wrote in a provider's place, is none.
fn whole(reply: &Value) -> Option<String> {
    let is_whole = reply["finish_reason"] == "stop";
    let is_degraded = reply["meta"]["labels"]["degraded"] == "true";
    let text = reply["output_text"].as_str()?.trim();
    (is_whole && !is_degraded && !text.is_empty()).then(|| text.to_owned())
}

/// The text up to its last sentence that fits; where none does, up to its last word; else cut hard.
pub(super) fn cut(text: &str, letters_max: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(letters_max) else { return text };
    let fits = &text[..end];
    // A mark ends a sentence only where a space follows: `1.25` has none.
    let sentence = fits
        .rmatch_indices(['.', '!', '?'])
        .map(|(at, mark)| at + mark.len())
        .find(|at| text[*at..].starts_with(char::is_whitespace));
    match (sentence, fits.rfind(' ')) {
        (Some(at), _) => &text[..at],
        (None, Some(at)) => fits[..at].trim_end(),
        (None, None) => fits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_behind_a_sentence_else_behind_a_word() {
        for (text, letters_max, expected) in [
            ("One. Two. Three.", 99, "One. Two. Three."),
            ("One. Two. Three.", 9, "One. Two."),
            ("One. Two. Three.", 12, "One. Two."),
            ("One two three", 9, "One two"),
            ("Version 1.25 of it", 11, "Version"),
            ("größer", 3, "grö"),
            ("ab ü. öd", 5, "ab ü."),
        ] {
            assert_eq!(cut(text, letters_max), expected, "{text} {letters_max}");
        }
    }

    #[test]
    fn only_a_whole_text_of_a_provider_counts() {
        let reply = |text: &str, why: &str, degraded: &str| {
            let labels = json!({ "degraded": degraded });
            json!({ "output_text": text, "finish_reason": why, "meta": { "labels": labels } })
        };
        assert_eq!(whole(&reply(" Le parapluie. ", "stop", "")).as_deref(), Some("Le parapluie."));
        assert_eq!(whole(&reply("Le para", "length", "")), None);
        assert_eq!(whole(&reply("A widow waits.", "stop", "true")), None);
        assert_eq!(whole(&reply(" ", "stop", "")), None);
        assert_eq!(whole(&json!({})), None);
    }
}
