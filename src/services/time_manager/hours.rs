//! Hours and days as they begin: each replica looks at every clock, and the one that writes the tick record first tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calendar::{GameTime, HOUR_MS};
use super::clock::Clock;
use super::{Kept, TimeManager, clock_key};
use crate::fault::{Code, Fault};
use crate::services::background::{Agenda, keep_running};
use crate::services::notices::notice;
use crate::store::{Keys, key};
use crate::worker::Context;
use crate::worker::records::{Change, Current, EventId, Notice, RecordSeen};

const DAY_HOURS: i64 = 24;
/// Pause before a world is looked at again whose hour could not be told.
const AGAIN_MS: i64 = 5_000;

/// The last hour of a world that was told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Tick {
    hour_index: i64,
    epoch: u64,
}

impl TimeManager {
    pub(super) async fn announce(self: Arc<Self>, context: Context) {
        keep_running(&context, "hours", || self.follow_clocks(&context)).await;
    }

    async fn follow_clocks(&self, context: &Context) -> Result<(), Fault> {
        let mut watch = self.times.watch(Keys::All, None).await?;
        let (mut clocks, mut agenda): (BTreeMap<String, Clock>, Agenda) = Default::default();
        loop {
            for place in agenda.take_due(context.now_ms()) {
                let Some(clock) = clocks.get(&place) else { continue };
                let next_ms = match self.tick(context, clock).await {
                    Ok(next_ms) => next_ms.max(context.now_ms() + 1),
                    Err(fault) if fault.code() == Code::Unavailable => return Err(fault),
                    // One world whose hour cannot be told keeps nobody from the others.
                    Err(fault) => {
                        tracing::warn!(place, %fault, "an hour is told later");
                        context.now_ms() + AGAIN_MS
                    }
                };
                agenda.set(&place, next_ms);
            }
            tokio::select! {
                seen = watch.next(context) => match seen? {
                    RecordSeen::Change { key, document, .. } => match document.map(|document| document.value) {
                        Some(Kept::Clock(clock)) => {
                            // A new clock, or one that was set: its hour may be another one.
                            agenda.set(&key, context.now_ms());
                            clocks.insert(key, clock);
                        }
                        Some(Kept::Tick(_)) => {}
                        None => {
                            agenda.remove(&key);
                            clocks.remove(&key);
                        }
                    },
                    RecordSeen::Current => {}
                },
                () = agenda.until_next(context.now_ms()) => {}
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }

    /// Tells the hour of a world where nobody has yet; gives the time at which the next one begins.
    async fn tick(&self, context: &Context, clock: &Clock) -> Result<i64, Fault> {
        let own = context.for_tenant(&clock.tenant);
        let place = clock_key(&clock.tenant, &clock.world_id);
        let clock = match self.times.get(&own, &place).await? {
            Some(document) => match document.value {
                Kept::Clock(clock) => clock,
                Kept::Tick(_) => return Ok(i64::MAX),
            },
            None => return Ok(i64::MAX),
        };
        let rule = |current: &Current<Kept>| {
            let told = match &current.value {
                Some(Kept::Tick(tick)) => tick.clone(),
                _ => Tick { hour_index: clock.first_hour, epoch: 0 },
            };
            let hour_index = clock.game_at(current.now_ms).div_euclid(HOUR_MS);
            let is_old = clock.epoch < told.epoch || (clock.epoch == told.epoch && hour_index < told.hour_index);
            if is_old || (clock.epoch == told.epoch && hour_index == told.hour_index) {
                return Ok(Change::nothing(hour_index));
            }
            let change = Change::put(Kept::Tick(Tick { hour_index, epoch: clock.epoch }), hour_index);
            let notices = begun(&own, &clock, told.hour_index, hour_index)?;
            Ok(notices.into_iter().fold(change, Change::event))
        };
        let place = key(&[clock.tenant.as_str(), &clock.world_id, "tick"]);
        let hour_index = self.times.change(&own, &place, rule).await.map_err(|failed| failed.fault)?.reply;
        Ok(clock.real_at((hour_index + 1) * HOUR_MS))
    }
}

/// The events of an hour that follows another: of the hour, and of its day where that is another one.
fn begun(context: &Context, clock: &Clock, before: i64, hour_index: i64) -> Result<Vec<Notice>, Fault> {
    let (day_before, day_index) = (before.div_euclid(DAY_HOURS), hour_index.div_euclid(DAY_HOURS));
    let kinds = [("hour", before, hour_index), ("day", day_before, day_index)];
    let changed = kinds.into_iter().filter(|(_, before, index)| before != index);
    let notices = changed.map(|(kind, before, index)| {
        let start = GameTime::at(hour_index * HOUR_MS);
        let letter = &kind[..1];
        let id = EventId::Text(format!("{}:{letter}:{}:{index}", clock.world_id, clock.epoch));
        let subject = format!("evt.time.{kind}.changed.v1");
        Ok(notice(context, &subject, id, "time_manager.v1.GameTime", &start)?
            .with("world_id", &*clock.world_id)
            .with(&format!("{kind}_index"), index.to_string())
            .with(&format!("skipped_{kind}s"), (index - before - 1).max(0).to_string()))
    });
    notices.collect()
}
