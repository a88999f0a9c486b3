//! What has happened on each route so far, read out of the metrics as Prometheus would get them: one count, two readers,
//! and nothing more to do for a request.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::telemetry::{self, Sample};

/// What a route has counted since the process began.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct RouteFigures {
    /// Requests by outcome.
    pub(super) requests: BTreeMap<String, u64>,
    /// Requests in flight.
    pub(super) in_flight: u64,
    /// Streams open.
    pub(super) streams: u64,
    /// Events sent on streams.
    pub(super) chunks: u64,
    /// Upper bounds in seconds, and how many requests took no longer.
    pub(super) buckets: Vec<(f64, u64)>,
    /// Requests that were timed.
    pub(super) timed: u64,
    /// Seconds of all of them.
    pub(super) seconds: f64,
}

/// Figures by route, `VERB /template`, of a text in Prometheus' exposition format.
pub(super) fn by_route(text: &str) -> BTreeMap<String, RouteFigures> {
    let mut routes: BTreeMap<String, RouteFigures> = BTreeMap::new();
    for sample in text.lines().filter_map(Sample::read) {
        let Some(route) = sample.label("route") else { continue };
        let figures = routes.entry(route.to_owned()).or_default();
        let count = sample.value.max(0.0) as u64;
        match sample.name {
            telemetry::REQUESTS => {
                figures.requests.insert(sample.label("outcome").unwrap_or_default().to_owned(), count);
            }
            telemetry::IN_FLIGHT => figures.in_flight = count,
            telemetry::STREAMS => figures.streams = count,
            telemetry::CHUNKS => figures.chunks = count,
            name => match name.strip_prefix(telemetry::DURATION) {
                Some("_bucket") => {
                    if let Some(bound) = sample.label("le").and_then(|bound| bound.parse::<f64>().ok())
                        && bound.is_finite()
                    {
                        figures.buckets.push((bound, count));
                    }
                }
                Some("_count") => figures.timed = count,
                Some("_sum") => figures.seconds = sample.value,
                _ => {}
            },
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_metrics() {
        let text = r#"# TYPE tidegate_requests_total counter
tidegate_requests_total{route="GET /v1/{name=a/\"b\"}",outcome="ok"} 7
tidegate_requests_total{route="GET /v1/{name=a/\"b\"}",outcome="limited"} 2
tidegate_requests_in_flight{route="GET /v1/{name=a/\"b\"}"} 1
tidegate_request_duration_seconds_bucket{route="GET /v1/{name=a/\"b\"}",le="0.001"} 4 # {trace_id="x"} 0.0005
tidegate_request_duration_seconds_bucket{route="GET /v1/{name=a/\"b\"}",le="+Inf"} 9
tidegate_request_duration_seconds_sum{route="GET /v1/{name=a/\"b\"}"} 0.25
tidegate_request_duration_seconds_count{route="GET /v1/{name=a/\"b\"}"} 9
tidegate_streams_open{route="POST /v1/s"} 3
tidegate_stream_chunks_total{route="POST /v1/s"} 12
tidegate_bus_connected 1
tidegate_broken{route="GET
"#;
        let routes = by_route(text);
        let expected = RouteFigures {
            requests: BTreeMap::from([("limited".to_owned(), 2), ("ok".to_owned(), 7)]),
            in_flight: 1,
            buckets: vec![(0.001, 4)],
            timed: 9,
            seconds: 0.25,
            ..RouteFigures::default()
        };
        assert_eq!(routes["GET /v1/{name=a/\"b\"}"], expected);
        let expected = RouteFigures { streams: 3, chunks: 12, ..RouteFigures::default() };
        assert_eq!(routes["POST /v1/s"], expected);
        assert_eq!(routes.len(), 2);
    }
}
