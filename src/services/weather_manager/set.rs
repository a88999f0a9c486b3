//! Weather that an admin sets: checked, at once or over a while, until its duration is over.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::conditions::{Kind, Season, Values};
use super::zone::{Cause, MINUTE_MS, Set, Transition, Zone};
use super::{Kept, Weather, WeatherCondition, place, with_events, zone_key};
use crate::fault::Fault;
use crate::services::checks::{admin, invalid, out_of_range, required};
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed};

/// Minutes that set weather holds where the request does not say, and at most.
const DURATION_DEFAULT: i32 = 60;
const DURATION_MAX: i32 = 1_440;
/// Seconds of a transition, likewise.
const TRANSITION_DEFAULT: i32 = 60;
const TRANSITION_MAX: i32 = 3_600;

#[derive(Serialize, Deserialize)]
pub(super) struct SetWeather {
    world_id: String,
    zone_id: String,
    target_weather: Option<WeatherCondition>,
    gradual_transition: bool,
    transition_seconds: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Applied {
    applied_weather: Option<WeatherCondition>,
}

/// What a good request asks for.
struct Wanted {
    kind: Kind,
    /// Intensity, temperature, wind, visibility; nothing where all are 0.
    given: Option<[f64; 4]>,
    minutes: i64,
    transition_ms: Option<i64>,
}

impl Weather {
    pub(super) async fn set(
        self: Arc<Self>,
        context: Context,
        request: SetWeather,
    ) -> Result<Applied, Failed<Applied>> {
        admin(&context, self.settings.now().auth.enforce)?;
        let place = place(&context, &request.world_id, &request.zone_id)?;
        let wanted = check(&request)?;
        let season = self.season(&context, place.world_id).await?;
        let rule = |current: &Current<Kept>| {
            let now_ms = current.now_ms;
            let mut zone = self.known(&place, &season, current);
            let mut changes = zone.advance(&season, now_ms, current.revision);
            // Set weather outlives a season; what is set now is of the new one.
            zone.season = season.season;
            let values = wanted.values(zone.season);
            let minute = now_ms.div_euclid(MINUTE_MS);
            let holds = wanted.already_holds(&zone, &values);
            let shown = zone.shown(now_ms);
            let transition = match &zone.set {
                // On its way it stays on its way.
                Some(set) if holds => set.transition.clone(),
                _ => wanted.transition_ms.filter(|_| !holds).map(|length_ms| Transition {
                    from: shown.values,
                    from_kind: shown.kind,
                    start_ms: now_ms,
                    length_ms,
                }),
            };
            zone.set = Some(Set { values: values.clone(), end_minute: minute + wanted.minutes, transition });
            if !holds {
                changes.push(zone.change(wanted.kind, minute, Cause::Set, current.revision));
            }
            let reply = WeatherCondition::new(wanted.kind, &values, wanted.minutes);
            let reply = Applied { applied_weather: Some(reply) };
            with_events(&context, &zone, &changes, Change::put(Kept::Zone(zone.clone()), reply))
        };
        let write = async { Ok(self.kept.change(&context, &zone_key(&place), rule).await?.reply) };
        self.repeats.once(&context, write).await
    }
}

impl Wanted {
    /// The numbers that will hold.
    fn values(&self, season: Season) -> Values {
        let base = self.kind.values(season);
        let Some([intensity, temperature_c, wind_kmh, visibility_m]) = self.given else { return base };
        let visibility_m = if visibility_m == 0.0 { self.kind.visibility_at(intensity) } else { visibility_m };
        Values { intensity, temperature_c, wind_kmh, visibility_m, ..base }
    }

    /// True where the zone has that weather already, so that only its duration is new.
    fn already_holds(&self, zone: &Zone, values: &Values) -> bool {
        zone.kind == self.kind
            && match &zone.set {
                Some(set) => set.values == *values,
                None => self.given.is_none(),
            }
    }
}

/// Everything that is wrong with the request itself.
fn check(request: &SetWeather) -> Result<Wanted, Fault> {
    let target = request.target_weather.as_ref().filter(|target| !target.condition_type.is_empty());
    let target = target.ok_or_else(|| required("target_weather.condition_type"))?;
    let Some(kind) = Kind::named(&target.condition_type) else {
        let text = format!("unknown condition {}", target.condition_type);
        return Err(invalid("target_weather.condition_type", "unknown_value", text));
    };
    let numbers = [
        ("intensity", target.intensity, (0.0, 1.0)),
        ("temperature_celsius", target.temperature_celsius, (-40.0, 50.0)),
        ("wind_speed_kmh", target.wind_speed_kmh, (0.0, 150.0)),
        ("visibility_meters", target.visibility_meters, (0.0, 50_000.0)),
    ];
    for (name, value, (min, max)) in numbers {
        // Written so that NaN is refused, too.
        if !(min..=max).contains(&value) {
            return Err(out_of_range(&format!("target_weather.{name}"), min, max));
        }
    }
    if !(0..=DURATION_MAX).contains(&target.duration_minutes) {
        return Err(out_of_range("target_weather.duration_minutes", 0, DURATION_MAX));
    }
    if !(0..=TRANSITION_MAX).contains(&request.transition_seconds) {
        return Err(out_of_range("transition_seconds", 0, TRANSITION_MAX));
    }
    if request.transition_seconds > 0 && !request.gradual_transition {
        let text = "transition_seconds needs gradual_transition";
        return Err(invalid("transition_seconds", "conflicting_fields", text));
    }
    let or = |value: i32, default: i32| i64::from(if value == 0 { default } else { value });
    Ok(Wanted {
        kind,
        given: numbers.iter().any(|(_, value, _)| *value != 0.0).then(|| numbers.map(|(_, value, _)| value)),
        minutes: or(target.duration_minutes, DURATION_DEFAULT),
        transition_ms: request.gradual_transition.then(|| or(request.transition_seconds, TRANSITION_DEFAULT) * 1_000),
    })
}
