//! Whether a Rust struct fits a message: walked once, when a method is registered, by deserialising it from a probe
//! that looks at what serde asks for. Every field, every variant; recursion is followed once.

mod access;
mod expect;
mod probe;

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::DeserializeOwned;

use super::error::{ErrorKind, TranscodeError};
use super::table::{EnumId, MessageId, OneofId, Tables};
use probe::{Node, Prober};

/// Most walks over one type; each tries other variants of its enums.
const WALKS_MAX: u32 = 4_096;
/// Most problems told of one type.
const PROBLEMS_MAX: usize = 100;

/// One place where a struct does not fit its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeProblem {
    /// Dotted path of the field in proto names; empty for the whole.
    pub path: String,
    /// What does not fit, and what to write instead.
    pub text: String,
}

impl fmt::Display for ShapeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.text),
            path => write!(f, "`{path}`: {}", self.text),
        }
    }
}

impl std::error::Error for ShapeProblem {}

/// Walks `T` against a message: all problems at once. `given` are numbers of top-level fields that `T` may leave out,
/// because somebody else reads or writes them (caller context, error, place of a chunk).
///
/// `T` has to derive `Deserialize` also where it is only written: that is how it is walked.
pub fn shape_check<T: DeserializeOwned>(
    tables: &Tables,
    message: MessageId,
    given: &[u32],
) -> Result<(), Vec<ShapeProblem>> {
    walk_all(tables, message, given, |prober| T::deserialize(prober).err())
}

/// Walks until every variant has been tried; `walk_once` is one walk over the type.
fn walk_all(
    tables: &Tables,
    message: MessageId,
    given: &[u32],
    walk_once: fn(Prober<'_, '_>) -> Option<TranscodeError>,
) -> Result<(), Vec<ShapeProblem>> {
    let mut walk = Walk {
        tables,
        given,
        problems: Vec::new(),
        path: Vec::new(),
        choices: HashMap::new(),
        seen: HashSet::new(),
        depth: 0,
    };
    for _ in 0..WALKS_MAX {
        (walk.depth, walk.path) = (0, Vec::new());
        walk.seen.clear();
        if let Some(error) = walk_once(Prober { walk: &mut walk, node: Node::Message(message) })
            && error.kind() != ErrorKind::Depth
        {
            walk.problem(format!("does not take a default value: {}", error.text()));
            break;
        }
        if walk.choices.values().flatten().all(|count| *count > 0) {
            break;
        }
    }
    if walk.problems.is_empty() { Ok(()) } else { Err(walk.problems) }
}

/// A Rust enum at its place in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ChoiceKey {
    place: ChoicePlace,
    /// Name of the enum's visitor: two enums may share both their own name and the address of their variants' names.
    visitor: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ChoicePlace {
    Enum(EnumId),
    Oneof(MessageId, OneofId),
    /// Below something that does not fit, or has been walked already.
    Anywhere,
}

/// What the walks over one type know.
struct Walk<'a> {
    tables: &'a Tables,
    given: &'a [u32],
    problems: Vec<ShapeProblem>,
    path: Vec<String>,
    /// How often each variant has been tried.
    choices: HashMap<ChoiceKey, Vec<u32>>,
    /// Structs that this walk has been in, by the name of their visitor.
    seen: HashSet<(MessageId, &'static str)>,
    depth: u32,
}

impl Walk<'_> {
    /// Notes a problem at the present path.
    fn problem(&mut self, text: impl Into<String>) {
        let mut path = String::new();
        for segment in &self.path {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        let problem = ShapeProblem { path, text: text.into() };
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The variant tried least so far; true where the enum is met for the first time.
    fn choose(&mut self, place: ChoicePlace, visitor: &'static str, variants: usize) -> (usize, bool) {
        let key = ChoiceKey { place, visitor };
        let is_new = !self.choices.contains_key(&key);
        let counts = self.choices.entry(key).or_insert_with(|| vec![0; variants]);
        let index = counts.iter().enumerate().min_by_key(|row| row.1).map_or(0, |row| row.0);
        if let Some(count) = counts.get_mut(index) {
            *count += 1;
        }
        (index, is_new)
    }
}
