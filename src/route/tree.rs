//! Verb and path → route, by walking a tree of segments: literal before `*` before `**`. The tree stores ids; what a
//! route is, it does not know.
//!
//! A walk visits each node at most once, so its cost is bounded by the table, whatever path a client sends.

use std::borrow::Cow;
use std::collections::HashMap;

use super::edges::{Edges, Key};
use super::node::{Ends, NONE, Node};
use super::segments::Segments;
use super::template::{PathTemplate, Segment};

/// Index of a route in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

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

/// The tree. Everything of one kind lies in one vector: a walk through ten thousand routes touches few cache lines.
#[derive(Debug)]
pub struct Tree {
    /// The node of `/`.
    root: Node,
    /// All other ones.
    edges: Edges,
    /// Nodes so far: the next one's id.
    len: u32,
    tails: Vec<Tail>,
    /// Routes that end where another one does, too.
    more: Vec<Ends>,
    /// Verbs by index; 0 is `*`.
    verbs: Vec<Box<str>>,
    customs: HashMap<Box<str>, u32>,
}

/// Where a node is kept.
#[derive(Clone, Copy)]
enum Place {
    /// It is that of `/`.
    Root,
    /// Slot of the edge that leads to it.
    Slot(usize),
}

/// The segments behind a `**`.
#[derive(Debug)]
struct Tail {
    segments: Vec<Segment>,
    ends: Ends,
    next: u32,
}

const ANY_VERB: u32 = 0;

impl Default for Tree {
    fn default() -> Tree {
        Tree {
            root: Node::new(0),
            edges: Edges::default(),
            len: 1,
            tails: Vec::new(),
            more: Vec::new(),
            verbs: vec!["*".into()],
            customs: HashMap::new(),
        }
    }
}

impl Tree {
    /// Adds a route. `verb` is an HTTP method in upper case, or `*` for any.
    pub fn insert(&mut self, verb: &str, template: &PathTemplate, id: RouteId) -> Result<(), Conflict> {
        let verb = self.verb_index(verb).unwrap_or_else(|| {
            self.verbs.push(verb.into());
            self.verbs.len() as u32 - 1
        });
        let custom = template.verb.as_deref().map_or(NONE, |custom| {
            let next = self.customs.len() as u32;
            *self.customs.entry(custom.into()).or_insert(next)
        });
        let end = Ends { verb, custom, id, next: NONE };
        let (mut at, mut hash) = (Place::Root, 0);
        for (index, segment) in template.segments.iter().enumerate() {
            let node = self.node(at);
            let parent = node.id;
            let key = match segment {
                Segment::Literal(text) => {
                    node.has_literals = true;
                    Key::literal(hash, text)
                }
                Segment::One => {
                    node.has_any = true;
                    Key::any(hash)
                }
                Segment::Many => {
                    let tail = self.tail(at, &template.segments[index + 1..]) as usize;
                    self.tails[tail].ends = self.with_end(self.tails[tail].ends, end)?;
                    return Ok(());
                }
            };
            let slot = self.edges.enter(parent, &key, self.len);
            self.len += u32::from(self.edges.node(slot).id == self.len);
            (at, hash) = (Place::Slot(slot), key.hash);
        }
        let ends = self.node(at).ends;
        self.node(at).ends = self.with_end(ends, end)?;
        Ok(())
    }

    fn node(&mut self, at: Place) -> &mut Node {
        match at {
            Place::Root => &mut self.root,
            Place::Slot(slot) => self.edges.node(slot),
        }
    }

    /// The tail with those segments behind a node's `**`. Longest first, then literals before `*` from the left: the
    /// order in which a look-up tries them.
    fn tail(&mut self, node: Place, segments: &[Segment]) -> u32 {
        let new = self.tails.len() as u32;
        let (mut before, mut at) = (NONE, self.node(node).tails);
        while at != NONE {
            let there = &self.tails[at as usize];
            if there.segments == segments {
                return at;
            }
            if rank(segments) < rank(&there.segments) {
                break;
            }
            (before, at) = (at, there.next);
        }
        self.tails.push(Tail { segments: segments.to_vec(), ends: Ends::NONE, next: at });
        match before {
            NONE => self.node(node).tails = new,
            before => self.tails[before as usize].next = new,
        }
        new
    }

    /// The routes that end at a place, with one more before the others.
    fn with_end(&mut self, there: Ends, end: Ends) -> Result<Ends, Conflict> {
        if there.verb == NONE {
            return Ok(end);
        }
        let mut other = Some(there);
        while let Some(Ends { verb, custom, id, next }) = other {
            if (verb, custom) == (end.verb, end.custom) {
                return Err(Conflict { with: id });
            }
            other = self.more.get(next as usize).copied();
        }
        self.more.push(there);
        Ok(Ends { next: self.more.len() as u32 - 1, ..end })
    }

    fn verb_index(&self, verb: &str) -> Option<u32> {
        self.verbs.iter().position(|known| **known == *verb).map(|at| at as u32)
    }

