//! What a commit has to do once it is made: write the entities with their events, then tell the whole and clear the
//! header. Writer, next writer and sweeper may all do it, at the same time and again: each step is taken once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::entities::{Entity, Stored};
use super::update::{entities, some_at_a_time};
use super::world::{Kept, Pending, Row, World, Write, all, entity_key, generation_keys, header_key};
use super::{WorldState, Worlds, flags_size, size};
use crate::fault::{Code, Fault};
use crate::services::background::{Agenda, keep_running};
use crate::services::notices::notice;
use crate::store::{Expected, Keys, VALUE_BYTES_MAX};
use crate::worker::records::{Change, Current, Document, EventId, Notice, RecordSeen};
use crate::worker::{Context, Failed};

/// How long the record of a removed entity is kept for late writers.
const GONE_KEPT_MS: i64 = 3_600 * 1_000;
/// Age at which a commit's work counts as left behind, in sweeps.
const LEFT_SWEEPS: u32 = 2;
/// How often generations are looked for that nobody reads, and the age at which their entities go.
const GARBAGE: Duration = Duration::from_secs(600);
/// Most bytes that a document and the event beside it have together in a record; the rest is metadata and repeat keys.
const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX - 64 * 1024;
/// An event up to this size fits beside any document that has it.
const SMALL_BYTES: usize = 64 * 1024;
/// Longest list of tags that an event's metadata has.
const TAGS_BYTES_MAX: usize = 32 * 1024;

impl Worlds {
    /// Does what a header's commit still has to do.
    pub(super) async fn settle(&self, own: &Context, header: &World) -> Result<(), Fault> {
        let Some(pending) = &header.pending else { return Ok(()) };
        let changed = match &pending.old_generation {
            None => {
                self.write_all(own, header, pending, &pending.writes).await?;
                pending.writes.values().filter_map(|write| write.after.as_ref()).map(Entity::from).collect()
            }
            Some(old) => self.replace(own, header, pending, old).await?,
        };
        let rule = |current: &Current<Kept>| match &current.value {
            Some(Kept::World(world)) if world.timestamp_ms == header.timestamp_ms && world.pending.is_some() => {
                let after = World { pending: None, committed: current.revision, ..world.clone() };
                let told = world_event(own, header, pending, &changed)?;
                Ok(Change::put(Kept::World(after), ()).event(told))
            }
            _ => Ok(Change::nothing(())),
        };
        let at = header_key(&header.tenant, &header.world_id);
        self.kept.change(own, &at, rule).await.map_err(|failed: Failed<()>| failed.fault)?;
        Ok(())
    }

    async fn write_all(
        &self,
        own: &Context,
        header: &World,
        pending: &Pending,
        writes: &BTreeMap<String, Write>,
    ) -> Result<(), Fault> {
        let writes = writes.iter().map(|(entity_id, write)| {
            let generation = match (&write.after, &pending.old_generation) {
                (None, Some(old)) => old,
                _ => &header.generation,
            };
            let at = entity_key(header, generation, entity_id);
            self.write(own, header, pending, at, write)
        });
        some_at_a_time(writes.collect()).await.map(drop)
    }

    /// Writes an entity with its event, unless that was done.
    async fn write(
        &self,
        own: &Context,
        header: &World,
        pending: &Pending,
        at: String,
        write: &Write,
    ) -> Result<(), Fault> {
        let commit_ms = header.timestamp_ms;
        let rule = |current: &Current<Kept>| {
            // A merge leaves the entity as it was in its own record, and does not carry it in the header.
            let before = match &current.value {
                Some(Kept::Entity(row)) if pending.is_merge => Some(&row.entity),
                _ => write.before.as_ref(),
            };
            let is_done = match &current.value {
                Some(Kept::Entity(row)) => row.told_ms >= commit_ms || row.entity.last_updated_ms > commit_ms,
                Some(other) => other.at_ms() >= commit_ms,
                None => false,
            };
            if is_done {
                return Ok(Change::nothing(()));
            }
            let change = match &write.after {
                Some(after) => Change::put(Kept::Entity(Row { entity: after.clone(), told_ms: commit_ms }), ()),
                None => {
                    let gone = Change::put(Kept::Gone { at_ms: commit_ms }, ());
                    gone.expires_at_ms(current.now_ms + GONE_KEPT_MS)
                }
            };
            Ok(match entity_event(own, header, pending, before, write.after.as_ref())? {
                Some(told) => change.event(told),
                None => change,
            })
        };
        self.kept.change(own, &at, rule).await.map_err(|failed: Failed<()>| failed.fault)?;
        Ok(())
    }

