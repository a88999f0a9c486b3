//! The text of a plan: drawn from the layer's templates, cut at stop sequences and at its limit.

use super::super::seed::Draws;
use super::super::text;
use super::check::Plan;

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

/// A generated text, and why it ends.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) finish_reason: &'static str,
}

pub(super) fn text(plan: &Plan) -> Text {
    let templates = TEMPLATES.iter().find(|row| row.0 == plan.layer).map_or(TEMPLATES[2].1, |row| row.1);
    let whole = text::expand(templates, &text::topic(&plan.prompt), &mut Draws::new(plan.drawn));
    let stop = plan.stop.iter().filter_map(|stop| whole.find(stop.as_str())).min();
    let (cut, is_cut) = text::cut(stop.map_or(whole.as_str(), |at| &whole[..at]), plan.tokens_max);
    Text { text: cut.to_owned(), finish_reason: if is_cut { "length" } else { "stop" } }
}

/// A text word by word, each with the white space behind it.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}
