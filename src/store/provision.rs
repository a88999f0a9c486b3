//! Logs, consumers and buckets as they should be, compared with what is there: what is missing is made, what differs is
//! changed, and what would lose data is refused with its reason.

use std::fmt;
use std::time::Duration;

use super::{BucketConfig, ConsumerConfig, Engine, LogConfig, Store, StoreError};

/// Something that a store keeps.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A log of events.
    Log(LogConfig),
    /// A durable consumer of a log.
    Consumer(ConsumerConfig),
    /// A bucket of keys.
    Bucket(BucketConfig),
}

/// `stream GAME_EVENTS`, `consumer GAME_EVENTS/quest_processor`, `bucket tg_state`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Log(log) => write!(f, "stream {}", log.name),
            Resource::Consumer(consumer) => write!(f, "consumer {}/{}", consumer.log, consumer.name),
            Resource::Bucket(bucket) => write!(f, "bucket {}", bucket.name),
        }
    }
}

/// How many copies a cluster keeps of each resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// So many, no more and no fewer.
    Exactly(usize),
    /// At least so many; what has more keeps them.
    AtLeast(usize),
}

impl Replicas {
    pub(super) fn wanted(self, is: usize) -> usize {
        match self {
            Replicas::Exactly(count) => count,
            Replicas::AtLeast(count) => count.max(is),
        }
    }
}

/// What is to be done about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is as it should be.
    Keep,
    /// It is not there.
    Create,
    /// It differs. Where one difference is refused, nothing of the resource is changed.
    Change(Vec<Difference>),
}

/// One setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub setting: &'static str,
    /// As it is.
    pub is: String,
    /// As it should be.
    pub wanted: String,
    /// Why it stays as it is, where it does.
    pub refusal: Option<&'static str>,
}

/// `max age 30m → 1h`, `history 16 → 8 (refused: it would lose revisions)`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.setting, self.is, self.wanted)?;
        match self.refusal {
            Some(refusal) => write!(f, " (refused: {refusal})"),
            None => Ok(()),
        }
    }
}

impl Step {
    /// True where something of it is refused.
    pub fn is_refused(&self) -> bool {
        matches!(self, Step::Change(differences) if differences.iter().any(|row| row.refusal.is_some()))
    }
}

impl Store {
    /// Copies that new resources get: 3 on a cluster of three servers or more, else 1.
    pub fn replicas_default(&self) -> usize {
        match &self.engine {
            Engine::Embedded(_) => 1,
            Engine::JetStream(store) => store.replicas_default(),
        }
    }

    /// What would have to be done about a resource. Changes nothing.
    pub async fn compare(&self, resource: &Resource, replicas: Replicas) -> Result<Step, StoreError> {
        match &self.engine {
            Engine::Embedded(store) => Ok(if store.has(resource) { Step::Keep } else { Step::Create }),
            Engine::JetStream(store) => store.compare(resource, replicas).await,
        }
    }

    /// Makes a resource as it should be, and says what has been done. Where a difference is refused nothing is done.
    pub async fn apply(&self, resource: &Resource, replicas: Replicas) -> Result<Step, StoreError> {
        match &self.engine {
            Engine::Embedded(store) => {
                let step = if store.has(resource) { Step::Keep } else { Step::Create };
                match resource.clone() {
                    Resource::Log(log) => store.provide_log(log)?,
                    Resource::Consumer(consumer) => store.provide_consumer(consumer)?,
                    Resource::Bucket(bucket) => drop(store.bucket(bucket)?),
                }
                Ok(step)
            }
            Engine::JetStream(store) => store.apply(resource, replicas).await,
        }
    }
}

/// A length of time for people: its whole days, hours, minutes and seconds; `none` where it is zero.
pub(super) fn length(length: Duration) -> String {
    if length.is_zero() {
        return "none".to_owned();
    }
    let mut left = length.as_secs();
    let mut text = String::new();
    for (unit, seconds) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        if left >= seconds {
            text.push_str(&format!("{}{unit}", left / seconds));
            left %= seconds;
        }
    }
    if length.subsec_nanos() > 0 {
        text.push_str(&format!("{}ms", length.subsec_millis()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_for_people() {
        for (millis, text) in
            [(0, "none"), (90_000, "1m30s"), (3_600_000, "1h"), (777_600_000, "9d"), (1_500, "1s500ms")]
        {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }
}
