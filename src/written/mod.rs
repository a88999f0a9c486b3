//! Files that people write: values with their places, what is wrong and where, read key by key so that everything wrong
//! is said at once. Knows the YAML crate, and nothing of what any key means.

mod hints;
mod keys;
mod leaf;
pub mod problem;
mod shape;
mod tree;
mod yaml;

use std::time::Duration;

pub use keys::{Key, Keys, Pinned, Report, SecretReader};
pub use leaf::{Secret, SecretSource};
pub use tree::{Node, Tree};
pub use yaml::At;

pub(crate) use hints::{did_you_mean, distance};
pub(crate) use yaml::{read, read_shaped, to_yaml};

/// `500ms`, `30s`, `5m`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(count.checked_mul(60)?)),
        _ => None,
    }
}

/// A duration as it is written: the largest unit that has no remainder.
pub(crate) fn print_duration(length: Duration) -> String {
    match length.as_millis() {
        0 => "0ms".to_owned(),
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}
