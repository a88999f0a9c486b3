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
            _ => self.varint_long(),
        }
    }

    /// The next byte, where there is one and it is a whole varint; a tag of a field number up to 15, say.
    #[inline(always)]
    pub(super) fn short(&self) -> Option<u8> {
        self.bytes.get(self.at).copied().filter(|byte| *byte < 0x80)
    }

    /// Steps over the byte that [`WireReader::short`] gave.
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

    #[inline(never)]
    fn varint_long(&mut self) -> Result<u64> {
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
            WireType::StartGroup => self.group(number),
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
