//! What a replica holds in memory to search: for each tenant and collection the documents, their passages, and where
//! each term is.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::Kept;
use super::passages::{passages, terms};
use super::rank::Statistics;

/// A document, ready to be found.
pub(super) struct Indexed {
    pub(super) document: Kept,
    pub(super) passages: Vec<Passage>,
}

/// A piece of a document.
pub(super) struct Passage {
    /// Where it is in the content, in bytes.
    pub(super) at: Range<usize>,
    /// How many terms it has.
    length: usize,
}

/// Passages with a term, by their number, and how often it is there.
type Places = Vec<(usize, u32)>;

/// A document whose terms are counted: what takes long is done before the index is locked for it.
pub(super) struct Counted {
    indexed: Indexed,
    /// Term → the passages with it, and how often it is there.
    places: HashMap<String, Places>,
}

impl Counted {
    pub(super) fn new(document: Kept) -> Counted {
        let (mut pieces, mut places) = (Vec::new(), HashMap::<String, Places>::new());
        for (number, at) in passages(&document.content).into_iter().enumerate() {
            let mut length = 0;
            for term in terms(&document.content[at.clone()]) {
                let places = places.entry(term).or_default();
                match places.last_mut() {
                    Some((last, count)) if *last == number => *count += 1,
                    _ => places.push((number, 1)),
                }
                length += 1;
            }
            pieces.push(Passage { at, length });
        }
        Counted { indexed: Indexed { document, passages: pieces }, places }
    }

    pub(super) fn document(&self) -> &Kept {
        &self.indexed.document
    }

    pub(super) fn passages(&self) -> usize {
        self.indexed.passages.len()
    }
}

impl Indexed {
    pub(super) fn text(&self, passage: &Passage) -> &str {
        &self.document.content[passage.at.clone()]
    }
}

#[derive(Default)]
struct Collection {
    documents: BTreeMap<String, Arc<Indexed>>,
    /// Term → document → the passages with it, and how often it is there.
    postings: HashMap<String, BTreeMap<String, Places>>,
    passages: usize,
    /// Terms of all passages.
    length: usize,
}

/// All documents of a store.
#[derive(Default)]
pub(super) struct Index {
    /// Tenant's token → collection.
    tenants: HashMap<String, BTreeMap<String, Collection>>,
    /// Key → revision that is in the index, and the document's id. Those of deleted documents stay, so that nothing
    /// older comes back.
    known: HashMap<String, (u64, Option<String>)>,
    /// How often something has changed.
    changes: u64,
}

/// A document that has terms of the question.
pub(super) struct Hit {
    pub(super) document: Arc<Indexed>,
    /// Relevance by passage; 0 where nothing fits.
    pub(super) relevance: Vec<f64>,
}

impl Index {
    /// Takes in what is stored under a key since a revision: a document, or none any more. What is older than the
    /// index is passed over.
    pub(super) fn put(&mut self, key: &str, revision: u64, document: Option<Counted>) {
        let known = self.known.entry(key.to_owned()).or_default();
        if known.0 >= revision {
            return;
        }
        self.changes += 1;
        let id = document.as_ref().map(|document| document.document().document_id.clone());
        let (_, before) = std::mem::replace(known, (revision, id));
        // Names of collections need no escapes in keys.
        let mut tokens = key.split('.').map(str::to_owned);
        let (tenant, name) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
        let collection = self.tenants.entry(tenant).or_default().entry(name).or_default();
        if let Some(id) = before {
            collection.remove(&id);
        }
        if let Some(document) = document {
            collection.put(document);
        }
    }

    /// The names of a tenant's collections, of those that are empty by now too.
    pub(super) fn collections(&self, tenant: &str) -> Vec<String> {
        self.tenants.get(tenant).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Every document of every tenant, and how often something has changed so far.
    pub(super) fn everything(&self) -> (u64, Vec<Arc<Indexed>>) {
        let collections = self.tenants.values().flat_map(BTreeMap::values);
        (self.changes, collections.flat_map(|collection| collection.documents.values().cloned()).collect())
    }

    /// Every document of some collections; of all where none is named.
    pub(super) fn documents(&self, tenant: &str, collections: &[String]) -> Vec<Arc<Indexed>> {
        let searched = self.searched(tenant, collections);
        searched.iter().flat_map(|collection| collection.documents.values().cloned()).collect()
    }

    /// The documents of some collections that have a term; of all collections where none is named.
    pub(super) fn search(&self, tenant: &str, collections: &[String], terms: &[String]) -> Vec<Hit> {
        let searched = self.searched(tenant, collections);
        let containing = terms.iter().map(|term| {
            let postings = searched.iter().filter_map(|collection| collection.postings.get(term));
            postings.flat_map(BTreeMap::values).map(Vec::len).sum()
        });
        let passages = searched.iter().map(|collection| collection.passages).sum();
        let length = searched.iter().map(|collection| collection.length).sum();
        let statistics = Statistics::new(passages, length, containing);
        searched.iter().flat_map(|collection| collection.search(terms, &statistics)).collect()
    }

    fn searched(&self, tenant: &str, wanted: &[String]) -> Vec<&Collection> {
        let Some(collections) = self.tenants.get(tenant) else { return Vec::new() };
        let is_wanted = |name: &String| wanted.is_empty() || wanted.contains(name);
        collections.iter().filter(|(name, _)| is_wanted(name)).map(|(_, collection)| collection).collect()
    }
}

impl Collection {
    fn put(&mut self, Counted { indexed, places }: Counted) {
        let id = indexed.document.document_id.clone();
        self.remove(&id);
        for (term, places) in places {
            self.postings.entry(term).or_default().insert(id.clone(), places);
        }
        self.length += indexed.passages.iter().map(|passage| passage.length).sum::<usize>();
        self.passages += indexed.passages.len();
        self.documents.insert(id, Arc::new(indexed));
    }

