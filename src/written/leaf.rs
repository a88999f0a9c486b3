//! The kinds of single values: truths, numbers, durations, texts, and secrets, which are named and never written.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::keys::Key;
use super::tree::{Node, Tree};
use super::{parse_duration, print_duration};
use crate::transcode::rfc3339_millis;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// `file:PATH`: the file's text, without white space at its ends.
    File(PathBuf),
    /// `env:NAME`: an environment variable.
    Variable(String),
}

/// A secret, named in the file and read from elsewhere. Its text is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    source: SecretSource,
    text: Option<Arc<str>>,
}

impl Secret {
    /// Its text; empty where the file was only checked.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.source)
    }
}

impl Key<'_, '_> {
    /// `true` or `false`.
    pub fn truth(self, default: bool) -> bool {
        self.leaf(json!({ "type": "boolean", "default": default }), default, |tree| match tree.node {
            Node::Truth(truth) => Ok(truth),
            _ => Err(format!("expected `true` or `false`, found {}", tree.node)),
        })
    }

    /// A number without a fraction.
    pub fn count(self, default: u32, range: RangeInclusive<u32>) -> u32 {
        let (min, max) = (*range.start(), *range.end());
        let schema = json!({ "type": "integer", "minimum": min, "maximum": max, "default": default });
        self.leaf(schema, default, |tree| read_count(tree, &range))
    }

    /// A number.
    pub fn real(self, default: f64, range: RangeInclusive<f64>) -> f64 {
        let (min, max) = (*range.start(), *range.end());
        let schema = json!({ "type": "number", "minimum": min, "maximum": max, "default": default });
        self.leaf(schema, default, |tree| {
            let number = match tree.node {
                Node::Whole(number) => number as f64,
                Node::Real(number) => number,
                _ => return Err(format!("expected a number, found {}", tree.node)),
            };
            match range.contains(&number) {
                true => Ok(number),
                false => Err(format!("`{number}` is out of range: expected {min} to {max}")),
            }
        })
    }

    /// A duration with its unit: `500ms`, `30s`, `5m`, `24h`.
    pub fn length(self, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let mut schema = length_schema();
        schema["default"] = print_duration(default).into();
        self.leaf(schema, default, |tree| read_length(tree, &range))
    }

    /// A list of durations, at least one.
    pub fn lengths(self, default: &[Duration], range: RangeInclusive<Duration>) -> Vec<Duration> {
        let printed: Vec<String> = default.iter().map(|length| print_duration(*length)).collect();
        let schema = json!({ "type": "array", "items": length_schema(), "minItems": 1, "default": printed });
        self.leaf(schema, default.to_vec(), |tree| match &tree.node {
            Node::List(list) if !list.is_empty() => list.iter().map(|tree| read_length(tree, &range)).collect(),
            _ => Err(format!("expected a list of durations such as `[1s, 2s]`, found {}", tree.node)),
        })
    }

    /// A text.
    pub fn text(self, default: &str) -> String {
        self.leaf(json!({ "type": "string", "default": default }), default.to_owned(), read_text)
    }

    /// A text that has to be there.
    pub fn required_text(mut self) -> String {
        self.require();
        self.leaf(json!({ "type": "string", "minLength": 1 }), String::new(), |tree| match read_text(tree)? {
            text if text.is_empty() => Err("expected a text that is not empty".to_owned()),
            text => Ok(text),
        })
    }

    /// A text that may be absent.
    pub fn optional_text(self) -> Option<String> {
        self.leaf(json!({ "type": "string" }), None, |tree| read_text(tree).map(Some))
    }

