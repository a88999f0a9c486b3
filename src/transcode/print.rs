//! JSON text out: strings and numbers (RFC 8259, shortest forms). The one JSON printer of the request path.

use super::raw::{self, Room};

/// Appends a quoted string; escapes are the short ones, and `\u00XX` for other control characters.
pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    string_part(text, 0, text.len(), out);
}

/// Appends the text between two offsets of some bytes, quoted, where it is short and plain: at most sixteen bytes of ASCII
/// without escapes, and as many to look at. What lies behind the text is read, too, but never kept: so that a short text
/// costs one load and one store instead of two calls of `memcpy`.
// Here and below: inlined in a debug build, it would make the frames of the recursion around it too large.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn short_text(bytes: &[u8], from: usize, to: usize, room: &mut Room) -> bool {
    let len = to.wrapping_sub(from);
    let Some(block) = bytes.get(from..).and_then(|rest| rest.first_chunk::<16>()) else { return false };
    if len > 16 || (raw::special_bytes(block) | raw::high_bytes(block)) & ((1 << len) - 1) != 0 {
        return false;
    }
    room.quoted(block, len);
    true
}

/// Appends the text between two offsets of some bytes, quoted; from where to where it is not all ASCII, if it is not.
#[inline(never)]
pub(super) fn string_part(bytes: &[u8], from: usize, to: usize, out: &mut Vec<u8>) -> Option<(usize, usize)> {
    let mut room = Room::new(out, to.saturating_sub(from) + 50);
    let (mut at, mut not_ascii) = (from, None);
    let mut last = [b' '; 16];
    room.byte(b'"');
    while at < to {
        let len = (to - at).min(16);
        let block = match bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
            Some(block) => block,
            None => {
                last[..len].copy_from_slice(&bytes[at..to]);
                &last
            }
        };
        let ours = (1 << len) - 1;
        let high = raw::high_bytes(block) & ours;
        if high != 0 {
            let first = not_ascii.map_or(at + high.trailing_zeros() as usize, |range: (usize, usize)| range.0);
            not_ascii = Some((first, at + high.ilog2() as usize + 1));
        }
        let special = raw::special_bytes(block) & ours;
        if special == 0 {
            room.short(block, len);
            at += len;
        } else {
            let plain = special.trailing_zeros() as usize;
            room.short(block, plain);
            escape(block[plain], &mut room);
            at += plain + 1;
        }
    }
    room.byte(b'"');
    room.keep();
    not_ascii
}

#[cfg_attr(not(debug_assertions), inline(always))]
fn escape(byte: u8, room: &mut Room) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => {
            room.text(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    room.byte(b'\\');
    room.byte(short);
}

/// Appends a quoted JSON string.
pub fn json_string(text: &str, out: &mut Vec<u8>) {
    string(text.as_bytes(), out);
}

/// Ten to the eighth and to the sixteenth.
const EIGHT_DIGITS: u64 = 100_000_000;
const SIXTEEN_DIGITS: u64 = EIGHT_DIGITS * EIGHT_DIGITS;

/// The eight digits of a number below 10^8, the first one lowest, as numbers from 0 to 9; cut into fours, pairs and single
/// ones, each step for all of them at once.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn eight_digits(value: u32) -> u64 {
    let value = u64::from(value);
    let fours = (value / 10_000) | ((value % 10_000) << 32);
    // 10,486 / 2^20 is one hundredth, closely enough for four digits; 103 / 2^10 one tenth, for two.
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((pairs - 10 * tens) << 8)
}

/// The digits of a number below 10^16 as text, and how many they are.
#[cfg_attr(not(debug_assertions), inline(always))]
fn digits(value: u64) -> ([u8; 16], usize) {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    if value < EIGHT_DIGITS {
        let digits = eight_digits(value as u32);
        // The last digit stays, whatever it is.
        let skipped = (digits | 1 << 56).trailing_zeros() / 8;
        return (u128::from((digits | ZEROS) >> (8 * skipped)).to_le_bytes(), 8 - skipped as usize);
    }
    let (high, low) = (eight_digits((value / EIGHT_DIGITS) as u32), eight_digits((value % EIGHT_DIGITS) as u32));
    let text = u128::from(high | ZEROS) | u128::from(low | ZEROS) << 64;
    let skipped = high.trailing_zeros() / 8;
    ((text >> (8 * skipped)).to_le_bytes(), 16 - skipped as usize)
}

/// The most bytes that one of the numbers below takes.
pub(super) const NUMBER_MAX: usize = 26;

/// Appends a number.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn unsigned(value: u64, room: &mut Room) {
    if value < 10 {
        room.byte(b'0' + value as u8);
    } else if value < SIXTEEN_DIGITS {
        let (block, len) = digits(value);
        room.short(&block, len);
    } else {
        room.text(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// Appends a number with its sign.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn signed(value: i64, room: &mut Room) {
    if value < 0 {
        room.byte(b'-');
    }
    unsigned(value.unsigned_abs(), room);
}

/// Appends a 64-bit number as ProtoJSON wants it: in quotes.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn quoted_unsigned(value: u64, room: &mut Room) {
    room.byte(b'"');
    unsigned(value, room);
    room.byte(b'"');
}

/// Appends a 64-bit number with its sign as ProtoJSON wants it: in quotes.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn quoted_signed(value: i64, room: &mut Room) {
    room.byte(b'"');
    signed(value, room);
    room.byte(b'"');
}

/// Appends `true` or `false`.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn boolean(value: bool, room: &mut Room) {
    room.short(if value { b"true            " } else { b"false           " }, if value { 4 } else { 5 });
}

/// Appends the shortest text that reads back as the same number; whole numbers have no fraction.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn float<F: zmij::Float + Into<f64> + Copy>(value: F, room: &mut Room) {
    let wide: f64 = value.into();
    if !wide.is_finite() {
        return room.text(match wide {
            v if v.is_nan() => b"\"NaN\"",
            v if v > 0.0 => b"\"Infinity\"",
            _ => b"\"-Infinity\"",
        });
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    room.text(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::raw::Room;
    use super::{quoted_signed, quoted_unsigned, signed, unsigned};

    fn text(print: impl Fn(&mut Room)) -> String {
        let mut out = Vec::new();
        let mut room = Room::new(&mut out, super::NUMBER_MAX);
        print(&mut room);
        room.keep();
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn numbers_of_every_length_are_printed_as_the_standard_library_prints_them() {
        let check = |value: u64| {
            assert_eq!(text(|room| unsigned(value, room)), value.to_string());
            assert_eq!(text(|room| quoted_unsigned(value, room)), format!("\"{value}\""));
            let value = value as i64;
            assert_eq!(text(|room| signed(value, room)), value.to_string());
            assert_eq!(text(|room| quoted_signed(value, room)), format!("\"{value}\""));
        };
        (0..100_000).for_each(check);
        for power in (0..20).map(|digits| 10u64.pow(digits)) {
            [power - 1, power, power + 1, power / 8 * 9, power.wrapping_neg()].into_iter().for_each(check);
        }
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            check(state >> (state >> 58));
        }
    }
}
