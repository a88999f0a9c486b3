//! A change of a world: one compare-and-set on its header is the commit. A merge carries its entity writes in the
//! header; a replacement writes its entities under a generation of its own first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::Worlds;
use super::entities::{Entity, Stored, check_entities, list, map};
use super::world::{Kept, Pending, Row, World, Write, all, entity_key, generation_keys, header_key};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, invalid};
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed};

/// Entities read or written at the same time.
const PARALLEL: usize = 16;
/// Most bytes of entity writes that a header carries.
const MERGE_BYTES_MAX: usize = 512 * 1024;
/// Tries of a change that keeps losing its race, and the longest pause between two.
const TRIES: usize = 20;
const PAUSE_MAX_MS: u64 = 50;

#[derive(Serialize, Deserialize)]
pub(super) struct Update {
    world_id: String,
    entities_to_update: Vec<Entity>,
    global_flags_to_update: BTreeMap<String, String>,
    merge: bool,
    expected_timestamp_ms: i64,
    remove_entity_ids: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Updated {
    entities_updated: i32,
    flags_updated: i32,
    new_timestamp_ms: i64,
}

/// What a commit makes of a header.
pub(super) struct Plan {
    /// Revision of the header that it was made from; 0 where there was none.
    pub(super) revision: u64,
    pub(super) after: World,
    pub(super) expected_timestamp_ms: i64,
    pub(super) entities_updated: usize,
    /// Nothing would change.
    pub(super) is_idle: bool,
}

impl Worlds {
    pub(super) async fn update(self: Arc<Self>, context: Context, request: Update) -> Result<Updated, Failed<Updated>> {
        check(&request)?;
        let write = async {
            for attempt in 0..TRIES {
                if let Some(updated) = self.attempt(&context, &request).await? {
                    return Ok(updated);
                }
                pause(attempt).await;
            }
            Err(raced().into())
        };
        self.repeats.once(&context, write).await
    }

    /// One try; nothing where the race was lost.
    async fn attempt(&self, context: &Context, request: &Update) -> Result<Option<Updated>, Failed<Updated>> {
        let Some((revision, header)) = self.settled_header(context, &request.world_id).await? else { return Ok(None) };
        let now_ms = context.now_ms().max(header.timestamp_ms + 1);
        let plan = match request.merge {
            true => self.merge(context, request, revision, header, now_ms).await?,
            false => self.replacement(context, request, revision, header, now_ms).await?,
        };
        let attempt = (!request.merge).then(|| (plan.after.clone(), plan.after.generation.clone()));
        let committed = self.commit(context, plan).await;
        // Where it is certain that the attempt was lost, nobody will ever read what it has written; where the store did
        // not answer it may have been made.
        let is_lost = match &committed {
            Ok(updated) => updated.is_none(),
            Err(failed) => failed.fault.code() == Code::FailedPrecondition,
        };
        if let Some((world, generation)) = attempt.filter(|_| is_lost) {
            self.sweep_generation(context, &world, &generation).await?;
        }
        committed
    }

    /// The header with nothing left to do; nothing where something was, and it has to be read anew.
    pub(super) async fn settled_header(
        &self,
        context: &Context,
        world_id: &str,
    ) -> Result<Option<(u64, World)>, Fault> {
        let tenant = context.tenant();
        let found = self.kept.get(context, &header_key(tenant, world_id)).await?;
        let (revision, header) = match found.map(|document| (document.revision, document.value)) {
            Some((revision, Kept::World(world))) => (revision, world),
            _ => {
                let (tenant, world_id) = (tenant.to_owned(), world_id.to_owned());
                let generation = uuid::Uuid::new_v4().simple().to_string();
                (0, World { tenant, world_id, generation, ..World::default() })
            }
        };
        if header.pending.is_some() {
            self.settle(&context.for_tenant(tenant), &header).await?;
            return Ok(None);
        }
        Ok(Some((revision, header)))
    }

    async fn merge(
        &self,
        context: &Context,
        request: &Update,
        revision: u64,
        header: World,
        now_ms: i64,
    ) -> Result<Plan, Fault> {
        let given = request.entities_to_update.iter().map(|entity| (&entity.entity_id, Some(entity)));
        let removed = request.remove_entity_ids.iter().map(|entity_id| (entity_id, None));
        let reads = given.chain(removed).map(|(entity_id, entity)| {
            let at = entity_key(&header, &header.generation, entity_id);
            async move {
                let before = match self.kept.get(context, &at).await?.map(|document| document.value) {
                    Some(Kept::Entity(row)) => Some(row.entity),
                    _ => None,
                };
                Ok::<_, Fault>((entity_id.clone(), entity, before))
            }
        });
        let found = some_at_a_time(reads.collect()).await?;
        let writes = found.into_iter().map(|(entity_id, entity, before)| {
            let after = entity.map(|entity| entity.merged(before.as_ref(), now_ms));
            (entity_id, Write { before, after })
        });
        plan(context, revision, header, now_ms, writes.collect(), &request.global_flags_to_update)
            .map(|plan| Plan { expected_timestamp_ms: request.expected_timestamp_ms, ..plan })
    }

