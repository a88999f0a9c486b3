//! What weather learns from game time: the season of a world, and its dawns and dusks.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::conditions::{Kind, Season};
use super::zone::{Cause, MINUTE_MS};
use super::{Kept, Weather, world_season_key};
use crate::fault::Fault;
use crate::services::notices::GameEvent;
use crate::store::{Keys, Logged, key};
use crate::worker::records::{Change, Current, Document};
use crate::worker::{Context, Setback};

/// Hours at which a zone may turn to a condition, and the chance.
const ROLLS: [(i64, Kind, f64); 2] = [(5, Kind::Fog, 0.3), (18, Kind::Storm, 0.2)];
const DAY_HOURS: i64 = 24;

/// The season of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WorldSeason {
    pub(super) season: Season,
    /// Since when, in minutes since 1970.
    pub(super) since_minute: i64,
    /// Time of the last event that told it; 0 before the first.
    pub(super) told_ms: i64,
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
#[derive(Serialize, Deserialize)]
struct GameTime {
    season: String,
}

impl Weather {
    /// The season of a world; where none is known yet, the one that time-manager says, or spring.
    pub(super) async fn season(&self, context: &Context, world_id: &str) -> Result<WorldSeason, Fault> {
        let place = world_season_key(context.tenant(), world_id);
        if let Some(Document { value: Kept::Season(season), .. }) = self.kept.get_cached(context, &place).await? {
            return Ok(season);
        }
        let season = match self.settings.now().weather_manager.ask_time {
            true => self.asked(context, world_id).await.unwrap_or(Season::Spring),
            false => Season::Spring,
        };
        let rule = |current: &Current<Kept>| match &current.value {
            Some(Kept::Season(known)) => Ok(Change::nothing(known.clone())),
            _ => {
                let since_minute = current.now_ms.div_euclid(MINUTE_MS);
                let season = WorldSeason { season, since_minute, told_ms: 0 };
                Ok(Change::put(Kept::Season(season.clone()), season))
            }
        };
        let own = context.for_tenant(context.tenant());
        Ok(self.kept.change(&own, &place, rule).await.map_err(|failed| failed.fault)?.reply)
    }

    async fn asked(&self, context: &Context, world_id: &str) -> Option<Season> {
        let request = GetTime { world_id: world_id.to_owned() };
        let method = "time_manager.v1.TimeManagerService/GetTime";
        match context.call_as_service::<_, Time>(method, &request).await {
            Ok(time) => time.game_time.and_then(|time| Season::named(&time.season)),
            Err(fault) => {
                tracing::warn!(world_id, %fault, "the season is not known yet: spring until a day begins");
                None
            }
        }
    }

    /// An hour or a day has begun.
    pub(super) async fn on_time(self: Arc<Self>, context: Context, event: Logged) -> Result<(), Setback> {
        let event: GameEvent = context.decode("event_bus.v1.GameEvent", &event.payload)?;
        let of = |name: &str| event.metadata.get(name).map_or("", String::as_str);
        let (own, world_id) = (context.for_tenant(of("tenant_id")), of("world_id"));
        match event.event_type.as_str() {
            "time.day.changed" => self.on_day(&own, world_id, event.timestamp_ms, &event.payload).await,
            "time.hour.changed" => match of("hour_index").parse() {
                Ok(hour_index) => Ok(self.on_hour(&own, world_id, event.timestamp_ms, hour_index).await?),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn on_day(&self, own: &Context, world_id: &str, told_ms: i64, payload: &Bytes) -> Result<(), Setback> {
        let time: GameTime = own.decode("time_manager.v1.GameTime", payload)?;
        let Some(season) = Season::named(&time.season) else { return Ok(()) };
        let rule = |current: &Current<Kept>| {
            let known = match &current.value {
                Some(Kept::Season(known)) => Some(known),
                _ => None,
            };
            if known.is_some_and(|known| known.told_ms >= told_ms) {
                return Ok(Change::nothing(()));
            }
            let since = known.filter(|known| known.season == season).map(|known| known.since_minute);
            let since_minute = since.unwrap_or(told_ms.div_euclid(MINUTE_MS));
            Ok(Change::put(Kept::Season(WorldSeason { season, since_minute, told_ms }), ()))
        };
        let place = world_season_key(own.tenant(), world_id);
        self.kept.change(own, &place, rule).await.map_err(|failed: crate::worker::Failed<()>| failed.fault)?;
        let known = self.season(own, world_id).await?;
        for (place, document) in self.zones(own, world_id).await? {
            if let Kept::Zone(zone) = document.value
                && zone.season != known.season
            {
                self.refresh(own, &place, &known).await?;
            }
        }
        Ok(())
    }

    /// At dawn a zone may turn to fog, at dusk to storm.
    async fn on_hour(&self, own: &Context, world_id: &str, told_ms: i64, hour_index: i64) -> Result<(), Fault> {
        let hour = hour_index.rem_euclid(DAY_HOURS);
        let Some((_, kind, chance)) = ROLLS.into_iter().find(|(of, ..)| *of == hour) else { return Ok(()) };
        let zones = self.zones(own, world_id).await?;
        if zones.is_empty() {
            return Ok(());
        }
        let season = self.season(own, world_id).await?;
        for (place, _) in zones {
            let rule = |current: &Current<Kept>| {
                let Some(Kept::Zone(mut zone)) = current.value.clone() else { return Ok(Change::nothing(())) };
                let mut changes = zone.advance(&season, current.now_ms, current.revision);
                let times = [hour_index.div_euclid(DAY_HOURS), hour];
                let turns = zone.place().draws("weather.tod.v1", &times).unit() < chance;
                let is_free = zone.set.is_none() && zone.kind != kind && zone.season.allows(kind);
                if !turns || !is_free || zone.rolled_ms >= told_ms {
                    return self.written(own, &zone, &changes, ());
                }
                zone.rolled_ms = told_ms;
                // The chain may have gone on meanwhile: nothing changes before what is written already.
                let minute = zone.minute.max(told_ms.div_euclid(MINUTE_MS));
                changes.push(zone.change(kind, minute, Cause::Natural, current.revision));
                self.written(own, &zone, &changes, ())
            };
            self.kept.change(own, &place, rule).await.map_err(|failed| failed.fault)?;
        }
        Ok(())
    }

    async fn zones(&self, own: &Context, world_id: &str) -> Result<Vec<(String, Document<Kept>)>, Fault> {
        let listed = self.kept.list(own, &Keys::Under(key(&[own.tenant(), world_id]))).await?;
        Ok(listed.into_iter().filter(|(_, document)| matches!(document.value, Kept::Zone(_))).collect())
    }
}
