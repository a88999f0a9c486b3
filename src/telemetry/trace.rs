//! Spans: what is written down of a request's way through the processes, in the terms of W3C Trace Context and
//! OpenTelemetry. Nothing is, until [`install`]; then sampled spans go into a bounded queue that an exporter empties.
//! A full queue drops and counts: no request ever waits for its trace.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::SPANS_DROPPED;
use crate::fault::{Code, Fault};

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Most attributes of one span.
const ATTRIBUTES_MAX: usize = 32;
/// Longest text of an attribute in bytes.
const TEXT_MAX: usize = 1024;

/// Nanoseconds since 1970.
pub type SpanClock = fn() -> u64;

/// A parsed `traceparent`: `00-{trace}-{span}-{flags}`, in hex digits as they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent<'t> {
    /// 32 digits.
    pub trace: &'t [u8],
    /// 16 digits.
    pub span: &'t [u8],
    /// 2 digits.
    pub flags: &'t [u8],
}

impl<'t> Traceparent<'t> {
    /// Reads a version-00 header, or one of a later version as if it were one (W3C Trace Context §3.2).
    pub fn parse(text: &'t [u8]) -> Option<Traceparent<'t>> {
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
        Some(Traceparent { trace, span, flags })
    }
}

/// Where a span stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The trace; not zero.
    pub trace: u128,
    /// The span; not zero.
    pub span: u64,
    /// The trace is written down.
    pub is_sampled: bool,
}

impl Position {
    /// Reads a `traceparent`.
    pub fn parse(text: &[u8]) -> Option<Position> {
        let Traceparent { trace, span, flags } = Traceparent::parse(text)?;
        Some(Position { trace: number(trace), span: number(span) as u64, is_sampled: number(flags) & 1 == 1 })
    }

    /// As a `traceparent`.
    pub fn to_text(self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// Lower-case hex digits as a number.
fn number(digits: &[u8]) -> u128 {
    digits.iter().fold(0, |number, digit| {
        let value = if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 };
        number << 4 | u128::from(value)
    })
}

/// Which traces are written down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Of the traces that begin here, the part that is; 0 to 1.
    pub ratio: f64,
    /// A trace that began elsewhere is where its caller's span is.
    pub is_parent_based: bool,
}

impl Sampler {
    /// True where a trace is written down; `parent` says whether the caller's span is. Every process that asks comes
    /// to the same answer, as it is the trace id that is compared.
    pub fn takes(&self, trace: u128, parent: Option<bool>) -> bool {
        const RANDOM: u64 = 1 << 56;
        match parent.filter(|_| self.is_parent_based) {
            Some(is_sampled) => is_sampled,
            None => (trace as u64 & (RANDOM - 1)) as f64 >= (1.0 - self.ratio) * RANDOM as f64,
        }
    }
}

/// What a span is to its caller, with OpenTelemetry's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Answers a request.
    Server = 2,
    /// Makes one.
    Client = 3,
    /// Handles an event.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanValue {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl From<&str> for SpanValue {
    fn from(text: &str) -> SpanValue {
        let end = (0..=TEXT_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        SpanValue::Text(text[..end].to_owned())
    }
}

impl From<i64> for SpanValue {
    fn from(number: i64) -> SpanValue {
        SpanValue::Number(number)
    }
}

/// A span that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRecord {
    /// Where it stands.
    pub position: Position,
    /// The caller's span; none where the trace begins here.
    pub parent: Option<u64>,
    /// The trace's vendor data.
    pub state: String,
    /// What it is to its caller.
    pub kind: SpanKind,
    /// The service whose work it is; the process's own name where there is none.
    pub service: Option<String>,
    /// What it does: a route, a method.
    pub name: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// What else is known, by the names of the semantic conventions.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// What went wrong.
    pub error: Option<String>,
}

/// What begins spans.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    clock: SpanClock,
    queue: mpsc::Sender<SpanRecord>,
    /// The queue is full, and has been said to be.
    is_dropping: AtomicBool,
}

/// Begins to write spans down, once a process; gives the queue of those that are over, or nothing where somebody else
/// has it.
pub fn install(sampler: Sampler, clock: SpanClock, queue_max: usize) -> Option<mpsc::Receiver<SpanRecord>> {
    let (queue, spans) = mpsc::channel(queue_max);
    let tracer = Tracer { sampler, clock, queue, is_dropping: AtomicBool::new(false) };
    TRACER.set(tracer).ok().map(|()| spans)
}

/// The tracer, where spans are written down.
pub fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

impl Tracer {
    /// True where a trace is written down; `parent` says whether the caller's span is.
    pub fn takes(&self, trace: u128, parent: Option<bool>) -> bool {
        self.sampler.takes(trace, parent)
    }

    /// The place of a new span below a caller's, or of one that begins a trace.
    pub fn below(&self, parent: Option<Position>) -> Position {
        let trace = parent.map_or_else(|| fastrand::u128(1..), |parent| parent.trace);
        let is_sampled = self.takes(trace, parent.map(|parent| parent.is_sampled));
        Position { trace, span: fastrand::u64(1..), is_sampled }
    }

