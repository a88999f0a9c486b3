//! `google.protobuf.Timestamp` and `Duration` as text: RFC 3339, and decimal seconds with `s`. Pure arithmetic, both
//! directions, nothing of clocks.

use super::print::{self, eight_digits};
use super::raw::Room;

/// Seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
pub(super) const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Largest magnitude of a duration in seconds (about 10,000 years).
pub(super) const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// Days since 1970-01-01 of a proleptic Gregorian date of the years 0 to 9999 (Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    // Counted from a March 1 that is 400 years earlier than his, so that nothing is negative.
    let year = year + 400 - u32::from(month <= 2);
    let century = year / 100;
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let days = year * 1_461 / 4 - century + century / 4 + (153 * shifted + 2) / 5 + day - 1;
    i64::from(days) - 719_468 - 146_097
}

/// Year, month and day of a count of days since 0001-01-01 (Neri and Schneider, "Euclidean affine functions and their
/// application to calendar algorithms", figure 12: two multiplications stand for most of the divisions).
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    // March 1 of the year 0 is 306 days earlier.
    let quarters = 4 * (days + 306) + 3;
    let (century, of_century) = (quarters / 146_097, quarters % 146_097 / 4);
    let product = 2_939_745 * u64::from(4 * of_century + 3);
    let (year_of_century, day_of_year) = ((product >> 32) as u32, product as u32 / 2_939_745 / 4);
    let months = 2_141 * day_of_year + 197_913;
    let (shifted, day) = (months >> 16, months % (1 << 16) / 2_141 + 1);
    let is_next_year = day_of_year >= 306;
    let month = if is_next_year { shifted - 12 } else { shifted };
    (100 * century + year_of_century + u32::from(is_next_year), month, day)
}

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, byte| byte.is_ascii_digit().then(|| n * 10 + i64::from(byte - b'0')))
}

/// Up to nine digits behind the point, as nanoseconds.
fn nanos(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    const POWERS: [i64; 10] = [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    Some(number(digits)? * POWERS[digits.len()])
}

/// In each byte the number of two digits that begin there, of eight bytes of text that have digits where the pattern has `0`
/// and are equal elsewhere.
#[inline(always)]
fn digits_of(eight: u64, pattern: [u8; 8]) -> Option<u64> {
    let digits = eight ^ u64::from_le_bytes(pattern);
    let separators = u64::from_le_bytes(pattern.map(|byte| if byte == b'0' { 0 } else { 0xff }));
    // The highest bit of a byte is set where it is above 9; a carry only reaches bytes behind such a one.
    let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080 | digits & separators;
    (others == 0).then(|| digits.wrapping_mul(10) + (digits >> 8))
}

/// Seconds and nanoseconds of an RFC 3339 time; any offset, up to nine fractional digits, no leap seconds.
pub(super) fn parse_timestamp(text: &[u8]) -> Option<(i64, i64)> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let eight = |from: usize| date[from..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let (to_month, to_minute) = (digits_of(eight(0), *b"0000-00-")?, digits_of(eight(8), *b"00T00:00")?);
    // Its first half is what the one before ends with.
    let to_second = digits_of(eight(11), *b"00:00:00")?;
    let two = |digits: u64, at: u32| (digits >> (8 * at)) as u32 & 0xff;
    let (year, month, day) = (two(to_month, 0) * 100 + two(to_month, 2), two(to_month, 5), two(to_minute, 0));
    let (hour, minute, second) = (two(to_minute, 3), two(to_minute, 6), two(to_second, 6));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=12).contains(&month) || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (nanos(&rest[..len])?, &rest[len..])
        }
        None => (0, rest),
    };
    let offset = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3_600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let of_day = i64::from(hour * 3_600 + minute * 60 + second);
    let seconds = days_from_civil(year, month, day) * 86_400 + of_day - offset;
    TIMESTAMP_SECONDS.contains(&seconds).then_some((seconds, fraction))
}

/// Seconds and nanoseconds (of one sign) of a duration such as `1.5s`.
pub(super) fn parse_duration(text: &[u8]) -> Option<(i64, i64)> {
    let text = text.strip_suffix(b"s")?;
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at(point);
    if whole.is_empty() || whole.len() > 12 {
        return None;
    }
    let seconds = number(whole)?;
    let nanos = if fraction.is_empty() { 0 } else { nanos(&fraction[1..])? };
    (seconds <= DURATION_SECONDS_MAX).then_some((sign * seconds, sign * nanos))
}

