//! The only file with `unsafe`: a reading cursor over padded text, and short unchecked writes into a `Vec`.
//!
//! Each type keeps one invariant, named at its fields; every block says why it holds.
#![allow(unsafe_code)]

/// Zero bytes behind the text, so that a block load that starts inside the text or at its end stays in bounds.
const PADDING: usize = 32;

/// Copies `text` into `buffer` and pads it with zeros, ready for [`Cursor::new`].
pub(super) fn pad(text: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.reserve(text.len() + PADDING);
    buffer.extend_from_slice(text);
    buffer.extend_from_slice(&[0; PADDING]);
}

/// True where padded text is all ASCII; what is left over behind the last whole block is padding.
#[inline(always)]
pub(super) fn is_ascii(padded: &[u8]) -> bool {
    padded.as_chunks().0.iter().fold(0, |high, block| high | high_bytes(block)) == 0
}

/// A position in padded text. At the end it reads zeros, which no JSON token contains, so that callers need no
/// bounds check of their own.
pub(super) struct Cursor<'a> {
    /// The text and its padding. Invariant: `at <= end` and `end + PADDING == padded.len()`.
    padded: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of text that [`pad`] made.
    pub(super) fn new(padded: &'a [u8]) -> Cursor<'a> {
        assert!(padded.len() >= PADDING, "the text must come from `pad`");
        Cursor { padded, at: 0, end: padded.len() - PADDING }
    }

    /// Byte offset in the text.
    #[inline(always)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text with its padding, for a second cursor.
    pub(super) fn padded(&self) -> &'a [u8] {
        self.padded
    }

    /// Length of the text.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Goes to an offset of the text.
    #[inline(always)]
    pub(super) fn seek(&mut self, at: usize) {
        assert!(at <= self.end);
        self.at = at;
    }

    /// The byte here; 0 at the end.
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        // SAFETY: `at <= end < padded.len()`.
        unsafe { *self.padded.get_unchecked(self.at) }
    }

    /// Steps over one byte, which must not be the end's zero.
    #[inline(always)]
    pub(super) fn bump(&mut self) {
        // A minimum instead of a check: at the end the cursor stays, and the invariant holds whatever was there.
        self.at = if self.at < self.end { self.at + 1 } else { self.end };
    }

    /// Steps over `byte` (not 0) if it is here.
    #[inline(always)]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        debug_assert!(byte != 0);
        if self.peek() == byte && byte != 0 {
            // At the end `peek` is 0, so a match means `at < end`.
            self.at += 1;
            true
        } else {
            false
        }
    }

    /// Steps over `word` (at most eight bytes, none of them 0) if it is here.
    #[inline(always)]
    pub(super) fn eat_word<const N: usize>(&mut self, word: &[u8; N]) -> bool {
        debug_assert!(N <= 8 && !word.contains(&0));
        let mut wanted = [0; 8];
        wanted[..N].copy_from_slice(word);
        let mask = if N == 8 { u64::MAX } else { (1 << (8 * N)) - 1 };
        if self.eight() & mask == u64::from_le_bytes(wanted) {
            // The padding is zeros, so a match lies inside the text.
            self.at += N;
            true
        } else {
            false
        }
    }

    /// The next eight bytes, little-endian; zeros behind the end.
    #[inline(always)]
    pub(super) fn eight(&self) -> u64 {
        // SAFETY: `at + 8 <= end + PADDING == padded.len()`; an unaligned read of initialised bytes.
        u64::from_le(unsafe { self.padded.as_ptr().add(self.at).cast::<u64>().read_unaligned() })
    }

    /// Steps over `len` bytes that the caller has compared with the text.
    #[inline(always)]
    pub(super) fn advance(&mut self, len: usize) {
        self.at = (self.at + len).min(self.end);
    }

    /// The text from here to its end.
    #[inline(always)]
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.padded[self.at..self.end]
    }

    /// The text between two offsets.
    #[inline(always)]
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        &self.padded[from..to]
    }

    /// The sixteen bytes from `from`, for a look that may see more than it needs.
    #[inline(always)]
    pub(super) fn sixteen(&self, from: usize) -> &'a [u8; 16] {
        assert!(from <= self.end);
        // SAFETY: `from + 16 <= end + PADDING == padded.len()`; arrays of bytes have alignment 1.
        unsafe { &*self.padded.as_ptr().add(from).cast::<[u8; 16]>() }
    }

    /// The thirty-two bytes from `from`, for a copy that may take more than it needs.
    #[inline(always)]
    pub(super) fn thirty_two(&self, from: usize) -> &'a [u8; 32] {
        assert!(from <= self.end);
        // SAFETY: `from + 32 <= end + PADDING == padded.len()`; arrays of bytes have alignment 1.
        unsafe { &*self.padded.as_ptr().add(from).cast::<[u8; 32]>() }
    }

    /// Steps over decimal digits, eight at a time; `value` with them behind it (modulo 2^64), and how many they are.
    #[inline(always)]
    pub(super) fn digits(&mut self, mut value: u64) -> (u64, usize) {
        const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
        let start = self.at;
        loop {
            let (eight, len) = leading_digits(self.eight());
            if len == 0 {
                break;
            }
            value = value.wrapping_mul(POWERS[len]).wrapping_add(eight);
            // The padding is zeros, no digits, so they lie inside the text.
            self.at += len;
            if len < 8 {
                break;
            }
        }
        (value, self.at - start)
    }

    /// Offset of the first `"`, `\` or control character (the end's zero counts as one) at or behind `from`.
    #[inline(always)]
    pub(super) fn string_end(&self, from: usize) -> usize {
        let mut at = from;
        while at <= self.end {
            let special = special_bytes(self.sixteen(at));
            if special != 0 {
                return at + special.trailing_zeros() as usize;
            }
            at += 16;
        }
        self.end
    }
}

