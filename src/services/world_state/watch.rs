//! A world as it changes: matching entities as a snapshot, then what each commit changed of them and of the flags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entities::{Entity, Stored};
use super::subscriptions::{filter, is_wanted};
use super::world::{Kept, Snapshot, World, header_key, snapshot};
use super::{flags_size, size};
use crate::fault::Fault;
use crate::worker::Context;
use crate::worker::records::{Document, RecordSeen};

/// Most bytes of an entity, or of flags, in an item: a chunk takes 256 KiB, its context included.
const ITEM_BYTES_MAX: usize = 224 * 1024;

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    world_id: String,
    entity_types: Vec<String>,
    tags: Vec<String>,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    revision: u64,
    entity: Option<Entity>,
    change: String,
    changed_flags: BTreeMap<String, String>,
}

/// What of a world the reader of a watch knows.
struct View {
    entity_types: Vec<String>,
    tags: Vec<String>,
    /// Key of the header.
    header: String,
    /// Everything under the world's keys.
    rows: BTreeMap<String, Document<Kept>>,
    told: Snapshot,
    /// Commit up to which everything was told.
    revision: u64,
}

/// The hook of the declared watch. It begins with what is there, also behind a revision: a commit is told by comparing, so
/// the whole has to be known.
pub(super) fn watch(
    context: Context,
    request: Watch,
    _: bool,
) -> Result<impl FnMut(RecordSeen<Kept>) -> Result<Vec<Item>, Fault>, Fault> {
    let Watch { world_id, entity_types, tags, after_revision: after } = request;
    let (entity_types, tags) = filter(&entity_types, &tags)?;
    let header = header_key(context.tenant(), &world_id);
    let (rows, told, revision) = Default::default();
    let mut view = View { entity_types, tags, header, rows, told, revision };
    let mut is_current = false;
    Ok(move |seen: RecordSeen<Kept>| {
        Ok(match seen {
            RecordSeen::Current => {
                is_current = true;
                if after > 0 && after < view.commit() {
                    context.label("reset", "true");
                }
                view.first(after)
            }
            RecordSeen::Change { key, document, .. } => {
                // Entities are committed by their header alone.
                let is_commit = is_current && key == view.header;
                match document {
                    Some(document) => drop(view.rows.insert(key, document)),
                    None => drop(view.rows.remove(&key)),
                }
                if is_commit { view.changes() } else { Vec::new() }
            }
        })
    })
}

impl View {
    /// Revision of the last commit.
    fn commit(&self) -> u64 {
        match self.rows.get(&self.header) {
            Some(Document { value: Kept::World(world), revision, .. }) => match world.pending {
                Some(_) => *revision,
                None => world.committed,
            },
            _ => 0,
        }
    }

    fn now(&self) -> Snapshot {
        snapshot(self.rows.iter().map(|(key, document)| (key.clone(), document.clone())).collect()).unwrap_or_default()
    }

    fn wants(&self, entity: &Stored) -> bool {
        is_wanted(&self.entity_types, &self.tags, &entity.entity_type, &entity.tags)
    }

    /// What is there, unless nothing was committed behind a revision.
    fn first(&mut self, after: u64) -> Vec<Item> {
        self.told = self.now();
        let commit = self.commit();
        if after > 0 && after >= commit {
            self.revision = commit;
            return Vec::new();
        }
        let wanted = self.told.entities.values().filter(|entity| self.wants(entity));
        let items = wanted.map(|entity| Item::entity(entity, "snapshot")).collect();
        self.numbered(items, commit)
    }

    /// What the commits since then have changed.
    fn changes(&mut self) -> Vec<Item> {
        let commit = self.commit();
        if commit == self.revision {
            return Vec::new();
        }
        let now = self.now();
        let before = std::mem::replace(&mut self.told, now);
        let (old, new) = (&before.entities, &self.told.entities);
        let mut items = Vec::new();
        for (entity_id, entity) in new {
            let change = match old.get(entity_id) {
                None => "created",
                Some(known) if known == entity => continue,
                Some(_) => "updated",
            };
            if self.wants(entity) || old.get(entity_id).is_some_and(|known| self.wants(known)) {
                items.push(Item::entity(entity, change));
            }
        }
        let removed = old.iter().filter(|(entity_id, known)| !new.contains_key(*entity_id) && self.wants(known));
        items.extend(removed.map(|(_, known)| Item::entity(known, "removed")));
        let changed_flags = changed_flags(&before.header, &self.told.header);
        items.extend(in_items(changed_flags).into_iter().map(Item::flags));
        self.numbered(items, commit)
    }

    /// Items of a commit with their resume points: who has not got the last one gets all of them again.
    fn numbered(&mut self, mut items: Vec<Item>, commit: u64) -> Vec<Item> {
        for item in &mut items {
            item.revision = self.revision;
        }
        if let Some(last) = items.last_mut() {
            last.revision = commit;
        }
        self.revision = commit;
        items
    }
}

impl Item {
    /// Of an entity that is too large, as much as fits: the rest is there to be read.
    fn entity(entity: &Stored, change: &str) -> Item {
        let (entity, _) = entity.as_fits(|entity| size(entity) <= ITEM_BYTES_MAX);
        Item { revision: 0, entity: Some(entity), change: change.to_owned(), changed_flags: BTreeMap::new() }
    }

    fn flags(changed_flags: BTreeMap<String, String>) -> Item {
        Item { revision: 0, entity: None, change: "flags".to_owned(), changed_flags }
    }
}

/// Flags in as many parts as they need.
fn in_items(flags: BTreeMap<String, String>) -> Vec<BTreeMap<String, String>> {
    let mut parts: Vec<BTreeMap<String, String>> = Vec::new();
    let mut bytes = ITEM_BYTES_MAX;
    for flag in flags {
        let flag = BTreeMap::from([flag]);
        bytes += flags_size(&flag);
        match parts.last_mut() {
            Some(part) if bytes <= ITEM_BYTES_MAX => part.extend(flag),
            _ => {
                bytes = flags_size(&flag);
                parts.push(flag);
            }
        }
    }
    parts
}

/// Flags whose value is another one; empty where they are gone.
fn changed_flags(before: &World, after: &World) -> BTreeMap<String, String> {
    let gone = before.flags.keys().filter(|name| !after.flags.contains_key(*name));
    let mut changed: BTreeMap<String, String> = gone.map(|name| (name.clone(), String::new())).collect();
    let new = after.flags.iter().filter(|(name, value)| before.flags.get(*name) != Some(*value));
    changed.extend(new.map(|(name, value)| (name.clone(), value.clone())));
    changed
}
