//! Bodies and headers turned into a request's bytes, and their faults.

use http::{HeaderMap, HeaderName};

use super::Content;
use crate::fault::{Code, Fault, Reason, Violation};
use crate::transcode::{self, BodyPlan, Claims, ErrorKind, FieldPath, Root, Tables, TranscodeError};

/// A header's text; the quotes of an entity tag are taken off (RFC 9110 §8.8.3).
pub(super) fn bind_header(
    tables: &Tables,
    headers: &HeaderMap,
    name: &HeaderName,
    path: &FieldPath,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let fault = |what: &str| {
        let violation = Violation { field: path.name(tables), description: what.to_owned(), offset: None };
        Fault::client(Code::InvalidArgument, format!("header `{name}`: {what}"))
            .reason(Reason::MalformedParameter)
            .violation(violation)
    };
    let text = headers.get(name).and_then(|value| value.to_str().ok()).ok_or_else(|| fault("expected plain text"))?;
    let text = text.trim().strip_prefix("W/").unwrap_or(text.trim());
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    transcode::text_to_wire(tables, path, text, out).map_err(|what| fault(&what))
}

/// The refusal of a body's type.
pub(super) fn unsupported(name: &str) -> Fault {
    let text = format!("content type `{name}`: send `application/json` or `application/x-protobuf`");
    Fault::client(Code::InvalidArgument, text).reason(Reason::UnsupportedMediaType)
}

/// True for bodies that a form never begins like: `{`, `[`, `"`, or nothing at all.
pub(super) fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), None | Some(b'{' | b'[' | b'"'))
}

/// A JSON body's error as the caller sees it.
pub(super) fn body_fault(error: &TranscodeError) -> Fault {
    let reason = if error.kind() == ErrorKind::Conflict { Reason::ConflictingFields } else { Reason::MalformedBody };
    let violation =
        Violation { field: error.path(), description: error.text().to_owned(), offset: Some(error.offset()) };
    Fault::client(Code::InvalidArgument, error.to_string()).reason(reason).violation(violation)
}

static NOTHING: Claims = Claims::new();

/// A protobuf body as it is, without the fields that something else sets.
pub(super) fn binary_body(
    tables: &Tables,
    plan: &BodyPlan,
    active: u32,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let fault = |error: TranscodeError| {
        if error.kind() == ErrorKind::Conflict {
            return body_fault(&error);
        }
        Fault::client(Code::InvalidArgument, format!("the body is no valid protobuf: {error}"))
            .reason(Reason::MalformedBody)
    };
    let (message, field) = match plan.root {
        Root::Message(message) => (message, None),
        Root::Field(message, field) => match tables.message(message).field(field).message() {
            Some(inner) => (inner, Some(tables.message(message).field(field))),
            None => {
                let text = "this body is a single value, which has no protobuf form of its own: send JSON";
                return Err(Fault::client(Code::InvalidArgument, text).reason(Reason::UnsupportedMediaType));
            }
        },
    };
    let mut kept = Vec::with_capacity(body.len());
    match plan.root {
        Root::Message(_) => {
            transcode::unclaimed(tables, message, &plan.claims, active, body, &mut kept).map_err(fault)?;
        }
        Root::Field(_, id) => {
            let below = plan.claims.below(id).unwrap_or(&NOTHING);
            transcode::unclaimed(tables, message, below, active, body, &mut kept).map_err(fault)?;
        }
    }
    transcode::check(tables, message, &kept).map_err(fault)?;
    match field {
        Some(field) => {
            out.extend_from_slice(field.tag());
            transcode::wire::put_varint(kept.len() as u64, out);
            out.extend_from_slice(&kept);
        }
        None => out.extend_from_slice(&kept),
    }
    Ok(())
}

/// The body as `google.api.HttpBody`: content type (number 1) and data (number 2).
pub(super) fn raw_body(
    tables: &Tables,
    path: Option<&FieldPath>,
    content: Content<'_>,
    body: &[u8],
    out: &mut Vec<u8>,
) {
    let name = match content {
        Content::Json => "application/json",
        Content::Protobuf => "application/x-protobuf",
        Content::Form => "application/x-www-form-urlencoded",
        Content::Other(name) => name,
    };
    let mut message = Vec::with_capacity(body.len() + name.len() + 12);
    transcode::wire::put_bytes(1, name.as_bytes(), &mut message);
    transcode::wire::put_bytes(2, body, &mut message);
    match path {
        Some(path) => transcode::wire::put_bytes(path.field(tables).spec.number, &message, out),
        None => out.extend_from_slice(&message),
    }
}
