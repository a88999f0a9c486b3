//! The simulation of worlds: events, factions and prices, an hour after the other. The same world, seed and hour give
//! the same result, and an hour counts once: the header says how many were simulated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entities::{Entity, Stored};
use super::update::{entities, pause, plan, raced};
use super::world::{Kept, World, Write, all, generation_keys};
use super::{WorldState, Worlds};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, out_of_range};
use crate::services::numbers::{comparable, rounded};
use crate::services::seed::{Draws, Part, seed, tenant_part};
use crate::store::Keys;
use crate::worker::{Context, Failed};

/// Bytes of a call's log: a reply is one message, and tells the changed factions as well.
const LOG_BYTES_MAX: usize = 256 * 1024;
/// Hours of one call.
const HOURS_MAX: i32 = 168;
/// Tries of a call that keeps losing its race.
const TRIES: usize = 20;
/// How often the ticker looks at the worlds' clocks.
const LOOK: Duration = Duration::from_secs(5);
/// Chance that an event starts in an hour.
const EVENT: f64 = 0.2;
/// Kinds of events: name, weight, duration in hours.
const EVENTS: [(&str, f64, f64); 5] = [
    ("economic", 0.30, 1.0),
    ("political", 0.25, 2.0),
    ("social", 0.20, 0.5),
    ("natural", 0.15, 4.0),
    ("technological", 0.10, 3.0),
];
/// Resources: name, base price, volatility, demand.
const RESOURCES: [(&str, f64, f64, f64); 6] = [
    ("energy", 100.0, 0.10, 1.0),
    ("materials", 50.0, 0.08, 0.9),
    ("technology", 200.0, 0.15, 0.8),
    ("food", 30.0, 0.05, 1.2),
    ("medicine", 150.0, 0.12, 1.1),
    ("luxury", 300.0, 0.20, 0.5),
];
const STABILITY_DEFAULT: f64 = 0.5;
/// A pair below fights, a pair above is allied.
const ENEMIES: f64 = -0.5;
const ALLIES: f64 = 0.5;

#[derive(Serialize, Deserialize)]
pub(super) struct Simulate {
    world_id: String,
    hours: i32,
    seed: u64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Simulated {
    changes: Option<WorldState>,
    log: Vec<String>,
}

/// A world while it is simulated.
struct Run {
    flags: BTreeMap<String, String>,
    factions: Vec<Faction>,
    log: Log,
    header: Arc<World>,
    seed: u64,
}

/// What is told of the hours, as far as there is room.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    bytes: usize,
    left_out: usize,
}

impl Log {
    fn note(&mut self, line: String) {
        if self.left_out > 0 || self.bytes + line.len() > LOG_BYTES_MAX {
            self.left_out += 1;
        } else {
            self.bytes += line.len();
            self.lines.push(line);
        }
    }

    fn lines(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.lines.push(format!("{} lines more: simulate fewer hours at a time", self.left_out));
        }
        self.lines
    }
}

struct Faction {
    entity: Stored,
    level: f64,
    territories: f64,
    npcs: f64,
    domain: String,
    relations: BTreeMap<String, f64>,
    order: &'static str,
}

impl Worlds {
    pub(super) async fn simulate(
        self: Arc<Self>,
        context: Context,
        request: Simulate,
    ) -> Result<Simulated, Failed<Simulated>> {
        id("world_id", &request.world_id)?;
        if !(1..=HOURS_MAX).contains(&request.hours) {
            return Err(out_of_range("hours", 1, HOURS_MAX).into());
        }
        let write = async { Ok(self.run(&context, &request.world_id, request.hours, request.seed, None).await?) };
        self.repeats.once(&context, write).await
    }

