//! What a route does where its subject fails: repeats that are safe, and the breaker of the subject.

use std::sync::Arc;

use super::manifest::{At, BreakerRow};
use super::policy::Reader;
use crate::limits::{Breaker, BreakerRule};
use crate::telemetry;
use crate::written::parse_duration;

/// Most repeats of a call.
const RETRIES_MAX: u32 = 2;

/// The breaker of a subject, and the gauge that says whether it is open.
#[derive(Debug)]
pub struct SubjectBreaker {
    /// Shared by the routes to the subject, and between generations, while its row is unchanged.
    pub breaker: Arc<Breaker>,
    gauge: metrics::Gauge,
}

impl SubjectBreaker {
    fn new(subject: &str, breaker: Arc<Breaker>) -> SubjectBreaker {
        SubjectBreaker { breaker, gauge: metrics::gauge!(telemetry::BREAKER_OPEN, "subject" => subject.to_owned()) }
    }

    /// Says in the metrics whether it is open.
    pub fn show(&self) {
        self.gauge.set(f64::from(u8::from(self.breaker.is_open())));
    }
}

impl Reader<'_> {
    /// Repeats of a call that is safe to repeat.
    pub(super) fn retries(&mut self, retries: Option<&At<u32>>) -> u32 {
        let Some(retries) = retries else { return 0 };
        if retries.value > RETRIES_MAX {
            self.problem(retries.place, format!("expected 0 to {RETRIES_MAX} repeats, found {}", retries.value));
        }
        retries.value.min(RETRIES_MAX)
    }

    /// The breaker of a subject with that row; another one where the row is another.
    pub(super) fn breaker(&mut self, subject: &str, row: &At<BreakerRow>) -> Option<Arc<SubjectBreaker>> {
        let default = BreakerRule::default();
        let failures = row.value.failures.unwrap_or(default.failures);
        if failures == 0 {
            self.problem(row.place, "`failures`: expected a number above 0");
            return None;
        }
        let open = match row.value.open.as_deref().map(|text| (text, parse_duration(text))) {
            None => default.open,
            Some((_, Some(open))) if !open.is_zero() => open,
            Some((text, _)) => {
                self.problem(row.place, format!("`open`: expected a duration such as `30s`, found `{text}`"));
                return None;
            }
        };
        let rule = BreakerRule { failures, open, ..default };
        let known = self.breakers.iter().find(|known| known.0 == subject && known.1.breaker.rule() == rule);
        if let Some((_, known)) = known {
            return Some(known.clone());
        }
        let made = Arc::new(SubjectBreaker::new(subject, Arc::new(Breaker::new(rule))));
        self.breakers.push((subject.to_owned(), made.clone()));
        Some(made)
    }
}
