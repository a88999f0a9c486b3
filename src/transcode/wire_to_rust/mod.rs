//! Protobuf bytes → plain Rust structs through serde, by walking the tables: no value tree between, nothing allocated
//! but what the struct owns and one index.
//!
//! A struct has the message's fields by proto name; a oneof is one field with an enum of newtype variants; an enum is
//! a Rust enum with a catch-all `Unknown(i32)`. `Option` says "may be absent"; other absent fields are their default.

mod access;
mod index;
mod reader;

use serde::de::{self, DeserializeOwned};

use super::error::{ErrorKind, Result, TranscodeError};
use super::table::{MessageId, Tables};
use index::{Source, Walk};
use reader::{Node, Reader};

/// A value of `T` from a message's bytes, in any legal encoding: records out of order, interrupted lists, split
/// sub-messages, unknown fields.
///
/// Fails with byte offset and field path where the bytes are no legal encoding, nest too deeply, or hold what `T` does
/// not take.
pub fn from_wire<T: DeserializeOwned>(tables: &Tables, message: MessageId, wire: &[u8]) -> Result<T> {
    let mut walk = Walk::new(tables, wire);
    let node = Node::Message(message, Source::One(0, wire.len()));
    T::deserialize(Reader { walk: &mut walk, node, is_absent: false })
}

impl de::Error for TranscodeError {
    fn custom<M: std::fmt::Display>(text: M) -> TranscodeError {
        TranscodeError::new(ErrorKind::Mismatch, 0, text.to_string())
    }
}

/// The same error seen from a field around it. What serde itself says gets the place of the innermost field.
#[cold]
fn inside(error: TranscodeError, segment: &str, offset: usize) -> TranscodeError {
    if error.kind() == ErrorKind::Mismatch && error.path().is_empty() {
        return TranscodeError::new(ErrorKind::Mismatch, offset, error.text()).inside(segment);
    }
    error.inside(segment)
}
