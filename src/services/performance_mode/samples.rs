//! Samples of players' machines: what a window of them comes to, and which mode fits.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::presets::{BUDGETS, MODES};
use crate::fault::Fault;
use crate::services::checks::{figures, out_of_range};
use crate::services::numbers::comparable;

/// Samples that are kept of a player.
const RING_MAX: usize = 360;
/// Bytes of all of them: a record is one message, and is written with each sample.
const RING_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a sample without figures of its own, and of such a figure without its name, at most.
const SAMPLE_BYTES: usize = 400;
const FIGURE_BYTES: usize = 32;
/// Age at which a sample counts no more.
const AGE_MAX_MS: i64 = 3_600 * 1_000;
/// Share of a budget from which on it is warned of.
const WARNING: f64 = 0.8;

/// `performance_mode.v1.PerformanceMetrics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Metrics {
    avg_fps: f64,
    min_fps: f64,
    max_fps: f64,
    avg_frame_time_ms: f64,
    frame_drops: i32,
    cpu_usage: f64,
    gpu_usage: f64,
    memory_mb: i64,
    pub(super) custom_metrics: BTreeMap<String, f64>,
}

/// The samples of a player, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ring(VecDeque<Sample>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sample {
    at_ms: i64,
    frames: i32,
    metrics: Metrics,
}

/// A budget in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) value: i32,
    pub(super) is_strict: bool,
}

/// The budgets in force, in the order of [`BUDGETS`].
pub(super) type Budgets = [Budget; 4];

impl Metrics {
    /// Refuses a sample with figures that no machine has.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let fields = [
            ("avg_fps", self.avg_fps, 1_000.0),
            ("min_fps", self.min_fps, 1_000.0),
            ("max_fps", self.max_fps, 1_000.0),
            ("avg_frame_time_ms", self.avg_frame_time_ms, 1_000.0),
            ("cpu_usage", self.cpu_usage, 1.0),
            ("gpu_usage", self.gpu_usage, 1.0),
        ];
        for (name, value, max) in fields {
            if !(0.0..=max).contains(&value) {
                return Err(out_of_range(&format!("sample.{name}"), 0, max));
            }
        }
        if self.frame_drops < 0 || self.memory_mb < 0 {
            let name = if self.frame_drops < 0 { "frame_drops" } else { "memory_mb" };
            return Err(out_of_range(&format!("sample.{name}"), 0, i32::MAX));
        }
        figures("sample.custom_metrics", &self.custom_metrics)
    }

    /// Bytes that it takes in a record, at most.
    fn bytes(&self) -> usize {
        let letter = |letter: char| match letter {
            letter if letter.is_control() => "\\u0000".len(),
            '"' | '\\' => 2,
            letter => letter.len_utf8(),
        };
        let figure = |name: &String| name.chars().map(letter).sum::<usize>() + FIGURE_BYTES;
        SAMPLE_BYTES + self.custom_metrics.keys().map(figure).sum::<usize>()
    }

    /// The figures as budgets measure them: µs, MB, percent, percent.
    fn measured(&self) -> [f64; 4] {
        [self.avg_frame_time_ms * 1_000.0, self.memory_mb as f64, self.cpu_usage * 100.0, self.gpu_usage * 100.0]
    }

    fn violations(&self, budgets: &Budgets) -> usize {
        self.measured()
            .iter()
            .zip(budgets)
            .filter(|(value, budget)| comparable(**value) > f64::from(budget.value))
            .count()
    }
}

impl Ring {
    /// The ring with one more sample.
    pub(super) fn with(mut self, now_ms: i64, frames: i32, metrics: Metrics) -> Ring {
        self.0.push_back(Sample { at_ms: now_ms, frames: frames.max(1), metrics });
        let mut bytes: usize = self.0.iter().map(|sample| sample.metrics.bytes()).sum();
        while let Some(oldest) = self.0.front()
            && (self.0.len() > RING_MAX || bytes > RING_BYTES_MAX || oldest.at_ms < now_ms - AGE_MAX_MS)
        {
            bytes -= oldest.metrics.bytes();
            self.0.pop_front();
        }
        self
    }

    /// The samples behind `from_ms` up to `to_ms`.
    pub(super) fn window(&self, from_ms: i64, to_ms: i64) -> Window<'_> {
        Window(self.0.iter().filter(|sample| sample.at_ms > from_ms && sample.at_ms <= to_ms).collect())
    }
}

/// Some samples in a row.
pub(super) struct Window<'r>(Vec<&'r Sample>);

