//! What a request head must be before hyper sees it (RFC 9112): hyper accepts or hides some of what two parsers in a
//! row would read differently. Pure; a table of refusals.

use memchr::{memchr, memchr_iter};

use super::ConnectionLimits;
use crate::fault::{Code, Fault, Reason};

/// Longest request target.
const TARGET_MAX: usize = 16 * 1024;
/// Longest single header line.
const LINE_MAX: usize = 16 * 1024;

/// How the body behind a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// That many bytes, zero included.
    Length(u64),
    /// Chunks.
    Chunked,
}

fn refused(reason: Reason, text: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    let code = match reason {
        Reason::NotImplemented | Reason::MethodNotAllowed => Code::Unimplemented,
        _ => Code::InvalidArgument,
    };
    Fault::client(code, text).reason(reason)
}

fn bad(text: &'static str) -> Fault {
    refused(Reason::BadRequest, text)
}

/// The refusal of a head that has grown too large before its end came.
pub(super) fn too_large(head: &[u8]) -> Fault {
    if head.contains(&b'\n') {
        refused(Reason::HeadersTooLarge, "the request's header fields are too large")
    } else {
        refused(Reason::UriTooLong, "the request target is too long")
    }
}

/// Checks a whole head, its empty line included.
pub(super) fn check(head: &[u8], limits: &ConnectionLimits) -> Result<Framing, Fault> {
    check_bytes(head)?;
    let mut from = 0;
    let mut lines = memchr_iter(b'\n', head).map(|end| {
        let line = &head[from..end];
        from = end + 1;
        line.strip_suffix(b"\r").unwrap_or(line)
    });
    let first = lines.next().unwrap_or_default();
    let (verb, target, version) = request_line(first)?;
    let mut fields = Fields::default();
    for line in lines.take_while(|line| !line.is_empty()) {
        fields.count += 1;
        if fields.count > limits.headers || line.len() > LINE_MAX {
            return Err(refused(Reason::HeadersTooLarge, "the request's header fields are too many or too large"));
        }
        fields.take(line)?;
    }
    fields.check_host(target, version)?;
    if verb == b"TRACE" {
        return Err(
            refused(Reason::MethodNotAllowed, "TRACE is not served").detail("allow", "GET, POST, PUT, PATCH, DELETE")
        );
    }
    if verb == b"CONNECT" || fields.is_upgrade {
        return Err(refused(Reason::NotImplemented, "tunnels and upgrades are not served"));
    }
    fields.framing(version)
}

/// Line ends are CR LF, and no other control character stands in a head.
fn check_bytes(head: &[u8]) -> Result<(), Fault> {
    if is_clean(head) { Ok(()) } else { Err(first_bad_byte(head)) }
}

/// The same, fast: most heads are fine.
fn is_clean(head: &[u8]) -> bool {
    let is_bad = |byte: &u8| (*byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')) || *byte == 0x7f;
    // Without a way out the loop runs on sixteen bytes at a time.
    let has_bad = head.iter().fold(false, |found, byte| found | is_bad(byte));
    let mut line_ends = 0;
    for at in memchr_iter(b'\n', head) {
        line_ends += 1;
        if at == 0 || head[at - 1] != b'\r' {
            return false;
        }
    }
    !has_bad && memchr_iter(b'\r', head).count() == line_ends
}

#[cold]
fn first_bad_byte(head: &[u8]) -> Fault {
    let mut before = 0;
    for byte in head {
        match byte {
            b'\n' if before != b'\r' => return bad("a line ends in a bare LF: lines end in CR LF"),
            b'\r' | b'\n' | b'\t' => {}
            0..=0x1f | 0x7f => return bad("a control character stands in the request head"),
            _ => {}
        }
        if before == b'\r' && *byte != b'\n' {
            break;
        }
        before = *byte;
    }
    bad("a bare CR stands in the request head")
}

/// True for the bytes of a set.
const fn set_of(bytes: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        set[bytes[at] as usize] = true;
        at += 1;
    }
    set
}

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Bytes of ordinary request targets: what needs no second look.
const IN_TARGET: [bool; 256] = both(set_of(ALPHANUMERIC), set_of(b"/-._~:@!$&'()*+,;=%?"));
/// Bytes of header names (RFC 9110 §5.6.2).
const IN_NAME: [bool; 256] = both(set_of(ALPHANUMERIC), set_of(b"!#$%&'*+-.^_`|~"));

const fn both(one: [bool; 256], other: [bool; 256]) -> [bool; 256] {
    let mut set = one;
    let mut at = 0;
    while at < 256 {
        set[at] |= other[at];
        at += 1;
    }
    set
}

/// Verb, target, and whether the version is 1.1.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), Fault> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (verb, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(verb), Some(target), Some(version), None) = (verb, target, version, parts.next()) else {
        return Err(bad("the request line is not `METHOD target HTTP/1.1`"));
    };
    if target.len() > TARGET_MAX {
        return Err(refused(Reason::UriTooLong, "the request target is too long"));
    }
    // hyper closes without an answer where it cannot read the target.
    if !target.iter().all(|byte| IN_TARGET[usize::from(*byte)]) && http::Uri::try_from(target).is_err() {
        return Err(bad("the request target holds characters that must be percent-encoded"));
    }
    let is_token = !verb.is_empty() && verb.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    match version {
        _ if !is_token || target.is_empty() => Err(bad("the request line is not `METHOD target HTTP/1.1`")),
        b"HTTP/1.1" => Ok((verb, target, true)),
        b"HTTP/1.0" => Ok((verb, target, false)),
        _ => Err(bad("the version is neither HTTP/1.1 nor HTTP/1.0")),
    }
}

/// What the header fields say of framing.
#[derive(Default)]
struct Fields<'h> {
    count: usize,
    host: Option<&'h [u8]>,
    length: Option<u64>,
    is_chunked: bool,
    is_upgrade: bool,
}

impl<'h> Fields<'h> {
    fn take(&mut self, line: &'h [u8]) -> Result<(), Fault> {
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(bad("a header field is folded over two lines"));
        }
        let colon = memchr(b':', line).ok_or_else(|| bad("a header field has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|byte| IN_NAME[usize::from(*byte)]) {
            return Err(bad("a header name has a character that cannot stand there, such as a space before the colon"));
        }
        if name.eq_ignore_ascii_case(b"host") {
            if self.host.replace(value).is_some() {
                return Err(bad("two Host fields"));
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let is_number = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(value).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
            let number = number.ok_or_else(|| bad("Content-Length is no number"))?;
            if self.length.replace(number).is_some() {
                return Err(bad("two Content-Length fields"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || self.is_chunked {
                return Err(bad("Transfer-Encoding is not `chunked`"));
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(refused(Reason::ExpectationFailed, "Expect knows only `100-continue`"));
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.is_upgrade = true;
        }
        Ok(())
    }

    fn check_host(&self, target: &[u8], is_1_1: bool) -> Result<(), Fault> {
        let Some(host) = self.host else {
            return if is_1_1 { Err(bad("no Host field")) } else { Ok(()) };
        };
        let rest = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"));
        let authority = rest.map(|rest| rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or_default());
        match authority {
            Some(authority) if !authority.eq_ignore_ascii_case(host) => {
                Err(bad("the Host field names another host than the request target"))
            }
            _ => Ok(()),
        }
    }

    fn framing(&self, is_1_1: bool) -> Result<Framing, Fault> {
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(bad("both Transfer-Encoding and Content-Length")),
            (true, None) if !is_1_1 => Err(bad("Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}