    /// Simulates hours and commits them as one merge. With `ticked_hour`, only where that hour has not been yet.
    async fn run(
        &self,
        context: &Context,
        world_id: &str,
        hours: i32,
        seed: u64,
        ticked_hour: Option<i64>,
    ) -> Result<Simulated, Fault> {
        for attempt in 0..TRIES {
            pause(attempt).await;
            let Some((revision, header)) = self.settled_header(context, world_id).await? else { continue };
            if ticked_hour.is_some_and(|hour| hour <= header.ticked_hour) {
                return Ok(Simulated { changes: None, log: Vec::new() });
            }
            let rows = all(&self.kept, context, generation_keys(&header, &header.generation)).await?;
            let (header, entities) = (Arc::new(header), Arc::new(entities(rows)));
            let now_ms = context.now_ms().max(header.timestamp_ms + 1);
            let (world, known) = (header.clone(), entities.clone());
            // Every pair of factions is looked at in every hour.
            let run = context.blocking(move || Run::new(world, &known, seed).hours(hours)).await;
            let writes = run.factions.iter().map(|faction| {
                let (entity_id, after) = (faction.entity.entity_id.clone(), Some(faction.written(now_ms)));
                (entity_id.clone(), Write { before: entities.get(&entity_id).cloned(), after })
            });
            let (writes, flags, log) = (writes.collect(), run.flags, run.log.lines());
            let mut plan = plan(context, revision, (*header).clone(), now_ms, writes, &flags)?;
            plan.after.simulated_hours += i64::from(hours);
            plan.after.ticked_hour = ticked_hour.unwrap_or(header.ticked_hour);
            let pending = plan.after.pending.clone().unwrap_or_default();
            let changes = WorldState {
                world_id: world_id.to_owned(),
                timestamp_ms: now_ms,
                entities: pending.writes.values().filter_map(|write| write.after.as_ref()).map(Entity::from).collect(),
                global_flags: pending.flags,
                total_entities: 0,
            };
            let committed = self.commit(context, plan).await.map_err(|failed| failed.fault)?;
            if committed.is_some() {
                return Ok(Simulated { changes: Some(changes), log });
            }
        }
        Err(raced())
    }

    /// Simulates an hour of each world when its clock has reached it, while the settings say so.
    pub(super) async fn tick(self: Arc<Self>, context: Context) {
        while context.cancelled().is_none() {
            if self.settings.now().world_state.simulation_enabled
                && let Err(fault) = self.tick_all(&context).await
            {
                tracing::warn!(%fault, "worlds are simulated later");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = context.until_cancelled() => {}
            }
        }
    }

    async fn tick_all(&self, context: &Context) -> Result<(), Fault> {
        for (_, document) in self.kept.list(context, &Keys::All).await? {
            let Kept::World(world) = document.value else { continue };
            match self.tick_one(&context.for_tenant(&world.tenant), &world).await {
                Ok(()) => {}
                Err(fault) if fault.code() == Code::Unavailable => return Err(fault),
                // One world that cannot be simulated keeps nobody from the others.
                Err(fault) => tracing::warn!(world_id = world.world_id, %fault, "a world is not simulated"),
            }
        }
        Ok(())
    }

    async fn tick_one(&self, own: &Context, world: &World) -> Result<(), Fault> {
        match self.hour_of(own, &world.world_id).await? {
            // After an outage one hour is simulated, not all that were missed.
            hour if hour > world.ticked_hour => self.run(own, &world.world_id, 1, 0, Some(hour)).await.map(drop),
            _ => Ok(()),
        }
    }

    async fn hour_of(&self, own: &Context, world_id: &str) -> Result<i64, Fault> {
        let request = GetTime { world_id: world_id.to_owned() };
        let time: Time = own.call_as_service("time_manager.v1.TimeManagerService/GetTime", &request).await?;
        let time = time.game_time.unwrap_or_default();
        let [year, month, day, hour] = [time.year, time.month, time.day, time.hour].map(i64::from);
        Ok((((year - 1) * 12 + month - 1) * 30 + day - 1) * 24 + hour)
    }
}

