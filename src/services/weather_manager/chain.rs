//! The chain of conditions of a zone: a draw a minute that depends on nothing but the minute, so that every replica
//! gets the same chain, and a forecast is the same calculation run ahead.

use super::conditions::{CONDITIONS, Kind, Season, Values};
use crate::services::seed::{Draws, Part, seed, tenant_part};

/// Chance of a change in a minute before its factors, and the time over which it falls to a tenth.
const CHANGE: f64 = 0.05;
const CALM_MINUTES: f64 = 120.0;
/// Chance of a change in an hour, where a forecast looks far ahead.
const COARSE: f64 = 0.3;

/// A zone: what its draws depend on besides the time.
pub(super) struct Place<'a> {
    pub(super) tenant: &'a str,
    pub(super) world_id: &'a str,
    pub(super) zone_id: &'a str,
}

impl Place<'_> {
    pub(super) fn draws(&self, label: &str, times: &[i64]) -> Draws {
        let mut parts =
            vec![Part::Text(label), tenant_part(self.tenant), Part::Text(self.world_id), Part::Text(self.zone_id)];
        parts.extend(times.iter().map(|time| Part::Number(time.cast_unsigned())));
        Draws::new(seed(&parts))
    }

    /// The first change of a condition that began in minute `since`, behind `after` and up to `until`.
    pub(super) fn next_change(
        &self,
        season: Season,
        kind: Kind,
        since: i64,
        (after, until): (i64, i64),
    ) -> Option<(i64, Kind)> {
        let factor = season.factor(kind);
        (after + 1..=until).find_map(|minute| {
            let calm = (1.0 - (minute - since) as f64 / CALM_MINUTES).max(0.1);
            let mut draws = self.draws("weather.v1", &[minute]);
            (draws.unit() < CHANGE * calm * factor).then(|| (minute, next(&mut draws, season, kind)))
        })
    }

    /// The condition an hour later, as a coarse forecast sees it. `hour` counts from 1970.
    pub(super) fn an_hour_later(&self, season: Season, kind: Kind, hour: i64) -> Kind {
        let mut draws = self.draws("weather.coarse.v1", &[hour]);
        if draws.unit() < COARSE { next(&mut draws, season, kind) } else { kind }
    }

    /// The numbers of a condition in a minute.
    pub(super) fn values(&self, season: Season, kind: Kind, minute: i64) -> Values {
        let base = kind.values(season);
        let mut draws = self.draws("weather.jitter.v1", &[minute]);
        let mut around = |base: f64, span: f64| base + (2.0 * draws.unit() - 1.0) * span;
        let intensity = decimals(around(base.intensity, 0.1).clamp(0.0, 1.0), 3);
        Values {
            intensity,
            temperature_c: decimals(around(base.temperature_c, 2.0).clamp(-40.0, 50.0), 1),
            wind_kmh: decimals(around(base.wind_kmh, 5.0).clamp(0.0, 150.0), 1),
            humidity: base.humidity,
            visibility_m: kind.visibility_at(intensity),
        }
    }
}

/// One of the season's next conditions, the current one left out.
fn next(draws: &mut Draws, season: Season, current: Kind) -> Kind {
    let others: Vec<(Kind, f64)> = CONDITIONS
        .iter()
        .map(|row| (row.kind, season.weight(row.kind)))
        .filter(|(kind, weight)| *kind != current && *weight > 0.0)
        .collect();
    let weights: Vec<f64> = others.iter().map(|(_, weight)| *weight).collect();
    others[draws.weighted(&weights)].0
}

/// Rounded half away from zero.
pub(super) fn decimals(number: f64, count: i32) -> f64 {
    let scale = 10_f64.powi(count);
    (number * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_chain_holds() {
        let place = Place { tenant: "", world_id: "w1", zone_id: "docks" };
        let (mut minute, mut kind, mut told) = (29_000_000, Kind::PartlyCloudy, Vec::new());
        for _ in 0..6 {
            (minute, kind) = place.next_change(Season::Spring, kind, minute, (minute, minute + 1_440)).unwrap();
            told.push((minute, kind.row().name));
        }
        let expected = [
            (29_000_045, "heavy_rain"),
            (29_000_061, "partly_cloudy"),
            (29_000_249, "fog"),
            (29_000_262, "storm"),
            (29_000_276, "heavy_rain"),
            (29_000_277, "cloudy"),
        ];
        assert_eq!(told, expected);
    }
}
