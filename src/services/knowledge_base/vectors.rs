//! Vectors of passages, by an endpoint for embeddings: asked for once, kept in the documents' bucket under the hash of
//! their text, held in memory by each replica.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::index::Indexed;
use super::{Kept, Knowledge};
use crate::fault::Fault;
use crate::services::settings::Vectors;
use crate::store::key;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, hex};

/// Where vectors are in the bucket: no tenant begins so.
pub(super) const PLACE: &str = "_vectors";
/// Texts that the endpoint gets at once.
const BATCH: usize = 64;
/// Vectors in memory. Beyond it the memory starts anew.
const HELD_MAX: usize = 200_000;
/// How often passages are looked for that have no vector yet.
const LOOK: Duration = Duration::from_secs(1);

/// Vectors by model and hash of the text.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<String, Arc<Vec<f32>>>>);

impl Held {
    fn get(&self, place: &str) -> Option<Arc<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    fn put(&self, place: String, vector: Arc<Vec<f32>>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD_MAX {
            held.clear();
        }
        held.insert(place, vector);
    }
}

impl Knowledge {
    /// How alike the question and each passage of the documents are, 0 to 1, in their order. Fails where the endpoint
    /// does not answer.
    pub(super) async fn similarities(
        &self,
        context: &Context,
        settings: &Vectors,
        question: &str,
        documents: &[Arc<Indexed>],
    ) -> Result<Vec<Vec<f64>>, Fault> {
        let mut texts = vec![question];
        texts.extend(documents.iter().flat_map(|indexed| indexed.passages.iter().map(|passage| indexed.text(passage))));
        let vectors = self.vectors(context, settings, &texts).await?;
        let passages: Vec<usize> = documents.iter().map(|indexed| indexed.passages.len()).collect();
        let compared = move || {
            let mut alike = vectors[1..].iter().map(|vector| cosine(&vectors[0], vector).max(0.0));
            passages.into_iter().map(|count| alike.by_ref().take(count).collect()).collect()
        };
        Ok(context.blocking(compared).await)
    }

    /// The vectors of some texts: held, kept, or asked for.
    async fn vectors(
        &self,
        context: &Context,
        settings: &Vectors,
        texts: &[&str],
    ) -> Result<Vec<Arc<Vec<f32>>>, Fault> {
        let places: Vec<String> = texts.iter().map(|text| place(settings, text)).collect();
        let mut found: HashMap<&str, Arc<Vec<f32>>> = HashMap::new();
        let mut missing: Vec<(&str, &str)> = Vec::new();
        let mut looked_for: HashSet<&String> = HashSet::new();
        for (place, text) in places.iter().zip(texts) {
            if !looked_for.insert(place) {
                continue;
            }
            let kept = match self.held.get(place) {
                None => self.kept_vector(context, settings, place).await?,
                held => held,
            };
            match kept {
                Some(vector) => {
                    found.insert(place, vector);
                }
                None => missing.push((place, text)),
            }
        }
        for batch in missing.chunks(BATCH) {
            let texts: Vec<&str> = batch.iter().map(|row| row.1).collect();
            let vectors = self.embeddings.vectors(settings, &texts).await?;
            for ((place, _), vector) in batch.iter().zip(vectors) {
                let vector = Arc::new(vector);
                self.keep_vector(context, place, &vector).await;
                found.insert(place, vector);
            }
        }
        Ok(places.iter().filter_map(|place| found.get(place.as_str()).cloned()).collect())
    }

    async fn kept_vector(
        &self,
        context: &Context,
        settings: &Vectors,
        place: &str,
    ) -> Result<Option<Arc<Vec<f32>>>, Fault> {
        let Some(kept) = self.documents.get_cached(context, place).await? else { return Ok(None) };
        let bytes = STANDARD.decode(&kept.value.content).unwrap_or_default();
        let vector: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
        if vector.len() != settings.dimensions as usize {
            return Ok(None);
        }
        let vector = Arc::new(vector);
        self.held.put(place.to_owned(), vector.clone());
        Ok(Some(vector))
    }

    /// Keeps a vector for other replicas; that this fails costs only another question to the endpoint.
    async fn keep_vector(&self, context: &Context, place: &str, vector: &Arc<Vec<f32>>) {
        self.held.put(place.to_owned(), vector.clone());
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        let kept = Kept { content: STANDARD.encode(bytes), ..Kept::default() };
        let rule = |_: &Current<Kept>| Ok(Change::put(kept.clone(), ()));
        if let Err(failed) = self.documents.change(context, place, rule).await {
            tracing::debug!(fault = %failed.fault, "a vector is not kept");
        }
    }

    /// Looks for passages without a vector, so that no question has to wait for them.
    pub(super) async fn embed(self: Arc<Self>, context: Context) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = context.until_cancelled() => return,
            }
            let settings = self.settings.now();
            let Some(settings) = &settings.knowledge_base.vectors else { continue };
            let (changes, documents) = self.everything().await;
            if changes == seen {
                continue;
            }
            let mut is_done = true;
            for indexed in documents {
                let texts: Vec<&str> = indexed.passages.iter().map(|passage| indexed.text(passage)).collect();
                if let Err(fault) = self.vectors(&context, settings, &texts).await {
                    tracing::warn!(%fault, "passages wait for their vectors");
                    is_done = false;
                    break;
                }
                if context.cancelled().is_some() {
                    return;
                }
            }
            if is_done {
                seen = changes;
            }
        }
    }
}

fn place(settings: &Vectors, text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(&settings.base_url);
    hash.update([0]);
    hash.update(&settings.model);
    hash.update([0]);
    hash.update(text);
    key(&[PLACE, &hex(&hash.finalize())])
}

fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (product(one, one) * product(other, other)).sqrt();
    if lengths > 0.0 { product(one, other) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_compared_not_lengths() {
        assert!((cosine(&[1.0, 1.0], &[3.0, 3.0]) - 1.0).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[1.0], &[-2.0]), -1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}
