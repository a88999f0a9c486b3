//! What is wrong with a file or a schema: where, what, and what to do; shown as rustc shows it.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, as given on the command line.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
}

impl Place {
    /// A place.
    pub fn new(file: &str, line: usize, column: usize) -> Place {
        Place { file: file.to_owned(), line: line.max(1), column: column.max(1) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
    /// What to do; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Its line holds what no report may show.
    #[serde(skip)]
    is_concealed: bool,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(place: Place, message: impl Into<String>) -> Problem {
        Problem { place, message: message.into(), hint: String::new(), is_concealed: false }
    }

    /// The same problem with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = hint.into();
        self
    }

    /// The same problem, shown without the line of its place.
    #[must_use]
    pub fn conceal(mut self) -> Problem {
        self.is_concealed = true;
        self
    }
}

/// Shows problems as a compiler does: message, place, the line with a mark under it, and the hint.
///
/// `text_of` gives a file's text where it is known.
pub fn render(problems: &[Problem], is_colored: bool, text_of: impl Fn(&str) -> Option<String>) -> String {
    let renderer = if is_colored { Renderer::styled() } else { Renderer::plain() };
    let mut shown = String::new();
    for problem in problems {
        let text = text_of(&problem.place.file).unwrap_or_default();
        let span = span_of(&text, &problem.place);
        let mut group = Group::with_title(Level::ERROR.primary_title(problem.message.as_str()));
        if text.is_empty() || problem.is_concealed {
            let Place { file, line, column } = &problem.place;
            let origin = annotate_snippets::Origin::path(file.as_str());
            let is_placed = problem.is_concealed;
            group = group.element(if is_placed { origin.line(*line).char_column(*column) } else { origin });
        } else {
            let snippet = Snippet::source(text.as_str()).path(problem.place.file.as_str()).fold(true);
            group = group.element(snippet.annotation(AnnotationKind::Primary.span(span)));
        }
        if !problem.hint.is_empty() {
            group = group.element(Level::HELP.message(problem.hint.as_str()));
        }
        shown.push_str(&renderer.render(&[group]));
        shown.push_str("\n\n");
    }
    shown
}

/// The bytes of the word at a place.
fn span_of(text: &str, place: &Place) -> std::ops::Range<usize> {
    let start_of_line: usize = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    let line = text[start_of_line..].lines().next().unwrap_or_default();
    let column = line.char_indices().nth(place.column - 1).map_or(line.len(), |(at, _)| at);
    let rest = &line[column..];
    let len = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map_or(rest.len(), |at| at + 2),
        _ => rest.find([',', '}', ']', '#']).unwrap_or(rest.len()),
    };
    let word = rest[..len].trim_end();
    let start = start_of_line + column;
    start..start + word.len().max(usize::from(!rest.is_empty()))
}
