//! Where tables come from: files, a set that is built into the program, a bucket on NATS, the workers themselves, or a
//! place of somebody's own. A source reads; what the bytes mean is `build`'s business.

mod bucket;
mod files;
mod stored;
mod workers;

use std::path::PathBuf;

use tokio::sync::watch;

use super::manifest;
use super::problem::{Place, Problem};
use super::{Snapshot, build};
use crate::schema::{self, Paths, SourceFile};

pub use bucket::{BucketSource, Revision, TableAddress, TableBucket};
pub use files::{Files, folder_of};
pub use stored::Stored;
pub use workers::WorkersSource;

/// Everything that a build needs, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// Name of the routes file, for problems.
    pub routes_name: String,
    /// Its text.
    pub routes: String,
    /// Descriptors.
    pub descriptors: Vec<SourceFile>,
    /// Where they were read from.
    pub paths: Paths,
    /// Whoever wrote it knows what of the schema breaks for clients, and means it.
    pub allows_breaking: bool,
    /// Services whose workers announce themselves, by full name: their routes are those that their descriptors declare.
    pub discovered: Vec<String>,
    /// Services that the workers' descriptors declare, announced or not: what the routes file says of all services is not
    /// said of these.
    pub brought: Vec<String>,
    /// What was left out, and why.
    pub left_out: Vec<Problem>,
}

/// A place that tables come from. A further kind of place is a further implementation.
pub trait Source: Send + Sync {
    /// Everything that a build needs, as it is now. Called off the runtime's thread, so it may block for a moment; what
    /// comes over a network is better fetched by a task of the source's own and only handed out here.
    ///
    /// Fails with what is wrong: at a start it is shown, later the last good tables stay in force.
    fn read(&self) -> Result<Material, Vec<Problem>>;

    /// What tells that there is something to read.
    fn changes(&self) -> Changes;
}

/// What tells that a source has something new.
#[derive(Clone, Debug)]
pub enum Changes {
    /// These folders are watched. They are read once nothing in them has changed for a moment, because editors and
    /// ConfigMaps change several files.
    Folders(Vec<PathBuf>),
    /// A count of changes. What it announces is whole, so it is read at once.
    Counted(watch::Receiver<u64>),
    /// Each of these.
    Any(Vec<Changes>),
    /// Nothing: the source stays as it is.
    Never,
}

/// Tables that are part of the program.
#[derive(Clone, Debug)]
pub struct BuiltIn(pub Material);

impl Source for BuiltIn {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        Ok(self.0.clone())
    }

    fn changes(&self) -> Changes {
        Changes::Never
    }
}

impl Material {
    /// Builds a snapshot from what was read; all problems of routes and descriptors at once.
    pub fn build(&self, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
        let parsed = manifest::parse(&self.routes_name, &self.routes).map(|mut manifest| {
            manifest.discovered.clone_from(&self.discovered);
            manifest.brought.clone_from(&self.brought);
            manifest
        });
        let schema = schema::load_from(&self.descriptors, &self.paths);
        let mut problems: Vec<Problem> = self.empty_descriptors().collect();
        match (parsed, schema) {
            (Ok(manifest), Ok(schema)) if problems.is_empty() => {
                let mut snapshot = build(&self.routes_name, &manifest, &schema, previous)?;
                snapshot.left_out.extend_from_slice(&self.left_out);
                Ok(snapshot)
            }
            (parsed, schema) => {
                problems.splice(0..0, parsed.err().unwrap_or_default());
                problems.extend(schema.err().into_iter().flatten().map(Problem::from));
                Err(problems)
            }
        }
    }

    /// An empty file is one that somebody is still writing: it would build, and take its routes away.
    fn empty_descriptors(&self) -> impl Iterator<Item = Problem> {
        let is_empty = |file: &&SourceFile| file.bytes.trim_ascii().is_empty() && file.name.ends_with(".proto");
        self.descriptors.iter().filter(is_empty).map(|file| {
            let place = Place::new(self.path_of(file), 1, 1);
            Problem::new(place, "this file is empty, as one that is still being written")
        })
    }

    /// The text of a file that problems may point into.
    pub fn text_of(&self, file: &str) -> Option<String> {
        if file == self.routes_name {
            return Some(self.routes.clone());
        }
        let found = self.descriptors.iter().find(|source| self.path_of(source) == file)?;
        String::from_utf8(found.bytes.clone()).ok()
    }

    /// What problems call a file of the descriptors.
    fn path_of<'m>(&'m self, file: &'m SourceFile) -> &'m str {
        self.paths.get(&file.name).unwrap_or(&file.name)
    }

    /// Tells one content from another; what it is called does not count.
    pub(super) fn fingerprint(&self) -> u64 {
        let files: Vec<(&str, &[u8])> =
            self.descriptors.iter().map(|file| (file.name.as_str(), file.bytes.as_slice())).collect();
        super::reload::hash_of(&(&self.routes, files, self.allows_breaking, &self.discovered, &self.brought))
    }
}

impl From<schema::SchemaProblem> for Problem {
    fn from(problem: schema::SchemaProblem) -> Problem {
        Problem::new(Place::new(&problem.file, problem.line, problem.column), problem.text).hint(problem.hint)
    }
}
