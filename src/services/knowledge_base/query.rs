//! Questions: the documents that fit, best first, and an answer made of their sentences.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, answer};
use super::index::{Hit, Indexed};
use super::passages::{beginning, terms};
use super::rank::told;
use super::{Document, Kept, Knowledge, check_collection};
use crate::fault::Fault;
use crate::services::checks::{invalid, out_of_range, required, texts, unknown_value};
use crate::services::prose;
use crate::services::seed::{Part, seed, tenant_part};
use crate::services::settings::Vectors;
use crate::services::words::tell_words;
use crate::store::{key, key_token};
use crate::worker::records::{Change, Current};
use crate::worker::{Chunks, Context};

/// Where prose is in the bucket: no tenant begins so.
pub(super) const PROSE: &str = "_prose";
/// How long prose is kept, so that a repeat reads the same.
const PROSE_KEPT_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// Longest question in characters.
const QUESTION_MAX: usize = 1_000;
/// Documents where the request does not say, and most of them.
const RESULTS_DEFAULT: usize = 10;
const RESULTS_MAX: i32 = 100;
/// From which relevance on a document is told where the request does not say: by words, and by words and vectors.
const THRESHOLD: f64 = 0.15;
const THRESHOLD_WITH_VECTORS: f64 = 0.7;
/// Best passages of a document, and the bytes of its content, that a reply has.
const PASSAGES_MAX: usize = 3;
const CONTENT_MAX: usize = 32 * 1024;
/// Bytes of all documents of a reply, metadata aside: a reply is one message.
const REPLY_MAX: usize = 600 * 1024;
const SCOPES: [&str; 4] = ["global", "day_world", "dark_world", "experience"];

