//! What keeps the embedded store on disk: one database file, and a thread that writes to it. Rows are handed over in the order in which
//! memory changed, while its lock is held; one thread writes them, all that wait in one commit, and nothing is
//! acknowledged before its commit is on disk.

mod tables;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use redb::{Database, DatabaseError, StorageError};
use tokio::sync::watch;

use super::super::StoreError;
use tables::{FORMAT, commit, prepare};

pub(super) use tables::{Row, SavedBucket, SavedConsumer, SavedLog};

/// The database in its folder.
const FILE: &str = "tidegate.redb";
/// Bytes of rows that wait for their commit before new writes wait, too.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The database's own cache: memory has all that is read, so little is worth keeping.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Number of a commit: what has been handed over up to it is on disk once it has been made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The database, and the thread that writes to it.
pub(super) struct Disk {
    database: Arc<Database>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

struct Queue {
    waiting: Mutex<Waiting>,
    has_more: Condvar,
    settled: watch::Sender<Settled>,
}

#[derive(Default)]
struct Waiting {
    rows: Vec<Row>,
    bytes: usize,
    /// The commit that the next rows go into.
    next: u64,
    is_closing: bool,
}

/// How far the writer is.
#[derive(Clone, Default)]
struct Settled {
    upto: Ticket,
    /// Why nothing is written any more.
    failure: Option<String>,
}

impl Disk {
    /// Opens the store of a folder, made where there is none yet. Every page is checked: it is all read anyway.
    pub(super) fn open(folder: &Path) -> Result<Disk, StoreError> {
        let file = folder.join(FILE);
        let refused = |text: String| StoreError::NotOpened(text);
        std::fs::create_dir_all(folder)
            .map_err(|error| refused(format!("the folder `{}` cannot be made: {error}", folder.display())))?;
        let name = file.display().to_string();
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create(&file).map_err(|error| refused(why_not(&name, error)))?;
        Disk::over(database).map_err(|error| match error {
            NotOurs::Format(found) => refused(format!(
                "`{name}` was written by another version of Tidegate (format {found}, this one reads {FORMAT}): run \
                 that version, or name another folder"
            )),
            NotOurs::Failed(text) => refused(format!("`{name}` cannot be used: {text}")),
        })
    }

    fn over(database: Database) -> Result<Disk, NotOurs> {
        prepare(&database)?;
        let database = Arc::new(database);
        let waiting = Waiting { next: 1, ..Waiting::default() };
        let queue = Arc::new(Queue {
            waiting: Mutex::new(waiting),
            has_more: Condvar::new(),
            settled: watch::Sender::new(Settled::default()),
        });
        let (theirs, rows) = (database.clone(), queue.clone());
        let writer = std::thread::Builder::new().name("store".to_owned()).spawn(move || write_all(&theirs, &rows));
        let writer = writer.map_err(|error| NotOurs::Failed(error.to_string()))?;
        Ok(Disk { database, queue, writer: Some(writer) })
    }

    /// Waits until rows may be handed over.
    pub(super) async fn room(&self) -> Result<(), StoreError> {
        let mut settled = self.queue.settled.subscribe();
        loop {
            if let Some(failure) = &settled.borrow_and_update().failure {
                return Err(StoreError::Unavailable(failure.clone()));
            }
            if self.queue.lock().bytes < WAITING_BYTES_MAX {
                return Ok(());
            }
            // The sender lives in `self`, so waiting cannot fail.
            let _ = settled.changed().await;
        }
    }

    /// Hands rows over. To be called with the lock held of what they describe: their order is that of the changes.
    pub(super) fn send(&self, rows: Vec<Row>) -> Ticket {
        let mut waiting = self.queue.lock();
        if self.queue.settled.borrow().failure.is_some() {
            return Ticket(waiting.next);
        }
        waiting.bytes += rows.iter().map(Row::size).sum::<usize>();
        waiting.rows.extend(rows);
        self.queue.has_more.notify_one();
        Ticket(waiting.next)
    }

    /// A bucket as it was left.
    pub(super) fn bucket(&self, name: &str) -> Result<SavedBucket, StoreError> {
        tables::bucket(&self.database, name)
    }

    /// A log as it was left.
    pub(super) fn log(&self, name: &str) -> Result<SavedLog, StoreError> {
        tables::log(&self.database, name)
    }

    /// A consumer as it was left.
    pub(super) fn consumer(&self, log: &str, name: &str) -> Result<SavedConsumer, StoreError> {
        tables::consumer(&self.database, log, name)
    }

