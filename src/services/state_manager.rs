//! Documents of players and entities with optimistic concurrency. Versions count up from 1 for each key and never go
//! back: a deletion leaves a tombstone.

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{self, document, id, invalid, out_of_range, own, unknown_value};
use super::notices::{notice, records};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store};
use crate::worker::records::{Change, Current, EventId, Notice, Records};
use crate::worker::types::{Struct, Timestamp};
use crate::worker::{Context, Failed, Rule, Service};

/// How far an event time may lie ahead.
const AHEAD_MAX_MS: i64 = 5 * 60 * 1_000;
/// The first moment that a timestamp can say, 0001-01-01T00:00:00Z.
const EARLIEST: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };
/// Largest payload of an event with its state, in bytes.
const EVENT_BYTES_MAX: usize = 512 * 1024;
/// Priority of an event that tells of a deletion.
const REMOVAL: i32 = 7;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_state", ttl: None, history: 8 };
    let documents = Records::<Stored>::open(store, records(settings, bucket)).await?;
    let enforced = settings.clone();
    Ok(Service::new("state-manager", VERSION)
        .keeping(&documents)
        .sweeping("sweeper", &documents)
        .hook_put_at("state_manager.v1.StateManagerService/UpdateState", move |context, request| {
            update(&context, enforced.now().auth.enforce, request)
        })
        .declared_for("state_manager.v1.StateManagerService/GetState", "player_id", own(settings))
        .declared_for("state_manager.v1.StateManagerService/WatchState", "player_id", own(settings)))
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

/// What the store holds of a key. Reads and watches are declared: their fields have the same names.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    state: Struct,
    event_time: Option<Timestamp>,
}

/// Whose document it is.
struct Owner<'a> {
    kind: &'static str,
    id: &'a str,
}

/// The hook of an update: a put to one of two kinds of keys, which writes or deletes.
fn update(
    context: &Context,
    enforces: bool,
    update: Update,
) -> Result<(Vec<String>, impl Rule<Stored, Ack> + use<>), Fault> {
    let (owner, _) = target(&update)?;
    if owner.kind == "player" {
        checks::owner(context, enforces, "player.player_id", owner.id)?;
    }
    check(context, &update)?;
    let context = context.clone();
    let tokens = vec![owner.kind.to_owned(), owner.id.to_owned()];
    let rule = move |current: &Current<Stored>| {
        allowed(&update, current)?;
        let (owner, state) = target(&update)?;
        change(&context, &update, &owner, state, current)
    };
    Ok((tokens, rule))
}

/// Whose document an update is about, and what it says of it.
fn target(update: &Update) -> Result<(Owner<'_>, &Struct), Fault> {
    static EMPTY: Struct = Struct(std::collections::BTreeMap::new());
    let (kind, id, state) = match &update.target {
        Some(Target::Player(player)) => ("player", &player.player_id, &player.state),
        Some(Target::Entity(entity)) => ("entity", &entity.entity_id, &entity.state),
        None => return Err(invalid("target", "required", "player or entity is required")),
    };
    Ok((Owner { kind, id }, state.as_ref().unwrap_or(&EMPTY)))
}

/// Everything that is wrong with the request itself.
fn check(context: &Context, update: &Update) -> Result<(), Fault> {
    let (owner, state) = target(update)?;
    let field = owner.kind;
    id(&format!("{field}.{field}_id"), owner.id)?;
    document(&format!("{field}.state"), state)?;
    match update.op {
        Operation::Upsert | Operation::Delete => {}
        Operation::Unspecified => return Err(invalid("op", "required", "op must be UPSERT or DELETE")),
        Operation::Unknown(_) => return Err(unknown_value("op", "op must be UPSERT or DELETE", &["UPSERT", "DELETE"])),
    }
    let latest = Timestamp::from_millis(context.now_ms() + AHEAD_MAX_MS);
    if update.event_time.is_some_and(|time| !(EARLIEST..=latest).contains(&time)) {
        return Err(out_of_range("event_time", EARLIEST, latest));
    }
    if update.create_only && (update.expected_version > 0 || update.op == Operation::Delete) {
        let text = "create_only excludes expected_version and DELETE";
        return Err(invalid("create_only", "conflicting_fields", text));
    }
    Ok(())
}

/// Refuses what the stored document forbids; the reply then says the stored version.
fn allowed(update: &Update, current: &Current<Stored>) -> Result<(), Failed<Ack>> {
    let is_live = current.value.is_some();
    let refuse = |reason: &'static str, message: String| {
        let fault = Fault::client(Code::FailedPrecondition, message)
            .detail("reason", reason)
            .detail("current_version", current.version.to_string());
        Err(Failed::with(fault, Ack { ok: false, new_version: current.version }))
    };
    let expected = update.expected_version;
    if expected > 0 && expected != current.version {
        return refuse("version_mismatch", format!("version is {}, expected {expected}", current.version));
    }
    let is_stale = update.event_time.zip(event_time(current)).is_some_and(|(new, old)| new < old);
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

/// The event time of the last write that had one, a deletion's included.
fn event_time(current: &Current<Stored>) -> Option<Timestamp> {
    current.value.as_ref().or(current.left.as_ref())?.event_time
}

/// The write, its event and its reply.
fn change(
    context: &Context,
    update: &Update,
    owner: &Owner<'_>,
    state: &Struct,
    current: &Current<Stored>,
) -> Result<Change<Stored, Ack>, Failed<Ack>> {
    let version = current.version + 1;
    let reply = Ack { ok: true, new_version: version };
    let event_time = update.event_time.or(event_time(current));
    if update.op == Operation::Delete {
        let state = Struct::default();
        let event = announcement(context, update.op, owner, &state, version)?.priority(REMOVAL);
        return Ok(Change::delete_leaving(Stored { state, event_time }, reply).event(event));
    }
    let event = announcement(context, update.op, owner, state, version)?;
    Ok(Change::put(Stored { state: state.clone(), event_time }, reply).event(event))
}

/// The event of a write. A lost one shows as a gap in the versions, and the reader reads again.
fn announcement(
    context: &Context,
    op: Operation,
    owner: &Owner<'_>,
    state: &Struct,
    version: u64,
) -> Result<Notice, Fault> {
    let told = |state: Option<Struct>| {
        let event_id = EventId::Text(format!("{}:{}:{version}", owner.kind, owner.id));
        let own_id = owner.id.to_owned();
        if owner.kind == "player" {
            let payload = PlayerState { player_id: own_id, state, version };
            notice(context, "evt.state.player.updated.v1", event_id, "state_manager.v1.PlayerState", &payload)
        } else {
            let payload = EntityState { entity_id: own_id, state, version };
            notice(context, "evt.state.entity.updated.v1", event_id, "state_manager.v1.EntityState", &payload)
        }
    };
    let op = if op == Operation::Delete { "DELETE" } else { "UPSERT" };
    let whole = told(Some(state.clone()))?;
    // Encoded, a state can be several times as large as its JSON.
    let is_truncated = whole.payload.len() > EVENT_BYTES_MAX;
    let notice = if is_truncated { told(None)?.with("truncated", "true") } else { whole };
    Ok(notice.with("op", op).with("version", version.to_string()))
}
