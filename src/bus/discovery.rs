//! The NATS services protocol (ADR-32) as both sides see it: who is asked for what, and how all are asked at once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{Branch, Bus, BusError, Delivery, Headers, Limits, Message, Pattern, Subject, Subscription};

/// What a subscription to questions holds; a flood of them is dropped, not kept.
const QUESTIONS: Limits = Limits { messages: 1_024, bytes: 256 * 1024, ends_on_overflow: false };
/// Metadata of a worker that announces its schema: full names of its services, joined by commas.
pub const ANNOUNCED: &str = "tidegate_services";
/// Metadata: [`digest`] of a descriptor set that `$SRV.SCHEMA.{name}.{instance}` answers with, in parts: a request's body
/// says at which byte, as decimal digits.
pub const DIGEST: &str = "tidegate_descriptors";
/// Metadata: bytes of that set.
pub const BYTES: &str = "tidegate_descriptors_bytes";
/// Most bytes of a part: half of what a server takes by default.
pub const PART_BYTES: usize = 512 * 1024;

/// What the answers of all services may hold.
const ANSWERS: Limits = Limits { messages: 16 * 1024, bytes: 64 * 1024 * 1024, ends_on_overflow: false };

/// A question: `$SRV.INFO` to all, `$SRV.INFO.quest-system` to those of a name, with an instance behind it to that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'s> {
    /// `PING`, `INFO`, `STATS`, or our own `SCHEMA`.
    pub verb: &'s str,
    name: Option<&'s str>,
    instance: Option<&'s str>,
}

impl<'s> Question<'s> {
    /// What a subject asks; nothing where it asks nothing.
    pub fn of(subject: &'s Subject) -> Option<Question<'s>> {
        let mut tokens = subject.as_str().strip_prefix("$SRV.")?.split('.');
        let question = Question { verb: tokens.next()?, name: tokens.next(), instance: tokens.next() };
        tokens.next().is_none().then_some(question)
    }

    /// True where that instance of that service is asked.
    pub fn is_for(&self, name: &str, instance: &str) -> bool {
        self.name.is_none_or(|asked| asked == name) && self.instance.is_none_or(|asked| asked == instance)
    }
}

/// The part that all answers have; `kind` is `ping`, `info` or `stats`.
pub fn answer_of(kind: &str, name: &str, instance: &str, version: &str, metadata: &Value) -> Value {
    json!({
        "type": format!("io.nats.micro.v1.{kind}_response"),
        "name": name, "id": instance, "version": version, "metadata": metadata,
    })
}

/// What an instance of a service says of itself, whatever it was asked for. Others than we write these, too: what is
/// absent, or of another kind than it should be, is empty.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The service.
    #[serde(deserialize_with = "or_empty")]
    pub name: String,
    /// The instance of it.
    #[serde(deserialize_with = "or_empty")]
    pub id: String,
    /// Its version.
    #[serde(deserialize_with = "or_empty")]
    pub version: String,
    /// RFC 3339; of `STATS`.
    #[serde(deserialize_with = "or_empty")]
    pub started: String,
    /// What it adds.
    #[serde(deserialize_with = "or_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Its methods; of `INFO` and `STATS`.
    #[serde(deserialize_with = "or_empty")]
    pub endpoints: Vec<EndpointAnswer>,
}

/// One of its methods.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointAnswer {
    /// The method.
    #[serde(deserialize_with = "or_empty")]
    pub name: String,
    /// Where it is asked.
    #[serde(deserialize_with = "or_empty")]
    pub subject: String,
    /// How often it was.
    #[serde(deserialize_with = "or_empty")]
    pub num_requests: u64,
    /// How often it failed.
    #[serde(deserialize_with = "or_empty")]
    pub num_errors: u64,
    /// Nanoseconds.
    #[serde(deserialize_with = "or_empty")]
    pub average_processing_time: f64,
    /// How it failed last.
    #[serde(deserialize_with = "or_empty")]
    pub last_error: String,
}

impl Answer {
    /// What a message says; `None` where it names no instance of a service.
    pub fn read(message: &Delivery) -> Option<Answer> {
        let answer: Answer = serde_json::from_slice(&message.payload).ok()?;
        (!answer.name.is_empty() && !answer.id.is_empty()).then_some(answer)
    }

