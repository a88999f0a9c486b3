//! Declared operations on events: publish to a log, and read one from a position.

use super::fields::{Found, malformed};
use super::unanswered;
use crate::bus::Pattern;
use crate::fault::{Code, Fault};
use crate::schema::operation::{Operation, Publication};
use crate::store::Appended;
use crate::transcode::wire::{WireReader, each_message, put_bytes, put_number};
use crate::worker::records::Sealed;
use crate::worker::streams::Outlet;

pub(super) async fn publish(found: &Found<'_>, operation: &Operation) -> Result<Vec<u8>, Fault> {
    let Operation::Publish { publication, from, id } = operation else { return Err(unanswered()) };
    let mut payload = Vec::new();
    match from {
        Some(number) => each_message(found.payload, *number, |content| {
            payload.extend_from_slice(content);
            Ok(())
        })
        .map_err(|error| malformed(&error))?,
        None => payload = without_context(found)?,
    }
    let id = id.as_ref().and_then(|at| found.text(at)).unwrap_or_default();
    let appended = append(found, publication, payload, id).await?;
    let mut reply = Vec::new();
    put_appended(publication, &appended, &mut reply);
    Ok(reply)
}

/// Waits until the log has an event. Without an id of its own it has that of its call: the idempotency key, or the
/// request's.
pub(super) async fn append(
    found: &Found<'_>,
    publication: &Publication,
    payload: Vec<u8>,
    id: String,
) -> Result<Appended, Fault> {
    let (context, subject) = (found.context, found.subject(&publication.subject)?);
    let id = [&*id, context.idempotency_key(), context.request_id()].into_iter().find(|id| !id.is_empty());
    let id = context.of_tenant(id.unwrap_or_default());
    let sealed = Sealed { message: publication.message_name.clone(), payload, headers: Vec::new() };
    let appending = context.append_sealed(&subject, &sealed, &id);
    let Some(within) = publication.within else { return appending.await };
    tokio::time::timeout(within, appending).await.unwrap_or_else(|_| {
        let text = "the log does not answer: publish it again under the same id";
        Err(Fault::upstream(Code::Unavailable, text))
    })
}

/// The reply's fields for what became of an event.
pub(super) fn put_appended(publication: &Publication, appended: &Appended, reply: &mut Vec<u8>) {
    if let Some(number) = publication.sequence_into {
        put_number(number, appended.sequence, reply);
    }
    if let Some(number) = publication.duplicate_into.filter(|_| appended.is_duplicate) {
        put_number(number, 1, reply);
    }
}

pub(super) async fn read(found: &Found<'_>, operation: &Operation, outlet: &Outlet) -> Result<(), Fault> {
    let Operation::Read { log, subject, after, into, sequence_into, id_into, subject_into } = operation else {
        return Err(unanswered());
    };
    let context = found.context;
    let filter = if subject.is_empty() { ">".to_owned() } else { found.subject(subject)? };
    Pattern::new(filter.as_str())
        .map_err(|error| Fault::ours(Code::Internal, "a filter is no pattern").internal(error.to_string()))?;
    let mut reader = context.store().read_log(log, &filter, found.number(after.as_ref())).await?;
    context.begin_stream();
    loop {
        let event = tokio::select! {
            event = reader.next() => event?,
            _ = context.until_cancelled() => return Ok(()),
        };
        let mut chunk = Vec::with_capacity(event.payload.len() + 64);
        put_bytes(*into, &event.payload, &mut chunk);
        if let Some(number) = sequence_into {
            put_number(*number, event.sequence, &mut chunk);
        }
        if let Some(number) = id_into {
            put_bytes(*number, event.headers.get("Nats-Msg-Id").unwrap_or_default().as_bytes(), &mut chunk);
        }
        if let Some(number) = subject_into {
            put_bytes(*number, event.subject.as_str().as_bytes(), &mut chunk);
        }
        outlet.send_encoded(&chunk).await?;
    }
}

/// The request's bytes without the caller's context.
fn without_context(found: &Found<'_>) -> Result<Vec<u8>, Fault> {
    let Some(plan) = &found.context.method().envelope.context else { return Ok(found.payload.to_vec()) };
    let mut out = Vec::with_capacity(found.payload.len());
    let mut reader = WireReader::new(found.payload);
    loop {
        let from = reader.at();
        let Some(record) = reader.record().map_err(|error| malformed(&error))? else { return Ok(out) };
        if record.number != plan.number {
            out.extend_from_slice(&found.payload[from..reader.at()]);
        }
    }
}