    /// Begins a span; one of a trace that is not sampled leaves nothing.
    pub fn begin(&'static self, kind: SpanKind, name: String, position: Position, parent: Option<u64>) -> Span {
        if !position.is_sampled {
            return Span::none();
        }
        let (state, service, attributes) = (String::new(), None, Vec::with_capacity(12));
        let start = (self.clock)();
        let record =
            SpanRecord { position, parent, state, kind, service, name, start, end: 0, attributes, error: None };
        Span(Some(Box::new(Open { record, tracer: self })))
    }

    fn take(&self, record: SpanRecord) {
        match self.queue.try_send(record) {
            Ok(()) => {
                if self.is_dropping.load(Ordering::Relaxed) {
                    self.is_dropping.store(false, Ordering::Relaxed);
                }
            }
            Err(_) => {
                metrics::counter!(SPANS_DROPPED, "reason" => "queue_full").increment(1);
                if !self.is_dropping.swap(true, Ordering::Relaxed) {
                    tracing::warn!("spans are dropped: the collector does not take them as fast as they come");
                }
            }
        }
    }
}

/// A span that has begun. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    record: SpanRecord,
    tracer: &'static Tracer,
}

impl Span {
    /// A span that nobody writes down.
    pub const fn none() -> Span {
        Span(None)
    }

    /// True where it is written down: what it says is worth making.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// The `traceparent` of what happens below it.
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().map(|open| open.record.position.to_text())
    }

    /// The trace, where it is written down.
    pub fn trace(&self) -> Option<u128> {
        self.0.as_ref().map(|open| open.record.position.trace)
    }

    /// The service whose work it is.
    pub fn service(&mut self, name: &str) {
        if let Some(open) = &mut self.0 {
            open.record.service = Some(name.to_owned());
        }
    }

    /// The trace's vendor data.
    pub fn state(&mut self, state: &str) {
        if let Some(open) = &mut self.0 {
            open.record.state = state.to_owned();
        }
    }

    /// Says something about it, by a name of the semantic conventions. At most 32 such things; texts end after 1 KiB.
    pub fn set(&mut self, name: &'static str, value: impl Into<SpanValue>) {
        if let Some(open) = &mut self.0
            && open.record.attributes.len() < ATTRIBUTES_MAX
        {
            open.record.attributes.push((name, value.into()));
        }
    }

    /// It failed, for a reason that is one of few, and as a text.
    pub fn fail(&mut self, kind: &str, text: &str) {
        self.set("error.type", kind);
        if let Some(open) = &mut self.0 {
            open.record.error = Some(text.to_owned());
        }
    }

    /// What a call ended with. To whoever asked, every fault is an error; to whoever answered only what is not the
    /// caller's own doing (the conventions of gRPC spans).
    pub fn fault(&mut self, fault: &Fault) {
        let Some(open) = &self.0 else { return };
        let is_ours = matches!(
            fault.code(),
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        let is_error = is_ours || open.record.kind == SpanKind::Client;
        self.set("rpc.response.status_code", fault.code_name());
        if is_error {
            self.fail(fault.code_name(), fault.message());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { mut record, tracer } = *open;
            record.end = (tracer.clock)().max(record.start);
            tracer.take(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_it_is_written() {
        let position = Position { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span: 0xb7ad, is_sampled: true };
        let text = "00-0af7651916cd43dd8448eb211c80319c-000000000000b7ad-01";
        assert_eq!(position.to_text(), text);
        assert_eq!(Position::parse(text.as_bytes()), Some(position));
        let unsampled = text.replace("-01", "-02");
        assert_eq!(Position::parse(unsampled.as_bytes()), Some(Position { is_sampled: false, ..position }));
    }

    #[test]
    fn the_ratio_holds_for_what_begins_here_and_the_caller_decides_on_the_rest() {
        let with = |ratio, is_parent_based| Sampler { ratio, is_parent_based };
        let taken = |sampler: Sampler, parent| {
            let mut random = fastrand::Rng::with_seed(7);
            (0..10_000).filter(|_| sampler.takes(random.u128(1..), parent)).count()
        };
        for (sampler, parent, from, to) in [
            (with(1.0, true), None, 10_000, 10_000),
            (with(0.0, true), None, 0, 0),
            (with(0.1, true), None, 900, 1_100),
            (with(0.0, true), Some(true), 10_000, 10_000),
            (with(1.0, true), Some(false), 0, 0),
            (with(0.1, false), Some(true), 900, 1_100),
        ] {
            let count = taken(sampler, parent);
            assert!((from..=to).contains(&count), "{sampler:?} {parent:?}: {count}");
        }
    }

    #[test]
    fn long_texts_end_between_two_characters() {
        let SpanValue::Text(text) = SpanValue::from(format!("{}ä", "x".repeat(TEXT_MAX - 1)).as_str()) else {
            panic!("no text")
        };
        assert_eq!(text.len(), TEXT_MAX - 1);
    }
}
