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

/// Appends the text between two offsets of some bytes, quoted. What lies behind it is read, too, but never printed:
/// so that a short text costs one load and one store instead of two calls of `memcpy`.
#[inline(always)]
pub(super) fn string_part(bytes: &[u8], from: usize, to: usize, out: &mut Vec<u8>) {
    out.reserve(to.saturating_sub(from) + 34);
    out.push(b'"');
    let mut at = from;
    while at < to {
        let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) else {
            string_end(&bytes[at..to], out);
            break;
        };
        let len = (to - at).min(16);
        let special = raw::special_bytes(block) & ((1 << len) - 1);
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
    text(itoa::Buffer::new().format(value).as_bytes(), out);
}

/// Appends a short text by copies of fixed sizes that overlap, which beats a call of `memcpy`.
#[inline(always)]
fn text(text: &[u8], out: &mut Vec<u8>) {
    let end = out.len() + text.len();
    if let (Some(head), Some(tail)) = (text.first_chunk::<16>(), text.last_chunk::<16>())
        && text.len() <= 32
    {
        out.extend_from_slice(head);
        out.truncate(end - 16);
        out.extend_from_slice(tail);
    } else if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>())
        && text.len() <= 16
    {
        out.extend_from_slice(head);
        out.truncate(end - 8);
        out.extend_from_slice(tail);
    } else if let (Some(head), Some(tail)) = (text.first_chunk::<4>(), text.last_chunk::<4>())
        && text.len() <= 8
    {
        out.extend_from_slice(head);
        out.truncate(end - 4);
        out.extend_from_slice(tail);
    } else if text.len() < 4 {
        text.iter().for_each(|byte| out.push(*byte));
    } else {
        out.extend_from_slice(text);
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
    self::text(text.strip_suffix(".0").unwrap_or(text).as_bytes(), out);
}
