//! A circuit breaker: after failures in a row nothing passes for a while, then one probe; after enough probes that
//! succeeded everything passes again. A failure is a broken transport, never an error that somebody answered with.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::fault::{Fault, Reason, Source};

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRule {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before a probe.
    pub open: Duration,
    /// Probes in a row that close it.
    pub probes: u32,
}

impl Default for BreakerRule {
    fn default() -> BreakerRule {
        BreakerRule { failures: 5, open: Duration::from_secs(30), probes: 2 }
    }
}

/// A breaker. Times are lengths since any fixed moment.
#[derive(Debug)]
pub struct Breaker {
    rule: BreakerRule,
    /// Failures in a row while it is closed.
    failures: AtomicU32,
    /// It is not closed; the rest then stands behind the lock.
    is_tripped: AtomicBool,
    tripped: Mutex<Tripped>,
}

#[derive(Debug, Default)]
struct Tripped {
    until: Duration,
    is_probing: bool,
    /// Probes that succeeded.
    successes: u32,
}

/// A call that may pass. Dropped without a word it counts neither way.
#[derive(Debug)]
pub struct Pass<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rule: BreakerRule) -> Breaker {
        let (failures, is_tripped) = (AtomicU32::new(0), AtomicBool::new(false));
        Breaker { rule, failures, is_tripped, tripped: Mutex::default() }
    }

    /// When it opens and closes.
    pub fn rule(&self) -> BreakerRule {
        self.rule
    }

    /// A pass, or how long to wait for the next probe.
    pub fn admit(&self, now: Duration) -> Result<Pass<'_>, Duration> {
        if !self.is_tripped.load(Ordering::Acquire) {
            return Ok(Pass { breaker: self, is_probe: false });
        }
        let mut tripped = self.lock();
        if !self.is_tripped.load(Ordering::Acquire) {
            return Ok(Pass { breaker: self, is_probe: false });
        }
        if now < tripped.until {
            return Err(tripped.until - now);
        }
        if tripped.is_probing {
            return Err(Duration::from_secs(1).min(self.rule.open));
        }
        tripped.is_probing = true;
        Ok(Pass { breaker: self, is_probe: true })
    }

    /// True while nothing but probes passes.
    pub fn is_open(&self) -> bool {
        self.is_tripped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tripped> {
        self.tripped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trip(&self, now: Duration) {
        let mut tripped = self.lock();
        *tripped = Tripped { until: now + self.rule.open, ..Tripped::default() };
        self.is_tripped.store(true, Ordering::Release);
    }
}

impl Pass<'_> {
    /// Counts how the call ended, `None` with success: the one verdict of the gateway's calls and of a worker's. Whoever
    /// answers works, be it with an error, and only silence is a failure, where `had_time` says that it lasted for most of the
    /// time that the call usually gets: a client in a hurry proves nothing. Neither does that nobody is there, or no bus,
    /// which is told at once and costs nothing; nor what this process or the caller got wrong, because nobody was asked.
    pub fn ended(self, fault: Option<&Fault>, had_time: bool, now: Duration) {
        match fault.map(|fault| (fault.source(), fault.why())) {
            Some((_, Reason::UpstreamTimeout)) if had_time => self.failed(now),
            Some((_, Reason::UpstreamTimeout | Reason::NoResponders | Reason::BusDown)) => drop(self),
            Some((Source::Client | Source::Us, _)) => drop(self),
            Some((Source::Upstream, _)) | None => self.succeeded(),
        }
    }

    /// The call was answered, be it with an error.
    pub fn succeeded(mut self) {
        let breaker = self.breaker;
        if !self.is_probe {
            if breaker.failures.load(Ordering::Relaxed) != 0 {
                breaker.failures.store(0, Ordering::Relaxed);
            }
            return;
        }
        self.is_probe = false;
        let mut tripped = breaker.lock();
        tripped.is_probing = false;
        tripped.successes += 1;
        if tripped.successes >= breaker.rule.probes {
            breaker.failures.store(0, Ordering::Relaxed);
            breaker.is_tripped.store(false, Ordering::Release);
        }
    }

    /// The transport failed.
    pub fn failed(mut self, now: Duration) {
        let breaker = self.breaker;
        if std::mem::take(&mut self.is_probe)
            || breaker.failures.fetch_add(1, Ordering::Relaxed) + 1 >= breaker.rule.failures
        {
            breaker.trip(now);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.lock().is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BreakerRule = BreakerRule { failures: 3, open: Duration::from_secs(30), probes: 2 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::new(RULE);
        for _ in 0..3 {
            breaker.admit(at(0)).unwrap().failed(at(0));
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let breaker = Breaker::new(RULE);
        for _ in 0..10 {
            breaker.admit(at(0)).unwrap().failed(at(0));
            breaker.admit(at(0)).unwrap().failed(at(0));
            breaker.admit(at(0)).unwrap().succeeded();
        }
        assert!(!breaker.is_open());
        assert_eq!(opened().admit(at(10)).unwrap_err(), at(20));
    }

    #[test]
    fn one_probe_at_a_time_and_two_that_succeed_close_it() {
        let breaker = opened();
        let probe = breaker.admit(at(30)).unwrap();
        assert!(breaker.admit(at(30)).is_err(), "the second one waits for the first");
        probe.succeeded();
        assert!(breaker.is_open());
        breaker.admit(at(30)).unwrap().succeeded();
        assert!(!breaker.is_open());
        assert!(breaker.admit(at(30)).is_ok() && breaker.admit(at(30)).is_ok());
    }

    #[test]
    fn a_probe_that_fails_opens_it_anew_and_one_that_is_dropped_makes_room() {
        let breaker = opened();
        drop(breaker.admit(at(30)).unwrap());
        breaker.admit(at(30)).unwrap().failed(at(31));
        assert_eq!(breaker.admit(at(40)).unwrap_err(), at(21));
    }
}
