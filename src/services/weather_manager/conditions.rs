//! The fourteen conditions and the four seasons, as tables.

use serde::{Deserialize, Serialize};

/// A condition; its position is that in [`CONDITIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Clear,
    PartlyCloudy,
    Cloudy,
    Rain,
    HeavyRain,
    Storm,
    Fog,
    Mist,
    Snow,
    HeavySnow,
    Blizzard,
    Windy,
    ExtremeHeat,
    ExtremeCold,
}

use Kind::{
    Blizzard, Clear, Cloudy, ExtremeCold, ExtremeHeat, Fog, HeavyRain, HeavySnow, Mist, PartlyCloudy, Rain, Snow,
    Storm, Windy,
};

/// What a condition is like where nothing else is said.
pub(super) struct Condition {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    intensity: f64,
    wind_kmh: f64,
    humidity: f64,
    visibility_m: f64,
    /// Effects that are not neutral.
    pub(super) effects: &'static [(&'static str, f64)],
}

const SPEED: &str = "movement_speed";
const STEALTH: &str = "stealth_bonus";
const MASKING: &str = "sound_masking";
const DECAY: &str = "decay_rate";
const STAMINA: &str = "stamina_drain";

/// The conditions, in order of draws.
#[rustfmt::skip]
pub(super) const CONDITIONS: [Condition; 14] = [
    row(Clear,        "clear",         [0.0,  5.0, 0.40, 20_000.0], &[]),
    row(PartlyCloudy, "partly_cloudy", [0.2,  8.0, 0.50, 18_000.0], &[]),
    row(Cloudy,       "cloudy",        [0.4, 10.0, 0.60, 15_000.0], &[(STEALTH, 0.05)]),
    row(Rain,         "rain",          [0.6, 15.0, 0.90,  6_000.0], &[(SPEED, 0.95), (STEALTH, 0.15), (MASKING, 0.2)]),
    row(HeavyRain,    "heavy_rain",    [0.8, 25.0, 0.95,  2_500.0], &[(SPEED, 0.85), (STEALTH, 0.25), (MASKING, 0.4)]),
    row(Storm,        "storm",         [0.9, 40.0, 0.85,  1_500.0], &[(SPEED, 0.8), (STEALTH, 0.3), (MASKING, 0.6)]),
    row(Fog,          "fog",           [0.5,  2.0, 0.95,    200.0], &[(SPEED, 0.95), (STEALTH, 0.4)]),
    row(Mist,         "mist",          [0.3,  3.0, 0.90,  1_200.0], &[(STEALTH, 0.2)]),
    row(Snow,         "snow",          [0.6, 10.0, 0.70,  3_000.0], &[(SPEED, 0.85), (STEALTH, 0.1), (DECAY, 0.7)]),
    row(HeavySnow,    "heavy_snow",    [0.8, 20.0, 0.80,    800.0], &[(SPEED, 0.7), (STEALTH, 0.2), (DECAY, 0.6), (STAMINA, 1.2)]),
    row(Blizzard,     "blizzard",      [1.0, 60.0, 0.85,    100.0], &[(SPEED, 0.5), (STEALTH, 0.4), (MASKING, 0.7), (DECAY, 0.5), (STAMINA, 1.4)]),
    row(Windy,        "windy",         [0.4, 30.0, 0.50, 12_000.0], &[(SPEED, 0.95), (MASKING, 0.3)]),
    row(ExtremeHeat,  "extreme_heat",  [0.9,  5.0, 0.60, 16_000.0], &[(SPEED, 0.9), (DECAY, 1.5), (STAMINA, 1.3)]),
    row(ExtremeCold,  "extreme_cold",  [0.8,  8.0, 0.50, 14_000.0], &[(SPEED, 0.9), (DECAY, 0.5), (STAMINA, 1.2)]),
];

