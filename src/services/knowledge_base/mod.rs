//! Lore and manuals: documents are stored, searched by passage, and questions answered with sources. No model is needed.

mod answer;
mod corpus;
mod index;
mod passages;
mod query;
mod rank;
mod vectors;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, watch};

use super::VERSION;
use super::checks::{id, invalid};
use super::notices::records;
use super::settings::LiveSettings;
use super::text::Embeddings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Keys, Store, key, key_token};
use crate::worker::records::{RecordSeen, Records};
use crate::worker::{Context, Repeats, Service};
use index::{Counted, Index, Indexed};
use vectors::Held;

/// Longest wait for the index of a replica that has just started.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pause before documents are followed anew after an error.
const RETRY: Duration = Duration::from_secs(1);
/// Longest name of a collection.
const COLLECTION_MAX: usize = 64;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let knowledge = Knowledge {
        documents: Records::open(store, records(settings, BucketConfig { name: "tg_kb", ttl: None, history: 4 }))
            .await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
        index: RwLock::default(),
        is_ready: watch::Sender::new(false),
        embeddings: Embeddings::new()?,
        held: Held::default(),
    };
    Ok(Service::new("knowledge-base", VERSION)
        .sharing(knowledge)
        .unary("knowledge_base.v1.KnowledgeBaseService/Query", Knowledge::query)
        .unary("knowledge_base.v1.KnowledgeBaseService/Ingest", Knowledge::ingest)
        .unary("knowledge_base.v1.KnowledgeBaseService/Update", Knowledge::update)
        .stream("knowledge_base.v1.KnowledgeBaseService/QueryStream", Knowledge::query_stream)
        .unary("knowledge_base.v1.KnowledgeBaseService/GetDocument", Knowledge::get)
        .task("index", Knowledge::follow)
        .task("vectors", Knowledge::embed)
        .task("corpus", Knowledge::seed_corpus)
        .task("sweeper", Knowledge::sweep)
        .done())
}

struct Knowledge {
    /// Documents, and under keys that begin with `_vectors` and `_prose` what was made of them.
    documents: Records<Kept>,
    repeats: Repeats,
    settings: LiveSettings,
    /// Who waits for it keeps no thread; who holds it for long does so on a thread of the pool.
    index: RwLock<Index>,
    /// The index has everything that was there when the replica started.
    is_ready: watch::Sender<bool>,
    embeddings: Embeddings,
    held: Held,
}

/// `knowledge_base.v1.Document`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Document {
    document_id: String,
    collection: String,
    content: String,
    metadata: BTreeMap<String, String>,
    relevance_score: f64,
    chunks: Vec<String>,
}

/// What the store holds of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    document_id: String,
    collection: String,
    content: String,
    metadata: BTreeMap<String, String>,
}

impl Kept {
    fn key(&self, context: &Context) -> String {
        key(&[context.tenant(), &self.collection, &self.document_id])
    }
}

#[derive(Serialize, Deserialize)]
struct GetDocument {
    document_id: String,
}

#[derive(Serialize, Deserialize)]
struct Got {
    document: Option<Document>,
}

impl Knowledge {
    async fn get(self: Arc<Self>, context: Context, request: GetDocument) -> Result<Got, Fault> {
        id("document_id", &request.document_id)?;
        let places = self.collections_with(&context, &request.document_id).await?;
        let Some(collection) = places.first() else { return Err(not_found(&request.document_id)) };
        let place = key(&[context.tenant(), collection, &request.document_id]);
        let found = self.documents.get(&context, &place).await?.ok_or_else(|| not_found(&request.document_id))?;
        let Kept { document_id, collection, content, metadata } = found.value;
        Ok(Got { document: Some(Document { document_id, collection, content, metadata, ..Document::default() }) })
    }

