//! How models rank: weighted parts between 0 and 1, by priority and kind of task, or by use case.

use std::collections::BTreeMap;

use super::Model;
use crate::fault::Fault;
use crate::services::checks::unknown_value;
use crate::services::numbers::comparable;
use crate::services::priorities::weights;

/// A kind of task, its latency threshold in milliseconds and its cost threshold per 1000 tokens.
const TASKS: [(&str, f64, f64); 4] = [
    ("interaction", 200.0, 0.001),
    ("customization", 500.0, 0.005),
    ("coordination", 2_000.0, 0.01),
    ("foundation", 100.0, 0.0001),
];
/// A tier and its performance, cost per 1000 tokens and latency in milliseconds.
const TIERS: [(&str, f64, f64, f64); 3] =
    [("gold", 0.85, 0.0005, 150.0), ("silver", 0.90, 0.002, 400.0), ("bronze", 0.95, 0.008, 1_500.0)];
/// A use case and its weights of performance, cost, latency and quality; the first row is for all others.
const USE_CASES: [(&str, [f64; 4]); 4] = [
    ("default", [0.30, 0.20, 0.20, 0.30]),
    ("story_generation", [0.30, 0.15, 0.15, 0.40]),
    ("npc_dialogue", [0.25, 0.15, 0.30, 0.30]),
    ("faction_decision", [0.35, 0.15, 0.20, 0.30]),
];
/// Latencies in milliseconds and what they are worth in a use case; slower ones are worth 0.2.
const LATENCIES: [(f64, f64); 4] = [(100.0, 1.0), (200.0, 0.8), (500.0, 0.6), (1_000.0, 0.4)];

const PERFORMANCE: f64 = 0.80;
const AVAILABILITY: f64 = 0.95;
/// A part of which nothing is known.
const UNKNOWN: f64 = 0.5;
/// The price at which a use case's cost is worth nothing.
const PRICE_MAX: f64 = 0.001;

/// A score, and what it is made of.
pub(super) struct Score {
    pub(super) score: f64,
    pub(super) parts: BTreeMap<String, f64>,
}

/// What models are ranked by.
pub(super) enum Ranking {
    ByTask { weights: [f64; 4], latency_ms: f64, cost: f64 },
    ByUseCase { weights: [f64; 4] },
}

impl Ranking {
    /// Reads a request: a use case, or else a priority and a kind of task.
    pub(super) fn read(use_case: &str, priority: &str, task_type: &str) -> Result<Ranking, Fault> {
        if !use_case.is_empty() {
            let row = USE_CASES.iter().find(|row| row.0.eq_ignore_ascii_case(use_case)).unwrap_or(&USE_CASES[0]);
            let sum: f64 = row.1.iter().sum();
            return Ok(Ranking::ByUseCase { weights: row.1.map(|weight| weight / sum) });
        }
        let weights = weights("priority", priority)?;
        let task_type = if task_type.is_empty() { "interaction" } else { task_type };
        let Some((_, latency_ms, cost)) = TASKS.iter().find(|row| row.0.eq_ignore_ascii_case(task_type)) else {
            return Err(unknown_value("task_type", format!("unknown task type {task_type}"), &TASKS.map(|row| row.0)));
        };
        Ok(Ranking::ByTask { weights, latency_ms: *latency_ms, cost: *cost })
    }

    /// A model's score. What its metadata records counts (`performance`, `availability`, `cost_per_1k`, `latency_ms`,
    /// `coherence`, `relevance`, `creativity`, `self_hosted`), else its tier's figures.
    pub(super) fn score(&self, model: &Model) -> Score {
        let recorded = |name: &str| -> Option<f64> { model.metadata.get(name).and_then(|text| text.parse().ok()) };
        let tier = model.metadata.get("tier").and_then(|tier| TIERS.iter().find(|row| row.0 == tier));
        let performance = recorded("performance").or(tier.map(|row| row.1)).unwrap_or(PERFORMANCE);
        let cost = recorded("cost_per_1k").or(tier.map(|row| row.2));
        let latency_ms = recorded("latency_ms").or(tier.map(|row| row.3));
        let below = |value: Option<f64>, max: f64| value.map_or(UNKNOWN, |value| (1.0 - value / max).clamp(0.0, 1.0));
        let (weights, names, parts) = match self {
            Ranking::ByTask { weights, latency_ms: slowest, cost: dearest } => {
                let availability = recorded("availability").unwrap_or(AVAILABILITY);
                let parts = [performance, below(cost, *dearest), below(latency_ms, *slowest), availability];
                (weights, ["performance", "cost", "latency", "availability"], parts)
            }
            Ranking::ByUseCase { weights } => {
                let is_free = cost == Some(0.0) || model.metadata.get("self_hosted").is_some_and(|text| text == "true");
                let cost = if is_free { 1.0 } else { below(cost, PRICE_MAX) };
                let latency = latency_ms.map_or(UNKNOWN, |latency_ms| {
                    LATENCIES.iter().find(|row| latency_ms < row.0).map_or(0.2, |row| row.1)
                });
                let quality = ["coherence", "relevance", "creativity"].map(|name| recorded(name).unwrap_or(UNKNOWN));
                let quality = quality.iter().sum::<f64>() / 3.0;
                (weights, ["performance", "cost", "latency", "quality"], [performance, cost, latency, quality])
            }
        };
        let score = weights.iter().zip(parts).map(|(weight, part)| weight * part).sum();
        let parts = names.iter().zip(parts).map(|(name, part)| ((*name).to_owned(), comparable(part))).collect();
        Score { score: comparable(score), parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_scores_hold() {
        let ranking = Ranking::read("", "balanced", "interaction").unwrap();
        let score = |tier: &str| {
            let metadata = [("tier".to_owned(), tier.to_owned())].into();
            ranking.score(&Model { metadata, ..Model::default() }).score
        };
        assert_eq!((score("gold"), score("silver")), (0.6575, 0.5025));
    }
}
