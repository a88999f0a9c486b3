//! What an HTTP/2 client's frames cost us. Frames that carry no request and no body are cheap to send and cost work,
//! so a connection has an allowance of them; answers earn it back. Pure: the clock is a parameter.
//!
//! Floods of CONTINUATION and of empty DATA, resets that we are made to send, and resets of requests that nobody has
//! looked at are bounded by the protocol's own implementation.

use std::time::Instant;

/// Most of an allowance, and what a connection begins with.
const ALLOWANCE_MAX: f64 = 1_000.0;
/// What time gives back, a second.
const EARNED_PER_SECOND: f64 = 50.0;
/// What a frame of ours with bytes of an answer earns: the client opens two windows for it.
const EARNED_BY_DATA: f64 = 2.0;
/// What an answer earns by its end.
const EARNED_BY_END: f64 = 4.0;
/// A reset throws a request away that we have begun.
const COST_OF_RESET: f64 = 4.0;

/// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Bytes of a frame's head.
const HEAD: usize = 9;

/// Follows the frames in one direction of a connection, without copying them.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    /// Its stream.
    pub(super) stream: u32,
}

impl Frames {
    /// The frames behind a preface of `preface` bytes.
    pub(super) fn behind(preface: usize) -> Frames {
        Frames { skip: preface, ..Frames::default() }
    }

    /// Reads on, and gives each frame whose head is complete.
    pub(super) fn advance(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.filled).min(bytes.len());
            if self.skip > 0 || taken == 0 {
                continue;
            }
            self.head[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                (self.skip, self.filled) = (u32::from_be_bytes([0, a, b, c]) as usize, 0);
                each(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff });
            }
        }
    }

    /// True where another frame may be written.
    pub(super) fn is_between(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

/// What a client may still cost.
#[derive(Debug)]
pub(super) struct Allowance {
    left: f64,
    since: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Allowance {
        Allowance { left: ALLOWANCE_MAX, since: now }
    }

    fn earn(&mut self, earned: f64) {
        self.left = (self.left + earned).min(ALLOWANCE_MAX);
    }

    /// A frame that the client sent; false where it is one too many.
    pub(super) fn spend(&mut self, frame: Frame, now: impl Fn() -> Instant) -> bool {
        let cost = match frame.kind {
            DATA | HEADERS | CONTINUATION => return true,
            RST_STREAM => COST_OF_RESET,
            _ => 1.0,
        };
        if self.left < cost {
            let now = now();
            self.earn(now.saturating_duration_since(self.since).as_secs_f64() * EARNED_PER_SECOND);
            self.since = now;
        }
        self.left -= cost;
        self.left >= 0.0
    }

    /// A frame that we sent.
    pub(super) fn note_sent(&mut self, frame: Frame) {
        match frame.kind {
            DATA if frame.flags & END_STREAM != 0 => self.earn(EARNED_BY_DATA + EARNED_BY_END),
            DATA => self.earn(EARNED_BY_DATA),
            HEADERS if frame.flags & END_STREAM != 0 => self.earn(EARNED_BY_END),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    const PING: Frame = Frame { kind: 6, flags: 0, stream: 0 };
    const RESET: Frame = Frame { kind: RST_STREAM, flags: 0, stream: 1 };

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes =
            [b"PREFACE".to_vec(), frame(4, 0, 0, &[]), frame(0, 1, 3, &[7; 300]), frame(6, 0, 0, &[0; 8])].concat();
        let expected = [(4, 0, 0), (0, 1, 3), (6, 0, 0)].map(|(kind, flags, stream)| Frame { kind, flags, stream });
        for size in [1, 2, 7, 9, 10, 100, bytes.len()] {
            let mut frames = Frames::behind(7);
            let mut found = Vec::new();
            bytes.chunks(size).for_each(|piece| frames.advance(piece, |frame| found.push(frame)));
            assert_eq!((found.as_slice(), frames.is_between()), (expected.as_slice(), true), "pieces of {size}");
            frames.advance(&frame(6, 0, 0, &[0; 8])[..12], |_| {});
            assert!(!frames.is_between());
        }
    }

    #[test]
    fn an_allowance_is_spent_by_frames_and_earned_by_answers_and_time() {
        let start = Instant::now();
        let spent = |allowance: &mut Allowance, frame: Frame, now: Instant| {
            (0..10_000).take_while(|_| allowance.spend(frame, || now)).count()
        };
        let mut allowance = Allowance::new(start);
        assert_eq!(spent(&mut allowance, PING, start), 1_000);
        let mut allowance = Allowance::new(start);
        assert_eq!(spent(&mut allowance, RESET, start), 250);
        assert_eq!(spent(&mut Allowance::new(start), Frame { kind: HEADERS, ..RESET }, start), 10_000);
        // A reset for each answer goes on for ever, as do two opened windows for each frame with bytes.
        let mut allowance = Allowance::new(start);
        for _ in 0..10_000 {
            allowance.note_sent(Frame { kind: HEADERS, flags: END_STREAM, stream: 1 });
            assert!(allowance.spend(RESET, || start));
            allowance.note_sent(Frame { kind: DATA, flags: 0, stream: 1 });
            assert!(allowance.spend(PING, || start) && allowance.spend(PING, || start));
        }
        let mut allowance = Allowance::new(start);
        assert_eq!(spent(&mut allowance, PING, start), 1_000);
        assert_eq!(spent(&mut allowance, PING, start + Duration::from_secs(2)), 99);
        assert_eq!(spent(&mut allowance, PING, start + Duration::from_secs(3_600)), 1_000);
    }
}
