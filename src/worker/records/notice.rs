//! An event that goes with a change: what is kept of it in the record, and how it looks on the bus.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::{Code, Fault};
use crate::transcode::to_wire;
use crate::worker::Context;

/// What makes two publishes of an event one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventId {
    /// This text.
    Text(String),
    /// This text, a colon, and the revision of the change.
    AtRevision(String),
}

/// An event as the record keeps it until it is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// Where it goes, `evt.quest.generated.v1`.
    pub subject: String,
    /// Its id: the same change has the same id, however often it is published.
    pub id: EventId,
    /// When the change was made, milliseconds since 1970.
    pub at_ms: i64,
    /// Full name of the payload's message.
    pub message: String,
    /// The encoded payload.
    #[serde(with = "base64_text")]
    pub payload: Vec<u8>,
    /// What its readers can know without decoding it.
    pub metadata: BTreeMap<String, String>,
    /// 0 to 10.
    pub priority: i32,
}

/// An event as published.
pub struct Sealed {
    /// Full name of the message on the wire.
    pub message: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Headers besides content type, message type and trace.
    pub headers: Vec<(&'static str, String)>,
}

/// Turns a notice with its final id into what is published.
pub type Seal = fn(&Context, &Notice, &str) -> Result<Sealed, Fault>;

/// The payload as it is.
pub fn plain_seal(_: &Context, notice: &Notice, _: &str) -> Result<Sealed, Fault> {
    Ok(Sealed { message: notice.message.clone(), payload: notice.payload.clone(), headers: Vec::new() })
}

impl Notice {
    /// A notice of a message of the schema, made now. `message` is its full name.
    pub fn new<T: Serialize>(
        context: &Context,
        subject: impl Into<String>,
        id: EventId,
        message: &str,
        value: &T,
    ) -> Result<Notice, Fault> {
        let payload = encoded(context, message, value)?;
        Ok(Notice::encoded(context, subject, id, message, payload))
    }

    /// A notice of a message that is encoded already, made now.
    pub fn encoded(
        context: &Context,
        subject: impl Into<String>,
        id: EventId,
        message: &str,
        payload: Vec<u8>,
    ) -> Notice {
        let (at_ms, message, metadata) = (context.now_ms(), message.to_owned(), BTreeMap::new());
        Notice { subject: subject.into(), id, at_ms, message, payload, metadata, priority: 5 }
    }

    /// The same notice with one more entry of metadata.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Notice {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// The same notice with another priority, 0 to 10.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Notice {
        self.priority = priority;
        self
    }

    /// The id of an event whose change has this revision.
    pub fn id_at(&self, revision: u64) -> String {
        match &self.id {
            EventId::Text(text) => text.clone(),
            EventId::AtRevision(text) => format!("{text}:{revision}"),
        }
    }
}

/// A value as the bytes of a message of the schema.
pub(in crate::worker) fn encoded<T: Serialize>(context: &Context, message: &str, value: &T) -> Result<Vec<u8>, Fault> {
    let broken = |text: String| Fault::ours(Code::Internal, "an event does not encode").internal(text);
    let tables = context.tables();
    let id = tables.message_id(message).ok_or_else(|| broken(format!("no message `{message}` in the descriptors")))?;
    let mut out = Vec::with_capacity(256);
    to_wire(tables, id, value, &mut out).map_err(|error| broken(error.to_string()))?;
    Ok(out)
}

/// Bytes as text in a stored record (`#[serde(with = "base64_text")]`): JSON has no bytes.
pub(crate) mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
