//! The game's calendar: twelve months of thirty days, counted in milliseconds from the start of year 1.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::services::checks::out_of_range;
use crate::services::settings;

pub(super) const MINUTE_MS: i64 = 60 * 1_000;
pub(super) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;
const MONTH_DAYS: i64 = 30;
const YEAR_DAYS: i64 = 12 * MONTH_DAYS;

/// Last year that a caller may name.
const YEAR_MAX: i32 = 9_999;

/// Moon by day of the month: last day of a phase, and its name.
const MOON: [(i32, &str); 9] = [
    (3, "new"),
    (7, "crescent"),
    (10, "half"),
    (14, "gibbous"),
    (17, "full"),
    (21, "gibbous"),
    (24, "half"),
    (28, "crescent"),
    (30, "new"),
];

/// `time_manager.v1.GameTime`. The three texts are derived, and ignored on input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct GameTime {
    pub(super) year: i32,
    pub(super) month: i32,
    pub(super) day: i32,
    pub(super) hour: i32,
    pub(super) minute: i32,
    pub(super) second: i32,
    pub(super) time_of_day: String,
    pub(super) moon_phase: String,
    pub(super) season: String,
}

impl GameTime {
    /// The time that lies `game_ms` behind the start of year 1.
    pub(super) fn at(game_ms: i64) -> GameTime {
        let (days, rest) = (game_ms.div_euclid(DAY_MS), game_ms.rem_euclid(DAY_MS));
        let part = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
        let day_of_year = days.rem_euclid(YEAR_DAYS);
        let (month, day, hour) =
            (part(day_of_year / MONTH_DAYS + 1), part(day_of_year % MONTH_DAYS + 1), part(rest / HOUR_MS));
        GameTime {
            year: part(days.div_euclid(YEAR_DAYS) + 1),
            month,
            day,
            hour,
            minute: part(rest / MINUTE_MS % 60),
            second: part(rest / 1_000 % 60),
            time_of_day: time_of_day(hour).to_owned(),
            moon_phase: MOON.iter().find(|(last, _)| day <= *last).map_or("new", |(_, phase)| phase).to_owned(),
            season: season(month).to_owned(),
        }
    }

    /// Milliseconds from the start of year 1.
    pub(super) fn game_ms(&self) -> i64 {
        let [year, month, day, hour, minute, second] =
            [self.year, self.month, self.day, self.hour, self.minute, self.second].map(i64::from);
        let days = (year - 1) * YEAR_DAYS + (month - 1) * MONTH_DAYS + day - 1;
        days * DAY_MS + hour * HOUR_MS + minute * MINUTE_MS + second * 1_000
    }

    /// Refuses what is in no calendar; `field` is where the time stands in the request.
    pub(super) fn check(&self, field: &str) -> Result<(), Fault> {
        let parts: [(&str, i32, RangeInclusive<i32>); 6] = [
            ("year", self.year, 1..=YEAR_MAX),
            ("month", self.month, 1..=12),
            ("day", self.day, 1..=30),
            ("hour", self.hour, 0..=23),
            ("minute", self.minute, 0..=59),
            ("second", self.second, 0..=59),
        ];
        match parts.into_iter().find(|(_, value, range)| !range.contains(value)) {
            None => Ok(()),
            Some((name, _, range)) => Err(out_of_range(&format!("{field}.{name}"), range.start(), range.end())),
        }
    }

    /// As ISO 8601 writes times.
    pub(super) fn iso(&self) -> String {
        let GameTime { year, month, day, hour, minute, second, .. } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

impl From<&settings::GameTime> for GameTime {
    fn from(time: &settings::GameTime) -> GameTime {
        let part = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        GameTime {
            year: part(time.year),
            month: part(time.month),
            day: part(time.day),
            hour: part(time.hour),
            minute: part(time.minute),
            second: part(time.second),
            ..GameTime::default()
        }
    }
}

fn time_of_day(hour: i32) -> &'static str {
    match hour {
        0 => "midnight",
        5..=6 => "dawn",
        7..=11 => "morning",
        12 => "noon",
        13..=17 => "afternoon",
        18..=19 => "dusk",
        _ => "night",
    }
}

fn season(month: i32) -> &'static str {
    match month {
        3..=5 => "spring",
        6..=8 => "summer",
        9..=11 => "fall",
        _ => "winter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_vector_holds() {
        let time = GameTime::at(30_600_000);
        assert_eq!(time.iso(), "0001-01-01T08:30:00");
        let texts = [&time.time_of_day, &time.moon_phase, &time.season].map(String::as_str);
        assert_eq!(texts, ["morning", "new", "winter"]);
    }

    #[test]
    fn a_time_comes_back_as_it_was() {
        for second in (0..20_000_000_000).step_by(987_654_321) {
            assert_eq!(GameTime::at(second * 1_000).game_ms(), second * 1_000);
        }
    }

    #[test]
    fn hours_days_and_months_have_their_names() {
        let at = |month, day, hour| {
            let time = GameTime { year: 3, month, day, hour, ..GameTime::default() };
            let time = GameTime::at(time.game_ms());
            [time.time_of_day, time.moon_phase, time.season].join(" ")
        };
        for (month, day, hour, expected) in [
            (2, 3, 0, "midnight new winter"),
            (3, 4, 4, "night crescent spring"),
            (5, 10, 6, "dawn half spring"),
            (6, 14, 11, "morning gibbous summer"),
            (8, 15, 12, "noon full summer"),
            (9, 21, 17, "afternoon gibbous fall"),
            (11, 24, 19, "dusk half fall"),
            (12, 28, 20, "night crescent winter"),
            (12, 30, 23, "night new winter"),
        ] {
            assert_eq!(at(month, day, hour), expected);
        }
    }
}