#[derive(Serialize, Deserialize)]
struct GetTime {
    world_id: String,
}

/// Of `time_manager.v1.GetTimeResponse`.
#[derive(Serialize, Deserialize)]
struct Time {
    game_time: Option<GameTime>,
}

/// Of `time_manager.v1.GameTime`.
#[derive(Default, Serialize, Deserialize)]
struct GameTime {
    year: i32,
    month: i32,
    day: i32,
    hour: i32,
}

impl Run {
    fn new(header: Arc<World>, entities: &BTreeMap<String, Stored>, seed: u64) -> Run {
        let is_faction =
            |entity: &&Stored| entity.entity_type == "object" && entity.tags.iter().any(|tag| tag == "faction");
        let factions = entities.values().filter(is_faction).map(Faction::new).collect();
        Run { flags: header.flags.clone(), factions, log: Log::default(), header, seed }
    }

    /// The next hours, one after the other.
    fn hours(mut self, count: i32) -> Run {
        for hour in 1..=i64::from(count) {
            self.hour(self.header.simulated_hours + hour);
        }
        self
    }

    fn hour(&mut self, hour: i64) {
        let parts = [
            Part::Text("world.sim.v1"),
            tenant_part(&self.header.tenant),
            Part::Text(&self.header.world_id),
            Part::Number(self.seed),
            Part::Number(hour.cast_unsigned()),
        ];
        let mut draws = Draws::new(seed(&parts));
        self.event(&mut draws, hour);
        self.conflicts(hour);
        self.orders(hour);
        self.prices(&mut draws, hour);
    }

    fn event(&mut self, draws: &mut Draws, hour: i64) {
        let starts = draws.unit() < EVENT;
        let (name, _, duration) = EVENTS[draws.weighted(&EVENTS.map(|(_, weight, _)| weight))];
        let intensity = draws.unit();
        let target = self.factions.get(draws.below(self.factions.len() as u64) as usize);
        if !starts {
            return;
        }
        let end_hour = hour as f64 + duration;
        let target_id = target.map_or("", |faction| &faction.entity.entity_id);
        self.flags.insert(format!("event.{name}"), format!("{intensity:.3}:{end_hour}:{target_id}"));
        let fit = if target.is_some_and(|faction| faction.domain == name) { 1.2 } else { 0.8 };
        let impact = intensity * 0.5 * fit;
        let whom = if target_id.is_empty() { "the world" } else { target_id };
        self.log.note(format!("hour {hour}: {name} event of intensity {intensity:.3}, impact {impact:.3} on {whom}"));
    }

    /// Enemies fight, one pair after the other; allies grow closer.
    fn conflicts(&mut self, hour: i64) {
        for one in 0..self.factions.len() {
            for other in one + 1..self.factions.len() {
                let relation = comparable(self.relation(one, other));
                if relation > ALLIES {
                    self.relate(one, other, 0.1);
                } else if relation < ENEMIES {
                    self.fight(hour, one, other);
                }
            }
        }
    }

    fn fight(&mut self, hour: i64, one: usize, other: usize) {
        let powers = [one, other].map(|index| comparable(self.factions[index].power()));
        // Factions are in order of their ids, so a tie is for the first one.
        let (winner, loser) = if powers[1] > powers[0] { (other, one) } else { (one, other) };
        let (strong, weak) = (powers[0].max(powers[1]), powers[0].min(powers[1]));
        let ratio = if weak > 0.0 { strong / weak } else { f64::INFINITY };
        let (word, change) = match comparable(ratio) {
            ratio if ratio > 2.0 => ("surrendered", 0.5),
            ratio if ratio < 1.2 => ("negotiated", 0.2),
            _ => ("fought", -0.3),
        };
        self.factions[winner].territories += 1.0;
        self.factions[loser].territories = (self.factions[loser].territories - 1.0).max(0.0);
        self.relate(one, other, change);
        let name = |index: usize| &self.factions[index].entity.entity_id;
        self.log.note(format!("hour {hour}: {} {word} against {}", name(loser), name(winner)));
    }