    /// A number without a fraction that may be absent.
    pub fn optional_count(self, range: RangeInclusive<u32>) -> Option<u32> {
        let schema = json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() });
        self.leaf(schema, None, |tree| read_count(tree, &range).map(Some))
    }

    /// A moment as RFC 3339 text, in milliseconds since 1970, that may be absent.
    pub fn optional_moment(self) -> Option<i64> {
        self.leaf(json!({ "type": "string", "format": "date-time" }), None, |tree| {
            let millis = match &tree.node {
                Node::Text(text) => rfc3339_millis(text),
                _ => None,
            };
            let expected = || format!("expected a time such as `2026-12-31T23:59:59Z`, found {}", tree.node);
            millis.map(Some).ok_or_else(expected)
        })
    }

    /// One of these words.
    pub fn choice<T: Copy + PartialEq + fmt::Debug>(self, default: T, choices: &[(&str, T)]) -> T {
        let words: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
        let word = choices.iter().find(|choice| choice.1 == default).map_or("", |choice| choice.0);
        self.leaf(json!({ "enum": words, "default": word }), default, |tree| {
            let found = match &tree.node {
                Node::Text(text) => choices.iter().find(|choice| choice.0 == text).map(|choice| choice.1),
                _ => None,
            };
            found.ok_or_else(|| format!("expected {}, found {}", quoted(&words), tree.node))
        })
    }

    /// A list of texts; `is_good` says what is wrong with one.
    pub fn texts(self, default: &[&str], is_good: impl Fn(&str) -> Result<(), String>) -> Vec<String> {
        let schema = json!({ "type": "array", "items": { "type": "string" }, "default": default });
        let default = default.iter().map(|text| (*text).to_owned()).collect();
        self.leaf(schema, default, |tree| match &tree.node {
            Node::List(list) => {
                list.iter().map(|tree| read_text(tree).and_then(|text| is_good(&text).map(|()| text))).collect()
            }
            _ => Err(format!("expected a list of texts, found {}", tree.node)),
        })
    }

    /// A map of texts; numbers count as texts.
    pub fn text_map(self) -> BTreeMap<String, String> {
        let schema = json!({ "type": "object", "additionalProperties": { "type": ["string", "number"] } });
        self.leaf(schema, BTreeMap::new(), |tree| {
            let Node::Map(members) = &tree.node else {
                return Err(format!("expected a map of texts, found {}", tree.node));
            };
            let text = |tree: &Tree| match &tree.node {
                Node::Whole(number) => Ok(number.to_string()),
                Node::Real(number) => Ok(number.to_string()),
                _ => read_text(tree),
            };
            members.iter().map(|(name, tree)| text(tree).map(|text| (name.value.clone(), text))).collect()
        })
    }

    /// A map of numbers without a fraction; `default` stays where the file says nothing of a name.
    pub fn count_map(self, default: &[(&str, u32)], range: RangeInclusive<u32>) -> BTreeMap<String, u32> {
        let (min, max) = (*range.start(), *range.end());
        let default: BTreeMap<String, u32> = default.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let item = json!({ "type": "integer", "minimum": min, "maximum": max });
        let schema = json!({ "type": "object", "additionalProperties": item, "default": default });
        self.leaf(schema, default.clone(), |tree| {
            let Node::Map(members) = &tree.node else {
                return Err(format!("expected a map of numbers, found {}", tree.node));
            };
            let mut counts = default;
            for (name, tree) in members {
                let count = read_count(tree, &range).map_err(|text| format!("`{}`: {text}", name.value))?;
                counts.insert(name.value.clone(), count);
            }
            Ok(counts)
        })
    }

    /// A secret: `file:PATH` or `env:NAME`.
    pub fn secret(self) -> Option<Secret> {
        let found = self.keys.find(self.name);
        let read = found.and_then(|tree| {
            let report = &mut *self.keys.report;
            let Some(source) = source_of(&tree.node) else {
                report.advise(
                    tree.place,
                    format!("`{}` is a secret, which is never written into this file", self.name),
                    "put it into a file or an environment variable and write `file:PATH` or `env:NAME`",
                );
                report.conceal_last();
                return None;
            };
            let text = match report.secret(&source) {
                None => None,
                Some(Ok(text)) if text.trim().is_empty() => {
                    report.problem(tree.place, format!("the secret of `{}` is empty", self.name));
                    None
                }
                Some(Ok(text)) => Some(text.trim().into()),
                Some(Err(why)) => {
                    report.problem(tree.place, format!("the secret of `{}` cannot be read: {why}", self.name));
                    None
                }
            };
            Some(Secret { source, text })
        });
        self.describe(json!({ "type": "string", "pattern": "^(file|env):.+$" }));
        read
    }
}

fn source_of(node: &Node) -> Option<SecretSource> {
    let Node::Text(text) = node else { return None };
    let (kind, name) = text.split_once(':')?;
    match (kind, name.trim()) {
        (_, "") => None,
        ("file", path) => Some(SecretSource::File(PathBuf::from(path))),
        ("env", name) => Some(SecretSource::Variable(name.to_owned())),
        _ => None,
    }
}

fn read_text(tree: &Tree) -> Result<String, String> {
    match &tree.node {
        Node::Text(text) => Ok(text.clone()),
        Node::Whole(_) | Node::Real(_) | Node::Truth(_) => {
            Err(format!("expected a text, found {}: put it in quotes", tree.node))
        }
        _ => Err(format!("expected a text, found {}", tree.node)),
    }
}

fn read_count(tree: &Tree, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let Node::Whole(number) = tree.node else {
        return Err(format!("expected a whole number, found {}", tree.node));
    };
    u32::try_from(number)
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("`{number}` is out of range: expected {} to {}", range.start(), range.end()))
}

fn length_schema() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" })
}

fn read_length(tree: &Tree, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let found = match &tree.node {
        Node::Text(text) => parse_duration(text),
        _ => None,
    };
    let Some(length) = found else {
        return Err(format!("expected a duration such as `500ms` or `30s`, found {}", tree.node));
    };
    match range.contains(&length) {
        true => Ok(length),
        false => {
            let (min, max) = (print_duration(*range.start()), print_duration(*range.end()));
            Err(format!("{} is out of range: expected {min} to {max}", tree.node))
        }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
}
