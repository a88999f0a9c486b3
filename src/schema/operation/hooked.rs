//! Declarations with a hook: the store action is declared, and what follows from a document is a function in code.

use std::sync::Arc;
use std::time::Duration;

use super::compile::{Around, Joined, length};
use super::message::Message;
use super::rule::Rule;
use super::{Delete, DocumentKind, Into, Mode, ScalarAt, Token};

/// A store action of which a hook decides what it writes or answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// The documents that it works on.
    pub kind: Arc<DocumentKind>,
    /// Key of one document; the first tokens of many keys for a list, or a watch of many. A put without any has its key
    /// from the hook.
    pub key: Vec<Token>,
    /// Of a put: key of another document that its hook is given.
    pub beside: Option<Vec<Token>>,
    /// What it does.
    pub action: Action,
}

/// What a declaration with a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub enum Action {
    Get {
        may_lag: bool,
    },
    Put {
        mode: Mode,
        expected_version: Option<ScalarAt>,
        expected_revision: Option<ScalarAt>,
        /// Where the document as written goes in the reply.
        into: Option<Into>,
        version_into: Option<u32>,
        revision_into: Option<u32>,
        event: Option<Vec<Token>>,
    },
    Delete(Delete),
    List,
    Watch {
        after_revision: Option<ScalarAt>,
        /// `key` is one document.
        is_one: bool,
        every: Option<Duration>,
    },
}

impl Action {
    /// Its name in the schema.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Get { .. } => "get",
            Action::Put { .. } => "put",
            Action::Delete(_) => "delete",
            Action::List => "list",
            Action::Watch { .. } => "watch",
        }
    }
}

/// What a hook decides, so that it has no place in the declaration, by action.
const DECIDED: &[(&str, &[&str])] = &[
    ("get", &["into", "cache"]),
    ("put", &["from", "expires_after", "time", "range", "preset"]),
    ("delete", &[]),
    ("list", &["filter", "page_size", "page_token", "into", "next_page_token_into", "cache"]),
    ("watch", &["into", "revision_into", "key_into", "deleted_into", "written", "deleted", "must_exist", "last"]),
    ("publish", &["from", "id"]),
];

/// What only a declaration with a hook can say, by action.
const OF_HOOKS: &[(&str, &[&str])] =
    &[("put", &["revision_into", "expected_revision", "beside"]), ("watch", &["every"]), ("publish", &["message"])];

/// What a declaration says that needs a hook.
pub(super) fn only_with_hook(action: &str, rule: &Rule<'_>) -> Option<&'static str> {
    let (_, names) = OF_HOOKS.iter().find(|row| row.0 == action)?;
    names.iter().copied().find(|name| rule.has(name))
}

/// Refuses what shows a document where nobody but the hook knows what is kept.
fn only_of_messages(names: &[&str], rule: &Rule<'_>, kind: &DocumentKind) -> Result<(), String> {
    match names.iter().find(|name| kind.message_name.is_empty() && rule.has(name)) {
        Some(name) => {
            let bucket = &kind.bucket;
            Err(format!("`{name}`: bucket `{bucket}` keeps no message, so the hook has to do this"))
        }
        None => Ok(()),
    }
}

impl Around<'_> {
    pub(super) fn hooked(&self, action: &str, rule: &Rule<'_>) -> Result<super::Operation, String> {
        let Some((_, decided)) = DECIDED.iter().find(|row| row.0 == action) else {
            return Err("it has no hook: only get, put, delete, list, watch and publish have".to_owned());
        };
        if let Some(name) = decided.iter().find(|name| rule.has(name)) {
            return Err(format!("`{name}` is what the hook decides: remove one of the two"));
        }
        if action == "publish" {
            let name = rule.given("message").ok_or("`message` names the event that the hook makes")?;
            let message = self.tables.message_id(&name);
            let message = message.ok_or_else(|| format!("`message`: the schema has no message `{name}`"))?;
            return Ok(super::Operation::HookedPublish(self.publication(rule, message)?));
        }
        let kind = self.any_kind(rule)?;
        let beside = rule.given("beside").map(|key| self.tokens(&key, Joined::Key)).transpose()?;
        let (key, action) = match action {
            "get" => (self.one_key(rule)?, Action::Get { may_lag: rule.is_set("may_lag") }),
            "put" => (self.tokens(&rule.text("key"), Joined::Key)?, self.hooked_put(rule, &kind)?),
            "delete" => {
                only_of_messages(&["event"], rule, &kind)?;
                (self.joined(rule, "key", Joined::Key)?, Action::Delete(self.deletion(rule)?))
            }
            "list" => (self.tokens(&rule.text("under"), Joined::Key)?, Action::List),
            _ => {
                let is_one = rule.has("key");
                if is_one && rule.has("under") {
                    return Err("`key` is one document, `under` are many: name one of them".to_owned());
                }
                let after_revision = self.asked_number(rule, "after_revision")?;
                let key = if is_one { self.one_key(rule)? } else { self.tokens(&rule.text("under"), Joined::Key)? };
                let every = length(rule, "every");
                (key, Action::Watch { after_revision, is_one, every })
            }
        };
        Ok(super::Operation::Hooked(Hooked { kind, key, beside, action }))
    }

    /// The key of a read, which with a hook is a single one.
    fn one_key(&self, rule: &Rule<'_>) -> Result<Vec<Token>, String> {
        match rule.texts("key").as_slice() {
            [key] if !key.is_empty() => self.tokens(key, Joined::Key),
            [] | [_] => Err("`key` is missing".to_owned()),
            _ => Err("with a hook there is one `key`: remove the others".to_owned()),
        }
    }

    fn hooked_put(&self, rule: &Rule<'_>, kind: &DocumentKind) -> Result<Action, String> {
        only_of_messages(&["into", "event"], rule, kind)?;
        let has_place = rule.has("into") || (self.reply == kind.message && !kind.message_name.is_empty());
        Ok(Action::Put {
            mode: match rule.number("mode") {
                1 => Mode::Create,
                2 => Mode::Replace,
                3 => return Err("`MERGE` is what the hook decides: remove one of the two".to_owned()),
                _ => Mode::Any,
            },
            expected_version: self.asked_number(rule, "expected_version")?,
            expected_revision: self.asked_number(rule, "expected_revision")?,
            into: has_place.then(|| self.place(rule, kind)).transpose()?,
            version_into: self.answered_at(rule, "version_into", Message::integer)?,
            revision_into: self.answered_at(rule, "revision_into", Message::integer)?,
            event: self.event(rule)?,
        })
    }
}