    /// Writes the entities under a new generation; the commit then switches to it.
    async fn replacement(
        &self,
        context: &Context,
        request: &Update,
        revision: u64,
        header: World,
        now_ms: i64,
    ) -> Result<Plan, Fault> {
        let old = match revision {
            0 => BTreeMap::new(),
            _ => entities(all(&self.kept, context, generation_keys(&header, &header.generation)).await?),
        };
        let generation = uuid::Uuid::new_v4().simple().to_string();
        let own = context.for_tenant(context.tenant());
        let rows: Vec<Row> = request
            .entities_to_update
            .iter()
            .map(|entity| {
                let after = entity.alone(now_ms);
                match old.get(&entity.entity_id).filter(|before| before.says_the_same(&after)) {
                    // Nothing to tell of it.
                    Some(before) => Row { entity: before.clone(), told_ms: now_ms },
                    None => Row { entity: after, told_ms: 0 },
                }
            })
            .collect();
        let removed = old.keys().filter(|old| !rows.iter().any(|row| row.entity.entity_id == **old)).count();
        let entities_updated = removed + rows.iter().filter(|row| row.told_ms == 0).count();
        let writes = rows.into_iter().map(|row| {
            let (own, at) = (&own, entity_key(&header, &generation, &row.entity.entity_id));
            async move {
                let rule = |_: &Current<Kept>| Ok(Change::put(Kept::Entity(row.clone()), ()));
                self.kept.change(own, &at, rule).await.map_err(|failed: Failed<()>| failed.fault)
            }
        });
        some_at_a_time(writes.collect()).await?;
        let flags = request.global_flags_to_update.clone();
        let mut changed: BTreeMap<String, String> =
            header.flags.keys().filter(|name| !flags.contains_key(*name)).map(|n| (n.clone(), String::new())).collect();
        changed.extend(flags.clone().into_iter().filter(|(name, value)| header.flags.get(name) != Some(value)));
        let pending =
            Pending { flags: changed, old_generation: Some(header.generation.clone()), ..Pending::of(context) };
        let after = World { timestamp_ms: now_ms, generation, flags, pending: Some(pending), ..header };
        let expected_timestamp_ms = request.expected_timestamp_ms;
        Ok(Plan { revision, after, expected_timestamp_ms, entities_updated, is_idle: false })
    }

