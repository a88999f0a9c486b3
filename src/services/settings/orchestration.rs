//! Section `orchestration`.

use std::path::PathBuf;

use super::Keys;

/// Workflows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orchestration {
    /// Folder of workflow files, added to the built-in ones.
    pub workflows: Option<PathBuf>,
    /// Parallel elements of one step.
    pub for_each_parallel: usize,
}

impl Orchestration {
    pub(super) fn read(keys: &mut Keys) -> Orchestration {
        let folder = keys.key("workflows", "folder of workflow files, added to the four built-in ones").optional_text();
        Orchestration {
            workflows: folder.map(PathBuf::from),
            for_each_parallel: keys.key("for_each_parallel", "parallel elements of one step").count(16, 1..=1_024)
                as usize,
        }
    }
}
