//! Documents that come, change and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::index::Counted;
use super::passages::passages;
use super::{Document, Kept, Knowledge, check_collection, not_found};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, invalid, required};
use crate::services::notices::notice;
use crate::services::seed::{Part, seed, tenant_part};
use crate::store::key;
use crate::worker::records::{Change, Current, EventId, Notice};
use crate::worker::{Context, Failed};

/// Documents of one request, and bytes of one document.
const DOCUMENTS_MAX: usize = 100;
const CONTENT_MAX: usize = 512 * 1024;
/// Entries and bytes of a document's metadata.
const METADATA_MAX: usize = 64;
const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Priority of a removal's event.
const REMOVAL: i32 = 7;

#[derive(Serialize, Deserialize)]
pub(super) struct Ingest {
    documents: Vec<Document>,
    collection: String,
    overwrite_existing: bool,
    default_metadata: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Ingested {
    documents_ingested: i32,
    document_ids: Vec<String>,
    chunks_created: i32,
    skipped_ids: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Update {
    document_id: String,
    content: String,
    metadata: BTreeMap<String, String>,
    collection: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Updated {
    success: bool,
    document_id: String,
}

impl Knowledge {
    pub(super) async fn ingest(
        self: Arc<Self>,
        context: Context,
        request: Ingest,
    ) -> Result<Ingested, Failed<Ingested>> {
        let overwrites = request.overwrite_existing;
        let documents = checked(&context, request)?;
        let write = async {
            if !overwrites {
                self.refuse_conflicts(&context, &documents).await?;
            }
            let mut ingested = Ingested::default();
            for document in documents {
                let (id, counted) = (document.document_id.clone(), self.counted(&context, document).await);
                let passages = counted.passages() as i32;
                let is_stored = self.put(&context, counted, overwrites).await.map_err(|fault| {
                    let stored = ingested.document_ids.join(",");
                    if stored.is_empty() { fault } else { fault.detail("stored", stored) }
                })?;
                if is_stored {
                    ingested.documents_ingested += 1;
                    ingested.chunks_created += passages;
                    ingested.document_ids.push(id);
                } else {
                    ingested.skipped_ids.push(id);
                }
            }
            Ok(ingested)
        };
        self.repeats.once(&context, write).await
    }

    /// Before anything is stored, all that would be in the way.
    async fn refuse_conflicts(&self, context: &Context, documents: &[Kept]) -> Result<(), Fault> {
        let mut conflicts = Vec::new();
        for document in documents {
            let found = self.documents.get(context, &document.key(context)).await?;
            if found.is_some_and(|found| found.value != *document) {
                conflicts.push(document.document_id.as_str());
            }
        }
        if conflicts.is_empty() { Ok(()) } else { Err(exists(&conflicts)) }
    }

    /// Stores a document; false where it is there already.
    async fn put(self: &Arc<Self>, context: &Context, counted: Counted, overwrites: bool) -> Result<bool, Fault> {
        let document = counted.document();
        let rule = |current: &Current<Kept>| match &current.value {
            Some(found) if found == document => Ok(Change::nothing(false)),
            Some(_) if !overwrites => Err(exists(&[&document.document_id]).into()),
            _ => {
                Ok(Change::put(document.clone(), true).event(told(context, document, "ingested", counted.passages())?))
            }
        };
        let place = document.key(context);
        let done = self.documents.change(context, &place, rule).await.map_err(|failed| failed.fault)?;
        if done.reply {
            self.index(context, &place, done.revision, Some(counted)).await;
        }
        Ok(done.reply)
    }

    pub(super) async fn update(self: Arc<Self>, context: Context, request: Update) -> Result<Updated, Failed<Updated>> {
        id("document_id", &request.document_id)?;
        if request.content.len() > CONTENT_MAX {
            return Err(too_long("content").into());
        }
        if request.content.is_empty() && !request.metadata.is_empty() {
            let text = "empty content deletes the document: to change its metadata, send its content again";
            return Err(invalid("metadata", "conflicting_fields", text).into());
        }
        check_metadata("metadata", &request.metadata)?;
        if !request.collection.is_empty() {
            check_collection("collection", &request.collection)?;
        }
        let write = async {
            let mut places = match request.collection.as_str() {
                "" => self.collections_with(&context, &request.document_id).await?,
                name => vec![name.to_owned()],
            };
            if places.is_empty() && !context.idempotency_key().is_empty() {
                // A repeat of a deletion finds its key where the document was.
                places = self.collections(&context).await;
            }
            for collection in places {
                match self.change(&context, &request, &collection).await {
                    Err(fault) if fault.code() == Code::NotFound => {}
                    Err(fault) => return Err(fault.into()),
                    Ok(()) => return Ok(Updated { success: true, document_id: request.document_id.clone() }),
                }
            }
            Err(not_found(&request.document_id).into())
        };
        self.repeats.once(&context, write).await
    }

    /// Changes or deletes a document of a collection.
    async fn change(self: &Arc<Self>, context: &Context, request: &Update, collection: &str) -> Result<(), Fault> {
        let content = request.content.clone();
        let cut = context.blocking(move || passages(&content).len()).await;
        let rule = |current: &Current<Kept>| {
            let before = current.value.as_ref().ok_or_else(|| not_found(&request.document_id))?;
            if request.content.is_empty() {
                return Ok(Change::delete(())
                    .event(told(context, before, "deleted", passages(&before.content).len())?.priority(REMOVAL)));
            }
            let mut after = before.clone();
            after.content.clone_from(&request.content);
            for (name, value) in &request.metadata {
                match value.as_str() {
                    "" => after.metadata.remove(name),
                    value => after.metadata.insert(name.clone(), value.to_owned()),
                };
            }
            check_metadata("metadata", &after.metadata)?;
            Ok(match after == *before {
                true => Change::nothing(()),
                false => {
                    let told = told(context, &after, "updated", cut)?;
                    Change::put(after, ()).event(told)
                }
            })
        };
        let place = key(&[context.tenant(), collection, &request.document_id]);
        let done = self.documents.change(context, &place, rule).await.map_err(|failed| failed.fault)?;
        // Not the rule's reply, which the record would keep besides the document.
        match self.documents.get(context, &place).await? {
            Some(now) => {
                let counted = self.counted(context, now.value).await;
                self.index(context, &place, now.revision, Some(counted)).await;
            }
            None => self.index(context, &place, done.revision, None).await,
        }
        Ok(())
    }
}

/// The documents of a request as they are to be stored.
fn checked(context: &Context, request: Ingest) -> Result<Vec<Kept>, Fault> {
    if request.documents.is_empty() {
        return Err(required("documents"));
    }
    if request.documents.len() > DOCUMENTS_MAX {
        return Err(invalid("documents", "too_many", format!("at most {DOCUMENTS_MAX} documents")));
    }
    for (index, document) in request.documents.iter().enumerate() {
        let field = |name: &str| format!("documents[{index}].{name}");
        if !document.document_id.is_empty() {
            id(&field("document_id"), &document.document_id)?;
        }
        if document.content.is_empty() {
            return Err(required(&field("content")));
        }
        if document.content.len() > CONTENT_MAX {
            return Err(too_long(&field("content")));
        }
    }
    if !request.collection.is_empty() {
        check_collection("collection", &request.collection)?;
    }
    let (mut ids, mut kept) = (BTreeSet::new(), Vec::new());
    for (index, document) in request.documents.into_iter().enumerate() {
        let field = |name: &str| format!("documents[{index}].{name}");
        let own = document.collection;
        let collection = match (own.as_str(), request.collection.as_str()) {
            ("", "") => return Err(required("collection")),
            ("", of_all) => of_all.to_owned(),
            (_, of_all) if of_all.is_empty() || of_all == own => own,
            _ => {
                let text = format!("{} is another one than that of the request", field("collection"));
                return Err(invalid(&field("collection"), "conflicting_fields", text));
            }
        };
        check_collection(&field("collection"), &collection)?;
        let mut metadata = request.default_metadata.clone();
        metadata.extend(document.metadata);
        check_metadata(&field("metadata"), &metadata)?;
        let document_id = match document.document_id {
            given if !given.is_empty() => given,
            _ => {
                let tenant = tenant_part(context.tenant());
                let parts = [Part::Text("kb.doc.v1"), tenant, Part::Text(&collection), Part::Text(&document.content)];
                format!("doc_{:016x}", seed(&parts))
            }
        };
        if !ids.insert(document_id.clone()) {
            let text = format!("{document_id} is in the request twice");
            return Err(invalid(&field("document_id"), "conflicting_fields", text));
        }
        kept.push(Kept { document_id, collection, content: document.content, metadata });
    }
    Ok(kept)
}

fn check_metadata(field: &str, metadata: &BTreeMap<String, String>) -> Result<(), Fault> {
    if metadata.len() > METADATA_MAX {
        return Err(invalid(field, "too_many", format!("{field} has more than {METADATA_MAX} entries")));
    }
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(invalid(field, "too_long", format!("{field} has more than {METADATA_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn too_long(field: &str) -> Fault {
    invalid(field, "too_long", format!("{field} has more than {CONTENT_MAX} bytes"))
}

fn exists(ids: &[&str]) -> Fault {
    let text = match ids.len() {
        1 => "1 document exists with other content".to_owned(),
        count => format!("{count} documents exist with other content"),
    };
    Fault::client(Code::Conflict, text).detail("reason", "exists").detail("conflicts", ids.join(","))
}

/// The event of a document, which says everything but its content, and into how many passages that is cut.
pub(super) fn told(context: &Context, document: &Kept, op: &str, passages: usize) -> Result<Notice, Fault> {
    let id = EventId::AtRevision(format!("{}:{}", document.collection, document.document_id));
    let payload = Document {
        document_id: document.document_id.clone(),
        collection: document.collection.clone(),
        metadata: document.metadata.clone(),
        ..Document::default()
    };
    Ok(notice(context, "evt.kb.document.ingested.v1", id, "knowledge_base.v1.Document", &payload)?
        .with("op", op)
        .with("collection", &*document.collection)
        .with("chunks", passages.to_string()))
}
