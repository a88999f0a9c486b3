//! The registry of models as it changes: a snapshot of what passes the filters, then one item a change.

use std::collections::BTreeMap;

use super::messages::{Item, Watch};
use super::{Entry, Model, Registry};
use crate::fault::Fault;
use crate::store::key_token;
use crate::worker::Context;
use crate::worker::records::{Document, RecordSeen};

/// The hook of the declared watch. A model's item says whether it is selected, so the registry has to be known to tell of
/// one.
pub(super) fn watch(
    _: Context,
    request: Watch,
    known: Option<Vec<(String, Document<Entry>)>>,
) -> Result<impl FnMut(RecordSeen<Entry>) -> Result<Vec<Item>, Fault>, Fault> {
    // Models of the snapshot and their revisions, until it is whole.
    let mut snapshot = known.is_none().then(BTreeMap::<String, u64>::new);
    let mut registry: Registry = known.into_iter().flatten().collect();
    let item = move |revision: u64, model: &Model, is_default: bool, change: &str| {
        let passes = model.passes(&request.modality_filter, &request.provider_filter);
        passes.then(|| Item { revision, model: Some(model.info(is_default)), change: change.to_owned() })
    };
    Ok(move |seen| {
        let RecordSeen::Change { key, document, revision, .. } = seen else {
            let mut rows: Vec<(u64, String)> = snapshot.take().into_iter().flatten().map(|(id, at)| (at, id)).collect();
            rows.sort();
            let items = rows.into_iter().filter_map(|(revision, model_id)| {
                let model = registry.models.get(&model_id)?;
                item(revision, model, registry.is_default(model), "snapshot")
            });
            return Ok(items.collect());
        };
        let Some((model, change)) = registry.change(&key, document.map(|document| document.value)) else {
            return Ok(Vec::new());
        };
        if let Some(snapshot) = &mut snapshot {
            if change == "updated" {
                snapshot.insert(model.model_id, revision);
            }
            return Ok(Vec::new());
        }
        let is_default = change != "removed" && registry.is_default(&model);
        Ok(item(revision, &model, is_default, change).into_iter().collect())
    })
}

impl Registry {
    /// Takes a change in: the model that it is about, and what has become of it.
    fn change(&mut self, key: &str, entry: Option<Entry>) -> Option<(Model, &'static str)> {
        let (model_id, change) = match &entry {
            Some(Entry::Model(model)) => (model.model_id.clone(), "updated"),
            Some(Entry::Selected { model_id, .. }) => (model_id.clone(), "selected"),
            None => {
                let is_it = |model_id: &&String| key.ends_with(&format!(".model.{}", key_token(model_id)));
                let model_id = self.models.keys().find(is_it)?.clone();
                return Some((self.models.remove(&model_id)?, "removed"));
            }
        };
        self.take(key, entry?);
        Some((self.models.get(&model_id)?.clone(), change))
    }
}
