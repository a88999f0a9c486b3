//! Weather of worlds and zones: a chain of conditions that every replica computes alike, set weather, and forecasts.

mod chain;
mod conditions;
mod forecast;
mod season;
mod set;
mod watch;
mod zone;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::background::{Agenda, keep_running};
use super::checks::{id, invalid};
use super::events::WEATHER_TIME_SYNC;
use super::notices::{notice, records};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Keys, Store, key};
use crate::worker::records::{Change, Current, Document, EventId, Notice, RecordSeen, Records};
use crate::worker::{Context, Failed, Repeats, Service};
use chain::Place;
use conditions::{Kind, Values};
use season::WorldSeason;
use zone::{MINUTE_MS, Past, Zone};

/// The world of requests that name none, and the zone that is the world as a whole.
const DEFAULT_WORLD: &str = "default";
const WHOLE_WORLD: &str = "_";
/// How long after its last reading a zone is kept up to date.
const KEPT_MS: i64 = 24 * 3_600 * 1_000;
/// How old the note of the last reading may be.
const READ_NOTE_MS: i64 = 3_600 * 1_000;
/// Events of one write; where a zone was not looked at for days, older changes are told by nobody.
const TOLD_MAX: usize = 16;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_weather", ttl: None, history: 8 };
    let weather = Weather {
        kept: Records::open(store, records(settings, bucket)).await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("weather-manager", VERSION)
        .sharing(weather)
        .unary("weather_manager.v1.WeatherManagerService/GetWeather", Weather::get)
        .unary("weather_manager.v1.WeatherManagerService/SetWeather", Weather::set)
        .unary("weather_manager.v1.WeatherManagerService/Forecast", Weather::forecast)
        .stream("weather_manager.v1.WeatherManagerService/WatchWeather", Weather::watch)
        .consumer(WEATHER_TIME_SYNC, Weather::on_time)
        .task("zones", Weather::keep_up)
        .task("sweeper", Weather::sweep)
        .done())
}

struct Weather {
    kept: Records<Kept>,
    repeats: Repeats,
    settings: LiveSettings,
}

/// What the bucket holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "nearly every record is a zone")]
enum Kept {
    Zone(Zone),
    Season(WorldSeason),
}

/// `weather_manager.v1.WeatherCondition`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct WeatherCondition {
    condition_type: String,
    intensity: f64,
    temperature_celsius: f64,
    wind_speed_kmh: f64,
    visibility_meters: f64,
    duration_minutes: i32,
    effects: BTreeMap<String, f64>,
    humidity: f64,
}

#[derive(Serialize, Deserialize)]
struct GetWeather {
    world_id: String,
    zone_id: String,
}

#[derive(Serialize, Deserialize)]
struct Got {
    current_weather: Option<WeatherCondition>,
    last_change_ms: i64,
    next_change_ms: i64,
    season: String,
}

impl WeatherCondition {
    fn new(kind: Kind, values: &Values, duration_minutes: i64) -> WeatherCondition {
        let row = kind.row();
        WeatherCondition {
            condition_type: row.name.to_owned(),
            intensity: values.intensity,
            temperature_celsius: values.temperature_c,
            wind_speed_kmh: values.wind_kmh,
            visibility_meters: values.visibility_m,
            duration_minutes: i32::try_from(duration_minutes.max(0)).unwrap_or(i32::MAX),
            effects: row.effects.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            humidity: values.humidity,
        }
    }

    /// The weather of a zone now.
    fn now(zone: &Zone, now_ms: i64) -> WeatherCondition {
        let shown = zone.shown(now_ms);
        WeatherCondition::new(shown.kind, &shown.values, shown.next_minute - now_ms.div_euclid(MINUTE_MS))
    }

