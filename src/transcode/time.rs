//! `google.protobuf.Timestamp` and `Duration` as text: RFC 3339, and decimal seconds with `s`. Pure arithmetic, both
//! directions, nothing of clocks.

/// Seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
pub(super) const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Largest magnitude of a duration in seconds (about 10,000 years).
pub(super) const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// Days since 1970-01-01 of a proleptic Gregorian date (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a count of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |n, byte| byte.is_ascii_digit().then(|| n * 10 + i64::from(byte - b'0')))
}

/// Up to nine digits behind the point, as nanoseconds.
fn nanos(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    Some(number(digits)? * 10i64.pow(9 - digits.len() as u32))
}

/// Seconds and nanoseconds of an RFC 3339 time; any offset, up to nine fractional digits, no leap seconds.
pub(super) fn parse_timestamp(text: &[u8]) -> Option<(i64, i64)> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let mut is_shaped = date[4] == b'-' && date[7] == b'-' && date[10] == b'T' && date[13] == b':' && date[16] == b':';
    let mut two = |at: usize| {
        let (tens, ones) = (date[at].wrapping_sub(b'0'), date[at + 1].wrapping_sub(b'0'));
        is_shaped &= tens <= 9 && ones <= 9;
        i64::from(tens) * 10 + i64::from(ones)
    };
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !is_shaped || !(1..=12).contains(&month) || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
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
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
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

/// Appends an RFC 3339 time in UTC with 0, 3, 6 or 9 fractional digits; the ranges have been checked.
pub(super) fn print_timestamp(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, value: i64| {
        let value = value as u8;
        (text[at], text[at + 1]) = (b'0' + value / 10, b'0' + value % 10);
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, month);
    put(8, day);
    put(11, second / 3_600);
    put(14, second / 60 % 60);
    put(17, second % 60);
    out.extend_from_slice(&text);
    print_nanos(nanos, out);
    out.push(b'Z');
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
    let mut text = Vec::with_capacity(30);
    print_timestamp(seconds, nanos, &mut text);
    String::from_utf8(text).ok()
}

/// Appends decimal seconds with `s`; both parts have one sign.
pub(super) fn print_duration(seconds: i64, nanos: i32, out: &mut Vec<u8>) {
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(seconds.unsigned_abs()).as_bytes());
    print_nanos(nanos.unsigned_abs(), out);
    out.push(b's');
}

fn print_nanos(nanos: u32, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let (width, mut value) = match nanos {
        n if n % 1_000_000 == 0 => (3, n / 1_000_000),
        n if n % 1_000 == 0 => (6, n / 1_000),
        n => (9, n),
    };
    let mut text = [b'0'; 10];
    text[0] = b'.';
    for index in (1..=width).rev() {
        text[index] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[..=width]);
}
