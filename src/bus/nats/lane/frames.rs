//! What a NATS server says (https://docs.nats.io/reference/reference-protocols/nats-protocol), taken off a buffer one
//! operation at a time. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

use super::super::super::Headers;
use super::super::super::headers::{CLOSING, OPENING};

/// Longest control line; INFO lines of large clusters are the longest.
const LINE_MAX: usize = 256 * 1024;
/// Largest message that any server can be set to send.
const MESSAGE_MAX: usize = 64 * 1024 * 1024;

/// One operation. `A` is what the reader makes of a subject.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<A> {
    /// MSG or HMSG.
    Message {
        address: A,
        /// Of the header block's first line, such as 503: nobody listens.
        status: Option<u16>,
        headers: Headers,
        payload: Bytes,
    },
    Ping,
    Pong,
    /// The server's description of itself, JSON.
    Info(Bytes),
    /// What it refuses.
    Error(String),
}

/// Bytes that no server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes the next operation off the buffer; `None` where more of it has to come.
pub(super) fn take<A>(buffer: &mut BytesMut, address: impl Fn(&[u8]) -> A) -> Result<Option<Said<A>>, Malformed> {
    loop {
        let Some(end) = memchr(b'\n', buffer) else {
            return if buffer.len() > LINE_MAX { Err(Malformed("a control line is too long")) } else { Ok(None) };
        };
        let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
        let (verb, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
        let said = match verb {
            b"MSG" | b"HMSG" => {
                let frame = Frame::read(verb, rest)?;
                if buffer.len() < end + 1 + frame.total + CLOSING.len() {
                    return Ok(None);
                }
                let address = address(frame.subject);
                let (head, total) = (frame.head, frame.total);
                buffer.advance(end + 1);
                return message(buffer, head, total, address).map(Some);
            }
            b"PING" => Said::Ping,
            b"PONG" => Said::Pong,
            b"INFO" => Said::Info(Bytes::copy_from_slice(rest.trim_ascii())),
            b"-ERR" => Said::Error(String::from_utf8_lossy(rest.trim_ascii()).trim_matches('\'').to_owned()),
            b"+OK" => {
                buffer.advance(end + 1);
                continue;
            }
            _ => return Err(Malformed("an unknown operation")),
        };
        buffer.advance(end + 1);
        return Ok(Some(said));
    }
}

/// The control line of a message.
struct Frame<'l> {
    subject: &'l [u8],
    /// Bytes of the header block, and of everything.
    head: usize,
    total: usize,
}

