//! Member name → field, for names that come in no expected order. Built once from the schema's names, which are
//! trusted; a client chooses only what is looked up, so a look-up costs at most the longest run of taken slots.

use super::table::FieldId;

/// An open-addressing hash table, at most half full.
#[derive(Debug)]
pub(super) struct NameIndex {
    /// Index into `names` + 1; 0 = empty. A power of two of them.
    slots: Box<[u16]>,
    names: Vec<(Box<[u8]>, FieldId)>,
}

impl NameIndex {
    /// An index with room for two names a field.
    pub(super) fn new(fields: usize) -> NameIndex {
        NameIndex { slots: vec![0; (fields * 4).next_power_of_two().max(8)].into(), names: Vec::new() }
    }

    /// Adds a name, or points one that is there to another field.
    pub(super) fn insert(&mut self, name: &str, field: FieldId) {
        let mut slot = hash(name.as_bytes()) & (self.slots.len() - 1);
        while let Some(taken) = self.slots[slot].checked_sub(1) {
            let entry = &mut self.names[taken as usize];
            if *entry.0 == *name.as_bytes() {
                entry.1 = field;
                return;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.names.push((name.as_bytes().into(), field));
        self.slots[slot] = self.names.len() as u16;
    }

    /// The field with that name.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<FieldId> {
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
