//! A request path taken apart, by one rule for everybody: what is matched is what is captured and what is logged.

use std::borrow::Cow;

use super::percent;

/// Most segments of a request path.
pub const SEGMENTS_MAX: usize = 64;

/// Where the segments of a path are, as byte ranges of it.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    ends: [u16; SEGMENTS_MAX],
    len: u8,
}

impl Segments {
    /// Splits a path that begins with `/`. `None` where it does not, is too long, or has an empty, `.` or `..`
    /// segment, percent-encoded or not: such paths name nothing here, and no proxy in front may read them another way.
    pub fn split(path: &str) -> Option<Segments> {
        let bytes = path.as_bytes();
        let mut segments = Segments { ends: [0; SEGMENTS_MAX], len: 0 };
        if bytes.first() != Some(&b'/') || bytes.len() > usize::from(u16::MAX) {
            return None;
        }
        let mut start = 1;
        while start < bytes.len() {
            let len = bytes[start..].iter().position(|byte| *byte == b'/').unwrap_or(bytes.len() - start);
            let is_last = start + len == bytes.len();
            if len == 0 || is_dots(&path[start..start + len]) || usize::from(segments.len) == SEGMENTS_MAX {
                return None;
            }
            segments.ends[usize::from(segments.len)] = (start + len) as u16;
            segments.len += 1;
            start += len + 1;
            if start == bytes.len() && !is_last {
                return None;
            }
        }
        Some(segments)
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True for `/`.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the segments `from..to` begin and end in the path, slashes between them included.
    pub fn range(&self, from: usize, to: usize) -> std::ops::Range<usize> {
        let before = if from == 0 { 0 } else { usize::from(self.ends[from - 1]) };
        // Behind the last segment there is no slash to step over.
        if from >= to { before..before } else { before + 1..usize::from(self.ends[to - 1]) }
    }

    pub(super) fn get<'p>(&self, path: &'p str, index: usize) -> &'p str {
        &path[self.range(index, index + 1)]
    }

    /// The last segment, empty for `/`.
    pub(super) fn last<'p>(&self, path: &'p str) -> &'p str {
        self.len().checked_sub(1).map_or("", |index| self.get(path, index))
    }

    /// A segment as literals are compared with it. What cannot be decoded keeps its `%`, which no literal has.
    pub(super) fn decoded(segment: &str) -> Cow<'_, str> {
        percent::decode(segment, false, false, false).unwrap_or(Cow::Borrowed(segment))
    }
}

/// True for `.` and `..`, in any spelling.
pub(super) fn is_dots(segment: &str) -> bool {
    if !segment.starts_with(['.', '%']) {
        return false;
    }
    let (mut rest, mut dots) = (segment, 0);
    while !rest.is_empty() {
        let encoded = rest.get(..3).filter(|three| three.eq_ignore_ascii_case("%2e"));
        let Some(behind) = rest.strip_prefix('.').or_else(|| encoded.map(|_| &rest[3..])) else { return false };
        (rest, dots) = (behind, dots + 1);
    }
    dots <= 2
}
