//! Persistent worlds: entities, tags and flags, changed by one commit each; push subscriptions, watches, a simulation.

mod entities;
mod settle;
mod simulation;
mod subscriptions;
mod update;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::events::WORLD_STATE_SYNC;
use super::notices::records;
use super::paging::{Page, Pagination};
use super::settings::LiveSettings;
use crate::fault::Fault;
use crate::store::{BucketConfig, Keys, Store, key};
use crate::worker::records::{Document, Records, RecordsConfig};
use crate::worker::{Context, Repeats, Service};
use entities::{Entity, list};
use subscriptions::Subscription;
use world::{Kept, Snapshot, snapshot};

/// Most bytes of entities in a page.
const PAGE_BYTES_MAX: usize = 900 * 1024;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let of = |bucket| RecordsConfig { keeps_tombstones: false, ..records(settings, bucket) };
    let day = Some(Duration::from_secs(24 * 3_600));
    let worlds = Worlds {
        kept: Records::open(store, of(BucketConfig { name: "tg_worlds", ttl: None, history: 8 })).await?,
        subscriptions: Records::open(store, of(BucketConfig { name: "tg_world_subs", ttl: day, history: 1 })).await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("world-state", VERSION)
        .keeping(&worlds.kept)
        .keeping(&worlds.subscriptions)
        .sweeping("sweeper of worlds", &worlds.kept)
        .sweeping("sweeper of subscriptions", &worlds.subscriptions)
        .hook_list("world_state.v1.WorldStateService/GetState", get)
        .hook_watch("world_state.v1.WorldStateService/WatchWorld", watch::watch)
        .sharing(worlds)
        .unary("world_state.v1.WorldStateService/UpdateState", Worlds::update)
        .unary("world_state.v1.WorldStateService/Subscribe", Worlds::subscribe)
        .declared("world_state.v1.WorldStateService/Unsubscribe")
        .unary("world_state.v1.WorldStateService/Simulate", Worlds::simulate)
        .consumer(WORLD_STATE_SYNC, Worlds::push_changes)
        .task("commits", Worlds::keep_up)
        .task("simulation", Worlds::tick)
        .done())
}

struct Worlds {
    kept: Records<Kept>,
    subscriptions: Records<Subscription>,
    repeats: Repeats,
    settings: LiveSettings,
}

/// `world_state.v1.WorldState`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct WorldState {
    world_id: String,
    timestamp_ms: i64,
    entities: Vec<Entity>,
    global_flags: BTreeMap<String, String>,
    total_entities: i32,
}

#[derive(Serialize, Deserialize)]
struct GetState {
    world_id: String,
    entity_ids: Vec<String>,
    tags: Vec<String>,
    page: Option<Pagination>,
}

#[derive(Serialize, Deserialize)]
struct Found {
    world_state: Option<WorldState>,
    next_page_token: String,
}

/// The hook of the declared list: what a world's documents show, in pages of entities.
fn get(_: &Context, request: &GetState, documents: Vec<(String, Document<Kept>)>) -> Result<Found, Fault> {
    list("entity_ids", request.entity_ids.len())?;
    list("tags", request.tags.len())?;
    let page = Page::of(request.page.as_ref())?;
    let world_id = request.world_id.clone();
    let Some(Snapshot { header, entities }) = snapshot(documents) else {
        let world_state = Some(WorldState { world_id, ..WorldState::default() });
        return Ok(Found { world_state, next_page_token: String::new() });
    };
    let is_wanted = |entity_id: &String| request.entity_ids.is_empty() || request.entity_ids.contains(entity_id);
    let matching: Vec<(String, Entity)> = entities
        .iter()
        .filter(|(entity_id, entity)| is_wanted(entity_id) && entity.has_tags(&request.tags))
        .map(|(entity_id, entity)| (entity_id.clone(), Entity::from(entity)))
        .collect();
    let total_entities = i32::try_from(matching.len()).unwrap_or(i32::MAX);
    let (mut entities, mut next_page_token) = page.take(matching);
    // The flags come whole with every page.
    let mut bytes = flags_size(&header.flags);
    let fitting = entities.iter().take_while(|entity| {
        bytes += size(entity);
        bytes <= PAGE_BYTES_MAX
    });
    // An entity comes in one message, so the first one always fits.
    let fitting = fitting.count().max(1);
    if fitting < entities.len() {
        entities.truncate(fitting);
        next_page_token = entities.last().map(|entity| entity.entity_id.clone()).unwrap_or_default();
    }
    let (timestamp_ms, global_flags) = (header.timestamp_ms, header.flags);
    let world_state = Some(WorldState { world_id, timestamp_ms, entities, global_flags, total_entities });
    Ok(Found { world_state, next_page_token })
}

impl Worlds {
    /// A world as this replica knows it: exactly what was committed, a moment ago.
    async fn current(&self, context: &Context, world_id: &str) -> Result<Option<Snapshot>, Fault> {
        let keys = Keys::Under(key(&[context.tenant(), world_id]));
        Ok(snapshot(self.kept.list(context, &keys).await?))
    }
}

/// About as many bytes as flags have on the wire.
fn flags_size(flags: &BTreeMap<String, String>) -> usize {
    flags.iter().map(|(name, value)| name.len() + value.len() + 8).sum()
}

/// About as many bytes as an entity has on the wire.
fn size(entity: &Entity) -> usize {
    let texts = flags_size(&entity.properties);
    let tags = entity.tags.iter().map(|tag| tag.len() + 4).sum::<usize>();
    entity.entity_id.len() + entity.entity_type.len() + texts + tags + entity.state_data.len() + 32
}
