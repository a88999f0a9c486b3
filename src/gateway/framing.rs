//! Where requests begin and end in a connection's bytes, followed without copying them: heads are checked whole,
//! bodies are counted, chunk lines and trailers are bounded.

use memchr::memchr;

use super::ConnectionLimits;
use super::head_check::{self, Framing};
use crate::fault::{Code, Fault, Reason};

/// Longest chunk-size line, extensions included.
const CHUNK_LINE_MAX: usize = 256;
/// Most bytes of trailers.
const TRAILERS_MAX: usize = 4 * 1024;

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkLine {
        size: u64,
        digits: u8,
        len: usize,
        is_extension: bool,
    },
    ChunkData(u64),
    ChunkEnd(u8),
    /// Bytes of trailers so far, and bytes of the present line.
    Trailers {
        total: usize,
        line: usize,
    },
}

/// Follows one connection's requests.
#[derive(Debug)]
pub(super) struct Follower {
    state: State,
    /// Bytes of an unfinished head that hold no end: a head that drips is searched once, not once a piece.
    searched: usize,
    /// Heads passed on so far.
    pub(super) heads: u64,
}

/// What is wrong, and whether the request it belongs to has reached hyper already.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) fault: Fault,
    /// The head was passed on: its answer is on the way, and a second one would be one too many.
    pub(super) is_inside_request: bool,
}

const CHUNK_LINE: State = State::ChunkLine { size: 0, digits: 0, len: 0, is_extension: false };

impl Follower {
    /// Before the first request.
    pub(super) fn new() -> Follower {
        Follower { state: State::Head, searched: 0, heads: 0 }
    }

    /// True between requests, or inside a head.
    pub(super) fn is_at_head(&self) -> bool {
        self.state == State::Head
    }

    /// How many of the bytes may be passed on; the rest is the beginning of a head that is not whole yet.
    pub(super) fn advance(&mut self, bytes: &[u8], limits: &ConnectionLimits) -> Result<usize, Violation> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Head => match self.head(&bytes[at..], limits)? {
                    Some(len) => at += len,
                    None => break,
                },
                State::Body(left) => at += self.count(left, bytes.len() - at),
                _ => {
                    at += self.chunked(&bytes[at..]).map_err(|text| Violation {
                        fault: Fault::client(Code::InvalidArgument, text).reason(Reason::BadRequest),
                        is_inside_request: true,
                    })?;
                }
            }
        }
        Ok(at)
    }

    /// The length of a whole head, checked; `None` where its end has not come.
    fn head(&mut self, bytes: &[u8], limits: &ConnectionLimits) -> Result<Option<usize>, Violation> {
        let outside = |fault| Violation { fault, is_inside_request: false };
        // Empty lines before a request are skipped, as RFC 9112 §2.2 asks.
        let start = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count().min(4);
        // An end may begin in the last three bytes that were searched.
        let Some(end) = head_end(&bytes[start..], self.searched.saturating_sub(3)) else {
            self.searched = bytes.len() - start;
            return if bytes.len() > limits.head_bytes { Err(outside(head_check::too_large(bytes))) } else { Ok(None) };
        };
        self.searched = 0;
        if end > limits.head_bytes {
            return Err(outside(head_check::too_large(&bytes[start..start + end])));
        }
        self.state = match head_check::check(&bytes[start..start + end], limits).map_err(outside)? {
            Framing::Length(0) => State::Head,
            Framing::Length(length) => State::Body(length),
            Framing::Chunked => CHUNK_LINE,
        };
        self.heads += 1;
        Ok(Some(start + end))
    }

    fn count(&mut self, left: u64, available: usize) -> usize {
        let taken = left.min(available as u64);
        self.state = if taken == left { State::Head } else { State::Body(left - taken) };
        taken as usize
    }

    /// Steps over as much of a chunked body as one state covers.
    fn chunked(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let byte = bytes[0];
        self.state = match self.state {
            State::ChunkData(left) => {
                let taken = left.min(bytes.len() as u64);
                self.state = if taken == left { State::ChunkEnd(0) } else { State::ChunkData(left - taken) };
                return Ok(taken as usize);
            }
            State::ChunkEnd(0) if byte == b'\r' => State::ChunkEnd(1),
            State::ChunkEnd(1) if byte == b'\n' => CHUNK_LINE,
            State::ChunkEnd(_) => return Err("a chunk is longer than its size says"),
            State::ChunkLine { len, .. } if len >= CHUNK_LINE_MAX => return Err("a chunk-size line is too long"),
            State::ChunkLine { size, digits, .. } if byte == b'\n' => match (digits, size) {
                (0, _) => return Err("a chunk has no size"),
                (_, 0) => State::Trailers { total: 0, line: 0 },
                (_, size) => State::ChunkData(size),
            },
            State::ChunkLine { size, digits, len, is_extension } => {
                let value = (byte as char).to_digit(16);
                match value {
                    Some(value) if !is_extension && digits < 15 => State::ChunkLine {
                        size: size << 4 | u64::from(value),
                        digits: digits + 1,
                        len: len + 1,
                        is_extension,
                    },
                    Some(_) if !is_extension => return Err("a chunk is too large"),
                    _ => State::ChunkLine { size, digits, len: len + 1, is_extension: true },
                }
            }
            State::Trailers { total, .. } if total >= TRAILERS_MAX => return Err("the trailers are too large"),
            State::Trailers { line: 0, .. } if byte == b'\n' => State::Head,
            State::Trailers { total, .. } if byte == b'\n' => State::Trailers { total: total + 1, line: 0 },
            State::Trailers { total, line } => {
                State::Trailers { total: total + 1, line: line + usize::from(byte != b'\r') }
            }
            other => other,
        };
        Ok(1)
    }
}

/// The offset behind the empty line that ends a head, looked for behind `from`; a bare LF counts, so that the check
/// can refuse it.
fn head_end(bytes: &[u8], mut from: usize) -> Option<usize> {
    while let Some(at) = memchr(b'\n', &bytes[from..]) {
        let next = from + at + 1;
        match bytes.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}
