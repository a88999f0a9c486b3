//! `common.v1`, where it stands inside of other messages: at the top of a message the house style keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