#[derive(Serialize, Deserialize)]
pub(super) struct Query {
    query_text: String,
    collections: Vec<String>,
    max_results: i32,
    filters: BTreeMap<String, String>,
    similarity_threshold: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Found {
    documents: Vec<Document>,
    synthesized_answer: String,
    sources: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Item {
    revision: u64,
    document: Option<Document>,
    answer_delta: String,
}

/// A document with its relevance, and that of its passages.
struct Ranked {
    relevance: f64,
    hit: Hit,
}

impl Knowledge {
    pub(super) async fn query(self: Arc<Self>, context: Context, request: Query) -> Result<Found, Fault> {
        let asked = checked(&request)?;
        self.ready(&context).await?;
        let asked = Arc::new(asked);
        let (hits, threshold) = self.hits(&context, &request, &asked).await;
        let question = request.query_text.clone();
        let mut found = context.blocking(move || found(hits, threshold, &request, &asked)).await;
        found.synthesized_answer = self.phrased(&context, &question, found.synthesized_answer).await;
        Ok(found)
    }

    /// Documents in rank order, then the answer word by word.
    pub(super) async fn query_stream(
        self: Arc<Self>,
        context: Context,
        request: Query,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let pacing = self.settings.now().common.text.pacing;
        let found = self.query(context, request).await?;
        for document in found.documents {
            chunks.send(&Item { document: Some(document), ..Item::default() }).await?;
        }
        let piece = |word| Item { answer_delta: word, ..Item::default() };
        tell_words(&mut chunks, &found.synthesized_answer, pacing, piece).await?;
        chunks.finish(&Item::default()).await
    }

    /// The documents that may fit, and the relevance from which on they do.
    async fn hits(self: &Arc<Self>, context: &Context, request: &Query, asked: &Arc<Vec<String>>) -> (Vec<Hit>, f64) {
        let (own, tenant) = (self.clone(), key_token(context.tenant()));
        let (of_tenant, collections, terms) = (tenant.clone(), request.collections.clone(), asked.clone());
        let search = move || own.index.blocking_read().search(&of_tenant, &collections, &terms);
        let (mut hits, mut threshold) = (context.blocking(search).await, THRESHOLD);
        let settings = self.settings.now();
        if let Some(settings) = &settings.knowledge_base.vectors {
            let documents = self.index.read().await.documents(&tenant, &request.collections);
            match self.blended(context, settings, &request.query_text, documents, &hits).await {
                Ok(blended) => (hits, threshold) = (blended, THRESHOLD_WITH_VECTORS),
                Err(fault) => {
                    tracing::warn!(%fault, "a question is answered without vectors");
                    context.label("degraded", "true");
                }
            }
        }
        if request.similarity_threshold > 0.0 {
            threshold = request.similarity_threshold;
        }
        (hits, threshold)
    }

    /// Half by words and half by vectors, for all documents.
    async fn blended(
        &self,
        context: &Context,
        settings: &Vectors,
        question: &str,
        documents: Vec<Arc<Indexed>>,
        hits: &[Hit],
    ) -> Result<Vec<Hit>, Fault> {
        let alike = self.similarities(context, settings, question, &documents).await?;
        let by_words: BTreeMap<_, &Hit> = hits.iter().map(|hit| (Arc::as_ptr(&hit.document), hit)).collect();
        let blend = |(document, alike): (Arc<Indexed>, Vec<f64>)| {
            let hit = by_words.get(&Arc::as_ptr(&document));
            let by_words = |at: usize| hit.map_or(0.0, |hit| hit.relevance[at]);
            let relevance = alike.iter().enumerate().map(|(at, alike)| 0.5 * by_words(at) + 0.5 * alike).collect();
            Hit { document, relevance }
        };
        Ok(documents.into_iter().zip(alike).map(blend).collect())
    }

    /// The answer in a provider's words, where the settings want it and one can; the same words for the same answer.
    async fn phrased(&self, context: &Context, question: &str, answer: String) -> String {
        let settings = self.settings.now();
        if answer.is_empty() || !settings.knowledge_base.text_llm || !settings.common.text.has_models() {
            return answer;
        }
        let tenant = tenant_part(context.tenant());
        let drawn = seed(&[Part::Text("kb.prose.v1"), tenant, Part::Text(question), Part::Text(&answer)]);
        let place = key(&[PROSE, context.tenant(), &format!("{drawn:016x}")]);
        if let Ok(Some(kept)) = self.documents.get_cached(context, &place).await {
            return kept.value.content;
        }
        let prompt = format!(
            "Answer the question with these sentences alone, in at most three sentences. Keep each source in its \
             brackets behind what it says.\n\nQuestion: {question}\n\nSentences: {answer}"
        );
        let Some(prose) = prose::answer(context, &prompt, drawn).await else { return answer };
        let rule = |current: &Current<Kept>| {
            Ok(match &current.value {
                Some(kept) => Change::nothing(kept.content.clone()),
                None => Change::put(Kept { content: prose.clone(), ..Kept::default() }, prose.clone())
                    .expires_at_ms(current.now_ms + PROSE_KEPT_MS),
            })
        };
        // Not to be kept is no reason not to be read.
        self.documents.change(context, &place, rule).await.map_or_else(|_| prose.clone(), |done| done.reply)
    }
}

/// The terms of a question that has nothing wrong with it, each once.
fn checked(request: &Query) -> Result<Vec<String>, Fault> {
    if request.query_text.is_empty() {
        return Err(required("query_text"));
    }
    if request.query_text.chars().count() > QUESTION_MAX {
        let text = format!("query_text has more than {QUESTION_MAX} characters");
        return Err(invalid("query_text", "too_long", text));
    }
    let mut asked: Vec<String> = Vec::new();
    for term in terms(&request.query_text) {
        if !asked.contains(&term) {
            asked.push(term);
        }
    }
    if asked.is_empty() {
        return Err(invalid("query_text", "bad_format", "query has no searchable word"));
    }
    for (index, name) in request.collections.iter().enumerate() {
        check_collection(&format!("collections[{index}]"), name)?;
    }
    if !(0..=RESULTS_MAX).contains(&request.max_results) {
        return Err(out_of_range("max_results", 1, RESULTS_MAX));
    }
    texts("filters", &request.filters)?;
    let is_scope = |text: &String| SCOPES.iter().any(|scope| scope.eq_ignore_ascii_case(text));
    if let Some(scope) = request.filters.get("scope").filter(|scope| !is_scope(scope)) {
        return Err(unknown_value("filters.scope", format!("there is no scope {scope}"), &SCOPES));
    }
    if !(0.0..=1.0).contains(&request.similarity_threshold) {
        return Err(out_of_range("similarity_threshold", 0, 1));
    }
    Ok(asked)
}

/// The documents that fit, and the answer that they give.
fn found(hits: Vec<Hit>, threshold: f64, request: &Query, asked: &[String]) -> Found {
    let ranked = ranked(hits, threshold, request);
    let kept: Vec<&Kept> = ranked.iter().map(|ranked| &ranked.hit.document.document).collect();
    let Answer { text, sources } = answer(&kept, asked);
    let room = REPLY_MAX / ranked.len().max(1);
    Found { documents: ranked.iter().map(|ranked| shown(ranked, room)).collect(), synthesized_answer: text, sources }
}

/// The documents that fit, best first.
fn ranked(hits: Vec<Hit>, threshold: f64, request: &Query) -> Vec<Ranked> {
    let ranked = |hit: Hit| {
        let best = hit.relevance.iter().copied().fold(0.0, f64::max);
        Ranked { relevance: told(best), hit }
    };
    let mut ranked: Vec<Ranked> = hits
        .into_iter()
        .filter(|hit| has_all(&request.filters, &hit.document.document))
        .map(ranked)
        .filter(|ranked| ranked.relevance > 0.0 && ranked.relevance >= threshold)
        .collect();
    ranked.sort_by(|a, b| {
        let place = |ranked: &Ranked| {
            let document = &ranked.hit.document.document;
            (document.document_id.clone(), document.collection.clone())
        };
        b.relevance.total_cmp(&a.relevance).then_with(|| place(a).cmp(&place(b)))
    });
    ranked.truncate(if request.max_results == 0 { RESULTS_DEFAULT } else { request.max_results as usize });
    ranked
}

/// What is global is in every scope; scopes are the same in any case.
fn has_all(filters: &BTreeMap<String, String>, document: &Kept) -> bool {
    let fits = |name: &String, wanted: &String, value: &String| match name.as_str() {
        "scope" => value.eq_ignore_ascii_case(wanted) || value.eq_ignore_ascii_case("global"),
        _ => value == wanted,
    };
    filters.iter().all(|(name, wanted)| document.metadata.get(name).is_some_and(|value| fits(name, wanted, value)))
}

/// A document as a reply tells it, in at most so many bytes of content and passages.
fn shown(ranked: &Ranked, room: usize) -> Document {
    let indexed = &ranked.hit.document;
    let Kept { document_id, collection, content, mut metadata } = indexed.document.clone();
    let mut best: Vec<(f64, &str)> = ranked
        .hit
        .relevance
        .iter()
        .zip(&indexed.passages)
        .map(|(relevance, passage)| (*relevance, indexed.text(passage)))
        .filter(|(relevance, _)| *relevance > 0.0)
        .collect();
    // The sort is stable: of equal ones the first stays first.
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut chunks, mut used) = (Vec::new(), 0);
    for (_, text) in best.into_iter().take(PASSAGES_MAX) {
        if used + text.len() <= room / 2 {
            used += text.len();
            chunks.push(text.to_owned());
        }
    }
    let told = beginning(&content, CONTENT_MAX.min(room - used));
    if told.len() < content.len() {
        metadata.insert("truncated".to_owned(), "true".to_owned());
    }
    let content = told.to_owned();
    Document { document_id, collection, content, metadata, relevance_score: ranked.relevance, chunks }
}
