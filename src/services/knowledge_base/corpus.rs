//! The built-in corpus: families, drugs, paths and rules of the trade, a line a document.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::Counted;
use super::write::told;
use super::{Kept, Knowledge};
use crate::fault::Fault;
use crate::worker::Context;
use crate::worker::records::{Change, Current};

/// Where it goes.
const COLLECTION: &str = "lore";

/// Id and content.
const LINES: &str = include_str!("corpus.txt");

impl Knowledge {
    /// Stores what of the corpus was never there.
    pub(super) async fn write_corpus(self: &Arc<Self>, context: &Context) -> Result<(), Fault> {
        for document in corpus() {
            let (place, counted) = (document.key(context), Counted::new(document));
            let document = counted.document();
            let rule = |current: &Current<Kept>| {
                Ok(match current.version {
                    0 => Change::put(document.clone(), true).event(told(
                        context,
                        document,
                        "ingested",
                        counted.passages(),
                    )?),
                    _ => Change::nothing(false),
                })
            };
            let done = self.documents.change(context, &place, rule).await.map_err(|failed| failed.fault)?;
            if done.reply {
                self.index(context, &place, done.revision, Some(counted)).await;
            }
        }
        Ok(())
    }
}

/// The documents of the corpus.
fn corpus() -> impl Iterator<Item = Kept> {
    let rows = LINES.lines().filter_map(|line| line.split_once('\t'));
    rows.map(|(id, content)| Kept {
        document_id: id.to_owned(),
        collection: COLLECTION.to_owned(),
        content: content.to_owned(),
        metadata: BTreeMap::from([("scope".to_owned(), "dark_world".to_owned())]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_document_for_each_family_drug_path_and_set_of_rules() {
        let ids: Vec<String> = corpus().map(|document| document.document_id).collect();
        assert_eq!(ids.len(), LINES.lines().count());
        let count = |prefix: &str| ids.iter().filter(|id| id.starts_with(prefix)).count();
        assert_eq!(["family_", "drug_", "path_", "rules_"].map(count), [8, 8, 3, 2]);
    }
}
