//! The edges of the tree: (node, segment) → node, in one open table for all nodes. A step of a look-up touches one cache
//! line, however many routes there are: the slot holds the text, the node behind it and the route that ends there. And
//! where a slot is follows from the path alone, not from what the slots before it hold, so that the processor fetches
//! those of several segments at once. The keys are the operator's: what clients send is only looked up.

use super::node::{NONE, Node};

/// Bytes of a text that its slot holds itself; most segments are no longer.
const HEAD: usize = 16;
/// What stands for the length of `*`, which no text has.
const ANY: u32 = u32::MAX;

/// The edges.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// A power of two of them, at most half taken; a free one's node is [`Node::NOWHERE`].
    slots: Vec<Slot>,
    /// What of the texts is longer than [`HEAD`].
    rests: Vec<u8>,
    len: usize,
}

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot {
    head: [u64; 2],
    parent: u32,
    len: u32,
    rest: u32,
    /// The key's, folded.
    hash: u32,
    node: Node,
}

const FREE: Slot = Slot { head: [0; 2], parent: NONE, len: 0, rest: 0, hash: 0, node: Node::NOWHERE };

/// What leads on from a node.
pub(super) struct Key<'t> {
    len: u32,
    head: [u64; 2],
    rest: &'t [u8],
    /// Of the whole way from the root.
    pub(super) hash: u64,
}

impl<'t> Key<'t> {
    /// A literal segment, behind a way with this hash; the root's is 0.
    #[inline]
    pub(super) fn literal(before: u64, text: &'t str) -> Key<'t> {
        let bytes = text.as_bytes();
        let len = bytes.len() as u32;
        let (head, rest) = match (bytes.split_first_chunk::<16>(), bytes.first_chunk(), bytes.last_chunk()) {
            (Some((sixteen, rest)), ..) => {
                let sixteen = u128::from_le_bytes(*sixteen);
                ([sixteen as u64, (sixteen >> 64) as u64], rest)
            }
            // The two overlap: eight bytes and fifteen take the same way, which the processor need not guess.
            (_, Some(first), Some(last)) => ([u64::from_le_bytes(*first), u64::from_le_bytes(*last)], [].as_slice()),
            _ => ([word(bytes), 0], [].as_slice()),
        };
        Key::new(before, len, head, rest)
    }

    /// `*`.
    #[inline]
    pub(super) fn any(before: u64) -> Key<'static> {
        Key::new(before, ANY, [0; 2], &[])
    }

    /// The hash multiplies eight bytes a step and folds the product's halves, so that the last bytes of a text, which are
    /// the highest of a word, move the lowest bits, too. It is not keyed: nobody who sends keys can add one.
    #[inline]
    fn new(before: u64, len: u32, head: [u64; 2], rest: &'t [u8]) -> Key<'t> {
        let mix = |hash: u64, word: u64| {
            let product = u128::from(hash ^ word) * 0x9E37_79B9_7F4A_7C15;
            product as u64 ^ (product >> 64) as u64
        };
        let mut hash = mix(mix(before ^ u64::from(len), head[0]), head[1]);
        for byte in rest {
            hash = mix(hash, u64::from(*byte));
        }
        Key { len, head, rest, hash }
    }

    fn folded(&self) -> u32 {
        (self.hash ^ self.hash >> 32) as u32
    }
}

/// Fewer than eight bytes as one number, another for each text of one length. Loads of a fixed size: copies of a few
/// bytes into a buffer, read back as one word, cost more than the rest of the look-up.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d, ..] => {
            let last = bytes.last_chunk().map_or(0, |last| u32::from_le_bytes(*last));
            u64::from(last) << 32 | u64::from(u32::from_le_bytes([a, b, c, d]))
        }
        [a, .., c] => u64::from(c) << 16 | u64::from(bytes[bytes.len() / 2]) << 8 | u64::from(a),
        [a] => u64::from(a),
        [] => 0,
    }
}

impl Edges {
    /// The node behind another one.
    #[inline]
    pub(super) fn get(&self, parent: u32, key: &Key<'_>) -> Option<&Node> {
        if self.slots.is_empty() {
            return None;
        }
        let slot = &self.slots[self.find(parent, key)];
        if slot.node.id == NONE { None } else { Some(&slot.node) }
    }

    /// The slot of an edge, or the free one where it belongs.
    #[inline]
    fn find(&self, parent: u32, key: &Key<'_>) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = key.folded() as usize & mask;
        loop {
            let slot = &self.slots[at];
            let is_same = (slot.parent, slot.len, slot.head) == (parent, key.len, key.head);
            // Most texts have no rest, and a comparison of nothing is a call, too.
            if slot.node.id == NONE || is_same && (key.rest.is_empty() || self.rest(slot) == key.rest) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The slot of an edge, which leads to a new node with that id where it was not there before.
    pub(super) fn enter(&mut self, parent: u32, key: &Key<'_>, id: u32) -> usize {
        if (self.len + 1) * 2 > self.slots.len() {
            let grown = vec![FREE; (self.slots.len() * 2).max(16)];
            for slot in std::mem::replace(&mut self.slots, grown) {
                self.put_back(slot);
            }
        }
        let at = self.find(parent, key);
        if self.slots[at].node.id == NONE {
            let Key { len, head, rest, .. } = *key;
            let (from, hash) = (self.rests.len() as u32, key.folded());
            self.slots[at] = Slot { head, parent, len, rest: from, hash, node: Node::new(id) };
            self.rests.extend_from_slice(rest);
            self.len += 1;
        }
        at
    }

    /// The node in a slot that [`Edges::enter`] gave, until the next edge is entered.
    pub(super) fn node(&mut self, slot: usize) -> &mut Node {
        &mut self.slots[slot].node
    }

    fn put_back(&mut self, slot: Slot) {
        if slot.node.id == NONE {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].node.id != NONE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn rest(&self, slot: &Slot) -> &[u8] {
        let len = if slot.len == ANY { 0 } else { (slot.len as usize).saturating_sub(HEAD) };
        &self.rests[slot.rest as usize..slot.rest as usize + len]
    }
}

#[cfg(test)]
mod tests {
    use super::Slot;

    #[test]
    fn a_slot_is_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 64);
    }
}
