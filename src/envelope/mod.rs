//! House styles: how a schema carries the caller's context, errors, and the place of a chunk in its stream.
//!
//! A style is declared in the table file and compiled for each method; from then on it is field numbers. Knows nothing
//! of any one house, of HTTP statuses' meaning, or of connections.

mod caller;
mod compile;
mod context;
mod credential;
mod reply;
mod revocations;
mod status;
mod style;

pub use caller::{Caller, echo_context};
pub use compile::{ChunkPlan, ContextField, ContextPlan, Envelope, ErrorPlan, LabelsPlan, StyleError};
pub use context::ContextWriter;
pub use credential::{CredentialFields, CredentialPlan, Verified};
pub use reply::{Chunk, SERVICE_ERROR, SERVICE_ERROR_CODE, STREAM_BEGUN, write_error};
pub use revocations::RevocationPlan;
pub use style::{ChunkStyle, ContextStyle, ErrorForm, InBandError, LabelsStyle, Source, Style};
