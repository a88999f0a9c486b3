//! Game clock, calendar and scheduler of each world. Time is computed from a record; replicas agree by compare-and-set
//! on who announces an hour and who fires a schedule.

mod calendar;
mod clock;
mod hours;
mod schedules;
mod watch;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{admin, id, out_of_range, required};
use super::notices::records;
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Change, Current, Document, Records, RecordsConfig};
use crate::worker::{Context, Failed, Repeats, Service};
use calendar::GameTime;
use clock::Clock;
use hours::Tick;
use schedules::Schedule;

/// The world of requests that name none.
const DEFAULT_WORLD: &str = "default";
/// Game seconds of one real second.
const SCALE_MIN: f64 = 0.01;
const SCALE_MAX: f64 = 3_600.0;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let times = records(settings, BucketConfig { name: "tg_time", ttl: None, history: 4 });
    let schedules = RecordsConfig {
        keeps_tombstones: false,
        ..records(settings, BucketConfig { name: "tg_schedules", ttl: None, history: 2 })
    };
    let manager = TimeManager {
        times: Records::open(store, times).await?,
        schedules: Records::open(store, schedules).await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("time-manager", VERSION)
        .keeping(&manager.schedules)
        .sweeping("sweeper of times", &manager.times)
        .sweeping("sweeper of schedules", &manager.schedules)
        .hook_delete("time_manager.v1.TimeManagerService/CancelSchedule", schedules::cancel)
        .sharing(manager)
        .unary("time_manager.v1.TimeManagerService/GetTime", TimeManager::get_time)
        .unary("time_manager.v1.TimeManagerService/SetTime", TimeManager::set_time)
        .unary("time_manager.v1.TimeManagerService/ScheduleEvent", TimeManager::schedule)
        .stream("time_manager.v1.TimeManagerService/WatchTime", TimeManager::watch)
        .task("hours", TimeManager::announce)
        .task("schedules", TimeManager::fire)
        .done())
}

struct TimeManager {
    times: Records<Kept>,
    schedules: Records<Schedule>,
    repeats: Repeats,
    settings: LiveSettings,
}

/// What the bucket of times holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kept {
    Clock(Clock),
    Tick(Tick),
}

#[derive(Serialize, Deserialize)]
struct GetTime {
    world_id: String,
}

#[derive(Serialize, Deserialize)]
struct Time {
    game_time: Option<GameTime>,
    real_time_ms: i64,
    time_scale: f64,
}

#[derive(Serialize, Deserialize)]
struct SetTime {
    world_id: String,
    target_time: Option<GameTime>,
    gradual: bool,
    time_scale: f64,
}

#[derive(Serialize, Deserialize)]
struct TimeSet {
    new_time: Option<GameTime>,
    time_scale: f64,
}

impl TimeManager {
    async fn get_time(self: Arc<Self>, context: Context, request: GetTime) -> Result<Time, Fault> {
        let world_id = world(&request.world_id)?;
        let clock = self.clock(&context, world_id).await?.value;
        let now_ms = context.now_ms();
        Ok(Time {
            game_time: Some(GameTime::at(clock.game_at(now_ms))),
            real_time_ms: now_ms,
            time_scale: clock.scale_at(now_ms),
        })
    }

    async fn set_time(self: Arc<Self>, context: Context, request: SetTime) -> Result<TimeSet, Failed<TimeSet>> {
        let settings = self.settings.now();
        admin(&context, settings.auth.enforce)?;
        let world_id = world(&request.world_id)?;
        let Some(target) = &request.target_time else { return Err(required("target_time").into()) };
        target.check("target_time")?;
        let scale = (request.time_scale != 0.0).then_some(request.time_scale);
        if scale.is_some_and(|scale| !(SCALE_MIN..=SCALE_MAX).contains(&scale)) {
            return Err(out_of_range("time_scale", SCALE_MIN, SCALE_MAX).into());
        }
        let target_ms = target.game_ms();
        let rule = |current: &Current<Kept>| {
            let now_ms = current.now_ms;
            let before = match &current.value {
                Some(Kept::Clock(clock)) => clock.clone(),
                _ => Clock::new(context.tenant(), world_id, now_ms, &settings.time_manager),
            };
            if request.gradual && target_ms < before.game_at(now_ms) {
                return Err(Fault::client(Code::FailedPrecondition, "a gradual change cannot go backwards")
                    .detail("field", "target_time")
                    .detail("reason", "backwards")
                    .into());
            }
            let after = before.set(now_ms, target_ms, request.gradual, scale);
            let new_time = Some(GameTime::at(after.game_at(now_ms)));
            let time_scale = after.scale_at(now_ms);
            Ok(Change::put(Kept::Clock(after), TimeSet { new_time, time_scale }))
        };
        let place = clock_key(context.tenant(), world_id);
        let write = async { Ok(self.times.change(&context, &place, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }

    /// The clock of a world; its first reader starts it.
    async fn clock(&self, context: &Context, world_id: &str) -> Result<Document<Clock>, Fault> {
        let place = clock_key(context.tenant(), world_id);
        if let Some(Document { value: Kept::Clock(value), version, revision, updated_ms }) =
            self.times.get_cached(context, &place).await?
        {
            return Ok(Document { value, version, revision, updated_ms });
        }
        let settings = self.settings.now();
        let rule = |current: &Current<Kept>| match &current.value {
            Some(Kept::Clock(clock)) => Ok(Change::nothing((clock.clone(), current.updated_ms))),
            _ => {
                let clock = Clock::new(context.tenant(), world_id, current.now_ms, &settings.time_manager);
                Ok(Change::put(Kept::Clock(clock.clone()), (clock, current.now_ms)))
            }
        };
        // On the service's account: the caller's idempotency key belongs to what the caller writes.
        let own = context.for_tenant(context.tenant());
        let done = self.times.change(&own, &place, rule).await.map_err(|failed| failed.fault)?;
        let (value, updated_ms) = done.reply;
        Ok(Document { value, version: done.version, revision: done.revision, updated_ms })
    }
}

fn world(world_id: &str) -> Result<&str, Fault> {
    if world_id.is_empty() {
        return Ok(DEFAULT_WORLD);
    }
    id("world_id", world_id).map(|()| world_id)
}

fn clock_key(tenant: &str, world_id: &str) -> String {
    key(&[tenant, world_id, "clock"])
}
