//! Every metric's name and labels, the set-up of logs, and spans. Handles are resolved when a table is built; nothing is
//! looked up per request.

mod exemplars;
mod migration;
pub mod otlp;
mod sample;
pub mod trace;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use exemplars::Exemplars;
pub use exemplars::openmetrics;
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use migration::{MigrationMetrics, ShadowResult};
pub use sample::Sample;

/// Requests by route and outcome.
pub const REQUESTS: &str = "tidegate_requests_total";
/// Seconds from a request's head to its answer, of streams to their beginning, by route.
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
/// Unary requests over the bus by subject and outcome: the name that NATS dashboards know.
pub const BUS_REQUESTS: &str = "nats_client_requests_total";
/// Those of them that had no answer in time, by subject.
pub const BUS_TIMEOUTS: &str = "nats_client_request_timeouts_total";
/// Seconds until the reply was there, by subject.
pub const BUS_DURATION: &str = "nats_client_request_duration_seconds";
/// 1 while the breaker of a subject is open, by subject.
pub const BREAKER_OPEN: &str = "tidegate_breaker_open";
/// Requests over the bus that were made again, by subject.
pub const BUS_REPEATS: &str = "tidegate_bus_repeats_total";
/// Requests of a route that moves, by route, side (`old`, `new`) and outcome.
pub const MIGRATION_REQUESTS: &str = "tidegate_migration_requests_total";
/// Percent of the callers whom the new side serves, by route.
pub const MIGRATION_SHARE: &str = "tidegate_migration_share_percent";
/// Changes of that share, by route and direction (`up`, `down`).
pub const MIGRATION_MOVES: &str = "tidegate_migration_moves_total";
/// Copies of requests for the side that does not serve, by route and result (`same`, `different`, `failed`, `dropped`).
pub const SHADOWS: &str = "tidegate_shadow_total";
/// 1 while the bus can be used.
pub const BUS_CONNECTED: &str = "tidegate_bus_connected";
/// Connections to the bus made after the first.
pub const BUS_RECONNECTS: &str = "tidegate_bus_reconnects_total";
/// Requests that wait for a reply.
pub const BUS_PENDING: &str = "tidegate_bus_requests_pending";
/// Messages that a full subscription could not take.
pub const BUS_DROPPED: &str = "tidegate_bus_dropped_messages_total";
/// Replies that nobody waited for, or that answered another request.
pub const BUS_STRAYS: &str = "tidegate_bus_stray_replies_total";
/// 1, with the version as its label.
pub const BUILD: &str = "tidegate_build_info";
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

/// Reads of a worker's cache, by cache and origin (`local`, `store`, `joined`, `made`): all but `made` are hits.
pub const CACHE_READS: &str = "tidegate_cache_reads_total";
/// Reads, writes and drops that the shared tier of a cache did not answer, by cache.
pub const CACHE_FAILURES: &str = "tidegate_cache_failures_total";
/// Times that a handler kept its thread for more than 5 ms without a yield, by service and method; consumers and tasks
/// count under their own names.
pub const STALLS: &str = "tidegate_worker_stalls_total";
/// Events of operations without a record that no log took, by service.
pub const EVENTS_DROPPED: &str = "tidegate_events_dropped_total";

/// Seconds for which the oldest event of a committed change waits to be published, by bucket; 0 where none waits.
pub const PENDING_OLDEST: &str = "tidegate_pending_oldest_seconds";
/// Records that cannot be read, by bucket: each revision of a key once, and each time where more than 1,000 keys are such.
pub const RECORDS_UNREADABLE: &str = "tidegate_records_unreadable_total";
/// Dead letters that wait for somebody to look at them.
pub const DEAD_LETTERS: &str = "tidegate_dlq_messages";
/// Parts harvested, by quality and by the player's path.
pub const BROKER_PARTS: &str = "tidegate_broker_parts_total";
/// Negotiations by outcome; alarm where more than half are `failed` or `hostile`.
pub const BROKER_NEGOTIATIONS: &str = "tidegate_broker_negotiations_total";
/// Units paid in completed deals, by drug.
pub const BROKER_DRUG_UNITS: &str = "tidegate_broker_drug_units_total";
/// Reputation after completed deals, by the family's drug.
pub const BROKER_REPUTATION: &str = "tidegate_broker_reputation";

/// Spans that a collector has taken.
pub const SPANS_EXPORTED: &str = "tidegate_spans_exported_total";
/// Spans that were lost, by reason (`queue_full`, `refused`, `unreachable`).
pub const SPANS_DROPPED: &str = "tidegate_spans_dropped_total";
/// Lines that the access log could not take.
pub const ACCESS_DROPPED: &str = "tidegate_access_log_dropped_total";

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
    exemplars: Arc<Exemplars>,
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
            exemplars: Exemplars::of(&route),
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

    /// Keeps the trace of a request that took so long, where it is written down. `at` is the time since 1970.
    pub fn exemplar(&self, trace: u128, took: Duration, at: Duration) {
        self.exemplars.keep(trace, took.as_secs_f64(), at.as_secs_f64());
    }
}

/// How a request over the bus ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusOutcome {
    /// A reply came, whatever it says.
    Ok,
    /// Nobody answers on the subject.
    NoResponders,
    /// No reply in time.
    Timeout,
    /// Not connected, or refused by the bus.
    Failed,
}

const BUS_OUTCOMES: [(BusOutcome, &str); 4] = [
    (BusOutcome::Ok, "ok"),
    (BusOutcome::NoResponders, "no_responders"),
    (BusOutcome::Timeout, "timeout"),
    (BusOutcome::Failed, "failed"),
];

/// The handles of one subject.
pub struct SubjectMetrics {
    requests: [Counter; 4],
    timeouts: Counter,
    duration: Histogram,
}

impl std::fmt::Debug for SubjectMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectMetrics")
    }
}

impl SubjectMetrics {
    /// Handles for a subject of the tables.
    pub fn new(subject: &str) -> SubjectMetrics {
        let subject = subject.to_owned();
        SubjectMetrics {
            requests: BUS_OUTCOMES.map(
                |(_, outcome)| metrics::counter!(BUS_REQUESTS, "subject" => subject.clone(), "outcome" => outcome),
            ),
            timeouts: metrics::counter!(BUS_TIMEOUTS, "subject" => subject.clone()),
            duration: metrics::histogram!(BUS_DURATION, "subject" => subject),
        }
    }

    /// For what nobody asks over the bus: counts nothing.
    pub fn none() -> SubjectMetrics {
        SubjectMetrics {
            requests: BUS_OUTCOMES.map(|_| Counter::noop()),
            timeouts: Counter::noop(),
            duration: Histogram::noop(),
        }
    }

    /// Counts a request that has ended. Only replies have a duration: a time-out's says what the caller allowed.
    pub fn ended(&self, outcome: BusOutcome, took: Duration) {
        self.requests[outcome as usize].increment(1);
        match outcome {
            BusOutcome::Ok => self.duration.record(took.as_secs_f64()),
            BusOutcome::Timeout => self.timeouts.increment(1),
            BusOutcome::NoResponders | BusOutcome::Failed => {}
        }
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