    /// Makes a change, then does what it has to do; nothing where the header is another one by now.
    pub(super) async fn commit(&self, context: &Context, plan: Plan) -> Result<Option<Updated>, Failed<Updated>> {
        let rule = |current: &Current<Kept>| {
            let timestamp_ms = match &current.value {
                Some(Kept::World(world)) => world.timestamp_ms,
                _ => 0,
            };
            let expected_ms = plan.expected_timestamp_ms;
            if expected_ms != 0 && expected_ms != timestamp_ms {
                let text = format!("the world is at {timestamp_ms}, expected {expected_ms}");
                return Err(Fault::client(Code::FailedPrecondition, text)
                    .detail("field", "expected_timestamp_ms")
                    .detail("reason", "version_mismatch")
                    .detail("current_timestamp_ms", timestamp_ms.to_string())
                    .into());
            }
            if current.revision != plan.revision {
                return Ok(Change::nothing(None));
            }
            if plan.is_idle {
                let new_timestamp_ms = plan.after.timestamp_ms;
                return Ok(Change::nothing(Some(Updated { new_timestamp_ms, ..Updated::default() })));
            }
            let flags = plan.after.pending.as_ref().map_or(0, |pending| pending.flags.len());
            let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
            let updated = Updated {
                entities_updated: count(plan.entities_updated),
                flags_updated: count(flags),
                new_timestamp_ms: plan.after.timestamp_ms,
            };
            Ok(Change::put(Kept::World(plan.after.clone()), Some(updated)))
        };
        let at = header_key(&plan.after.tenant, &plan.after.world_id);
        let changed = self.kept.change(context, &at, rule).await;
        let done = changed.map_err(|failed| Failed::<Updated>::from(failed.fault))?;
        if done.reply.is_some() && !plan.is_idle && !done.is_repeat {
            // It is committed: what cannot be done now is done by whoever comes by.
            if let Err(fault) = self.settle(&context.for_tenant(context.tenant()), &plan.after).await {
                tracing::warn!(world_id = plan.after.world_id, %fault, "the writes behind a commit wait");
            }
        }
        Ok(done.reply)
    }
}

impl Pending {
    pub(super) fn of(context: &Context) -> Pending {
        Pending {
            request_id: context.request_id().to_owned(),
            trace_id: context.caller().text("trace_id").to_owned(),
            ..Pending::default()
        }
    }
}

/// The plan of a merge: of all writes and flags, those that change something.
pub(super) fn plan(
    context: &Context,
    revision: u64,
    header: World,
    now_ms: i64,
    writes: BTreeMap<String, Write>,
    flags: &BTreeMap<String, String>,
) -> Result<Plan, Fault> {
    let changes = |write: &Write| match (&write.before, &write.after) {
        (Some(before), Some(after)) => !before.says_the_same(after),
        (None, None) => false,
        _ => true,
    };
    let writes = writes.into_iter().filter(|(_, write)| changes(write));
    // The records of the entities say what was before, until they are written.
    let writes: BTreeMap<String, Write> =
        writes.map(|(entity_id, write)| (entity_id, Write { before: None, ..write })).collect();
    let is_new = |(name, value): &(&String, &String)| header.flags.get(*name) != Some(*value);
    let changed: BTreeMap<String, String> =
        flags.iter().filter(is_new).map(|(name, value)| (name.clone(), value.clone())).collect();
    let (entities_updated, is_idle) = (writes.len(), writes.is_empty() && changed.is_empty());
    let size = serde_json::to_vec(&writes).map_or(usize::MAX, |json| json.len());
    if size > MERGE_BYTES_MAX {
        let text = format!("the changed entities have {size} bytes, at most {MERGE_BYTES_MAX}: send them in parts");
        return Err(Fault::client(Code::ResourceExhausted, text).detail("reason", "merge_too_large"));
    }
    if is_idle {
        return Ok(Plan { revision, after: header, expected_timestamp_ms: 0, entities_updated, is_idle });
    }
    let mut flags = header.flags.clone();
    flags.extend(changed.clone());
    let pending = Some(Pending { is_merge: true, writes, flags: changed, ..Pending::of(context) });
    let after = World { timestamp_ms: now_ms, flags, pending, ..header };
    Ok(Plan { revision, after, expected_timestamp_ms: 0, entities_updated, is_idle })
}

pub(super) fn entities(rows: BTreeMap<String, crate::worker::records::Document<Kept>>) -> BTreeMap<String, Stored> {
    let entities = rows.into_values().filter_map(|document| match document.value {
        Kept::Entity(row) => Some((row.entity.entity_id.clone(), row.entity)),
        _ => None,
    });
    entities.collect()
}

/// Work on many entities, a few at the same time.
pub(super) async fn some_at_a_time<T>(work: Vec<impl Future<Output = Result<T, Fault>>>) -> Result<Vec<T>, Fault> {
    futures_util::stream::iter(work).buffered(PARALLEL).try_collect().await
}

/// The first new try comes at once, later ones after 5 to 50 ms.
pub(super) async fn pause(attempt: usize) {
    if attempt > 0 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..=PAUSE_MAX_MS))).await;
    }
}

pub(super) fn raced() -> Fault {
    Fault::ours(Code::Aborted, "too many writers at once: try again").detail("reason", "race")
}

/// Everything that is wrong with the request itself.
fn check(request: &Update) -> Result<(), Fault> {
    id("world_id", &request.world_id)?;
    check_entities("entities_to_update", &request.entities_to_update)?;
    map("global_flags_to_update", &request.global_flags_to_update)?;
    let is_empty = request.entities_to_update.is_empty() && request.global_flags_to_update.is_empty();
    if !request.merge && is_empty {
        let text = "a replacement needs entities or flags";
        return Err(invalid("entities_to_update", "empty_replace", text));
    }
    list("remove_entity_ids", request.remove_entity_ids.len())?;
    for (index, entity_id) in request.remove_entity_ids.iter().enumerate() {
        let field = format!("remove_entity_ids[{index}]");
        id(&field, entity_id)?;
        if request.entities_to_update.iter().any(|entity| entity.entity_id == *entity_id) {
            let text = format!("entity {entity_id} is to be updated and removed");
            return Err(invalid(&field, "conflicting_fields", text));
        }
    }
    Ok(())
}
