//! One template against one path, for people: what the tree decides for all routes at once, said route by route. Never
//! on the way of a request.

use std::borrow::Cow;
use std::fmt;

use super::segments::Segments;
use super::template::{PathTemplate, Segment};

/// How a template and a path compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Segments from the left that agree.
    pub agreed: usize,
    /// Segments that agree where they stand, those behind a difference included; up to a `**`.
    pub alike: usize,
    /// What does not agree; `None` where the template takes the path.
    pub misfit: Option<Misfit>,
}

/// Why a template does not take a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A literal segment is another text; positions count from 1.
    Text {
        /// Which segment of the path.
        position: usize,
        /// What the template has there.
        expected: String,
        /// What the path has there.
        found: String,
    },
    /// The path has another number of segments.
    Count {
        /// What the template takes; at least that many where it has a `**`.
        expected: usize,
        /// The template has a `**`.
        is_least: bool,
        /// What the path has.
        found: usize,
    },
    /// The path does not end with the template's custom verb.
    Verb {
        /// The template's.
        expected: String,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Text { position, expected, found } => {
                write!(f, "segment {position} is `{found}`, expected `{expected}`")
            }
            Misfit::Count { expected, is_least, found } => {
                let (least, plural) = (if *is_least { "at least " } else { "" }, if *expected == 1 { "" } else { "s" });
                write!(f, "the path has {found}, expected {least}{expected} segment{plural}")
            }
            Misfit::Verb { expected } => write!(f, "the path does not end with the custom verb `:{expected}`"),
        }
    }
}

impl PathTemplate {
    /// Compares with a path; `segments` come from the same path.
    pub fn fit(&self, path: &str, segments: &Segments) -> Fit {
        let found = segments.len();
        let mut texts: Vec<Cow<'_, str>> =
            (0..found).map(|index| Segments::decoded(segments.get(path, index))).collect();
        let mut misfit = None;
        if let Some(expected) = &self.verb {
            let head = texts.last().and_then(|last| last.rsplit_once(':')).filter(|(head, _)| !head.is_empty());
            match head.filter(|(_, verb)| verb == expected).map(|(head, _)| head.to_owned()) {
                Some(head) => texts[found - 1] = head.into(),
                None => misfit = Some(Misfit::Verb { expected: expected.clone() }),
            }
        }
        let fits = |index: usize, at: usize| match &self.segments[index] {
            Segment::Literal(text) => texts.get(at).is_some_and(|found| found == text),
            Segment::One | Segment::Many => at < found,
        };
        let many = self.many();
        let head = many.unwrap_or(self.segments.len());
        let agreed = (0..head).take_while(|index| fits(*index, *index)).count();
        let alike = (0..head).filter(|index| fits(*index, *index)).count();
        let tail = many.map_or(0, |many| self.segments.len() - many - 1);
        let (least, is_least) = (head + tail, many.is_some());
        let text = |index: usize, at: usize| match self.segments.get(index) {
            Some(Segment::Literal(expected)) if at < found => Some(Misfit::Text {
                position: at + 1,
                expected: expected.clone(),
                found: texts[at].clone().into_owned(),
            }),
            _ => None,
        };
        let count = Misfit::Count { expected: least, is_least, found };
        let wrong = if agreed < head {
            Some(text(agreed, agreed).unwrap_or(count))
        } else if found < least || (!is_least && found > least) {
            Some(count)
        } else {
            (0..tail).find_map(|index| {
                let (index, at) = (self.segments.len() - tail + index, found - tail + index);
                if fits(index, at) { None } else { text(index, at) }
            })
        };
        // What differs first from the left is what people look for; the custom verb stands at the end.
        Fit { agreed, alike, misfit: wrong.or(misfit) }
    }

    /// Orders templates that take the same path as the tree tries them: a custom verb first, then, from the left,
    /// literal before `*` before `**`, and of several `**` the one with the most behind it.
    pub fn precedence(&self) -> impl Ord + use<> {
        let kinds = self.segments.iter().enumerate().map(|(index, segment)| match segment {
            Segment::Literal(_) => (0, 0),
            Segment::One => (1, 0),
            Segment::Many => (2, -((self.segments.len() - index) as i64)),
        });
        (self.verb.is_none(), kinds.collect::<Vec<(u8, i64)>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(template: &str, path: &str) -> (usize, String) {
        let fit = PathTemplate::parse(template).unwrap().fit(path, &Segments::split(path).unwrap());
        (fit.agreed, fit.misfit.map_or_else(|| "fits".to_owned(), |misfit| misfit.to_string()))
    }

    #[test]
    fn what_does_not_agree_first_is_told() {
        for (template, path, agreed, told) in [
            ("/v1/players/{id}/quests", "/v1/players/p1/quests", 4, "fits"),
            ("/v1/players/{id}/quests", "/v1/player/p1/quests", 1, "segment 2 is `player`, expected `players`"),
            ("/v1/players/{id}", "/v1/players", 2, "the path has 2, expected 3 segments"),
            ("/v1", "/v1/players", 1, "the path has 2, expected 1 segment"),
            ("/v1/{id}:run", "/v1/a:run", 2, "fits"),
            ("/v1/{id}:run", "/v1/a:stop", 2, "the path does not end with the custom verb `:run`"),
            ("/v1/{id}", "/v1/a:stop", 2, "fits"),
            ("/v1/{name=**}", "/v1", 1, "fits"),
            ("/v1/{name=**}/end", "/v1", 1, "the path has 1, expected at least 2 segments"),
            ("/v1/{name=**}/end", "/v1/a/b/end", 1, "fits"),
            ("/v1/{name=**}/end", "/v1/a/b", 1, "segment 3 is `b`, expected `end`"),
            ("/v1/caf\u{e9}", "/v1/caf%C3%A9", 2, "fits"),
            ("/", "/", 0, "fits"),
        ] {
            assert_eq!(fit(template, path), (agreed, told.to_owned()), "{template} {path}");
        }
    }
}
