//! Why the store could not do it.

use crate::fault::{Code, Fault, Reason};

/// Why the store could not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Something else is there than was expected: read again with `get`.
    Conflict,
    /// No key: empty, too long, or with other bytes than `A–Z a–z 0–9 _ - = .`.
    BadKey(String),
    /// The value is too large.
    TooLarge {
        /// Its bytes.
        size: usize,
        /// Bytes that the store takes.
        max: usize,
    },
    /// No room left.
    Full(String),
    /// No log takes this subject, or has this name.
    NoLog(String),
    /// There is no bucket of this name, and this store makes none.
    NoBucket(String),
    /// The log has no such consumer.
    NoConsumer {
        /// Name of the log.
        log: String,
        /// Name of the consumer.
        name: String,
    },
    /// The store does not do this: its own words.
    Refused(String),
    /// The store on disk cannot be used: why not, with its path, and what to do.
    NotOpened(String),
    /// Not reachable, or without a leader; whether a write happened is unknown.
    Unavailable(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Conflict => f.write_str("the record has changed meanwhile"),
            StoreError::BadKey(key) => write!(f, "`{key}` is no key of a bucket"),
            StoreError::TooLarge { size, max } => write!(f, "the value has {size} bytes, the store takes {max}"),
            StoreError::Full(what) => write!(f, "the store is full: {what}"),
            StoreError::NoLog(name) => write!(f, "no log takes `{name}`"),
            StoreError::NoBucket(name) => write!(f, "there is no bucket `{name}`"),
            StoreError::NoConsumer { log, name } => write!(f, "log `{log}` has no consumer `{name}`"),
            StoreError::Refused(text) => write!(f, "the store refuses it: {text}"),
            StoreError::NotOpened(text) => f.write_str(text),
            StoreError::Unavailable(text) => write!(f, "the store does not answer: {text}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        let text = error.to_string();
        match error {
            StoreError::Conflict => Fault::ours(Code::Aborted, "the record has changed meanwhile, try again"),
            StoreError::TooLarge { max, .. } => {
                Fault::client(Code::InvalidArgument, format!("the record is larger than {max} bytes"))
                    .reason(Reason::BodyTooLarge)
            }
            StoreError::Full(_) => Fault::upstream(Code::ResourceExhausted, "the store is full"),
            StoreError::Unavailable(_) => Fault::upstream(Code::Unavailable, "the store does not answer"),
            StoreError::NotOpened(text) => return Fault::ours(Code::FailedPrecondition, text),
            StoreError::NoLog(_) | StoreError::NoBucket(_) | StoreError::NoConsumer { .. } => {
                let text = format!("{text}; make what is missing with `tidegate streams apply`");
                return Fault::ours(Code::Internal, "the store is not set up").internal(text);
            }
            StoreError::BadKey(_) | StoreError::Refused(_) => Fault::ours(Code::Internal, "the store refused the call"),
        }
        .internal(text)
    }
}