    /// The weather that a change brought.
    fn of(zone: &Zone, past: &Past, duration_minutes: i64) -> WeatherCondition {
        let values = past.values.clone();
        let values = values.unwrap_or_else(|| zone.place().values(past.season, past.kind, past.minute));
        WeatherCondition::new(past.kind, &values, duration_minutes)
    }
}

impl Weather {
    async fn get(self: Arc<Self>, context: Context, request: GetWeather) -> Result<Got, Fault> {
        let place = place(&context, &request.world_id, &request.zone_id)?;
        let zone = self.zone(&context, &place).await?;
        let now_ms = context.now_ms();
        Ok(Got {
            current_weather: Some(WeatherCondition::now(&zone, now_ms)),
            last_change_ms: zone.minute * MINUTE_MS,
            next_change_ms: zone.shown(now_ms).next_minute * MINUTE_MS,
            season: zone.season.name().to_owned(),
        })
    }

    /// A zone as it is now, for somebody who reads it; its first reader begins it.
    async fn zone(&self, context: &Context, place: &Place<'_>) -> Result<Zone, Fault> {
        let season = self.season(context, place.world_id).await?;
        let at = zone_key(place);
        if let Some(Document { value: Kept::Zone(mut zone), revision, .. }) = self.kept.get_cached(context, &at).await?
        {
            let now_ms = context.now_ms();
            let changes = zone.advance(&season, now_ms, revision);
            if changes.is_empty() && now_ms - zone.read_ms < READ_NOTE_MS {
                return Ok(zone);
            }
        }
        let own = context.for_tenant(context.tenant());
        let rule = |current: &Current<Kept>| {
            let mut zone = self.known(place, &season, current);
            let changes = zone.advance(&season, current.now_ms, current.revision);
            zone.read_ms = current.now_ms;
            let change = Change::put(Kept::Zone(zone.clone()), zone.clone());
            with_events(&own, &zone, &changes, change)
        };
        Ok(self.kept.change(&own, &at, rule).await.map_err(|failed| failed.fault)?.reply)
    }

    /// The zone of a record, or a new one.
    fn known(&self, place: &Place<'_>, season: &WorldSeason, current: &Current<Kept>) -> Zone {
        match &current.value {
            Some(Kept::Zone(zone)) => zone.clone(),
            _ => Zone::new(place, season.season, current.now_ms),
        }
    }

    /// A zone with its changes, if there are any.
    fn written<R>(
        &self,
        context: &Context,
        zone: &Zone,
        changes: &[Past],
        reply: R,
    ) -> Result<Change<Kept, R>, Failed<R>> {
        if changes.is_empty() {
            return Ok(Change::nothing(reply));
        }
        let change = Change::put(Kept::Zone(zone.clone()), reply);
        with_events(context, zone, changes, change)
    }

    /// Brings a zone up to date that nobody reads just now.
    async fn refresh(&self, own: &Context, at: &str, season: &WorldSeason) -> Result<(), Fault> {
        let rule = |current: &Current<Kept>| {
            let Some(Kept::Zone(mut zone)) = current.value.clone() else { return Ok(Change::nothing(())) };
            let before = zone.season;
            let changes = zone.advance(season, current.now_ms, current.revision);
            if changes.is_empty() && zone.season != before {
                return Ok(Change::put(Kept::Zone(zone), ()));
            }
            self.written(own, &zone, &changes, ())
        };
        self.kept.change(own, at, rule).await.map_err(|failed| failed.fault)?;
        Ok(())
    }

    async fn catch_up(&self, own: &Context, at: &str, world_id: &str) -> Result<(), Fault> {
        let season = self.season(own, world_id).await?;
        self.refresh(own, at, &season).await
    }

    /// Follows the zones that were read within a day, and writes their changes when they come.
    async fn keep_up(self: Arc<Self>, context: Context) {
        keep_running(&context, "zones", || self.follow_zones(&context)).await;
    }

