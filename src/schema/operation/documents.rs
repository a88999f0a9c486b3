//! The kinds of documents that a service declares, against their messages.

use std::sync::Arc;

use prost_reflect::DynamicMessage;

use super::message::Message;
use super::rule::Rule;
use super::{DocumentKind, HISTORY_MAX};
use crate::transcode::{MessageId, Tables};

/// What is wrong with a declaration.
pub(in crate::schema) type Problems = Vec<String>;

/// The kinds of documents that a service declares.
pub(in crate::schema) fn documents(tables: &Tables, rules: &[DynamicMessage]) -> (Vec<Arc<DocumentKind>>, Problems) {
    let (mut kinds, mut problems) = (Vec::new(), Vec::new());
    for rule in rules {
        match document(tables, &Rule(rule)) {
            Ok(kind) => kinds.push(Arc::new(kind)),
            Err(problem) => problems.push(problem),
        }
    }
    (kinds, problems)
}

fn document(tables: &Tables, rule: &Rule<'_>) -> Result<DocumentKind, String> {
    let (bucket, message_name) = (rule.text("bucket"), rule.text("message"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if bucket.is_empty() || !bucket.chars().all(is_name) {
        return Err(format!("`bucket: \"{bucket}\"`: a bucket's name has letters, digits, `_` and `-`"));
    }
    let (version, updated) = (rule.given("version"), rule.given("updated"));
    let message = match message_name.as_str() {
        "" if version.is_some() || updated.is_some() => {
            return Err(format!(
                "bucket `{bucket}`: `version` and `updated` are fields of a `message`: name that as well"
            ));
        }
        "" => MessageId(0),
        name => {
            tables.message_id(name).ok_or_else(|| format!("bucket `{bucket}`: the schema has no message `{name}`"))?
        }
    };
    let of = Message { tables, id: message, role: "document" };
    let version = version.map(|name| of.integer(&name)).transpose()?;
    let updated = updated.map(|name| of.time(&name)).transpose()?;
    let history = match rule.number("history") {
        0 => 8,
        history @ 1..=HISTORY_MAX => history as u8,
        other => return Err(format!("bucket `{bucket}`: `history` is 1 to {HISTORY_MAX}, found {other}")),
    };
    let (ttl, name, members) = (rule.duration("ttl"), rule.given("name"), rule.texts("member"));
    Ok(DocumentKind { bucket, message, message_name, version, updated, ttl, history, name, members })
}
