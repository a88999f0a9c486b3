//! Presets by which models and services are ranked.

use super::checks::unknown_value;
use crate::fault::Fault;

/// A preset and its weights of performance, cost, latency and availability.
const PRIORITIES: [(&str, [f64; 4]); 4] = [
    ("balanced", [0.40, 0.25, 0.20, 0.15]),
    ("performance", [0.60, 0.15, 0.15, 0.10]),
    ("cost", [0.25, 0.50, 0.15, 0.10]),
    ("latency", [0.25, 0.15, 0.50, 0.10]),
];

/// The weights of a preset, balanced where none is named. `field` is where its name stands in the request.
pub(super) fn weights(field: &str, priority: &str) -> Result<[f64; 4], Fault> {
    let priority = if priority.is_empty() { "balanced" } else { priority };
    let found = PRIORITIES.iter().find(|row| row.0.eq_ignore_ascii_case(priority));
    found
        .map(|row| row.1)
        .ok_or_else(|| unknown_value(field, format!("unknown priority {priority}"), &PRIORITIES.map(|row| row.0)))
}
