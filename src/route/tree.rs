//! Verb and path → route, by walking a tree of segments: literal before `*` before `**`. The tree stores ids; what a
//! route is, it does not know.

use std::collections::HashMap;

use super::template::{PathTemplate, Segment};

/// Index of a route in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// Most segments of a request path.
pub const SEGMENTS_MAX: usize = 64;
/// Most nodes that one look-up visits; far above what any table without malice needs.
const VISITS_MAX: u32 = 4_096;

/// Where the segments of a path are, as byte ranges of it.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    ends: [u16; SEGMENTS_MAX],
    len: u8,
}

/// What a look-up finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A route.
    Found(RouteId),
    /// Routes with this path, but none for this verb; the verbs that there are, sorted.
    WrongVerb(Vec<String>),
    /// No route with this path.
    Missing,
}

/// Two templates that the same requests would match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The route that was there before.
    pub with: RouteId,
}

/// The tree. The root stands for `/`.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, u32>,
    one: Option<u32>,
    /// `**`, and what follows it: the templates behind it, longest first.
    many: Vec<Tail>,
    ends: Vec<Leaf>,
}

/// The segments behind a `**`.
#[derive(Debug)]
struct Tail {
    segments: Vec<Segment>,
    ends: Vec<Leaf>,
}

/// Routes that end here, by custom verb.
#[derive(Debug)]
struct Leaf {
    custom: Option<Box<str>>,
    routes: Vec<(Box<str>, RouteId)>,
}

impl Segments {
    /// Splits a path that begins with `/`. `None` where it does not, is too long, or has an empty, `.` or `..`
    /// segment: such paths name nothing here, and no proxy in front may read them another way.
    pub fn split(path: &str) -> Option<Segments> {
        let bytes = path.as_bytes();
        let mut segments = Segments { ends: [0; SEGMENTS_MAX], len: 0 };
        if bytes.first() != Some(&b'/') || bytes.len() > usize::from(u16::MAX) {
            return None;
        }
        let mut start = 1;
        while start < bytes.len() {
            let len = bytes[start..].iter().position(|byte| *byte == b'/').unwrap_or(bytes.len() - start);
            let is_last = start + len == bytes.len();
            if len == 0 || matches!(&path[start..start + len], "." | "..") || usize::from(segments.len) == SEGMENTS_MAX
            {
                return None;
            }
            segments.ends[usize::from(segments.len)] = (start + len) as u16;
            segments.len += 1;
            start += len + 1;
            if start == bytes.len() && !is_last {
                return None;
            }
        }
        Some(segments)
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True for `/`.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the segments `from..to` begin and end in the path, slashes between them included.
    pub fn range(&self, from: usize, to: usize) -> std::ops::Range<usize> {
        let start = if from == 0 { 1 } else { usize::from(self.ends[from - 1]) + 1 };
        if from >= to { start..start } else { start..usize::from(self.ends[to - 1]) }
    }

    fn get<'p>(&self, path: &'p str, index: usize) -> &'p str {
        &path[self.range(index, index + 1)]
    }
}

/// Splits a custom verb off the last segment.
fn split_verb(last: &str) -> (&str, Option<&str>) {
    match last.rsplit_once(':') {
        Some((head, verb)) if !verb.is_empty() => (head, Some(verb)),
        _ => (last, None),
    }
}

struct Walk<'p> {
    path: &'p str,
    segments: &'p Segments,
    /// The last segment without its custom verb, and that verb; tried in this order: with the verb split off, whole.
    last: &'p str,
    custom: Option<&'p str>,
    verb: &'p str,
    visits: u32,
    allow: Vec<String>,
}

impl Tree {
    /// Adds a route. `verb` is an HTTP method in upper case, or `*` for any.
    pub fn insert(&mut self, verb: &str, template: &PathTemplate, id: RouteId) -> Result<(), Conflict> {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for (index, segment) in template.segments.iter().enumerate() {
            at = match segment {
                Segment::Literal(text) => match self.nodes[at].literals.get(text.as_str()) {
                    Some(next) => *next as usize,
                    None => {
                        let next = self.push();
                        self.nodes[at].literals.insert(text.as_str().into(), next as u32);
                        next
                    }
                },
                Segment::One => match self.nodes[at].one {
                    Some(next) => next as usize,
                    None => {
                        let next = self.push();
                        self.nodes[at].one = Some(next as u32);
                        next
                    }
                },
                Segment::Many => {
                    let behind = &template.segments[index + 1..];
                    return add(tail(&mut self.nodes[at].many, behind), verb, template.verb.as_deref(), id);
                }
            };
        }
        add(&mut self.nodes[at].ends, verb, template.verb.as_deref(), id)
    }

