//! An operation against the messages of its method: every name becomes a number, or a problem.

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::DynamicMessage;

use super::hooked::only_with_hook;
use super::message::Message;
use super::rule::Rule;
use super::{
    Choice, Delete, DocumentKind, Filter, From, Into, Mode, Operation, Publication, Put, Range, ScalarAt, TimeOf,
    Token, Watch, Watched,
};
use crate::transcode::table::Kind;
use crate::transcode::{MessageId, Tables};

/// What a method's declaration is compiled against.
pub(in crate::schema) struct Around<'a> {
    pub(in crate::schema) tables: &'a Tables,
    pub(in crate::schema) kinds: &'a [Arc<DocumentKind>],
    pub(in crate::schema) request: MessageId,
    /// The reply, or the chunks of a stream.
    pub(in crate::schema) reply: MessageId,
    pub(in crate::schema) is_streaming: bool,
}

/// A method's operation.
pub(in crate::schema) fn operation(around: &Around<'_>, rule: &DynamicMessage) -> Result<Operation, String> {
    let Some((action, message)) = Rule(rule).action() else {
        return Err("`operation` says nothing: give it one of get, put, delete, list, watch, publish, read".to_owned());
    };
    let (has_hook, rule) = (Rule(rule).is_set("hook"), Rule(&message));
    let operation = match (only_with_hook(&action, &rule).filter(|_| !has_hook), action.as_str()) {
        (Some(name), _) => Err(format!("`{name}` needs `hook: true`")),
        (None, action) if has_hook => around.hooked(action, &rule),
        (None, "get") => around.get(&rule),
        (None, "put") => around.put(&rule),
        (None, "delete") => around.delete(&rule),
        (None, "list") => around.list(&rule),
        (None, "watch") => around.watch(&rule),
        (None, "publish") => around.publish(&rule),
        (None, _) => around.read(&rule),
    }
    .map_err(|problem| format!("`operation.{action}`: {problem}"))?;
    match (operation.streams(), around.is_streaming) {
        (true, false) => Err(format!("`operation.{action}` answers with a stream: declare `returns (stream …)`")),
        (false, true) => Err(format!("`operation.{action}` answers once: declare `returns` without `stream`")),
        _ => Ok(operation),
    }
}

/// What tokens make up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    Key,
    Subject,
    /// A subject with wildcards.
    Pattern,
}

/// A length of time; none at all is as if it was not said.
pub(super) fn length(rule: &Rule<'_>, name: &str) -> Option<Duration> {
    rule.duration(name).filter(|length| !length.is_zero())
}

