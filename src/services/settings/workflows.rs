//! The files of a folder of workflows.

use std::path::Path;

/// Most files of one folder.
const FILES_MAX: usize = 1_000;

/// Name and text of each `.yaml` or `.json` file of a folder, in order of names.
pub fn workflow_files(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let unreadable = |error: std::io::Error| format!("`{}` cannot be read: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json") {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        return Err(format!("`{}` has more than {FILES_MAX} workflows", folder.display()));
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()));
        text.map(|text| (path.display().to_string(), text))
    };
    paths.iter().map(read).collect()
}
