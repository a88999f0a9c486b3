//! The weather record of a zone: what holds since when, and how it goes on. Replicas that advance it do the same.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::chain::{Place, decimals};
use super::conditions::{Kind, Season, Values};
use super::season::WorldSeason;

pub(super) const MINUTE_MS: i64 = 60_000;
pub(super) const DAY_MINUTES: i64 = 24 * 60;
/// A record that lies further back begins anew.
const OLD_MINUTES: i64 = 7 * DAY_MINUTES;
/// Changes kept for watches.
const CHANGES_MAX: usize = 100;

/// Why a condition changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    Natural,
    Set,
    Season,
}

impl Cause {
    pub(super) fn name(self) -> &'static str {
        match self {
            Cause::Natural => "natural",
            Cause::Set => "set",
            Cause::Season => "season",
        }
    }
}

/// The weather of a zone. Minutes are whole ones since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Zone {
    pub(super) tenant: String,
    pub(super) world_id: String,
    pub(super) zone_id: String,
    pub(super) kind: Kind,
    /// When the condition began.
    pub(super) minute: i64,
    /// Season that the chain runs by.
    pub(super) season: Season,
    /// From where the chain counts how long the condition has held.
    since: i64,
    /// Up to where the chain has been walked for good.
    settled: i64,
    pub(super) set: Option<Set>,
    /// When somebody last read it, milliseconds since 1970; not kept to the minute.
    pub(super) read_ms: i64,
    /// Time of the last dawn or dusk that changed it.
    pub(super) rolled_ms: i64,
    /// Revision of its first record, known once that is written over; 0 until then.
    #[serde(default)]
    began: u64,
    pub(super) changes: VecDeque<Past>,
}

/// Weather that was set: it holds until a minute, then the chain goes on from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Set {
    pub(super) values: Values,
    pub(super) end_minute: i64,
    pub(super) transition: Option<Transition>,
}

/// The way from the weather before to the weather that was set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Transition {
    pub(super) from: Values,
    pub(super) from_kind: Kind,
    pub(super) start_ms: i64,
    pub(super) length_ms: i64,
}

/// A change of a zone's condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) minute: i64,
    pub(super) kind: Kind,
    pub(super) previous: Kind,
    pub(super) cause: Cause,
    pub(super) season: Season,
    /// Its numbers, where they were set.
    pub(super) values: Option<Values>,
    /// Revision of the record before the change was written.
    pub(super) after: u64,
}

/// The weather at a moment.
pub(super) struct Shown {
    pub(super) kind: Kind,
    pub(super) values: Values,
    /// When the next change comes, searched a day ahead.
    pub(super) next_minute: i64,
}

impl Zone {
    /// A zone that begins now.
    pub(super) fn new(place: &Place<'_>, season: Season, now_ms: i64) -> Zone {
        let minute = now_ms.div_euclid(MINUTE_MS);
        Zone {
            tenant: place.tenant.to_owned(),
            world_id: place.world_id.to_owned(),
            zone_id: place.zone_id.to_owned(),
            kind: season.start(),
            minute,
            season,
            since: minute,
            settled: minute,
            set: None,
            read_ms: now_ms,
            rolled_ms: 0,
            began: 0,
            changes: VecDeque::new(),
        }
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { tenant: &self.tenant, world_id: &self.world_id, zone_id: &self.zone_id }
    }

    /// Revision of the first record of a zone whose record has this one.
    pub(super) fn began(&self, revision: u64) -> u64 {
        if self.began == 0 { revision } else { self.began }
    }

    /// Walks the chain up to now; gives the changes on the way. `after` is the record's revision.
    pub(super) fn advance(&mut self, season: &WorldSeason, now_ms: i64, after: u64) -> Vec<Past> {
        let (now, mut changes) = (now_ms.div_euclid(MINUTE_MS), Vec::new());
        self.began = self.began(after);
        if let Some(set) = &self.set {
            if now < set.end_minute {
                return changes;
            }
            (self.since, self.settled) = (set.end_minute, set.end_minute);
            self.set = None;
        }
        if now - self.settled > OLD_MINUTES && now - self.minute > OLD_MINUTES {
            self.season = season.season;
            self.settled = now;
            let kind = self.season.start();
            changes.extend((kind != self.kind).then(|| self.change(kind, now, Cause::Natural, after)));
            (self.minute, self.since) = (now, now);
            return changes;
        }
        loop {
            let is_other = self.season != season.season;
            let until = if is_other { season.since_minute.min(now) } else { now };
            let next = self.place().next_change(self.season, self.kind, self.since, (self.settled, until));
            if let Some((minute, kind)) = next {
                changes.push(self.change(kind, minute, Cause::Natural, after));
            } else if is_other {
                self.settled = self.settled.max(until);
                self.season = season.season;
                if !self.season.allows(self.kind) {
                    changes.push(self.change(self.season.start(), self.settled, Cause::Season, after));
                }
            } else {
                return changes;
            }
        }
    }

