//! Paired measuring: two things in turn, A B B A, B A A B …, and the ratio of each pair. The machine's speed drifts; a
//! ratio within one pair does not. What counts is the CPU time of the measuring thread, so that what else runs on the
//! machine takes nothing from either side but its caches; the wall clock's ratio is shown beside it.
//!
//! Run by `cargo bench`; without `--bench` among the arguments (`cargo test --benches`) every case runs once, so that
//! its outputs are compared with the oracle but nothing is timed.

#[path = "load.rs"]
pub mod load;
#[path = "process.rs"]
pub mod process;
#[path = "report.rs"]
pub mod report;
#[path = "service.rs"]
pub mod service;

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

pub use report::{Goal, Report};

/// Pairs a case, at least 15 as the project's rule says.
pub const PAIRS: usize = 21;
/// CPU time of one measured run; each side of a pair has two.
const RUN: Duration = Duration::from_millis(10);
/// The longest a run is measured for while its length is sought.
const TRIAL: Duration = Duration::from_millis(5);
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

/// How long something took.
#[derive(Clone, Copy, Default)]
struct Took {
    cpu: Duration,
    wall: Duration,
}

impl std::ops::Add for Took {
    type Output = Took;

    fn add(self, other: Took) -> Took {
        Took { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

/// How many times longer `other` takes than `ours`: the median over interleaved pairs with its bootstrap interval, by CPU
/// time; and the median by the wall clock.
pub fn times_faster(mut ours: impl FnMut(), mut other: impl FnMut()) -> (Ratio, f64) {
    let (ours_rounds, other_rounds) = (rounds_of(&mut ours), rounds_of(&mut other));
    let (mut by_cpu, mut by_wall) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let (mut a, mut b) = (Took::default(), Took::default());
        // Each side goes first as often as the other, and both have the same middle.
        for is_ours_next in if pair % 2 == 0 { [true, false, false, true] } else { [false, true, true, false] } {
            if is_ours_next {
                a = a + run(&mut ours, ours_rounds);
            } else {
                b = b + run(&mut other, other_rounds);
            }
        }
        let ratio = |a: Duration, b: Duration| {
            (b.as_secs_f64() / f64::from(other_rounds)) / (a.as_secs_f64() / f64::from(ours_rounds))
        };
        by_cpu.push(ratio(a.cpu, b.cpu));
        by_wall.push(ratio(a.wall, b.wall));
    }
    (ratio_of(by_cpu), median(&mut by_wall))
}

/// Nanoseconds of CPU time of one call, the median of several runs; for the absolute column of a report, never for a
/// verdict.
pub fn nanos(mut body: impl FnMut()) -> f64 {
    let rounds = rounds_of(&mut body);
    let mut runs: Vec<f64> =
        (0..7).map(|_| run(&mut body, rounds).cpu.as_secs_f64() * 1e9 / f64::from(rounds)).collect();
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

/// How many rounds take [`RUN`]: doubled until they can be measured, so that the clock is no part of what is measured and
/// both sides of a pair get equally long runs.
fn rounds_of(body: &mut impl FnMut()) -> u32 {
    let mut rounds = 1;
    loop {
        let took = run(body, rounds).cpu;
        if took >= TRIAL || rounds >= 1 << 30 {
            return (f64::from(rounds) * RUN.as_secs_f64() / took.as_secs_f64().max(1e-9)).max(1.0) as u32;
        }
        rounds *= 2;
    }
}

fn run(body: &mut impl FnMut(), rounds: u32) -> Took {
    let (cpu, wall) = (thread_cpu(), Instant::now());
    for _ in 0..rounds {
        body();
        black_box(());
    }
    Took { cpu: thread_cpu() - cpu, wall: wall.elapsed() }
}

/// CPU time of this thread so far.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
