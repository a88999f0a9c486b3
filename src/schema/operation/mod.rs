//! Declared operations: what a method does with documents or events, said by its options (`tidegate.operation`) and
//! compiled to field numbers, so that nothing about a declaration can fail later.

mod compile;
mod documents;
mod hooked;
mod message;
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
    /// What people call one of them.
    pub name: Option<String>,
    /// What handlers keep beside the message's fields.
    pub members: Vec<String>,
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
    /// Where the field is a map: the entry's key; the kind is that of its value.
    pub entry: Option<String>,
    /// The dotted path in proto names.
    pub name: String,
}

/// A token of a key or subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// As it stands.
    Literal(String),
    /// A field of the request: one token, whatever it holds.
    Field(ScalarAt),
    /// A field of the request whose dots part tokens; subjects alone have it.
    Dotted(ScalarAt),
}

impl Token {
    /// The field that it comes from.
    pub fn field(&self) -> Option<&ScalarAt> {
        match self {
            Token::Literal(_) => None,
            Token::Field(at) | Token::Dotted(at) => Some(at),
        }
    }
}

/// Keys of which the first one counts whose fields the request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The keys; one at least.
    pub keys: Vec<Vec<Token>>,
    /// What a request lacks that has none of the fields: their oneof, or the first of them.
    pub lacks: String,
}

/// What documents of a list must have, where a request asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Field of the request.
    pub asked: ScalarAt,
    /// Field of the document.
    pub kept: ScalarAt,
    /// The values that there are; any without them.
    pub one_of: Vec<String>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Anything.
    Any,
    /// Nothing.
    Create,
    /// Something.
    Replace,
    /// Something, of which these fields are replaced.
    Merge(Vec<String>),
}

/// A time that a write notes or answers; names are those of the stored document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeOf {
    /// What keeps it.
    pub keep: Option<String>,
    /// Field of the reply.
    pub into: Option<u32>,
    /// How many milliseconds after the write it is.
    pub after: Option<String>,
}

/// Numbers that a field of a document may have; endless where an end is not given.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// The field.
    pub field: String,
    /// The smallest and the largest one.
    pub bounds: [f64; 2],
}

/// What a method does.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub enum Operation {
    Get {
        kind: Arc<DocumentKind>,
        key: Choice,
        into: Into,
        cache: Option<Duration>,
        may_lag: bool,
    },
    Put(Box<Put>),
    Delete {
        kind: Arc<DocumentKind>,
        key: Vec<Token>,
        plan: Delete,
    },
    List {
        kind: Arc<DocumentKind>,
        under: Vec<Token>,
        filters: Vec<Filter>,
        page_size: Option<ScalarAt>,
        page_token: Option<ScalarAt>,
        into: u32,
        next_page_token_into: Option<u32>,
        cache: Option<Duration>,
    },
    Watch(Box<Watch>),
    Publish {
        publication: Publication,
        /// The event's field; the request itself without it.
        from: Option<u32>,
        id: Option<ScalarAt>,
    },
    /// A hook makes the event and its id.
    HookedPublish(Publication),
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

/// How an event is published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub struct Publication {
    pub subject: Vec<Token>,
    /// The event's message, and its full name.
    pub message: MessageId,
    pub message_name: String,
    pub within: Option<Duration>,
    pub sequence_into: Option<u32>,
    pub duplicate_into: Option<u32>,
}

/// A write of a document.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub struct Put {
    pub kind: Arc<DocumentKind>,
    pub key: Vec<Token>,
    pub from: From,
    pub mode: Mode,
    pub expected_version: Option<ScalarAt>,
    pub into: Option<Into>,
    pub version_into: Option<u32>,
    pub event: Option<Vec<Token>>,
    pub expires_after: Option<String>,
    pub times: Vec<TimeOf>,
    pub ranges: Vec<Range>,
    /// Encoded fields of the reply.
    pub preset: Vec<u8>,
}

/// A deletion of a document, beside its kind and key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub struct Delete {
    pub expected_version: Option<ScalarAt>,
    pub version_into: Option<u32>,
    pub event: Option<Vec<Token>>,
    pub deleted_into: Option<u32>,
    pub may_be_missing: bool,
}

/// Where a document goes in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Into {
    /// It is the reply.
    Whole,
    /// This field.
    Field(u32),
    /// Its fields of the same names and types, numbers in the document and there: in the message of this field, or in the
    /// reply itself.
    SameNames(Option<u32>, Vec<(u32, u32)>),
}

/// A stream of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of tidegate/options.proto")]
pub struct Watch {
    pub kind: Arc<DocumentKind>,
    pub of: Watched,
    pub after_revision: Option<ScalarAt>,
    pub into: Into,
    /// The chunk's field for the version where it gets fields of the same names.
    pub version_into: Option<u32>,
    pub revision_into: Option<u32>,
    pub key_into: Option<u32>,
    pub deleted_into: Option<u32>,
    /// Encoded fields of the chunk.
    pub written: Vec<u8>,
    pub deleted: Vec<u8>,
    pub must_exist: bool,
    pub last: Option<String>,
}

/// What a watch is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// One document.
    One(Choice),
    /// Those whose keys begin with these tokens.
    Under(Vec<Token>),
}

impl Operation {
    /// The kind of documents, where it has one.
    pub fn kind(&self) -> Option<&Arc<DocumentKind>> {
        match self {
            Operation::Get { kind, .. } | Operation::Delete { kind, .. } | Operation::List { kind, .. } => Some(kind),
            Operation::Put(put) => Some(&put.kind),
            Operation::Watch(watch) => Some(&watch.kind),
            Operation::Hooked(hooked) => Some(&hooked.kind),
            Operation::Publish { .. } | Operation::HookedPublish(_) | Operation::Read { .. } => None,
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
            other => matches!(other, Operation::Watch(_) | Operation::Read { .. }),
        }
    }

    /// The action of which a hook decides, where one does.
    pub fn hook(&self) -> Option<&'static str> {
        match self {
            Operation::Hooked(hooked) => Some(hooked.action.name()),
            Operation::HookedPublish(_) => Some("publish"),
            _ => None,
        }
    }

    /// The declaration of a hook that works on documents, where it has one.
    pub fn hooked(&self) -> Option<&Hooked> {
        match self {
            Operation::Hooked(hooked) => Some(hooked),
            _ => None,
        }
    }
}
