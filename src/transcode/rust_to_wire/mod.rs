//! Plain Rust structs → protobuf bytes through serde, by walking the tables: one output buffer, no value tree.
//!
//! Canonical bytes: fields in number order, maps in key order, defaults left out, lists packed as the schema says. The
//! Rust forms are those of `wire_to_rust`.

mod compound;
mod order;
mod slot;
mod writer;

use std::fmt;

use serde::ser::{self, Serialize};

use super::error::{ErrorKind, TranscodeError};
use super::table::{MessageId, Tables};
use slot::Slot;
use writer::Writer;

pub use order::number_order;

/// Why a value is no message of its type: which field, and what is wrong with it.
#[derive(Debug)]
pub struct RustError(TranscodeError);

impl RustError {
    /// Dotted path of the field in proto names; empty for the whole.
    pub fn path(&self) -> String {
        self.0.path()
    }

    #[cold]
    fn new(text: impl Into<String>) -> RustError {
        RustError(TranscodeError::new(ErrorKind::Mismatch, 0, text))
    }

    #[cold]
    fn inside(self, segment: &str) -> RustError {
        RustError(self.0.inside(segment))
    }
}

impl fmt::Display for RustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            path if path.is_empty() => f.write_str(self.0.text()),
            path => write!(f, "`{path}`: {}", self.0.text()),
        }
    }
}

impl std::error::Error for RustError {}

impl From<TranscodeError> for RustError {
    fn from(error: TranscodeError) -> RustError {
        RustError(error)
    }
}

impl ser::Error for RustError {
    fn custom<M: fmt::Display>(text: M) -> RustError {
        RustError::new(text.to_string())
    }
}

type Result<T> = std::result::Result<T, RustError>;

/// Appends a value's bytes as that message. `out` is as long as before where it fails.
pub fn to_wire<T: Serialize>(tables: &Tables, message: MessageId, value: &T, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let mut writer = Writer { tables, out, depth: 1 };
    let result = value.serialize(Slot { writer: &mut writer, place: slot::Place::Content(message) });
    if result.is_err() {
        out.truncate(start);
    }
    result
}
