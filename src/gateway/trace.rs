//! W3C Trace Context: a client's `traceparent` is passed on with a span of ours, or a new trace begins.

use http::{HeaderMap, HeaderName};

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
}

impl Trace {
    /// The trace that a request belongs to; what does not parse is replaced.
    pub(super) fn of(headers: &HeaderMap) -> Trace {
        let given = headers.get(&TRACEPARENT).and_then(|value| parse(value.as_bytes()));
        let is_given = given.is_some();
        let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
        match given {
            Some((trace, flags)) => {
                parent[TRACE].copy_from_slice(trace);
                parent[FLAGS].copy_from_slice(flags);
            }
            None => hexadecimal(fastrand::u128(1..), &mut parent[TRACE]),
        }
        hexadecimal(u128::from(fastrand::u64(1..)), &mut parent[SPAN]);
        let state = if is_given { headers.get(&TRACESTATE) } else { None };
        let state = state.and_then(|value| value.to_str().ok()).filter(|state| state.len() <= STATE_MAX);
        Trace { parent, is_given, state: state.map(str::to_owned) }
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

/// Trace id and flags of a version-00 header (or of a later version, read as one).
fn parse(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_hex = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let mut parts = text.split(|byte| *byte == b'-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_shaped = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    let more = parts.next();
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    if !is_shaped || ![version, trace, span, flags].into_iter().chain(more).chain(parts).all(is_hex) {
        return None;
    }
    if version == b"ff" || is_zero(trace) || is_zero(span) || (more.is_some() && version == b"00") {
        return None;
    }
    Some((trace, flags))
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
            assert_eq!(parse(trace.parent().as_bytes()).map(|(_, flags)| flags), Some(&b"00"[..]), "`{text}`");
            assert_ne!(of(text).id(), trace.id());
        }
    }
}
