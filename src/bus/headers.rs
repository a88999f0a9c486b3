//! The headers of a message, kept as they stand on the wire: one block of lines. A message asks for memory once, however
//! many headers it has, and a block that arrived is not copied.

use std::fmt;

use bytes::BytesMut;
use memchr::memchr;

/// Most headers of one message.
pub const HEADERS_MAX: usize = 64;
/// Bytes of a usual header line.
const USUAL_LINE: usize = 64;
/// `NATS/1.0` before the lines and an empty line behind them.
pub(super) const OPENING: &[u8] = b"NATS/1.0\r\n";
/// The empty line.
pub(super) const CLOSING: &[u8] = b"\r\n";

/// Names and values of a message's headers, in order; names compare without case.
#[derive(Clone, Default)]
pub struct Headers {
    /// `name: value`, CR and LF, once a header.
    lines: BytesMut,
    /// Headers that were pushed.
    pushed: usize,
}

impl Headers {
    /// No headers.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Room for that many headers of usual length.
    pub fn with_capacity(count: usize) -> Headers {
        Headers { lines: BytesMut::with_capacity(count * USUAL_LINE), pushed: 0 }
    }

    /// These headers, with room for so many more of usual length.
    pub fn and_room_for(&self, more: usize) -> Headers {
        let mut lines = BytesMut::with_capacity(self.lines.len() + more * USUAL_LINE);
        lines.extend_from_slice(&self.lines);
        Headers { lines, pushed: self.pushed }
    }

    /// Lines that arrived, without opening and closing.
    pub(crate) fn arrived(lines: BytesMut) -> Headers {
        Headers { lines, pushed: 0 }
    }

    /// Adds a header. Returns false, and adds nothing, where the value holds control characters or there are
    /// [`HEADERS_MAX`] already.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> bool {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        // Without a way out the loops run on sixteen bytes at a time.
        let is_name =
            name.iter().fold(!name.is_empty(), |so_far, byte| so_far & byte.is_ascii_graphic() & (*byte != b':'));
        let is_value = value.iter().fold(true, |so_far, byte| so_far & (*byte >= b' ') & (*byte != 0x7f));
        if !is_name || !is_value || self.pushed >= HEADERS_MAX {
            return false;
        }
        self.lines.reserve(name.len() + value.len() + 4);
        for part in [name, b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
        self.pushed += 1;
        true
    }

    /// Gives a header this one value, whatever it had; false, and nothing added, as [`Headers::push`].
    pub fn set(&mut self, name: &str, value: impl AsRef<str>) -> bool {
        if self.get(name).is_some() {
            let mut rest = Headers::with_capacity(8);
            for (other, value) in self.iter().filter(|row| !row.0.eq_ignore_ascii_case(name)) {
                rest.push(other, value);
            }
            *self = rest;
        }
        self.push(name, value)
    }

    /// The first value of a header, without white space around it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let row = Rows(&self.lines).find(|row| row.0.eq_ignore_ascii_case(name.as_bytes()))?;
        std::str::from_utf8(row.1.trim_ascii()).ok()
    }

    /// Names and values in order; what is no clean text is left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        Rows(&self.lines).filter_map(|(name, value)| {
            Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value.trim_ascii()).ok()?))
        })
    }

    /// True without headers.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes on the wire; none without headers.
    pub fn size(&self) -> usize {
        if self.lines.is_empty() { 0 } else { OPENING.len() + self.lines.len() + CLOSING.len() }
    }

    /// The lines as they stand on the wire.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }
}

/// Names and values of lines; lines without a colon are stepped over.
struct Rows<'h>(&'h [u8]);

impl<'h> Iterator for Rows<'h> {
    type Item = (&'h [u8], &'h [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let end = memchr(b'\n', self.0).map_or(self.0.len(), |at| at + 1);
            let (line, rest) = self.0.split_at(end);
            self.0 = rest;
            if let Some(colon) = memchr(b':', line) {
                return Some((&line[..colon], &line[colon + 1..]));
            }
        }
        None
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_arrived_are_read_as_others_write_them() {
        let rows: [(&str, Option<&str>); 6] = [
            ("Call: abc\r\n", Some("abc")),
            ("call:abc\r\n", Some("abc")),
            ("Other: x\r\nCALL:   a:b c \r\nCall: second\r\n", Some("a:b c")),
            ("no colon\r\nCall: abc\r\n", Some("abc")),
            ("Call:\r\n", Some("")),
            ("Caller: abc\r\n", None),
        ];
        for (lines, value) in rows {
            assert_eq!(Headers::arrived(lines.into()).get("Call"), value, "{lines:?}");
        }
        let broken = Headers::arrived(BytesMut::from(&b"Call: \xff\r\nNext: 1\r\n"[..]));
        assert_eq!((broken.get("Call"), broken.iter().count()), (None, 1));
    }

    #[test]
    fn a_header_that_is_set_has_one_value() {
        let mut headers = Headers::arrived("A: 1\r\nb: 2\r\na: 3\r\n".into());
        assert!(headers.set("a", "4") && headers.set("c", "5"));
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("b", "2"), ("a", "4"), ("c", "5")]);
        assert!(!headers.set("c", "\n"));
    }

    #[test]
    fn a_message_has_a_bounded_number_of_headers() {
        let mut headers = Headers::new();
        for number in 0..HEADERS_MAX {
            assert!(headers.push(format!("x-{number}"), "1"));
        }
        assert!(!headers.push("x-more", "1"));
        assert!(!headers.and_room_for(1).push("x-more", "1"));
        assert_eq!(headers.iter().count(), HEADERS_MAX);
    }
}
