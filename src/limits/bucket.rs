//! Token buckets (GCRA), one for a route or one a client key, over a clock that the caller reads.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota as Gcra, RateLimiter};

/// Most client keys that one bucket keeps apart. Above it, keys share: never more allowance than asked for.
const KEYS_MAX: usize = 65_536;

/// How much may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a window, and the window.
    pub requests: u32,
    /// Its length.
    pub per: Duration,
    /// Requests that may come at once.
    pub burst: u32,
}

/// A request that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Size of the bucket.
    pub limit: u32,
    /// Tokens left in it.
    pub remaining: u32,
}

/// A request that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Size of the bucket.
    pub limit: u32,
    /// When the next token comes.
    pub retry_after: Duration,
}

type Cell = RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, StateInformationMiddleware>;

/// A bucket, or one a key.
pub struct Bucket {
    quota: Quota,
    gcra: Gcra,
    clock: FakeRelativeClock,
    now_ms: AtomicU64,
    /// One cell for the route; for keys, shards of (key hash, cell), each bounded.
    whole: Cell,
    shards: Vec<Mutex<Shard>>,
    seed: RandomState,
}

const SHARDS: usize = 64;
const SHARD_KEYS_MAX: usize = KEYS_MAX / SHARDS;

#[derive(Default)]
struct Shard {
    cells: std::collections::HashMap<u64, (u64, Cell)>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("quota", &self.quota).finish_non_exhaustive()
    }
}

impl Bucket {
    /// A full bucket. `None` where the quota is empty.
    pub fn new(quota: Quota) -> Option<Bucket> {
        let gcra =
            Gcra::with_period(quota.per.checked_div(quota.requests)?)?.allow_burst(NonZeroU32::new(quota.burst)?);
        let clock = FakeRelativeClock::default();
        Some(Bucket {
            quota,
            gcra,
            whole: cell(gcra, &clock),
            clock,
            now_ms: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            seed: RandomState::new(),
        })
    }

    /// As declared.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// Moves the clock on; time that goes back is ignored.
    fn advance(&self, now: Duration) {
        let now_ms = now.as_millis() as u64;
        let before = self.now_ms.fetch_max(now_ms, Ordering::AcqRel);
        if now_ms > before {
            self.clock.advance(Duration::from_millis(now_ms - before));
        }
    }

    /// Takes a token of the route's bucket. `now` is any monotonic time, in milliseconds' precision.
    pub fn take(&self, now: Duration) -> Result<Admitted, Refusal> {
        self.advance(now);
        self.verdict(&self.whole)
    }

    /// Takes a token of a client's bucket.
    pub fn take_for(&self, key: impl std::hash::Hash, now: Duration) -> Result<Admitted, Refusal> {
        self.advance(now);
        let hash = self.seed.hash_one(key);
        let mut shard = self.shards[hash as usize % SHARDS].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now_ms = now.as_millis() as u64;
        if !shard.cells.contains_key(&hash) && shard.cells.len() >= SHARD_KEYS_MAX {
            self.forget_full(&mut shard, now_ms);
        }
        // A shard that stays full of busy keys makes newcomers share one cell.
        let key = if shard.cells.len() >= SHARD_KEYS_MAX && !shard.cells.contains_key(&hash) { 0 } else { hash };
        let entry = shard.cells.entry(key).or_insert_with(|| (now_ms, cell(self.gcra, &self.clock)));
        entry.0 = now_ms;
        self.verdict(&entry.1)
    }

    /// Drops the keys whose bucket must be full again.
    fn forget_full(&self, shard: &mut Shard, now_ms: u64) {
        let refill_ms =
            self.quota.per.as_millis() as u64 * u64::from(self.quota.burst) / u64::from(self.quota.requests.max(1));
        shard.cells.retain(|_, (used_ms, _)| now_ms.saturating_sub(*used_ms) < refill_ms);
    }

    fn verdict(&self, cell: &Cell) -> Result<Admitted, Refusal> {
        match cell.check() {
            Ok(state) => Ok(Admitted { limit: self.quota.burst, remaining: state.remaining_burst_capacity() }),
            Err(refused) => {
                Err(Refusal { limit: self.quota.burst, retry_after: refused.wait_time_from(self.clock.now()) })
            }
        }
    }

    /// Keys that are kept apart now.
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().map_or(0, |shard| shard.cells.len())).sum()
    }
}

fn cell(gcra: Gcra, clock: &FakeRelativeClock) -> Cell {
    RateLimiter::direct_with_clock(gcra, clock.clone()).with_middleware::<StateInformationMiddleware>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_bucket_empties_and_refills_with_its_clock() {
        let quota = Quota { requests: 10, per: Duration::from_secs(1), burst: 2 };
        let bucket = Bucket::new(quota).unwrap();
        assert_eq!(bucket.take(ms(0)), Ok(Admitted { limit: 2, remaining: 1 }));
        assert_eq!(bucket.take(ms(0)), Ok(Admitted { limit: 2, remaining: 0 }));
        assert_eq!(bucket.take(ms(0)), Err(Refusal { limit: 2, retry_after: ms(100) }));
        assert_eq!(bucket.take(ms(100)), Ok(Admitted { limit: 2, remaining: 0 }));
    }

    #[test]
    fn keys_do_not_share_and_are_bounded() {
        let quota = Quota { requests: 1, per: Duration::from_secs(60), burst: 1 };
        let bucket = Bucket::new(quota).unwrap();
        assert!(bucket.take_for("a", ms(0)).is_ok());
        assert!(bucket.take_for("a", ms(0)).is_err());
        assert!(bucket.take_for("b", ms(0)).is_ok());
        for key in 0..KEYS_MAX * 2 {
            let _ = bucket.take_for(key, ms(1));
        }
        assert!(bucket.keys() <= KEYS_MAX + SHARDS, "{} keys", bucket.keys());
    }
}
