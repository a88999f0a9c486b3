//! Declared operations on many documents: a list in pages, and a watch.

use super::documents::key_of;
use super::fields::{Found, content, printed, text_of};
use super::{Declared, unanswered};
use crate::fault::{Code, Fault};
use crate::schema::operation::{Operation, Token};
use crate::store::Keys;
use crate::transcode::wire::{put_bytes, put_number};
use crate::worker::records::RecordSeen;
use crate::worker::streams::Outlet;

/// Size of a page where the request does not say, and the largest one.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: u64 = 500;

pub(super) async fn list(found: &Found<'_>, declared: &Declared, operation: &Operation) -> Result<Vec<u8>, Fault> {
    let Operation::List { kind, under, filters, page_size, page_token, into, next_page_token_into, .. } = operation
    else {
        return Err(unanswered());
    };
    let context = found.context;
    let size = match found.number(page_size.as_ref()) {
        0 => PAGE_DEFAULT,
        size @ 1..=PAGE_MAX => size as usize,
        _ => return Err(too_large(page_size.as_ref().map_or("page_size", |at| &at.name))),
    };
    let after = page_token.as_ref().and_then(|at| found.text(at)).unwrap_or_default();
    let wanted: Vec<_> = filters.iter().filter_map(|(asked, kept)| Some((found.text(asked)?, kept))).collect();
    let mut reply = Vec::new();
    let (mut taken, mut last) = (0, String::new());
    for (key, document) in declared.documents(kind)?.list(context, &keys_of(found, under)?).await? {
        if !after.is_empty() && key <= after {
            continue;
        }
        let fields = content(context, kind, &document.value)?;
        if !wanted.iter().all(|(text, at)| text_of(&fields, at).as_ref() == Some(text)) {
            continue;
        }
        if taken == size {
            if let Some(number) = next_page_token_into {
                put_bytes(*number, last.as_bytes(), &mut reply);
            }
            break;
        }
        put_bytes(*into, &printed(context, kind, &document)?, &mut reply);
        taken += 1;
        last = key;
    }
    Ok(reply)
}

pub(super) async fn watch(
    found: &Found<'_>,
    declared: &Declared,
    operation: &Operation,
    outlet: &Outlet,
) -> Result<(), Fault> {
    let Operation::Watch { kind, under, after_revision, into, revision_into, key_into, deleted_into } = operation
    else {
        return Err(unanswered());
    };
    let context = found.context;
    let after = found.number(after_revision.as_ref());
    let prefix = key_of(found, under)?;
    let documents = declared.documents(kind)?;
    // A key with all of its fields is one document; else it is the beginning of many.
    let keys = match documents.get(context, &prefix).await? {
        Some(_) => Keys::One(prefix.clone()),
        None => Keys::Under(prefix.clone()),
    };
    let mut watch = documents.watch(keys, Some(after)).await?;
    if watch.is_reset() {
        context.label("reset", "true");
    }
    loop {
        let seen = tokio::select! {
            seen = watch.next(context) => seen?,
            _ = context.until_cancelled() => return Ok(()),
        };
        let RecordSeen::Change { key, document, revision, .. } = seen else { continue };
        let mut chunk = Vec::new();
        match document {
            Some(document) => put_bytes(*into, &printed(context, kind, &document)?, &mut chunk),
            None => {
                if let Some(number) = deleted_into {
                    put_number(*number, 1, &mut chunk);
                }
            }
        }
        if let Some(number) = revision_into {
            put_number(*number, revision, &mut chunk);
        }
        if let Some(number) = key_into {
            let behind = key.strip_prefix(&prefix).unwrap_or_default().trim_start_matches('.');
            put_bytes(*number, behind.as_bytes(), &mut chunk);
        }
        outlet.send_encoded(&chunk).await?;
    }
}

fn keys_of(found: &Found<'_>, under: &[Token]) -> Result<Keys, Fault> {
    Ok(Keys::Under(key_of(found, under)?))
}

fn too_large(field: &str) -> Fault {
    Fault::client(Code::OutOfRange, format!("{field} must be 0 to {PAGE_MAX}"))
        .detail("field", field)
        .detail("reason", "out_of_range")
        .detail("min", "0")
        .detail("max", PAGE_MAX.to_string())
}
