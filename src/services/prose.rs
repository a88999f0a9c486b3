//! Prose by a language model, where a service's `text.llm` is on: asked of the text service on the own account. What
//! comes back replaces prose alone, and the service keeps it, so that a repeat reads the same words.

use serde::{Deserialize, Serialize};

use crate::fault::{Code, Fault};
use crate::worker::Context;
use crate::worker::types::Struct;

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

#[derive(Serialize)]
struct Inference<'a> {
    input: Option<Input>,
    params: Option<Parameters>,
    context: Option<&'a Struct>,
}

#[derive(Serialize)]
enum Input {
    Prompt(String),
}

#[derive(Serialize)]
struct Parameters {
    max_tokens: Option<u32>,
    seed: Option<u64>,
}

#[derive(Deserialize)]
struct Inferred {
    output: Option<Output>,
}

#[derive(Deserialize)]
enum Output {
    OutputText(String),
}

/// The model's text, on one line and not longer than wished for; nothing where there is none: then the reply carries
/// the label `degraded = true`, and the built-in text has to do.
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
    let about = Struct::default().with("purpose", wish.purpose).with("layer", wish.layer).with("topic", wish.about);
    let prompt = format!(
        "Rewrite this for a dark urban game, about {}. Keep every fact, name and number. Answer with the text alone, \
         at most {} characters:\n{}",
        wish.about, wish.letters_max, wish.text
    );
    let max_tokens = (wish.letters_max / LETTERS_PER_TOKEN).clamp(16, 4_096) as u32;
    let inference = Inference {
        input: Some(Input::Prompt(prompt)),
        params: Some(Parameters { max_tokens: Some(max_tokens), seed: Some(wish.seed) }),
        context: Some(&about),
    };
    let inferred: Inferred =
        context.call_as_service("ai_integration.v1.AiIntegrationService/Infer", &inference).await?;
    let Some(Output::OutputText(text)) = inferred.output else {
        return Err(Fault::upstream(Code::Unavailable, "the text service answered without text"));
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = cut(&text, wish.letters_max);
    match text.is_empty() {
        true => Err(Fault::upstream(Code::Unavailable, "the text service answered without text")),
        false => Ok(text.to_owned()),
    }
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
}
