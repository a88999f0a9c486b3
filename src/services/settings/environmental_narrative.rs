//! Section `environmental-narrative`.

use super::{Keys, llm};

/// What places tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentalNarrative {
    /// Prose by `svc.ai.llm.v1.infer`.
    pub text_llm: bool,
}

impl EnvironmentalNarrative {
    pub(super) fn read(keys: &mut Keys) -> EnvironmentalNarrative {
        EnvironmentalNarrative { text_llm: llm(keys) }
    }
}
