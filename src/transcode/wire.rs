//! Protobuf bytes, record by record (protobuf encoding, "message structure"); bounds and forms checked, nothing
//! copied. Knows no tables.

use super::error::{ErrorKind, Result, TranscodeError};
use super::table::{Kind, WireType};

/// One record: its field number, how its value lies, and where the value begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Field number, 1 to 536,870,911.
    pub number: u32,
    /// How the value lies.
    pub wire_type: WireType,
    /// Offset of the value: of the content, for length-delimited values and groups.
    pub from: usize,
    /// Offset behind the value (of a group: of its end tag).
    pub to: usize,
}

/// Deepest nesting of groups that a skip follows.
const GROUPS_MAX: u32 = 100;

/// A reader over a part of some bytes; offsets count from the start of all of them.
#[derive(Clone, Debug)]
pub struct WireReader<'a> {
    /// Everything up to the end of the part, so that one bound serves for both.
    bytes: &'a [u8],
    at: usize,
}

#[cold]
fn broken(at: usize, text: &str) -> TranscodeError {
    TranscodeError::new(ErrorKind::Wire, at, text)
}

impl<'a> WireReader<'a> {
    /// A reader over all of the bytes.
    pub fn new(bytes: &'a [u8]) -> WireReader<'a> {
        WireReader { bytes, at: 0 }
    }

    /// A reader over the bytes from `from` to `to`.
    #[inline(always)]
    pub fn part(bytes: &'a [u8], from: usize, to: usize) -> WireReader<'a> {
        let bytes = &bytes[..to.min(bytes.len())];
        WireReader { bytes, at: from.min(bytes.len()) }
    }

    /// Offset of the next byte.
    #[inline(always)]
    pub fn at(&self) -> usize {
        self.at
    }

    /// True where nothing is left.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Reads a varint of up to ten bytes.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.at..) {
            Some([byte, ..]) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            Some([low, high, ..]) if *high < 0x80 => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.aside(|reader| reader.varint_long()),
        }
    }

    /// The next byte, where there is one.
    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over the byte that [`WireReader::peek`] gave.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// Steps over `byte` if it is next.
    #[inline(always)]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Calls what is not inlined with a reader of its own, so that this one can stay in registers.
    #[inline(always)]
    fn aside<T>(&mut self, read: impl FnOnce(&mut WireReader<'a>) -> Result<T>) -> Result<T> {
        let mut ahead = self.clone();
        let read = read(&mut ahead)?;
        self.at = ahead.at;
        Ok(read)
    }

    /// Three to eight bytes at once, where there are eight to look at; anything else byte by byte.
    #[inline(never)]
    fn varint_long(&mut self) -> Result<u64> {
        if let Some(eight) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let eight = u64::from_le_bytes(*eight);
            // The highest bit of a byte says that more follow.
            let lasts = !eight & 0x8080_8080_8080_8080;
            if lasts != 0 {
                self.at += lasts.trailing_zeros() as usize / 8 + 1;
                return Ok(joined(eight & (lasts ^ (lasts - 1))));
            }
        }
        self.varint_by_bytes()
    }

    fn varint_by_bytes(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let Some(byte) = self.bytes.get(self.at) else {
                return Err(broken(start, "a truncated varint"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift.min(63);
            if shift == 63 && *byte > 1 {
                return Err(broken(start, "a varint of more than 64 bits"));
            }
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(broken(start, "a varint of more than ten bytes"))
    }

    /// Reads four bytes, little-endian.
    #[inline(always)]
    pub fn fixed32(&mut self) -> Result<u32> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => {
                self.at += 4;
                Ok(u32::from_le_bytes(*bytes))
            }
            None => Err(broken(self.at, "a truncated 32-bit value")),
        }
    }

    /// Reads eight bytes, little-endian.
    #[inline(always)]
    pub fn fixed64(&mut self) -> Result<u64> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(broken(self.at, "a truncated 64-bit value")),
        }
    }

    /// Reads a length and steps over that many bytes; where they begin and end.
    #[inline(always)]
    pub fn length(&mut self) -> Result<(usize, usize)> {
        let start = self.at;
        let len = self.varint()?;
        if len > (self.bytes.len() - self.at) as u64 {
            return Err(broken(start, "a length beyond the end of the message"));
        }
        let from = self.at;
        self.at += len as usize;
        Ok((from, self.at))
    }

    /// Steps over a length-delimited value; a reader of what is inside.
    #[inline(always)]
    pub(super) fn inside(&mut self) -> Result<WireReader<'a>> {
        let (from, to) = self.length()?;
        Ok(WireReader { bytes: &self.bytes[..to], at: from })
    }

    /// Reads a tag: field number and wire type.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<(u32, WireType)> {
        let start = self.at;
        let tag = self.varint()?;
        let number = (tag >> 3) as u32;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(broken(start, "a wire type that does not exist")),
        };
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(broken(start, "a field number out of range"));
        }
        Ok((number, wire_type))
    }

    /// Steps over the value behind a tag; where it begins and ends.
    #[inline(always)]
    pub fn value(&mut self, number: u32, wire_type: WireType) -> Result<(usize, usize)> {
        let from = self.at;
        match wire_type {
            WireType::Varint => self.varint().map(|_| (from, self.at)),
            WireType::Fixed64 => self.fixed64().map(|_| (from, self.at)),
            WireType::Fixed32 => self.fixed32().map(|_| (from, self.at)),
            WireType::Length => self.length(),
            WireType::StartGroup => self.aside(|reader| reader.group(number)),
            WireType::EndGroup => Err(broken(from, "the end of a group that never began")),
        }
    }

    /// Steps over a group's content and its end tag, iteratively.
    #[inline(never)]
    fn group(&mut self, number: u32) -> Result<(usize, usize)> {
        let from = self.at;
        let mut open = vec![number];
        loop {
            let tag_at = self.at;
            if self.is_done() {
                return Err(broken(from, "a group without its end"));
            }
            let (number, wire_type) = self.tag()?;
            match wire_type {
                WireType::StartGroup if open.len() as u32 >= GROUPS_MAX => {
                    let text = format!("nested more than {GROUPS_MAX} levels deep");
                    return Err(TranscodeError::new(ErrorKind::Depth, tag_at, text));
                }
                WireType::StartGroup => open.push(number),
                WireType::EndGroup if open.pop() != Some(number) => {
                    return Err(broken(tag_at, "the end of another group"));
                }
                WireType::EndGroup if open.is_empty() => return Ok((from, tag_at)),
                WireType::EndGroup => {}
                other => self.value(number, other).map(|_| ())?,
            }
        }
    }

    /// The next record; `None` at the end.
    #[inline(always)]
    pub fn record(&mut self) -> Result<Option<Record>> {
        if self.is_done() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        let (from, to) = self.value(number, wire_type)?;
        Ok(Some(Record { number, wire_type, from, to }))
    }
}

