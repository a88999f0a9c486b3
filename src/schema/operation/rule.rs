//! The options of a declaration as plain values.

use std::time::Duration;

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::LogRow;

/// Where a log says nothing.
const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A message of options, read field by field.
pub(super) struct Rule<'m>(pub(super) &'m DynamicMessage);

impl Rule<'_> {
    /// A text; empty where it is not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.field(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// A text that is given.
    pub(super) fn given(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let value = self.field(name);
        let items = value.as_ref().and_then(Value::as_list).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    pub(super) fn messages(&self, name: &str) -> Vec<DynamicMessage> {
        let value = self.field(name);
        let items = value.as_ref().and_then(Value::as_list).unwrap_or_default();
        items.iter().filter_map(|item| item.as_message().cloned()).collect()
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.field(name).and_then(|value| value.as_bool()).unwrap_or(false)
    }

    pub(super) fn real(&self, name: &str) -> Option<f64> {
        if !self.0.has_field_by_name(name) {
            return None;
        }
        self.field(name).and_then(|value| value.as_f64())
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        match self.field(name) {
            Some(Value::I32(number) | Value::EnumNumber(number)) => number.into(),
            _ => 0,
        }
    }

    /// True where something is said.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.has_field_by_name(name)
    }

    pub(super) fn message(&self, name: &str) -> Option<DynamicMessage> {
        if !self.0.has_field_by_name(name) {
            return None;
        }
        self.field(name).and_then(|value| value.as_message().cloned())
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        let message = self.message(name)?;
        match message.get_field_by_name("seconds").as_deref() {
            Some(Value::I64(seconds)) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            _ => None,
        }
    }

    /// Name and message of the member of a oneof that is set.
    pub(super) fn action(&self) -> Option<(String, DynamicMessage)> {
        let descriptor = self.0.descriptor();
        let field = descriptor.fields().find(|field| field.containing_oneof().is_some() && self.0.has_field(field))?;
        Some((field.name().to_owned(), self.0.get_field(&field).as_message()?.clone()))
    }

    fn field(&self, name: &str) -> Option<Value> {
        self.0.get_field_by_name(name).map(std::borrow::Cow::into_owned)
    }
}

/// The logs of a service.
pub(in crate::schema) fn logs(rules: &[DynamicMessage]) -> Vec<LogRow> {
    let row = |rule: Rule<'_>| LogRow {
        name: rule.text("name"),
        subjects: rule.texts("subjects"),
        max_age: rule.duration("max_age").unwrap_or(MAX_AGE),
        duplicate_window: rule.duration("duplicate_window").unwrap_or(DUPLICATE_WINDOW),
    };
    rules.iter().map(|rule| row(Rule(rule))).collect()
}
