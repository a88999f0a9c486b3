//! The checks that every service makes of its requests, and the faults that they give.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::worker::Context;
use crate::worker::types::{Struct, Value};

/// Longest id in bytes.
const ID_MAX: usize = 128;
/// Entries of a map, and the longest key and value in bytes.
const MAP_ENTRIES_MAX: usize = 64;
const MAP_KEY_MAX: usize = 64;
const MAP_VALUE_MAX: usize = 4 * 1024;
/// Deepest nesting of a Struct, and its most bytes as JSON.
const STRUCT_DEPTH_MAX: usize = 16;
const STRUCT_BYTES_MAX: usize = 256 * 1024;
/// Longest callback subject in bytes, and its tokens.
const CALLBACK_BYTES_MAX: usize = 256;
const CALLBACK_TOKENS: std::ops::RangeInclusive<usize> = 2..=16;

/// A value that the request should not have.
pub(super) fn invalid(field: &str, reason: &'static str, message: impl Into<String>) -> Fault {
    Fault::client(Code::InvalidArgument, message.into()).detail("field", field).detail("reason", reason)
}

/// A value that is not there.
pub(super) fn required(field: &str) -> Fault {
    invalid(field, "required", format!("{field} is required"))
}

/// A value outside of its closed list.
pub(super) fn unknown_value(field: &str, message: impl Into<String>, allowed: &[&str]) -> Fault {
    invalid(field, "unknown_value", message).detail("allowed", allowed.join(","))
}

/// A number outside of its range.
pub(super) fn out_of_range(field: &str, min: impl Display, max: impl Display) -> Fault {
    let name = field.rsplit('.').next().unwrap_or(field);
    Fault::client(Code::OutOfRange, format!("{name} must be {min} to {max}"))
        .detail("field", field)
        .detail("reason", "out_of_range")
        .detail("min", min.to_string())
        .detail("max", max.to_string())
}

/// An id: 1 to 128 bytes, no white space, no control characters, no wildcards.
pub(super) fn id(field: &str, value: &str) -> Result<(), Fault> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    if value.is_empty() {
        Err(required(field))
    } else if value.len() > ID_MAX || value.contains(is_bad) {
        Err(invalid(field, "bad_id", format!("{field} must have 1 to {ID_MAX} bytes, without white space, `*` or `>`")))
    } else {
        Ok(())
    }
}

/// A map of texts: at most 64 entries, keys of 64 bytes, values of 4 KiB.
pub(super) fn texts(field: &str, map: &BTreeMap<String, String>) -> Result<(), Fault> {
    if map.len() > MAP_ENTRIES_MAX {
        return Err(invalid(field, "too_many", format!("{field} has more than {MAP_ENTRIES_MAX} entries")));
    }
    let is_long = |(key, value): (&String, &String)| key.len() > MAP_KEY_MAX || value.len() > MAP_VALUE_MAX;
    if map.iter().any(is_long) {
        let text = format!("keys of {field} have at most {MAP_KEY_MAX} bytes, values {MAP_VALUE_MAX}");
        return Err(invalid(field, "too_long", text));
    }
    Ok(())
}

/// A map of figures: at most 64 entries, keys of 64 bytes, and no figure that is none.
pub(super) fn figures(field: &str, map: &BTreeMap<String, f64>) -> Result<(), Fault> {
    if map.len() > MAP_ENTRIES_MAX {
        return Err(invalid(field, "too_many", format!("{field} has more than {MAP_ENTRIES_MAX} entries")));
    }
    if map.keys().any(|key| key.len() > MAP_KEY_MAX) {
        return Err(invalid(field, "too_long", format!("keys of {field} have at most {MAP_KEY_MAX} bytes")));
    }
    match map.iter().find(|(_, value)| !value.is_finite()) {
        Some((name, _)) => Err(out_of_range(&format!("{field}.{name}"), f64::MIN, f64::MAX)),
        None => Ok(()),
    }
}

/// A text of at most so many bytes.
pub(super) fn short(field: &str, value: &str, bytes_max: usize) -> Result<(), Fault> {
    if value.len() <= bytes_max {
        return Ok(());
    }
    Err(invalid(field, "too_long", format!("{field} has more than {bytes_max} bytes")))
}

/// A document: at most 256 KiB of JSON, at most 16 deep, and no number in it that is none: JSON could not keep that.
pub(super) fn document(field: &str, document: &Struct) -> Result<(), Fault> {
    if document.0.values().map(depth).max().unwrap_or(0) >= STRUCT_DEPTH_MAX {
        return Err(invalid(field, "too_long", format!("{field} is nested more than {STRUCT_DEPTH_MAX} deep")));
    }
    let bytes = serde_json::to_vec(document).map_or(usize::MAX, |json| json.len());
    if bytes > STRUCT_BYTES_MAX {
        return Err(invalid(field, "too_long", format!("{field} has more than {STRUCT_BYTES_MAX} bytes")));
    }
    match document.0.iter().find(|(_, value)| !is_finite(value)) {
        Some((name, _)) => Err(out_of_range(&format!("{field}.{name}"), f64::MIN, f64::MAX)),
        None => Ok(()),
    }
}

