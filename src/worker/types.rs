//! Well-known types as handlers' structs hold them. Pure data; wrappers are `Option`s of what they wrap.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// `google.protobuf.Timestamp`: a moment, counted from 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999, counted forwards.
    pub nanos: i32,
}

impl Timestamp {
    /// From milliseconds since 1970.
    pub fn from_millis(millis: i64) -> Timestamp {
        Timestamp { seconds: millis.div_euclid(1_000), nanos: (millis.rem_euclid(1_000) * 1_000_000) as i32 }
    }

    /// Whole milliseconds since 1970, rounded down; what does not fit stops at the ends of `i64`.
    pub fn millis(&self) -> i64 {
        self.seconds.saturating_mul(1_000).saturating_add(i64::from(self.nanos.div_euclid(1_000_000)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC; the bare seconds where the moment lies outside the years 1 to 9999.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::transcode::rfc3339(self.seconds, self.nanos) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{} s", self.seconds),
        }
    }
}

/// `google.protobuf.Duration`: a length of time; both parts have one sign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Duration {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, -999,999,999 to 999,999,999.
    pub nanos: i32,
}

impl Duration {
    /// From milliseconds.
    pub fn from_millis(millis: i64) -> Duration {
        Duration { seconds: millis / 1_000, nanos: (millis % 1_000 * 1_000_000) as i32 }
    }

    /// Whole milliseconds, rounded towards zero; what does not fit stops at the ends of `i64`.
    pub fn millis(&self) -> i64 {
        self.seconds.saturating_mul(1_000).saturating_add(i64::from(self.nanos / 1_000_000))
    }
}

/// `google.protobuf.FieldMask`: paths of fields in proto names.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldMask {
    /// The paths.
    pub paths: Vec<String>,
}

/// `google.protobuf.Any`: a message of some type.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Any {
    /// `type.googleapis.com/full.name`.
    pub type_url: String,
    /// Its bytes.
    pub value: Bytes,
}

/// `google.protobuf.Struct`: a JSON object, its members in order of names.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Struct(pub BTreeMap<String, Value>);

/// `google.protobuf.Value`: any JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; JSON knows no others than doubles.
    Number(f64),
    /// A text.
    String(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Struct(Struct),
}

impl Struct {
    /// A member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A member's text; `None` where it is absent or no text.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// A member's number; `None` where it is absent or no number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name).and_then(Value::as_number)
    }

    /// A member's boolean; `None` where it is absent or no boolean.
    pub fn bool(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(Value::as_bool)
    }

    /// Sets a member.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// The same object with one more member.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Struct {
        self.set(name, value);
        self
    }
}

impl Value {
    /// Its text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    /// Its number.
    pub fn as_number(&self) -> Option<f64> {
        if let Value::Number(number) = self { Some(*number) } else { None }
    }

    /// Its boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self { Some(*value) } else { None }
    }

    /// Its elements.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(list) = self { Some(list) } else { None }
    }

    /// Its members.
    pub fn as_struct(&self) -> Option<&Struct> {
        if let Value::Struct(members) = self { Some(members) } else { None }
    }
}

macro_rules! value_from {
    ($($from:ty, $value:ident => $to:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Value {
                $to
            }
        })*
    };
}

value_from! {
    bool, value => Value::Bool(value);
    f64, value => Value::Number(value);
    i32, value => Value::Number(value.into());
    u32, value => Value::Number(value.into());
    &str, value => Value::String(value.to_owned());
    String, value => Value::String(value);
    Vec<Value>, value => Value::List(value);
    Struct, value => Value::Struct(value);
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => serializer.serialize_f64(*number),
            Value::String(text) => serializer.serialize_str(text),
            Value::List(list) => list.serialize(serializer),
            Value::Struct(members) => members.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = elements.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry()? {
            members.insert(name, value);
        }
        Ok(Value::Struct(Struct(members)))
    }
}
