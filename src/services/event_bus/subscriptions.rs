//! What is stored: subscriptions, and who dispatches each log; and the subscriptions as a replica sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::patterns::takes;
use crate::fault::Fault;
use crate::services::checks::{invalid, texts, unknown_value};
use crate::services::notices::GameEvent;
use crate::store::Keys;
use crate::worker::Context;
use crate::worker::records::{RecordSeen, Records};

/// A record of the bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kept {
    Subscription(Subscription),
    Lease(Lease),
}

/// Who gets which events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) tenant: String,
    pub(super) subscription_id: String,
    pub(super) patterns: Vec<String>,
    pub(super) callback_subject: String,
    pub(super) filter: Filter,
    pub(super) expires_at_ms: i64,
}

/// Who dispatches a log, until when; and how many events of each type were dispatched.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) holder: String,
    pub(super) until_ms: i64,
    /// By tenant and type.
    pub(super) published: BTreeMap<String, BTreeMap<String, i64>>,
}

/// Which events of its patterns, and how they are brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Filter {
    metadata: BTreeMap<String, String>,
    min_priority: i32,
    /// The receiver says that it has the event.
    pub(super) is_explicit: bool,
    /// It begins with the newest event that there is.
    pub(super) is_from_last: bool,
}

impl Filter {
    /// Metadata that has to be equal, and options, whose names begin with `$`.
    pub(super) fn read(given: &BTreeMap<String, String>) -> Result<Filter, Fault> {
        texts("filters", given)?;
        let mut filter = Filter::default();
        for (name, value) in given {
            let field = format!("filters.{name}");
            let one_of = |allowed: [&str; 2]| match allowed.iter().position(|known| known.eq_ignore_ascii_case(value)) {
                Some(index) => Ok(index == 1),
                None => Err(unknown_value(&field, format!("{field} must be {}", allowed.join(" or ")), &allowed)),
            };
            match name.as_str() {
                "$ack" => filter.is_explicit = one_of(["none", "explicit"])?,
                "$from" => filter.is_from_last = one_of(["new", "last"])?,
                "$min_priority" => {
                    let priority = value.parse().ok().filter(|priority| (0..=10).contains(priority));
                    let text = format!("{field} must be 0 to 10");
                    filter.min_priority = priority.ok_or_else(|| invalid(&field, "bad_format", text))?;
                }
                option if option.starts_with('$') => {
                    let text = format!("there is no option {option}");
                    return Err(unknown_value(&field, text, &["$ack", "$from", "$min_priority"]));
                }
                _ => drop(filter.metadata.insert(name.clone(), value.clone())),
            }
        }
        Ok(filter)
    }

    pub(super) fn takes(&self, event: &GameEvent) -> bool {
        event.priority >= self.min_priority
            && self.metadata.iter().all(|(name, value)| event.metadata.get(name) == Some(value))
    }
}

impl Subscription {
    pub(super) fn takes(&self, event: &GameEvent, now_ms: i64) -> bool {
        self.expires_at_ms > now_ms
            && self.tenant == tenant_of(event)
            && self.patterns.iter().any(|pattern| takes(pattern, &event.event_type))
            && self.filter.takes(event)
    }
}

/// The tenant of an event; empty is the default tenant.
pub(super) fn tenant_of(event: &GameEvent) -> &str {
    event.metadata.get("tenant_id").map_or("", String::as_str)
}

/// All subscriptions, filled from a watch.
pub(super) struct Index {
    by_key: Mutex<BTreeMap<String, Arc<Subscription>>>,
    is_current: watch::Sender<bool>,
}

impl Index {
    pub(super) fn new() -> Index {
        Index { by_key: Mutex::default(), is_current: watch::Sender::new(false) }
    }

    /// The subscriptions that take an event.
    pub(super) fn takers(&self, event: &GameEvent, now_ms: i64) -> Vec<Arc<Subscription>> {
        self.with(|all| all.values().filter(|one| one.takes(event, now_ms)).cloned().collect())
    }

    /// Returns once what was stored before is known.
    pub(super) async fn until_current(&self) {
        let mut is_current = self.is_current.subscribe();
        // The sender lives in `self`.
        let _ = is_current.wait_for(|is_current| *is_current).await;
    }

    /// Follows the bucket until the worker drains.
    pub(super) async fn follow(&self, records: &Records<Kept>, context: &Context) {
        while context.cancelled().is_none() {
            if let Err(fault) = self.read(records, context).await {
                tracing::warn!(%fault, "subscriptions are read anew");
                tokio::select! {
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                    _ = context.until_cancelled() => {}
                }
            }
        }
    }

    async fn read(&self, records: &Records<Kept>, context: &Context) -> Result<(), Fault> {
        let mut watch = records.watch(Keys::All, None).await?;
        // What is gone since an earlier watch goes once everything that is there has been told.
        let mut told = Some(BTreeMap::new());
        loop {
            let seen = tokio::select! {
                seen = watch.next(context) => seen?,
                _ = context.until_cancelled() => return Ok(()),
            };
            let RecordSeen::Change { key, document, .. } = seen else {
                if let Some(all) = told.take() {
                    self.with(|known| *known = all);
                }
                self.is_current.send_replace(true);
                continue;
            };
            let subscription = match document.map(|document| document.value) {
                Some(Kept::Subscription(subscription)) => Some(Arc::new(subscription)),
                _ => None,
            };
            let put = |all: &mut BTreeMap<String, Arc<Subscription>>| match subscription {
                Some(subscription) => drop(all.insert(key, subscription)),
                None => drop(all.remove(&key)),
            };
            match &mut told {
                Some(all) => put(all),
                None => self.with(put),
            }
        }
    }

    /// Knows at once what this replica has changed.
    pub(super) fn note(&self, key: &str, kept: Option<serde_json::Value>) {
        match kept.map(serde_json::from_value) {
            Some(Ok(Kept::Subscription(subscription))) => {
                self.with(|all| drop(all.insert(key.to_owned(), Arc::new(subscription))));
            }
            Some(_) => {}
            None => self.with(|all| drop(all.remove(key))),
        }
    }

    fn with<A>(&self, use_it: impl FnOnce(&mut BTreeMap<String, Arc<Subscription>>) -> A) -> A {
        use_it(&mut self.by_key.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
