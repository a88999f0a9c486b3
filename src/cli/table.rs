//! `--routes` and `--descriptors`: where a command's tables are.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use super::built_in;
use crate::bus::Bus;
use crate::fault::{Code, Fault};
use crate::snapshot::{BucketSource, BuiltIn, Files, Outcome, Source, TableAddress, folder_of};
use crate::store::Store;

/// What names the tables that are part of the program.
const BUILT_IN: &str = "built-in";
/// How long a bucket has before a copy of its table is used.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// Where the tables are.
#[derive(Args, Clone)]
pub(super) struct TableArgs {
    /// The routes file: routes.yaml without it, or the game's tables where there is no such file; `built-in` are the
    /// game's tables in any case. `serve` also takes a bucket, `kv://BUCKET` or `kv://BUCKET/KEY`.
    #[arg(long, env = "TIDEGATE_ROUTES", value_name = "FILE")]
    pub(super) routes: Option<String>,
    /// Folder of .proto files and descriptor sets, or one such file: descriptors without it.
    #[arg(long, env = "TIDEGATE_DESCRIPTORS", value_name = "FOLDER")]
    pub(super) descriptors: Option<PathBuf>,
}

impl TableArgs {
    /// The files, named or not.
    pub(super) fn files(&self) -> Files {
        Files {
            routes: self.routes.as_deref().unwrap_or("routes.yaml").into(),
            descriptors: self.descriptors.clone().unwrap_or_else(|| "descriptors".into()),
        }
    }

    /// What was named, whether it is there or not; the built-in set where nobody named anything and no file is there.
    pub(super) fn source(&self) -> Result<Arc<dyn Source>, Fault> {
        let files = self.files();
        let is_named = self.routes.is_some() || self.descriptors.is_some();
        match self.routes.as_deref() {
            Some(BUILT_IN) => Ok(Arc::new(BuiltIn(built_in()))),
            Some(text) if TableAddress::is_like(text) => {
                let text = format!("only `serve` reads `{text}`: `tidegate routes pull` writes it as files");
                Err(Fault::client(Code::InvalidArgument, text))
            }
            None if !is_named && !files.routes.exists() => Ok(Arc::new(BuiltIn(built_in()))),
            _ => Ok(Arc::new(files)),
        }
    }

    /// The bucket that was named, where it is one.
    pub(super) fn address(&self) -> Result<Option<TableAddress>, Fault> {
        let refused = |text: String| Fault::client(Code::InvalidArgument, text);
        let address = self.routes.as_deref().filter(|text| TableAddress::is_like(text)).map(str::parse).transpose();
        let address: Option<TableAddress> = address.map_err(refused)?;
        match &address {
            Some(address) if self.descriptors.is_some() => {
                Err(refused(format!("{address} brings its descriptors: leave `--descriptors` out")))
            }
            _ => Ok(address),
        }
    }
}

/// A watched bucket that has a table: its own, or where the bucket does not answer, that of `copy`. Without both it
/// waits.
pub(super) async fn watched(bus: &Bus, address: TableAddress, copy: Option<&Path>) -> Arc<BucketSource> {
    let source = BucketSource::follow(Store::of(bus).without_creating(), address.clone());
    if tokio::time::timeout(FIRST_MAX, source.arrived()).await.is_ok() {
        return source;
    }
    if let Some(bytes) = copy.and_then(|path| std::fs::read(path).ok()) {
        if source.begin_with(&bytes) {
            tracing::warn!(table = %address, trouble = source.trouble(), "beginning with the copy of the table");
            return source;
        }
        tracing::error!("the copy of the table is none: it is left alone");
    }
    tracing::warn!(table = %address, trouble = source.trouble(), "waiting for the table");
    source.arrived().await;
    source
}

/// Keeps a copy of each revision that comes in force, until nobody reloads any more.
pub(super) async fn copy(source: Arc<BucketSource>, path: PathBuf, mut outcome: watch::Receiver<Outcome>) {
    loop {
        let in_force = outcome.borrow_and_update().in_force.clone();
        if let Some(bytes) = source.copy_of(&in_force) {
            let to = path.clone();
            // A disk may take its time: off the runtime's thread.
            let written = tokio::task::spawn_blocking(move || replace(&to, &bytes)).await;
            if let Ok(Err(error)) = written {
                tracing::error!(path = %path.display(), %error, "the copy of the table cannot be written");
            }
        }
        if outcome.changed().await.is_err() {
            return;
        }
    }
}

/// Puts a file in the place of another. Nobody ever finds half of it, not even after the machine has lost its power: it is
/// written beside the old one first, and on the disk before it takes its name.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let next = path.with_extension("next");
    let mut file = std::fs::File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&next, path)?;
    std::fs::File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        for bytes in [b"a long first one".as_slice(), b"short"] {
            replace(&path, bytes).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("missing/table.json"), b"").is_err());
    }
}
