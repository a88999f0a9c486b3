//! The chain run ahead: exact for two days, then coarse.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::chain::decimals;
use super::conditions::Kind;
use super::zone::{DAY_MINUTES, MINUTE_MS, Zone};
use super::{Weather, WeatherCondition, place};
use crate::fault::Fault;
use crate::services::checks::out_of_range;
use crate::worker::Context;

const HOURS_DEFAULT: i32 = 24;
const HOURS_MAX: i32 = 168;
/// Hours for which the chain itself is walked.
const EXACT_HOURS: i64 = 48;
const HOUR_MINUTES: i64 = 60;

#[derive(Serialize, Deserialize)]
pub(super) struct Ask {
    world_id: String,
    zone_id: String,
    hours_ahead: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Forecasts {
    forecasts: Vec<Forecast>,
}

/// `weather_manager.v1.WeatherForecast`.
#[derive(Serialize, Deserialize)]
struct Forecast {
    forecast_time_ms: i64,
    predicted_weather: Option<WeatherCondition>,
    confidence: f64,
}

impl Weather {
    pub(super) async fn forecast(self: Arc<Self>, context: Context, request: Ask) -> Result<Forecasts, Fault> {
        let place = place(&context, &request.world_id, &request.zone_id)?;
        let hours = match request.hours_ahead {
            0 => HOURS_DEFAULT,
            hours @ 1..=HOURS_MAX => hours,
            _ => return Err(out_of_range("hours_ahead", 1, HOURS_MAX)),
        };
        let zone = self.zone(&context, &place).await?;
        let now = context.now_ms().div_euclid(MINUTE_MS);
        Ok(Forecasts { forecasts: ahead(zone, now, i64::from(hours)) })
    }
}

fn ahead(mut zone: Zone, now: i64, hours: i64) -> Vec<Forecast> {
    // The season that the zone has is the one that the forecast goes by.
    let season = super::WorldSeason { season: zone.season, since_minute: 0, told_ms: 0 };
    let mut forecasts = Vec::with_capacity(hours.unsigned_abs() as usize);
    for hour in 1..=hours.min(EXACT_HOURS) {
        let minute = now + hour * HOUR_MINUTES;
        zone.advance(&season, minute * MINUTE_MS, 0);
        let (values, ends) = match &zone.set {
            Some(set) => (set.values.clone(), set.end_minute),
            None => (zone.kind.values(zone.season), zone.next_minute(minute)),
        };
        let weather = WeatherCondition::new(zone.kind, &values, ends - minute);
        let confidence = confidence(hour);
        let predicted_weather = Some(weather);
        forecasts.push(Forecast { forecast_time_ms: minute * MINUTE_MS, predicted_weather, confidence });
    }
    let hour_of = |hour: i64| (now + hour * HOUR_MINUTES).div_euclid(HOUR_MINUTES);
    let later = |kind: Kind, hour: i64| zone.place().an_hour_later(zone.season, kind, hour_of(hour));
    let mut kind = zone.kind;
    for hour in EXACT_HOURS + 1..=hours {
        kind = later(kind, hour);
        let last = hour + DAY_MINUTES / HOUR_MINUTES;
        let changes = (hour + 1..last).find(|hour| later(kind, *hour) != kind).unwrap_or(last);
        let weather = WeatherCondition::new(kind, &kind.values(zone.season), (changes - hour) * HOUR_MINUTES);
        let forecast_time_ms = (now + hour * HOUR_MINUTES) * MINUTE_MS;
        forecasts.push(Forecast { forecast_time_ms, predicted_weather: Some(weather), confidence: confidence(hour) });
    }
    forecasts
}

fn confidence(hour: i64) -> f64 {
    let hour_count = hour as f64;
    let falling = if hour <= EXACT_HOURS { 0.95 - 0.015 * hour_count } else { 0.2 - 0.001 * hour_count };
    decimals(falling.max(0.05), 3)
}

#[cfg(test)]
mod tests {
    use super::super::chain::Place;
    use super::super::conditions::Season;
    use super::super::season::WorldSeason;
    use super::*;

    #[test]
    fn a_forecast_tells_what_will_be() {
        let start = 29_000_000;
        let place = Place { tenant: "", world_id: "w1", zone_id: "docks" };
        let mut zone = Zone::new(&place, Season::Spring, start * MINUTE_MS);
        let forecasts = ahead(zone.clone(), start, 168);
        assert_eq!(forecasts.len(), 168);
        let spring = WorldSeason { season: Season::Spring, since_minute: 0, told_ms: 0 };
        for forecast in &forecasts[..48] {
            zone.advance(&spring, forecast.forecast_time_ms, 0);
            let predicted = forecast.predicted_weather.as_ref().unwrap();
            assert_eq!(predicted.condition_type, zone.kind.row().name);
        }
        let confidences = [0, 47, 48, 167].map(|index: usize| forecasts[index].confidence);
        assert_eq!(confidences, [0.935, 0.23, 0.151, 0.05]);
    }
}
