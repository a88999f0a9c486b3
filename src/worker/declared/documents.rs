//! Declared operations on one document: get, put with compare-and-set, delete.

use serde_json::Value;

use super::fields::{Found, content, printed, stored};
use super::{Declared, unanswered};
use crate::fault::{Code, Fault};
use crate::schema::operation::{DocumentKind, Into, Mode, Operation, Token};
use crate::store::key;
use crate::transcode::wire::{put_bytes, put_number};
use crate::worker::Failed;
use crate::worker::records::{Change, Current, Document, EventId, Notice, Records};

pub(super) async fn get(
    found: &Found<'_>,
    documents: &Records<Value>,
    kind: &DocumentKind,
    tokens: &[Token],
    into: Option<u32>,
) -> Result<Vec<u8>, Fault> {
    let key = key_of(found, tokens)?;
    let document = documents.get(found.context, &key).await?.ok_or_else(|| missing(found, tokens))?;
    let wire = printed(found.context, kind, &document)?;
    Ok(placed(into.map_or(Into::Whole, Into::Field), &wire))
}

pub(super) async fn put(found: &Found<'_>, declared: &Declared, operation: &Operation) -> Result<Vec<u8>, Failed<()>> {
    let Operation::Put { kind, key, from, mode, expected_version, into, version_into, event } = operation else {
        return Err(unanswered().into());
    };
    let context = found.context;
    let (documents, place) = (declared.documents(kind)?, key_of(found, key)?);
    let wire = found.document(kind, from)?;
    let value = stored(context, kind, &wire)?;
    let expected = found.number(expected_version.as_ref());
    let rule = |current: &Current<Value>| {
        check_mode(found, key, *mode, current)?;
        check_version(expected, current)?;
        let version = current.version + 1;
        let document = Document { value: value.clone(), version, revision: 0, updated_ms: current.now_ms };
        let wire = printed(context, kind, &document)?;
        let expires_at_ms = kind.ttl.map_or(0, |ttl| current.now_ms + ttl.as_millis() as i64);
        let change = Change::put(value.clone(), wire.clone()).expires_at_ms(expires_at_ms);
        Ok(match notice(found, kind, event.as_deref(), &place, version, wire)? {
            Some(notice) => change.event(notice),
            None => change,
        })
    };
    let write = async {
        let done = documents.change(context, &place, rule).await.map_err(|failed| failed.fault)?;
        declared.replies.forget(context, kind, &place).await;
        let mut reply = into.map(|into| placed(into, &done.reply)).unwrap_or_default();
        if let Some(number) = version_into {
            put_number(*number, done.version, &mut reply);
        }
        Ok(reply)
    };
    once(found, declared, write).await
}

pub(super) async fn delete(
    found: &Found<'_>,
    declared: &Declared,
    operation: &Operation,
) -> Result<Vec<u8>, Failed<()>> {
    let Operation::Delete { kind, key, expected_version, version_into, event } = operation else {
        return Err(unanswered().into());
    };
    let context = found.context;
    let (documents, place) = (declared.documents(kind)?, key_of(found, key)?);
    let expected = found.number(expected_version.as_ref());
    let rule = |current: &Current<Value>| {
        let Some(value) = &current.value else { return Err(missing(found, key).into()) };
        check_version(expected, current)?;
        let was = content(context, kind, value)?;
        let change = Change::delete(());
        Ok(match notice(found, kind, event.as_deref(), &place, current.version + 1, was)? {
            Some(notice) => change.event(notice.with("op", "delete")),
            None => change,
        })
    };
    let write = async {
        let done = documents.change(context, &place, rule).await.map_err(|failed| failed.fault)?;
        declared.replies.forget(context, kind, &place).await;
        let mut reply = Vec::new();
        if let Some(number) = version_into {
            put_number(*number, done.version, &mut reply);
        }
        Ok(reply)
    };
    once(found, declared, write).await
}

/// Runs a write once per idempotency key.
async fn once(
    found: &Found<'_>,
    declared: &Declared,
    write: impl Future<Output = Result<Vec<u8>, Fault>>,
) -> Result<Vec<u8>, Failed<()>> {
    let write = async { write.await.map_err(Failed::from) };
    declared.repeats.once(found.context, write).await.map_err(|failed: Failed<Vec<u8>>| failed.fault.into())
}

/// The key below the tenant.
pub(super) fn key_of(found: &Found<'_>, tokens: &[Token]) -> Result<String, Fault> {
    let mut all = vec![found.context.tenant().to_owned()];
    all.extend(found.tokens(tokens)?);
    Ok(key(&all))
}

/// A document where a reply has it.
pub(super) fn placed(into: Into, wire: &[u8]) -> Vec<u8> {
    match into {
        Into::Whole => wire.to_vec(),
        Into::Field(number) => {
            let mut out = Vec::with_capacity(wire.len() + 8);
            put_bytes(number, wire, &mut out);
            out
        }
    }
}

/// The event of a change: the document as written, under an id of bucket, key and version.
pub(super) fn notice(
    found: &Found<'_>,
    kind: &DocumentKind,
    subject: Option<&[Token]>,
    place: &str,
    version: u64,
    payload: Vec<u8>,
) -> Result<Option<Notice>, Fault> {
    let Some(subject) = subject else { return Ok(None) };
    let subject = key(&found.tokens(subject)?);
    let id = EventId::Text(format!("{}:{place}:{version}", kind.bucket));
    Ok(Some(Notice::encoded(found.context, subject, id, &kind.message_name, payload)))
}

pub(super) fn check_mode<T>(found: &Found<'_>, key: &[Token], mode: Mode, current: &Current<T>) -> Result<(), Fault> {
    match (mode, &current.value) {
        (Mode::Create, Some(_)) => {
            let fault = Fault::client(Code::AlreadyExists, format!("{} exists already", named(found, key)));
            Err(versioned(fault.detail("reason", "exists"), current))
        }
        (Mode::Replace, None) => Err(missing(found, key)),
        _ => Ok(()),
    }
}

pub(super) fn check_version<T>(expected: u64, current: &Current<T>) -> Result<(), Fault> {
    if expected == 0 || expected == current.version {
        return Ok(());
    }
    let text = format!("version is {}, expected {expected}", current.version);
    let fault = Fault::client(Code::FailedPrecondition, text).detail("reason", "version_mismatch");
    Err(versioned(fault, current))
}

fn versioned<T>(fault: Fault, current: &Current<T>) -> Fault {
    fault.detail("current_version", current.version.to_string())
}

/// What a key's fields name, for people.
fn named(found: &Found<'_>, tokens: &[Token]) -> String {
    let field = |token: &Token| match token {
        Token::Field(at) => Some(format!("{} {}", at.name, found.text(at)?)),
        Token::Literal(_) => None,
    };
    tokens.iter().filter_map(field).collect::<Vec<_>>().join(", ")
}

fn missing(found: &Found<'_>, tokens: &[Token]) -> Fault {
    let last = tokens.iter().rev().find_map(|token| match token {
        Token::Field(at) => Some(at.name.clone()),
        Token::Literal(_) => None,
    });
    let fault = Fault::client(Code::NotFound, format!("there is nothing under {}", named(found, tokens)));
    match last {
        Some(field) => fault.detail("field", field),
        None => fault,
    }
}