impl Window<'_> {
    /// The figures of all of them; nothing but `samples` where there are none.
    pub(super) fn metrics(&self, budgets: &Budgets) -> Metrics {
        let samples = &self.0;
        let mut metrics = Metrics::default();
        metrics.custom_metrics.insert("samples".to_owned(), samples.len() as f64);
        if samples.is_empty() {
            return metrics;
        }
        let frames: f64 = samples.iter().map(|sample| f64::from(sample.frames)).sum();
        let weighted = |figure: fn(&Metrics) -> f64| {
            comparable(
                samples.iter().map(|sample| figure(&sample.metrics) * f64::from(sample.frames)).sum::<f64>() / frames,
            )
        };
        let mean = |figure: fn(&Metrics) -> f64| {
            comparable(samples.iter().map(|sample| figure(&sample.metrics)).sum::<f64>() / samples.len() as f64)
        };
        let all = || samples.iter().map(|sample| &sample.metrics);
        metrics.avg_fps = weighted(|metrics| metrics.avg_fps);
        metrics.avg_frame_time_ms = weighted(|metrics| metrics.avg_frame_time_ms);
        metrics.min_fps = all().map(|metrics| metrics.min_fps).fold(f64::INFINITY, f64::min);
        metrics.max_fps = all().map(|metrics| metrics.max_fps).fold(0.0, f64::max);
        metrics.frame_drops = all().fold(0, |sum: i32, metrics| sum.saturating_add(metrics.frame_drops));
        metrics.cpu_usage = mean(|metrics| metrics.cpu_usage);
        metrics.gpu_usage = mean(|metrics| metrics.gpu_usage);
        metrics.memory_mb = all().map(|metrics| metrics.memory_mb).max().unwrap_or(0);
        let mut times: Vec<f64> = all().map(|metrics| metrics.avg_frame_time_ms).collect();
        times.sort_by(f64::total_cmp);
        let p95 = times[(times.len() * 95).div_ceil(100) - 1];
        let violations: usize = all().map(|metrics| metrics.violations(budgets)).sum();
        self.own_means(&mut metrics.custom_metrics);
        metrics.custom_metrics.insert("p95_frame_time_ms".to_owned(), p95);
        metrics.custom_metrics.insert("budget_violations".to_owned(), violations as f64);
        for ((kind, budget), value) in BUDGETS.iter().zip(budgets).zip(metrics.measured()) {
            if comparable(value) >= comparable(WARNING * f64::from(budget.value)) {
                metrics.custom_metrics.insert(format!("warn.{}", kind.name), 1.0);
            }
        }
        metrics
    }

    /// Means of the figures that samples bring themselves.
    fn own_means(&self, into: &mut BTreeMap<String, f64>) {
        let mut sums: BTreeMap<&String, (f64, f64)> = BTreeMap::new();
        for (name, value) in self.0.iter().flat_map(|sample| &sample.metrics.custom_metrics) {
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + value, sum.1 + 1.0);
        }
        into.extend(sums.into_iter().map(|(name, (sum, count))| (name.clone(), comparable(sum / count))));
    }

    /// The mode that fits these samples, one step at a time; nothing without samples.
    pub(super) fn recommended(&self, mode: usize, target_fps: i32, budgets: &Budgets) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let share = comparable(self.metrics(budgets).avg_fps / f64::from(target_fps));
        Some(match share {
            share if share < 0.7 => mode.saturating_sub(1),
            share if share > 1.3 => (mode + 1).min(MODES.len() - 1),
            _ => mode,
        })
    }

    /// True where the samples are over a strict budget on average.
    pub(super) fn exceeds_strictly(&self, budgets: &Budgets) -> bool {
        if self.0.is_empty() {
            return false;
        }
        // Metrics show the most memory of a window; a budget holds for the average.
        let memory = self.0.iter().map(|sample| sample.metrics.memory_mb as f64).sum::<f64>() / self.0.len() as f64;
        let [time, _, cpu, gpu] = self.metrics(budgets).measured();
        let measured = [time, memory, cpu, gpu];
        let over = |(value, budget): (&f64, &Budget)| budget.is_strict && comparable(*value) > f64::from(budget.value);
        measured.iter().zip(budgets).any(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_figures(count: usize, value: f64) -> Metrics {
        // Names of the longest kind in a record.
        let custom_metrics = (0..count).map(|index| (format!("{index:02}{}", "\u{1}".repeat(62)), value)).collect();
        Metrics { custom_metrics, ..Metrics::default() }
    }

    #[test]
    fn figures_of_ones_own_are_few_and_finite() {
        let reason = |metrics: &Metrics| metrics.check().err().map(|fault| fault.details()[1].1.to_string());
        assert_eq!(reason(&with_figures(64, 1.0)), None);
        assert_eq!(reason(&with_figures(65, 1.0)).as_deref(), Some("too_many"));
        for value in [f64::NAN, f64::INFINITY] {
            assert_eq!(reason(&with_figures(1, value)).as_deref(), Some("out_of_range"));
        }
        let long = Metrics { custom_metrics: BTreeMap::from([("x".repeat(65), 1.0)]), ..Metrics::default() };
        assert_eq!(reason(&long).as_deref(), Some("too_long"));
    }

    #[test]
    fn memory_is_over_a_strict_budget_on_average() {
        let budgets = BUDGETS.map(|kind| Budget { value: kind.default(false), is_strict: kind.name == "memory" });
        let exceeds = |figures: [i64; 2]| {
            let with = |ring: Ring, memory_mb| ring.with(1_000, 60, Metrics { memory_mb, ..Metrics::default() });
            figures.into_iter().fold(Ring::default(), with).window(0, 1_000).exceeds_strictly(&budgets)
        };
        assert!(!exceeds([7_000, 9_000]));
        assert!(exceeds([8_000, 9_000]));
    }

    #[test]
    fn a_ring_keeps_the_newest_samples_as_far_as_they_fit_into_a_record() {
        let filled = |metrics: &Metrics| {
            (0..1_000).fold(Ring::default(), |ring, second| ring.with(second * 1_000, 60, metrics.clone()))
        };
        assert_eq!(filled(&Metrics::default()).0.len(), RING_MAX);
        let large = filled(&with_figures(64, -f64::MAX / 3.0));
        let bytes = serde_json::to_vec(&large).map_or(usize::MAX, |json| json.len());
        assert!(bytes <= RING_BYTES_MAX && large.0.len() > 10, "{bytes} bytes, {} samples", large.0.len());
        assert_eq!(large.0.back().map(|sample| sample.at_ms), Some(999_000));
    }
}
