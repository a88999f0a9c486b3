//! Names prepared when the tables are built: to be found in JSON by one masked load, to be printed by one copy.

use super::raw::Room;

/// A member name with its closing quote and the colon, prepared for a comparison by one masked load.
#[derive(Debug)]
pub(super) struct KeyMatch {
    /// The first sixteen bytes of `name":`, zeros behind them.
    first: u128,
    mask: u128,
    quoted: Box<[u8]>,
}

impl KeyMatch {
    /// Prepares a name.
    pub(super) fn new(name: &str) -> KeyMatch {
        let quoted = format!("{name}\":").into_bytes();
        let mut first = [0; 16];
        let len = quoted.len().min(16);
        first[..len].copy_from_slice(&quoted[..len]);
        let mask = if len == 16 { u128::MAX } else { (1 << (8 * len)) - 1 };
        KeyMatch { first: u128::from_le_bytes(first), mask, quoted: quoted.into() }
    }

    /// True where a text begins with `name":`; `sixteen` is its beginning, padded.
    #[inline(always)]
    pub(super) fn matches<'c>(&self, sixteen: &[u8; 16], text: impl Fn() -> &'c [u8]) -> bool {
        u128::from_le_bytes(*sixteen) & self.mask == self.first
            && (self.quoted.len() <= 16 || text().starts_with(&self.quoted))
    }

    /// Length of the name with quote and colon.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.quoted.len()
    }
}

/// A text ready to print: a short one as a block of a fixed size.
#[derive(Debug)]
pub(super) struct Printed {
    block: [u8; 32],
    whole: Box<[u8]>,
}

impl Printed {
    /// A member name with comma, quotes and colon.
    pub(super) fn key(name: &str) -> Printed {
        let mut whole = vec![b','];
        whole.extend(serde_json::to_vec(name).unwrap_or_default());
        whole.push(b':');
        Printed::new(whole)
    }

    /// Any other text.
    pub(super) fn new(whole: Vec<u8>) -> Printed {
        let mut block = [0; 32];
        let len = whole.len().min(32);
        block[..len].copy_from_slice(&whole[..len]);
        Printed { block, whole: whole.into() }
    }

    /// All of it.
    pub(super) fn whole(&self) -> &[u8] {
        &self.whole
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.whole.len()
    }

    /// Appends it.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn put(&self, room: &mut Room) {
        let len = self.whole.len();
        if len <= 32 {
            room.block(&self.block, len);
        } else {
            room.text(&self.whole);
        }
    }
}
