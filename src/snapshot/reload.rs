//! Reload: a source changed → read → build off the runtime → swap one pointer, or keep the last good tables and say why.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};

use super::problem::render;
use super::sources::{Changes, Material, Source};
use super::{Live, Snapshot, compat};

/// Quiet time after a change of files.
const QUIET: Duration = Duration::from_millis(300);
/// How often files are read without any sign of change; file systems without events need it.
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
    /// What is in force, as its source calls it: a file, or a revision of a bucket.
    pub in_force: String,
    /// What was read last.
    pub last_read: String,
}

/// What a reload does with a schema that breaks clients of the routes in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaking {
    /// It is refused, unless the source itself says that it is meant.
    #[default]
    Refuse,
    /// It is said in the log.
    Allow,
}

/// How reloads are done.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What happens to a schema that breaks clients.
    pub breaking: Breaking,
    /// Counts up where somebody asks for a reload, changed or not.
    pub asked: Option<watch::Receiver<u64>>,
}

/// What one reading gave.
pub struct Reading<T> {
    /// Tells one content from another.
    pub fingerprint: u64,
    /// What its source calls it.
    pub name: String,
    /// The new value, or what is wrong with it, as shown to people.
    pub result: Result<T, String>,
}

/// Keeps `live` up to date with a source until nobody holds the outcome any more.
pub fn watch(live: Arc<Live>, source: Arc<dyn Source>, first: Material, rules: Rules) -> watch::Receiver<Outcome> {
    let changes = source.changes();
    let (before, name) = (first.fingerprint(), first.routes_name.clone());
    // Its bytes are not needed any more.
    drop(first);
    let current = live.clone();
    let read = move |before: Option<u64>| read_anew(&current, source.as_ref(), rules.breaking, before);
    let apply = move |snapshot: Snapshot| {
        let routes = snapshot.routes.len();
        for problem in &snapshot.left_out {
            tracing::warn!(place = %problem.place, "{}", problem.message);
        }
        live.swap(snapshot);
        tracing::info!(routes, generation = live.pin().generation, "tables reloaded");
    };
    let following = Following { kept: "the last good tables", changes, asked: rules.asked, first: before, name };
    follow(following, read, apply)
}

/// Something that is kept up to date.
pub struct Following {
    /// What a faulty change leaves in force.
    pub kept: &'static str,
    /// What tells that there is something to read.
    pub changes: Changes,
    /// Counts up where somebody asks for it to be read, changed or not.
    pub asked: Option<watch::Receiver<u64>>,
    /// The fingerprint of what is in force.
    pub first: u64,
    /// What that is called.
    pub name: String,
}

/// Keeps something up to date until nobody holds the outcome any more: `read` gets the fingerprint of what was read
/// last, or nothing where it is to be read in any case, and gives nothing where it is still so; `apply` puts a value in
/// force.
pub fn follow<T: Send + 'static>(
    following: Following,
    read: impl Fn(Option<u64>) -> Option<Reading<T>> + Send + Sync + 'static,
    apply: impl Fn(T) + Send + 'static,
) -> watch::Receiver<Outcome> {
    let Following { kept, changes, mut asked, first, name } = following;
    let (outcome, seen) = watch::channel(Outcome { in_force: name.clone(), last_read: name, ..Outcome::default() });
    let mut signs = Signs::of(changes);
    let read = Arc::new(read);
    tokio::spawn(async move {
        let mut before = first;
        loop {
            let known = tokio::select! {
                () = signs.next() => Some(before),
                () = next_count(&mut asked) => None,
                () = outcome.closed() => return,
            };
            let reader = read.clone();
            // Reading and compiling take a while: off the runtime's thread.
            let reading = tokio::task::spawn_blocking(move || reader(known)).await;
            let Ok(Some(reading)) = reading else { continue };
            before = reading.fingerprint;
            let name = reading.name;
            match reading.result {
                Ok(value) => {
                    apply(value);
                    outcome.send_modify(|outcome| {
                        outcome.applied += 1;
                        (outcome.is_stale, outcome.report) = (false, String::new());
                        (outcome.in_force, outcome.last_read) = (name.clone(), name);
                    });
                }
                Err(report) => {
                    tracing::error!("reload refused, {kept} stay in force\n{report}");
                    outcome.send_modify(|outcome| {
                        outcome.refused += 1;
                        (outcome.is_stale, outcome.report, outcome.last_read) = (true, report, name);
                    });
                }
            }
        }
    });
    seen
}

