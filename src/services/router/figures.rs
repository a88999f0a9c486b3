//! What calls to a service say about it: latency, errors, and whether it is healthy. Each replica gathers its calls and
//! puts them into the shared record once a second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Calls that the error rate is made of.
const OUTCOMES_MAX: usize = 100;
/// Weight of the newest call in the latency.
const NEWEST: f64 = 0.2;
/// Failures in a row after which a service is unhealthy.
const FAILURES_MAX: u32 = 5;
/// How long a trial may take before another one is made.
const TRIAL_MS: i64 = 30_000;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) at_ms: i64,
    pub(super) latency_ms: f64,
    pub(super) is_failure: bool,
    pub(super) is_gold: bool,
}

/// The figures of one service over all replicas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    avg_latency_ms: Option<f64>,
    /// Failures among the last calls, oldest first.
    outcomes: VecDeque<bool>,
    failures: u32,
    gold_failures: u32,
    /// When short timeouts were tried last.
    #[serde(default)]
    gold_tried_ms: i64,
    /// Since when it has been unhealthy.
    unhealthy_since_ms: Option<i64>,
    trial_until_ms: i64,
    /// Last call or probe.
    last_ms: i64,
}

impl Figures {
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.last_ms = self.last_ms.max(outcome.at_ms);
        self.outcomes.push_back(outcome.is_failure);
        if self.outcomes.len() > OUTCOMES_MAX {
            self.outcomes.pop_front();
        }
        if outcome.is_gold {
            self.gold_failures = if outcome.is_failure { self.gold_failures + 1 } else { 0 };
            self.gold_tried_ms = self.gold_tried_ms.max(outcome.at_ms);
        }
        if outcome.is_failure {
            self.failures += 1;
            if self.failures >= FAILURES_MAX {
                // After a failed trial the wait begins anew.
                self.unhealthy_since_ms = Some(outcome.at_ms);
                self.trial_until_ms = 0;
            }
            return;
        }
        let before = self.avg_latency_ms.unwrap_or(outcome.latency_ms);
        self.avg_latency_ms = Some(before + NEWEST * (outcome.latency_ms - before));
        (self.failures, self.unhealthy_since_ms, self.trial_until_ms) = (0, None, 0);
    }

    pub(super) fn is_seen(&self) -> bool {
        !self.outcomes.is_empty()
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.unhealthy_since_ms.is_none()
    }

    /// Calls with a short timeout get through.
    pub(super) fn is_gold_healthy(&self) -> bool {
        self.is_healthy() && self.gold_failures < FAILURES_MAX
    }

    /// True where a call with a short timeout is the one that tries again whether such calls get through.
    pub(super) fn try_gold(&mut self, now_ms: i64, retry_ms: i64) -> bool {
        let is_due = self.is_healthy() && now_ms - self.gold_tried_ms >= retry_ms;
        if is_due {
            self.gold_tried_ms = now_ms;
        }
        is_due
    }

    pub(super) fn avg_latency_ms(&self) -> f64 {
        (self.avg_latency_ms.unwrap_or(0.0) * 1_000.0).round() / 1_000.0
    }

    /// Failures among the last calls in percent, rounded.
    pub(super) fn error_rate_percent(&self) -> i32 {
        let failures = self.outcomes.iter().filter(|is_failure| **is_failure).count();
        (100.0 * failures as f64 / self.outcomes.len().max(1) as f64).round() as i32
    }

    /// How long an unhealthy service is still left alone, in milliseconds; nothing where a call may try it now.
    pub(super) fn wait_ms(&self, now_ms: i64, retry_ms: i64) -> Option<i64> {
        let next_ms = (self.unhealthy_since_ms? + retry_ms).max(self.trial_until_ms);
        (next_ms > now_ms).then_some(next_ms - now_ms)
    }

    /// Somebody tries an unhealthy service.
    pub(super) fn try_it(&mut self, now_ms: i64) {
        self.trial_until_ms = now_ms + TRIAL_MS;
    }

    /// True where nothing has been heard of it for a while; whoever asks probes it.
    pub(super) fn probe(&mut self, now_ms: i64, idle_ms: i64) -> bool {
        let is_due = now_ms - self.last_ms >= idle_ms;
        if is_due {
            self.last_ms = now_ms;
        }
        is_due
    }
}