/// Appends an RFC 3339 time in UTC with 0, 3, 6 or 9 fractional digits, in quotes; the ranges have been checked.
pub(super) fn print_timestamp(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    let since = (seconds - TIMESTAMP_SECONDS.start()) as u64;
    let ((year, month, day), of_day) = (civil_from_days((since / 86_400) as u32), (since % 86_400) as u32);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let date = eight_digits(year * 10_000 + month * 100 + day) | ZEROS;
    let time = eight_digits(hour * 10_000 + minute * 100 + second) | ZEROS;
    let pair = |digits: u64, at: u32| u128::from(digits >> (8 * at) & 0xffff);
    let to_minute = TO_MINUTE
        | u128::from(date & 0xffff_ffff)
        | pair(date, 4) << 40
        | pair(date, 6) << 64
        | pair(time, 2) << 88
        | pair(time, 4) << 112;
    let (fraction, len) = fraction(nanos);
    let end = u128::from(u16::from_le_bytes(*b"Z\""));
    let seconds = u128::from(b':') | pair(time, 6) << 8 | fraction << 24 | end << (24 + 8 * len);
    let mut room = Room::new(out, 34);
    room.byte(b'"');
    room.short(&to_minute.to_le_bytes(), 16);
    room.short(&seconds.to_le_bytes(), 5 + len);
    room.keep();
}

/// What stands between the numbers of a time up to its minute.
const TO_MINUTE: u128 = u128::from_le_bytes(*b"\0\0\0\0-\0\0-\0\0T\0\0:\0\0");
/// Eight times `0`.
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// A point and 3, 6 or 9 digits, the point lowest, and how many bytes that is; nothing for zero.
#[inline(always)]
fn fraction(nanos: u32) -> (u128, usize) {
    let len = match nanos {
        0 => return (0, 0),
        n if n % 1_000_000 == 0 => 4,
        n if n % 1_000 == 0 => 7,
        _ => 10,
    };
    let (first, last) = (eight_digits(nanos / 10) | ZEROS, b'0' + (nanos % 10) as u8);
    let all = u128::from(b'.') | u128::from(first) << 8 | u128::from(last) << 72;
    (all & ((1 << (8 * len)) - 1), len)
}

/// Milliseconds since 1970 of an RFC 3339 text, smaller parts cut off.
pub fn rfc3339_millis(text: &str) -> Option<i64> {
    let (seconds, nanos) = parse_timestamp(text.as_bytes())?;
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

/// A moment as RFC 3339 text in UTC; `None` outside the years 1 to 9999, or with nanoseconds out of their range.
pub fn rfc3339(seconds: i64, nanos: i32) -> Option<String> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    if !TIMESTAMP_SECONDS.contains(&seconds) {
        return None;
    }
    let mut quoted = Vec::with_capacity(34);
    print_timestamp(seconds, nanos, &mut quoted);
    String::from_utf8(quoted[1..quoted.len() - 1].to_vec()).ok()
}

/// Appends decimal seconds with `s`; both parts have one sign.
pub(super) fn print_duration(seconds: i64, nanos: i32, out: &mut Vec<u8>) {
    let (fraction, len) = fraction(nanos.unsigned_abs());
    let mut room = Room::new(out, 1 + print::NUMBER_MAX + 16);
    if seconds < 0 || nanos < 0 {
        room.byte(b'-');
    }
    print::unsigned(seconds.unsigned_abs(), &mut room);
    room.short(&(fraction | u128::from(b's') << (8 * len)).to_le_bytes(), len + 1);
    room.keep();
}

#[cfg(test)]
mod tests {
    use super::{TIMESTAMP_SECONDS, civil_from_days, days_from_civil, parse_timestamp, rfc3339};

    #[test]
    fn every_day_of_ten_thousand_years_has_the_date_that_follows_the_one_before() {
        let mut expected = (1, 1, 1);
        let first = days_from_civil(1, 1, 1);
        for days in 0..=3_652_058 {
            let (year, month, day) = expected;
            assert_eq!(civil_from_days(days), expected);
            assert_eq!(days_from_civil(year, month, day), first + i64::from(days), "{expected:?}");
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                (_, day) => (year, month, day + 1),
            };
        }
        assert_eq!(expected, (10_000, 1, 1));
    }

    #[test]
    fn a_printed_time_reads_as_the_same_moment() {
        let (first, last) = (*TIMESTAMP_SECONDS.start(), *TIMESTAMP_SECONDS.end());
        for seconds in (first..=last).step_by(1_234_567_891).chain([first, -1, 0, 1, last]) {
            for (nanos, digits) in [(0, 0), (7, 9), (120_000_000, 3), (120_300_000, 6), (999_999_999, 9)] {
                let text = rfc3339(seconds, nanos).expect("in range");
                assert_eq!(parse_timestamp(text.as_bytes()), Some((seconds, i64::from(nanos))), "{text}");
                assert_eq!(text.len(), if digits == 0 { 20 } else { 21 + digits }, "{text}");
            }
        }
    }

    #[test]
    fn a_wrong_character_anywhere_is_no_time() {
        let time = "2026-11-24T22:46:59Z";
        for at in 0..time.len() {
            for byte in (0..=0x7fu8).filter(|byte| !byte.is_ascii_digit() && *byte != time.as_bytes()[at]) {
                let mut text = time.as_bytes().to_vec();
                text[at] = byte;
                assert_eq!(parse_timestamp(&text), None, "{}", String::from_utf8_lossy(&text));
            }
        }
    }
}
