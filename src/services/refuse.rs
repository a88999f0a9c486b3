//! Refusals of wrong input, in the words that all services share: which field, why, and what would do.

use crate::fault::{Code, Fault};

/// Longest id in bytes.
const ID_MAX: usize = 128;

fn invalid(field: &str, reason: &'static str, text: String) -> Fault {
    Fault::client(Code::InvalidArgument, text).detail("field", field).detail("reason", reason)
}

/// A required value is missing.
pub(super) fn required(field: &str, text: impl Into<String>) -> Fault {
    invalid(field, "required", text.into())
}

/// A value is not in its closed list.
pub(super) fn unknown_value(field: &str, allowed: &[&str]) -> Fault {
    let (last, rest) = allowed.split_last().unwrap_or((&"", &[]));
    let text = format!("{field} must be {} or {last}", rest.join(", "));
    invalid(field, "unknown_value", text).detail("allowed", allowed.join(","))
}

/// A value has another type than it must have.
pub(super) fn wrong_type(field: &str, what: &str) -> Fault {
    invalid(field, "bad_format", format!("{field} must be {what}"))
}

/// A value is too long.
pub(super) fn too_long(field: &str, text: impl Into<String>) -> Fault {
    invalid(field, "too_long", text.into())
}

/// Two values exclude each other.
pub(super) fn conflicting(field: &str, text: impl Into<String>) -> Fault {
    invalid(field, "conflicting_fields", text.into())
}

/// A number is outside of its range.
pub(super) fn out_of_range(field: &str, text: impl Into<String>, min: &str, max: &str) -> Fault {
    Fault::client(Code::OutOfRange, text.into())
        .detail("field", field)
        .detail("reason", "out_of_range")
        .detail("min", min)
        .detail("max", max)
}

/// Nothing of that name.
pub(super) fn not_found(field: &str, text: impl Into<String>) -> Fault {
    Fault::client(Code::NotFound, text.into()).detail("field", field)
}

/// State forbids it.
pub(super) fn precondition(reason: &'static str, text: impl Into<String>) -> Fault {
    Fault::client(Code::FailedPrecondition, text.into()).detail("reason", reason)
}

/// Checks an id: 1 to 128 bytes, no white space, no control characters, no wildcard.
pub(super) fn check_id(field: &str, id: &str) -> Result<(), Fault> {
    if id.is_empty() {
        return Err(required(field, format!("{field} is required")));
    }
    let is_clean = id.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '*' && c != '>');
    if id.len() > ID_MAX || !is_clean {
        let text = format!("{field} must have 1 to {ID_MAX} bytes without white space, control characters, `*` and `>`");
        return Err(invalid(field, "bad_id", text));
    }
    Ok(())
}
