//! A house style as declared.

use http::HeaderName;

/// Where a value of the context comes from; of several sources the first that has one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A new random id.
    Generated,
    /// The trace id of `traceparent` (W3C Trace Context).
    Traceparent,
    /// A request header.
    Header {
        /// Its name.
        name: HeaderName,
        /// A value that is the name of a service is refused.
        not_in_services: bool,
        /// Only taken from trusted peers.
        is_trusted: bool,
    },
    /// This text.
    Value(String),
    /// The user of the verified credential.
    CallerUser,
    /// The tenant of the verified credential.
    CallerTenant,
    /// The role of the verified credential.
    CallerRole,
    /// The time of receipt.
    Now,
    /// A top-level member of a JSON body that is no field, taken out of the body.
    BodyMember(String),
}

/// The caller context: a message field of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextStyle {
    /// Name of the field in requests, replies and chunks.
    pub field: String,
    /// Names of its fields, each with its sources.
    pub fields: Vec<(String, Vec<Source>)>,
    /// Free annotations.
    pub labels: Option<LabelsStyle>,
}

/// Labels: a `map<string, string>` of the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsStyle {
    /// Name of the map field.
    pub field: String,
    /// Headers with this prefix become labels, the rest of the name in lower case.
    pub header_prefix: Option<String>,
    /// Most labels from a client.
    pub max: usize,
    /// Names that a client cannot set, and that a reply does not echo.
    pub reserved: Vec<String>,
    /// Labels that the gateway sets.
    pub set: Vec<(String, Source)>,
}

/// An error as a message field of every reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InBandError {
    /// Name of the field in replies and chunks.
    pub field: String,
    /// Name of the enum field with the code.
    pub code: String,
    /// Name of the text field.
    pub message: String,
    /// Name of the `map<string, string>` field.
    pub details: Option<String>,
    /// Other scalar fields of a failed reply become details.
    pub copies_rest: bool,
    /// HTTP status by name of the code; the names of `google.rpc.Code` have theirs without a row here.
    pub codes: Vec<(String, u16)>,
}

/// How a reply says that it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorForm {
    /// By a field of the reply; `Nats-Service-Error` headers count, too.
    InBand(InBandError),
    /// By the headers of the NATS services protocol (ADR-32).
    Headers,
    /// By these headers, with a `google.rpc.Status` as the body.
    Status,
}

/// How a chunk says its place in the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkStyle {
    /// Name of the number field, counted from 0; `Tidegate-Seq` without it.
    pub index: Option<String>,
    /// Name of the boolean field of the last chunk; `Tidegate-End` without it.
    pub last: Option<String>,
    /// Name of the number field that is the resume point of an event; the index without it.
    pub id: Option<String>,
    /// Path of the boolean field by which a request asks for a stream.
    pub stream_when: Option<String>,
}

/// A house style as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// Its name in the table file.
    pub name: String,
    /// The caller context, where the schema carries one.
    pub context: Option<ContextStyle>,
    /// How errors travel.
    pub error: ErrorForm,
    /// How chunks are numbered.
    pub chunk: ChunkStyle,
}

impl Style {
    /// The built-in styles: `plain` (NATS service errors) and `google` (the same with `google.rpc.Status`).
    pub fn built_in() -> [Style; 2] {
        let style =
            |name: &str, error| Style { name: name.to_owned(), context: None, error, chunk: ChunkStyle::default() };
        [style("plain", ErrorForm::Headers), style("google", ErrorForm::Status)]
    }

    /// The body member that some source takes.
    pub fn body_member(&self) -> Option<&str> {
        let fields = self.context.iter().flat_map(|context| &context.fields);
        fields.flat_map(|(_, sources)| sources).find_map(|source| match source {
            Source::BodyMember(name) => Some(name.as_str()),
            _ => None,
        })
    }
}