impl Around<'_> {
    fn asked(&self) -> Message<'_> {
        Message { tables: self.tables, id: self.request, role: "request" }
    }

    fn answered(&self) -> Message<'_> {
        Message { tables: self.tables, id: self.reply, role: if self.is_streaming { "chunk" } else { "reply" } }
    }

    fn kept(&self, kind: &DocumentKind) -> Message<'_> {
        Message { tables: self.tables, id: kind.message, role: "document" }
    }

    fn kind(&self, rule: &Rule<'_>) -> Result<Arc<DocumentKind>, String> {
        let kind = self.any_kind(rule)?;
        if kind.message_name.is_empty() {
            let bucket = &kind.bucket;
            return Err(format!("bucket `{bucket}` keeps no message: name one in its `document`, or say `hook: true`"));
        }
        Ok(kind)
    }

    pub(super) fn any_kind(&self, rule: &Rule<'_>) -> Result<Arc<DocumentKind>, String> {
        let bucket = rule.text("bucket");
        self.kinds.iter().find(|kind| kind.bucket == bucket).cloned().ok_or_else(|| {
            format!("no document is declared for bucket `{bucket}`: add `option (tidegate.document)` to the service")
        })
    }

    fn get(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let kind = self.kind(rule)?;
        let (key, into) = (self.choice(rule)?, self.place(rule, &kind)?);
        Ok(Operation::Get { key, into, cache: length(rule, "cache"), may_lag: rule.is_set("may_lag"), kind })
    }

    fn put(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let (kind, asked) = (self.kind(rule)?, self.asked());
        let from = match rule.given("from") {
            Some(name) => From::Field(asked.message(&name, kind.message, &kind.message_name)?),
            None => From::SameNames(asked.same_names(&self.kept(&kind))?),
        };
        let mode = match (rule.number("mode"), &from) {
            (1, _) => Mode::Create,
            (2, _) => Mode::Replace,
            (3, From::SameNames(pairs)) => Mode::Merge(self.kept(&kind).names(pairs.iter().map(|pair| pair.1))),
            (3, From::Field(_)) => return Err("`MERGE` takes the request's own fields: leave `from` out".to_owned()),
            _ => Mode::Any,
        };
        let into = match self.place(rule, &kind) {
            Ok(into) => Some(into),
            Err(problem) if rule.given("into").is_some() => return Err(problem),
            Err(_) => None,
        };
        Ok(Operation::Put(Box::new(Put {
            key: self.joined(rule, "key", Joined::Key)?,
            from,
            mode,
            expected_version: self.asked_number(rule, "expected_version")?,
            into,
            version_into: self.answered_at(rule, "version_into", Message::integer)?,
            event: self.event(rule)?,
            expires_after: self.stored(rule, "expires_after", &kind)?,
            times: rule.messages("time").iter().map(|time| self.time(&Rule(time), &kind)).collect::<Result<_, _>>()?,
            ranges: rule
                .messages("range")
                .iter()
                .map(|range| self.range(&Rule(range), &kind))
                .collect::<Result<_, _>>()?,
            preset: self.answered().presets(&rule.messages("preset"))?,
            kind,
        })))
    }

    fn time(&self, rule: &Rule<'_>, kind: &DocumentKind) -> Result<TimeOf, String> {
        Ok(TimeOf {
            keep: self.stored(rule, "keep", kind)?,
            into: self.answered_at(rule, "into", Message::integer)?,
            after: self.stored(rule, "after", kind)?,
        })
    }

    fn range(&self, rule: &Rule<'_>, kind: &DocumentKind) -> Result<Range, String> {
        let (min, max) = (rule.real("min").unwrap_or(f64::MIN), rule.real("max").unwrap_or(f64::MAX));
        let field = self.stored(rule, "field", kind)?.ok_or("`range` names a `field`")?;
        Ok(Range { field, bounds: [min, max] })
    }

    /// The name of a field of the document at its top, or of a member that is kept beside them.
    fn stored(&self, rule: &Rule<'_>, what: &str, kind: &DocumentKind) -> Result<Option<String>, String> {
        let Some(name) = rule.given(what) else { return Ok(None) };
        let is_known = kind.members.contains(&name)
            || self.tables.message(kind.message).fields.iter().any(|field| *field.spec.name == *name);
        if is_known {
            return Ok(Some(name));
        }
        Err(format!("`{what}: \"{name}\"` is no field of `{}`, and no `member` of its documents", kind.message_name))
    }

    fn delete(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let (kind, key) = (self.kind(rule)?, self.joined(rule, "key", Joined::Key)?);
        Ok(Operation::Delete { kind, key, plan: self.deletion(rule)? })
    }

    pub(super) fn deletion(&self, rule: &Rule<'_>) -> Result<Delete, String> {
        Ok(Delete {
            expected_version: self.asked_number(rule, "expected_version")?,
            version_into: self.answered_at(rule, "version_into", Message::integer)?,
            event: self.event(rule)?,
            deleted_into: self.answered_at(rule, "deleted_into", Message::boolean)?,
            may_be_missing: rule.is_set("may_be_missing"),
        })
    }

    fn list(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let kind = self.kind(rule)?;
        let filter = |rule: DynamicMessage| {
            let (rule, field) = (Rule(&rule), Rule(&rule).text("field"));
            let document = rule.given("document").unwrap_or_else(|| field.clone());
            let (asked, kept) = (self.asked().scalar(&field)?, self.kept(&kind).scalar(&document)?);
            let is_same = asked.kind == kept.kind;
            is_same
                .then(|| Filter { asked, kept, one_of: rule.texts("one_of") })
                .ok_or_else(|| format!("filter `{field}`: it and `{document}` of the document are of two types"))
        };
        Ok(Operation::List {
            under: self.tokens(&rule.text("under"), Joined::Key)?,
            filters: rule.messages("filter").into_iter().map(filter).collect::<Result<_, _>>()?,
            page_size: self.asked_number(rule, "page_size")?,
            page_token: self.asked_at(rule, "page_token")?,
            into: self.answered().list_of(&rule.text("into"), kind.message, &kind.message_name)?,
            next_page_token_into: self.answered_at(rule, "next_page_token_into", Message::text)?,
            cache: length(rule, "cache"),
            kind,
        })
    }

    fn watch(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let kind = self.kind(rule)?;
        let (under, is_one) = (self.tokens(&rule.text("under"), Joined::Key)?, !rule.texts("key").is_empty());
        let of = match is_one {
            true if !under.is_empty() => return Err("`key` is one document, `under` are many: name one of them".into()),
            true => Watched::One(self.choice(rule)?),
            false => Watched::Under(under),
        };
        let must_exist = rule.is_set("must_exist");
        if must_exist && !is_one {
            return Err("`must_exist` is for one document: name it with `key`".to_owned());
        }
        let into = self.place(rule, &kind)?;
        let version_into = match &into {
            Into::SameNames(None, pairs) => pairs.iter().find(|pair| kind.version == Some(pair.0)).map(|pair| pair.1),
            _ => None,
        };
        Ok(Operation::Watch(Box::new(Watch {
            of,
            after_revision: self.asked_number(rule, "after_revision")?,
            into,
            version_into,
            revision_into: self.answered_at(rule, "revision_into", Message::integer)?,
            key_into: self.answered_at(rule, "key_into", Message::text)?,
            deleted_into: self.answered_at(rule, "deleted_into", Message::boolean)?,
            written: self.answered().presets(&rule.messages("written"))?,
            deleted: self.answered().presets(&rule.messages("deleted"))?,
            must_exist,
            last: self.stored(rule, "last", &kind)?,
            kind,
        })))
    }

    fn publish(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let (from, message) = match rule.given("from") {
            Some(name) => {
                let field = self.asked().one(&name)?;
                let message = field.message().ok_or_else(|| format!("`from: \"{name}\"` is no message"))?;
                (Some(field.spec.number), message)
            }
            None => (None, self.request),
        };
        let (publication, id) = (self.publication(rule, message)?, self.asked_at(rule, "id")?);
        Ok(Operation::Publish { publication, from, id })
    }

    pub(super) fn publication(&self, rule: &Rule<'_>, message: MessageId) -> Result<Publication, String> {
        Ok(Publication {
            subject: self.joined(rule, "subject", Joined::Subject)?,
            message,
            message_name: self.tables.message(message).name.to_string(),
            within: length(rule, "within"),
            sequence_into: self.answered_at(rule, "sequence_into", Message::integer)?,
            duplicate_into: self.answered_at(rule, "duplicate_into", Message::boolean)?,
        })
    }

    fn read(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let field = self.answered().one(&rule.text("into"))?;
        if field.message().is_none() {
            return Err(format!("`into: \"{}\"` is no message", rule.text("into")));
        }
        Ok(Operation::Read {
            log: rule.given("log").ok_or("`log` names the log")?,
            subject: self.tokens(&rule.text("subject"), Joined::Pattern)?,
            after: self.asked_number(rule, "after")?,
            into: field.spec.number,
            sequence_into: self.answered_at(rule, "sequence_into", Message::integer)?,
            id_into: self.answered_at(rule, "id_into", Message::text)?,
            subject_into: self.answered_at(rule, "subject_into", Message::text)?,
        })
    }

    /// Where the document goes in the reply.
    pub(super) fn place(&self, rule: &Rule<'_>, kind: &DocumentKind) -> Result<Into, String> {
        let (answered, kept) = (self.answered(), self.kept(kind));
        let Some(name) = rule.given("into") else {
            if self.reply == kind.message {
                return Ok(Into::Whole);
            }
            return Ok(Into::SameNames(None, kept.same_names(&answered)?));
        };
        let field = answered.one(&name)?;
        if field.message() == Some(kind.message) {
            return Ok(Into::Field(field.spec.number));
        }
        let refused = || format!("`{name}` of the {} is no `{}`", answered.role, kind.message_name);
        let inside = field.message().map(|id| Message { tables: self.tables, id, role: answered.role });
        let pairs = kept.same_names(&inside.ok_or_else(refused)?).map_err(|_| refused())?;
        Ok(Into::SameNames(Some(field.spec.number), pairs))
    }

    /// The keys of a document, and what is missing without all of them.
    fn choice(&self, rule: &Rule<'_>) -> Result<Choice, String> {
        let texts = rule.texts("key");
        let keys: Vec<Vec<Token>> =
            texts.iter().map(|text| self.tokens(text, Joined::Key)).collect::<Result<_, _>>()?;
        let first = keys.first().filter(|key| !key.is_empty()).ok_or("`key` is missing")?;
        let lacks = first.iter().rev().find_map(Token::field).map(|at| self.asked().oneof_or_name(&at.name));
        let lacks = lacks.transpose()?.unwrap_or_default();
        Ok(Choice { keys, lacks })
    }

    pub(super) fn event(&self, rule: &Rule<'_>) -> Result<Option<Vec<Token>>, String> {
        rule.message("event").map(|event| self.joined(&Rule(&event), "subject", Joined::Subject)).transpose()
    }

    pub(super) fn joined(&self, rule: &Rule<'_>, name: &str, of: Joined) -> Result<Vec<Token>, String> {
        let tokens = self.tokens(&rule.text(name), of)?;
        if tokens.is_empty() { Err(format!("`{name}` is missing")) } else { Ok(tokens) }
    }

    pub(super) fn tokens(&self, text: &str, of: Joined) -> Result<Vec<Token>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let count = text.split('.').count();
        // Dots inside of braces belong to the field's path.
        let mut tokens = Vec::with_capacity(count);
        let mut rest = text;
        while !rest.is_empty() {
            let (token, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((path, after)) => match path.strip_suffix("=**") {
                    Some(_) if of == Joined::Key => {
                        return Err(format!("`{text}`: in a key a field is one token: leave `=**` out"));
                    }
                    Some(path) => (Token::Dotted(self.asked().scalar(path)?), after),
                    None => (Token::Field(self.asked().scalar(path)?), after),
                },
                None => {
                    let (literal, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                    let is_wild = literal == "*" || (literal == ">" && after.is_empty());
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if literal.is_empty() || !(literal.chars().all(is_plain) || (of == Joined::Pattern && is_wild)) {
                        return Err(format!("`{text}`: a token is `{{field}}`, or letters, digits, `_` and `-`"));
                    }
                    (Token::Literal(literal.to_owned()), after)
                }
            };
            tokens.push(token);
            rest = match after.strip_prefix('.') {
                Some(next) if !next.is_empty() => next,
                None if after.is_empty() => after,
                _ => return Err(format!("`{text}`: tokens are joined by single dots")),
            };
        }
        Ok(tokens)
    }

    pub(super) fn asked_at(&self, rule: &Rule<'_>, name: &str) -> Result<Option<ScalarAt>, String> {
        rule.given(name).map(|path| self.asked().scalar(&path)).transpose()
    }

    /// A whole number of the request.
    pub(super) fn asked_number(&self, rule: &Rule<'_>, name: &str) -> Result<Option<ScalarAt>, String> {
        let at = self.asked_at(rule, name)?;
        match &at {
            Some(ScalarAt { kind: Kind::String | Kind::Bool, name: field, .. }) => {
                Err(format!("`{name}`: `{field}` of the request is no integer"))
            }
            _ => Ok(at),
        }
    }

    pub(super) fn answered_at<'s>(
        &'s self,
        rule: &Rule<'_>,
        name: &str,
        number: fn(&Message<'s>, &str) -> Result<u32, String>,
    ) -> Result<Option<u32>, String> {
        rule.given(name).map(|field| number(&self.answered(), &field)).transpose()
    }
}
