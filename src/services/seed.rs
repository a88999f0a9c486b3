//! Chance that repeats: the same parts give the same draws, on every platform. What a rule draws, it draws from here.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::worker::types::{Struct, Value};

/// One part of a seed.
pub(super) enum Part<'a> {
    /// Text, as UTF-8.
    Text(&'a str),
    /// An integer, as eight bytes little-endian.
    Number(u64),
}

/// The tenant as seeds and keys write it; the empty one is `_`.
pub(super) fn tenant_token(tenant: &str) -> &str {
    if tenant.is_empty() { "_" } else { tenant }
}

/// The first eight bytes of SHA-256 over the parts, each behind its length (four bytes, little-endian).
pub(super) fn seed_of(parts: &[Part<'_>]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        let number;
        let bytes = match part {
            Part::Text(text) => text.as_bytes(),
            Part::Number(value) => {
                number = value.to_le_bytes();
                &number
            }
        };
        hash.update((bytes.len() as u32).to_le_bytes());
        hash.update(bytes);
    }
    let digest = hash.finalize();
    digest.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// SplitMix64.
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64) -> Draws {
        Draws(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// From `a` to `b`, both included.
    pub(super) fn between(&mut self, a: u64, b: u64) -> u64 {
        a + self.below(b - a + 1)
    }

    /// One of a list that is not empty.
    pub(super) fn pick<'l, T: ?Sized>(&mut self, list: &[&'l T]) -> &'l T {
        list[self.below(list.len() as u64) as usize]
    }

    /// The index of the first weight whose running sum exceeds the draw.
    pub(super) fn weighted(&mut self, weights: &[f64]) -> usize {
        let drawn = self.unit() * weights.iter().sum::<f64>();
        let mut running = 0.0;
        let found = weights.iter().position(|weight| {
            running += weight;
            running > drawn
        });
        found.unwrap_or(weights.len() - 1)
    }
}

/// RFC 8785: keys sorted, no white space, numbers as ECMAScript writes them.
pub(super) fn canonical_json(value: &Struct) -> String {
    let mut text = String::new();
    write_struct(value, &mut text);
    text
}

fn write_struct(value: &Struct, out: &mut String) {
    // RFC 8785 sorts by UTF-16 units, which differs from bytes only beyond the basic plane.
    let mut members: Vec<(&String, &Value)> = value.0.iter().collect();
    members.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
    out.push('{');
    for (index, (key, member)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        write_value(member, out);
    }
    out.push('}');
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(*number, out),
        Value::String(text) => write_text(text, out),
        Value::Struct(members) => write_struct(members, out),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    crate::transcode::json_string(text, &mut bytes);
    out.push_str(&String::from_utf8_lossy(&bytes));
}

/// ECMAScript's Number::toString (ECMA-262 §6.1.6.1.20).
fn write_number(number: f64, out: &mut String) {
    if number == 0.0 {
        return out.push('0');
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = digits.len() as i32;
    out.push_str(sign);
    if (count..=21).contains(&point) {
        out.push_str(&digits);
        out.extend(std::iter::repeat_n('0', (point - count) as usize));
    } else if (1..=21).contains(&point) {
        out.push_str(&digits[..point as usize]);
        out.push('.');
        out.push_str(&digits[point as usize..]);
    } else if (-5..=0).contains(&point) {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', -point as usize));
        out.push_str(&digits);
    } else {
        out.push_str(&digits[..1]);
        if count > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        let _ = write!(out, "e{}{}", if point > 0 { "+" } else { "-" }, (point - 1).abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_those_of_the_test_vectors() {
        let demo = |parts: &[Part<'_>]| seed_of(parts);
        assert_eq!(demo(&[Part::Text("demo"), Part::Text("a"), Part::Number(1)]), 4_438_531_654_407_421_683);
        assert_eq!(demo(&[Part::Text("demo"), Part::Text("ab"), Part::Text("")]), 17_703_352_986_725_056_819);
        assert_eq!(demo(&[Part::Text("demo"), Part::Text("a"), Part::Text("b")]), 11_071_497_760_950_307_011);
    }

    #[test]
    fn draws_are_those_of_the_test_vectors() {
        let seed = 4_438_531_654_407_421_683;
        let mut draws = Draws::new(seed);
        let raw = [(); 3].map(|()| draws.next());
        assert_eq!(raw, [17_977_444_446_797_926_158, 1_551_957_296_932_961_558, 56_251_309_719_551_983]);
        let mut draws = Draws::new(seed);
        let units = [(); 3].map(|()| draws.unit());
        assert_eq!(units, [0.974_559_216_247_788_9, 0.084_131_773_646_972_33, 0.003_049_389_610_154_551_5]);
        let mut draws = Draws::new(seed);
        assert_eq!([(); 6].map(|()| draws.below(10)), [9, 0, 0, 3, 5, 6]);
    }

    #[test]
    fn canonical_json_is_rfc_8785() {
        let list = Value::List(vec![Value::Number(1.0), Value::Number(2.5), Value::Bool(true), Value::Null]);
        let value = Struct::default()
            .with("b", Value::Number(1.0))
            .with("a", list)
            .with("c", Value::String("x".to_owned()));
        assert_eq!(canonical_json(&value), r#"{"a":[1,2.5,true,null],"b":1,"c":"x"}"#);
        for (number, wanted) in
            [(1e21, "1e+21"), (1e-7, "1e-7"), (123.456, "123.456"), (-0.001, "-0.001"), (1e20, "100000000000000000000")]
        {
            let mut text = String::new();
            write_number(number, &mut text);
            assert_eq!(text, wanted);
        }
    }
}
