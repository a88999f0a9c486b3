//! Templates of `google.api.http` as paths of OpenAPI, which knows only `{name}` between two slashes.
//!
//! Literals inside a variable stand where they stand; a wildcard is a parameter, named after its variable where it is
//! all that the variable captures. `**` is a parameter that says so in words: OpenAPI has none for several segments.

use crate::route::{PathTemplate, Segment};

/// A wildcard of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its name in this template.
    pub(super) name: String,
    /// Index of the variable that it belongs to.
    pub(super) variable: Option<usize>,
    /// It is all that the variable captures.
    pub(super) is_whole: bool,
    /// Any number of segments.
    pub(super) is_multi: bool,
}

/// A template as OpenAPI sees it.
#[derive(Clone, Debug)]
pub(super) struct OpenPath {
    /// Its text around the slots; one piece more than slots.
    pieces: Vec<String>,
    pub(super) slots: Vec<Slot>,
}

impl OpenPath {
    pub(super) fn new(template: &PathTemplate) -> OpenPath {
        let (mut pieces, mut slots) = (vec![String::new()], Vec::new());
        for (index, segment) in template.segments.iter().enumerate() {
            let last = pieces.len() - 1;
            pieces[last].push('/');
            if let Segment::Literal(text) = segment {
                pieces[last].push_str(text);
            } else {
                slots.push(slot(template, index, slots.len() + 1));
                pieces.push(String::new());
            }
        }
        let last = pieces.len() - 1;
        if template.segments.is_empty() {
            pieces[last].push('/');
        }
        if let Some(verb) = &template.verb {
            pieces[last].push(':');
            pieces[last].push_str(verb);
        }
        OpenPath { pieces, slots }
    }

    /// The text that two paths have in common where OpenAPI takes them for the same one.
    pub(super) fn key(&self) -> String {
        self.pieces.join("{}")
    }

    /// The path with these names in its slots.
    pub(super) fn text(&self, names: &[String]) -> String {
        let mut text = self.pieces[0].clone();
        for (name, piece) in names.iter().zip(&self.pieces[1..]) {
            text.push_str(&format!("{{{name}}}{piece}"));
        }
        text
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.slots.iter().map(|slot| slot.name.clone()).collect()
    }
}

fn slot(template: &PathTemplate, index: usize, number: usize) -> Slot {
    let is_multi = template.segments[index] == Segment::Many;
    let around = template.variables.iter().position(|variable| (variable.from..variable.to).contains(&index));
    let Some(at) = around else {
        return Slot { name: format!("segment{number}"), variable: None, is_whole: false, is_multi };
    };
    let variable = &template.variables[at];
    let segments = &template.segments[variable.from..variable.to];
    let wild: Vec<usize> =
        (variable.from..variable.to).filter(|at| !matches!(template.segments[*at], Segment::Literal(_))).collect();
    let name = match wild.as_slice() {
        [_] => variable.field.clone(),
        wild => {
            let place = wild.iter().position(|at| *at == index).map_or(0, |at| at + 1);
            format!("{}.{place}", variable.field)
        }
    };
    Slot { name, variable: Some(at), is_whole: segments.len() == 1, is_multi }
}

/// The names for the slots of paths that OpenAPI takes for one: those of the path whose names are shortest.
pub(super) fn shared_names<'p>(paths: impl Iterator<Item = &'p OpenPath>) -> Vec<String> {
    let names = paths.map(OpenPath::names);
    names.min_by_key(|names| (names.iter().map(String::len).sum::<usize>(), names.clone())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(template: &str) -> OpenPath {
        OpenPath::new(&PathTemplate::parse(template).unwrap())
    }

    #[test]
    fn templates_as_paths() {
        for (template, expected) in [
            ("/", "/"),
            ("/v1/quests", "/v1/quests"),
            ("/v1/quests/{id}", "/v1/quests/{id}"),
            ("/v1/quests/{quest.id}:start", "/v1/quests/{quest.id}:start"),
            ("/v1/{name=shelves/*}", "/v1/shelves/{name}"),
            ("/v1/{name=shelves/*/books/*}/x", "/v1/shelves/{name.1}/books/{name.2}/x"),
            ("/v1/*/x", "/v1/{segment1}/x"),
            ("/files/{path=**}", "/files/{path}"),
            ("/files/**/raw:get", "/files/{segment1}/raw:get"),
        ] {
            let path = path(template);
            assert_eq!(path.text(&path.names()), expected, "{template}");
        }
    }

    #[test]
    fn a_slot_knows_its_variable() {
        let slots = path("/v1/{name=shelves/*}/{rest=**}").slots;
        let row = |slot: &Slot| (slot.variable, slot.is_whole, slot.is_multi);
        assert_eq!(slots.iter().map(row).collect::<Vec<_>>(), [(Some(0), false, false), (Some(1), true, true)]);
    }

    #[test]
    fn paths_that_openapi_takes_for_one_share_the_shortest_names() {
        let (long, short) = (path("/v1/entities/{entity.entity_id}/state"), path("/v1/entities/{entity_id}/state"));
        assert_eq!(long.key(), short.key());
        let names = shared_names([&long, &short].into_iter());
        assert_eq!(long.text(&names), "/v1/entities/{entity_id}/state");
    }
}
