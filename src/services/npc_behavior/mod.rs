//! Plans of NPCs: the next actions for a situation, by rules alone, so that every replica makes the same plan.

mod plan;
mod situation;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{document, id, invalid, out_of_range, unknown_value};
use super::common::{Error, Meta};
use super::notices::{GameEvent, notice, publish, records};
use super::numbers::comparable;
use super::seed::{Part, canonical_json, seed, tenant_part};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Change, Current, EventId, Records};
use crate::worker::types::Struct;
use crate::worker::{Chunks, Context, Failed, Repeats, Service, Setback};
use plan::{Action, CONFIDENCE, plan};
use situation::Situation;

const PLANNED: &str = "evt.npc.behavior.planned.v1";
const MESSAGE: &str = "npc_behavior.v1.BehaviorResponse";
/// Memories of a relationship, and the importance from which on one is kept.
const MEMORIES_MAX: usize = 100;
/// Bytes of its memories as they are stored, so that they fit one record.
const MEMORIES_BYTES_MAX: usize = 768 * 1024;
const IMPORTANT: f64 = 0.3;
/// Longest summary in bytes.
const SUMMARY_MAX: usize = 16 * 1024;
/// NPCs whose plans of this second are counted.
const COUNTED_MAX: usize = 100_000;
/// Feelings and what each weighs in a relationship.
const FEELINGS: [(&str, f64); 6] =
    [("trust", 0.3), ("respect", 0.2), ("affection", 0.3), ("fear", -0.2), ("disgust", -0.3), ("anger", -0.3)];

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let ttl = Some(Duration::from_secs(30 * 24 * 3_600));
    let npcs = Npcs {
        relationships: Records::open(store, records(settings, BucketConfig { name: "tg_npc", ttl, history: 1 }))
            .await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
        counted: Mutex::default(),
    };
    Ok(Service::new("npc-behavior", VERSION)
        .sharing(npcs)
        .unary("npc_behavior.v1.NpcBehaviorService/PlanBehavior", Npcs::plan)
        .unary("npc_behavior.v1.NpcBehaviorService/RememberInteraction", Npcs::remember)
        .stream("npc_behavior.v1.NpcBehaviorService/WatchPlans", Npcs::watch)
        .done())
}

