//! Documents of players and entities with optimistic concurrency. Versions count up from 1 for each key and never go
//! back: a deletion leaves a tombstone.

use std::collections::VecDeque;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{document, id, invalid, out_of_range, unknown_value};
use super::events::{self, Event};
use super::repeat::{Repeats, fingerprint};
use crate::fault::{Code, Fault};
use crate::store::{Bucket, BucketConfig, Expected, Keys, Seen, Store, StoreError, key};
use crate::worker::types::{Struct, Timestamp};
use crate::worker::{Chunks, Context, Failed, Service};

/// How far an event time may lie ahead.
const AHEAD_MAX_MS: i64 = 5 * 60 * 1_000;
/// Queues of writers.
const LANES: usize = 256;
/// Tries to write an unconditional update that keeps losing its race.
const TRIES: u32 = 20;
/// Longest pause between two of them.
const PAUSE_MAX_MS: u64 = 50;
/// Keyed calls that a record remembers.
const RECENT_MAX: usize = 16;
/// Largest state that an event carries.
const EVENT_STATE_MAX: usize = 512 * 1024;

/// The service.
pub(super) async fn service(store: &Store) -> Result<Service, Fault> {
    let bucket = store.bucket(BucketConfig { name: "tg_state", ttl: None, history: 8 }).await?;
    let state = Arc::new(StateManager {
        bucket,
        repeats: Repeats::open(store).await?,
        lanes: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
    });
    let (updating, getting, watching) = (state.clone(), state.clone(), state);
    Ok(Service::new("state-manager", VERSION)
        .unary("state_manager.v1.StateManagerService/UpdateState", move |context: Context, update: Update| {
            let state = updating.clone();
            async move { state.update(&context, &update).await }
        })
        .unary("state_manager.v1.StateManagerService/GetState", move |context: Context, request: GetState| {
            let state = getting.clone();
            async move { state.get(&context, &request).await }
        })
        .stream("state_manager.v1.StateManagerService/WatchState", move |context, request, chunks| {
            let state = watching.clone();
            async move { state.watch(&context, &request, chunks).await }
        }))
}

struct StateManager {
    bucket: Bucket,
    repeats: Repeats,
    /// Writers of one key queue here, so that a replica never races itself; keys that share a lane only wait longer.
    lanes: [tokio::sync::Mutex<()>; LANES],
}

#[derive(Serialize, Deserialize)]
struct Update {
    target: Option<Target>,
    op: Operation,
    event_time: Option<Timestamp>,
    expected_version: u64,
    create_only: bool,
}

#[derive(Serialize, Deserialize)]
enum Target {
    Player(PlayerState),
    Entity(EntityState),
}

#[derive(Serialize, Deserialize)]
struct PlayerState {
    player_id: String,
    state: Option<Struct>,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct EntityState {
    entity_id: String,
    state: Option<Struct>,
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Operation {
    Unspecified,
    Upsert,
    Delete,
    Unknown(i32),
}

#[derive(Serialize, Deserialize)]
struct Ack {
    ok: bool,
    new_version: u64,
}

#[derive(Serialize, Deserialize)]
struct GetState {
    target: Option<TargetId>,
}

#[derive(Serialize, Deserialize)]
enum TargetId {
    PlayerId(String),
    EntityId(String),
}

#[derive(Serialize, Deserialize)]
struct Found {
    state: Option<Struct>,
    version: u64,
    updated_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct WatchState {
    target: Option<TargetId>,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Item {
    revision: u64,
    state: Option<Struct>,
    version: u64,
    op: Operation,
}

/// What the store holds of a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    schema: u32,
    state: Struct,
    version: u64,
    is_deleted: bool,
    event_time: Option<Timestamp>,
    updated_ms: i64,
    /// The last keyed calls, oldest first: a repeat whose reply was lost finds its version here.
    recent: VecDeque<Recent>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recent {
    key: String,
    fingerprint: String,
    version: u64,
}

/// Whose document it is.
struct Owner<'a> {
    kind: &'static str,
    id: &'a str,
}

impl Owner<'_> {
    fn key(&self, context: &Context) -> String {
        key(&[context.tenant(), self.kind, self.id])
    }
}

fn owner(target: Option<&TargetId>) -> Result<Owner<'_>, Fault> {
    let (owner, field) = match target {
        Some(TargetId::PlayerId(id)) => (Owner { kind: "player", id }, "player_id"),
        Some(TargetId::EntityId(id)) => (Owner { kind: "entity", id }, "entity_id"),
        None => return Err(invalid("target", "required", "player_id or entity_id is required")),
    };
    id(field, owner.id).map(|()| owner)
}

impl StateManager {
    async fn update(&self, context: &Context, update: &Update) -> Result<Ack, Failed<Ack>> {
        let (owner, state) = check(context, update)?;
        self.repeats.once(context, self.write(context, update, &owner, state)).await
    }