/// The seven low bits of each byte, the first byte's lowest: neighbours joined, to pairs, to fours, to eight.
#[inline(always)]
fn joined(eight: u64) -> u64 {
    let sevens = eight & 0x7f7f_7f7f_7f7f_7f7f;
    let pairs = sevens & 0x007f_007f_007f_007f | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4
}

/// A varint and its length.
#[inline(always)]
pub(super) fn varint_block(value: u64) -> ([u8; 16], usize) {
    if value >> 56 != 0 {
        return long_varint_block(value);
    }
    let len = (70 - (value | 1).leading_zeros()) / 7;
    // Every byte but the last one says that more follow.
    let more = 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
    (u128::from(parted(value) | more).to_le_bytes(), len as usize)
}

#[inline(never)]
fn long_varint_block(mut value: u64) -> ([u8; 16], usize) {
    let (mut block, mut len) = ([0; 16], 0);
    while value >= 0x80 {
        block[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    block[len] = value as u8;
    (block, len + 1)
}

/// The other way round: seven bits in each byte, of a number below 2^56.
#[inline(always)]
fn parted(value: u64) -> u64 {
    let fours = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let pairs = fours & 0x0000_3fff_0000_3fff | (fours & 0x0fff_c000_0fff_c000) << 2;
    pairs & 0x007f_007f_007f_007f | (pairs & 0x3f80_3f80_3f80_3f80) << 1
}

/// The bits of a varint that its kind keeps, however it was written: 32-bit kinds keep 32 bits, sign-extended where
/// they are written so, and every true is one.
pub(super) fn kept_bits(kind: Kind, bits: u64) -> u64 {
    match kind {
        Kind::Int32 | Kind::Enum(_) => bits as i32 as i64 as u64,
        Kind::Uint32 | Kind::Sint32 => u64::from(bits as u32),
        Kind::Bool => u64::from(bits != 0),
        _ => bits,
    }
}

/// Appends a varint.
#[inline]
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited record.
pub fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | WireType::Length as u64, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a varint record.
pub fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, out);
    put_varint(value, out);
}

/// Calls `visit` with each top-level value of one length-delimited field, in order.
pub fn each_message<'a>(bytes: &'a [u8], number: u32, mut visit: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut reader = WireReader::new(bytes);
    while let Some(record) = reader.record()? {
        if record.number == number && record.wire_type == WireType::Length {
            visit(&bytes[record.from..record.to])?;
        }
    }
    Ok(())
}

/// The text of a single scalar field's last value, as a header shows it; `None` where it is absent or no scalar.
pub fn scalar_text(bytes: &[u8], number: u32, kind: Kind) -> Option<String> {
    let mut found = None;
    let mut reader = WireReader::new(bytes);
    while let Ok(Some(record)) = reader.record() {
        if record.number == number && record.wire_type == kind.wire_type() {
            found = Some(record);
        }
    }
    let record = found?;
    let mut value = WireReader::part(bytes, record.from, record.to);
    match kind {
        Kind::String => std::str::from_utf8(&bytes[record.from..record.to]).ok().map(str::to_owned),
        Kind::Bool => value.varint().ok().map(|bits| (bits != 0).to_string()),
        Kind::Uint32 | Kind::Uint64 => value.varint().ok().map(|bits| bits.to_string()),
        Kind::Int32 | Kind::Int64 => value.varint().ok().map(|bits| (bits as i64).to_string()),
        Kind::Fixed64 => value.fixed64().ok().map(|bits| bits.to_string()),
        Kind::Fixed32 => value.fixed32().ok().map(|bits| bits.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{WireReader, put_varint, varint_block};

    #[test]
    fn varints_of_every_length_are_written_and_read_alike() {
        for bits in 0..64 {
            for value in [1u64 << bits, (1 << bits) - 1, u64::MAX >> bits, 0x5a5a_5a5a_5a5a_5a5a >> bits] {
                let mut bytes = Vec::new();
                put_varint(value, &mut bytes);
                let (block, len) = varint_block(value);
                assert_eq!(&block[..len], bytes, "{value}");
                for behind in [0, 8] {
                    let mut bytes = bytes.clone();
                    bytes.resize(len + behind, 0xff);
                    let mut reader = WireReader::new(&bytes);
                    assert_eq!(reader.varint(), Ok(value));
                    assert_eq!(reader.at(), len);
                }
            }
        }
    }
}
