//! JSON tokens over a [`Cursor`]: white space, strings, numbers, whole values to skip (RFC 8259, nothing laxer).

use super::error::{ErrorKind, Result, TranscodeError};
use super::raw::{self, Cursor};

/// Deepest nesting of objects, arrays, messages, `Struct` and `Any`, for both directions.
pub const DEPTH_MAX: u32 = 100;

/// A string token: the offsets between its quotes, and whether it has escapes.
#[derive(Clone, Copy)]
pub(super) struct Token {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) has_escapes: bool,
}

/// Steps over white space.
#[inline(always)]
pub(super) fn skip_space(cursor: &mut Cursor) {
    if cursor.peek() <= b' ' {
        skip_space_slow(cursor);
    }
}

#[inline(never)]
fn skip_space_slow(cursor: &mut Cursor) {
    while matches!(cursor.peek(), b' ' | b'\n' | b'\r' | b'\t') {
        cursor.bump();
    }
}

/// What stands at the cursor, in words, for error texts.
#[cold]
pub(super) fn found(cursor: &Cursor) -> String {
    match cursor.peek() {
        0 if cursor.at() >= cursor.end() => "the end".to_owned(),
        b'"' => "a string".to_owned(),
        b'{' => "an object".to_owned(),
        b'[' => "an array".to_owned(),
        _ if cursor.rest().starts_with(b"true") || cursor.rest().starts_with(b"false") => "a boolean".to_owned(),
        _ if cursor.rest().starts_with(b"null") => "null".to_owned(),
        b'-' | b'0'..=b'9' => "a number".to_owned(),
        byte if byte.is_ascii_graphic() => format!("`{}`", byte as char),
        byte => format!("byte 0x{byte:02x}"),
    }
}

/// A syntax error at the cursor.
#[cold]
pub(super) fn expected<T>(cursor: &Cursor, what: &str) -> Result<T> {
    Err(TranscodeError::new(ErrorKind::Syntax, cursor.at(), format!("expected {what}, found {}", found(cursor))))
}

/// Reads a string token; the cursor stands at its opening quote, and behind the closing one afterwards.
#[inline(always)]
pub(super) fn string(cursor: &mut Cursor) -> Result<Token> {
    if !cursor.eat(b'"') {
        return expected(cursor, "a string");
    }
    let from = cursor.at();
    let to = cursor.string_end(from);
    cursor.seek(to);
    if cursor.eat(b'"') {
        return Ok(Token { from, to, has_escapes: false });
    }
    string_slow(cursor, from)
}

#[inline(never)]
fn string_slow(cursor: &mut Cursor, from: usize) -> Result<Token> {
    loop {
        match cursor.peek() {
            b'"' => {
                let to = cursor.at();
                cursor.bump();
                return Ok(Token { from, to, has_escapes: true });
            }
            b'\\' => {
                cursor.bump();
                if cursor.at() >= cursor.end() {
                    return expected(cursor, "an escape");
                }
                cursor.bump();
            }
            _ if cursor.at() >= cursor.end() => return expected(cursor, "`\"`, the end of the string"),
            byte => {
                let text = format!("control character 0x{byte:02x} in a string: write it as \\u{byte:04x}");
                return Err(TranscodeError::new(ErrorKind::Syntax, cursor.at(), text));
            }
        }
        let next = cursor.string_end(cursor.at());
        cursor.seek(next);
    }
}

/// Appends the text of a token, escapes resolved.
#[inline(always)]
pub(super) fn append_text(cursor: &Cursor, token: Token, out: &mut Vec<u8>) -> Result<()> {
    if token.has_escapes {
        return append_unescaped(cursor, token, out);
    }
    out.extend_from_slice(cursor.slice(token.from, token.to));
    Ok(())
}

#[inline(never)]
fn append_unescaped(cursor: &Cursor, token: Token, out: &mut Vec<u8>) -> Result<()> {
    let (text, offset, mut at) = (cursor.slice(token.from, token.to), token.from, 0);
    while at < text.len() {
        if text[at] != b'\\' {
            // Up to the next backslash, or to the quote behind the text.
            let run = cursor.string_end(offset + at) - offset - at;
            if run <= 32 {
                raw::put_block(out, cursor.thirty_two(offset + at), run);
            } else {
                out.extend_from_slice(&text[at..at + run]);
            }
            at += run;
            continue;
        }
        let simple = match text.get(at + 1) {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'u') => {
                let (character, len) = unicode_escape(text, at, offset)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += len;
                continue;
            }
            _ => {
                let text = "expected one of `\"\\/bfnrtu` behind `\\`";
                return Err(TranscodeError::new(ErrorKind::Syntax, offset + at, text));
            }
        };
        out.push(simple);
        at += 2;
    }
    Ok(())
}

