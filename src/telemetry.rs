//! Every metric's name and labels, and the set-up of logs. Handles are resolved when a table is built; nothing is
//! looked up per request.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Requests by route and outcome.
pub const REQUESTS: &str = "tidegate_requests_total";
/// Seconds from head to last byte (unary) or first chunk (streams), by route.
pub const DURATION: &str = "tidegate_request_duration_seconds";
/// Requests in flight, by route.
pub const IN_FLIGHT: &str = "tidegate_requests_in_flight";
/// Streams open, by route.
pub const STREAMS: &str = "tidegate_streams_open";
/// Streams ended, by route and ending.
pub const STREAM_ENDS: &str = "tidegate_stream_ends_total";
/// Chunks sent to clients.
pub const CHUNKS: &str = "tidegate_stream_chunks_total";
/// Requests whose path or verb no route has.
pub const UNROUTED: &str = "tidegate_unrouted_requests_total";
/// Connections closed for a broken limit, by limit.
pub const CONNECTION_LIMITS: &str = "tidegate_connection_limits_total";
/// 1 while the last reload was refused.
pub const RELOAD_STALE: &str = "tidegate_reload_stale";
/// Reloads by outcome.
pub const RELOADS: &str = "tidegate_reloads_total";
/// Events that durable consumers handled, by consumer and outcome (`done`, `again`, `dead_letter`, `unanswered`).
pub const EVENTS_HANDLED: &str = "tidegate_events_handled_total";
/// 1 while the last reload of the service settings was refused.
pub const SETTINGS_STALE: &str = "tidegate_settings_stale";
/// Reloads of the service settings by outcome.
pub const SETTINGS_RELOADS: &str = "tidegate_settings_reloads_total";

/// Events of operations without a record that no log took, by service.
pub const EVENTS_DROPPED: &str = "tidegate_events_dropped_total";

/// Parts harvested, by quality and by the player's path.
pub const BROKER_PARTS: &str = "tidegate_broker_parts_total";
/// Negotiations by outcome; alarm where those above `poor` fall below half.
pub const BROKER_NEGOTIATIONS: &str = "tidegate_broker_negotiations_total";
/// Units paid in completed deals, by drug.
pub const BROKER_DRUG_UNITS: &str = "tidegate_broker_drug_units_total";
/// Reputation after completed deals, by the family's drug.
pub const BROKER_REPUTATION: &str = "tidegate_broker_reputation";

/// Buckets of durations in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// How a request ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Ok,
    /// The client's mistake.
    Client,
    /// Refused by a limit.
    Limited,
    /// The worker's or the bus's error.
    Upstream,
    /// Ours.
    Internal,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Ok, "ok"),
    (Outcome::Client, "client_error"),
    (Outcome::Limited, "limited"),
    (Outcome::Upstream, "upstream_error"),
    (Outcome::Internal, "internal_error"),
];

/// The handles of one route.
pub struct RouteMetrics {
    requests: [Counter; 5],
    duration: Histogram,
    /// Requests in flight.
    pub in_flight: Gauge,
    /// Streams open.
    pub streams: Gauge,
    /// Chunks sent.
    pub chunks: Counter,
}

impl std::fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RouteMetrics")
    }
}

impl RouteMetrics {
    /// Handles for a route; the label is its template, never a path that a client sent.
    pub fn new(verb: &str, template: &str) -> RouteMetrics {
        let route = format!("{verb} {template}");
        RouteMetrics {
            requests: OUTCOMES
                .map(|(_, outcome)| metrics::counter!(REQUESTS, "route" => route.clone(), "outcome" => outcome)),
            duration: metrics::histogram!(DURATION, "route" => route.clone()),
            in_flight: metrics::gauge!(IN_FLIGHT, "route" => route.clone()),
            streams: metrics::gauge!(STREAMS, "route" => route.clone()),
            chunks: metrics::counter!(CHUNKS, "route" => route),
        }
    }

    /// Counts a request that has ended.
    pub fn ended(&self, outcome: Outcome, took: Duration) {
        self.requests[outcome as usize].increment(1);
        self.duration.record(took.as_secs_f64());
    }
}

/// Where the metrics are read; installed once a process.
pub fn install_metrics() -> Option<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS);
    builder.ok()?.install_recorder().ok()
}

/// Sets up logs on standard error: text on a terminal, JSON lines elsewhere. `filter` is in tracing's syntax.
pub fn install_logs(filter: &str, is_json: bool) {
    let filter =
        tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second installation, as tests make, is no fault.
    let _ = if is_json { logs.json().try_init() } else { logs.with_target(false).try_init() };
}