const fn row(kind: Kind, name: &'static str, numbers: [f64; 4], effects: &'static [(&'static str, f64)]) -> Condition {
    let [intensity, wind_kmh, humidity, visibility_m] = numbers;
    Condition { kind, name, intensity, wind_kmh, humidity, visibility_m, effects }
}

/// The numbers of a condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Values {
    /// 0 to 1.
    pub(super) intensity: f64,
    pub(super) temperature_c: f64,
    pub(super) wind_kmh: f64,
    /// 0 to 1.
    pub(super) humidity: f64,
    pub(super) visibility_m: f64,
}

impl Kind {
    pub(super) fn row(self) -> &'static Condition {
        &CONDITIONS[self as usize]
    }

    /// The condition of that name, whatever its case.
    pub(super) fn named(name: &str) -> Option<Kind> {
        CONDITIONS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.kind)
    }

    /// Its numbers in a season.
    pub(super) fn values(self, season: Season) -> Values {
        let (row, of) = (self.row(), season.row());
        let temperature_c = match self {
            ExtremeHeat => of.warmest + 10.0,
            ExtremeCold => of.coldest - 10.0,
            Snow | HeavySnow | Blizzard => of.coldest - 5.0,
            _ => (of.coldest + of.warmest) / 2.0,
        };
        let Condition { intensity, wind_kmh, humidity, visibility_m, .. } = *row;
        Values { intensity, temperature_c, wind_kmh, humidity, visibility_m }
    }

    /// How far one sees at an intensity, in whole metres.
    pub(super) fn visibility_at(self, intensity: f64) -> f64 {
        let row = self.row();
        (row.visibility_m * (1.0 - 0.5 * (intensity - row.intensity).max(0.0))).round()
    }
}

/// A season; its position is that in [`SEASONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Season {
    Spring,
    Summer,
    Fall,
    Winter,
}

struct SeasonRow {
    name: &'static str,
    coldest: f64,
    warmest: f64,
    start: Kind,
    /// Conditions with a change factor of their own, and that of the others.
    factors: &'static [(Kind, f64)],
    factor: f64,
    /// Next conditions besides those of every season.
    next: &'static [Kind],
}

/// Next conditions of every season.
const NEXT: [Kind; 4] = [Clear, PartlyCloudy, Cloudy, Windy];

const SEASONS: [SeasonRow; 4] = [
    SeasonRow {
        name: "spring",
        coldest: 5.0,
        warmest: 20.0,
        start: PartlyCloudy,
        factors: &[(Rain, 0.5), (Storm, 0.5)],
        factor: 1.5,
        next: &[Rain, HeavyRain, Storm, Mist, Fog],
    },
    SeasonRow {
        name: "summer",
        coldest: 20.0,
        warmest: 35.0,
        start: Clear,
        factors: &[(Clear, 0.7), (ExtremeHeat, 0.7), (Storm, 1.8)],
        factor: 1.0,
        next: &[Clear, PartlyCloudy, Storm, ExtremeHeat, Windy],
    },
    SeasonRow {
        name: "fall",
        coldest: 0.0,
        warmest: 15.0,
        start: Cloudy,
        factors: &[(Windy, 0.6), (Fog, 0.6), (Mist, 0.6)],
        factor: 1.2,
        next: &[Fog, Mist, Windy, Rain, Cloudy],
    },
    SeasonRow {
        name: "winter",
        coldest: -10.0,
        warmest: 5.0,
        start: Cloudy,
        factors: &[(Snow, 0.4), (HeavySnow, 0.4), (Blizzard, 0.4)],
        factor: 1.3,
        next: &[Snow, HeavySnow, Blizzard, ExtremeCold, Fog, Cloudy],
    },
];

impl Season {
    fn row(self) -> &'static SeasonRow {
        &SEASONS[self as usize]
    }

    pub(super) fn name(self) -> &'static str {
        self.row().name
    }

    pub(super) fn named(name: &str) -> Option<Season> {
        [Season::Spring, Season::Summer, Season::Fall, Season::Winter].into_iter().find(|season| season.name() == name)
    }

    /// The condition that a zone begins with.
    pub(super) fn start(self) -> Kind {
        self.row().start
    }

    /// How readily a condition changes.
    pub(super) fn factor(self, kind: Kind) -> f64 {
        let row = self.row();
        row.factors.iter().find(|(of, _)| *of == kind).map_or(row.factor, |(_, factor)| *factor)
    }

    /// How often a condition is mentioned among the next ones.
    pub(super) fn weight(self, kind: Kind) -> f64 {
        NEXT.iter().chain(self.row().next).filter(|next| **next == kind).count() as f64
    }

    pub(super) fn allows(self, kind: Kind) -> bool {
        self.weight(kind) > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_stands_where_its_name_says() {
        for (index, row) in CONDITIONS.iter().enumerate() {
            assert_eq!((row.kind as usize, Kind::named(row.name)), (index, Some(row.kind)));
        }
        for season in [Season::Spring, Season::Summer, Season::Fall, Season::Winter] {
            assert_eq!(Season::named(season.name()), Some(season));
            assert!(season.allows(season.start()));
        }
    }

    #[test]
    fn extremes_and_snow_lie_outside_of_the_season() {
        let degrees = |kind: Kind| kind.values(Season::Winter).temperature_c;
        assert_eq!([Cloudy, Snow, ExtremeCold, ExtremeHeat].map(degrees), [-2.5, -15.0, -20.0, 15.0]);
    }
}
