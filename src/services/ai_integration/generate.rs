//! The text of a plan, piece by piece: from an endpoint, or drawn from the layer's templates, gone on with to its wanted
//! length, cut at stop sequences and at its limit.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::seed::Draws;
use super::super::settings::{Provider, Settings};
use super::super::text::{self, Ask, Engine, Markov, Pieces, Turn};
use super::check::Plan;
use super::messages::{ChatMessages, Input, Request, Role};
use crate::fault::Fault;
use crate::worker::Context;

/// Templates by layer.
const TEMPLATES: [(&str, &[&str]); 4] = [
    (
        "foundation",
        &["A {topic} stirs at {place}. It smells of {smell}.", "{place} holds {object}; {sound} gives it away."],
    ),
    ("customization", &["This one carries {object} and fears {sound}.", "It was last seen {time}, near {place}."]),
    (
        "interaction",
        &[
            "{person} says: About {topic}? Ask at {place}, {time}.",
            "Keep your voice down. {topic} is worth {object} here.",
        ],
    ),
    (
        "coordination",
        &[
            "First hold {place}, then draw them towards {sound}. Strike {time}.",
            "Two watch {place}, one carries {object}.",
        ],
    ),
];

/// What the endpoint is told of each layer.
const PREAMBLES: [(&str, &str); 4] = [
    ("foundation", "You describe monsters, terrain and rooms of a dark city in one or two sentences."),
    ("customization", "You vary what is given, in one or two sentences, and keep its tone."),
    ("interaction", "You speak as a character of a dark city: short, in dialogue, without stage directions."),
    ("coordination", "You give a short plan of action for several characters."),
];

/// Who writes texts: the chain of providers, and what the built-in engine goes on with where a text is to be longer than
/// its template.
pub(super) struct Writers {
    engine: Engine,
    chain: Markov,
}

/// A text on its way.
pub(super) struct Text {
    source: Words,
    /// Who stands in for the first provider of the chain.
    pub(super) stand_in: Option<String>,
}

enum Words {
    BuiltIn(BuiltIn),
    Endpoint(Pieces),
}

/// The words of the built-in engine.
struct BuiltIn {
    words: VecDeque<String>,
    finish_reason: &'static str,
    /// Pause before each word but the first.
    pacing: Duration,
    is_begun: bool,
}

impl Writers {
    pub(super) fn new() -> Result<Writers, Fault> {
        Ok(Writers { engine: Engine::new()?, chain: own_chain() })
    }

    /// Starts the text of a plan, by the first provider that can. One that is wanted whole may be written together
    /// with others.
    pub(super) async fn start(
        &self,
        settings: &Settings,
        context: &Context,
        plan: &Plan,
        told: &str,
        request: &Request,
        is_whole: bool,
    ) -> Result<Text, Fault> {
        let text = &settings.common.text;
        let built_in_provider = Provider::built_in();
        let wanted = settings.ai_integration.models.get(&plan.model).and_then(|name| match text.provider(name) {
            None if *name == built_in_provider.name => Some(&built_in_provider),
            found => found,
        });
        let rule = settings.ai_integration.batch;
        let alone = match &request.input {
            Some(Input::Prompt(prompt)) if is_whole && rule.enabled => Some(as_one_prompt(plan, told, prompt)),
            _ => None,
        };
        let batch = alone.as_deref().map(|prompt| (prompt, rule));
        let opened = self.engine.open(text, wanted, &ask(plan, told, request), batch, context.time_left()).await?;
        let source = match opened.pieces {
            Some(pieces) => Words::Endpoint(pieces),
            None => Words::BuiltIn(built_in(plan, &self.chain, text.pacing)),
        };
        Ok(Text { source, stand_in: opened.is_degraded.then_some(opened.provider) })
    }
}

impl Text {
    /// The next piece; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Fault> {
        match &mut self.source {
            Words::BuiltIn(text) => {
                if text.is_begun && !text.pacing.is_zero() && !text.words.is_empty() {
                    tokio::time::sleep(text.pacing).await;
                }
                text.is_begun = true;
                Ok(text.words.pop_front())
            }
            Words::Endpoint(pieces) => pieces.next().await,
        }
    }

    /// Why it has ended.
    pub(super) fn finish_reason(&self) -> &'static str {
        match &self.source {
            Words::BuiltIn(text) => text.finish_reason,
            Words::Endpoint(pieces) => pieces.finish_reason(),
        }
    }
}

/// The chain of all templates, layer by layer.
fn own_chain() -> Markov {
    Markov::new(TEMPLATES.iter().flat_map(|row| row.1).copied())
}