    /// The collection that has a document, as the leader of the store knows it; none where there is none, CONFLICT
    /// where several have one of this id.
    async fn collections_with(&self, context: &Context, document_id: &str) -> Result<Vec<String>, Fault> {
        self.ready(context).await?;
        let mut found = Vec::new();
        for collection in self.collections(context).await {
            let place = key(&[context.tenant(), &collection, document_id]);
            if self.documents.get(context, &place).await?.is_some() {
                found.push(collection);
            }
        }
        if found.len() > 1 {
            let text = format!("{document_id} is in {}: give `collection`", found.join(" and in "));
            return Err(Fault::client(Code::Conflict, text)
                .detail("field", "collection")
                .detail("reason", "ambiguous")
                .detail("collections", found.join(",")));
        }
        Ok(found)
    }

    /// The tenant's collections.
    async fn collections(&self, context: &Context) -> Vec<String> {
        self.index.read().await.collections(&key_token(context.tenant()))
    }

    async fn everything(&self) -> (u64, Vec<Arc<Indexed>>) {
        self.index.read().await.everything()
    }

    /// The terms of a document, counted.
    async fn counted(&self, context: &Context, document: Kept) -> Counted {
        context.blocking(move || Counted::new(document)).await
    }

    /// Takes a change into the own index, so that who wrote it finds it at once.
    async fn index(self: &Arc<Self>, context: &Context, place: &str, revision: u64, document: Option<Counted>) {
        let (own, place) = (self.clone(), place.to_owned());
        context.blocking(move || own.index.blocking_write().put(&place, revision, document)).await;
    }

    /// Waits until the index has been filled once.
    async fn ready(&self, context: &Context) -> Result<(), Fault> {
        let mut is_ready = self.is_ready.subscribe();
        let wait = context.time_left().map_or(READY_WAIT_MAX, |left| left.min(READY_WAIT_MAX));
        match tokio::time::timeout(wait, is_ready.wait_for(|is_ready| *is_ready)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Fault::ours(Code::Unavailable, "the documents are still being read: try again")
                .detail("reason", "starting")
                .retry_after(Duration::from_secs(1))),
        }
    }

    /// Keeps the index as the store is.
    async fn follow(self: Arc<Self>, context: Context) {
        loop {
            let followed = tokio::select! {
                followed = self.follow_once(&context) => followed,
                _ = context.until_cancelled() => return,
            };
            if let Err(fault) = followed {
                tracing::warn!(%fault, "the index follows the documents anew");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn follow_once(self: &Arc<Self>, context: &Context) -> Result<(), Fault> {
        let mut watch = self.documents.watch(Keys::All, None).await?;
        loop {
            match watch.next(context).await? {
                RecordSeen::Current => {
                    self.is_ready.send_replace(true);
                }
                RecordSeen::Change { key, document, revision, .. } => {
                    let prefix = key.split('.').next().unwrap_or_default();
                    if prefix != vectors::PLACE && prefix != query::PROSE {
                        let counted = match document {
                            Some(document) => Some(self.counted(context, document.value).await),
                            None => None,
                        };
                        self.index(context, &key, revision, counted).await;
                    }
                }
            }
        }
    }

    /// Writes the built-in corpus once the settings want it; what was changed or deleted since stays so.
    async fn seed_corpus(self: Arc<Self>, context: Context) {
        let mut settings = self.settings.changes();
        loop {
            let is_wanted = settings.borrow_and_update().knowledge_base.seed_corpus;
            if is_wanted && let Err(fault) = self.write_corpus(&context).await {
                tracing::warn!(%fault, "the corpus is written again");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    _ = context.until_cancelled() => return,
                }
            }
            tokio::select! {
                changed = settings.changed() => if changed.is_err() { return },
                _ = context.until_cancelled() => return,
            }
        }
    }

    async fn sweep(self: Arc<Self>, context: Context) {
        self.documents.sweeper(&context).await;
    }
}

/// The form of a collection's name.
fn check_collection(field: &str, name: &str) -> Result<(), Fault> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if (1..=COLLECTION_MAX).contains(&name.len()) && name.bytes().all(is_good) {
        return Ok(());
    }
    let text = format!("{field} must have 1 to {COLLECTION_MAX} of a-z, 0-9, `_` and `-`");
    Err(invalid(field, "bad_format", text))
}

fn not_found(document_id: &str) -> Fault {
    Fault::client(Code::NotFound, format!("document {document_id} does not exist")).detail("field", "document_id")
}
