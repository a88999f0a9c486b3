//! Literal edges of the tree: (node, text) → node, in one open table for all nodes. A look-up touches one slot a
//! segment, however many routes there are. The keys are the operator's: what clients send is only looked up.

/// What stands for no index.
pub(super) const NONE: u32 = u32::MAX;
/// Bytes of a text that its slot holds itself; most segments are no longer.
const HEAD: usize = 16;

/// The edges.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// A power of two of them, at most half taken; a free one has [`NONE`] as its child.
    slots: Vec<Slot>,
    /// What of the texts is longer than [`HEAD`].
    rests: Vec<u8>,
    len: usize,
}

/// Half a cache line: ten thousand routes are some hundred kilobytes of these.
#[derive(Clone, Copy, Debug)]
struct Slot {
    parent: u32,
    child: u32,
    len: u32,
    rest: u32,
    head: [u64; 2],
}

const FREE: Slot = Slot { parent: NONE, child: NONE, len: 0, rest: 0, head: [0; 2] };

/// What is looked up.
struct Key<'t> {
    parent: u32,
    len: u32,
    head: [u64; 2],
    rest: &'t [u8],
}

impl<'t> Key<'t> {
    #[inline]
    fn new(parent: u32, text: &'t str) -> Key<'t> {
        let bytes = text.as_bytes();
        let (first, behind) = bytes.split_at_checked(8).unwrap_or((bytes, &[]));
        let (second, rest) = behind.split_at_checked(8).unwrap_or((behind, &[]));
        Key { parent, len: bytes.len() as u32, head: [word(first), word(second)], rest }
    }

    /// Multiplies and rotates, eight bytes a step, as FxHash does: nobody who sends keys can add one.
    #[inline]
    fn hash(&self) -> usize {
        let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let start = u64::from(self.parent) << 32 | u64::from(self.len);
        let mut hash = mix(mix(start, self.head[0]), self.head[1]);
        for byte in self.rest {
            hash = mix(hash, u64::from(*byte));
        }
        (hash ^ hash >> 32) as usize
    }
}

/// Up to eight bytes as one number, another for each text of one length. Loads of a fixed size: copies of a few bytes
/// into a buffer, read back as one word, cost more than the rest of the look-up.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
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
    /// The node behind that text.
    #[inline]
    pub(super) fn get(&self, parent: u32, text: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let key = Key::new(parent, text);
        let mask = self.slots.len() - 1;
        let mut at = key.hash() & mask;
        loop {
            let slot = &self.slots[at];
            if slot.child == NONE {
                return None;
            }
            let is_same = (slot.parent, slot.len, slot.head) == (key.parent, key.len, key.head);
            // Empty rests are not compared: a `memcmp` of nothing at a dangling address costs 100 ns (masked loads).
            if is_same && (key.rest.is_empty() || self.rest(slot) == key.rest) {
                return Some(slot.child);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds an edge that is not there yet.
    pub(super) fn insert(&mut self, parent: u32, text: &str, child: u32) {
        if (self.len + 1) * 2 > self.slots.len() {
            let grown = vec![FREE; (self.slots.len() * 2).max(16)];
            for slot in std::mem::replace(&mut self.slots, grown) {
                self.place(slot);
            }
        }
        let Key { len, head, rest, .. } = Key::new(parent, text);
        let slot = Slot { parent, child, len, rest: self.rests.len() as u32, head };
        self.rests.extend_from_slice(rest);
        self.place(slot);
        self.len += 1;
    }

    fn place(&mut self, slot: Slot) {
        if slot.child == NONE {
            return;
        }
        let key = Key { parent: slot.parent, len: slot.len, head: slot.head, rest: self.rest(&slot) };
        let mask = self.slots.len() - 1;
        let mut at = key.hash() & mask;
        while self.slots[at].child != NONE {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn rest(&self, slot: &Slot) -> &[u8] {
        let len = (slot.len as usize).saturating_sub(HEAD);
        &self.rests[slot.rest as usize..slot.rest as usize + len]
    }
}
