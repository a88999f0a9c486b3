//! Single values: numbers, booleans, text, bytes, enums, and messages with their tag and length.

use std::borrow::Cow;

use super::super::error::{ErrorKind, Result, TranscodeError};
use super::super::raw::{self, Room};
use super::super::scalar;
use super::super::scan::{self, Token};
use super::super::table::{EnumId, Field, Kind, MessageId, WireType};
use super::super::wire::varint_block;
use super::{Claims, Reader, mismatch};

/// Longest piece of a wrong value that an error text repeats, in bytes.
const QUOTED_MAX: usize = 40;

/// The integers of a kind: the largest magnitude below and above zero, and their name in error texts.
struct Range {
    below: u64,
    above: u64,
    what: &'static str,
}

const INT32: Range = Range { below: 1 << 31, above: (1 << 31) - 1, what: "a 32-bit integer" };
const INT64: Range = Range { below: 1 << 63, above: (1 << 63) - 1, what: "a 64-bit integer" };
const UINT32: Range = Range { below: 0, above: u32::MAX as u64, what: "an unsigned 32-bit integer" };
const UINT64: Range = Range { below: 0, above: u64::MAX, what: "an unsigned 64-bit integer" };

/// A number token: its text, and where it began.
struct Number<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'t> Reader<'t, '_, '_> {
    /// A single value with its tag; zero is left out unless `keeps_zero`.
    #[inline(always)]
    pub(super) fn single(&mut self, field: &'t Field, keeps_zero: bool, claims: &Claims) -> Result<()> {
        match field.spec.kind {
            Kind::String => self.text_field(field, keeps_zero),
            Kind::Message(id) => {
                self.tag(field);
                let at = self.begin();
                self.message(id, claims)?;
                self.end(at);
                Ok(())
            }
            Kind::Group(id) => self.group(field, id, claims),
            Kind::Bytes => {
                let old = self.out.len();
                self.tag(field);
                let at = self.begin();
                self.base64()?;
                if self.out.len() == at && !keeps_zero {
                    self.out.truncate(old);
                } else {
                    self.end(at);
                }
                Ok(())
            }
            kind => {
                let bits = self.bits(kind)?;
                if bits != 0 || keeps_zero {
                    let mut room = Room::new(self.out, 2 * 16);
                    let (tag, len) = field.tag_block();
                    room.short(tag, len);
                    put_bits(kind, bits, &mut room);
                    room.keep();
                }
                Ok(())
            }
        }
    }

    /// One element of a list or one entry's value, or a single value: always written.
    #[inline(always)]
    pub(super) fn element(&mut self, field: &'t Field, claims: &Claims) -> Result<()> {
        self.single(field, true, claims)
    }

    fn group(&mut self, field: &Field, id: MessageId, claims: &Claims) -> Result<()> {
        self.tag(field);
        self.message(id, claims)?;
        self.varint(u64::from(field.spec.number) << 3 | 4);
        Ok(())
    }

    /// A number, boolean or enum without its tag.
    #[inline(always)]
    pub(super) fn bare(&mut self, kind: Kind) -> Result<()> {
        let bits = self.bits(kind)?;
        let mut room = Room::new(self.out, 16);
        put_bits(kind, bits, &mut room);
        room.keep();
        Ok(())
    }

