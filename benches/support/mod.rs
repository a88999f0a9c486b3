//! Paired measuring: two things in turn, A B A B …, and the ratio of each pair. The machine's speed drifts; a ratio
//! within one pair does not.
//!
//! Run by `cargo bench`; without `--bench` among the arguments (`cargo test --benches`) every case runs once, so that
//! its outputs are compared with the oracle but nothing is timed.

#![allow(dead_code, reason = "each bench uses its part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Pairs a case, at least 15 as the project's rule says.
pub const PAIRS: usize = 21;
/// Length of one measured run.
const RUN: Duration = Duration::from_millis(40);
const BOOTSTRAP_ROUNDS: usize = 2_000;

/// True where times are wanted.
pub fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A ratio with its 95 % interval.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2}x [{:.2}, {:.2}]", self.median, self.low, self.high)
    }
}

/// How many times longer `other` takes than `ours`: the median over interleaved pairs with its bootstrap interval.
pub fn times_faster(mut ours: impl FnMut(), mut other: impl FnMut()) -> Ratio {
    let (ours_rounds, other_rounds) = (rounds_of(&mut ours), rounds_of(&mut other));
    let ratios = (0..PAIRS)
        .map(|_| {
            let a = nanos_each(&mut ours, ours_rounds);
            let b = nanos_each(&mut other, other_rounds);
            b / a
        })
        .collect();
    ratio_of(ratios)
}

/// Nanoseconds of one call, the median of several runs; for the absolute column of a report, never for a verdict.
pub fn nanos(mut body: impl FnMut()) -> f64 {
    let rounds = rounds_of(&mut body);
    let mut runs: Vec<f64> = (0..7).map(|_| nanos_each(&mut body, rounds)).collect();
    median(&mut runs)
}

/// Median and 95 % bootstrap interval of a sample.
pub fn ratio_of(mut sample: Vec<f64>) -> Ratio {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut medians: Vec<f64> = (0..BOOTSTRAP_ROUNDS)
        .map(|_| {
            let mut drawn: Vec<f64> = (0..sample.len()).map(|_| sample[next() % sample.len()]).collect();
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((BOOTSTRAP_ROUNDS - 1) as f64 * share) as usize];
    Ratio { low: at(0.025), median: median(&mut sample), high: at(0.975) }
}

fn median(sample: &mut [f64]) -> f64 {
    sample.sort_by(f64::total_cmp);
    let middle = sample.len() / 2;
    if sample.len() % 2 == 1 { sample[middle] } else { (sample[middle - 1] + sample[middle]) / 2.0 }
}

fn rounds_of(body: &mut impl FnMut()) -> u32 {
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < RUN {
        body();
        rounds += 1;
    }
    rounds.max(1)
}

fn nanos_each(body: &mut impl FnMut(), rounds: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..rounds {
        body();
        black_box(());
    }
    start.elapsed().as_nanos() as f64 / f64::from(rounds)
}
