//! The settings in force: read from a file that is watched, replaced as a whole, never by a faulty file.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::{SecretSource, Settings};
use crate::config;
use crate::snapshot::{self, Changes, Following, Outcome, folder_of};
use crate::telemetry;
use crate::written::problem::{Place, Problem, render};

/// The settings in force. Cloning shares them; [`LiveSettings::now`] is cheap, and what it gave stays as it is.
#[derive(Clone, Debug)]
pub struct LiveSettings(Arc<watch::Sender<Arc<Settings>>>);

impl From<Settings> for LiveSettings {
    fn from(settings: Settings) -> LiveSettings {
        LiveSettings(Arc::new(watch::Sender::new(Arc::new(settings))))
    }
}

impl Default for LiveSettings {
    fn default() -> LiveSettings {
        Settings::default().into()
    }
}

impl LiveSettings {
    /// Reads a file and follows it as long as the runtime runs: watched, and read every 5 s at the latest. Fails with
    /// everything that is wrong with it, as shown to people, secrets that cannot be read included.
    pub fn follow(file: &Path) -> Result<(LiveSettings, watch::Receiver<Outcome>), String> {
        let reading = Reading::of(file).map_err(|problem| render(&[problem], false, |_| None))?;
        let live = LiveSettings::from(reading.settings(None)?);
        let (reader, path) = (live.clone(), file.to_owned());
        let read = move |before| read_anew(&reader, &path, before);
        let applied = live.clone();
        let apply = move |settings: Settings| {
            applied.0.send_replace(Arc::new(settings));
            tracing::info!("service settings reloaded");
        };
        let following = Following {
            kept: "the last good service settings",
            changes: Changes::Folders(vec![folder_of(file)]),
            asked: None,
            first: reading.fingerprint(),
            name: reading.name,
        };
        let outcome = snapshot::follow(following, read, apply);
        tokio::spawn(count(outcome.clone()));
        Ok((live, outcome))
    }

    /// The settings in force. A call takes them once, so that it ends with the values it began with.
    pub fn now(&self) -> Arc<Settings> {
        self.0.borrow().clone()
    }

    /// The settings in force, now and later.
    pub fn changes(&self) -> watch::Receiver<Arc<Settings>> {
        self.0.subscribe()
    }
}

/// A file's text, with its name.
struct Reading {
    name: String,
    text: String,
}

impl Reading {
    fn of(file: &Path) -> Result<Reading, Problem> {
        let name = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => Ok(Reading { name, text }),
            Err(error) => Err(Problem::new(Place::new(&name, 1, 1), format!("cannot be read: {error}"))),
        }
    }

    /// The settings with their secrets; `in_force` says what only a restart may change.
    fn settings(&self, in_force: Option<&Settings>) -> Result<Settings, String> {
        let read = Settings::parse_with(&self.name, &self.text, Some(secret)).and_then(|settings| {
            let refused = in_force.map(|in_force| settings.refused_changes(&self.name, in_force));
            match refused.filter(|refused| !refused.is_empty()) {
                Some(refused) => Err(refused),
                None => Ok(settings),
            }
        });
        read.map_err(|problems| render(&problems, false, |file| (file == self.name).then(|| self.text.clone())))
    }

    /// Changes with the text and with the secrets that it names, which are rotated without touching the file.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        for source in Settings::secrets_of(&self.name, &self.text) {
            secret(&source).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Nothing where nothing has changed since the fingerprint.
fn read_anew(live: &LiveSettings, file: &Path, before: Option<u64>) -> Option<snapshot::Reading<Settings>> {
    let (fingerprint, result) = match Reading::of(file) {
        Ok(reading) if reading.text.trim().is_empty() => {
            // An empty file is one that somebody is still writing: it would set everything back to its default.
            let problem =
                Problem::new(Place::new(&reading.name, 1, 1), "this file is empty, as one that is still being written");
            (reading.fingerprint(), Err(render(&[problem], false, |_| None)))
        }
        Ok(reading) => {
            let fingerprint = reading.fingerprint();
            if Some(fingerprint) == before {
                return None;
            }
            (fingerprint, reading.settings(Some(&live.now())))
        }
        Err(problem) => {
            let mut hasher = DefaultHasher::new();
            problem.message.hash(&mut hasher);
            (hasher.finish(), Err(render(&[problem], false, |_| None)))
        }
    };
    let name = file.display().to_string();
    (Some(fingerprint) != before).then_some(snapshot::Reading { fingerprint, name, result })
}

/// Reads a secret from where it is.
fn secret(source: &SecretSource) -> Result<String, String> {
    match source {
        SecretSource::File(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))
        }
        SecretSource::Variable(name) => {
            config::variable(name).ok_or_else(|| format!("the environment has no variable `{name}`"))
        }
    }
}

async fn count(mut outcome: watch::Receiver<Outcome>) {
    while outcome.changed().await.is_ok() {
        let outcome = outcome.borrow_and_update().clone();
        metrics::gauge!(telemetry::SETTINGS_STALE).set(f64::from(u8::from(outcome.is_stale)));
        metrics::counter!(telemetry::SETTINGS_RELOADS, "outcome" => "applied").absolute(outcome.applied);
        metrics::counter!(telemetry::SETTINGS_RELOADS, "outcome" => "refused").absolute(outcome.refused);
    }
}
