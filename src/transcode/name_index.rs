//! Member name → field, and value name → number, for names that come in no expected order. Built once from the schema's names, which are
//! trusted; a client chooses only what is looked up, so a look-up costs at most the longest run of taken slots.

/// An open-addressing hash table, at most half full.
#[derive(Debug)]
pub(super) struct NameIndex<T> {
    /// Index into `names` + 1; 0 = empty. A power of two of them.
    slots: Box<[u32]>,
    names: Vec<(Box<[u8]>, T)>,
}

impl<T: Copy> NameIndex<T> {
    /// An index with room for two names a thing.
    pub(super) fn new(things: usize) -> NameIndex<T> {
        NameIndex { slots: vec![0; (things * 4).next_power_of_two().max(8)].into(), names: Vec::new() }
    }

    /// Adds a name, or points one that is there to another thing.
    pub(super) fn insert(&mut self, name: &str, thing: T) {
        let mut slot = hash(name.as_bytes()) & (self.slots.len() - 1);
        while let Some(taken) = self.slots[slot].checked_sub(1) {
            let entry = &mut self.names[taken as usize];
            if *entry.0 == *name.as_bytes() {
                entry.1 = thing;
                return;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.names.push((name.as_bytes().into(), thing));
        self.slots[slot] = self.names.len() as u32;
    }

    /// All names, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], T)> {
        self.names.iter().map(|(name, thing)| (&**name, *thing))
    }

    /// The thing with that name.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<T> {
        let mut slot = hash(name) & (self.slots.len() - 1);
        while let Some(taken) = self.slots[slot].checked_sub(1) {
            let entry = &self.names[taken as usize];
            if *entry.0 == *name {
                return Some(entry.1);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        None
    }
}

/// Mixes length, first and last eight bytes; names of one message differ there, or the comparison finds out.
#[inline]
fn hash(name: &[u8]) -> usize {
    let block = |bytes: &[u8]| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(eight)
    };
    let len = name.len();
    let first = block(&name[..len.min(8)]);
    let last = block(&name[len.saturating_sub(8)..]);
    let mixed = (first ^ last.rotate_left(29) ^ len as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 40) as usize
}