/// What is waited for between two readings.
#[derive(Default)]
struct Signs {
    /// The watcher lives as long as the waiting. Without it the poll alone finds changes.
    folders: Option<(mpsc::Receiver<()>, Option<notify::RecommendedWatcher>)>,
    counts: Vec<Option<watch::Receiver<u64>>>,
}

impl Signs {
    fn of(changes: Changes) -> Signs {
        let (mut signs, mut folders) = (Signs::default(), Vec::new());
        signs.gather(changes, &mut folders);
        if !folders.is_empty() {
            let (changed, changes) = mpsc::channel(1);
            signs.folders = Some((changes, watcher(&folders, changed)));
        }
        signs
    }

    fn gather(&mut self, changes: Changes, folders: &mut Vec<PathBuf>) {
        match changes {
            Changes::Folders(more) => folders.extend(more),
            Changes::Counted(mut count) => {
                // What was counted between the first reading and now is looked at.
                count.mark_changed();
                self.counts.push(Some(count));
            }
            Changes::Any(all) => all.into_iter().for_each(|changes| self.gather(changes, folders)),
            Changes::Never => {}
        }
    }

    /// Can be dropped while it waits: what it has seen is then read with the next sign.
    async fn next(&mut self) {
        let Signs { folders, counts } = self;
        let counted = async {
            match counts.is_empty() {
                true => std::future::pending().await,
                false => {
                    let all = counts.iter_mut().map(|count| Box::pin(next_count(count)));
                    futures_util::future::select_all(all).await;
                }
            }
        };
        let written = async {
            let Some((changes, _)) = folders else { return std::future::pending().await };
            match tokio::time::timeout(POLL, changes.recv()).await {
                Ok(Some(())) => quiet(changes).await,
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(_) => {}
            }
        };
        tokio::select! {
            () = counted => {}
            () = written => {}
        }
    }
}

/// Waits until a count has changed; for ever where there is none, or nobody counts any more.
async fn next_count(count: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = count
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *count = None;
    std::future::pending::<()>().await;
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
fn read_anew(live: &Live, source: &dyn Source, breaking: Breaking, before: Option<u64>) -> Option<Reading<Snapshot>> {
    let material = match source.read() {
        Ok(material) => material,
        Err(problems) => {
            let report = render(&problems, false, |_| None);
            let name = problems.first().map(|problem| problem.place.file.clone()).unwrap_or_default();
            let fingerprint = hash_of(&report);
            return Some(Reading { fingerprint, name, result: Err(report) })
                .filter(|reading| Some(reading.fingerprint) != before);
        }
    };
    let fingerprint = material.fingerprint();
    if Some(fingerprint) == before {
        return None;
    }
    let current = live.pin();
    let built = material.build(Some(&current)).and_then(|next| {
        let broken = compat::problems(&material, &compat::breaks(&current, &next));
        match breaking {
            Breaking::Refuse if !material.allows_breaking && !broken.is_empty() => Err(broken),
            _ => {
                for problem in &broken {
                    tracing::warn!(place = %problem.place, "{}", problem.message);
                }
                Ok(next)
            }
        }
    });
    let result = built.map_err(|problems| render(&problems, false, |file| material.text_of(file)));
    Some(Reading { fingerprint, name: material.routes_name, result })
}

pub(super) fn hash_of(value: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
