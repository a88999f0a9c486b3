//! Text: the built-in engine, a grammar with slots drawn by seed and a chain of words for what is longer, which needs no
//! network; and the chain of providers.

mod batch;
mod chain;
mod embeddings;
mod endpoint;
mod markov;

use super::seed::Draws;

pub(super) use chain::Engine;
pub(super) use embeddings::Embeddings;
pub(super) use endpoint::{Ask, Pieces, Turn};
pub(super) use markov::{Markov, WORDS_MAX};

/// Most slots and templates that one text expands.
const EXPANSIONS_MAX: usize = 200;
/// Most key words of a prompt that a text echoes.
const KEY_WORDS_MAX: usize = 3;

/// Word lists by slot.
const SLOTS: [(&str, &[&str]); 6] = [
    (
        "place",
        &[
            "the fish market",
            "a flooded stairwell",
            "the tram depot",
            "an empty ward",
            "the bone yard",
            "a rooftop garden",
            "the night bus",
            "a sealed vault",
        ],
    ),
    (
        "time",
        &[
            "before dawn",
            "at noon",
            "under a thin moon",
            "after curfew",
            "in the last hour of rain",
            "when the lamps fail",
        ],
    ),
    (
        "person",
        &[
            "a courier",
            "a widow",
            "a disgraced surgeon",
            "a ghoul in a borrowed coat",
            "a debt collector",
            "a fae clerk",
            "a tired constable",
            "a child with old eyes",
        ],
    ),
    (
        "object",
        &[
            "a cracked ledger",
            "a warm cooler",
            "a silver hook",
            "a jar of moths",
            "a torn permit",
            "a brass key",
            "a vial without label",
            "a wet photograph",
        ],
    ),
    (
        "sound",
        &[
            "dripping pipes",
            "a distant saw",
            "wings behind plaster",
            "a slow choir",
            "loose chains",
            "static on a radio",
        ],
    ),
    ("smell", &["wet iron", "camphor", "burnt sugar", "grave soil", "ozone", "old paper"]),
];

/// Words that say nothing of what a prompt is about.
const STOP_WORDS: &[&str] = &[
    "about", "after", "again", "also", "and", "are", "because", "been", "before", "but", "can", "could", "did", "does",
    "for", "from", "had", "has", "have", "her", "here", "his", "how", "into", "its", "may", "might", "more", "most",
    "must", "not", "now", "off", "once", "one", "only", "our", "out", "over", "please", "say", "says", "shall", "she",
    "should", "some", "tell", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this",
    "those", "was", "were", "what", "when", "where", "which", "who", "whom", "why", "will", "with", "would", "you",
    "your",
];

/// One template, picked and expanded.
pub(super) fn expand(templates: &[&str], topic: &str, draws: &mut Draws) -> String {
    let template = draws.pick(templates);
    fill(template, draws, |_, _| topic.to_owned())
}

/// A template, expanded depth first, left to right, one draw a slot. `own` fills the slots that have no word list.
pub(super) fn fill(template: &str, draws: &mut Draws, mut own: impl FnMut(&str, &mut Draws) -> String) -> String {
    let mut rest = template;
    let mut out = String::new();
    for _ in 0..EXPANSIONS_MAX {
        let Some((before, slot, after)) = split(rest) else { break };
        out.push_str(before);
        match words(slot) {
            Some(words) => out.push_str(draws.pick(words)),
            None => out.push_str(&own(slot, draws)),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The word list of a slot.
pub(super) fn words(slot: &str) -> Option<&'static [&'static str]> {
    SLOTS.iter().find(|row| row.0 == slot).map(|row| row.1)
}

/// The text with a capital at its beginning.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Text, slot, text.
fn split(template: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = template.split_once('{')?;
    let (slot, after) = rest.split_once('}')?;
    Some((before, slot, after))
}

/// The longest words of a prompt that say something, in their order; `this matter` where there are none.
pub(super) fn topic(prompt: &str) -> String {
    let is_word = |word: &&str| word.len() > 2 && !STOP_WORDS.contains(&word.to_lowercase().as_str());
    let words: Vec<&str> = prompt.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(is_word).collect();
    let mut longest: Vec<usize> = (0..words.len()).collect();
    longest.sort_by_key(|index| std::cmp::Reverse(words[*index].chars().count()));
    longest.truncate(KEY_WORDS_MAX);
    longest.sort_unstable();
    match longest.is_empty() {
        true => "this matter".to_owned(),
        false => longest.iter().map(|index| words[*index]).collect::<Vec<_>>().join(" "),
    }
}

/// Tokens for usage and limits: words, and single punctuation marks.
pub(super) fn tokens(text: &str) -> u32 {
    token_ends(text).count() as u32
}

/// The text cut behind that many tokens, and whether anything was cut.
pub(super) fn cut(text: &str, tokens_max: u32) -> (&str, bool) {
    match tokens_max.checked_sub(1) {
        None => ("", !text.is_empty()),
        Some(last) => match token_ends(text).nth(last as usize) {
            Some(end) => (&text[..end], !text[end..].trim().is_empty()),
            None => (text, false),
        },
    }
}

fn token_ends(text: &str) -> impl Iterator<Item = usize> {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
    let mut letters = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (at, first) = letters.find(|(_, c)| !c.is_whitespace())?;
        let mut end = at + first.len_utf8();
        if is_inside(first) {
            while let Some((at, letter)) = letters.next_if(|(_, c)| is_inside(*c)) {
                end = at + letter.len_utf8();
            }
        }
        Some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_words_and_marks() {
        assert_eq!(tokens("Where is the ferryman?"), 5);
        let text = "a widow says: About ferryman? Ask at the tram depot, after curfew.";
        assert_eq!(tokens(text), 16);
        assert_eq!(cut(text, 4), ("a widow says:", true));
        assert_eq!(cut(text, 16), (text, false));
        assert_eq!(cut(text, 99), (text, false));
        assert_eq!(cut(text, 0), ("", true));
        assert_eq!(tokens("größe, 日本 'quoted'"), 4);
    }

    #[test]
    fn a_prompt_is_about_its_longest_words() {
        assert_eq!(topic("Where is the ferryman?"), "ferryman");
        assert_eq!(topic("Say hello"), "hello");
        assert_eq!(topic("the old bone yard behind the abandoned market hall"), "behind abandoned market");
        assert_eq!(topic("what is it?"), "this matter");
    }
}
