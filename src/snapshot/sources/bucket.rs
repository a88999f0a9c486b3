//! Tables in a bucket on NATS: a revision of a key is one whole table, so one put changes every gateway that watches.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::super::problem::{Place, Problem};
use super::stored::Stored;
use super::{Changes, Material, Source};
use crate::store::{Bucket, BucketConfig, Change, Entry, Expected, Keys, Seen, Store, StoreError, interned};

/// Revisions that a bucket keeps of a table.
const HISTORY: u8 = 16;
/// The key where nobody names another.
const KEY: &str = "routes.yaml";
/// How an address begins.
const SCHEME: &str = "kv://";
/// Pause before a lost watch is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the newest revision is looked up beside the watch.
const LOOK: Duration = Duration::from_secs(30);

/// Where a table is: `kv://BUCKET` or `kv://BUCKET/KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAddress {
    /// The bucket's name.
    pub bucket: String,
    /// The key in it; `routes.yaml` where none is named.
    pub key: String,
}

impl TableAddress {
    /// True for texts that are meant as an address.
    pub fn is_like(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// A revision, as problems and reports call it: `kv://tg_routes/routes.yaml@7`.
    pub fn revision(&self, number: u64) -> String {
        format!("{self}@{number}")
    }
}

impl FromStr for TableAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<TableAddress, String> {
        let wrong = || format!("`{text}`: expected `kv://BUCKET` or `kv://BUCKET/KEY`, such as `kv://tg_routes`");
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, KEY));
        let is_token =
            |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        match is_token(bucket) && key.split('.').all(is_token) {
            true => Ok(TableAddress { bucket: bucket.to_owned(), key: key.to_owned() }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for TableAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.key)
    }
}

/// One revision of a table.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its number: grows with every put to the bucket.
    pub number: u64,
    /// When it was put, milliseconds since 1970.
    pub created_ms: i64,
    /// Bytes that it takes.
    pub bytes: usize,
    /// The table, and what its writer said of it; or why it cannot be read.
    pub stored: Result<Stored, Vec<Problem>>,
}

/// The table of an address, to be changed.
pub struct TableBucket {
    address: TableAddress,
    bucket: Bucket,
}

impl TableBucket {
    /// Opens the bucket; makes it where the store may. Fails where it cannot be reached, or is not there.
    pub async fn open(store: &Store, address: &TableAddress) -> Result<TableBucket, StoreError> {
        let config = BucketConfig { name: interned(&address.bucket), ttl: None, history: HISTORY };
        Ok(TableBucket { address: address.clone(), bucket: store.bucket(config).await? })
    }

    /// The newest revision; nothing where there is none.
    pub async fn newest(&self) -> Result<Option<Revision>, StoreError> {
        let entry = self.bucket.get(&self.address.key).await?;
        Ok(entry.map(|entry| revision(&self.address, &change(entry))))
    }

    /// Every revision that the bucket keeps, the oldest first.
    pub async fn history(&self) -> Result<Vec<Revision>, StoreError> {
        let changes = self.bucket.history(&self.address.key).await?;
        Ok(changes.iter().map(|change| revision(&self.address, change)).collect())
    }

    /// Puts a table and gives its revision. Fails with [`StoreError::Conflict`] where another one is there than
    /// expected, and with [`StoreError::TooLarge`] where it is larger than a value may be.
    pub async fn put(&self, stored: &Stored, expected: Expected) -> Result<u64, StoreError> {
        self.bucket.put(&self.address.key, stored.write(), expected).await
    }
}

fn change(entry: Entry) -> Change {
    Change { key: entry.key, value: Some(entry.value), revision: entry.revision, created_ms: entry.created_ms }
}

fn revision(address: &TableAddress, change: &Change) -> Revision {
    let name = address.revision(change.revision);
    let stored = match &change.value {
        Some(value) => Stored::read(&name, value),
        None => {
            let problem = Problem::new(Place::new(&name, 1, 1), "the table was deleted from its bucket");
            Err(vec![problem.hint("`tidegate routes rollback` puts an earlier revision in force")])
        }
    };
    let bytes = change.value.as_ref().map_or(0, |value| value.len());
    Revision { number: change.revision, created_ms: change.created_ms, bytes, stored }
}

/// A watched table. What it knows stays while the bucket cannot be reached.
pub struct BucketSource {
    address: TableAddress,
    newest: watch::Sender<Newest>,
    count: watch::Sender<u64>,
}

#[derive(Default)]
struct Newest {
    change: Option<Change>,
    /// Why there is nothing yet.
    trouble: String,
}

impl BucketSource {
    /// Watches a table until nobody holds the source any more, whether the bucket can be reached now or not.
    pub fn follow(store: Store, address: TableAddress) -> Arc<BucketSource> {
        let trouble = "the bucket does not answer yet".to_owned();
        let newest = watch::Sender::new(Newest { change: None, trouble });
        let source = Arc::new(BucketSource { address, newest, count: watch::Sender::new(0) });
        tokio::spawn(feed(Arc::downgrade(&source), store, source.address.clone()));
        source
    }

