//! Pages of which other origins may read a route's answers (the Fetch standard's CORS protocol).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use schemars::JsonSchema;

use super::manifest::At;
use super::policy::Reader;
use crate::written::{parse_duration, print_duration};

/// How long a browser keeps what a preflight said.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Browsers keep it no longer than a day.
const MAX_AGE_MAX: Duration = Duration::from_secs(86_400);

/// Pages of other origins that may use the route from a browser.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsRow {
    /// Their origins: `https://play.example.com`, `https://*.example.com`, `http://localhost:*`, or `*` for all.
    pub origins: Vec<String>,
    /// Header fields that they may send; any without it.
    #[serde(default)]
    pub headers: Option<Vec<String>>,
    /// How long a browser keeps that: `600s` without it.
    #[serde(default)]
    pub max_age: Option<String>,
}

/// The same as run.
#[derive(Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<Pattern>,
    /// Fields that pages may send, joined by commas; what they ask for without it.
    pub headers: Option<String>,
    /// How long a browser may keep it.
    pub max_age: Duration,
}

/// Scheme, host and port, each as it stands in an `Origin` field (RFC 6454 §6.2).
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    One {
        scheme: Box<str>,
        /// Without `*.`, where that stands before it.
        host: Box<str>,
        is_below: bool,
        port: Port,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Port {
    /// The scheme's own, which browsers leave out.
    Usual,
    Any,
    Number(Box<str>),
}

impl Cors {
    /// True where pages of every origin may read the answers, so that answers do not depend on it.
    pub fn allows_all(&self) -> bool {
        self.origins.contains(&Pattern::Any)
    }

    /// Whether whoever the other one allows is allowed here, as far as the patterns themselves say.
    pub fn covers(&self, other: &Cors) -> bool {
        self.allows_all() || other.origins.iter().all(|pattern| self.origins.contains(pattern))
    }

    /// Whether pages of that origin may read the answers.
    pub fn allows(&self, origin: &str) -> bool {
        let parts = split(origin);
        self.origins.iter().any(|pattern| match (pattern, parts) {
            (Pattern::Any, _) => true,
            (Pattern::One { scheme, host, is_below, port }, Some((other_scheme, other_host, other_port))) => {
                let has_host = match is_below {
                    false => other_host == &**host,
                    true => other_host.strip_suffix(&**host).is_some_and(|left| left.len() > 1 && left.ends_with('.')),
                };
                let has_port = match port {
                    Port::Usual => other_port.is_none(),
                    Port::Any => true,
                    Port::Number(number) => other_port == Some(number),
                };
                other_scheme == &**scheme && has_host && has_port
            }
            (Pattern::One { .. }, None) => false,
        })
    }
}

/// As people read it.
impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, origin) in self.origins.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match origin {
                Pattern::Any => f.write_str("*")?,
                Pattern::One { scheme, host, is_below, port } => {
                    write!(f, "{scheme}://{}{host}", if *is_below { "*." } else { "" })?;
                    match port {
                        Port::Usual => {}
                        Port::Any => f.write_str(":*")?,
                        Port::Number(number) => write!(f, ":{number}")?,
                    }
                }
            }
        }
        let headers = self.headers.as_deref().unwrap_or("any");
        write!(f, "; headers {headers}; kept for {}", print_duration(self.max_age))
    }
}

/// `scheme://host[:port]`; the brackets of an IPv6 address belong to the host.
fn split(origin: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, authority) = origin.split_once("://")?;
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = colon.map_or((authority, None), |at| (&authority[..at], Some(&authority[at + 1..])));
    Some((scheme, host, port))
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        if text == "*" {
            return Some(Pattern::Any);
        }
        let (scheme, host, port) = split(text)?;
        let (is_below, host) = host.strip_prefix("*.").map_or((false, host), |host| (true, host));
        let is_one = format!("{scheme}://{host}").parse::<Uri>().is_ok_and(|uri| {
            uri.host() == Some(host) && uri.path() == "/" && uri.query().is_none() && !text.ends_with('/')
        });
        let is_as_sent = !text.contains(|c: char| c.is_ascii_uppercase() || c == '@') && !host.contains('*');
        let port = match port {
            None => Port::Usual,
            Some("*") => Port::Any,
            Some(number) if number.parse::<u16>().is_ok() => Port::Number(number.into()),
            Some(_) => return None,
        };
        (is_one && is_as_sent).then(|| Pattern::One { scheme: scheme.into(), host: host.into(), is_below, port })
    }
}

impl Reader<'_> {
    /// Origins as written → as run.
    pub(super) fn cors(&mut self, row: &At<CorsRow>) -> Option<Arc<Cors>> {
        let CorsRow { origins, headers, max_age } = &row.value;
        let mut patterns = Vec::with_capacity(origins.len());
        for origin in origins {
            match Pattern::parse(origin) {
                Some(pattern) => patterns.push(pattern),
                None => self.problem(
                    row.place,
                    format!("`origins`: expected an origin such as `https://play.example.com`, found `{origin}`"),
                ),
            }
        }
        for name in headers.iter().flatten() {
            if name.parse::<HeaderName>().is_err() {
                self.problem(row.place, format!("`headers`: `{name}` is no name of a header field"));
            }
        }
        let length = max_age.as_deref().map(|text| (text, parse_duration(text)));
        let max_age = match length {
            None => MAX_AGE,
            Some((_, Some(length))) if length <= MAX_AGE_MAX => length,
            Some((text, _)) => {
                let text = format!("`max_age`: expected a duration such as `600s` up to `86400s`, found `{text}`");
                self.problem(row.place, text);
                MAX_AGE
            }
        };
        let headers = headers.as_ref().map(|names| names.join(", "));
        (patterns.len() == origins.len()).then(|| Arc::new(Cors { origins: patterns, headers, max_age }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_where_all_of_its_parts_are() {
        for (pattern, allowed, refused) in [
            ("*", ["https://a.example", "null"].as_slice(), [].as_slice()),
            (
                "https://play.example.com",
                &["https://play.example.com"],
                &[
                    "http://play.example.com",
                    "https://play.example.com:8443",
                    "https://play.example.com.evil.example",
                    "https://evilplay.example.com",
                    "null",
                    "",
                ],
            ),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b.example.com"],
                &["https://example.com", "https://.example.com", "https://evilexample.com", "https://a.example.com:1"],
            ),
            (
                "http://localhost:*",
                &["http://localhost", "http://localhost:5173"],
                &["http://localhost.evil.example:80"],
            ),
            ("http://[::1]:8080", &["http://[::1]:8080"], &["http://[::1]"]),
        ] {
            let cors = Cors { origins: vec![Pattern::parse(pattern).unwrap()], headers: None, max_age: MAX_AGE };
            for origin in allowed {
                assert!(cors.allows(origin), "{pattern} allows {origin}");
            }
            for origin in refused {
                assert!(!cors.allows(origin), "{pattern} refuses {origin}");
            }
        }
    }

    #[test]
    fn what_no_browser_sends_as_an_origin_is_no_pattern() {
        for text in [
            "",
            "play.example.com",
            "https://",
            "https://play.example.com/",
            "https://play.example.com/game",
            "https://play.example.com?x",
            "https://Play.example.com",
            "https://me@play.example.com",
            "https://play.*.com",
            "https://play.example.com:x",
            "https://play.example.com:70000",
        ] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
