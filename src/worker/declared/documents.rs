//! Declared operations on one document: get, put with compare-and-set, delete.

use serde_json::Value;

use super::deleting::Deletion;
use super::fields::{Found, content, malformed, place as put_document, printed, stored};
use super::{Declared, unanswered, writing};
use crate::fault::{Code, Fault};
use crate::schema::operation::{DocumentKind, Mode, Operation, Put, Token};
use crate::store::key;
use crate::transcode::number_order;
use crate::transcode::wire::put_number;
use crate::worker::Failed;
use crate::worker::records::{Change, Current, Document, EventId, Notice};

/// A caller on the bus may take any replica's answer, and says so by the label `consistency = cached`.
const CONSISTENCY: (&str, &str) = ("consistency", "cached");

pub(super) async fn get(found: &Found<'_>, declared: &Declared, operation: &Operation) -> Result<Vec<u8>, Fault> {
    let Operation::Get { kind, key, into, may_lag, .. } = operation else { return Err(unanswered()) };
    let (context, documents) = (found.context, declared.documents(kind)?);
    let tokens = found.chosen(key)?;
    let place = key_of(found, tokens)?;
    let document = match *may_lag || context.caller().label(CONSISTENCY.0) == Some(CONSISTENCY.1) {
        true => documents.get_cached(context, &place).await?,
        false => documents.get(context, &place).await?,
    };
    let document = document.ok_or_else(|| missing(found, kind, tokens))?;
    let mut reply = Vec::new();
    put_document(into, &printed(context, kind, &document)?, &mut reply)?;
    Ok(reply)
}

pub(super) async fn put(found: &Found<'_>, declared: &Declared, plan: &Put) -> Result<Vec<u8>, Failed<()>> {
    let (context, kind) = (found.context, &plan.kind);
    let (documents, place) = (declared.documents(kind)?, key_of(found, &plan.key)?);
    let value = stored(context, kind, &found.document(kind, &plan.from)?)?;
    plan.ranges.iter().try_for_each(|range| writing::within(range, &value))?;
    let expected = found.number(plan.expected_version.as_ref());
    let rule = |current: &Current<Value>| {
        check_mode(found, kind, &plan.key, &plan.mode, current)?;
        check_version(expected, current)?;
        let (version, now_ms) = (current.version + 1, current.now_ms);
        let value = writing::written(plan, current.value.as_ref(), &value, now_ms);
        let document = Document { value, version, revision: 0, updated_ms: now_ms };
        let wire = printed(context, kind, &document)?;
        let mut reply = Vec::new();
        if let Some(into) = &plan.into {
            put_document(into, &wire, &mut reply)?;
        }
        reply.extend_from_slice(&plan.preset);
        writing::answer_times(plan, &document, &mut reply);
        let expires_at_ms = writing::expires_at_ms(plan, &document);
        let change = Change::put(document.value, reply).expires_at_ms(expires_at_ms);
        Ok(match notice(found, kind, plan.event.as_deref(), &place, version, wire)? {
            Some(notice) => change.event(notice),
            None => change,
        })
    };
    let write = async {
        let done = documents.change(context, &place, rule).await.map_err(|failed| failed.fault)?;
        let mut reply = done.reply;
        if let Some(number) = plan.version_into {
            put_number(number, done.version, &mut reply);
        }
        number_order(&mut reply, 0).map_err(|error| malformed(&error))?;
        Ok(reply)
    };
    once(found, declared, write).await
}

pub(super) async fn delete(
    found: &Found<'_>,
    declared: &Declared,
    operation: &Operation,
) -> Result<Vec<u8>, Failed<()>> {
    let Operation::Delete { kind, key, plan } = operation else { return Err(unanswered().into()) };
    let (context, documents, deletion) =
        (found.context, declared.documents(kind)?, Deletion::of(found, kind, key, plan)?);
    let rule = |current: &Current<Value>| Ok(deletion.decided(current, |value| content(context, kind, value))?);
    let write = async {
        let done = documents.change(context, &deletion.place, rule).await.map_err(|failed| failed.fault)?;
        Ok(deletion.reply(&done))
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
    let subject = found.subject(subject)?;
    let id = EventId::Text(format!("{}:{place}:{version}", kind.bucket));
    Ok(Some(Notice::encoded(found.context, subject, id, &kind.message_name, payload)))
}

pub(super) fn check_mode<T>(
    found: &Found<'_>,
    kind: &DocumentKind,
    key: &[Token],
    mode: &Mode,
    current: &Current<T>,
) -> Result<(), Fault> {
    match (mode, &current.value) {
        (Mode::Create, Some(_)) => {
            let fault = Fault::client(Code::AlreadyExists, format!("{} exists already", name(found, key)));
            Err(versioned(fault.detail("reason", "exists"), current))
        }
        (Mode::Replace | Mode::Merge(_), None) => Err(missing(found, kind, key)),
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
fn name(found: &Found<'_>, tokens: &[Token]) -> String {
    let field = |token: &Token| token.field().and_then(|at| Some(format!("{} {}", at.name, found.text(at)?)));
    tokens.iter().filter_map(field).collect::<Vec<_>>().join(", ")
}

/// There is no such document.
pub(super) fn missing(found: &Found<'_>, kind: &DocumentKind, tokens: &[Token]) -> Fault {
    let last = tokens.iter().rev().find_map(Token::field);
    let own_id = last.and_then(|at| found.text(at));
    let text = match (&kind.name, own_id) {
        (Some(name), Some(own_id)) => format!("{name} {own_id} does not exist"),
        _ => format!("there is nothing under {}", name(found, tokens)),
    };
    let fault = Fault::client(Code::NotFound, text);
    match last {
        Some(at) => fault.detail("field", at.name.as_str()),
        None => fault,
    }
}