    /// What it adds under that name; empty where it does not.
    pub fn metadata(&self, name: &str) -> &str {
        self.metadata.get(name).map_or("", String::as_str)
    }
}

fn or_empty<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(reader: D) -> Result<T, D::Error> {
    Ok(T::deserialize(Value::deserialize(reader)?).unwrap_or_default())
}

/// SHA-256 in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Subscribes to the questions of everybody.
pub async fn questions(bus: &Bus) -> Result<Subscription, BusError> {
    let pattern = Pattern::new("$SRV.>").map_err(|error| BusError::Other(error.to_string()))?;
    bus.subscribe(&pattern, None, QUESTIONS).await
}

/// Asks everybody who is meant by a subject, and gathers answers until none has come for `quiet`, at most `longest`.
pub async fn ask(bus: &Bus, subject: &str, quiet: Duration, longest: Duration) -> Result<Vec<Delivery>, BusError> {
    let subject = Subject::new(subject).map_err(|error| BusError::Other(error.to_string()))?;
    let inbox = bus.new_inbox(Branch::Reply);
    let mut answers = bus.subscribe(&inbox.clone().into(), None, ANSWERS).await?;
    bus.publish(Message { subject, reply: Some(inbox), headers: Headers::new(), payload: Bytes::new() }).await?;
    let end = Instant::now() + longest;
    let mut all = Vec::new();
    loop {
        let next = end.min(Instant::now() + quiet);
        match timeout_at(next, answers.next()).await {
            Ok(Some(Ok(answer))) if answer.is_no_responders => return Ok(all),
            Ok(Some(Ok(answer))) => all.push(answer),
            Ok(Some(Err(_)) | None) => return Err(BusError::Disconnected),
            Err(_) => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_what_is_well_said_and_names_an_instance() {
        let read = |payload: &str| {
            Answer::read(&Delivery {
                subject: Subject::new("_INBOX.a").unwrap(),
                reply: None,
                headers: Headers::new(),
                payload: Bytes::copy_from_slice(payload.as_bytes()),
                is_no_responders: false,
            })
        };
        for (payload, expected) in [
            (
                r#"{"type":"io.nats.micro.v1.stats_response","name":"a","id":"1","version":"0.1.0","started":"2026",
                    "metadata":{"k":"v"},"endpoints":[{"name":"get","subject":"svc.a","num_requests":7,"num_errors":1,
                    "average_processing_time":1500,"last_error":"no","data":{"more":1}}]}"#,
                Some(Answer {
                    name: "a".to_owned(),
                    id: "1".to_owned(),
                    version: "0.1.0".to_owned(),
                    started: "2026".to_owned(),
                    metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
                    endpoints: vec![EndpointAnswer {
                        name: "get".to_owned(),
                        subject: "svc.a".to_owned(),
                        num_requests: 7,
                        num_errors: 1,
                        average_processing_time: 1500.0,
                        last_error: "no".to_owned(),
                    }],
                }),
            ),
            (
                r#"{"name":"a","id":"1","version":7,"metadata":null,"endpoints":[{"num_requests":-1}]}"#,
                Some(Answer {
                    name: "a".to_owned(),
                    id: "1".to_owned(),
                    endpoints: vec![EndpointAnswer::default()],
                    ..Answer::default()
                }),
            ),
            (r#"{"name":"a"}"#, None),
            (r#"{"name":["a"],"id":"1"}"#, None),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(read(payload), expected, "{payload}");
        }
    }

    #[test]
    fn a_question_is_for_everybody_a_name_or_an_instance() {
        for (subject, verb, is_mine) in [
            ("$SRV.PING", "PING", true),
            ("$SRV.INFO.quests", "INFO", true),
            ("$SRV.INFO.other", "INFO", false),
            ("$SRV.STATS.quests.a1", "STATS", true),
            ("$SRV.STATS.quests.a2", "STATS", false),
        ] {
            let subject = Subject::new(subject).unwrap();
            let question = Question::of(&subject).unwrap();
            assert_eq!((question.verb, question.is_for("quests", "a1")), (verb, is_mine), "{subject}");
        }
        for subject in ["$SRV.STATS.quests.a1.more", "svc.quest", "$SRVX.PING"] {
            assert_eq!(Question::of(&Subject::new(subject).unwrap()), None);
        }
    }
}
