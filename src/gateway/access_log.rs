//! The access log: a line of JSON for each request, written by a thread of its own behind a bounded queue. A full queue
//! drops lines and counts them; no request waits for its line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::telemetry;

/// Lines that wait to be written.
const QUEUE: usize = 8_192;
/// How often a file is looked for that somebody has moved away.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for the last lines.
const LAST_MAX: Duration = Duration::from_secs(2);

/// Where lines go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessConfig {
    /// The file; standard output without one.
    pub file: Option<PathBuf>,
    /// The part of the requests that is logged, 0 to 1; those that end with an error always are.
    pub sample: f64,
}

/// The log of an edge.
#[derive(Debug)]
pub(super) struct AccessLog {
    sample: f64,
    queue: SyncSender<Entry>,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before it is to be written, and then this is answered.
    Mark(oneshot::Sender<()>),
}

impl AccessLog {
    /// Opens the log and starts its thread.
    pub(super) fn open(config: &AccessConfig) -> io::Result<AccessLog> {
        let mut target = Target::open(config.file.as_deref())?;
        let (queue, entries) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || target.write_all(&entries))?;
        Ok(AccessLog { sample: config.sample, queue })
    }

    /// True where a request that ends well is to be logged.
    pub(super) fn samples(&self) -> bool {
        self.sample >= 1.0 || fastrand::f64() < self.sample
    }

    /// Takes a line, which has its end.
    pub(super) fn take(&self, line: Vec<u8>) {
        if self.queue.try_send(Entry::Line(line)).is_err() {
            metrics::counter!(telemetry::ACCESS_DROPPED).increment(1);
        }
    }

    /// Returns once everything is written that was taken until now, or it takes too long.
    pub(super) async fn flush(&self) {
        let (written, is_written) = oneshot::channel();
        if self.queue.try_send(Entry::Mark(written)).is_ok() {
            let _ = tokio::time::timeout(LAST_MAX, is_written).await;
        }
    }
}

enum Target {
    Output,
    File { path: PathBuf, file: BufWriter<File>, looked: Instant },
}

impl Target {
    fn open(path: Option<&Path>) -> io::Result<Target> {
        let Some(path) = path else { return Ok(Target::Output) };
        let file = BufWriter::new(append_to(path)?);
        Ok(Target::File { path: path.to_owned(), file, looked: Instant::now() })
    }

    fn write_all(&mut self, entries: &Receiver<Entry>) {
        let mut is_failing = false;
        while let Ok(entry) = entries.recv() {
            let result = self.follow().and_then(|()| self.write_those_there(entry, entries));
            match result {
                Ok(()) => is_failing = false,
                Err(error) => {
                    metrics::counter!(telemetry::ACCESS_DROPPED).increment(1);
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "the access log cannot be written");
                    }
                }
            }
        }
    }

    /// An entry and those that have come meanwhile, and then flushes.
    fn write_those_there(&mut self, first: Entry, entries: &Receiver<Entry>) -> io::Result<()> {
        let (mut next, mut output) = (Ok(first), Vec::new());
        loop {
            match next {
                Ok(Entry::Line(line)) => match self {
                    Target::Output => output.extend_from_slice(&line),
                    Target::File { file, .. } => file.write_all(&line)?,
                },
                Ok(Entry::Mark(written)) => {
                    self.flush(&mut output)?;
                    let _ = written.send(());
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return self.flush(&mut output),
            }
            next = entries.try_recv();
        }
    }

    fn flush(&mut self, output: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Target::Output => {
                let lines = std::mem::take(output);
                let mut out = io::stdout().lock();
                out.write_all(&lines)?;
                out.flush()
            }
            Target::File { file, .. } => file.flush(),
        }
    }

    /// Opens the file anew where its name leads to another one, or to none: somebody rotates it.
    fn follow(&mut self) -> io::Result<()> {
        let Target::File { path, file, looked } = self else { return Ok(()) };
        if looked.elapsed() < LOOK {
            return Ok(());
        }
        *looked = Instant::now();
        let (own, named) = (file.get_ref().metadata()?, std::fs::metadata(&*path));
        if !named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())) {
            file.flush()?;
            *file = BufWriter::new(append_to(path)?);
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_go_to_the_file_of_that_name_also_after_somebody_has_moved_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::open(&AccessConfig { file: Some(path.clone()), sample: 1.0 }).unwrap();
        log.take(b"one\n".to_vec());
        log.flush().await;
        std::fs::rename(&path, &moved).unwrap();
        let start = Instant::now();
        // The new file may be there before its first line is.
        while std::fs::read_to_string(&path).unwrap_or_default().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "no new file");
            log.take(b"two\n".to_vec());
            log.flush().await;
        }
        assert!(std::fs::read_to_string(&moved).unwrap().starts_with("one\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }
}
