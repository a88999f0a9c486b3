//! `--services`: the file of the service settings, for the commands that run services, and for `check`; `--cache`, for the
//! former.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::fault::{Code, Fault};
use crate::services::{LiveSettings, Settings};
use crate::snapshot::problem::{Place, Problem};
use crate::store::{CACHE_PATIENCE, Store};

/// Where the settings are when nobody says.
const DEFAULT: &str = "services.yaml";

#[derive(Args, Clone)]
pub(super) struct SettingsArgs {
    /// The service settings; services.yaml where it exists, the defaults without it.
    #[arg(long = "services", env = "TIDEGATE_SERVICES", value_name = "FILE")]
    services: Option<PathBuf>,
}

/// Where the caches of services are shared.
#[derive(Args, Clone)]
pub(super) struct CacheArgs {
    /// A Redis or Valkey server that replicas share their caches on, `redis://user:password@host:6379/0` (`rediss://`
    /// with TLS), with `?prefix=NAME` where fleets share it; without it they share them in the store.
    #[arg(long, env = "TIDEGATE_CACHE", value_name = "URL", hide_env_values = true)]
    cache: Option<String>,
}

impl CacheArgs {
    /// The store with its caches where they should be.
    pub(super) fn of(&self, store: Store) -> Result<Store, Fault> {
        let Some(url) = &self.cache else { return Ok(store) };
        store.with_cache(url, CACHE_PATIENCE).map_err(|error| Fault::client(Code::InvalidArgument, error.to_string()))
    }
}

/// What a check of the file has found.
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) problems: Vec<Problem>,
}

impl SettingsArgs {
    fn file(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from(DEFAULT)).filter(|file| file.exists());
        self.services.clone().or_else(default)
    }

    /// Reads and follows the file, or takes the defaults where there is none.
    pub(super) fn follow(&self) -> Result<LiveSettings, Fault> {
        let Some(file) = self.file() else { return Ok(LiveSettings::default()) };
        match LiveSettings::follow(&file) {
            Ok((settings, _)) => Ok(settings),
            Err(report) => {
                let text = format!("the service settings in `{}` are refused", file.display());
                Err(Fault::client(Code::InvalidArgument, text).internal(format!("\n{report}")))
            }
        }
    }

    /// What is wrong with the file; nothing where there is none.
    pub(super) fn check(&self) -> Option<Checked> {
        self.file().map(|file| check(&file))
    }
}

fn check(file: &Path) -> Checked {
    let name = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => Checked { problems: Settings::parse(&name, &text).err().unwrap_or_default(), name, text },
        Err(error) => {
            let problem = Problem::new(Place::new(&name, 1, 1), format!("cannot be read: {error}"));
            Checked { name, text: String::new(), problems: vec![problem] }
        }
    }
}
