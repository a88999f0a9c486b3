//! A world in the store: a header that says what is committed, and a key an entity. A reader takes the header, the
//! entities of its generation, and lays over them what the header says is still to be written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entities::Stored;
use crate::fault::Fault;
use crate::store::{Keys, key, key_token};
use crate::worker::Context;
use crate::worker::records::{Document, RecordSeen, Records};

/// What the bucket holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kept {
    World(World),
    Entity(Row),
    /// An entity that was removed then: late writers of an older commit find it and leave it alone.
    Gone {
        at_ms: i64,
    },
}

/// An entity's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) entity: Stored,
    /// Its event was made for the commit of this time.
    pub(super) told_ms: i64,
}

impl Kept {
    /// The commit that wrote it.
    pub(super) fn at_ms(&self) -> i64 {
        match self {
            Kept::World(world) => world.timestamp_ms,
            Kept::Entity(row) => row.entity.last_updated_ms,
            Kept::Gone { at_ms } => *at_ms,
        }
    }
}

/// A world's header.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct World {
    pub(super) tenant: String,
    pub(super) world_id: String,
    /// Rises with every commit, milliseconds since 1970.
    pub(super) timestamp_ms: i64,
    pub(super) generation: String,
    pub(super) flags: BTreeMap<String, String>,
    /// Revision of the last commit, once it is done: clearing what it had to do is another write.
    pub(super) committed: u64,
    /// What the last commit still has to do.
    pub(super) pending: Option<Pending>,
    /// Hours that were simulated.
    pub(super) simulated_hours: i64,
    /// Hour of the game's clock up to which the ticker has simulated.
    pub(super) ticked_hour: i64,
}

/// What a commit does once it is made: whoever comes by does it, and does it to the end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) is_merge: bool,
    /// Entities of a merge.
    pub(super) writes: BTreeMap<String, Write>,
    /// Flags whose value changed; empty ones are gone.
    pub(super) flags: BTreeMap<String, String>,
    /// The generation that a replacement left behind.
    pub(super) old_generation: Option<String>,
    pub(super) request_id: String,
    pub(super) trace_id: String,
}

/// A change of an entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Write {
    /// As it was; in a header nothing, because there its record says it.
    pub(super) before: Option<Stored>,
    pub(super) after: Option<Stored>,
}

/// A world as it is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) header: World,
    pub(super) entities: BTreeMap<String, Stored>,
}

pub(super) fn header_key(tenant: &str, world_id: &str) -> String {
    key(&[tenant, world_id, "meta"])
}

pub(super) fn entity_key(world: &World, generation: &str, entity_id: &str) -> String {
    key(&[world.tenant.as_str(), &world.world_id, "e", generation, entity_id])
}

/// Keys of a generation's entities.
pub(super) fn generation_keys(world: &World, generation: &str) -> Keys {
    Keys::Under(key(&[world.tenant.as_str(), &world.world_id, "e", generation]))
}

/// A world and its entities out of one list, which is in order of writes: whatever of it is there was committed.
pub(super) fn snapshot(rows: Vec<(String, Document<Kept>)>) -> Option<Snapshot> {
    let header = rows.iter().find_map(|(_, document)| match &document.value {
        Kept::World(world) => Some(world.clone()),
        _ => None,
    })?;
    let prefix = format!(".e.{}.", key_token(&header.generation));
    let of_generation = rows.into_iter().filter(|(key, _)| key.contains(&prefix));
    let entities = of_generation.filter_map(|(_, document)| match document.value {
        Kept::Entity(row) => Some((row.entity.entity_id.clone(), row.entity)),
        _ => None,
    });
    let mut entities: BTreeMap<String, Stored> = entities.collect();
    for (entity_id, write) in header.pending.iter().flat_map(|pending| &pending.writes) {
        match &write.after {
            Some(after) => drop(entities.insert(entity_id.clone(), after.clone())),
            None => drop(entities.remove(entity_id)),
        }
    }
    Some(Snapshot { header, entities })
}

/// The documents under some keys as the leader has them now.
pub(super) async fn all(
    kept: &Records<Kept>,
    context: &Context,
    keys: Keys,
) -> Result<BTreeMap<String, Document<Kept>>, Fault> {
    let mut watch = kept.watch(keys, None).await?;
    let mut documents = BTreeMap::new();
    loop {
        match watch.next(context).await? {
            RecordSeen::Current => return Ok(documents),
            RecordSeen::Change { key, document: Some(document), .. } => drop(documents.insert(key, document)),
            RecordSeen::Change { key, document: None, .. } => drop(documents.remove(&key)),
        }
    }
}
