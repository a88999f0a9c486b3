//! The NATS services protocol (ADR-32) as both sides see it: who is asked for what, and how all are asked at once.

use std::time::Duration;

use bytes::Bytes;
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
