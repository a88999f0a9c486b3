//! What a kind of documents needs to be opened.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Notice, Seal, plain_seal};
use crate::fault::Fault;
use crate::store::{Bucket, BucketConfig};
use crate::worker::Context;

/// A kind of documents to open.
pub struct RecordsConfig {
    /// Where they are.
    pub bucket: BucketConfig,
    /// A deleted document leaves its version behind, so that versions never go back.
    pub keeps_tombstones: bool,
    /// How its events look on the bus.
    pub seal: Seal,
    /// Age at which what was left unsent is sent, and interval at which expired documents go; asked before each round.
    pub sweep: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Other buckets that changes write to ([`Change::also_put`]).
    pub others: Vec<(&'static str, Bucket)>,
    /// Events of a document that has expired.
    pub expired: Option<Expired>,
    /// What hears of each change that is made here, before its caller is answered.
    pub changed: Option<Changed>,
}

/// Hears of a change: its key, and the document as JSON; nothing where it was deleted.
pub type Changed = Arc<dyn Fn(&str, Option<serde_json::Value>) + Send + Sync>;

/// Drops what is kept elsewhere of the document of a key.
pub(in crate::worker) type Forget =
    Arc<dyn for<'a> Fn(&'a Context, &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> + Send + Sync>;

/// What is told of a document that has expired: its key and its value as JSON.
pub type Expired = Arc<dyn Fn(&Context, &str, &serde_json::Value) -> Result<Vec<Notice>, Fault> + Send + Sync>;

impl RecordsConfig {
    /// Documents in this bucket with tombstones, whose events are the bare message.
    pub fn new(bucket: BucketConfig) -> RecordsConfig {
        RecordsConfig {
            bucket,
            keeps_tombstones: true,
            seal: plain_seal,
            sweep: Arc::new(|| Duration::from_secs(5)),
            others: Vec::new(),
            expired: None,
            changed: None,
        }
    }
}