/// The character of `\uXXXX` or a surrogate pair of them, and how many bytes it takes.
fn unicode_escape(text: &[u8], at: usize, offset: usize) -> Result<(char, usize)> {
    let error = |text: &str| TranscodeError::new(ErrorKind::Syntax, offset + at, text);
    let unit = |from: usize| -> Option<u32> {
        let digits = text.get(from..from + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(at + 2).ok_or_else(|| error("expected four hex digits behind `\\u`"))?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 6));
    }
    let second = if text.get(at + 6..at + 8) == Some(b"\\u") { unit(at + 8) } else { None };
    match second {
        Some(second) if first < 0xdc00 && (0xdc00..0xe000).contains(&second) => {
            let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            char::from_u32(scalar).map(|character| (character, 12)).ok_or_else(|| error("a lone surrogate"))
        }
        _ => Err(error("a lone surrogate: `\\ud800` to `\\udfff` come in pairs")),
    }
}

/// Reads a number token and returns its text; the grammar of RFC 8259 §6.
pub(super) fn number<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8]> {
    let from = cursor.at();
    cursor.eat(b'-');
    match cursor.peek() {
        b'0' => cursor.bump(),
        b'1'..=b'9' => digits(cursor),
        _ => return expected(cursor, "a digit"),
    }
    if cursor.eat(b'.') {
        if !cursor.peek().is_ascii_digit() {
            return expected(cursor, "a digit");
        }
        digits(cursor);
    }
    if matches!(cursor.peek(), b'e' | b'E') {
        cursor.bump();
        if matches!(cursor.peek(), b'+' | b'-') {
            cursor.bump();
        }
        if !cursor.peek().is_ascii_digit() {
            return expected(cursor, "a digit");
        }
        digits(cursor);
    }
    if cursor.peek().is_ascii_digit() {
        return expected(cursor, "a number without leading zeros");
    }
    Ok(cursor.slice(from, cursor.at()))
}

fn digits(cursor: &mut Cursor) {
    while cursor.peek().is_ascii_digit() {
        cursor.bump();
    }
}

/// Steps over one value of any kind, checking its syntax; iterative, so that depth costs no stack.
pub(super) fn skip_value(cursor: &mut Cursor, depth: u32, depth_max: u32) -> Result<()> {
    // One bit a level: 1 = object. `depth_max` never exceeds 128.
    let mut objects: u128 = 0;
    let mut level = 0;
    loop {
        skip_space(cursor);
        match cursor.peek() {
            open @ (b'{' | b'[') => {
                if depth + level >= depth_max {
                    return Err(too_deep(cursor.at(), depth_max));
                }
                cursor.bump();
                level += 1;
                objects = objects << 1 | u128::from(open == b'{');
                skip_space(cursor);
                if cursor.eat(if open == b'{' { b'}' } else { b']' }) {
                    level -= 1;
                    objects >>= 1;
                } else {
                    if open == b'{' {
                        skip_key(cursor)?;
                    }
                    continue;
                }
            }
            _ => skip_scalar(cursor)?,
        }
        // Behind a value: close what ends here, or go on to the next element.
        loop {
            if level == 0 {
                return Ok(());
            }
            skip_space(cursor);
            let is_object = objects & 1 == 1;
            if cursor.eat(b',') {
                if is_object {
                    skip_space(cursor);
                    skip_key(cursor)?;
                }
                break;
            }
            if !cursor.eat(if is_object { b'}' } else { b']' }) {
                return expected(cursor, if is_object { "`,` or `}`" } else { "`,` or `]`" });
            }
            level -= 1;
            objects >>= 1;
        }
    }
}

/// The error of a value nested more deeply than the budget.
#[cold]
pub(super) fn too_deep(offset: usize, depth_max: u32) -> TranscodeError {
    TranscodeError::new(ErrorKind::Depth, offset, format!("nested more than {depth_max} levels deep"))
}

fn skip_key(cursor: &mut Cursor) -> Result<()> {
    skip_string(cursor)?;
    skip_space(cursor);
    if cursor.eat(b':') { Ok(()) } else { expected(cursor, "`:`") }
}

fn skip_string(cursor: &mut Cursor) -> Result<()> {
    let token = string(cursor)?;
    if token.has_escapes { append_text(cursor, token, &mut Vec::new()) } else { Ok(()) }
}

fn skip_scalar(cursor: &mut Cursor) -> Result<()> {
    match cursor.peek() {
        b'"' => skip_string(cursor),
        b'-' | b'0'..=b'9' => number(cursor).map(|_| ()),
        b't' if cursor.eat_word(b"true") => Ok(()),
        b'f' if cursor.eat_word(b"false") => Ok(()),
        b'n' if cursor.eat_word(b"null") => Ok(()),
        _ => expected(cursor, "a value"),
    }
}