    async fn write(
        &self,
        context: &Context,
        update: &Update,
        owner: &Owner<'_>,
        state: &Struct,
    ) -> Result<Ack, Failed<Ack>> {
        let key = owner.key(context);
        let mut hash = std::hash::DefaultHasher::new();
        key.hash(&mut hash);
        let _turn = self.lanes[hash.finish() as usize % LANES].lock().await;
        for attempt in 0..TRIES {
            let entry = self.bucket.get(&key).await.map_err(Fault::from)?;
            let expected = entry.as_ref().map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
            let stored = entry.map(|entry| read(&entry.value)).transpose()?.unwrap_or_default();
            if let Some(version) = repeated(context, &stored)? {
                // The first call may have died between its write and its event: the event's id makes this harmless.
                if version == stored.version {
                    self.announce(context, owner, &stored).await?;
                }
                return Ok(Ack { ok: true, new_version: version });
            }
            allowed(update, &stored)?;
            let record = next(context, update, state, stored)?;
            let bytes = serde_json::to_vec(&record).map_err(|error| broken(error.to_string()))?;
            match self.bucket.put(&key, bytes.into(), expected).await {
                Ok(_) => {
                    self.announce(context, owner, &record).await?;
                    return Ok(Ack { ok: true, new_version: record.version });
                }
                Err(StoreError::Conflict) => pause(attempt).await,
                Err(error) => return Err(Fault::from(error).into()),
            }
        }
        Err(Fault::ours(Code::Aborted, "too many writers at once, try again").into())
    }

    /// One event a write. A lost event shows as a gap in the versions, and the reader reads again.
    async fn announce(&self, context: &Context, owner: &Owner<'_>, record: &Record) -> Result<(), Fault> {
        let size = serde_json::to_vec(&record.state).map_or(0, |json| json.len());
        let op = if record.is_deleted { "DELETE" } else { "UPSERT" };
        let mut metadata = vec![("op", op.to_owned()), ("version", record.version.to_string())];
        let is_truncated = size > EVENT_STATE_MAX;
        if is_truncated {
            metadata.push(("truncated", "true".to_owned()));
        }
        let state = (!is_truncated).then(|| record.state.clone());
        let event_id = format!("{}:{}:{}", owner.kind, owner.id, record.version);
        let (own_id, version, at_ms) = (owner.id.to_owned(), record.version, record.updated_ms);
        if owner.kind == "player" {
            let (subject, message) = ("evt.state.player.updated.v1", "state_manager.v1.PlayerState");
            let payload = &PlayerState { player_id: own_id, state, version };
            events::publish(context, Event { subject, id: event_id, at_ms, message, payload, metadata }).await?;
        } else {
            let (subject, message) = ("evt.state.entity.updated.v1", "state_manager.v1.EntityState");
            let payload = &EntityState { entity_id: own_id, state, version };
            events::publish(context, Event { subject, id: event_id, at_ms, message, payload, metadata }).await?;
        }
        Ok(())
    }

    async fn get(&self, context: &Context, request: &GetState) -> Result<Found, Fault> {
        let owner = owner(request.target.as_ref())?;
        let key = owner.key(context);
        let entry = match context.caller().label("consistency") {
            Some("cached") => self.bucket.get_cached(&key).await?,
            _ => self.bucket.get(&key).await?,
        };
        let record = entry.map(|entry| read(&entry.value)).transpose()?.filter(|record| !record.is_deleted);
        let Some(record) = record else {
            return Err(Fault::client(Code::NotFound, format!("no state for {} {}", owner.kind, owner.id))
                .detail("field", format!("{}_id", owner.kind)));
        };
        Ok(Found {
            state: Some(record.state),
            version: record.version,
            updated_at: Some(Timestamp::from_millis(record.updated_ms)),
        })
    }

