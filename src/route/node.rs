//! Nodes of the tree, and the routes that end at them: plain numbers, small enough to lie beside the text that leads there.

use super::tree::RouteId;

/// What stands for no index.
pub(super) const NONE: u32 = u32::MAX;

/// Where a walk may go on, as indices; [`NONE`] is nowhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// What the edges call it.
    pub(super) id: u32,
    /// The first tail behind `**`.
    pub(super) tails: u32,
    /// The routes that end here.
    pub(super) ends: Ends,
    /// Literal edges lead on from here; without any, the table of edges needs no look.
    pub(super) has_literals: bool,
    /// An edge `*` leads on from here.
    pub(super) has_any: bool,
}

impl Node {
    /// Where no edge leads.
    pub(super) const NOWHERE: Node = Node::new(NONE);

    /// A node from which nothing leads on.
    pub(super) const fn new(id: u32) -> Node {
        Node { id, tails: NONE, ends: Ends::NONE, has_literals: false, has_any: false }
    }
}

/// Routes that end at one place, by verb: the first one here, the others in the tree's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// [`NONE`] where no route ends.
    pub(super) verb: u32,
    /// Index of the custom verb, [`NONE`] without one.
    pub(super) custom: u32,
    pub(super) id: RouteId,
    /// Index of the next one.
    pub(super) next: u32,
}

impl Ends {
    /// No route.
    pub(super) const NONE: Ends = Ends { verb: NONE, custom: NONE, id: RouteId(NONE), next: NONE };
}
