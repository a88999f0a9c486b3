//! Reload: a source changed → quiet for a moment → read → build off the runtime → swap one pointer, or keep the last
//! good tables and say why.

use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::Live;
use super::problem::{Place, Problem, render};
use super::sources::{Material, Source};

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
pub fn watch(live: Arc<Live>, source: Arc<dyn Source>, first: Material) -> tokio::sync::watch::Receiver<Outcome> {
    let (outcome, seen) = tokio::sync::watch::channel(Outcome::default());
    if source.watched().is_empty() {
        return seen;
    }
    let (changed, mut changes) = mpsc::channel(1);
    let watcher = watcher(source.as_ref(), changed);
    tokio::spawn(async move {
        // The watcher lives as long as the task. Without it the poll alone finds changes.
        let _watcher = watcher;
        let mut before = fingerprint(&first);
        while !outcome.is_closed() {
            match tokio::time::timeout(POLL, changes.recv()).await {
                Ok(Some(())) => quiet(&mut changes).await,
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(_) => {}
            }
            reload(&live, &source, &mut before, &outcome).await;
        }
    });
    seen
}

fn watcher(source: &dyn Source, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    })
    .ok()?;
    for folder in source.watched() {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::Recursive) {
            tracing::warn!(folder = %folder.display(), %error, "cannot be watched: changes are found by polling");
        }
    }
    Some(watcher)
}

/// Waits until nothing has changed for [`QUIET`].
async fn quiet(changes: &mut mpsc::Receiver<()>) {
    while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
}

async fn reload(
    live: &Arc<Live>,
    source: &Arc<dyn Source>,
    before: &mut u64,
    outcome: &tokio::sync::watch::Sender<Outcome>,
) {
    let (reader, current) = (source.clone(), live.pin());
    // Reading and compiling take a while: off the runtime's thread.
    let built = tokio::task::spawn_blocking(move || match reader.read() {
        Ok(material) => {
            let built = match half_written(&material) {
                Some(problem) => Err(vec![problem]),
                None => material.build(Some(&current)),
            };
            (fingerprint(&material), built.map_err(|problems| render(&problems, false, |file| material.text_of(file))))
        }
        Err(problems) => {
            let report = render(&problems, false, |_| None);
            (hash_of(&report), Err(report))
        }
    });
    let Ok((fingerprint, built)) = built.await else { return };
    if fingerprint == *before {
        return;
    }
    *before = fingerprint;
    match built {
        Ok(snapshot) => {
            let routes = snapshot.routes.len();
            live.swap(snapshot);
            outcome.send_modify(|outcome| {
                outcome.applied += 1;
                (outcome.is_stale, outcome.report) = (false, String::new());
            });
            tracing::info!(routes, generation = live.pin().generation, "tables reloaded");
        }
        Err(report) => {
            tracing::error!("reload refused, the last good tables stay in force\n{report}");
            outcome.send_modify(|outcome| {
                outcome.refused += 1;
                (outcome.is_stale, outcome.report) = (true, report);
            });
        }
    }
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