/// The value of the decimal digits at the front of eight bytes of text, the first one lowest; and how many they are.
#[inline(always)]
fn leading_digits(eight: u64) -> (u64, usize) {
    let digits = eight ^ 0x3030_3030_3030_3030;
    // The highest bit of a byte is set where it is no digit; a carry only reaches bytes behind the first such one.
    let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
    let len = (others.trailing_zeros() / 8) as usize;
    if len == 0 {
        return (0, 0);
    }
    // Zeros in front, then neighbours joined: to pairs, to fours, to eight.
    let digits = digits << (64 - 8 * len);
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff), len)
}

/// A bit for each of the sixteen bytes that is `"`, `\` or below 0x20.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn special_bytes(block: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    // SAFETY: SSE2 is part of x86_64, and `block` is sixteen readable bytes; the load needs no alignment.
    unsafe {
        let bytes = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
    }
}

/// A bit for each of the sixteen bytes that is `"`, `\` or below 0x20.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn special_bytes(block: &[u8; 16]) -> u32 {
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    block.iter().enumerate().fold(0, |bits, (index, byte)| bits | u32::from(is_special(*byte)) << index)
}

/// Appends the first `len` (at most 16) bytes of `block` with one fixed-size copy.
#[inline(always)]
pub(super) fn put_short(out: &mut Vec<u8>, block: &[u8; 16], len: usize) {
    let mut room = Room::new(out, 16);
    room.short(block, len);
    room.keep();
}

/// Appends the first `len` (at most 32) bytes of `block` with one fixed-size copy.
#[inline(always)]
pub(super) fn put_block(out: &mut Vec<u8>, block: &[u8; 32], len: usize) {
    let mut room = Room::new(out, 32);
    room.block(block, len);
    room.keep();
}

/// A bit for each of the sixteen bytes that is not ASCII.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn high_bytes(block: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_movemask_epi8};
    // SAFETY: SSE2 is part of x86_64, and `block` is sixteen readable bytes; the load needs no alignment.
    unsafe { _mm_movemask_epi8(_mm_loadu_si128(block.as_ptr().cast::<__m128i>())) as u32 }
}

/// A bit for each of the sixteen bytes that is not ASCII.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn high_bytes(block: &[u8; 16]) -> u32 {
    block.iter().enumerate().fold(0, |bits, (index, byte)| bits | u32::from(*byte >> 7) << index)
}

/// Room behind the end of a text: one check and one change of its length for several short writes, which are part of the
/// text once they are kept.
pub(super) struct Room<'v> {
    text: &'v mut Vec<u8>,
    /// Where the text ended.
    start: usize,
    /// Where the next byte goes. Invariant: both pointers lie in the text's allocation, not before its end, `at` not behind
    /// `end`; and all bytes before `at` are written.
    at: *mut u8,
    end: *mut u8,
}

/// More room behind `at`, which becomes the end of the text; where that now is, and the end of the room. Takes no `Room`, so
/// that one can stay in registers.
#[cold]
#[inline(never)]
fn more_room(text: &mut Vec<u8>, at: *mut u8, size: usize) -> (*mut u8, *mut u8) {
    // SAFETY: by the invariant of `Room`, `at` lies in the allocation and everything before it is written.
    unsafe { text.set_len(at.offset_from_unsigned(text.as_ptr())) };
    text.reserve(size);
    let room = &mut text.spare_capacity_mut()[..size];
    let pointers = room.as_mut_ptr_range();
    (pointers.start.cast(), pointers.end.cast())
}

