//! Where tables come from: files on disk, or a set that is built into the program. A source reads; what the bytes mean
//! is `build`'s business.

use std::path::{Path, PathBuf};

use super::manifest;
use super::problem::{Place, Problem};
use super::{Snapshot, build};
use crate::schema::{self, SourceFile};

/// Most files of a descriptors' folder.
const FILES_MAX: usize = 10_000;

/// Everything that a build needs, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// Name of the routes file, for problems.
    pub routes_name: String,
    /// Its text.
    pub routes: String,
    /// Descriptors.
    pub descriptors: Vec<SourceFile>,
}

/// A place that tables come from. A further kind of place is a further implementation.
pub trait Source: Send + Sync {
    /// Reads everything anew.
    fn read(&self) -> Result<Material, Vec<Problem>>;

    /// Folders whose changes mean that there is something to read.
    fn watched(&self) -> Vec<PathBuf>;
}

/// A routes file and a folder of descriptors.
#[derive(Clone, Debug)]
pub struct Files {
    /// The routes file.
    pub routes: PathBuf,
    /// Folder of `.proto` sources and `.binpb` (also `.pb`, `.desc`, `.protoset`) sets; or one such file.
    pub descriptors: PathBuf,
}

/// Tables that are part of the program.
#[derive(Clone, Debug)]
pub struct BuiltIn(pub Material);

impl Source for BuiltIn {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        Ok(self.0.clone())
    }

    fn watched(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

impl Source for Files {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        let mut problems = Vec::new();
        let routes_name = self.routes.display().to_string();
        let routes = std::fs::read_to_string(&self.routes).unwrap_or_else(|error| {
            let hint = "`tidegate init` makes a starter folder";
            problems.push(Problem::new(Place::new(&routes_name, 1, 1), format!("cannot be read: {error}")).hint(hint));
            String::new()
        });
        let mut descriptors = Vec::new();
        if self.descriptors.is_file() {
            let name = self.descriptors.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            read_file(&self.descriptors, name, &mut descriptors, &mut problems);
        } else {
            read_folder(&self.descriptors, &mut descriptors, &mut problems);
        }
        if problems.is_empty() { Ok(Material { routes_name, routes, descriptors }) } else { Err(problems) }
    }

    fn watched(&self) -> Vec<PathBuf> {
        let is_folder = self.descriptors.is_dir();
        let descriptors = if is_folder { self.descriptors.clone() } else { folder_of(&self.descriptors) };
        vec![folder_of(&self.routes), descriptors]
    }
}

/// The folder of a file, which is what is watched: a ConfigMap swaps a symlink beside the file.
pub fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn read_folder(root: &Path, files: &mut Vec<SourceFile>, problems: &mut Vec<Problem>) {
    let mut folders = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                let place = Place::new(&folder.display().to_string(), 1, 1);
                problems.push(Problem::new(place, format!("cannot be read: {error}")));
                continue;
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // `..data` and its like are a ConfigMap's own doubles of the same files.
            if name.starts_with('.') || found.len() >= FILES_MAX {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if is_descriptor(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    for path in found {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        read_file(&path, name, files, problems);
    }
}

fn is_descriptor(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["proto", "binpb", "pb", "desc", "protoset"].iter().any(|known| end == *known))
}

fn read_file(path: &Path, name: String, files: &mut Vec<SourceFile>, problems: &mut Vec<Problem>) {
    match std::fs::read(path) {
        Ok(bytes) => files.push(SourceFile { name, bytes }),
        Err(error) => {
            let place = Place::new(&path.display().to_string(), 1, 1);
            problems.push(Problem::new(place, format!("cannot be read: {error}")));
        }
    }
}

impl Material {
    /// Builds a snapshot from what was read; all problems of routes and descriptors at once.
    pub fn build(&self, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
        let parsed = manifest::parse(&self.routes_name, &self.routes);
        let schema = schema::load(&self.descriptors);
        match (parsed, schema) {
            (Ok(manifest), Ok(schema)) => build(&self.routes_name, &manifest, &schema, previous),
            (parsed, schema) => {
                let mut problems: Vec<Problem> = parsed.err().unwrap_or_default();
                problems.extend(schema.err().into_iter().flatten().map(Problem::from));
                Err(problems)
            }
        }
    }

    /// The text of a file that problems may point into.
    pub fn text_of(&self, file: &str) -> Option<String> {
        if file == self.routes_name {
            return Some(self.routes.clone());
        }
        let found = self.descriptors.iter().find(|source| source.name == file)?;
        String::from_utf8(found.bytes.clone()).ok()
    }
}

impl From<schema::SchemaProblem> for Problem {
    fn from(problem: schema::SchemaProblem) -> Problem {
        Problem::new(Place::new(&problem.file, problem.line, problem.column), problem.text).hint(problem.hint)
    }
}
