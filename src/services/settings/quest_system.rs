//! Section `quest-system`.

use super::{Keys, llm};

/// Quests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestSystem {
    /// Prose by `svc.ai.llm.v1.infer`.
    pub text_llm: bool,
}

impl QuestSystem {
    pub(super) fn read(keys: &mut Keys) -> QuestSystem {
        QuestSystem { text_llm: llm(keys) }
    }
}
