//! Declared operations on events: publish to a log, and read one from a position.

use super::fields::{Found, malformed};
use super::unanswered;
use crate::bus::Pattern;
use crate::fault::{Code, Fault};
use crate::schema::operation::{Operation, Token};
use crate::store::key_token;
use crate::transcode::wire::{WireReader, each_message, put_bytes, put_number};
use crate::worker::records::Sealed;
use crate::worker::streams::Outlet;

pub(super) async fn publish(found: &Found<'_>, operation: &Operation) -> Result<Vec<u8>, Fault> {
    let Operation::Publish { subject, from, message, id, sequence_into, duplicate_into } = operation else {
        return Err(unanswered());
    };
    let context = found.context;
    let subject = joined(found, subject)?;
    let mut payload = Vec::new();
    match from {
        Some(number) => each_message(found.payload, *number, |content| {
            payload.extend_from_slice(content);
            Ok(())
        })
        .map_err(|error| malformed(&error))?,
        None => payload = without_context(found)?,
    }
    let given = id.as_ref().and_then(|at| found.text(at)).filter(|id| !id.is_empty());
    let id = given.unwrap_or_else(|| match context.idempotency_key() {
        "" => context.request_id().to_owned(),
        key => key.to_owned(),
    });
    let id = match context.tenant() {
        "" => id,
        tenant => format!("{}:{id}", key_token(tenant)),
    };
    let sealed = Sealed { message: message.clone(), payload, headers: Vec::new() };
    let appended = context.append_sealed(&subject, &sealed, &id).await?;
    let mut reply = Vec::new();
    if let Some(number) = sequence_into {
        put_number(*number, appended.sequence, &mut reply);
    }
    if let Some(number) = duplicate_into.filter(|_| appended.is_duplicate) {
        put_number(number, 1, &mut reply);
    }
    Ok(reply)
}

pub(super) async fn read(found: &Found<'_>, operation: &Operation, outlet: &Outlet) -> Result<(), Fault> {
    let Operation::Read { log, subject, after, into, sequence_into, id_into, subject_into } = operation else {
        return Err(unanswered());
    };
    let context = found.context;
    let filter = if subject.is_empty() { ">".to_owned() } else { joined(found, subject)? };
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

/// A subject or pattern: what comes from the request is one token each, whatever it holds.
fn joined(found: &Found<'_>, tokens: &[Token]) -> Result<String, Fault> {
    let texts = found.tokens(tokens)?;
    let token = |(token, text): (&Token, String)| match token {
        Token::Literal(_) => text,
        Token::Field(_) => key_token(&text),
    };
    Ok(tokens.iter().zip(texts).map(token).collect::<Vec<_>>().join("."))
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
