//! The caller context of a house style, filled from what the gateway knows and what it may take from headers.

use std::time::{SystemTime, UNIX_EPOCH};

use super::inbound::Inbound;
use crate::envelope::{ContextPlan, ContextWriter, LabelsPlan, Source, Verified};
use crate::fault::{Code, Fault, Reason, Violation};
use crate::snapshot::Snapshot;

/// Longest label key and value in bytes.
const LABEL_KEY_MAX: usize = 64;
const LABEL_VALUE_MAX: usize = 512;
/// Longest text that a header may give a context field.
const TEXT_MAX: usize = 512;

/// Writes the context of a request behind its bytes. `lifted` is the body member that the style takes out.
pub(super) fn write(
    plan: &ContextPlan,
    snapshot: &Snapshot,
    inbound: &Inbound,
    caller: Option<&Verified>,
    lifted: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut writer = ContextWriter::new(plan, out);
    for field in &plan.fields {
        if field.is_time {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            writer.time(field.number, now.as_nanos());
            continue;
        }
        let is_request_id = plan.request_id == Some(field.number);
        for source in &field.sources {
            let value = match source {
                Source::Generated if is_request_id => Some(inbound.request_id.as_str()),
                Source::Generated => Some(inbound.trace.id()),
                other => value_of(other, &field.name, snapshot, inbound, caller, lifted)?,
            };
            if let Some(value) = value {
                writer.text(field.number, value);
                break;
            }
        }
    }
    if let Some(labels) = &plan.labels {
        write_labels(labels, snapshot, inbound, caller, lifted, &mut writer)?;
    }
    writer.finish();
    Ok(())
}

/// The text of the idempotency key, where the style has such a field: what `Nats-Msg-Id` becomes.
pub(super) fn idempotency_key<'i>(
    plan: &ContextPlan,
    inbound: &'i Inbound,
    lifted: Option<&'i str>,
) -> Option<&'i str> {
    let field =
        plan.fields.iter().find(|field| field.sources.iter().any(|source| matches!(source, Source::BodyMember(_))))?;
    field.sources.iter().find_map(|source| match source {
        Source::Header { name, .. } => inbound.text(name).filter(|text| !text.is_empty()),
        Source::BodyMember(_) => lifted,
        _ => None,
    })
}

/// What a source says; nothing where it is silent.
fn value_of<'a>(
    source: &'a Source,
    field: &str,
    snapshot: &Snapshot,
    inbound: &'a Inbound,
    caller: Option<&'a Verified>,
    lifted: Option<&'a str>,
) -> Result<Option<&'a str>, Fault> {
    let refused = |text: String| {
        let violation = Violation { field: field.to_owned(), description: text.clone(), offset: None };
        Err(Fault::client(Code::InvalidArgument, text).reason(Reason::MalformedParameter).violation(violation))
    };
    let text = match source {
        Source::Traceparent => inbound.trace.is_given.then_some(inbound.trace.id()),
        Source::Value(text) => Some(text.as_str()),
        Source::BodyMember(_) => lifted,
        Source::Header { is_trusted: true, .. } if !inbound.is_trusted => None,
        Source::Header { name, not_in_services, .. } => {
            let Some(value) = inbound.head.headers.get(name) else { return Ok(None) };
            let Ok(text) = value.to_str() else { return refused(format!("header `{name}`: expected plain text")) };
            if text.len() > TEXT_MAX {
                return refused(format!("header `{name}`: longer than {TEXT_MAX} bytes"));
            }
            if *not_in_services && snapshot.services.iter().any(|service| &*service.short_name == text) {
                return refused(format!("header `{name}`: `{text}` is the name of a service"));
            }
            Some(text).filter(|text| !text.is_empty())
        }
        Source::CallerUser => caller.map(|caller| caller.user.as_str()),
        Source::CallerTenant => caller.map(|caller| caller.tenant.as_str()).filter(|tenant| !tenant.is_empty()),
        Source::CallerRole => caller.map(|caller| caller.roles.as_str()).filter(|roles| !roles.is_empty()),
        Source::Generated | Source::Now => None,
    };
    if let (Some(text), Source::BodyMember(name)) = (text, source)
        && text.len() > TEXT_MAX
    {
        return refused(format!("`{name}`: longer than {TEXT_MAX} bytes"));
    }
    Ok(text)
}

fn write_labels(
    plan: &LabelsPlan,
    snapshot: &Snapshot,
    inbound: &Inbound,
    caller: Option<&Verified>,
    lifted: Option<&str>,
    writer: &mut ContextWriter<'_>,
) -> Result<(), Fault> {
    let refused = |text: String| Fault::client(Code::InvalidArgument, text).reason(Reason::MalformedParameter);
    if let Some(prefix) = &plan.header_prefix {
        let mut count = 0;
        for (name, value) in &inbound.head.headers {
            let Some(key) = name.as_str().strip_prefix(prefix.as_str()) else { continue };
            if plan.reserved.iter().any(|reserved| reserved == key) {
                continue;
            }
            count += 1;
            let is_key =
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte));
            if !is_key || !(1..=LABEL_KEY_MAX).contains(&key.len()) {
                return Err(refused(format!(
                    "header `{name}`: a label's name has 1 to {LABEL_KEY_MAX} of `a-z0-9_.-`"
                )));
            }
            if count > plan.max {
                return Err(refused(format!("more than {} `{prefix}` headers", plan.max)));
            }
            match value.to_str() {
                Ok(text) if text.len() <= LABEL_VALUE_MAX => writer.label(plan.number, key, text),
                _ => {
                    return Err(refused(format!(
                        "header `{name}`: expected plain text of at most {LABEL_VALUE_MAX} bytes"
                    )));
                }
            }
        }
    }
    if let Some(id) = inbound.client_request_id() {
        writer.label(plan.number, "client_request_id", id);
    }
    for (key, source) in &plan.set {
        if let Some(value) = value_of(source, key, snapshot, inbound, caller, lifted)? {
            writer.label(plan.number, key, value);
        }
    }
    Ok(())
}
