//! JSON values whose members keep the order in which they were added: a description is read by people, too.

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// An object without members.
    pub(super) fn new() -> Json {
        Json::Object(Vec::new())
    }

    /// The same object with one more member.
    #[must_use]
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<Json>) -> Json {
        self.set(name, value);
        self
    }

    /// The same object with one more member, where there is a value.
    #[must_use]
    pub(super) fn with_some(self, name: &str, value: Option<impl Into<Json>>) -> Json {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The same object with one more text, unless it is empty.
    #[must_use]
    pub(super) fn with_text(self, name: &str, text: &str) -> Json {
        if text.is_empty() { self } else { self.with(name, text) }
    }

    /// Adds a member to an object.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<Json>) {
        if let Json::Object(members) = self {
            members.push((name.into(), value.into()));
        }
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.members().iter().find(|member| member.0 == name).map(|member| &member.1)
    }

    /// The members of an object; none of anything else.
    pub fn members(&self) -> &[(String, Json)] {
        if let Json::Object(members) = self { members } else { &[] }
    }

    /// True for an object or list of nothing.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Json::Object(members) => members.is_empty(),
            Json::List(items) => items.is_empty(),
            _ => false,
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::Text(text)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Bool(value)
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Json {
        Json::Number(value)
    }
}

impl<T: Into<Json>> From<Vec<T>> for Json {
    fn from(items: Vec<T>) -> Json {
        Json::List(items.into_iter().map(Into::into).collect())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Number(value) => serializer.serialize_i64(*value),
            Json::Text(text) => serializer.serialize_str(text),
            Json::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Json::Object(members) => {
                let mut object = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, value)| object.serialize_entry(name, value))?;
                object.end()
            }
        }
    }
}
