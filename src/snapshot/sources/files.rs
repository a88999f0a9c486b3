//! Tables in files: a routes file and a folder of descriptors.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::super::problem::{Place, Problem};
use super::{Changes, Material, Source};
use crate::schema::{Paths, SourceFile};

/// Most files of a descriptors' folder.
const FILES_MAX: usize = 10_000;
/// Most bytes of a routes file; the parser takes no more either.
const ROUTES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of one file of descriptors; the loader takes no more either.
const DESCRIPTOR_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of all descriptors.
const DESCRIPTORS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A routes file and a folder of descriptors.
#[derive(Clone, Debug)]
pub struct Files {
    /// The routes file.
    pub routes: PathBuf,
    /// Folder of `.proto` sources and `.binpb` (also `.pb`, `.desc`, `.protoset`) sets; or one such file.
    pub descriptors: PathBuf,
}

impl Source for Files {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        let mut reading = Reading::default();
        let routes_name = self.routes.display().to_string();
        let routes = reading.routes(&self.routes);
        if self.descriptors.is_dir() {
            reading.folder(&self.descriptors);
        } else {
            let name = self.descriptors.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            reading.descriptor(&self.descriptors, name);
        }
        let Reading { files: descriptors, paths, problems, .. } = reading;
        if problems.is_empty() {
            Ok(Material { routes_name, routes, descriptors, paths, ..Material::default() })
        } else {
            Err(problems)
        }
    }

    fn changes(&self) -> Changes {
        let is_folder = self.descriptors.is_dir();
        let descriptors = if is_folder { self.descriptors.clone() } else { folder_of(&self.descriptors) };
        Changes::Folders(vec![folder_of(&self.routes), descriptors])
    }
}

/// The folder of a file, which is what is watched: a ConfigMap swaps a symlink beside the file.
pub fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What one reading has found so far.
#[derive(Default)]
struct Reading {
    files: Vec<SourceFile>,
    paths: Paths,
    bytes: usize,
    problems: Vec<Problem>,
}

impl Reading {
    fn routes(&mut self, path: &Path) -> String {
        let name = path.display().to_string();
        if path.is_dir() {
            let hint = format!("give the file, such as `{}`", path.join("routes.yaml").display());
            self.problem(&name, "this is a folder, not a routes file", hint);
            return String::new();
        }
        let bytes = read(path, ROUTES_BYTES_MAX).unwrap_or_else(|text| {
            self.problem(&name, text, "`tidegate init` makes a starter folder");
            Vec::new()
        });
        String::from_utf8(bytes).unwrap_or_else(|_| {
            self.problem(&name, "not UTF-8 text", "");
            String::new()
        })
    }

    fn folder(&mut self, root: &Path) {
        let mut folders = vec![root.to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.problem(&folder.display().to_string(), format!("cannot be read: {error}"), "");
                    continue;
                }
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                // `..data` and its like are a ConfigMap's own doubles of the same files.
                if name.starts_with('.') {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if is_descriptor(&path) {
                    found.push(path);
                }
            }
            if found.len() > FILES_MAX {
                let text = format!("there are more than {FILES_MAX} descriptors here");
                return self.problem(&root.display().to_string(), text, "join them in a descriptor set");
            }
        }
        found.sort();
        for path in found {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            self.descriptor(&path, name);
        }
    }

    fn descriptor(&mut self, path: &Path, name: String) {
        let left = DESCRIPTORS_BYTES_MAX - self.bytes;
        match read(path, left.min(DESCRIPTOR_BYTES_MAX)) {
            Ok(bytes) => {
                self.bytes += bytes.len();
                self.paths.insert(name.clone(), path.display().to_string());
                self.files.push(SourceFile { name, bytes });
            }
            Err(text) => self.problem(&path.display().to_string(), text, ""),
        }
    }

    fn problem(&mut self, file: &str, text: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(Place::new(file, 1, 1), text).hint(hint));
    }
}

fn is_descriptor(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["proto", "binpb", "pb", "desc", "protoset"].iter().any(|known| end == *known))
}

/// The content of a file, never more than `max` bytes; or what is wrong with it.
fn read(path: &Path, max: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // Before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("cannot be read: this is no regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max { Err(format!("larger than {max} bytes")) } else { Ok(bytes) }
}
