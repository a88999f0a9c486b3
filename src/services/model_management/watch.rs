//! The registry of models as it changes: a snapshot of what passes the filters, then one item a change.

use std::sync::Arc;

use super::messages::{Item, Watch};
use super::{Entry, Models};
use crate::fault::Fault;
use crate::store::{Keys, key, key_token};
use crate::worker::records::RecordSeen;
use crate::worker::{Chunks, Context};

impl Models {
    pub(super) async fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        self.provide(&context).await?;
        let prefix = key(&[context.tenant()]);
        let mut watch = self.entries.watch(Keys::Under(prefix), Some(request.after_revision)).await?;
        let mut registry = self.registry(&context).await?;
        let is_resumed = request.after_revision > 0 && !watch.is_reset();
        if watch.is_reset() {
            context.label("reset", "true");
        }
        let mut is_snapshot = !is_resumed;
        loop {
            let seen = tokio::select! {
                seen = watch.next(&context) => seen?,
                _ = context.until_cancelled() => return Ok(()),
            };
            let RecordSeen::Change { key, document, revision, .. } = seen else {
                is_snapshot = false;
                continue;
            };
            let told = match document.map(|document| document.value) {
                Some(entry) => {
                    let model_id = match &entry {
                        Entry::Model(model) => Some((model.model_id.clone(), "updated")),
                        // In a snapshot each model says itself whether it is selected.
                        Entry::Selected { .. } if is_snapshot => None,
                        Entry::Selected { model_id, .. } => Some((model_id.clone(), "selected")),
                    };
                    registry.take(&key, entry);
                    model_id.and_then(|(id, change)| Some((registry.info(registry.models.get(&id)?), change)))
                }
                None => {
                    let gone = registry.models.keys().find(|id| key.ends_with(&key_token(id))).cloned();
                    gone.and_then(|id| registry.models.remove(&id)).map(|model| (model.info(false), "removed"))
                }
            };
            let Some((info, change)) = told else { continue };
            let passes = |filter: &str, value: &str| filter.is_empty() || filter.eq_ignore_ascii_case(value);
            if passes(&request.modality_filter, &info.modality) && passes(&request.provider_filter, &info.provider) {
                let change = if is_snapshot { "snapshot" } else { change };
                chunks.send(&Item { revision, model: Some(info), change: change.to_owned() }).await?;
            }
        }
    }
}
