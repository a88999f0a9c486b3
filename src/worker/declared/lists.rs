//! Declared operations on many documents: a list in pages, and a watch.

use super::documents::{key_of, missing};
use super::fields::{Found, content, malformed, place, printed, text_of};
use super::{Declared, unanswered};
use crate::fault::{Code, Fault};
use crate::schema::operation::{Filter, Operation, Token, Watch, Watched};
use crate::store::Keys;
use crate::transcode::number_order;
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
    let mut wanted = Vec::with_capacity(filters.len());
    for filter in filters {
        wanted.extend(asked(found, filter)?.map(|text| (text, &filter.kept)));
    }
    let mut reply = Vec::new();
    let (mut taken, mut last) = (0, String::new());
    let documents = declared.documents(kind)?;
    for (key, document) in documents.list(context, &keys_of(found, under)?).await? {
        if !after.is_empty() && key <= after {
            continue;
        }
        let fields = match content(context, kind, &document.value) {
            Ok(fields) => fields,
            Err(fault) => {
                documents.leave_out(&key, document.revision, &fault);
                continue;
            }
        };
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

pub(super) async fn watch(found: &Found<'_>, declared: &Declared, plan: &Watch, outlet: &Outlet) -> Result<(), Fault> {
    let (context, documents) = (found.context, declared.documents(&plan.kind)?);
    let tokens = match &plan.of {
        Watched::One(choice) => found.chosen(choice)?,
        Watched::Under(tokens) => tokens,
    };
    let prefix = key_of(found, tokens)?;
    let gone = || missing(found, &plan.kind, tokens);
    if plan.must_exist && documents.get(context, &prefix).await?.is_none() {
        return Err(gone());
    }
    let keys = match plan.of {
        Watched::One(_) => Keys::One(prefix.clone()),
        Watched::Under(_) => Keys::Under(prefix.clone()),
    };
    let mut watch = documents.watch(keys, Some(found.number(plan.after_revision.as_ref()))).await?;
    if watch.is_reset() {
        context.label("reset", "true");
    }
    loop {
        let seen = tokio::select! {
            seen = watch.next(context) => seen?,
            _ = context.until_cancelled() => return Ok(()),
        };
        let RecordSeen::Change { key, document, version, revision, .. } = seen else { continue };
        let (mut chunk, mut is_last) = (Vec::new(), false);
        match document {
            Some(document) => {
                let wire = match printed(context, &plan.kind, &document) {
                    Ok(wire) => wire,
                    Err(fault) => {
                        watch.leave_out(&key, revision, fault)?;
                        continue;
                    }
                };
                is_last = plan.last.as_ref().is_some_and(|last| document.value[last.as_str()] == true);
                place(&plan.into, &wire, &mut chunk)?;
                chunk.extend_from_slice(&plan.written);
            }
            None if plan.must_exist => return Err(gone()),
            None => {
                chunk.extend_from_slice(&plan.deleted);
                put(plan.version_into, version, &mut chunk);
                put(plan.deleted_into, 1, &mut chunk);
            }
        }
        put(plan.revision_into, revision, &mut chunk);
        if let Some(number) = plan.key_into {
            let behind = key.strip_prefix(&prefix).unwrap_or_default().trim_start_matches('.');
            put_bytes(number, behind.as_bytes(), &mut chunk);
        }
        number_order(&mut chunk, 0).map_err(|error| malformed(&error))?;
        match is_last {
            true => return outlet.finish_encoded(&chunk).await,
            false => outlet.send_encoded(&chunk).await?,
        }
    }
}

/// A number where a chunk has a field for it.
fn put(number: Option<u32>, value: u64, chunk: &mut Vec<u8>) {
    if let Some(number) = number {
        put_number(number, value, chunk);
    }
}

/// What a filter asks for; nothing where the request leaves it out or empty.
fn asked(found: &Found<'_>, filter: &Filter) -> Result<Option<String>, Fault> {
    let Some(text) = found.text(&filter.asked).filter(|text| !text.is_empty()) else { return Ok(None) };
    if filter.one_of.is_empty() {
        return Ok(Some(text));
    }
    if let Some(known) = filter.one_of.iter().find(|known| known.eq_ignore_ascii_case(&text)) {
        return Ok(Some(known.clone()));
    }
    let name = &filter.asked.name;
    let text = match filter.one_of.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{name} must be {} or {last}", rest.join(", ")),
        _ => format!("{name} must be {}", filter.one_of.join("")),
    };
    Err(Fault::client(Code::InvalidArgument, text)
        .detail("field", name.as_str())
        .detail("reason", "unknown_value")
        .detail("allowed", filter.one_of.join(",")))
}

fn keys_of(found: &Found<'_>, under: &[Token]) -> Result<Keys, Fault> {
    Ok(Keys::Under(key_of(found, under)?))
}

fn too_large(field: &str) -> Fault {
    let name = field.rsplit('.').next().unwrap_or(field);
    Fault::client(Code::OutOfRange, format!("{name} must be 0 to {PAGE_MAX}"))
        .detail("field", field)
        .detail("reason", "out_of_range")
        .detail("min", "0")
        .detail("max", PAGE_MAX.to_string())
}
