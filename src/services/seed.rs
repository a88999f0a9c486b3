//! Chance that repeats: seeds from SHA-256, draws from SplitMix64, canonical JSON. The same parts give the same draws
//! on every replica.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::worker::Context;
use crate::worker::types::{Struct, Value};

/// A part of a seed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Number(u64),
}

/// The first eight bytes, little-endian, of SHA-256 over the parts, each behind its length in four bytes.
pub(super) fn seed(parts: &[Part<'_>]) -> u64 {
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
    digest.iter().take(8).rev().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// The tenant as a part of seeds.
pub(super) fn tenant_part(tenant: &str) -> Part<'_> {
    Part::Text(if tenant.is_empty() { "_" } else { tenant })
}

/// What tells a call from all others of its caller: its idempotency key, else its request id. A caller on the bus that
/// sends neither gets a new one, so that no two of its calls are taken for one.
pub(super) fn call_key(context: &Context) -> String {
    match (context.idempotency_key(), context.request_id()) {
        ("", "") => uuid::Uuid::new_v4().to_string(),
        ("", request_id) => request_id.to_owned(),
        (key, _) => key.to_owned(),
    }
}

/// An id made of a seed: the prefix and 16 hex digits.
pub(super) fn id_of(prefix: &str, parts: &[Part<'_>]) -> String {
    format!("{prefix}_{:016x}", seed(parts))
}

/// A row of draws (SplitMix64).
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64) -> Draws {
        Draws(seed)
    }

    pub(super) fn raw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.raw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In [0, n).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.raw()) * u128::from(n)) >> 64) as u64
    }

    /// From a to b, both included.
    pub(super) fn between(&mut self, a: u64, b: u64) -> u64 {
        a + self.below(b - a + 1)
    }

    /// One of a list, which is not empty.
    pub(super) fn pick<'a, T: ?Sized>(&mut self, list: &'a [&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }

    /// Position in a list of weights, not all of them zero.
    pub(super) fn weighted(&mut self, weights: &[f64]) -> usize {
        let drawn = self.unit() * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        for (index, weight) in weights.iter().enumerate() {
            sum += weight;
            if sum > drawn {
                return index;
            }
        }
        weights.len() - 1
    }
}

/// A Struct as RFC 8785 writes it: members sorted, no white space, integers without fraction.
pub(super) fn canonical_json(document: &Struct) -> String {
    let mut out = String::new();
    write_members(document, &mut out);
    out
}

/// Texts by name, written like that.
pub(super) fn canonical_texts(texts: &BTreeMap<String, String>) -> String {
    let members = texts.iter().map(|(name, text)| (name.clone(), Value::String(text.clone())));
    canonical_json(&Struct(members.collect()))
}

fn write_members(document: &Struct, out: &mut String) {
    let mut members: Vec<_> = document.0.iter().collect();
    // RFC 8785 sorts by UTF-16 units.
    members.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
    out.push('{');
    for (index, (name, value)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(name, out);
        out.push(':');
        write_value(value, out);
    }
    out.push('}');
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(*number, out),
        Value::String(text) => write_text(text, out),
        Value::Struct(members) => write_members(members, out),
        Value::List(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(value, out);
            }
            out.push(']');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    // A text always prints.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// As ECMAScript prints numbers.
fn write_number(number: f64, out: &mut String) {
    let size = number.abs();
    // Writing to a String cannot fail.
    let _ = if number == 0.0 {
        write!(out, "0")
    } else if (1e-6..1e21).contains(&size) {
        write!(out, "{number}")
    } else {
        let text = format!("{number:e}");
        write!(out, "{}", if size >= 1.0 { text.replace('e', "e+") } else { text })
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_vectors_hold() {
        use Part::{Number, Text};
        let first = seed(&[Text("demo"), Text("a"), Number(1)]);
        assert_eq!(first, 4_438_531_654_407_421_683);
        assert_eq!(seed(&[Text("demo"), Text("ab"), Text("")]), 17_703_352_986_725_056_819);
        assert_eq!(seed(&[Text("demo"), Text("a"), Text("b")]), 11_071_497_760_950_307_011);
        let mut draws = Draws::new(first);
        let raw: Vec<u64> = (0..3).map(|_| draws.raw()).collect();
        assert_eq!(raw, [17_977_444_446_797_926_158, 1_551_957_296_932_961_558, 56_251_309_719_551_983]);
        let mut draws = Draws::new(first);
        let units: Vec<f64> = (0..3).map(|_| draws.unit()).collect();
        assert_eq!(units, [0.9745592162477889, 0.08413177364697233, 0.0030493896101545515]);
        let mut draws = Draws::new(first);
        let below: Vec<u64> = (0..6).map(|_| draws.below(10)).collect();
        assert_eq!(below, [9, 0, 0, 3, 5, 6]);
    }

    #[test]
    fn canonical_json_is_that_of_rfc_8785() {
        let list = vec![1.0.into(), 2.5.into(), true.into(), Value::Null];
        let document = Struct::default().with("b", 1.0).with("a", list).with("c", "x");
        assert_eq!(canonical_json(&document), r#"{"a":[1,2.5,true,null],"b":1,"c":"x"}"#);
        let numbers: Vec<Value> = [-0.0, 1e21, 1e300, 1e-7, 123_456_789_012.0, -0.001].map(Value::from).to_vec();
        let document = Struct::default().with("n", numbers);
        assert_eq!(canonical_json(&document), r#"{"n":[0,1e+21,1e+300,1e-7,123456789012,-0.001]}"#);
    }
}
