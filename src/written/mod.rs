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

/// `500ms`, `30s`, `5m`, `24h`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u64 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(count.checked_mul(3_600)?)),
        _ => None,
    }
}

/// A duration as it is written: in seconds, or in milliseconds where those leave a remainder.
pub(crate) fn print_duration(length: Duration) -> String {
    match length.as_millis() {
        0 => "0ms".to_owned(),
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_its_unit() {
        let seconds = |count: u64| Some(Duration::from_secs(count));
        let rows = [
            ("0s", seconds(0)),
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", seconds(30)),
            ("5m", seconds(300)),
            ("24h", seconds(86_400)),
            ("5124095576030431h", seconds(5_124_095_576_030_431 * 3_600)),
            ("5124095576030432h", None),
            ("", None),
            ("h", None),
            ("1", None),
            ("1H", None),
            ("1 h", None),
            ("1h30m", None),
            ("-1h", None),
            ("1d", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_duration(text), expected, "`{text}`");
        }
    }
}
