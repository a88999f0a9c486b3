//! The clock of a world: an anchor and a scale. Game time is computed from them and never ticked, so it cannot drift.

use serde::{Deserialize, Serialize};

use super::calendar::{GameTime, HOUR_MS};
use crate::services::settings::TimeManager;

/// Real milliseconds that a gradual change takes.
const SLEW_MS: i64 = 60 * 1_000;
/// Products and quotients of scales that should be whole are so but for the last bits.
const TINY: f64 = 1e-6;

/// A world's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Clock {
    pub(super) tenant: String,
    pub(super) world_id: String,
    anchor_real_ms: i64,
    anchor_game_ms: i64,
    /// Game seconds of one real second.
    scale: f64,
    /// Raised by every setting.
    pub(super) epoch: u64,
    slew: Option<Slew>,
    /// Hour in which the world began: nobody is told of it.
    pub(super) first_hour: i64,
}

/// Until then the clock runs linearly towards that time, and at its scale behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Slew {
    until_real_ms: i64,
    until_game_ms: i64,
}

impl Clock {
    /// The clock of a world that begins now.
    pub(super) fn new(tenant: &str, world_id: &str, now_ms: i64, settings: &TimeManager) -> Clock {
        let anchor_game_ms = GameTime::from(&settings.start).game_ms();
        Clock {
            tenant: tenant.to_owned(),
            world_id: world_id.to_owned(),
            anchor_real_ms: now_ms,
            anchor_game_ms,
            scale: settings.scale,
            epoch: 0,
            slew: None,
            first_hour: anchor_game_ms.div_euclid(HOUR_MS),
        }
    }

    /// Game milliseconds since the start of year 1.
    pub(super) fn game_at(&self, now_ms: i64) -> i64 {
        let (from_real_ms, from_game_ms, scale) = self.leg(|slew| now_ms <= slew.until_real_ms);
        let passed = ((now_ms - from_real_ms) as f64 * scale + TINY).floor() as i64;
        (from_game_ms + passed).max(0)
    }

    /// When it will be that game time, or when it was.
    pub(super) fn real_at(&self, game_ms: i64) -> i64 {
        let (from_real_ms, from_game_ms, scale) = self.leg(|slew| game_ms <= slew.until_game_ms);
        from_real_ms + ((game_ms - from_game_ms) as f64 / scale - TINY).ceil() as i64
    }

    /// Game seconds of one real second, as they are now.
    pub(super) fn scale_at(&self, now_ms: i64) -> f64 {
        self.leg(|slew| now_ms <= slew.until_real_ms).2
    }

    /// Where the stretch of time begins that the clock is in, real and game, and how fast it runs there.
    fn leg(&self, is_slewing: impl Fn(&Slew) -> bool) -> (i64, i64, f64) {
        match &self.slew {
            Some(slew) if is_slewing(slew) => {
                let scale = (slew.until_game_ms - self.anchor_game_ms) as f64 / SLEW_MS as f64;
                (self.anchor_real_ms, self.anchor_game_ms, scale)
            }
            Some(slew) => (slew.until_real_ms, slew.until_game_ms, self.scale),
            None => (self.anchor_real_ms, self.anchor_game_ms, self.scale),
        }
    }

    /// The same clock set to another time, at once or within a minute, and to another scale where one is given.
    pub(super) fn set(&self, now_ms: i64, target_ms: i64, is_gradual: bool, scale: Option<f64>) -> Clock {
        let scale = scale.unwrap_or(self.scale);
        let gained_ms = (SLEW_MS as f64 * scale).floor() as i64;
        Clock {
            anchor_real_ms: now_ms,
            anchor_game_ms: if is_gradual { self.game_at(now_ms) } else { target_ms },
            scale,
            epoch: self.epoch + 1,
            slew: is_gradual.then_some(Slew { until_real_ms: now_ms + SLEW_MS, until_game_ms: target_ms + gained_ms }),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Settings;

    const NOW_MS: i64 = 1_760_000_000_000;

    fn clock() -> Clock {
        Clock::new("", "w1", NOW_MS, &Settings::default().time_manager)
    }

    #[test]
    fn a_game_hour_passes_in_a_real_minute() {
        assert_eq!(clock().game_at(NOW_MS), 7 * HOUR_MS);
        assert_eq!(clock().game_at(NOW_MS + 90_000), 8 * HOUR_MS + HOUR_MS / 2);
        assert_eq!(clock().real_at(12 * HOUR_MS), NOW_MS + 300_000);
    }

    #[test]
    fn a_gradual_change_arrives_after_a_minute_and_goes_on_at_its_scale() {
        let set = clock().set(NOW_MS, 20 * HOUR_MS, true, None);
        assert_eq!(set.game_at(NOW_MS), 7 * HOUR_MS);
        assert_eq!(set.game_at(NOW_MS + 30_000), 14 * HOUR_MS);
        assert_eq!(set.game_at(NOW_MS + 60_000), 21 * HOUR_MS);
        assert_eq!(set.game_at(NOW_MS + 120_000), 22 * HOUR_MS);
        assert_eq!((set.scale_at(NOW_MS), set.scale_at(NOW_MS + 60_001)), (840.0, 60.0));
        assert_eq!(set.real_at(14 * HOUR_MS), NOW_MS + 30_000);
        assert_eq!(set.real_at(22 * HOUR_MS), NOW_MS + 120_000);
    }

    #[test]
    fn a_time_comes_at_the_first_millisecond_that_has_it() {
        for scale in [0.01, 0.29, 1.0, 7.3, 60.0, 3_599.9] {
            let set = clock().set(NOW_MS, 0, false, Some(scale));
            for game_ms in [1, 999, HOUR_MS, 17 * HOUR_MS + 1] {
                let real_ms = set.real_at(game_ms);
                assert!(set.game_at(real_ms) >= game_ms && set.game_at(real_ms - 1) < game_ms, "{scale} {game_ms}");
            }
        }
    }
}
