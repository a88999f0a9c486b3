//! Exemplars: beside each bucket of a route's latencies the trace of a request that fell into it (OpenMetrics 1.0). The
//! exporter prints Prometheus' older text form, which has no place for them; its text is turned into OpenMetrics here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use super::sample::Sample;
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

/// Exemplars by the route's label: those of the routes of all tables that are alive. Whoever holds a route holds its own.
static BY_ROUTE: RwLock<Option<HashMap<String, Weak<Exemplars>>>> = RwLock::new(None);

impl Exemplars {
    /// Those of a route.
    pub(super) fn of(route: &str) -> Arc<Exemplars> {
        let mut all = BY_ROUTE.write().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        if let Some(known) = all.get(route).and_then(Weak::upgrade) {
            return known;
        }
        // Those that are gone take up room until the map would grow.
        if all.len() == all.capacity() {
            all.retain(|_, exemplars| exemplars.strong_count() > 0);
        }
        let made = Arc::new(Exemplars::default());
        all.insert(route.to_owned(), Arc::downgrade(&made));
        made
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
        if line.starts_with(DURATION)
            && let Some(Exemplar { trace, seconds, at }) = all.as_ref().and_then(|all| find(all, &Sample::read(line)?))
        {
            // Writing into a text does not fail.
            let _ = write!(out, " # {{trace_id=\"{trace:032x}\"}} {seconds} {at:.3}");
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// The exemplar of a bucket.
fn find(all: &HashMap<String, Weak<Exemplars>>, sample: &Sample<'_>) -> Option<Exemplar> {
    sample.name.strip_suffix("_bucket")?;
    all.get(sample.label("route")?)?.upgrade()?.of_bound(sample.label("le")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_has_gone_leaves_nothing_behind() {
        let held = Exemplars::of("GET /stays");
        held.keep(7, 0.0001, 1.0);
        for route in 0..10_000 {
            drop(Exemplars::of(&format!("GET /goes/{route}")));
        }
        let all = BY_ROUTE.read().unwrap();
        assert!(all.as_ref().unwrap().len() < 100, "{}", all.as_ref().unwrap().len());
        drop(all);
        assert!(Exemplars::of("GET /stays").of_bound("0.0005").is_some());
    }

    #[test]
    fn latencies_have_the_newest_trace_of_their_bucket_and_counters_their_family() {
        let exemplars = Exemplars::of(r#"GET /exemplars/{a="b"}"#);
        exemplars.keep(1, 0.0009, 100.0);
        exemplars.keep(0xabc, 0.0007, 1_700_000_000.25);
        exemplars.keep(2, 99.0, 200.0);
        let text = r#"# HELP tidegate_requests_total Requests.
# TYPE tidegate_requests_total counter
tidegate_requests_total{route="GET /exemplars/{a=\"b\"}",outcome="ok"} 3

# TYPE tidegate_request_duration_seconds histogram
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a=\"b\"}",le="0.0005"} 0
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a=\"b\"}",le="0.001"} 2
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a=\"b\"}",le="+Inf"} 3
tidegate_request_duration_seconds_bucket{route="GET /other",le="+Inf"} 1

# TYPE strange counter
strange 1
"#;
        let expected = r#"# HELP tidegate_requests Requests.
# TYPE tidegate_requests counter
tidegate_requests_total{route="GET /exemplars/{a=\"b\"}",outcome="ok"} 3
# TYPE tidegate_request_duration_seconds histogram
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a=\"b\"}",le="0.0005"} 0
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a=\"b\"}",le="0.001"} 2 # {trace_id="00000000000000000000000000000abc"} 0.0007 1700000000.250
tidegate_request_duration_seconds_bucket{route="GET /exemplars/{a=\"b\"}",le="+Inf"} 3 # {trace_id="00000000000000000000000000000002"} 99 200.000
tidegate_request_duration_seconds_bucket{route="GET /other",le="+Inf"} 1
# TYPE strange unknown
strange 1
# EOF
"#;
        assert_eq!(openmetrics(text), expected);
    }
}