    fn remove(&mut self, id: &str) {
        let Some(gone) = self.documents.remove(id) else { return };
        self.passages -= gone.passages.len();
        self.length -= gone.passages.iter().map(|passage| passage.length).sum::<usize>();
        for term in terms_of(&gone) {
            if let Some(documents) = self.postings.get_mut(&term) {
                documents.remove(id);
                if documents.is_empty() {
                    self.postings.remove(&term);
                }
            }
        }
    }

    fn search(&self, terms: &[String], statistics: &Statistics) -> Vec<Hit> {
        // Document → passage → how often each term is there.
        let mut found: BTreeMap<&str, BTreeMap<usize, Vec<u32>>> = BTreeMap::new();
        for (number, term) in terms.iter().enumerate() {
            for (id, places) in self.postings.get(term).into_iter().flatten() {
                for (passage, count) in places {
                    let counts = found.entry(id).or_default().entry(*passage);
                    counts.or_insert_with(|| vec![0; terms.len()])[number] = *count;
                }
            }
        }
        let hit = |(id, passages): (&str, BTreeMap<usize, Vec<u32>>)| {
            let document = self.documents.get(id)?.clone();
            let mut relevance = vec![0.0; document.passages.len()];
            for (passage, counts) in passages {
                relevance[passage] = statistics.relevance(&counts, document.passages[passage].length);
            }
            Some(Hit { document, relevance })
        };
        found.into_iter().filter_map(hit).collect()
    }
}

fn terms_of(indexed: &Indexed) -> impl Iterator<Item = String> {
    indexed.passages.iter().flat_map(|passage| terms(indexed.text(passage)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::knowledge_base::rank::told;

    fn document(collection: &str, id: &str, content: &str) -> Kept {
        Kept {
            document_id: id.into(),
            collection: collection.into(),
            content: content.into(),
            metadata: BTreeMap::new(),
        }
    }

    fn put(index: &mut Index, key: &str, revision: u64, document: Option<Kept>) {
        index.put(key, revision, document.map(Counted::new));
    }

    fn found(index: &Index, collections: &[&str], question: &str) -> Vec<(String, f64)> {
        let collections: Vec<String> = collections.iter().map(|name| (*name).to_owned()).collect();
        let hits = index.search("_", &collections, &terms(question).collect::<Vec<_>>());
        let best = |hit: &Hit| told(hit.relevance.iter().copied().fold(0.0, f64::max));
        hits.iter().map(|hit| (hit.document.document.document_id.clone(), best(hit))).collect()
    }

    #[test]
    fn an_index_that_changed_answers_as_one_that_was_made_anew() {
        let one = document("lore", "d1", "The Silent Court trades in enchantment and loves riddles.");
        let two = document("lore", "d2", "Carrion Kin pay with grave_dust and despise logic.");
        let three = document("lore", "d3", "The Moon-Clans brew moon_wine for speed.");
        let other = document("manuals", "d1", "Riddles of the saw.");
        let mut index = Index::default();
        for (revision, document) in [&one, &two, &three].into_iter().enumerate() {
            let key = format!("_.lore.{}", document.document_id);
            put(&mut index, &key, revision as u64 + 1, Some(document.clone()));
        }
        assert_eq!(found(&index, &["lore"], "Who loves riddles?"), [("d1".to_owned(), 0.9765)]);
        assert_eq!(found(&index, &["nowhere"], "Who loves riddles?"), []);
        put(&mut index, "_.manuals.d1", 4, Some(other));
        put(&mut index, "t.lore.d1", 5, Some(one.clone()));
        assert_eq!(found(&index, &["lore"], "Who loves riddles?"), [("d1".to_owned(), 0.9765)]);
        assert_eq!(found(&index, &[], "riddle").len(), 2);
        // Changed, deleted, put back: a late word of an older revision changes nothing.
        put(&mut index, "_.lore.d1", 6, Some(document("lore", "d1", "A saw.")));
        assert_eq!(found(&index, &["lore"], "riddles"), []);
        put(&mut index, "_.lore.d1", 7, None);
        put(&mut index, "_.lore.d1", 6, Some(one.clone()));
        assert_eq!(found(&index, &["lore"], "saw"), []);
        put(&mut index, "_.lore.d1", 8, Some(one));
        assert_eq!(found(&index, &["lore"], "Which family loves riddles?"), [("d1".to_owned(), 0.474)]);
        put(&mut index, "_.manuals.d1", 9, None);
        assert_eq!(index.collections("_"), ["lore", "manuals"]);
        assert_eq!(index.documents("_", &[]).len(), 3);
    }
}
