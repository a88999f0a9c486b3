//! Reload: a source changed → quiet for a moment → read → build off the runtime → swap one pointer, or keep the last
//! good tables and say why.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};

use super::problem::{Place, Problem, render};
use super::sources::{Material, Source};
use super::{Live, Snapshot};

/// Quiet time after a change, because editors and ConfigMaps change several files.
const QUIET: Duration = Duration::from_millis(300);
/// How often the source is read without any sign of change; file systems without events need it.
const POLL: Duration = Duration::from_secs(5);

/// How the last reload went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Reloads that took effect.
    pub applied: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// The last one was refused.
    pub is_stale: bool,
    /// What was wrong with it, as shown to people.
    pub report: String,
}

/// Keeps `live` up to date with a source until the task is dropped.
pub fn watch(live: Arc<Live>, source: Arc<dyn Source>, first: Material) -> watch::Receiver<Outcome> {
    let folders = source.watched();
    if folders.is_empty() {
        return watch::channel(Outcome::default()).1;
    }
    let before = fingerprint(&first);
    // Its bytes are not needed any more.
    drop(first);
    let current = live.clone();
    let read = move |before: u64| read_anew(&current, source.as_ref(), before);
    let apply = move |snapshot: Snapshot| {
        let routes = snapshot.routes.len();
        live.swap(snapshot);
        tracing::info!(routes, generation = live.pin().generation, "tables reloaded");
    };
    follow("the last good tables", &folders, before, read, apply)
}

/// Keeps something up to date with files until the task is dropped: `read` gets the fingerprint of what was read last
/// and gives nothing where that is still so, else the new fingerprint and the new value, or what is wrong with it;
/// `apply` puts a value in force. `kept` names what a faulty file leaves in force.
pub fn follow<T: Send + 'static>(
    kept: &'static str,
    folders: &[PathBuf],
    first: u64,
    read: impl Fn(u64) -> Option<(u64, Result<T, String>)> + Send + Sync + 'static,
    apply: impl Fn(T) + Send + 'static,
) -> watch::Receiver<Outcome> {
    let (outcome, seen) = watch::channel(Outcome::default());
    let (changed, mut changes) = mpsc::channel(1);
    let watcher = watcher(folders, changed);
    let read = Arc::new(read);
    tokio::spawn(async move {
        // The watcher lives as long as the task. Without it the poll alone finds changes.
        let _watcher = watcher;
        let mut before = first;
        while !outcome.is_closed() {
            match tokio::time::timeout(POLL, changes.recv()).await {
                Ok(Some(())) => quiet(&mut changes).await,
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(_) => {}
            }
            let reader = read.clone();
            // Reading and compiling take a while: off the runtime's thread.
            let reading = tokio::task::spawn_blocking(move || reader(before)).await;
            let Ok(Some((fingerprint, result))) = reading else { continue };
            before = fingerprint;
            match result {
                Ok(value) => {
                    apply(value);
                    outcome.send_modify(|outcome| {
                        outcome.applied += 1;
                        (outcome.is_stale, outcome.report) = (false, String::new());
                    });
                }
                Err(report) => {
                    tracing::error!("reload refused, {kept} stay in force\n{report}");
                    outcome.send_modify(|outcome| {
                        outcome.refused += 1;
                        (outcome.is_stale, outcome.report) = (true, report);
                    });
                }
            }
        }
    });
    seen
}

fn watcher(folders: &[PathBuf], changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })
    .ok()?;
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::Recursive) {
            tracing::warn!(folder = %folder.display(), %error, "cannot be watched: changes are found by polling");
        }
    }
    Some(watcher)
}

/// Waits until nothing has changed for [`QUIET`].
async fn quiet(changes: &mut mpsc::Receiver<()>) {
    while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
}

/// Nothing where the source is as it was.
fn read_anew(live: &Live, source: &dyn Source, before: u64) -> Option<(u64, Result<Snapshot, String>)> {
    let material = match source.read() {
        Ok(material) => material,
        Err(problems) => {
            let report = render(&problems, false, |_| None);
            return Some((hash_of(&report), Err(report))).filter(|read| read.0 != before);
        }
    };
    let fingerprint = fingerprint(&material);
    if fingerprint == before {
        return None;
    }
    let built = match half_written(&material) {
        Some(problem) => Err(vec![problem]),
        None => material.build(Some(&live.pin())),
    };
    Some((fingerprint, built.map_err(|problems| render(&problems, false, |file| material.text_of(file)))))
}

/// An empty file is one that somebody is still writing: it would build, and take all of its routes away.
fn half_written(material: &Material) -> Option<Problem> {
    let routes = (material.routes_name.as_str(), material.routes.as_bytes());
    let descriptors = material.descriptors.iter().map(|file| (file.name.as_str(), file.bytes.as_slice()));
    let mut files = std::iter::once(routes).chain(descriptors);
    let (name, _) = files.find(|(_, bytes)| bytes.trim_ascii().is_empty())?;
    Some(Problem::new(Place::new(name, 1, 1), "this file is empty, as one that is still being written"))
}

fn fingerprint(material: &Material) -> u64 {
    let files: Vec<(&str, &[u8])> =
        material.descriptors.iter().map(|file| (file.name.as_str(), file.bytes.as_slice())).collect();
    hash_of(&(&material.routes, files))
}

fn hash_of(value: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
