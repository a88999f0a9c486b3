//! What a declared write makes of a document besides its fields: what stays of the one before, times, when it expires; and
//! the numbers that it may get.

use serde_json::Value;

use crate::fault::{Code, Fault};
use crate::schema::operation::{Mode, Put, Range};
use crate::transcode::wire::put_number;
use crate::worker::records::Document;

/// Most entries of a map of figures, and most bytes of a key.
const ENTRIES_MAX: usize = 64;
const KEY_MAX: usize = 64;

/// The document after a write of `value`.
pub(super) fn written(plan: &Put, before: Option<&Value>, value: &Value, now_ms: i64) -> Value {
    let mut after = match (&plan.mode, before) {
        (Mode::Merge(fields), Some(before)) => merged(before, value, fields),
        _ => value.clone(),
    };
    for time in &plan.times {
        if let Some(keep) = &time.keep {
            after[keep.as_str()] = (now_ms + millis(&after, time.after.as_deref())).into();
        }
    }
    after
}

/// The times that a reply has of a document that was written.
pub(super) fn answer_times(plan: &Put, document: &Document<Value>, reply: &mut Vec<u8>) {
    for time in &plan.times {
        if let Some(number) = time.into {
            let at_ms = document.updated_ms + millis(&document.value, time.after.as_deref());
            put_number(number, at_ms as u64, reply);
        }
    }
}

/// When a document that was written counts as absent; 0 is never.
pub(super) fn expires_at_ms(plan: &Put, document: &Document<Value>) -> i64 {
    let own = millis(&document.value, plan.expires_after.as_deref());
    let ttl = plan.kind.ttl.map_or(0, |ttl| ttl.as_millis() as i64);
    match (own, ttl) {
        (0, 0) => 0,
        (0, ttl) => document.updated_ms + ttl,
        (own, _) => document.updated_ms + own,
    }
}

/// Refuses a document with a number outside of its range.
pub(super) fn within(range: &Range, document: &Value) -> Result<(), Fault> {
    let check = |path: &str, value: &Value| match number(value) {
        Some(number) if (range.bounds[0]..=range.bounds[1]).contains(&number) => Ok(()),
        _ => Err(outside(path, range.bounds)),
    };
    let field = range.field.as_str();
    match &document[field] {
        Value::Null => Ok(()),
        Value::Object(entries) if entries.len() > ENTRIES_MAX || entries.keys().any(|key| key.len() > KEY_MAX) => {
            let text = format!("{field} has more than {ENTRIES_MAX} entries, or a key of more than {KEY_MAX} bytes");
            Err(Fault::client(Code::InvalidArgument, text).detail("field", field).detail("reason", "too_many"))
        }
        Value::Object(entries) => entries.iter().try_for_each(|(key, value)| check(&format!("{field}.{key}"), value)),
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, value)| check(&format!("{field}[{index}]"), value))
        }
        value => check(field, value),
    }
}

fn merged(before: &Value, value: &Value, fields: &[String]) -> Value {
    let mut after = before.clone();
    for field in fields {
        match value.get(field) {
            Some(value) => after[field.as_str()] = value.clone(),
            None => drop(after.as_object_mut().map(|members| members.remove(field))),
        }
    }
    after
}

/// A number of a stored document, where 64-bit ones may be texts, and so are those that are none.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn millis(document: &Value, name: Option<&str>) -> i64 {
    let value = name.map(|name| &document[name]);
    value.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok())).unwrap_or(0)
}

fn outside(field: &str, [min, max]: [f64; 2]) -> Fault {
    let name = field.rsplit('.').next().unwrap_or(field);
    Fault::client(Code::OutOfRange, format!("{name} must be {min} to {max}"))
        .detail("field", field)
        .detail("reason", "out_of_range")
        .detail("min", min.to_string())
        .detail("max", max.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_outside_of_its_range_is_named() {
        let range = Range { field: "load".to_owned(), bounds: [0.0, 100.0] };
        let refused =
            |load: Value| within(&range, &json!({ "load": load })).err().map(|fault| fault.message().to_owned());
        for good in [json!(0), json!(100.0), json!("7"), json!({"a": 1}), json!([1, 2]), json!(null)] {
            assert_eq!(refused(good), None);
        }
        for bad in [json!(101), json!("NaN"), json!("Infinity"), json!([1, -1]), json!({"load": "-Infinity"})] {
            assert!(refused(bad).is_some_and(|text| text.ends_with("must be 0 to 100")));
        }
    }
}
