//! Types of events and patterns over them: which log covers them, and what a pattern takes.

use crate::fault::Fault;
use crate::services::checks::invalid;
use crate::services::events::{EVENT_DISPATCH, LOGS};

/// Most tokens and bytes of a type or pattern.
const TOKENS_MAX: usize = 8;
const BYTES_MAX: usize = 128;
/// The pattern for everything.
pub(super) const ALL: &str = ">";

/// First tokens of types, each with the log that covers it.
fn covered() -> impl Iterator<Item = (&'static str, &'static str)> {
    let logs = LOGS.iter().filter(|log| EVENT_DISPATCH.iter().any(|consumer| consumer.log == log.name));
    logs.flat_map(|log| {
        let prefixes = log.subjects.iter().filter_map(|subject| subject.strip_prefix("evt.")?.strip_suffix(".>"));
        prefixes.map(|prefix| (prefix, log.name))
    })
}

/// The log of a type or pattern by its first token.
pub(super) fn log_of(pattern: &str) -> Option<&'static str> {
    let first = pattern.split('.').next()?;
    covered().find(|(prefix, _)| *prefix == first).map(|(_, log)| log)
}

/// A type: literal, covered by a log, without the version that its subject gets.
pub(super) fn check_type(field: &str, event_type: &str) -> Result<(), Fault> {
    let bad = |text: String| Err(invalid(field, "bad_format", text));
    if event_type.contains(['*', '>']) {
        return bad(format!("{field} must be literal"));
    }
    let tokens: Vec<&str> = event_type.split('.').collect();
    if event_type.len() > BYTES_MAX || tokens.len() > TOKENS_MAX || !tokens.iter().all(|token| is_token(token)) {
        return bad(format!(
            "{field} must be 1 to {TOKENS_MAX} tokens of `[a-z0-9_-]` joined by dots, at most {BYTES_MAX} bytes"
        ));
    }
    if tokens.last().is_some_and(|token| is_version(token)) {
        return bad(format!("{field} must not end with a version"));
    }
    check_covered(field, event_type)
}

/// A pattern: a type, or with `*` for tokens and `>` as its last one; `>` alone is everything.
pub(super) fn check_pattern(field: &str, pattern: &str) -> Result<(), Fault> {
    if pattern == ALL {
        return Ok(());
    }
    let tokens: Vec<&str> = pattern.split('.').collect();
    let is_good = |(index, token): (usize, &&str)| match *token {
        "*" => index > 0,
        ">" => index > 0 && index + 1 == tokens.len(),
        token => is_token(token),
    };
    if pattern.len() > BYTES_MAX || tokens.len() > TOKENS_MAX || !tokens.iter().enumerate().all(is_good) {
        let text =
            format!("{field} must be tokens joined by dots, `*` for one token behind the first, `>` as the last");
        return Err(invalid(field, "bad_format", text));
    }
    check_covered(field, pattern)
}

fn check_covered(field: &str, pattern: &str) -> Result<(), Fault> {
    match log_of(pattern) {
        Some(_) => Ok(()),
        None => {
            let first = pattern.split('.').next().unwrap_or_default();
            let known: Vec<&str> = covered().map(|(prefix, _)| prefix).collect();
            let text = format!("no stream covers {first}: there are {}", known.join(", "));
            Err(invalid(field, "uncovered_prefix", text))
        }
    }
}

fn is_token(token: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    !token.is_empty() && token.bytes().all(is_letter)
}

fn is_version(token: &str) -> bool {
    token.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// True where the pattern takes a type, or everything that another pattern takes.
pub(super) fn takes(pattern: &str, other: &str) -> bool {
    let mut tokens = other.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(token)) if token != ">" => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// The patterns, sorted, without those that another one covers.
pub(super) fn active(patterns: &[String]) -> Vec<String> {
    let mut all = patterns.to_vec();
    all.sort_unstable();
    all.dedup();
    let is_needed = |pattern: &String| !all.iter().any(|other| other != pattern && takes(other, pattern));
    all.iter().filter(|pattern| is_needed(pattern)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_types_and_narrower_patterns() {
        for (pattern, other, is_taken) in [
            ("quest.>", "quest.completed", true),
            ("quest.>", "quest.a.b", true),
            ("quest.>", "quest", false),
            ("quest.*", "quest.completed", true),
            ("quest.*", "quest.a.b", false),
            ("quest.>", "quest.*", true),
            ("quest.*", "quest.>", false),
            (">", "quest.>", true),
            ("quest.*.x", "quest.a.x", true),
            ("npc.died", "npc.died.v1", false),
        ] {
            assert_eq!(takes(pattern, other), is_taken, "{pattern} {other}");
        }
    }

    #[test]
    fn a_type_is_literal_covered_and_without_its_version() {
        let reason = |event_type: &str| {
            let fault = check_type("event_type", event_type).err();
            fault.map(|fault| fault.details()[1].1.clone())
        };
        for good in ["quest.completed", "custom.a-b.c_d", "npc"] {
            assert_eq!(reason(good), None, "{good}");
        }
        for bad in ["", "quest.", "quest.Done", "quest.done.v1", "quest.*", ">", "custom.1.2.3.4.5.6.7.8"] {
            assert_eq!(reason(bad).as_deref(), Some("bad_format"), "{bad}");
        }
        assert_eq!(reason("secret.plan").as_deref(), Some("uncovered_prefix"));
        assert_eq!(reason("audit.x").as_deref(), Some("uncovered_prefix"));
    }
}
