//! Section `story-teller`.

use super::{Keys, llm};

/// Stories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryTeller {
    /// Prose by `svc.ai.llm.v1.infer`.
    pub text_llm: bool,
}

impl StoryTeller {
    pub(super) fn read(keys: &mut Keys) -> StoryTeller {
        StoryTeller { text_llm: llm(keys) }
    }
}