struct Npcs {
    relationships: Records<Relationship>,
    repeats: Repeats,
    settings: LiveSettings,
    /// Plans of the running second by NPC, on this replica.
    counted: Mutex<(i64, HashMap<String, u32>)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Relationship {
    feelings: BTreeMap<String, f64>,
    /// Newest last.
    memories: Vec<Memory>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Memory {
    at_ms: i64,
    importance: f64,
    summary: String,
}

#[derive(Serialize, Deserialize)]
struct Request {
    npc_id: String,
    situation: Option<Struct>,
    world_state: Option<Struct>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Planned {
    plan_id: String,
    actions: Vec<Action>,
    strategy: String,
    confidence: f64,
}

#[derive(Serialize, Deserialize)]
struct Watch {
    npc_id: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Item {
    revision: u64,
    plan: Option<Told>,
}

/// A plan as its event carries it, context and error included.
#[derive(Serialize, Deserialize)]
struct Told {
    meta: Option<Meta>,
    plan_id: String,
    actions: Vec<Action>,
    error: Option<Error>,
    strategy: String,
    confidence: f64,
}

#[derive(Serialize, Deserialize)]
struct Remember {
    npc_id: String,
    other_id: String,
    deltas: BTreeMap<String, f64>,
    importance: f64,
    summary: String,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    relationship_score: f64,
    remembered: bool,
}

impl Npcs {
    async fn plan(self: Arc<Self>, context: Context, request: Request) -> Result<Planned, Fault> {
        id("npc_id", &request.npc_id)?;
        let (around, world) = (request.situation.unwrap_or_default(), request.world_state.unwrap_or_default());
        document("situation", &around)?;
        document("world_state", &world)?;
        let situation = Situation::read(&around, &world)?;
        self.count(&context, &request.npc_id)?;
        let (around, world) = (canonical_json(&around), canonical_json(&world));
        let parts = [
            Part::Text("npc.v1"),
            tenant_part(context.tenant()),
            Part::Text(&request.npc_id),
            Part::Text(&around),
            Part::Text(&world),
        ];
        let (strategy, actions) = plan(&situation);
        let planned = Planned {
            plan_id: format!("pln_{:016x}", seed(&parts)),
            actions,
            strategy: strategy.name().to_owned(),
            confidence: CONFIDENCE,
        };
        if planned.actions.iter().any(|action| action.r#type != "WAIT") {
            let id = EventId::Text(format!("{}:{}", planned.plan_id, context.request_id()));
            let notice = notice(&context, PLANNED, id, MESSAGE, &planned)?
                .with("npc_id", &*request.npc_id)
                .with("strategy", strategy.name());
            publish(&context, notice).await;
        }
        Ok(planned)
    }

    /// Refuses plans of an NPC beyond the configured number a second; each replica counts its own.
    fn count(&self, context: &Context, npc_id: &str) -> Result<(), Fault> {
        let max = self.settings.now().npc_behavior.plans_per_second;
        if max == 0 {
            return Ok(());
        }
        let now_ms = context.now_ms();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 != now_ms / 1_000 || counted.1.len() >= COUNTED_MAX {
            *counted = (now_ms / 1_000, HashMap::new());
        }
        let count = counted.1.entry(key(&[context.tenant(), npc_id])).or_default();
        *count += 1;
        if u64::from(*count) <= u64::from(max) {
            return Ok(());
        }
        Err(Fault::client(Code::ResourceExhausted, format!("{npc_id} gets at most {max} plans a second"))
            .detail("reason", "plan_rate")
            .detail("retry_after_ms", (1_000 - now_ms.rem_euclid(1_000)).to_string()))
    }

    /// The plans that do something, as their events come by: plans that only wait have none.
    async fn watch(self: Arc<Self>, context: Context, request: Watch, mut chunks: Chunks<Item>) -> Result<(), Fault> {
        id("npc_id", &request.npc_id)?;
        let log = context.store().log_figures("GAME_EVENTS").await?;
        let kept = log.first.unwrap_or(log.last + 1)..=log.last + 1;
        let after = match request.after_revision {
            0 => log.last,
            after if kept.contains(&after.saturating_add(1)) => after,
            _ => {
                context.label("reset", "true");
                0
            }
        };
        let mut events = context.store().read_log("GAME_EVENTS", PLANNED, after).await?;
        context.begin_stream();
        loop {
            let event = tokio::select! {
                event = events.next() => event?,
                _ = context.until_cancelled() => return Ok(()),
            };
            let told: GameEvent =
                context.decode("event_bus.v1.GameEvent", &event.payload).map_err(Setback::into_fault)?;
            let of = |name: &str| told.metadata.get(name).map_or("", String::as_str);
            if of("npc_id") == request.npc_id && of("tenant_id") == context.tenant() {
                let plan: Told = context.decode(MESSAGE, &told.payload).map_err(Setback::into_fault)?;
                chunks.send(&Item { revision: event.sequence, plan: Some(plan) }).await?;
            }
        }
    }

    async fn remember(self: Arc<Self>, context: Context, request: Remember) -> Result<Remembered, Failed<Remembered>> {
        id("npc_id", &request.npc_id)?;
        id("other_id", &request.other_id)?;
        for (name, delta) in &request.deltas {
            let field = format!("deltas.{name}");
            if !FEELINGS.iter().any(|row| row.0 == name) {
                let names = FEELINGS.map(|row| row.0);
                return Err(unknown_value(&field, format!("there is no feeling {name}"), &names).into());
            }
            if !(-2.0..=2.0).contains(delta) {
                return Err(out_of_range(&field, -2, 2).into());
            }
        }
        if !(0.0..=1.0).contains(&request.importance) {
            return Err(out_of_range("importance", 0, 1).into());
        }
        if request.summary.len() > SUMMARY_MAX {
            return Err(invalid("summary", "too_long", format!("summary has more than {SUMMARY_MAX} bytes")).into());
        }
        let rule = |current: &Current<Relationship>| {
            let mut after = current.value.clone().unwrap_or_default();
            for (name, delta) in &request.deltas {
                let held = after.feelings.entry(name.clone()).or_default();
                *held = comparable((*held + delta).clamp(-1.0, 1.0));
            }
            let remembered = request.importance > IMPORTANT;
            if remembered {
                let (at_ms, importance, summary) = (current.now_ms, request.importance, request.summary.clone());
                after.memories.push(Memory { at_ms, importance, summary });
                let surplus = after.memories.len() - kept(&after.memories);
                after.memories.drain(..surplus);
            }
            let felt = |(name, weight): &(&str, f64)| weight * after.feelings.get(*name).copied().unwrap_or(0.0);
            let relationship_score = comparable(FEELINGS.iter().map(felt).sum());
            Ok(Change::put(after, Remembered { relationship_score, remembered }))
        };
        let place = key(&[context.tenant(), &request.npc_id, &request.other_id]);
        let write = async { Ok(self.relationships.change(&context, &place, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }
}

/// How many memories are kept, from the newest on.
fn kept(memories: &[Memory]) -> usize {
    let mut room = MEMORIES_BYTES_MAX;
    let fits = |memory: &&Memory| {
        let size = serde_json::to_vec(memory).map_or(usize::MAX, |json| json.len());
        room.checked_sub(size).inspect(|left| room = *left).is_some()
    };
    memories.iter().rev().take(MEMORIES_MAX).take_while(fits).count()
}