    /// The bits of a number, boolean or enum, as its kind writes them.
    #[inline(always)]
    fn bits(&mut self, kind: Kind) -> Result<u64> {
        Ok(match kind {
            Kind::Double => self.double_value("a number")?.to_bits(),
            Kind::Float => self.float()?.to_bits().into(),
            Kind::Bool => self.boolean()?.into(),
            Kind::Enum(id) => i64::from(self.enumeration(id)?) as u64,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                let value = self.integer(&INT32, || INT32.what.into())? as i32;
                match kind {
                    Kind::Sint32 => u64::from((value << 1 ^ value >> 31) as u32),
                    Kind::Sfixed32 => u64::from(value as u32),
                    _ => i64::from(value) as u64,
                }
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                let value = self.integer(&INT64, || INT64.what.into())? as i64;
                if kind == Kind::Sint64 { (value << 1 ^ value >> 63) as u64 } else { value as u64 }
            }
            Kind::Uint32 | Kind::Fixed32 => self.integer(&UINT32, || UINT32.what.into())?,
            _ => self.integer(&UINT64, || UINT64.what.into())?,
        })
    }

    /// An integer as number or string, in two's complement. The fast path takes plain digits; everything else is parsed
    /// exactly.
    #[inline(always)]
    fn integer(&mut self, range: &Range, what: impl Fn() -> Cow<'static, str>) -> Result<u64> {
        let start = self.cursor.at();
        let is_quoted = self.cursor.eat(b'"');
        let is_negative = self.cursor.eat(b'-');
        let first = self.cursor.peek();
        let (value, digits) = self.cursor.digits(0);
        let is_plain = first != b'0' && digits <= 19 || digits == 1;
        let is_over = if is_quoted { self.cursor.eat(b'"') } else { !matches!(self.cursor.peek(), b'.' | b'e' | b'E') };
        if is_plain && is_over && digits > 0 && value <= if is_negative { range.below } else { range.above } {
            return Ok(if is_negative { value.wrapping_neg() } else { value });
        }
        self.cursor.seek(start);
        self.integer_slow(range, &what())
    }

    #[inline(never)]
    fn integer_slow(&mut self, range: &Range, what: &str) -> Result<u64> {
        let mut text = std::mem::take(&mut self.text);
        let number = self.number_text(&mut text, what)?;
        let (low, high) = (-i128::from(range.below), i128::from(range.above));
        let value = scalar::integer(number.text).filter(|value| *value >= low && *value <= high);
        let result = value.map(|value| value as u64).ok_or_else(|| wrong_value(number.at, what, number.text));
        self.text = text;
        result
    }

    /// A double as number, string, or one of the three names.
    #[inline(always)]
    pub(super) fn double_value(&mut self, what: &str) -> Result<f64> {
        if self.cursor.peek() == b'"' {
            return self.quoted_double(what);
        }
        let at = self.cursor.at();
        if !matches!(self.cursor.peek(), b'-' | b'0'..=b'9') {
            return mismatch(&self.cursor, what);
        }
        match self.short_double() {
            Some(value) => Ok(value),
            None => {
                self.cursor.seek(at);
                let text = scan::number(&mut self.cursor)?;
                scalar::checked_double(text).ok_or_else(|| wrong_value(at, what, text))
            }
        }
    }

    /// Up to 19 digits and no exponent: what games send.
    #[inline(always)]
    fn short_double(&mut self) -> Option<f64> {
        let (is_negative, mantissa, behind) = self.short_decimal()?;
        scalar::short_double(is_negative, mantissa, behind)
    }

    /// A decimal number of up to 19 digits without an exponent: its sign, its digits, and how many are behind the point.
    #[inline(always)]
    fn short_decimal(&mut self) -> Option<(bool, u64, usize)> {
        let is_negative = self.cursor.eat(b'-');
        let first = self.cursor.peek();
        let (mut mantissa, digits) = self.cursor.digits(0);
        if digits == 0 || first == b'0' && digits > 1 {
            return None;
        }
        let mut behind = 0;
        if self.cursor.eat(b'.') {
            (mantissa, behind) = self.cursor.digits(mantissa);
            if behind == 0 {
                return None;
            }
        }
        let is_short = digits + behind <= 19 && !matches!(self.cursor.peek(), b'e' | b'E');
        is_short.then_some((is_negative, mantissa, behind))
    }

    #[inline(never)]
    fn quoted_double(&mut self, what: &str) -> Result<f64> {
        let mut text = std::mem::take(&mut self.text);
        let number = self.number_text(&mut text, what)?;
        let value = scalar::named_double(number.text).or_else(|| scalar::double(number.text));
        let result = value.ok_or_else(|| wrong_value(number.at, what, number.text));
        self.text = text;
        result
    }

    fn float(&mut self) -> Result<f32> {
        let what = "a number in the range of a float";
        let at = self.cursor.at();
        let short = if self.cursor.peek() == b'"' { None } else { self.short_decimal() };
        let exact =
            short.and_then(|(is_negative, mantissa, behind)| scalar::exact_float(is_negative, mantissa, behind));
        if let Some(value) = exact {
            return Ok(value);
        }
        self.cursor.seek(at);
        let mut text = std::mem::take(&mut self.text);
        let is_quoted = self.cursor.peek() == b'"';
        let number = self.number_text(&mut text, what)?;
        let named = if is_quoted { scalar::named_double(number.text).map(|value| value as f32) } else { None };
        let value =
            named.or_else(|| scalar::float(number.text)).ok_or_else(|| wrong_value(number.at, what, number.text));
        self.text = text;
        value
    }

    /// The text of a number, quoted or not; a quoted one with escapes is resolved into `scratch`.
    #[inline(always)]
    fn number_text<'s>(&mut self, scratch: &'s mut Vec<u8>, what: &str) -> Result<Number<'s>>
    where
        Self: 's,
    {
        let at = self.cursor.at();
        scratch.clear();
        match self.cursor.peek() {
            b'"' => {
                let token = scan::string(&mut self.cursor)?;
                scan::append_text(&self.cursor, token, scratch)?;
            }
            b'-' | b'0'..=b'9' => scratch.extend_from_slice(scan::number(&mut self.cursor)?),
            _ => return mismatch(&self.cursor, what),
        }
        Ok(Number { text: scratch, at })
    }

    #[inline(always)]
    pub(super) fn boolean(&mut self) -> Result<bool> {
        if self.cursor.eat_word(b"true") {
            return Ok(true);
        }
        if self.cursor.eat_word(b"false") {
            return Ok(false);
        }
        mismatch(&self.cursor, "`true` or `false`")
    }

    /// An enum value by name or number.
    fn enumeration(&mut self, id: EnumId) -> Result<i32> {
        let table = self.tables.enumeration(id);
        let at = self.cursor.at();
        let number = match self.cursor.peek() {
            b'"' => {
                let token = scan::string(&mut self.cursor)?;
                let name = self.token_text(token)?;
                match table.number_of(name) {
                    Some(number) => number,
                    None => return Err(wrong_value(at, &format!("a value of `{}`", table.name), name)),
                }
            }
            b'n' if table.is_null && self.cursor.eat_word(b"null") => 0,
            b'-' | b'0'..=b'9' => {
                let what = || format!("a value of `{}`", table.name);
                let number = self.integer(&INT32, || what().into())? as i32;
                if (table.is_closed || table.is_null) && table.printed_name(number).is_none() {
                    return Err(wrong_value(at, &what(), number.to_string().as_bytes()));
                }
                number
            }
            _ => return mismatch(&self.cursor, &format!("a value of `{}`", table.name)),
        };
        Ok(number)
    }

    /// The text of a token; resolved into the scratch where it has escapes.
    #[inline(always)]
    pub(super) fn token_text(&mut self, token: Token) -> Result<&[u8]> {
        if !token.has_escapes {
            return Ok(self.cursor.slice(token.from, token.to));
        }
        self.text.clear();
        scan::append_text(&self.cursor, token, &mut self.text)?;
        Ok(&self.text)
    }

    #[inline(always)]
    fn text_field(&mut self, field: &Field, keeps_zero: bool) -> Result<()> {
        if self.cursor.peek() != b'"' {
            return mismatch(&self.cursor, "a string");
        }
        let token = scan::string(&mut self.cursor)?;
        if token.from == token.to && !keeps_zero {
            return Ok(());
        }
        let len = token.to - token.from;
        if token.has_escapes || len > 32 {
            self.tag(field);
            return self.text(token);
        }
        let mut room = Room::new(self.out, 16 + 1 + 32);
        let (tag, tag_len) = field.tag_block();
        room.short(tag, tag_len);
        room.byte(len as u8);
        room.block(self.cursor.thirty_two(token.from), len);
        room.keep();
        Ok(())
    }

    /// Length and bytes of a text.
    #[inline(always)]
    pub(super) fn text(&mut self, token: Token) -> Result<()> {
        if token.has_escapes {
            let at = self.begin();
            scan::append_text(&self.cursor, token, self.out)?;
            self.end(at);
            return Ok(());
        }
        let len = token.to - token.from;
        self.varint(len as u64);
        if len <= 32 {
            raw::put_block(self.out, self.cursor.thirty_two(token.from), len);
        } else {
            self.out.extend_from_slice(self.cursor.slice(token.from, token.to));
        }
        Ok(())
    }

    /// A string value with its length, no tag.
    pub(super) fn string_value(&mut self) -> Result<()> {
        if self.cursor.peek() != b'"' {
            return mismatch(&self.cursor, "a string");
        }
        let token = scan::string(&mut self.cursor)?;
        self.text(token)
    }

    fn base64(&mut self) -> Result<()> {
        if self.cursor.peek() != b'"' {
            return mismatch(&self.cursor, "base64 text");
        }
        let at = self.cursor.at();
        let token = scan::string(&mut self.cursor)?;
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let result = if token.has_escapes {
            scan::append_text(&self.cursor, token, &mut text).map(|()| scalar::append_base64(&text, self.out))
        } else {
            Ok(scalar::append_base64(self.cursor.slice(token.from, token.to), self.out))
        };
        self.text = text;
        result?.map_err(|what| wrong_value(at, what, self.cursor.slice(token.from, token.to)))
    }
}

/// Appends the bits of a number, boolean or enum.
#[inline(always)]
fn put_bits(kind: Kind, bits: u64, room: &mut Room) {
    let fixed = u128::from(bits).to_le_bytes();
    match kind.wire_type() {
        WireType::Fixed64 => room.short(&fixed, 8),
        WireType::Fixed32 => room.short(&fixed, 4),
        _ if bits < 0x80 => room.byte(bits as u8),
        _ => {
            let (block, len) = varint_block(bits);
            room.short(&block, len);
        }
    }
}

/// A value of the right JSON type that does not fit.
#[cold]
pub(in super::super) fn wrong_value(at: usize, what: &str, value: &[u8]) -> TranscodeError {
    let text = String::from_utf8_lossy(value);
    let mut shown: String = text.chars().take(QUOTED_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    TranscodeError::new(ErrorKind::Mismatch, at, format!("expected {what}, found `{shown}`"))
}
