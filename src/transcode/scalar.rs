//! Text of numbers, booleans and bytes, parsed exactly: the scalar rules of ProtoJSON, shared by JSON and URL text.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Why a text is no value of its kind; a phrase that goes behind "expected".
pub(super) type Expected = &'static str;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD_ENGINE: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_SAFE_ENGINE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Largest power of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A decimal number taken apart: `±mantissa × 10^exponent`.
struct Decimal {
    is_negative: bool,
    mantissa: u64,
    exponent: i32,
    /// False where the mantissa has more digits than fit.
    is_exact: bool,
}

fn decimal(text: &[u8]) -> Option<Decimal> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mut mantissa, mut exponent, mut is_exact, mut at, mut digits) = (0u64, 0i32, true, 0, 0);
    let mut is_fraction = false;
    while let Some(byte) = text.get(at) {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                match mantissa.checked_mul(10).and_then(|m| m.checked_add(u64::from(byte - b'0'))) {
                    Some(next) if is_exact => {
                        mantissa = next;
                        exponent -= i32::from(is_fraction);
                    }
                    _ => {
                        // Zeros behind a full mantissa change nothing but the exponent.
                        is_exact &= *byte == b'0';
                        exponent += i32::from(!is_fraction);
                    }
                }
            }
            b'.' if !is_fraction && digits > 0 => is_fraction = true,
            _ => break,
        }
        at += 1;
    }
    if digits == 0 || text[at - 1] == b'.' || digits > 1 && text[0] == b'0' && text[1] != b'.' {
        return None;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let power = &text[at + 1..];
        let (is_minus, power) = match power.first()? {
            b'-' => (true, &power[1..]),
            b'+' => (false, &power[1..]),
            _ => (false, power),
        };
        if power.is_empty() || !power.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let size = power.iter().fold(0i32, |n, byte| n.saturating_mul(10).saturating_add(i32::from(byte - b'0')));
        exponent = exponent.saturating_add(if is_minus { size.saturating_neg() } else { size });
        at = text.len();
    }
    (at == text.len()).then_some(Decimal { is_negative, mantissa, exponent, is_exact })
}

/// An integer written as a JSON number, `1.0` and `1e3` included; `None` where it is none or exceeds 64 bits.
pub(super) fn integer(text: &[u8]) -> Option<i128> {
    let decimal = decimal(text)?;
    if !decimal.is_exact {
        return None;
    }
    let mut magnitude = i128::from(decimal.mantissa);
    let mut exponent = if magnitude == 0 { 0 } else { decimal.exponent };
    while exponent < 0 {
        if magnitude % 10 != 0 {
            return None;
        }
        (magnitude, exponent) = (magnitude / 10, exponent + 1);
    }
    while exponent > 0 {
        magnitude = Some(magnitude * 10).filter(|m| *m <= i128::from(u64::MAX))?;
        exponent -= 1;
    }
    Some(if decimal.is_negative { -magnitude } else { magnitude })
}

/// A double, correctly rounded; `None` where the text is no JSON number or exceeds the range.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    let decimal = decimal(text)?;
    // Clinger's fast path: both factors are exact doubles, so that one operation rounds once.
    if decimal.is_exact && decimal.mantissa <= 1 << 53 && (-22..=22).contains(&decimal.exponent) {
        let mantissa = decimal.mantissa as f64;
        let power = EXACT_POWERS[decimal.exponent.unsigned_abs() as usize];
        let value = if decimal.exponent < 0 { mantissa / power } else { mantissa * power };
        return Some(if decimal.is_negative { -value } else { value });
    }
    std::str::from_utf8(text).ok()?.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// `±mantissa ÷ 10^behind`, correctly rounded; `None` where 10^behind has more than 64 bits.
#[inline(always)]
pub(super) fn short_double(is_negative: bool, mantissa: u64, behind: usize) -> Option<f64> {
    let value = if mantissa <= 1 << 53 && behind <= 22 {
        // Clinger's fast path, as in `double`.
        mantissa as f64 / EXACT_POWERS[behind]
    } else {
        quotient(mantissa, 10u64.checked_pow(behind as u32)?)
    };
    Some(if is_negative { -value } else { value })
}

/// Two numbers (neither zero) divided and rounded once, ties to even: by a long division to 64 bits, the last of which
/// stands for everything behind it, too. The conversion to a double rounds them; the scaling by a power of two is exact.
fn quotient(mantissa: u64, divisor: u64) -> f64 {
    let (up, down) = (mantissa.leading_zeros(), divisor.leading_zeros());
    let numerator = u128::from(mantissa << up) << 64;
    let denominator = u128::from(divisor << down);
    let whole = numerator / denominator;
    let rest = numerator - whole * denominator;
    // Both highest bits are set, so there are 64 or 65 bits.
    let excess = (whole >> 64) as i32;
    let bits = (whole >> excess) as u64 | u64::from(rest != 0 || whole & excess as u128 != 0);
    let exponent = excess - 64 - up as i32 + down as i32;
    bits as f64 * f64::from_bits(((1_023 + exponent) as u64) << 52)
}

/// `±mantissa ÷ 10^behind`, where that is one exact operation on floats.
#[inline(always)]
pub(super) fn exact_float(is_negative: bool, mantissa: u64, behind: usize) -> Option<f32> {
    if mantissa > 1 << 24 || behind > 10 {
        return None;
    }
    let value = mantissa as f32 / EXACT_POWERS[behind] as f32;
    Some(if is_negative { -value } else { value })
}

/// A double from text that is known to be a JSON number; `None` where it exceeds the range.
pub(super) fn checked_double(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A float, correctly rounded from the text (not by way of a double); `None` as for [`double`].
pub(super) fn float(text: &[u8]) -> Option<f32> {
    decimal(text)?;
    std::str::from_utf8(text).ok()?.parse::<f32>().ok().filter(|value| value.is_finite())
}

/// `NaN`, `Infinity`, `-Infinity`.
pub(super) fn named_double(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Appends the bytes of a base64 text: standard or URL-safe alphabet, with or without padding.
pub(super) fn append_base64(text: &[u8], out: &mut Vec<u8>) -> Result<(), Expected> {
    let is_url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if is_url_safe { &URL_SAFE_ENGINE } else { &STANDARD_ENGINE };
    let old = out.len();
    out.resize(old + text.len() / 4 * 3 + 3, 0);
    match engine.decode_slice(text, &mut out[old..]) {
        Ok(len) => {
            out.truncate(old + len);
            Ok(())
        }
        Err(_) => {
            out.truncate(old);
            Err("base64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{exact_float, short_double};

    /// The standard library rounds correctly, too.
    #[test]
    fn short_numbers_are_rounded_as_the_standard_library_rounds_them() {
        let mut state = 1u64;
        for round in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Every length of mantissa, and those around powers of two, where ties are.
            let mantissa = (state >> (state >> 58)).wrapping_add(u64::from(round % 3 == 0)) | 1;
            for behind in [0, 1, round % 20, 19] {
                let text = format!("{mantissa}e-{behind}");
                let double = short_double(false, mantissa, behind).expect("in range");
                assert_eq!(double.to_bits(), text.parse::<f64>().expect("a number").to_bits(), "{text}");
                if let Some(float) = exact_float(false, mantissa, behind) {
                    assert_eq!(float.to_bits(), text.parse::<f32>().expect("a number").to_bits(), "{text}");
                }
            }
        }
        assert_eq!(short_double(false, 1, 20), Some(1e-20));
        assert_eq!(short_double(false, u64::MAX, 20), None);
    }
}
