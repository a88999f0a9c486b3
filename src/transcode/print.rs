//! JSON text out: strings and numbers (RFC 8259, shortest forms). The one JSON printer of the request path.

use super::raw;

/// Appends a quoted string; escapes are the short ones, and `\u00XX` for other control characters.
#[inline]
pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 34);
    out.push(b'"');
    let mut rest = text;
    while let Some((block, tail)) = rest.split_first_chunk::<16>() {
        let special = raw::special_bytes(block);
        if special == 0 {
            raw::put_short(out, block, 16);
            rest = tail;
            continue;
        }
        let plain = special.trailing_zeros() as usize;
        raw::put_short(out, block, plain);
        escape(block[plain], out);
        rest = &rest[plain + 1..];
    }
    string_end(rest, out);
    out.push(b'"');
}

/// Appends fewer than sixteen bytes of text, escaped.
fn string_end(rest: &[u8], out: &mut Vec<u8>) {
    let mut block = [b' '; 16];
    block[..rest.len()].copy_from_slice(rest);
    let mut special = raw::special_bytes(&block);
    if special == 0 {
        raw::put_short(out, &block, rest.len());
    } else {
        let mut from = 0;
        while special != 0 {
            let at = special.trailing_zeros() as usize;
            out.extend_from_slice(&rest[from..at]);
            escape(rest[at], out);
            from = at + 1;
            special &= special - 1;
        }
        out.extend_from_slice(&rest[from..]);
    }
}

/// Appends the text between two offsets of some bytes, quoted; where the first sixteen bytes begin that are not all
/// ASCII, if there are such. What lies behind the text is read, too, but never printed: so that a short text costs one
/// load and one store instead of two calls of `memcpy`.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn string_part(bytes: &[u8], from: usize, to: usize, out: &mut Vec<u8>) -> Option<usize> {
    let len = to.saturating_sub(from);
    if len <= 16
        && let Some(block) = bytes.get(from..).and_then(|rest| rest.first_chunk::<16>())
    {
        let ours = (1 << len) - 1;
        if raw::special_bytes(block) & ours == 0 {
            raw::put_quoted(out, block, len);
            return (raw::high_bytes(block) & ours != 0).then_some(from);
        }
    }
    long_string_part(bytes, from, to, out)
}

fn long_string_part(bytes: &[u8], from: usize, to: usize, out: &mut Vec<u8>) -> Option<usize> {
    out.reserve(to.saturating_sub(from) + 34);
    out.push(b'"');
    let (mut at, mut not_ascii) = (from, None);
    while at < to {
        let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) else {
            let end = &bytes[at..to];
            string_end(end, out);
            not_ascii = not_ascii.or(if end.is_ascii() { None } else { Some(at) });
            break;
        };
        let len = (to - at).min(16);
        let ours = (1 << len) - 1;
        if not_ascii.is_none() && raw::high_bytes(block) & ours != 0 {
            not_ascii = Some(at);
        }
        let special = raw::special_bytes(block) & ours;
        if special == 0 {
            raw::put_short(out, block, len);
            at += len;
        } else {
            let plain = special.trailing_zeros() as usize;
            raw::put_short(out, block, plain);
            escape(block[plain], out);
            at += plain + 1;
        }
    }
    out.push(b'"');
    not_ascii
}

#[inline(never)]
fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends a quoted JSON string.
pub fn json_string(text: &str, out: &mut Vec<u8>) {
    string(text.as_bytes(), out);
}

/// Appends an integer.
#[inline(always)]
pub(super) fn integer<I: itoa::Integer>(value: I, out: &mut Vec<u8>) {
    raw::put_text(out, itoa::Buffer::new().format(value).as_bytes());
}

/// Appends `true` or `false`.
#[inline]
pub(super) fn boolean(value: bool, out: &mut Vec<u8>) {
    if value {
        raw::put_short(out, b"true            ", 4);
    } else {
        raw::put_short(out, b"false           ", 5);
    }
}

/// Appends a 64-bit integer as ProtoJSON wants it: in quotes.
#[inline(always)]
pub(super) fn quoted_integer<I: itoa::Integer>(value: I, out: &mut Vec<u8>) {
    out.push(b'"');
    integer(value, out);
    out.push(b'"');
}

/// Appends the shortest text that reads back as the same number; whole numbers have no fraction.
#[inline(always)]
pub(super) fn float<F: zmij::Float + Into<f64> + Copy>(value: F, out: &mut Vec<u8>) {
    let wide: f64 = value.into();
    if !wide.is_finite() {
        let name: &[u8] = match wide {
            v if v.is_nan() => b"\"NaN\"",
            v if v > 0.0 => b"\"Infinity\"",
            _ => b"\"-Infinity\"",
        };
        return out.extend_from_slice(name);
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    raw::put_text(out, text.strip_suffix(".0").unwrap_or(text).as_bytes());
}