    /// How a pair stands: as the one that likes the other less sees it.
    fn relation(&self, one: usize, other: usize) -> f64 {
        let seen = |from: usize, to: usize| {
            self.factions[from].relations.get(&self.factions[to].entity.entity_id).copied().unwrap_or(0.0)
        };
        seen(one, other).min(seen(other, one))
    }

    fn relate(&mut self, one: usize, other: usize, change: f64) {
        for (from, to) in [(one, other), (other, one)] {
            let name = self.factions[to].entity.entity_id.clone();
            let relation = self.factions[from].relations.entry(name).or_insert(0.0);
            *relation = (*relation + change).clamp(-1.0, 1.0);
        }
    }

    fn orders(&mut self, hour: i64) {
        for faction in &mut self.factions {
            let power = comparable(faction.power());
            faction.order = match power {
                power if power > 0.7 => "expand",
                power if power < 0.3 => {
                    faction.level += 0.05 / faction.power_of_a_level();
                    "consolidate"
                }
                _ => "keep",
            };
            self.log.note(format!("hour {hour}: {} {}, power {power:.3}", faction.entity.entity_id, faction.order));
        }
    }

    fn prices(&mut self, draws: &mut Draws, hour: i64) {
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite());
        let stability = number(self.flags.get("stability")).unwrap_or(STABILITY_DEFAULT);
        let mut traded = Vec::new();
        for (name, base, volatility, demand) in RESOURCES {
            let flag = format!("price.{name}");
            let before = number(self.flags.get(&flag)).unwrap_or(base);
            let step = 1.0 + volatility * (2.0 * draws.unit() - 1.0) + 0.05 * (demand - 1.0);
            let price = (before * step).max(base * 0.1);
            traded.push(format!("{name} {:.2}", price * (0.8 + 0.4 * stability)));
            self.flags.insert(flag, format!("{:.2}", rounded(price, 2)));
        }
        self.log.note(format!("hour {hour}: traded at {}", traded.join(", ")));
    }
}

impl Faction {
    fn new(entity: &Stored) -> Faction {
        let number = |name: &str| {
            let value = entity.properties.get(name).and_then(|text| text.parse::<f64>().ok());
            value.filter(|value| value.is_finite()).unwrap_or(0.0)
        };
        let names = entity.properties.keys().filter_map(|name| Some((name.strip_prefix("relations.")?, name)));
        Faction {
            level: number("level"),
            territories: number("territories"),
            npcs: number("npcs"),
            domain: entity.properties.get("domain").cloned().unwrap_or_default(),
            relations: names.map(|(other, name)| (other.to_owned(), number(name))).collect(),
            order: "keep",
            entity: entity.clone(),
        }
    }

    fn power(&self) -> f64 {
        let relations = 0.05 * self.relations.values().sum::<f64>();
        (self.level * self.power_of_a_level() + 0.1 * self.territories + relations).min(1.0)
    }

    /// Power that a level gives; there are no fewer than no characters.
    fn power_of_a_level(&self) -> f64 {
        (1.0 + 0.02 * self.npcs.max(0.0)) / 100.0
    }

    /// The entity with what the hours have made of it.
    fn written(&self, now_ms: i64) -> Stored {
        let mut entity = Stored { last_updated_ms: now_ms, ..self.entity.clone() };
        let text = |number: f64| comparable(number).to_string();
        let numbers = [("level", self.level), ("territories", self.territories)].map(|(n, v)| (n.to_owned(), text(v)));
        let relations = self.relations.iter().map(|(name, value)| (format!("relations.{name}"), text(*value)));
        entity.properties.extend(numbers.into_iter().chain(relations));
        entity.properties.insert("order".to_owned(), self.order.to_owned());
        entity
    }
}
