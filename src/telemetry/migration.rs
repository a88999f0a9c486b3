//! The metrics of a route that moves from an old system to its workers.

use metrics::{Counter, Gauge};

use super::{MIGRATION_MOVES, MIGRATION_REQUESTS, MIGRATION_SHARE, OUTCOMES, Outcome, SHADOWS};

/// What became of a copy of a request, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowResult {
    /// Both answers mean the same.
    Same,
    /// They do not.
    Different,
    /// It was not answered.
    Failed,
    /// It was not sent, or there was nothing to compare it with.
    Dropped,
}

const RESULTS: [&str; 4] = ["same", "different", "failed", "dropped"];

/// The handles of one route.
pub struct MigrationMetrics {
    /// Old side, new side.
    requests: [[Counter; 5]; 2],
    share: Gauge,
    moves: [Counter; 2],
    shadows: [Counter; 4],
}

impl std::fmt::Debug for MigrationMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MigrationMetrics")
    }
}

impl MigrationMetrics {
    /// Handles for a route, `VERB /template`.
    pub fn new(route: &str) -> MigrationMetrics {
        let requests = |side: &'static str| {
            OUTCOMES.map(|(_, outcome)| {
                metrics::counter!(MIGRATION_REQUESTS, "route" => route.to_owned(), "side" => side, "outcome" => outcome)
            })
        };
        MigrationMetrics {
            requests: [requests("old"), requests("new")],
            share: metrics::gauge!(MIGRATION_SHARE, "route" => route.to_owned()),
            moves: ["down", "up"].map(
                |direction| metrics::counter!(MIGRATION_MOVES, "route" => route.to_owned(), "direction" => direction),
            ),
            shadows: RESULTS.map(|result| metrics::counter!(SHADOWS, "route" => route.to_owned(), "result" => result)),
        }
    }

    /// Counts a request that a side has answered.
    pub fn served(&self, is_new: bool, outcome: Outcome) {
        self.requests[usize::from(is_new)][outcome as usize].increment(1);
    }

    /// Counts a change of the share.
    pub fn moved(&self, is_up: bool) {
        self.moves[usize::from(is_up)].increment(1);
    }

    /// Counts a copy of a request.
    pub fn shadowed(&self, result: ShadowResult) {
        self.shadows[result as usize].increment(1);
    }

    /// Says which share is in force, in percent.
    pub fn share(&self, percent: f64) {
        self.share.set(percent);
    }
}
