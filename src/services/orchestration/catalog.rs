//! The workflows that can be started: the built-in ones, and those of the configured folder, read again when it changes.
//! A faulty file is refused by itself, and what it said before stays in force.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::workflow::Workflow;
use crate::services::settings::{LiveSettings, workflow_files};
use crate::worker::Context;
use crate::written::read;

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The built-in workflows.
const BUILT_IN: [(&str, &str); 4] = [
    ("health_probe", include_str!("workflows/health_probe.yaml")),
    ("quest_pipeline", include_str!("workflows/quest_pipeline.yaml")),
    ("deal_settlement", include_str!("workflows/deal_settlement.yaml")),
    ("layered_generation", include_str!("workflows/layered_generation.yaml")),
];

/// The workflows in force.
pub(super) struct Catalog {
    settings: LiveSettings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_id: BTreeMap<String, Arc<Workflow>>,
    /// Ids by file.
    files: BTreeMap<String, String>,
    /// Of the files as they were read last; nothing before the first time.
    fingerprint: Option<u64>,
}

impl Catalog {
    pub(super) fn new(settings: &LiveSettings) -> Catalog {
        Catalog { settings: settings.clone(), state: Mutex::default() }
    }

    /// The workflow of that id.
    pub(super) async fn find(&self, context: &Context, id: &str) -> Option<Arc<Workflow>> {
        let is_read = self.with(|state| state.fingerprint.is_some());
        if !is_read {
            self.refresh(context).await;
        }
        self.with(|state| state.by_id.get(id).cloned())
    }

    /// Follows the folder until the worker drains.
    pub(super) async fn follow(&self, context: &Context) {
        loop {
            self.refresh(context).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = context.until_cancelled() => return,
            }
        }
    }

    async fn refresh(&self, context: &Context) {
        let folder = self.settings.now().orchestration.workflows.clone();
        let files = match folder {
            Some(folder) => match read_folder(folder).await {
                Ok(files) => files,
                Err(text) => {
                    tracing::error!("the workflows stay as they are: {text}");
                    return self.with(|state| state.take(built_in(), context));
                }
            },
            None => Vec::new(),
        };
        self.with(|state| state.take(built_in().chain(files), context));
    }

    fn with<A>(&self, use_it: impl FnOnce(&mut State) -> A) -> A {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn built_in() -> impl Iterator<Item = (String, String)> {
    BUILT_IN.iter().map(|(name, text)| (format!("built-in {name}"), (*text).to_owned()))
}

async fn read_folder(folder: PathBuf) -> Result<Vec<(String, String)>, String> {
    let reading = tokio::task::spawn_blocking(move || workflow_files(&folder));
    reading.await.unwrap_or_else(|error| Err(error.to_string()))
}

impl State {
    /// Takes the files as they are now, where anything has changed.
    fn take(&mut self, files: impl Iterator<Item = (String, String)>, context: &Context) {
        let files: Vec<(String, String)> = files.collect();
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        if self.fingerprint.replace(hasher.finish()) == Some(hasher.finish()) {
            return;
        }
        let (mut by_id, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for (file, text) in &files {
            let workflow = match parse(file, text, context) {
                Ok(workflow) => Arc::new(workflow),
                Err(problems) => {
                    tracing::error!("a workflow is refused\n{}", problems.join("\n"));
                    let before = self.files.get(file).and_then(|id| self.by_id.get(id));
                    let Some(before) = before else { continue };
                    before.clone()
                }
            };
            if by_id.contains_key(&workflow.id) {
                tracing::error!("a workflow is refused\n{file}: there is a workflow `{}` already", workflow.id);
                continue;
            }
            ids.insert(file.clone(), workflow.id.clone());
            by_id.insert(workflow.id.clone(), workflow);
        }
        (self.by_id, self.files) = (by_id, ids);
    }
}

/// A workflow file, or everything that is wrong with it.
fn parse(file: &str, text: &str, context: &Context) -> Result<Workflow, Vec<String>> {
    let written =
        read::<Workflow>(file, text).map_err(|problem| vec![format!("{}: {}", problem.place, problem.message)])?;
    let workflow = written.ok_or_else(|| vec![format!("{file}: it is empty")])?;
    let problems: Vec<String> =
        workflow.problems(context).into_iter().map(|problem| format!("{file}: {problem}")).collect();
    if problems.is_empty() { Ok(workflow) } else { Err(problems) }
}
