//! `common.v1`, where it stands inside of other messages: at the top of a message the house style keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::{self, Fault};
use crate::worker::types::Timestamp;

/// `common.v1.Meta`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) request_id: String,
    pub(super) trace_id: String,
    pub(super) client_id: String,
    pub(super) user_id: String,
    pub(super) tenant_id: String,
    pub(super) timestamp: Option<Timestamp>,
    pub(super) idempotency_key: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// `common.v1.Error`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Error {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) details: BTreeMap<String, String>,
}

/// `common.v1.Error.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Code {
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Conflict,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DeadlineExceeded,
    /// UNKNOWN itself, and numbers that have no name here.
    Unknown(i32),
}

impl From<&Fault> for Error {
    fn from(fault: &Fault) -> Error {
        let details = fault.details().iter().map(|(name, value)| (name.to_string(), value.clone()));
        Error { code: Code::of(fault.code()), message: fault.message().to_owned(), details: details.collect() }
    }
}

impl Code {
    fn of(code: fault::Code) -> Code {
        use fault::Code as Of;
        match code {
            Of::InvalidArgument => Code::InvalidArgument,
            Of::NotFound => Code::NotFound,
            Of::PermissionDenied => Code::PermissionDenied,
            Of::Unauthenticated => Code::Unauthenticated,
            Of::Conflict | Of::AlreadyExists => Code::Conflict,
            Of::ResourceExhausted => Code::ResourceExhausted,
            Of::FailedPrecondition => Code::FailedPrecondition,
            Of::Aborted | Of::Cancelled => Code::Aborted,
            Of::OutOfRange => Code::OutOfRange,
            Of::Unimplemented => Code::Unimplemented,
            Of::Internal | Of::DataLoss => Code::Internal,
            Of::Unavailable => Code::Unavailable,
            Of::DeadlineExceeded => Code::DeadlineExceeded,
            Of::Unknown => Code::Unknown(0),
        }
    }
}