impl<'v> Room<'v> {
    /// Room for that many bytes; more is found where they do not suffice, at a cost.
    // Here and below: inlined in a debug build, it would make the frames of the recursion around it too large.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn new(text: &'v mut Vec<u8>, size: usize) -> Room<'v> {
        text.reserve(size);
        let start = text.len();
        // SAFETY: `reserve` made room for `size` bytes behind the end, so both lie in the allocation.
        let (at, end) = unsafe { (text.as_mut_ptr().add(start), text.as_mut_ptr().add(start + size)) };
        Room { text, start, at, end }
    }

    /// Makes what was written part of the text.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn keep(self) {
        // SAFETY: the invariant of `at`.
        unsafe { self.text.set_len(self.at.offset_from_unsigned(self.text.as_ptr())) };
    }

    /// Forgets what was written.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn forget(self) {
        self.text.truncate(self.start);
    }

    /// A pointer to `size` bytes that may be written, from `at` on.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn space(&mut self, size: usize) -> *mut u8 {
        // SAFETY: by the invariant both lie in one allocation, in this order.
        if unsafe { self.end.offset_from_unsigned(self.at) } < size {
            (self.at, self.end) = more_room(self.text, self.at, size);
        }
        self.at
    }

    /// Steps over bytes that have been written.
    ///
    /// # Safety
    ///
    /// There were that many, behind the pointer that [`Room::space`] gave, and within the space asked for.
    #[cfg_attr(not(debug_assertions), inline(always))]
    unsafe fn step(&mut self, len: usize) {
        // SAFETY: the caller's promise keeps `at` before `end`.
        self.at = unsafe { self.at.add(len) };
    }

    /// Appends a byte.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn byte(&mut self, byte: u8) {
        let to = self.space(1);
        // SAFETY: `space` gave one byte.
        unsafe {
            to.write(byte);
            self.step(1);
        }
    }

    /// Appends the first `len` (at most 16) bytes of `block`.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn short(&mut self, block: &[u8; 16], len: usize) {
        let to = self.space(16);
        // SAFETY: `space` gave sixteen bytes; all of them are written, and at most as many stepped over.
        unsafe {
            to.cast::<[u8; 16]>().write_unaligned(*block);
            self.step(len.min(16));
        }
    }

    /// Appends the first `len` (at most 32) bytes of `block`.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn block(&mut self, block: &[u8; 32], len: usize) {
        let to = self.space(32);
        // SAFETY: `space` gave thirty-two bytes; all of them are written, and at most as many stepped over.
        unsafe {
            to.cast::<[u8; 32]>().write_unaligned(*block);
            self.step(len.min(32));
        }
    }

    /// Appends the first `len` (at most 16) bytes of `block` between quotes.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn quoted(&mut self, block: &[u8; 16], len: usize) {
        let (to, len) = (self.space(18), len.min(16));
        // SAFETY: `space` gave eighteen bytes. With `len` at most sixteen every write ends inside them, and the `len + 2`
        // bytes that are stepped over have all been written.
        unsafe {
            to.write(b'"');
            to.add(1).cast::<[u8; 16]>().write_unaligned(*block);
            to.add(1 + len).write(b'"');
            self.step(len + 2);
        }
    }

    /// Appends a text; a short one by two copies of a fixed size that overlap, which beats a call of `memcpy`.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn text(&mut self, text: &[u8]) {
        let len = text.len();
        let to = self.space(len.max(32));
        // SAFETY: `space` gave `len` bytes, and at least thirty-two. Each arm writes all of the text: its first and its
        // last bytes, which are at least half of it each, or the whole.
        unsafe {
            if let (Some(head), Some(tail), true) = (text.first_chunk::<16>(), text.last_chunk::<16>(), len <= 32) {
                to.cast::<[u8; 16]>().write_unaligned(*head);
                to.add(len - 16).cast::<[u8; 16]>().write_unaligned(*tail);
            } else if let (Some(head), Some(tail), true) = (text.first_chunk::<8>(), text.last_chunk::<8>(), len <= 16)
            {
                to.cast::<[u8; 8]>().write_unaligned(*head);
                to.add(len - 8).cast::<[u8; 8]>().write_unaligned(*tail);
            } else if let (Some(head), Some(tail), true) = (text.first_chunk::<4>(), text.last_chunk::<4>(), len <= 8) {
                to.cast::<[u8; 4]>().write_unaligned(*head);
                to.add(len - 4).cast::<[u8; 4]>().write_unaligned(*tail);
            } else {
                to.copy_from_nonoverlapping(text.as_ptr(), len);
            }
            self.step(len);
        }
    }
}

#[cfg(test)]
mod tests;