    /// Waits until a commit is on disk. Fails where it will never be.
    pub(super) async fn until(&self, ticket: Ticket) -> Result<(), StoreError> {
        if self.queue.settled.borrow().upto >= ticket {
            return Ok(());
        }
        let mut settled = self.queue.settled.subscribe();
        let reached = settled.wait_for(|settled| settled.upto >= ticket || settled.failure.is_some()).await;
        match reached {
            Ok(settled) if settled.upto >= ticket => Ok(()),
            Ok(settled) => Err(StoreError::Unavailable(settled.failure.clone().unwrap_or_default())),
            Err(_) => Err(StoreError::Unavailable("the store has been closed".to_owned())),
        }
    }
}

impl Drop for Disk {
    /// Writes what waits, and closes the file.
    fn drop(&mut self) {
        self.queue.lock().is_closing = true;
        self.queue.has_more.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows that wait, and their ticket; nothing once the store is closed and all is written.
    fn take(&self) -> Option<(Vec<Row>, Ticket)> {
        let mut waiting = self.lock();
        while waiting.rows.is_empty() {
            if waiting.is_closing {
                return None;
            }
            waiting = self.has_more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let ticket = Ticket(waiting.next);
        waiting.next += 1;
        waiting.bytes = 0;
        Some((std::mem::take(&mut waiting.rows), ticket))
    }
}

/// Tells those who wait that nobody writes any more, also where the writer panicked.
struct End<'q>(&'q Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let text = || "the store's writer has ended: restart".to_owned();
        self.0.settled.send_modify(|settled| {
            settled.failure.get_or_insert_with(text);
        });
    }
}

/// The writer's thread.
fn write_all(database: &Database, queue: &Queue) {
    let _end = End(queue);
    while let Some((rows, ticket)) = queue.take() {
        match commit(database, &rows) {
            Ok(()) => queue.settled.send_modify(|settled| settled.upto = ticket),
            Err(error) => {
                // Memory is ahead of the disk from here on: only a restart brings them together.
                let text = format!("the disk takes no writes ({error}): mend it, then restart");
                tracing::error!(%error, "the store on disk is closed: {text}");
                queue.settled.send_modify(|settled| settled.failure = Some(text.clone()));
                return;
            }
        }
    }
}

/// Why a database is not taken.
enum NotOurs {
    Format(u64),
    Failed(String),
}

impl<E: Into<redb::Error>> From<E> for NotOurs {
    fn from(error: E) -> NotOurs {
        NotOurs::Failed(error.into().to_string())
    }
}

fn why_not(file: &str, error: DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            format!("`{file}` is in use by another process: stop it, or name another folder")
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => {
            format!("`{file}` cannot be opened: {error}")
        }
        error => format!(
            "`{file}` is damaged or not written by Tidegate ({error}): bring a copy back, or move it away to begin anew"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::super::super::{BucketConfig, Expected};
    use super::super::bucket::EmbeddedBucket;
    use super::super::journal::Backing;
    use super::*;

    /// A disk that is full once it is told so.
    #[derive(Debug)]
    struct Filling {
        inner: InMemoryBackend,
        is_full: Arc<AtomicBool>,
    }

    impl Filling {
        fn check(&self) -> Result<(), Error> {
            if self.is_full.load(Ordering::SeqCst) { Err(Error::other("no space left")) } else { Ok(()) }
        }
    }

    impl StorageBackend for Filling {
        fn len(&self) -> Result<u64, Error> {
            self.inner.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
            self.inner.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), Error> {
            self.check().and_then(|()| self.inner.set_len(len))
        }

        fn sync_data(&self) -> Result<(), Error> {
            self.check().and_then(|()| self.inner.sync_data())
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
            self.check().and_then(|()| self.inner.write(offset, data))
        }
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_neither_acknowledged_nor_shown() {
        let is_full = Arc::new(AtomicBool::new(false));
        let backend = Filling { inner: InMemoryBackend::new(), is_full: is_full.clone() };
        let disk = Disk::over(Database::builder().create_with_backend(backend).unwrap()).ok().unwrap();
        let config = BucketConfig { name: "tg_test", ttl: None, history: 1 };
        let bucket = EmbeddedBucket::new(config, Backing(Some(Arc::new(disk)))).unwrap();
        let put = async |key: &str| bucket.write(key, Some(Bytes::from_static(b"x")), Expected::Any).await;
        assert_eq!(put("a").await, Ok(1));
        is_full.store(true, Ordering::SeqCst);
        let refused = StoreError::Unavailable(
            "the disk takes no writes (I/O error: no space left): mend it, then restart".to_owned(),
        );
        assert_eq!(put("a").await, Err(refused.clone()));
        assert_eq!(bucket.get("a").await, Err(refused.clone()), "nobody sees what may be gone after a restart");
        is_full.store(false, Ordering::SeqCst);
        assert_eq!(put("b").await, Err(refused), "memory is ahead of the disk, so only a restart helps");
        assert_eq!(bucket.get("b").await, Ok(None));
    }
}