    async fn watch(&self, context: &Context, request: &WatchState, mut chunks: Chunks<Item>) -> Result<(), Fault> {
        let owner = owner(request.target.as_ref())?;
        let after = Some(request.after_revision).filter(|revision| *revision > 0);
        let mut watch = self.bucket.watch(Keys::One(owner.key(context)), after).await?;
        if watch.is_reset() {
            context.label("reset", "true");
        }
        loop {
            let seen = tokio::select! {
                seen = watch.next() => seen?,
                _ = context.until_cancelled() => return Ok(()),
            };
            if let Seen::Change(change) = seen
                && let Some(value) = change.value
            {
                let record = read(&value)?;
                let op = if record.is_deleted { Operation::Delete } else { Operation::Upsert };
                let item = Item { revision: change.revision, state: Some(record.state), version: record.version, op };
                chunks.send(&item).await?;
            }
        }
    }
}

/// Everything that is wrong with the request itself.
fn check<'u>(context: &Context, update: &'u Update) -> Result<(Owner<'u>, &'u Struct), Fault> {
    static EMPTY: Struct = Struct(std::collections::BTreeMap::new());
    let (owner, field, state) = match &update.target {
        Some(Target::Player(player)) => (Owner { kind: "player", id: &player.player_id }, "player", &player.state),
        Some(Target::Entity(entity)) => (Owner { kind: "entity", id: &entity.entity_id }, "entity", &entity.state),
        None => return Err(invalid("target", "required", "player or entity is required")),
    };
    id(&format!("{field}.{field}_id"), owner.id)?;
    let state = state.as_ref().unwrap_or(&EMPTY);
    document(&format!("{field}.state"), state)?;
    match update.op {
        Operation::Upsert | Operation::Delete => {}
        Operation::Unspecified => return Err(invalid("op", "required", "op must be UPSERT or DELETE")),
        Operation::Unknown(_) => return Err(unknown_value("op", "op must be UPSERT or DELETE", &["UPSERT", "DELETE"])),
    }
    let latest_ms = context.now_ms() + AHEAD_MAX_MS;
    if update.event_time.is_some_and(|time| time.millis() > latest_ms) {
        return Err(out_of_range("event_time", "1970", "five minutes ahead"));
    }
    if update.create_only && (update.expected_version > 0 || update.op == Operation::Delete) {
        let text = "create_only excludes expected_version and DELETE";
        return Err(invalid("create_only", "conflicting_fields", text));
    }
    Ok((owner, state))
}

/// The version that an earlier call with the same key has written.
fn repeated(context: &Context, stored: &Record) -> Result<Option<u64>, Fault> {
    let key = context.idempotency_key();
    if key.is_empty() {
        return Ok(None);
    }
    let Some(recent) = stored.recent.iter().find(|recent| recent.key == key) else { return Ok(None) };
    if recent.fingerprint == fingerprint(context)? {
        context.label("idempotent_replay", "true");
        Ok(Some(recent.version))
    } else {
        let text = "the idempotency key was used for another request";
        Err(Fault::client(Code::Conflict, text).detail("reason", "key_reused"))
    }
}

/// Refuses what the stored record forbids; the reply then says the stored version.
fn allowed(update: &Update, stored: &Record) -> Result<(), Failed<Ack>> {
    let is_live = stored.version > 0 && !stored.is_deleted;
    let refuse = |reason: &'static str, message: String| {
        let fault = Fault::client(Code::FailedPrecondition, message)
            .detail("reason", reason)
            .detail("current_version", stored.version.to_string());
        Err(Failed { fault, reply: Some(Ack { ok: false, new_version: stored.version }) })
    };
    let expected = update.expected_version;
    if expected > 0 && expected != stored.version {
        return refuse("version_mismatch", format!("version is {}, expected {expected}", stored.version));
    }
    let is_stale = update.event_time.zip(stored.event_time).is_some_and(|(new, old)| new < old);
    if expected == 0 && is_stale {
        return refuse("stale_event_time", "a newer event has been written".to_owned());
    }
    if update.create_only && is_live {
        return refuse("exists", "there is a document already".to_owned());
    }
    if update.op == Operation::Delete && !is_live {
        return refuse("not_found", "there is no document to delete".to_owned());
    }
    Ok(())
}

/// The record that follows.
fn next(context: &Context, update: &Update, state: &Struct, stored: Record) -> Result<Record, Fault> {
    let version = stored.version + 1;
    let is_deleted = update.op == Operation::Delete;
    let mut recent = stored.recent;
    let key = context.idempotency_key();
    if !key.is_empty() {
        recent.push_back(Recent { key: key.to_owned(), fingerprint: fingerprint(context)?, version });
        if recent.len() > RECENT_MAX {
            recent.pop_front();
        }
    }
    Ok(Record {
        schema: 1,
        state: if is_deleted { Struct::default() } else { state.clone() },
        version,
        is_deleted,
        event_time: update.event_time.or(stored.event_time),
        updated_ms: context.now_ms(),
        recent,
    })
}

/// The first re-read comes at once, later ones after 5 to 50 ms.
async fn pause(attempt: u32) {
    if attempt > 0 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..=PAUSE_MAX_MS))).await;
    }
}

fn read(value: &Bytes) -> Result<Record, Fault> {
    serde_json::from_slice(value).map_err(|error| broken(error.to_string()))
}

fn broken(text: String) -> Fault {
    Fault::ours(Code::Internal, "a stored record cannot be read").internal(text)
}