/// A subject that a caller wants events on: literal, under one of the beginnings of `common.callbacks`.
pub(super) fn callback(field: &str, subject: &str, beginnings: &[String]) -> Result<(), Fault> {
    if subject.is_empty() {
        return Err(required(field));
    }
    let is_token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !beginnings.iter().any(|beginning| subject.starts_with(beginning.as_str())) {
        let text = format!("{field} must lie under {}", beginnings.join(" or "));
        return Err(invalid(field, "bad_format", text));
    }
    let tokens = subject.split('.').count();
    if subject.len() > CALLBACK_BYTES_MAX || !CALLBACK_TOKENS.contains(&tokens) || !subject.split('.').all(is_token) {
        let text = format!(
            "{field} must have {} to {} tokens of letters, digits, `_` and `-`, and at most {CALLBACK_BYTES_MAX} bytes",
            CALLBACK_TOKENS.start(),
            CALLBACK_TOKENS.end()
        );
        return Err(invalid(field, "bad_format", text));
    }
    Ok(())
}

/// An operation for admins and services. `enforces` is `auth.enforce` of the settings.
pub(super) fn admin(context: &Context, enforces: bool) -> Result<(), Fault> {
    if !enforces || is_service(context) || is_admin(context) {
        return Ok(());
    }
    Err(Fault::client(Code::PermissionDenied, "only admins may do this").detail("reason", "admin_only"))
}

/// A request that names a player or user: only they themselves, admins and services may make it.
pub(super) fn owner(context: &Context, enforces: bool, field: &str, id: &str) -> Result<(), Fault> {
    if !enforces || id.is_empty() || id == context.user() || is_service(context) || is_admin(context) {
        return Ok(());
    }
    Err(Fault::client(Code::PermissionDenied, format!("{field} is not yours"))
        .detail("field", field)
        .detail("reason", "not_owner"))
}

/// The id of a player whom the caller may speak for.
pub(super) fn player(context: &Context, enforces: bool, player_id: &str) -> Result<(), Fault> {
    owner(context, enforces, "player_id", player_id)?;
    id("player_id", player_id)
}

/// The guard of a declared method whose request names a player.
pub(super) fn own(settings: &LiveSettings) -> impl Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + use<> {
    let settings = settings.clone();
    move |context, player_id| owner(context, settings.now().auth.enforce, "player_id", player_id)
}

/// The guard of a hook whose request has to name a player: what is read for others is not read at all.
pub(super) fn own_player(
    settings: &LiveSettings,
) -> impl Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + use<> {
    let settings = settings.clone();
    move |context, player_id| player(context, settings.now().auth.enforce, player_id)
}

/// The caller is a service: the gateway marks what comes from outside.
pub(super) fn is_service(context: &Context) -> bool {
    context.caller().label("origin") != Some("edge")
}

fn is_admin(context: &Context) -> bool {
    context.roles().any(|role| role == "admin")
}

/// The decoder has a depth budget, so this cannot go deeper than that.
fn depth(value: &Value) -> usize {
    match value {
        Value::List(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Struct(members) => 1 + members.0.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// No number in it is infinite or none.
fn is_finite(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_finite(),
        Value::List(list) => list.iter().all(is_finite),
        Value::Struct(members) => members.0.values().all(is_finite),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_no_number_that_json_cannot_write() {
        let inside = |number: f64| Struct::default().with("deep", vec![Struct::default().with("x", number).into()]);
        assert!(document("state", &inside(1.5)).is_ok());
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let fault = document("state", &inside(number)).unwrap_err();
            assert_eq!((fault.code(), &*fault.details()[0].1), (Code::OutOfRange, "state.deep"));
        }
    }

    #[test]
    fn a_callback_is_a_literal_subject_under_an_allowed_beginning() {
        let beginnings = ["cb.", "_INBOX."].map(str::to_owned);
        let of = |subject: &str| callback("callback_subject", subject, &beginnings).err();
        for good in ["cb.game", "cb.a-b.c_d", "_INBOX.x.y"] {
            assert!(of(good).is_none(), "{good}");
        }
        let long = format!("cb.{}", "a".repeat(254));
        let deep = ["cb"; 17].join(".");
        for bad in ["cb.", "cb.*", "cb.>", "cb..x", "cb.a b", "cb", "$JS.x", "svc.payment.v1.refund", &long, &deep] {
            assert_eq!(of(bad).unwrap().details()[1].1, "bad_format", "{bad}");
        }
        assert_eq!(of("").unwrap().message(), "callback_subject is required");
        assert_eq!(of("svc.x").unwrap().message(), "callback_subject must lie under cb. or _INBOX.");
    }
}