    /// Tells what a replacement changed, and lets the old generation go; gives the changed entities.
    async fn replace(&self, own: &Context, header: &World, pending: &Pending, old: &str) -> Result<Vec<Entity>, Fault> {
        let before = entities(all(&self.kept, own, generation_keys(header, old)).await?);
        let after = entities(all(&self.kept, own, generation_keys(header, &header.generation)).await?);
        let is_changed = |entity: &&Stored| entity.last_updated_ms == header.timestamp_ms;
        let writes = after.values().filter(is_changed).map(|entity| {
            let write = Write { before: before.get(&entity.entity_id).cloned(), after: Some(entity.clone()) };
            (entity.entity_id.clone(), write)
        });
        // The old ones go last: until then they say what was created and what was changed.
        self.write_all(own, header, pending, &writes.collect()).await?;
        let gone = before.into_iter().filter(|(entity_id, _)| !after.contains_key(entity_id));
        let gone: BTreeMap<String, Write> =
            gone.map(|(entity_id, before)| (entity_id, Write { before: Some(before), after: None })).collect();
        self.write_all(own, header, pending, &gone).await?;
        for entity_id in after.keys() {
            self.kept.bucket().delete(&entity_key(header, old, entity_id), Expected::Any).await?;
        }
        Ok(after.values().filter(is_changed).map(Entity::from).collect())
    }

    /// Deletes a generation that no header names.
    pub(super) async fn sweep_generation(
        &self,
        context: &Context,
        world: &World,
        generation: &str,
    ) -> Result<(), Fault> {
        for at in all(&self.kept, context, generation_keys(world, generation)).await?.into_keys() {
            self.kept.bucket().delete(&at, Expected::Any).await?;
        }
        Ok(())
    }

    /// Finishes the commits of replicas that died, and removes what replacements of theirs left behind.
    pub(super) async fn keep_up(self: Arc<Self>, context: Context) {
        keep_running(&context, "commits", || self.follow_worlds(&context)).await;
    }