    /// The route of a request; `segments` come from the same path.
    ///
    /// A custom verb that some route of this path has is that verb, for every HTTP method; any other `:` is part of
    /// the last segment's text.
    pub fn find(&self, verb: &str, path: &str, segments: &Segments) -> Lookup {
        let mut walk = Walk::new(self, verb, path, segments);
        let whole = segments.last(path);
        if let Some((head, custom)) = whole.rsplit_once(':').filter(|(head, _)| !head.is_empty())
            && let Some(custom) = self.customs.get(&*Segments::decoded(custom))
        {
            (walk.last, walk.custom) = (Segments::decoded(head), *custom);
            match walk.walk(&self.root, 0, 0) {
                None if walk.allow.is_empty() => {}
                found => return walk.verdict(found),
            }
        }
        (walk.last, walk.custom) = (Segments::decoded(whole), NONE);
        let found = walk.walk(&self.root, 0, 0);
        walk.verdict(found)
    }
}

/// The order of tails.
fn rank(segments: &[Segment]) -> (std::cmp::Reverse<usize>, Vec<bool>) {
    (std::cmp::Reverse(segments.len()), segments.iter().map(|segment| *segment == Segment::One).collect())
}

/// One look-up.
struct Walk<'w> {
    tree: &'w Tree,
    path: &'w str,
    segments: &'w Segments,
    /// All segments decoded; empty where nothing in the path is percent-encoded, as in most.
    decoded: Vec<Cow<'w, str>>,
    /// The last segment without its custom verb.
    last: Cow<'w, str>,
    custom: u32,
    verb: Option<u32>,
    /// What HEAD takes where it has no route of its own.
    get: Option<u32>,
    allow: Vec<u32>,
}

impl<'w> Walk<'w> {
    fn new(tree: &'w Tree, verb: &str, path: &'w str, segments: &'w Segments) -> Walk<'w> {
        let decoded = if path.contains('%') {
            (0..segments.len()).map(|index| Segments::decoded(segments.get(path, index))).collect()
        } else {
            Vec::new()
        };
        let get = if verb == "HEAD" { tree.verb_index("GET") } else { None };
        let (last, verb) = (Cow::Borrowed(""), tree.verb_index(verb));
        Walk { tree, path, segments, decoded, last, custom: NONE, verb, get, allow: Vec::new() }
    }

    fn text(&self, index: usize) -> &str {
        if index + 1 == self.segments.len() {
            return &self.last;
        }
        match self.decoded.get(index) {
            Some(text) => text,
            None => self.segments.get(self.path, index),
        }
    }

    /// `hash` is that of the way to the node.
    fn walk(&mut self, node: &'w Node, hash: u64, depth: usize) -> Option<RouteId> {
        let tree = self.tree;
        if depth == self.segments.len() {
            return self.choose(node.ends).or_else(|| self.walk_tails(node.tails, depth));
        }
        if node.has_literals {
            let key = Key::literal(hash, self.text(depth));
            let hash = key.hash;
            if let Some(next) = tree.edges.get(node.id, &key)
                && let Some(found) = self.walk(next, hash, depth + 1)
            {
                return Some(found);
            }
        }
        if node.has_any {
            let key = Key::any(hash);
            if let Some(next) = tree.edges.get(node.id, &key)
                && let Some(found) = self.walk(next, key.hash, depth + 1)
            {
                return Some(found);
            }
        }
        self.walk_tails(node.tails, depth)
    }

    fn walk_tails(&mut self, first: u32, depth: usize) -> Option<RouteId> {
        let tree = self.tree;
        let mut at = first;
        while at != NONE {
            let tail = &tree.tails[at as usize];
            at = tail.next;
            let start = self.segments.len().checked_sub(tail.segments.len()).filter(|start| *start >= depth);
            let Some(start) = start else { continue };
            let fits = tail.segments.iter().enumerate().all(|(index, segment)| match segment {
                Segment::Literal(text) => self.text(start + index) == text,
                _ => true,
            });
            if fits && let Some(found) = self.choose(tail.ends) {
                return Some(found);
            }
        }
        None
    }

    /// The route for this verb among those that end at a place: its own before GET's for HEAD before that of any verb.
    fn choose(&mut self, ends: Ends) -> Option<RouteId> {
        if ends.verb == NONE {
            return None;
        }
        let (mut for_head, mut for_any) = (None, None);
        let mut other = Some(ends);
        while let Some(Ends { verb, custom, id, next }) = other {
            other = self.tree.more.get(next as usize).copied();
            if custom != self.custom {
                continue;
            }
            match verb {
                verb if Some(verb) == self.verb => return Some(id),
                verb if Some(verb) == self.get => for_head = Some(id),
                ANY_VERB => for_any = Some(id),
                verb => self.allow.push(verb),
            }
        }
        for_head.or(for_any)
    }

    fn verdict(self, found: Option<RouteId>) -> Lookup {
        if let Some(id) = found {
            return Lookup::Found(id);
        }
        if self.allow.is_empty() {
            return Lookup::Missing;
        }
        let mut allow: Vec<String> =
            self.allow.iter().map(|verb| self.tree.verbs[*verb as usize].to_string()).collect();
        if allow.iter().any(|verb| verb == "GET") {
            allow.push("HEAD".to_owned());
        }
        allow.sort();
        allow.dedup();
        Lookup::WrongVerb(allow)
    }
}
