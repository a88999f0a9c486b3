//! W3C Trace Context: a client's `traceparent` is passed on with a span of ours, or a new trace begins.

use http::{HeaderMap, HeaderName};

use crate::snapshot::Method;
use crate::telemetry::trace::{Position, Span, SpanKind, Traceparent, Tracer, tracer};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on (the recommendation's minimum).
const STATE_MAX: usize = 512;
/// Where `00-{trace}-{span}-{flags}` has its parts.
const TRACE: std::ops::Range<usize> = 3..35;
const SPAN: std::ops::Range<usize> = 36..52;
const FLAGS: std::ops::Range<usize> = 53..55;

/// The trace of one request.
pub(super) struct Trace {
    /// `00-{trace}-{span}-{flags}` with a new span.
    parent: [u8; 55],
    /// The client began the trace.
    pub(super) is_given: bool,
    /// Vendor data, passed on.
    pub(super) state: Option<String>,
    /// Where our span stands, and the client's, where spans are written down.
    place: Option<(Position, Option<u64>)>,
}

impl Trace {
    /// The trace that a request belongs to; what does not parse is replaced.
    pub(super) fn of(headers: &HeaderMap) -> Trace {
        let given = headers.get(&TRACEPARENT).and_then(|value| Traceparent::parse(value.as_bytes()));
        let is_given = given.is_some();
        let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
        match given {
            Some(given) => {
                parent[TRACE].copy_from_slice(given.trace);
                parent[FLAGS].copy_from_slice(given.flags);
            }
            None => hexadecimal(fastrand::u128(1..), &mut parent[TRACE]),
        }
        hexadecimal(u128::from(fastrand::u64(1..)), &mut parent[SPAN]);
        let state = if is_given { headers.get(&TRACESTATE) } else { None };
        let state = state.and_then(|value| value.to_str().ok()).filter(|state| state.len() <= STATE_MAX);
        let mut trace = Trace { parent, is_given, state: state.map(str::to_owned), place: None };
        if let Some(tracer) = tracer() {
            trace.decide(tracer, headers);
        }
        trace
    }

    /// Decides whether the trace is written down, and says so to whoever comes behind us.
    #[cold]
    fn decide(&mut self, tracer: &Tracer, headers: &HeaderMap) {
        let client = headers.get(&TRACEPARENT).and_then(|value| Position::parse(value.as_bytes()));
        let Some(mut own) = Position::parse(&self.parent) else { return };
        own.is_sampled = tracer.takes(own.trace, client.map(|client| client.is_sampled));
        // The other flags of the client stay as they are.
        let digit = &mut self.parent[FLAGS.end - 1];
        let low = (*digit as char).to_digit(16).unwrap_or_default() & !1 | u32::from(own.is_sampled);
        *digit = b"0123456789abcdef"[low as usize];
        self.place = Some((own, client.map(|client| client.span)));
    }

    /// The span of the request itself, where it is written down.
    pub(super) fn begin(&self, name: String) -> Span {
        let (Some(tracer), Some((place, client))) = (tracer(), self.place) else { return Span::none() };
        let mut span = tracer.begin(SpanKind::Server, name, place, client);
        if let Some(state) = &self.state {
            span.state(state);
        }
        span
    }

    /// The span of a request over the bus, where it is written down.
    pub(super) fn call(&self, method: &Method) -> Span {
        let (Some(tracer), Some((own, _))) = (tracer(), self.place) else { return Span::none() };
        if !own.is_sampled {
            return Span::none();
        }
        let place = tracer.below(Some(own));
        let mut span = tracer.begin(SpanKind::Client, method.name.to_string(), place, Some(own.span));
        if let Some(state) = &self.state {
            span.state(state);
        }
        method.describe(&mut span);
        span
    }

    /// The `traceparent` of the calls that follow.
    pub(super) fn parent(&self) -> &str {
        std::str::from_utf8(&self.parent).unwrap_or_default()
    }

    /// 32 lower-case hex digits.
    pub(super) fn id(&self) -> &str {
        std::str::from_utf8(&self.parent[TRACE]).unwrap_or_default()
    }
}

/// Fills `digits` with the lowest digits of a number.
fn hexadecimal(mut number: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(traceparent: &str) -> Trace {
        let mut headers = HeaderMap::new();
        headers.insert(&TRACEPARENT, traceparent.parse().unwrap());
        headers.insert(&TRACESTATE, "a=1".parse().unwrap());
        Trace::of(&headers)
    }

    #[test]
    fn a_clients_trace_goes_on_with_a_span_of_ours() {
        for (version, more) in [("00", ""), ("cc", ""), ("cc", "-00"), ("cc", "-")] {
            let trace = of(&format!("{version}-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01{more}"));
            assert!(trace.is_given);
            assert_eq!((trace.id(), trace.state.as_deref()), ("0af7651916cd43dd8448eb211c80319c", Some("a=1")));
            let parent = trace.parent();
            assert!(parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-01"), "{parent}");
            assert_ne!(&parent[SPAN], "b7ad6b7169203331");
        }
    }

    #[test]
    fn what_is_no_trace_is_replaced() {
        let rows = [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ];
        for text in rows {
            let trace = of(text);
            assert!(!trace.is_given && trace.state.is_none(), "`{text}`");
            assert_eq!(
                Traceparent::parse(trace.parent().as_bytes()).map(|own| own.flags),
                Some(&b"00"[..]),
                "`{text}`"
            );
            assert_ne!(of(text).id(), trace.id());
        }
    }
}