    async fn follow_worlds(&self, context: &Context) -> Result<(), Fault> {
        let mut watch = self.kept.watch(Keys::All, None).await?;
        let mut waiting: BTreeMap<String, World> = BTreeMap::new();
        let mut agenda = Agenda::default();
        let left_ms = (self.settings.now().common.sweep * LEFT_SWEEPS).as_millis() as i64;
        let mut garbage = tokio::time::interval(GARBAGE);
        loop {
            for at in agenda.take_due(context.now_ms()) {
                let Some(header) = waiting.remove(&at) else { continue };
                match self.settle(&context.for_tenant(&header.tenant), &header).await {
                    Ok(()) => {}
                    Err(fault) if fault.code() == Code::Unavailable => return Err(fault),
                    // One world that cannot be settled keeps nobody from the others.
                    Err(fault) => {
                        tracing::warn!(at, %fault, "the writes behind a commit wait");
                        agenda.set(&at, context.now_ms() + left_ms);
                        waiting.insert(at, header);
                    }
                }
            }
            tokio::select! {
                seen = watch.next(context) => if let RecordSeen::Change { key, document, .. } = seen?
                    && let Some(Document { value: Kept::World(header), .. }) = document
                {
                    agenda.remove(&key);
                    waiting.remove(&key);
                    if header.pending.is_some() {
                        agenda.set(&key, context.now_ms() + left_ms);
                        waiting.insert(key, header);
                    }
                },
                _ = garbage.tick() => self.remove_garbage(context).await?,
                () = agenda.until_next(context.now_ms()) => {}
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }

    async fn remove_garbage(&self, context: &Context) -> Result<(), Fault> {
        let old_ms = context.now_ms() - GARBAGE.as_millis() as i64;
        let rows = self.kept.list(context, &Keys::All).await?;
        let (headers, rows): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(_, document)| matches!(document.value, Kept::World(_)));
        let rows: Vec<&String> = rows.iter().filter(|(_, row)| row.updated_ms < old_ms).map(|(at, _)| at).collect();
        for (at, _) in headers {
            let Some(prefix) = at.strip_suffix("meta").map(|world| format!("{world}e.")) else { continue };
            let mut of_world = rows.clone();
            of_world.retain(|row| row.starts_with(&prefix));
            if of_world.is_empty() {
                continue;
            }
            // The list may be behind: only the header itself says which generations are in use.
            let Some(Document { value: Kept::World(header), .. }) = self.kept.get(context, &at).await? else {
                continue;
            };
            let old = header.pending.as_ref().and_then(|pending| pending.old_generation.as_ref());
            let live: Vec<Keys> =
                [Some(&header.generation), old].into_iter().flatten().map(|g| generation_keys(&header, g)).collect();
            of_world.retain(|row| !live.iter().any(|keys| keys.contains(row)));
            for row in of_world {
                self.kept.bucket().delete(row, Expected::Any).await?;
            }
        }
        Ok(())
    }
}

/// The event of an entity's change.
fn entity_event(
    own: &Context,
    header: &World,
    pending: &Pending,
    before: Option<&Stored>,
    after: Option<&Stored>,
) -> Result<Option<Notice>, Fault> {
    let (shown, change) = match (before, after) {
        (None, Some(after)) => (after, "created"),
        (Some(_), Some(after)) => (after, "updated"),
        (Some(before), None) => (before, "removed"),
        (None, None) => return Ok(None),
    };
    let id = EventId::Text(format!("{}:{}:{}", header.world_id, shown.entity_id, header.timestamp_ms));
    let (payload, is_truncated) = told_of(shown, after);
    let told = notice(own, "evt.world.entity.updated.v1", id, "world_state.v1.Entity", &payload)?;
    let mut told = of_caller(told, pending).with("world_id", &*header.world_id).with("change", change);
    if change == "removed" {
        told = told.priority(7);
    }
    if is_truncated {
        told = told.with("truncated", "true");
    }
    // Who wanted the entity as it was wants to know that it is no longer so.
    if let Some(before) = before.filter(|before| before.entity_type != shown.entity_type) {
        told = told.with("previous_type", &*before.entity_type);
    }
    if let Some(before) = before.filter(|before| before.tags != shown.tags) {
        let tags = serde_json::to_string(&before.tags).unwrap_or_default();
        told = if tags.len() > TAGS_BYTES_MAX { told } else { told.with("previous_tags", tags) };
    }
    Ok(Some(told))
}

/// What the event says of an entity, and whether that is not all: it stands beside the document in one record, which has
/// to fit into the store.
fn told_of(shown: &Stored, written: Option<&Stored>) -> (Entity, bool) {
    shown.as_fits(|told| size(told) <= SMALL_BYTES || fits_beside(&written, size(told)))
}

/// True where an event of so many bytes, which a record holds as Base64, fits into the record of a document.
fn fits_beside<T: Serialize>(document: &T, bytes: usize) -> bool {
    let document = serde_json::to_vec(document).map_or(usize::MAX, |json| json.len());
    document.saturating_add(bytes / 3 * 4) <= RECORD_BYTES_MAX
}

/// The event of a commit: its changed entities and flags.
fn world_event(own: &Context, header: &World, pending: &Pending, changed: &[Entity]) -> Result<Notice, Fault> {
    let (flags, entities) = (flags_size(&pending.flags), changed.iter().map(size).sum::<usize>());
    let fits = |bytes: usize| bytes <= SMALL_BYTES || fits_beside(&header.flags, bytes);
    let (with_flags, with_entities) = (fits(flags), fits(flags + entities));
    let payload = WorldState {
        world_id: header.world_id.clone(),
        timestamp_ms: header.timestamp_ms,
        entities: if with_entities { changed.to_vec() } else { Vec::new() },
        global_flags: if with_flags { pending.flags.clone() } else { BTreeMap::new() },
        total_entities: 0,
    };
    let id = EventId::Text(format!("{}:{}", header.world_id, header.timestamp_ms));
    let told = notice(own, "evt.world.state.changed.v1", id, "world_state.v1.WorldState", &payload)?;
    let told = of_caller(told, pending)
        .with("world_id", &*header.world_id)
        .with("merge", if pending.is_merge { "true" } else { "false" });
    Ok(if with_entities { told } else { told.with("truncated", "true") })
}

/// The notice of a call that somebody else may finish.
fn of_caller(told: Notice, pending: &Pending) -> Notice {
    told.with("request_id", &*pending.request_id).with("trace_id", &*pending.trace_id)
}