    /// Waits for the first revision.
    pub async fn arrived(&self) {
        let mut newest = self.newest.subscribe();
        // The sender lives in this source, so waiting cannot fail.
        let _ = newest.wait_for(|newest| newest.change.is_some()).await;
    }

    /// Why there is no table yet.
    pub fn trouble(&self) -> String {
        self.newest.borrow().trouble.clone()
    }

    /// The revision of that name as bytes to keep elsewhere, where it is still the newest.
    pub fn copy_of(&self, name: &str) -> Option<Vec<u8>> {
        let newest = self.newest.borrow();
        let change = newest.change.as_ref().filter(|change| self.address.revision(change.revision) == name)?;
        Some([change.revision.to_string().as_bytes(), b"\n", change.value.as_ref()?].concat())
    }

    /// Begins with a copy that [`BucketSource::copy_of`] made, unless a revision has come meanwhile; false where it is
    /// no such copy.
    pub fn begin_with(&self, copy: &[u8]) -> bool {
        let Some(at) = copy.iter().position(|byte| *byte == b'\n') else { return false };
        let revision = std::str::from_utf8(&copy[..at]).ok().and_then(|number| number.parse().ok());
        let Some(revision) = revision else { return false };
        let value = Some(copy[at + 1..].to_vec().into());
        let change = Change { key: self.address.key.clone(), value, revision, created_ms: 0 };
        self.newest.send_if_modified(|newest| match newest.change {
            Some(_) => false,
            None => {
                newest.change = Some(change);
                true
            }
        });
        true
    }

    fn take(&self, change: Change, is_first: bool) {
        let is_new = self.newest.send_if_modified(|newest| {
            // A bucket that was made anew counts from 1 again, so what a fresh watch tells first is believed.
            let is_new = newest
                .change
                .as_ref()
                .is_none_or(|known| change.revision > known.revision || is_first && change.value != known.value);
            if is_new {
                newest.change = Some(change);
            }
            is_new
        });
        if is_new {
            self.count.send_modify(|count| *count += 1);
        }
    }

    fn note(&self, trouble: &str) -> bool {
        self.newest.send_if_modified(|newest| {
            let is_other = newest.trouble != trouble;
            trouble.clone_into(&mut newest.trouble);
            is_other
        })
    }
}

impl Source for BucketSource {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        let newest = self.newest.borrow();
        match &newest.change {
            Some(change) => revision(&self.address, change).stored.map(|stored| stored.material),
            None => Err(vec![Problem::new(Place::new(&self.address.to_string(), 1, 1), newest.trouble.as_str())]),
        }
    }

    fn changes(&self) -> Changes {
        Changes::Counted(self.count.subscribe())
    }
}

/// Keeps a source up to date.
async fn feed(source: Weak<BucketSource>, store: Store, address: TableAddress) {
    while source.strong_count() > 0 {
        if let Err(error) = watch_once(&source, &store, &address).await {
            let text = match error {
                StoreError::NoBucket(_) => {
                    format!("there is no bucket `{}`: `tidegate routes push` makes it", address.bucket)
                }
                error => error.to_string(),
            };
            if source.upgrade().is_some_and(|source| source.note(&text)) {
                tracing::warn!(table = %address, "the table cannot be watched: {text}");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Watches until that fails, or nobody holds the source any more.
async fn watch_once(source: &Weak<BucketSource>, store: &Store, address: &TableAddress) -> Result<(), StoreError> {
    let TableBucket { bucket, .. } = TableBucket::open(store, address).await?;
    let mut watch = bucket.watch(Keys::One(address.key.clone()), None).await?;
    let mut is_first = true;
    loop {
        let seen = match tokio::time::timeout(LOOK, watch.next()).await {
            Ok(seen) => Some(seen?),
            Err(_) => bucket.get(&address.key).await?.map(|entry| Seen::Change(change(entry))),
        };
        let Some(source) = source.upgrade() else { return Ok(()) };
        match seen {
            Some(Seen::Change(change)) => {
                source.take(change, std::mem::take(&mut is_first));
                source.note("");
            }
            Some(Seen::Current) if is_first => {
                let text = format!("bucket `{}` has no table `{}`: push one", address.bucket, address.key);
                if source.note(&text) {
                    tracing::warn!(table = %address, "{text}");
                }
            }
            Some(Seen::Current) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_bucket_and_a_key() {
        let address = |text: &str| text.parse::<TableAddress>().map(|address| address.to_string());
        assert_eq!(address("kv://tg_routes"), Ok("kv://tg_routes/routes.yaml".to_owned()));
        assert_eq!(address("kv://a-b/eu.west.routes"), Ok("kv://a-b/eu.west.routes".to_owned()));
        for wrong in ["kv://", "kv:///key", "kv://a/", "kv://a/b/c", "kv://a.b", "kv://a/*", "routes.yaml"] {
            let text = format!("`{wrong}`: expected `kv://BUCKET` or `kv://BUCKET/KEY`, such as `kv://tg_routes`");
            assert_eq!(address(wrong), Err(text));
        }
    }
}