/// Word by word, each with the white space behind it.
fn built_in(plan: &Plan, chain: &Markov, pacing: Duration) -> BuiltIn {
    let templates = TEMPLATES.iter().find(|row| row.0 == plan.layer).map_or(TEMPLATES[2].1, |row| row.1);
    let (topic, mut draws) = (text::topic(&plan.prompt), Draws::new(plan.drawn));
    let told = text::expand(templates, &topic, &mut draws);
    let whole = chain.lengthened(told, plan.words_wanted, &topic, &mut draws);
    let stop = plan.stop.iter().filter_map(|stop| whole.find(stop.as_str())).min();
    let (cut, is_cut) = text::cut(stop.map_or(whole.as_str(), |at| &whole[..at]), plan.tokens_max);
    let words = cut.split_inclusive(char::is_whitespace).map(str::to_owned).collect();
    BuiltIn { words, finish_reason: if is_cut { "length" } else { "stop" }, pacing, is_begun: false }
}

/// Everything that a prompt is to say where the endpoint takes no turns.
fn as_one_prompt(plan: &Plan, told: &str, prompt: &str) -> String {
    let parts = [preamble(plan), told, prompt];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn preamble(plan: &Plan) -> &'static str {
    PREAMBLES.iter().find(|row| row.0 == plan.layer).map_or(PREAMBLES[2].1, |row| row.1)
}

fn ask(plan: &Plan, told: &str, request: &Request) -> Ask {
    let mut messages = vec![Turn { role: "system", content: preamble(plan).to_owned() }];
    if !told.is_empty() {
        messages.push(Turn { role: "system", content: told.to_owned() });
    }
    match &request.input {
        Some(Input::ChatMessages(ChatMessages { messages: turns })) => messages.extend(turns.iter().map(|turn| {
            let role = match turn.role {
                Role::System => "system",
                Role::Assistant => "assistant",
                // A tool's turn needs the id of its call, which our messages do not have.
                _ => "user",
            };
            Turn { role, content: turn.content.clone() }
        })),
        _ => messages.push(Turn { role: "user", content: plan.prompt.clone() }),
    }
    let params = request.params.clone().unwrap_or_default();
    Ask {
        model: plan.model.clone(),
        messages,
        stream: true,
        max_tokens: plan.tokens_max,
        temperature: params.temperature,
        top_p: params.top_p,
        presence_penalty: params.presence_penalty,
        frequency_penalty: params.frequency_penalty,
        stop: params.stop,
        seed: plan.seed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::text::WORDS_MAX;
    use super::*;

    fn plan(layer: &str, drawn: u64, words_wanted: usize) -> Plan {
        Plan {
            generation_id: String::new(),
            model: String::new(),
            layer: layer.to_owned(),
            prompt: "Where is the ferryman?".to_owned(),
            is_chat: false,
            prompt_tokens: 5,
            tokens_max: 1_000,
            words_wanted,
            stop: Vec::new(),
            seed: None,
            drawn,
            cache_key: None,
        }
    }

    fn written(plan: &Plan) -> (String, &'static str) {
        let text = built_in(plan, &own_chain(), Duration::ZERO);
        (text.words.into_iter().collect(), text.finish_reason)
    }

    fn count(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn a_text_of_a_wanted_length_is_the_same_on_every_platform() {
        // Made by another program from the words of the page.
        let interaction = "a courier says: About ferryman? Ask at a sealed vault, after curfew. a widow says: About \
            ferryman? Ask at the night bus, then draw them towards a slow choir. Strike before dawn. Ask at an empty \
            ward. It smells of old paper.";
        let foundation = "the fish market holds a cracked ledger; wings behind plaster gives it away. a debt collector \
            says: About ferryman? Ask at an empty ward holds a cracked ledger. a fae clerk says: About ferryman? Ask at \
            the bone yard holds a vial without label. the bone yard holds a warm cooler; dripping pipes gives it away. \
            the bone yard, then draw them towards dripping pipes.";
        for (layer, drawn, words_wanted, expected) in [
            ("interaction", 7, 0, "a courier says: About ferryman? Ask at a sealed vault, after curfew."),
            ("interaction", 7, 12, "a courier says: About ferryman? Ask at a sealed vault, after curfew."),
            ("interaction", 7, 40, interaction),
            ("foundation", 4_438_531_654_407_421_683, 60, foundation),
        ] {
            assert_eq!(written(&plan(layer, drawn, words_wanted)), (expected.to_owned(), "stop"), "{words_wanted}");
        }
    }

    #[test]
    fn the_longest_text_has_400_words() {
        let (text, _) = written(&plan("coordination", 1, WORDS_MAX));
        let begin = "Two watch a rooftop garden, one carries a wet photograph. Ask at the night bus, then draw them";
        assert!(text.starts_with(begin) && count(&text) == 400, "{text}");
    }

    #[test]
    fn a_long_text_is_cut_at_stop_sequences_and_at_its_limit() {
        let whole = plan("interaction", 7, 40);
        let at_its_limit = Plan { tokens_max: 20, ..whole.clone() };
        assert_eq!(text::tokens(&written(&at_its_limit).0), 20);
        assert_eq!(written(&at_its_limit).1, "length");
        let stopped = Plan { stop: vec!["Strike".to_owned()], ..whole.clone() };
        let (before, _) = written(&whole).0.split_once("Strike").map(|(a, b)| (a.to_owned(), b.len())).unwrap();
        assert_eq!(written(&stopped), (before, "stop"));
    }
}
