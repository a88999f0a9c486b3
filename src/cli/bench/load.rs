//! The loops that send requests, closed or open, and what they count. An open loop measures from the moment at which a
//! request was due: waiting for a slow server is part of the latency (no coordinated omission).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::target::{Answer, Target};
use crate::fault::{Code, Fault};

/// Longest latency that is told apart, in microseconds.
const MICROS_MAX: u64 = 600_000_000;
/// Timers come within a millisecond; a request that is due sooner is waited for without one.
const TIMER: Duration = Duration::from_millis(2);

/// How much, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) connections: usize,
    /// Requests a second; as fast as answers come without it.
    pub(super) rate: Option<u32>,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) timeout: Duration,
}

/// What was measured, the time of warming up left out.
pub(super) struct Tally {
    /// Microseconds to the answer, or to a stream's first event; of successes.
    pub(super) latency: Histogram<u64>,
    /// Microseconds to a stream's end.
    pub(super) whole: Histogram<u64>,
    /// Answers by status or code.
    pub(super) answers: BTreeMap<String, u64>,
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Requests of an open loop that were due and were not sent before the end.
    pub(super) unsent: u64,
}

impl Tally {
    fn new() -> Result<Tally, Fault> {
        let empty = || {
            Histogram::new_with_bounds(1, MICROS_MAX, 3)
                .map_err(|error| Fault::ours(Code::Internal, format!("no histogram: {error}")))
        };
        let (answers, latency, whole) = (BTreeMap::new(), empty()?, empty()?);
        Ok(Tally { latency, whole, answers, events: 0, bytes: 0, unsent: 0 })
    }

    /// Answers that were no success.
    pub(super) fn failures(&self) -> u64 {
        self.answers.values().sum::<u64>() - self.latency.len()
    }

    fn add(&mut self, due: Instant, result: Result<Answer, String>) {
        let micros = |length: Duration| (length.as_micros() as u64).clamp(1, MICROS_MAX);
        let outcome = match result {
            Ok(answer) => {
                self.latency.saturating_record(micros(answer.first.saturating_duration_since(due)));
                self.whole.saturating_record(micros(answer.end.saturating_duration_since(due)));
                self.events += answer.events;
                self.bytes += answer.bytes;
                answer.outcome
            }
            Err(outcome) => outcome,
        };
        *self.answers.entry(outcome).or_default() += 1;
    }

    fn join(&mut self, other: &Tally) {
        // They have equal bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.whole.add(&other.whole);
        for (outcome, count) in &other.answers {
            *self.answers.entry(outcome.clone()).or_default() += count;
        }
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

/// Runs the load to its end.
pub(super) async fn run(target: Target, load: Load) -> Result<Tally, Fault> {
    let (target, next) = (Arc::new(target), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..load.connections {
        running.spawn(one(target.clone(), load, start, next.clone(), Tally::new()?));
    }
    let mut tally = Tally::new()?;
    while let Some(part) = running.join_next().await {
        if let Ok(part) = part {
            tally.join(&part);
        }
    }
    if let Some(rate) = load.rate {
        let wanted = ((load.warm_up + load.duration).as_secs_f64() * f64::from(rate)) as u64;
        tally.unsent = wanted.saturating_sub(next.load(Ordering::Relaxed));
    }
    Ok(tally)
}

async fn one(target: Arc<Target>, load: Load, start: Instant, next: Arc<AtomicU64>, mut tally: Tally) -> Tally {
    let (measured, end) = (start + load.warm_up, start + load.warm_up + load.duration);
    while Instant::now() < end {
        let due = match load.rate {
            Some(rate) => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                start + Duration::from_secs_f64(number as f64 / f64::from(rate))
            }
            None => Instant::now(),
        };
        if due >= end {
            break;
        }
        wait_for(due).await;
        let result = timeout(load.timeout, target.ask()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if due >= measured {
            tally.add(due, result);
        }
    }
    tally
}

async fn wait_for(due: Instant) {
    if due > Instant::now() + TIMER {
        sleep_until(due - TIMER).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}
