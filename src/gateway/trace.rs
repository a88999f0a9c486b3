//! W3C Trace Context: a client's `traceparent` is passed on with a span of ours, or a new trace begins.

use std::fmt::Write as _;

use http::HeaderMap;

/// Longest `tracestate` that is passed on (the recommendation's minimum).
const STATE_MAX: usize = 512;

/// The trace of one request.
pub(super) struct Trace {
    /// 32 lower-case hex digits.
    pub(super) id: String,
    /// `00-{trace}-{span}-{flags}` with a new span.
    pub(super) parent: String,
    /// The client began the trace.
    pub(super) is_given: bool,
    /// Vendor data, passed on.
    pub(super) state: Option<String>,
}

impl Trace {
    /// The trace that a request belongs to; what does not parse is replaced.
    pub(super) fn of(headers: &HeaderMap) -> Trace {
        let given = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(parse);
        let is_given = given.is_some();
        let (id, flags) = given.unwrap_or_else(|| (format!("{:032x}", fastrand::u128(1..)), "00".to_owned()));
        let state = headers.get("tracestate").and_then(|value| value.to_str().ok());
        let state = state.filter(|state| is_given && state.len() <= STATE_MAX).map(str::to_owned);
        let mut parent = String::with_capacity(55);
        let _ = write!(parent, "00-{id}-{:016x}-{flags}", fastrand::u64(1..));
        Trace { id, parent, is_given, state }
    }
}

/// Trace id and flags of a version-00 header (or of a later version, read as one).
fn parse(text: &str) -> Option<(String, String)> {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_shaped = version.len() == 2 && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
    let has_more = parts.next().is_some();
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    if !is_shaped || !is_hex(text.replace('-', "").as_str()) || version == "ff" || is_zero(trace) || is_zero(span) {
        return None;
    }
    if has_more && version == "00" { None } else { Some((trace.to_owned(), flags.to_owned())) }
}
