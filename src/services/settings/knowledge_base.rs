//! Section `knowledge-base`.

use super::{Keys, Secret, llm};

/// Documents and search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnowledgeBase {
    /// Prose by `svc.ai.llm.v1.infer`.
    pub text_llm: bool,
    /// An endpoint for embeddings.
    pub vectors: Option<Vectors>,
    /// The built-in corpus is written into collection `lore`.
    pub seed_corpus: bool,
}

/// An endpoint for embeddings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// `https://host/v1`, without a slash at its end: `/embeddings` is put behind it.
    pub base_url: String,
    /// Model's name there.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<Secret>,
    /// Numbers of one vector.
    pub dimensions: u32,
}

impl KnowledgeBase {
    pub(super) fn read(keys: &mut Keys) -> KnowledgeBase {
        let is_given = keys.has("vectors");
        let vectors = keys.key("vectors", "endpoint for embeddings").section(|keys| Vectors::read(keys, is_given));
        KnowledgeBase {
            text_llm: llm(keys),
            vectors: is_given.then_some(vectors),
            seed_corpus: keys.key("seed_corpus", "write the built-in corpus into collection `lore`").truth(false),
        }
    }
}

impl Vectors {
    fn read(keys: &mut Keys, is_given: bool) -> Vectors {
        let base_url = keys.key("base_url", "`https://host/v1`: `/embeddings` is put behind it").text("");
        let model = keys.key("model", "model's name there").text("");
        if is_given && !(base_url.starts_with("http://") || base_url.starts_with("https://")) {
            keys.problem("base_url", "`vectors` has a `base_url` such as `https://host/v1`");
        }
        if is_given && model.is_empty() {
            keys.problem("model", "`vectors` names its `model`");
        }
        Vectors {
            base_url: base_url.trim_end_matches('/').to_owned(),
            model,
            key: keys.key("key", "sent as a bearer token").secret(),
            dimensions: keys.key("dimensions", "numbers of one vector").count(1_536, 1..=65_536),
        }
    }
}
