//! Section `language-system`.

use std::collections::BTreeMap;

use super::{Keys, llm};

/// Languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanguageSystem {
    /// Prose by `svc.ai.llm.v1.infer`.
    pub text_llm: bool,
    /// Concepts beside the built-in ones.
    pub concepts: Vec<Concept>,
    /// Further concepts by domain.
    pub lexicons: BTreeMap<String, Vec<Concept>>,
    /// Rendered contents that a replica keeps.
    pub render_cache: usize,
}

/// A concept and its word in each language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concept {
    /// Its name.
    pub concept: String,
    /// `n`, `v`, `a`, `p` or `x`: noun, verb, adjective, pronoun, phrase.
    pub class: char,
    /// Language code → word.
    pub forms: BTreeMap<String, String>,
}

impl LanguageSystem {
    pub(super) fn read(keys: &mut Keys) -> LanguageSystem {
        let concepts = keys.key("concepts", "further concepts").rows(None, Concept::read);
        let lexicons = keys.key("lexicons", "further concepts by domain").named_rows(|keys| {
            keys.key("concepts", "concepts of the domain").rows(None, Concept::read).unwrap_or_default()
        });
        LanguageSystem {
            text_llm: llm(keys),
            concepts: concepts.unwrap_or_default(),
            lexicons: lexicons.unwrap_or_default(),
            render_cache: keys.key("render_cache", "rendered contents that a replica keeps").count(1_000, 0..=1_000_000)
                as usize,
        }
    }
}

impl Concept {
    fn read(keys: &mut Keys) -> Concept {
        let classes = [("n", 'n'), ("v", 'v'), ("a", 'a'), ("p", 'p'), ("x", 'x')];
        Concept {
            concept: keys.key("concept", "its name").required_text(),
            class: keys.key("class", "noun, verb, adjective, pronoun, phrase").choice('n', &classes),
            forms: keys.key("forms", "language code → word").text_map(),
        }
    }
}