impl<'l> Frame<'l> {
    /// `MSG subject sid [reply] total` or `HMSG subject sid [reply] head total`.
    fn read(verb: &[u8], rest: &'l [u8]) -> Result<Frame<'l>, Malformed> {
        let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let malformed = || Malformed("a message's line is cut short");
        let subject = words.next().ok_or_else(malformed)?;
        words.next().ok_or_else(malformed)?;
        let total = number(words.next_back())?;
        let head = if verb == b"HMSG" { number(words.next_back())? } else { 0 };
        if head > total || total > MESSAGE_MAX {
            return Err(Malformed("a message's sizes cannot be"));
        }
        Ok(Frame { subject, head, total })
    }
}

fn number(word: Option<&[u8]>) -> Result<usize, Malformed> {
    let malformed = Malformed("a message's size is no number");
    let digits = word.filter(|word| (1..=9).contains(&word.len()) && word.iter().all(u8::is_ascii_digit));
    Ok(digits.ok_or(malformed)?.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

/// The message behind its control line, all of which is there.
fn message<A>(buffer: &mut BytesMut, head: usize, total: usize, address: A) -> Result<Said<A>, Malformed> {
    let (mut status, mut headers) = (None, Headers::default());
    if head > 0 {
        let mut lines = buffer.split_to(head);
        if !lines.starts_with(b"NATS/1.0") || !lines.ends_with(CLOSING) {
            return Err(Malformed("a header block does not begin with `NATS/1.0`"));
        }
        let first = memchr(b'\n', &lines).unwrap_or(0) + 1;
        if first != OPENING.len() {
            status = lines[OPENING.len() - 2..first].trim_ascii().get(..3).and_then(|code| number(Some(code)).ok());
        }
        lines.advance(first);
        lines.truncate(lines.len().saturating_sub(CLOSING.len()));
        headers = Headers::arrived(lines);
    }
    let payload = buffer.split_to(total - head).freeze();
    if !buffer.starts_with(CLOSING) {
        return Err(Malformed("a message is longer than its size says"));
    }
    buffer.advance(CLOSING.len());
    Ok(Said::Message { address, status: status.map(|code| code as u16), headers, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Said<String>>, Malformed> {
        let mut buffer = BytesMut::from(bytes);
        let mut found = Vec::new();
        while let Some(said) = take(&mut buffer, |subject| String::from_utf8_lossy(subject).into_owned())? {
            found.push(said);
        }
        assert!(buffer.is_empty(), "left: {buffer:?}");
        Ok(found)
    }

    fn message(address: &str, status: Option<u16>, lines: &str, payload: &str) -> Said<String> {
        let (address, headers) = (address.to_owned(), Headers::arrived(lines.into()));
        Said::Message { address, status, headers, payload: payload.to_owned().into() }
    }

    #[test]
    fn operations_are_read_as_servers_write_them() {
        let rows: Vec<(&str, Vec<Said<String>>)> = vec![
            ("MSG a.b 1 5\r\nhello\r\n", vec![message("a.b", None, "", "hello")]),
            ("MSG a.b 1 re.ply 0\r\n\r\n", vec![message("a.b", None, "", "")]),
            ("HMSG a 1 17 19\r\nNATS/1.0\r\nA:1\r\n\r\nhi\r\n", vec![message("a", None, "A:1\r\n", "hi")]),
            ("HMSG a 1 re 12 12\r\nNATS/1.0\r\n\r\n\r\n", vec![message("a", None, "", "")]),
            ("HMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", vec![message("a", Some(503), "", "")]),
            (
                "HMSG a 1 35 35\r\nNATS/1.0 408 Too late\r\nA: \r\nB:2\r\n\r\n\r\n",
                vec![message("a", Some(408), "A: \r\nB:2\r\n", "")],
            ),
            ("PING\r\n+OK\r\nPONG\r\n", vec![Said::Ping, Said::Pong]),
            ("INFO {\"a\":1} \r\n", vec![Said::Info("{\"a\":1}".into())]),
            ("-ERR 'Stale Connection'\r\n", vec![Said::Error("Stale Connection".to_owned())]),
        ];
        for (text, expected) in rows {
            assert_eq!(all(text.as_bytes()).as_ref(), Ok(&expected), "{text:?}");
            // Cut anywhere, the beginning is left alone until the rest is there.
            for cut in 0..text.len() {
                let (mut buffer, mut found) = (BytesMut::from(&text.as_bytes()[..cut]), Vec::new());
                let address = |subject: &[u8]| String::from_utf8_lossy(subject).into_owned();
                while let Some(said) = take(&mut buffer, address).unwrap() {
                    found.push(said);
                }
                buffer.extend_from_slice(&text.as_bytes()[cut..]);
                while let Some(said) = take(&mut buffer, address).unwrap() {
                    found.push(said);
                }
                assert_eq!(found, expected, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        let rows = [
            ("MSG a\r\n", "a message's line is cut short"),
            ("MSG a 1\r\n", "a message's size is no number"),
            ("MSG a 1 +5\r\nhello\r\n", "a message's size is no number"),
            ("MSG a 1 99999999999\r\n", "a message's size is no number"),
            ("MSG a 1 999999999\r\n", "a message's sizes cannot be"),
            ("HMSG a 1 9 5\r\n", "a message's sizes cannot be"),
            ("MSG a 1 5\r\nhelloX\r\n", "a message is longer than its size says"),
            ("HMSG a 1 5 7\r\nhello12\r\n", "a header block does not begin with `NATS/1.0`"),
            ("HMSG a 1 8 8\r\nNATS/1.0\r\n", "a header block does not begin with `NATS/1.0`"),
            ("HTTP/1.1 400 Bad Request\r\n", "an unknown operation"),
        ];
        for (text, expected) in rows {
            assert_eq!(all(text.as_bytes()), Err(Malformed(expected)), "{text:?}");
        }
        let endless = vec![b'a'; LINE_MAX + 1];
        assert_eq!(all(&endless), Err(Malformed("a control line is too long")));
    }
}