    /// Another condition from a minute on.
    pub(super) fn change(&mut self, kind: Kind, minute: i64, cause: Cause, after: u64) -> Past {
        let previous = std::mem::replace(&mut self.kind, kind);
        (self.minute, self.since, self.settled) = (minute, minute, minute);
        let values = self.set.as_ref().map(|set| set.values.clone());
        let past = Past { minute, kind, previous, cause, season: self.season, values, after };
        self.changes.push_back(past.clone());
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
        }
        past
    }

    /// The weather now; the record has been advanced.
    pub(super) fn shown(&self, now_ms: i64) -> Shown {
        let now = now_ms.div_euclid(MINUTE_MS);
        let Some(set) = &self.set else {
            let next_minute = self.next_minute(now);
            let values = self.place().values(self.season, self.kind, now);
            return Shown { kind: self.kind, values, next_minute };
        };
        let next_minute = set.end_minute;
        match &set.transition {
            Some(way) if now_ms < way.start_ms + way.length_ms => {
                let part = (now_ms - way.start_ms).max(0) as f64 / way.length_ms as f64;
                let kind = if part < 0.5 { way.from_kind } else { self.kind };
                Shown { kind, values: between(&way.from, &set.values, part), next_minute }
            }
            _ => Shown { kind: self.kind, values: set.values.clone(), next_minute },
        }
    }

    /// When the condition changes next, or a day ahead.
    pub(super) fn next_minute(&self, now: i64) -> i64 {
        let until = now + DAY_MINUTES;
        let window = (self.settled.max(now), until);
        self.place().next_change(self.season, self.kind, self.since, window).map_or(until, |(minute, _)| minute)
    }
}

/// Numbers on their way from some to others.
fn between(from: &Values, to: &Values, part: f64) -> Values {
    let at = |from: f64, to: f64, count: i32| decimals(from + (to - from) * part, count);
    Values {
        intensity: at(from.intensity, to.intensity, 3),
        temperature_c: at(from.temperature_c, to.temperature_c, 1),
        wind_kmh: at(from.wind_kmh, to.wind_kmh, 1),
        humidity: at(from.humidity, to.humidity, 3),
        visibility_m: at(from.visibility_m, to.visibility_m, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 29_000_000;

    fn zone(season: Season) -> Zone {
        Zone::new(&Place { tenant: "", world_id: "w1", zone_id: "docks" }, season, START * MINUTE_MS)
    }

    fn season(season: Season, since_minute: i64) -> WorldSeason {
        WorldSeason { season, since_minute, told_ms: 0 }
    }

    #[test]
    fn small_steps_and_one_large_step_arrive_at_the_same_weather() {
        let spring = season(Season::Spring, 0);
        let (mut small, mut large) = (zone(Season::Spring), zone(Season::Spring));
        for minute in START..=START + 300 {
            small.advance(&spring, minute * MINUTE_MS, 1);
        }
        assert_eq!(large.advance(&spring, (START + 300) * MINUTE_MS, 1).len(), small.changes.len());
        assert_eq!((large.kind, large.minute), (small.kind, small.minute));
        assert_eq!(large.changes, small.changes);
    }

    #[test]
    fn a_season_that_knows_no_such_condition_begins_with_its_own() {
        let mut zone = zone(Season::Winter);
        zone.change(Kind::Blizzard, START, Cause::Natural, 1);
        let changes = zone.advance(&season(Season::Spring, START), (START + 1) * MINUTE_MS, 1);
        assert_eq!((changes[0].kind, changes[0].cause), (Kind::PartlyCloudy, Cause::Season));
        assert_eq!(changes[0].previous, Kind::Blizzard);
    }

    #[test]
    fn what_lies_a_week_back_begins_anew() {
        let mut zone = zone(Season::Spring);
        zone.change(Kind::Storm, START, Cause::Natural, 1);
        let later = START + OLD_MINUTES + 1;
        let changes = zone.advance(&season(Season::Spring, 0), later * MINUTE_MS, 1);
        assert_eq!((changes.len(), zone.kind, zone.minute), (1, Kind::PartlyCloudy, later));
    }

    #[test]
    fn a_transition_moves_the_numbers_and_switches_at_half_time() {
        let mut zone = zone(Season::Winter);
        let from = Kind::Cloudy.values(Season::Winter);
        let values = Kind::Blizzard.values(Season::Winter);
        let start_ms = START * MINUTE_MS;
        let transition = Some(Transition { from, from_kind: Kind::Cloudy, start_ms, length_ms: 100_000 });
        zone.set = Some(Set { values, end_minute: START + 60, transition });
        zone.change(Kind::Blizzard, START, Cause::Set, 1);
        let at = |ms: i64| {
            let shown = zone.shown(start_ms + ms);
            (shown.kind, shown.values.intensity, shown.values.wind_kmh)
        };
        assert_eq!(at(0), (Kind::Cloudy, 0.4, 10.0));
        assert_eq!(at(49_999), (Kind::Cloudy, 0.7, 35.0));
        assert_eq!(at(50_000), (Kind::Blizzard, 0.7, 35.0));
        assert_eq!(at(100_000), (Kind::Blizzard, 1.0, 60.0));
    }
}
