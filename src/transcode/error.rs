//! What is wrong with a text or with bytes: where, what stands there, and what was expected.

use std::fmt;

/// Why a text cannot become protobuf bytes, or bytes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is no JSON.
    Syntax,
    /// The JSON does not fit the message: a wrong type, an unknown field, a value out of range.
    Mismatch,
    /// Two parts set the same field, or two members of one oneof.
    Conflict,
    /// Nested more deeply than the budget allows.
    Depth,
    /// The bytes are no valid protobuf encoding of the message.
    Wire,
}

/// An error of any direction. One pointer wide.
#[derive(Debug, PartialEq, Eq)]
pub struct TranscodeError(Box<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    offset: usize,
    /// From the innermost segment outwards, while the error travels up.
    segments: Vec<String>,
    text: String,
}

/// The result of any direction.
pub(crate) type Result<T> = std::result::Result<T, TranscodeError>;

impl TranscodeError {
    #[cold]
    pub(super) fn new(kind: ErrorKind, offset: usize, text: impl Into<String>) -> TranscodeError {
        TranscodeError(Box::new(Inner { kind, offset, segments: Vec::new(), text: text.into() }))
    }

    /// The same error, seen from the message around it.
    #[cold]
    pub(super) fn inside(mut self, segment: impl Into<String>) -> TranscodeError {
        self.0.segments.push(segment.into());
        self
    }

    /// Why.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Byte offset in the text or in the bytes.
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// Dotted path of the field in proto names, list elements as `[3]`, map entries as `["key"]`; empty for the whole.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in self.0.segments.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }

    /// What is wrong and what was expected, without the place.
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Display for TranscodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        if !path.is_empty() {
            write!(f, "`{path}`: ")?;
        }
        write!(f, "{} (byte {})", self.0.text, self.0.offset)
    }
}

impl std::error::Error for TranscodeError {}
