//! An operation against the messages of its method: every name becomes a number, or a problem.

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::DynamicMessage;

use super::hooked::only_with_hook;
use super::rule::Rule;
use super::{DocumentKind, From, Into, Operation, ScalarAt, Token, Updated};
use crate::transcode::table::{Cardinality, Field, Kind, Shape};
use crate::transcode::{FieldPath, MessageId, Tables};

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
    let (has_hook, rule) = (Rule(rule).flag("hook"), Rule(&message));
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

/// How old a reply may be; no time at all is as if it was not said.
fn cache(rule: &Rule<'_>) -> Option<Duration> {
    rule.duration("cache").filter(|age| !age.is_zero())
}

impl Around<'_> {
    fn asked(&self) -> Message<'_> {
        Message { tables: self.tables, id: self.request, role: "request" }
    }

    fn answered(&self) -> Message<'_> {
        Message { tables: self.tables, id: self.reply, role: if self.is_streaming { "chunk" } else { "reply" } }
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
        let into = match self.place(rule, &kind)? {
            Some(Into::Field(number)) => Some(number),
            Some(Into::Whole) => None,
            None => return Err(format!("the reply is no `{}`: name a field with `into`", kind.message_name)),
        };
        Ok(Operation::Get { key: self.key(rule, "key")?, into, cache: cache(rule), kind })
    }

    fn put(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let kind = self.kind(rule)?;
        let from = match rule.given("from") {
            Some(name) => From::Field(self.asked().message(&name, kind.message, &kind.message_name)?),
            None => From::SameNames(self.same_names(&kind)?),
        };
        Ok(Operation::Put {
            key: self.key(rule, "key")?,
            from,
            mode: rule.mode(),
            expected_version: self.asked_at(rule, "expected_version")?,
            into: self.place(rule, &kind)?,
            version_into: self.answered_at(rule, "version_into", Message::integer)?,
            event: self.event(rule)?,
            kind,
        })
    }

    fn delete(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        Ok(Operation::Delete {
            kind: self.kind(rule)?,
            key: self.key(rule, "key")?,
            expected_version: self.asked_at(rule, "expected_version")?,
            version_into: self.answered_at(rule, "version_into", Message::integer)?,
            event: self.event(rule)?,
        })
    }

    fn list(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let kind = self.kind(rule)?;
        let of = Message { tables: self.tables, id: kind.message, role: "document" };
        let filter = |name: String| {
            let (asked, kept) = (self.asked().scalar(&name)?, of.scalar(&name)?);
            if asked.kind == kept.kind { Ok((asked, kept)) } else { Err(format!("filter `{name}`: two types")) }
        };
        Ok(Operation::List {
            under: self.tokens(&rule.text("under"), false)?,
            filters: rule.texts("filter").into_iter().map(filter).collect::<Result<_, _>>()?,
            page_size: self.asked_at(rule, "page_size")?,
            page_token: self.asked_at(rule, "page_token")?,
            into: self.answered().list_of(&rule.text("into"), kind.message, &kind.message_name)?,
            next_page_token_into: self.answered_at(rule, "next_page_token_into", Message::text)?,
            cache: cache(rule),
            kind,
        })
    }

    fn watch(&self, rule: &Rule<'_>) -> Result<Operation, String> {
        let kind = self.kind(rule)?;
        Ok(Operation::Watch {
            under: self.tokens(&rule.text("under"), false)?,
            after_revision: self.asked_at(rule, "after_revision")?,
            into: self.answered().message(&rule.text("into"), kind.message, &kind.message_name)?,
            revision_into: self.answered_at(rule, "revision_into", Message::integer)?,
            key_into: self.answered_at(rule, "key_into", Message::text)?,
            deleted_into: self.answered_at(rule, "deleted_into", Message::boolean)?,
            kind,
        })
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
        Ok(Operation::Publish {
            subject: self.key(rule, "subject")?,
            from,
            message: self.tables.message(message).name.to_string(),
            id: self.asked_at(rule, "id")?,
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
            subject: self.tokens(&rule.text("subject"), true)?,
            after: self.asked_at(rule, "after")?,
            into: field.spec.number,
            sequence_into: self.answered_at(rule, "sequence_into", Message::integer)?,
            id_into: self.answered_at(rule, "id_into", Message::text)?,
            subject_into: self.answered_at(rule, "subject_into", Message::text)?,
        })
    }

    /// Where the document goes in the reply.
    pub(super) fn place(&self, rule: &Rule<'_>, kind: &DocumentKind) -> Result<Option<Into>, String> {
        match rule.given("into") {
            Some(name) => {
                let number = self.answered().message(&name, kind.message, &kind.message_name)?;
                Ok(Some(Into::Field(number)))
            }
            None => Ok((self.reply == kind.message).then_some(Into::Whole)),
        }
    }

    pub(super) fn event(&self, rule: &Rule<'_>) -> Result<Option<Vec<Token>>, String> {
        rule.message("event").map(|event| self.key(&Rule(&event), "subject")).transpose()
    }

    pub(super) fn key(&self, rule: &Rule<'_>, name: &str) -> Result<Vec<Token>, String> {
        let tokens = self.tokens(&rule.text(name), false)?;
        if tokens.is_empty() { Err(format!("`{name}` is missing")) } else { Ok(tokens) }
    }

    pub(super) fn tokens(&self, text: &str, takes_wildcards: bool) -> Result<Vec<Token>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let count = text.split('.').count();
        // Dots inside of braces belong to the field's path.
        let mut tokens = Vec::with_capacity(count);
        let mut rest = text;
        while !rest.is_empty() {
            let (token, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                Some((path, after)) => (Token::Field(self.asked().scalar(path)?), after),
                None => {
                    let (literal, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                    let is_wild = literal == "*" || (literal == ">" && after.is_empty());
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                    if literal.is_empty() || !(literal.chars().all(is_plain) || (takes_wildcards && is_wild)) {
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

    pub(super) fn answered_at<'s>(
        &'s self,
        rule: &Rule<'_>,
        name: &str,
        number: fn(&Message<'s>, &str) -> Result<u32, String>,
    ) -> Result<Option<u32>, String> {
        rule.given(name).map(|field| number(&self.answered(), &field)).transpose()
    }

    /// The request's fields that the document has as well.
    fn same_names(&self, kind: &DocumentKind) -> Result<Vec<(u32, u32)>, String> {
        let document = self.tables.message(kind.message);
        let mut pairs = Vec::new();
        for field in &self.tables.message(self.request).fields {
            let Some(id) = document.field_by_name(field.spec.name.as_bytes()) else { continue };
            let kept = document.field(id);
            if (kept.spec.kind, kept.spec.cardinality) == (field.spec.kind, field.spec.cardinality) {
                pairs.push((field.spec.number, kept.spec.number));
            }
        }
        if pairs.is_empty() {
            return Err(format!("the request has no field of `{}`: name one with `from`", kind.message_name));
        }
        Ok(pairs)
    }
}

/// A message that a declaration names fields of.
pub(super) struct Message<'t> {
    pub(super) tables: &'t Tables,
    pub(super) id: MessageId,
    pub(super) role: &'static str,
}

impl<'t> Message<'t> {
    fn path(&self, path: &str) -> Result<FieldPath, String> {
        FieldPath::resolve(self.tables, self.id, path).map_err(|error| {
            let name = &self.tables.message(self.id).name;
            format!("`{path}` of the {} (`{name}`): {error}", self.role)
        })
    }

    /// A top-level field that is no list.
    fn one(&self, name: &str) -> Result<&'t Field, String> {
        let path = self.path(name)?;
        let field = path.field(self.tables);
        if path.steps().len() != 1 || field.spec.cardinality != Cardinality::Single {
            return Err(format!("`{name}` of the {} is no single field of its own", self.role));
        }
        Ok(field)
    }

    fn of_kind(&self, name: &str, what: &str, is_it: impl Fn(Kind) -> bool) -> Result<u32, String> {
        let field = self.one(name)?;
        if is_it(field.spec.kind) {
            Ok(field.spec.number)
        } else {
            Err(format!("`{name}` of the {} is no {what}", self.role))
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<u32, String> {
        use Kind::{Int32, Int64, Uint32, Uint64};
        self.of_kind(name, "integer", |kind| matches!(kind, Int32 | Int64 | Uint32 | Uint64))
    }

    fn text(&self, name: &str) -> Result<u32, String> {
        self.of_kind(name, "string", |kind| kind == Kind::String)
    }

    fn boolean(&self, name: &str) -> Result<u32, String> {
        self.of_kind(name, "bool", |kind| kind == Kind::Bool)
    }

    pub(super) fn time(&self, name: &str) -> Result<Updated, String> {
        let field = self.one(name)?;
        let shape = field.message().map(|message| self.tables.message(message).shape);
        match (field.spec.kind, shape) {
            (_, Some(Shape::Timestamp)) => Ok(Updated::Timestamp(field.spec.number)),
            (Kind::Int64, _) => Ok(Updated::Millis(field.spec.number)),
            _ => Err(format!("`{name}` of the {} is neither a Timestamp nor an int64", self.role)),
        }
    }

    fn message(&self, name: &str, message: MessageId, message_name: &str) -> Result<u32, String> {
        let field = self.one(name)?;
        if field.message() == Some(message) {
            Ok(field.spec.number)
        } else {
            Err(format!("`{name}` of the {} is no `{message_name}`", self.role))
        }
    }

    fn list_of(&self, name: &str, message: MessageId, message_name: &str) -> Result<u32, String> {
        let path = self.path(name)?;
        let field = path.field(self.tables);
        if path.steps().len() == 1
            && field.spec.cardinality == Cardinality::Repeated
            && field.message() == Some(message)
        {
            Ok(field.spec.number)
        } else {
            Err(format!("`{name}` of the {} is no list of `{message_name}`", self.role))
        }
    }

    /// A text, integer or boolean, also of a message inside.
    fn scalar(&self, name: &str) -> Result<ScalarAt, String> {
        use Kind::{Bool, Fixed32, Fixed64, Int32, Int64, String, Uint32, Uint64};
        let path = self.path(name)?;
        let field = path.field(self.tables);
        let is_scalar = matches!(field.spec.kind, String | Bool | Int32 | Int64 | Uint32 | Uint64 | Fixed32 | Fixed64);
        if !is_scalar || field.spec.cardinality != Cardinality::Single {
            return Err(format!("`{name}` of the {} is no single string, integer or bool", self.role));
        }
        let steps = path.steps();
        let number = |(message, field): &(MessageId, _)| self.tables.message(*message).field(*field).spec.number;
        let through = steps[..steps.len() - 1].iter().map(number).collect();
        Ok(ScalarAt { through, number: field.spec.number, kind: field.spec.kind, name: path.name(self.tables) })
    }
}
