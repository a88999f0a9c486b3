//! `Fault`: the one error that crosses a floor.
//!
//! Small error types live beside what fails; where one of them leaves its floor it becomes a `Fault`, and only
//! `gateway::respond` turns a `Fault` into an HTTP status. It is not for errors that stay inside a module.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What went wrong, in the words of `google.rpc.Code` (numbers as there), plus `Conflict`, which house styles use
/// for "the same key or id with other content".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the standard's own")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    Conflict,
}

/// One row a code: name and number. `Conflict` borrows the number of ALREADY_EXISTS.
const CODES: [(Code, &str, i32); 17] = [
    (Code::Cancelled, "CANCELLED", 1),
    (Code::Unknown, "UNKNOWN", 2),
    (Code::InvalidArgument, "INVALID_ARGUMENT", 3),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 4),
    (Code::NotFound, "NOT_FOUND", 5),
    (Code::AlreadyExists, "ALREADY_EXISTS", 6),
    (Code::PermissionDenied, "PERMISSION_DENIED", 7),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED", 8),
    (Code::FailedPrecondition, "FAILED_PRECONDITION", 9),
    (Code::Aborted, "ABORTED", 10),
    (Code::OutOfRange, "OUT_OF_RANGE", 11),
    (Code::Unimplemented, "UNIMPLEMENTED", 12),
    (Code::Internal, "INTERNAL", 13),
    (Code::Unavailable, "UNAVAILABLE", 14),
    (Code::DataLoss, "DATA_LOSS", 15),
    (Code::Unauthenticated, "UNAUTHENTICATED", 16),
    (Code::Conflict, "CONFLICT", 6),
];

impl Code {
    /// The name in upper case with underscores, as `google.rpc.Code` spells it.
    pub fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// The number of `google.rpc.Code`.
    pub fn number(self) -> i32 {
        CODES[self as usize].2
    }

    /// The code with that name; `None` for a name that no standard knows.
    pub fn from_name(name: &str) -> Option<Code> {
        CODES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The code with that `google.rpc.Code` number; 0 (OK) and unknown numbers give `Unknown`, because a fault is
    /// never a success.
    pub fn from_number(number: i32) -> Code {
        CODES.iter().find(|row| row.2 == number).map_or(Code::Unknown, |row| row.0)
    }
}

/// Who caused a fault. Metrics and logs split by it: a client's mistake is no incident of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller sent something wrong, or went away.
    Client,
    /// This process.
    Us,
    /// The worker, the bus or the store behind us.
    Upstream,
}

/// What exactly happened at the edge, as a stable token that clients may match on (`reason` in every error body).
/// `gateway::respond` has one row for each that needs another status than its code's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The code says it all.
    None,
    /// No route has this path.
    RouteNotFound,
    /// The path has routes, but none for this verb.
    MethodNotAllowed,
    /// The request head breaks HTTP (RFC 9112).
    BadRequest,
    /// The request target is longer than allowed.
    UriTooLong,
    /// Header fields are too many or too large.
    HeadersTooLarge,
    /// An `Expect` that is not `100-continue`.
    ExpectationFailed,
    /// The head or body came too slowly.
    RequestTimeout,
    /// The body is larger than the route allows, or than one bus message holds.
    BodyTooLarge,
    /// The content type or content coding is not one that the route reads.
    UnsupportedMediaType,
    /// The caller accepts no format that the route can give.
    NotAcceptable,
    /// The protocol or transfer coding is not implemented.
    NotImplemented,
    /// The body is no JSON, or no message of the request type.
    MalformedBody,
    /// A path variable, query parameter or header does not fit its field.
    MalformedParameter,
    /// Two parts of the request set the same field, or two members of one oneof.
    ConflictingFields,
    /// The route needs a credential, and the request has none.
    CredentialMissing,
    /// The credential is malformed, unknown, expired or revoked.
    CredentialInvalid,
    /// The token bucket is empty.
    RateLimited,
    /// All call slots are taken.
    TooManyCalls,
    /// All stream slots are taken.
    TooManyStreams,
    /// The breaker of this method is open.
    BreakerOpen,
    /// Nobody subscribes to the subject.
    NoResponders,
    /// The bus is not connected.
    BusDown,
    /// No answer before the deadline.
    UpstreamTimeout,
    /// The answer does not decode as the reply type.
    MalformedReply,
    /// The stream of chunks had a hole, came out of order, or broke its form.
    BrokenStream,
    /// No chunk for longer than the idle limit.
    StreamIdle,
    /// The client reads more slowly than the stream comes.
    SlowConsumer,
    /// The process is about to stop.
    Draining,
    /// A handler panicked.
    Panicked,
}

