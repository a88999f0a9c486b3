//! Section `time-manager`.

use super::Keys;

/// Game time.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeManager {
    /// Game seconds of one real second in new worlds.
    pub scale: f64,
    /// First game time of new worlds.
    pub start: GameTime,
    /// Waiting schedules of a tenant.
    pub max_schedules: usize,
}

/// A moment of the game's calendar: 12 months of 30 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GameTime {
    /// From 1.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 30.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
}

impl TimeManager {
    pub(super) fn read(keys: &mut Keys) -> TimeManager {
        let first = GameTime { year: 1, month: 1, day: 1, hour: 7, minute: 0, second: 0 };
        let start = keys.key("start", "first game time of new worlds, year/month/day and time").text("1/1/1 07:00:00");
        let parsed = GameTime::parse(&start);
        if parsed.is_none() {
            keys.problem("start", format!("expected a game time such as `1/1/1 07:00:00`, found `{start}`"));
        }
        TimeManager {
            scale: keys.key("scale", "game seconds of one real second in new worlds").real(60.0, 0.01..=3_600.0),
            start: parsed.unwrap_or(first),
            max_schedules: keys.key("max_schedules", "waiting schedules of a tenant").count(10_000, 1..=10_000_000)
                as usize,
        }
    }
}

impl GameTime {
    /// `year/month/day hour:minute:second`.
    fn parse(text: &str) -> Option<GameTime> {
        let (date, time) = text.split_once(' ')?;
        let [year, month, day] = three(date, '/')?;
        let [hour, minute, second] = three(time, ':')?;
        let is_good = (1..=1_000_000).contains(&year)
            && (1..=12).contains(&month)
            && (1..=30).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        is_good.then_some(GameTime { year, month, day, hour, minute, second })
    }
}

fn three(text: &str, between: char) -> Option<[u32; 3]> {
    let parts: Result<Vec<u32>, _> = text.split(between).map(str::parse).collect();
    parts.ok()?.try_into().ok()
}
