//! Declared operations: what a method does with documents or events, said by its options (`tidegate.operation`) and
//! compiled to field numbers, so that nothing about a declaration can fail later.

mod compile;
mod documents;
mod hooked;
mod rule;

use std::sync::Arc;
use std::time::Duration;

use crate::transcode::MessageId;
use crate::transcode::table::Kind;

pub(super) use compile::{Around, operation};
pub(super) use documents::documents;
pub use hooked::{Action, Hooked};
pub(super) use rule::logs;

/// Largest number of revisions that a bucket keeps of a document.
const HISTORY_MAX: i64 = 64;

/// A kind of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentKind {
    /// Its bucket.
    pub bucket: String,
    /// The message that is kept.
    pub message: MessageId,
    /// Its full name; empty where only hooks know what is kept, and `message` says nothing.
    pub message_name: String,
    /// Its field for the version.
    pub version: Option<u32>,
    /// Its field for the time of the last change.
    pub updated: Option<Updated>,
    /// Age at which an unchanged document counts as absent.
    pub ttl: Option<Duration>,
    /// Revisions kept of each document.
    pub history: u8,
}

/// A field that holds a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// A `google.protobuf.Timestamp`.
    Timestamp(u32),
    /// Milliseconds since 1970.
    Millis(u32),
}

/// A log of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Its name.
    pub name: String,
    /// Patterns of the subjects that it takes.
    pub subjects: Vec<String>,
    /// Age at which an event goes.
    pub max_age: Duration,
    /// How long an event's id is remembered.
    pub duplicate_window: Duration,
}

/// A scalar field of a message, or of a message inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalarAt {
    /// Numbers of the messages on the way.
    pub through: Vec<u32>,
    /// Its number.
    pub number: u32,
    /// Its kind.
    pub kind: Kind,
    /// The dotted path in proto names.
    pub name: String,
}

/// A token of a key or subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// As it stands.
    Literal(String),
    /// A field of the request.
    Field(ScalarAt),
}

/// Where a document comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// This field of the request.
    Field(u32),
    /// The request's fields of the same names and types: numbers in the request and in the document.
    SameNames(Vec<(u32, u32)>),
}

/// What must be there for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Anything.
    Any,
    /// Nothing.
    Create,
    /// Something.
    Replace,
}

/// What a method does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub enum Operation {
    Get {
        kind: Arc<DocumentKind>,
        key: Vec<Token>,
        into: Option<u32>,
        cache: Option<Duration>,
    },
    Put {
        kind: Arc<DocumentKind>,
        key: Vec<Token>,
        from: From,
        mode: Mode,
        expected_version: Option<ScalarAt>,
        /// The field for the document; the reply itself where it is of the document's type.
        into: Option<Into>,
        version_into: Option<u32>,
        event: Option<Vec<Token>>,
    },
    Delete {
        kind: Arc<DocumentKind>,
        key: Vec<Token>,
        expected_version: Option<ScalarAt>,
        version_into: Option<u32>,
        event: Option<Vec<Token>>,
    },
    List {
        kind: Arc<DocumentKind>,
        under: Vec<Token>,
        /// Fields of the request, and of the document.
        filters: Vec<(ScalarAt, ScalarAt)>,
        page_size: Option<ScalarAt>,
        page_token: Option<ScalarAt>,
        into: u32,
        next_page_token_into: Option<u32>,
        cache: Option<Duration>,
    },
    Watch {
        kind: Arc<DocumentKind>,
        under: Vec<Token>,
        after_revision: Option<ScalarAt>,
        into: u32,
        revision_into: Option<u32>,
        key_into: Option<u32>,
        deleted_into: Option<u32>,
    },
    Publish {
        subject: Vec<Token>,
        /// The event's field; the request itself without it.
        from: Option<u32>,
        /// Full name of the event's message.
        message: String,
        id: Option<ScalarAt>,
        sequence_into: Option<u32>,
        duplicate_into: Option<u32>,
    },
    Read {
        log: String,
        subject: Vec<Token>,
        after: Option<ScalarAt>,
        into: u32,
        sequence_into: Option<u32>,
        id_into: Option<u32>,
        subject_into: Option<u32>,
    },
    Hooked(Hooked),
}

/// Where a document goes in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    /// It is the reply.
    Whole,
    /// This field.
    Field(u32),
}

impl Operation {
    /// The kind of documents, where it has one.
    pub fn kind(&self) -> Option<&Arc<DocumentKind>> {
        match self {
            Operation::Get { kind, .. }
            | Operation::Put { kind, .. }
            | Operation::Delete { kind, .. }
            | Operation::List { kind, .. }
            | Operation::Watch { kind, .. }
            | Operation::Hooked(Hooked { kind, .. }) => Some(kind),
            Operation::Publish { .. } | Operation::Read { .. } => None,
        }
    }

    /// How old its reply may be, where that is said.
    pub fn cache(&self) -> Option<Duration> {
        match self {
            Operation::Get { cache, .. } | Operation::List { cache, .. } => *cache,
            _ => None,
        }
    }

    /// True where it answers with a stream.
    pub fn streams(&self) -> bool {
        match self {
            Operation::Hooked(hooked) => matches!(hooked.action, Action::Watch { .. }),
            other => matches!(other, Operation::Watch { .. } | Operation::Read { .. }),
        }
    }

    /// The declaration of a hook, where it has one.
    pub fn hooked(&self) -> Option<&Hooked> {
        match self {
            Operation::Hooked(hooked) => Some(hooked),
            _ => None,
        }
    }
}