    async fn follow_zones(&self, context: &Context) -> Result<(), Fault> {
        let mut watch = self.kept.watch(Keys::All, None).await?;
        let mut zones: BTreeMap<String, (String, String)> = BTreeMap::new();
        let mut agenda = Agenda::default();
        loop {
            for at in agenda.take_due(context.now_ms()) {
                let Some((tenant, world_id)) = zones.get(&at) else { continue };
                match self.catch_up(&context.for_tenant(tenant), &at, world_id).await {
                    Ok(()) => {}
                    Err(fault) if fault.code() == Code::Unavailable => return Err(fault),
                    // One zone that cannot be written keeps nobody from the others.
                    Err(fault) => tracing::warn!(at, %fault, "a zone is brought up to date later"),
                }
                // Where it changed, the watch brings it; else it is looked at again in a minute.
                agenda.set(&at, context.now_ms() + MINUTE_MS);
            }
            tokio::select! {
                seen = watch.next(context) => if let RecordSeen::Change { key, document, .. } = seen? {
                    agenda.remove(&key);
                    zones.remove(&key);
                    let now_ms = context.now_ms();
                    if let Some(Document { value: Kept::Zone(zone), .. }) = document
                        && now_ms - zone.read_ms < KEPT_MS
                    {
                        let now = now_ms.div_euclid(MINUTE_MS).min(zone.minute);
                        let next = zone.set.as_ref().map_or_else(|| zone.next_minute(now), |set| set.end_minute);
                        agenda.set(&key, next * MINUTE_MS);
                        zones.insert(key, (zone.tenant, zone.world_id));
                    }
                },
                () = agenda.until_next(context.now_ms()) => {}
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }

    async fn sweep(self: Arc<Self>, context: Context) {
        self.kept.sweeper(&context).await;
    }
}

/// A change of a record with the events of its newest changes of condition.
fn with_events<R>(
    context: &Context,
    zone: &Zone,
    changes: &[Past],
    change: Change<Kept, R>,
) -> Result<Change<Kept, R>, Failed<R>> {
    let newest = &changes[changes.len().saturating_sub(TOLD_MAX)..];
    newest.iter().try_fold(change, |change, past| Ok(change.event(told(context, zone, past)?)))
}

fn told(context: &Context, zone: &Zone, past: &Past) -> Result<Notice, Fault> {
    let ends = zone.set.as_ref().map_or_else(|| zone.next_minute(past.minute), |set| set.end_minute);
    let next = zone.changes.iter().find(|next| next.minute > past.minute).map_or(ends, |next| next.minute);
    let weather = WeatherCondition::of(zone, past, next - past.minute);
    let id = format!("{}:{}:{}:{}", zone.world_id, zone.zone_id, past.minute, past.kind.row().name);
    let message = "weather_manager.v1.WeatherCondition";
    Ok(notice(context, "evt.weather.changed.v1", EventId::Text(id), message, &weather)?
        .with("world_id", &*zone.world_id)
        .with("zone_id", &*zone.zone_id)
        .with("previous", past.previous.row().name)
        .with("cause", past.cause.name()))
}

/// The zone that a request names.
fn place<'a>(context: &'a Context, world_id: &'a str, zone_id: &'a str) -> Result<Place<'a>, Fault> {
    let world_id = if world_id.is_empty() { DEFAULT_WORLD } else { world_id };
    id("world_id", world_id)?;
    let zone_id = if zone_id.is_empty() {
        WHOLE_WORLD
    } else {
        id("zone_id", zone_id)?;
        if zone_id.starts_with('_') {
            return Err(invalid("zone_id", "bad_id", "zone_id must not begin with `_`"));
        }
        zone_id
    };
    Ok(Place { tenant: context.tenant(), world_id, zone_id })
}

fn zone_key(place: &Place<'_>) -> String {
    key(&[place.tenant, place.world_id, place.zone_id])
}

fn world_season_key(tenant: &str, world_id: &str) -> String {
    key(&[tenant, world_id, "_season"])
}
