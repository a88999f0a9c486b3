//! Work beside the methods that follows the store: begun anew after an error, and an agenda of what is due when.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::fault::Fault;
use crate::worker::Context;

/// Pause before work that failed begins anew.
const RETRY: Duration = Duration::from_secs(1);
/// Longest sleep: a clock that was moved is noticed after it.
const LOOK_MS: i64 = 250;

/// Runs work until the service drains; after an error it begins anew.
pub(super) async fn keep_running<F, Fut>(context: &Context, name: &'static str, work: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), Fault>>,
{
    while context.cancelled().is_none() {
        if let Err(fault) = work().await {
            tracing::warn!(service = context.service(), work = name, %fault, "background work begins anew");
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = context.until_cancelled() => {}
            }
        }
    }
}

/// Keys by the time at which something has to be done about them, milliseconds since 1970.
#[derive(Default)]
pub(super) struct Agenda {
    order: BTreeSet<(i64, String)>,
    times: HashMap<String, i64>,
}

impl Agenda {
    /// Something is due for a key then, and at no other time.
    pub(super) fn set(&mut self, key: &str, at_ms: i64) {
        self.remove(key);
        self.order.insert((at_ms, key.to_owned()));
        self.times.insert(key.to_owned(), at_ms);
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(at_ms) = self.times.remove(key) {
            self.order.remove(&(at_ms, key.to_owned()));
        }
    }

    /// Takes out the keys that are due, earliest first.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Vec<String> {
        let later = self.order.split_off(&(now_ms.saturating_add(1), String::new()));
        let due: Vec<String> = std::mem::replace(&mut self.order, later).into_iter().map(|(_, key)| key).collect();
        for key in &due {
            self.times.remove(key);
        }
        due
    }

    /// Returns when the next key may be due, and after a quarter of a second at the latest.
    pub(super) async fn until_next(&self, now_ms: i64) {
        let wait_ms = self.order.first().map_or(LOOK_MS, |(at_ms, _)| at_ms.saturating_sub(now_ms).clamp(1, LOOK_MS));
        tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_out_once_and_in_order() {
        let mut agenda = Agenda::default();
        for (key, at_ms) in [("late", 30), ("second", 20), ("first", 10), ("moved", 5), ("gone", 1)] {
            agenda.set(key, at_ms);
        }
        agenda.set("moved", 25);
        agenda.remove("gone");
        assert_eq!(agenda.take_due(25), ["first", "second", "moved"]);
        assert!(agenda.take_due(25).is_empty());
        assert_eq!(agenda.take_due(30), ["late"]);
    }
}