/// One wrong field, for the list of field violations in an error body (`google.rpc.BadRequest.FieldViolation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path of the field, in proto names; empty when no field is to blame.
    pub field: String,
    /// What is wrong with it, and what was expected.
    pub description: String,
    /// Byte offset in the body, where the fault is in the body.
    pub offset: Option<usize>,
}

/// An error on its way to the caller: what they may read, what only we read, and who caused it.
///
/// One pointer wide, so that `Result<T, Fault>` stays small on the request path.
#[derive(Debug)]
pub struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    reason: Reason,
    source: Source,
    /// The code's name in the house style of the worker that answered, where it differs from `code.name()`.
    label: Option<Arc<str>>,
    message: Cow<'static, str>,
    internal: Option<String>,
    details: Vec<(Cow<'static, str>, String)>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    /// Serialised `google.rpc.Status`, where the worker sent one.
    status: Option<bytes::Bytes>,
}

impl Fault {
    /// A fault with the text that the caller may read: lowercase, no full stop, saying what to do.
    pub fn new(code: Code, source: Source, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault(Box::new(Inner {
            code,
            reason: Reason::None,
            source,
            label: None,
            message: message.into(),
            internal: None,
            details: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
            status: None,
        }))
    }

    /// A fault that the client caused.
    pub fn client(code: Code, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(code, Source::Client, message)
    }

    /// A fault of this process.
    pub fn ours(code: Code, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(code, Source::Us, message)
    }

    /// A fault of the worker, the bus or the store.
    pub fn upstream(code: Code, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(code, Source::Upstream, message)
    }

    /// The same fault with its token.
    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Fault {
        self.0.reason = reason;
        self
    }

    /// The same fault with the code's name in a worker's house style.
    #[must_use]
    pub fn label(mut self, label: Arc<str>) -> Fault {
        self.0.label = Some(label);
        self
    }

    /// The same fault with one more machine-readable detail.
    #[must_use]
    pub fn detail(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Fault {
        self.0.details.push((key.into(), value.into()));
        self
    }

    /// The same fault with one more wrong field.
    #[must_use]
    pub fn violation(mut self, violation: Violation) -> Fault {
        self.0.violations.push(violation);
        self
    }

    /// The same fault with the time after which a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Fault {
        self.0.retry_after = Some(after);
        self
    }

    /// The same fault with text for our logs only; it never reaches a caller.
    #[must_use]
    pub fn internal(mut self, text: impl Into<String>) -> Fault {
        self.0.internal = Some(text.into());
        self
    }

    /// The same fault with the serialised `google.rpc.Status` that a worker sent.
    #[must_use]
    pub fn status(mut self, status: bytes::Bytes) -> Fault {
        self.0.status = Some(status);
        self
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The code's name as the caller should see it: the worker's own where it sent one.
    pub fn code_name(&self) -> &str {
        self.0.label.as_deref().unwrap_or_else(|| self.0.code.name())
    }

    /// The stable token of what happened at the edge.
    pub fn why(&self) -> Reason {
        self.0.reason
    }

    /// Who caused it.
    pub fn source(&self) -> Source {
        self.0.source
    }

    /// The text that the caller may read.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The text for our logs, where there is more to say than `message`.
    pub fn internal_text(&self) -> Option<&str> {
        self.0.internal.as_deref()
    }

    /// Machine-readable details, in the order in which they were added.
    pub fn details(&self) -> &[(Cow<'static, str>, String)] {
        &self.0.details
    }

    /// The wrong fields.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The time after which a retry makes sense.
    pub fn retry(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The serialised `google.rpc.Status` that a worker sent.
    pub fn rpc_status(&self) -> Option<&bytes::Bytes> {
        self.0.status.as_ref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code_name(), self.0.message)?;
        match &self.0.internal {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_finds_its_row_by_position_and_by_name() {
        for (code, name, number) in CODES {
            assert_eq!((code.name(), code.number()), (name, number));
            assert_eq!(Code::from_name(name), Some(code));
        }
        assert_eq!(Code::from_number(0), Code::Unknown);
        assert_eq!(Code::from_number(6), Code::AlreadyExists);
    }

    #[test]
    fn a_fault_is_one_pointer_wide() {
        assert_eq!(size_of::<Result<(), Fault>>(), size_of::<usize>());
    }
}