/// Calls of this replica that the shared record does not have yet.
#[derive(Default)]
pub(super) struct Gathered(Mutex<BTreeMap<String, Vec<Outcome>>>);

impl Gathered {
    pub(super) fn add(&self, service: &str, outcome: Outcome) {
        self.with(|all| all.entry(service.to_owned()).or_default().push(outcome));
    }

    /// The shared figures with what is not in them yet.
    pub(super) fn over(&self, service: &str, mut figures: Figures) -> Figures {
        self.with(|all| all.get(service).into_iter().flatten().for_each(|outcome| figures.add(outcome)));
        figures
    }

    pub(super) fn all(&self) -> BTreeMap<String, Vec<Outcome>> {
        self.with(|all| all.clone())
    }

    /// Forgets the first calls of a service, which have been put into the record.
    pub(super) fn forget(&self, service: &str, count: usize) {
        self.with(|all| {
            let Some(outcomes) = all.get_mut(service) else { return };
            outcomes.drain(..count.min(outcomes.len()));
            if outcomes.is_empty() {
                all.remove(service);
            }
        });
    }

    fn with<A>(&self, use_it: impl FnOnce(&mut BTreeMap<String, Vec<Outcome>>) -> A) -> A {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(at_ms: i64, is_failure: bool) -> Outcome {
        Outcome { at_ms, latency_ms: 10.0, is_failure, is_gold: false }
    }

    #[test]
    fn five_failures_in_a_row_make_it_unhealthy_and_one_success_healthy_again() {
        let mut figures = Figures::default();
        for at_ms in 0..4 {
            figures.add(&outcome(at_ms, true));
        }
        figures.add(&outcome(4, false));
        assert_eq!((figures.is_healthy(), figures.error_rate_percent()), (true, 80));
        for at_ms in 5..10 {
            assert!(figures.is_healthy());
            figures.add(&outcome(at_ms, true));
        }
        assert_eq!(figures.wait_ms(10, 60_000), Some(59_999));
        assert_eq!(figures.wait_ms(60_009, 60_000), None);
        // One call tries it, others wait for what comes of it.
        figures.try_it(60_009);
        assert_eq!(figures.wait_ms(60_010, 60_000), Some(29_999));
        let mut failed = figures.clone();
        failed.add(&outcome(60_020, true));
        assert_eq!(failed.wait_ms(60_020, 60_000), Some(60_000));
        figures.add(&outcome(60_020, false));
        assert_eq!((figures.is_healthy(), figures.wait_ms(60_020, 60_000)), (true, None));
    }

    #[test]
    fn short_timeouts_are_tried_again_after_a_while_by_one_call() {
        let gold = |at_ms, is_failure| Outcome { is_gold: true, ..outcome(at_ms, is_failure) };
        let mut figures = Figures::default();
        for at_ms in 0..5 {
            figures.add(&gold(at_ms, true));
            figures.add(&outcome(at_ms, false));
        }
        assert_eq!((figures.is_healthy(), figures.is_gold_healthy()), (true, false));
        assert!(!figures.try_gold(60_003, 60_000));
        assert!(figures.try_gold(60_004, 60_000));
        // Others wait for what comes of it, and as long again where it failed.
        assert!(!figures.try_gold(60_005, 60_000));
        figures.add(&gold(60_900, true));
        assert!(!figures.try_gold(120_899, 60_000));
        assert!(figures.try_gold(120_900, 60_000));
        figures.add(&gold(120_901, false));
        assert!(figures.is_gold_healthy());
    }

    #[test]
    fn latency_follows_the_newest_calls_a_fifth_at_a_time() {
        let mut figures = Figures::default();
        for latency_ms in [100.0, 200.0, 200.0] {
            figures.add(&Outcome { latency_ms, ..outcome(0, false) });
        }
        assert_eq!(figures.avg_latency_ms(), 136.0);
    }
}
