//! Exemplars: beside each bucket of a route's latencies the trace of a request that fell into it (OpenMetrics 1.0). The
//! exporter prints Prometheus' older text form, which has no place for them; its text is turned into OpenMetrics here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{BUCKETS, DURATION};

/// A request that fell into a bucket.
#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace: u128,
    seconds: f64,
    /// Seconds since 1970.
    at: f64,
}

/// The newest exemplar of each bucket of one route, the one without an upper bound last.
#[derive(Debug, Default)]
pub(super) struct Exemplars([Mutex<Option<Exemplar>>; BUCKETS.len() + 1]);

/// Exemplars by the route's label; as many as there have been routes, as the exporter's own figures.
static BY_ROUTE: RwLock<Option<HashMap<String, Arc<Exemplars>>>> = RwLock::new(None);

impl Exemplars {
    /// Those of a route.
    pub(super) fn of(route: &str) -> Arc<Exemplars> {
        let mut all = BY_ROUTE.write().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default().entry(route.to_owned()).or_default().clone()
    }

    /// Keeps a request whose trace is written down.
    pub(super) fn keep(&self, trace: u128, seconds: f64, at: f64) {
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        *self.0[bucket].lock().unwrap_or_else(PoisonError::into_inner) = Some(Exemplar { trace, seconds, at });
    }

    fn of_bound(&self, bound: &str) -> Option<Exemplar> {
        let bucket = match bound {
            "+Inf" => BUCKETS.len(),
            bound => BUCKETS.iter().position(|own| bound.parse() == Ok(*own))?,
        };
        *self.0[bucket].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prometheus' text form 0.0.4 as OpenMetrics 1.0, with the exemplars of routes' latencies.
pub fn openmetrics(text: &str) -> String {
    let all = BY_ROUTE.read().unwrap_or_else(PoisonError::into_inner);
    let mut out = String::with_capacity(text.len() + 1024);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            // The family of a counter has no `_total`; one whose samples do not end so is of no known kind here.
            Some((name, "counter")) => match name.strip_suffix("_total") {
                Some(family) => out.extend(["# TYPE ", family, " counter"]),
                None => out.extend(["# TYPE ", name, " unknown"]),
            },
            Some(_) => out.push_str(line),
            None => match line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                Some((name, help)) => {
                    out.extend(["# HELP ", name.strip_suffix("_total").unwrap_or(name), " ", help]);
                }
                None => out.push_str(line),
            },
        }
        let exemplar = line.strip_prefix(DURATION).and_then(|rest| rest.strip_prefix("_bucket{"));
        if let Some(Exemplar { trace, seconds, at }) = exemplar.and_then(|labels| find(all.as_ref()?, labels)) {
            // Writing into a text does not fail.
            let _ = write!(out, " # {{trace_id=\"{trace:032x}\"}} {seconds} {at:.3}");
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// The exemplar of a sample with these labels.
fn find(all: &HashMap<String, Arc<Exemplars>>, labels: &str) -> Option<Exemplar> {
    let value = |name: &str| {
        let from = labels.find(&format!("{name}=\""))? + name.len() + 2;
        Some(&labels[from..from + labels[from..].find('"')?])
    };
    all.get(value("route")?)?.of_bound(value("le")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_newest_trace_of_their_bucket_and_counters_their_family() {
        let exemplars = Exemplars::of("GET /exemplars/{a}");
        exemplars.keep(1, 0.0009, 100.0);
        exemplars.keep(0xabc, 0.0007, 1_700_000_000.25);
        exemplars.keep(2, 99.0, 200.0);
        let text = r#"# HELP tidegate_requests_total Requests.
# TYPE tidegate_requests_total counter
tidegate_requests_total{route="GET /exemplars/{a}",outcome="ok"} 3

# TYPE tidegate_request_duration_seconds histogram
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a}",le="0.0005"} 0
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a}",le="0.001"} 2
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a}",le="+Inf"} 3
tidegate_request_duration_seconds_bucket{route="GET /other",le="+Inf"} 1

# TYPE strange counter
strange 1
"#;
        let expected = r#"# HELP tidegate_requests Requests.
# TYPE tidegate_requests counter
tidegate_requests_total{route="GET /exemplars/{a}",outcome="ok"} 3
# TYPE tidegate_request_duration_seconds histogram
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a}",le="0.0005"} 0
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a}",le="0.001"} 2 # {trace_id="00000000000000000000000000000abc"} 0.0007 1700000000.250
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a}",le="+Inf"} 3 # {trace_id="00000000000000000000000000000002"} 99 200.000
tidegate_request_duration_seconds_bucket{route="GET /other",le="+Inf"} 1
# TYPE strange unknown
strange 1
# EOF
"#;
        assert_eq!(openmetrics(text), expected);
    }
}