    fn push(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// The route of a request; `segments` come from the same path.
    pub fn find(&self, verb: &str, path: &str, segments: &Segments) -> Lookup {
        if self.nodes.is_empty() {
            return Lookup::Missing;
        }
        let last = if segments.is_empty() { "" } else { segments.get(path, segments.len() - 1) };
        let (head, custom) = split_verb(last);
        let mut walk = Walk { path, segments, last: head, custom, verb, visits: 0, allow: Vec::new() };
        let mut found = if custom.is_some() && !head.is_empty() { self.walk(&mut walk, 0, 0) } else { None };
        if found.is_none() {
            // A `:` without a route for it is part of the segment's text.
            (walk.last, walk.custom) = (last, None);
            found = self.walk(&mut walk, 0, 0);
        }
        match found {
            Some(id) => Lookup::Found(id),
            None if walk.allow.is_empty() => Lookup::Missing,
            None => {
                walk.allow.sort();
                walk.allow.dedup();
                Lookup::WrongVerb(walk.allow)
            }
        }
    }

    fn walk(&self, walk: &mut Walk, node: usize, depth: usize) -> Option<RouteId> {
        walk.visits += 1;
        if walk.visits > VISITS_MAX {
            return None;
        }
        let node = &self.nodes[node];
        let count = walk.segments.len();
        if depth == count {
            return walk.choose(&node.ends).or_else(|| self.walk_many(walk, node, depth));
        }
        let text = walk.text(depth);
        if let Some(next) = node.literals.get(text)
            && let Some(found) = self.walk(walk, *next as usize, depth + 1)
        {
            return Some(found);
        }
        if let Some(next) = node.one
            && !text.is_empty()
            && let Some(found) = self.walk(walk, next as usize, depth + 1)
        {
            return Some(found);
        }
        self.walk_many(walk, node, depth)
    }

    fn walk_many(&self, walk: &mut Walk, node: &Node, depth: usize) -> Option<RouteId> {
        let count = walk.segments.len();
        for tail in &node.many {
            let Some(start) = count.checked_sub(tail.segments.len()).filter(|start| *start >= depth) else { continue };
            let fits = tail.segments.iter().enumerate().all(|(index, segment)| match segment {
                Segment::Literal(text) => walk.text(start + index) == text,
                _ => true,
            });
            if fits && let Some(found) = walk.choose(&tail.ends) {
                return Some(found);
            }
        }
        None
    }
}

impl<'p> Walk<'p> {
    fn text(&self, index: usize) -> &'p str {
        if index + 1 == self.segments.len() { self.last } else { self.segments.get(self.path, index) }
    }

    /// The route for this verb among those that end here; HEAD takes GET's.
    fn choose(&mut self, ends: &[Leaf]) -> Option<RouteId> {
        let leaf = ends.iter().find(|leaf| leaf.custom.as_deref() == self.custom)?;
        let named = |verb: &str| leaf.routes.iter().find(|route| *route.0 == *verb).map(|route| route.1);
        let found =
            named(self.verb).or_else(|| if self.verb == "HEAD" { named("GET") } else { None }).or_else(|| named("*"));
        if found.is_none() {
            self.allow.extend(leaf.routes.iter().map(|route| route.0.to_string()));
            if leaf.routes.iter().any(|route| &*route.0 == "GET") {
                self.allow.push("HEAD".to_owned());
            }
        }
        found
    }
}

fn tail<'n>(many: &'n mut Vec<Tail>, segments: &[Segment]) -> &'n mut Vec<Leaf> {
    let at = match many.iter().position(|tail| tail.segments == segments) {
        Some(at) => at,
        None => {
            // Longest first, and literals before `*`: the order in which a look-up tries them.
            let literals = |segments: &[Segment]| segments.iter().filter(|s| matches!(s, Segment::Literal(_))).count();
            let rank = (segments.len(), literals(segments));
            let at = many
                .iter()
                .position(|tail| (tail.segments.len(), literals(&tail.segments)) < rank)
                .unwrap_or(many.len());
            many.insert(at, Tail { segments: segments.to_vec(), ends: Vec::new() });
            at
        }
    };
    &mut many[at].ends
}

fn add(ends: &mut Vec<Leaf>, verb: &str, custom: Option<&str>, id: RouteId) -> Result<(), Conflict> {
    let at = match ends.iter().position(|leaf| leaf.custom.as_deref() == custom) {
        Some(at) => at,
        None => {
            ends.push(Leaf { custom: custom.map(Into::into), routes: Vec::new() });
            ends.len() - 1
        }
    };
    let leaf = &mut ends[at];
    match leaf.routes.iter().find(|route| &*route.0 == verb) {
        Some((_, with)) => Err(Conflict { with: *with }),
        None => {
            leaf.routes.push((verb.into(), id));
            Ok(())
        }
    }
}
