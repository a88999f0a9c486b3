//! What a mode comes to: presets, overrides over them, budgets and their defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::services::checks::{out_of_range, unknown_value};

/// The modes from the lowest to the highest, with their quality.
pub(super) const MODES: [(&str, f64); 4] = [("low", 0.3), ("medium", 0.5), ("high", 0.7), ("ultra", 1.0)];
/// The mode of a player who was never seen.
pub(super) const DEFAULT: usize = 1;
/// What a request may say.
pub(super) const WORDS: [&str; 5] = ["ultra", "high", "medium", "low", "auto"];

/// Overrides and their ranges.
const OVERRIDES: [(&str, i32, i32); 10] = [
    ("target_fps", 30, 360),
    ("ai_quality", 0, 100),
    ("render_quality", 0, 100),
    ("ai_update_rate_millihz", 200, 10_000),
    ("max_active_npcs", 1, 200),
    ("culling_permille", 0, 1_000),
    ("detail_permille", 0, 1_000),
    ("internal_resolution_percent", 50, 100),
    ("competitive", 0, 1),
    ("dynamic_scaling", 0, 1),
];

/// A kind of budget: unit-less range, and the defaults of the immersive and the competitive class.
pub(super) struct BudgetKind {
    pub(super) name: &'static str,
    pub(super) min: i32,
    pub(super) max: i32,
    defaults: [i32; 2],
}

/// Frame time in µs, memory in MB, processor and graphics in percent.
pub(super) const BUDGETS: [BudgetKind; 4] = [
    BudgetKind { name: "frame_time", min: 1_000, max: 100_000, defaults: [16_670, 3_330] },
    BudgetKind { name: "memory", min: 256, max: 65_536, defaults: [8_192, 6_144] },
    BudgetKind { name: "cpu", min: 1, max: 100, defaults: [80, 90] },
    BudgetKind { name: "gpu", min: 1, max: 100, defaults: [90, 95] },
];

impl BudgetKind {
    /// The budget where nobody has set one.
    pub(super) fn default(&self, is_competitive: bool) -> i32 {
        self.defaults[usize::from(is_competitive)]
    }
}

/// `performance_mode.v1.PerformanceSettings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) mode: String,
    pub(super) target_fps: i32,
    ai_quality: i32,
    render_quality: i32,
    enable_dynamic_scaling: bool,
    custom_settings: BTreeMap<String, i32>,
}

/// What is in force for a player.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Applied {
    /// Index in [`MODES`].
    pub(super) mode: usize,
    /// The mode follows the samples.
    pub(super) is_auto: bool,
    pub(super) overrides: BTreeMap<String, i32>,
    /// When the mode changed, milliseconds since 1970; 0 where it never did.
    pub(super) switched_ms: i64,
    /// `request`, `auto` or `budget`.
    pub(super) cause: String,
}

impl Default for Applied {
    fn default() -> Applied {
        let (overrides, cause) = (BTreeMap::new(), "request".to_owned());
        Applied { mode: DEFAULT, is_auto: false, overrides, switched_ms: 0, cause }
    }
}

impl Applied {
    pub(super) fn name(&self) -> &'static str {
        MODES[self.mode].0
    }

    pub(super) fn is_competitive(&self) -> bool {
        self.overrides.get("competitive") == Some(&1)
    }

    /// The settings that clients apply.
    pub(super) fn settings(&self) -> Settings {
        let (mode, quality) = MODES[self.mode];
        let percent = (quality * 100.0) as i32;
        let is_competitive = self.is_competitive();
        let mut custom: BTreeMap<String, i32> = [
            ("ai_update_rate_millihz", if is_competitive { 10_000 } else { thousandths(2.0 + 8.0 * quality) }),
            ("max_active_npcs", if is_competitive { 50 } else { (30.0 + 70.0 * quality).round() as i32 }),
            ("culling_permille", if is_competitive { 900 } else { thousandths(0.3 + 0.6 * (1.0 - quality)) }),
            ("detail_permille", thousandths(quality)),
            ("internal_resolution_percent", if is_competitive { 50 } else { 100 }),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        custom.extend(self.overrides.clone());
        if self.is_auto {
            custom.insert("auto".to_owned(), 1);
        }
        let over = |name: &str, value: i32| self.overrides.get(name).copied().unwrap_or(value);
        Settings {
            mode: mode.to_owned(),
            target_fps: over("target_fps", if is_competitive { 300 } else { 90 }),
            ai_quality: over("ai_quality", percent),
            render_quality: over("render_quality", if is_competitive { 30 } else { percent }),
            enable_dynamic_scaling: over("dynamic_scaling", i32::from(self.is_auto || is_competitive)) == 1,
            custom_settings: custom,
        }
    }
}

fn thousandths(value: f64) -> i32 {
    (value * 1_000.0).round() as i32
}

/// Refuses overrides that there are not, or that are out of their range.
pub(super) fn check_overrides(overrides: &BTreeMap<String, i32>) -> Result<(), Fault> {
    for (name, value) in overrides {
        let field = format!("custom_settings.{name}");
        let Some((_, min, max)) = OVERRIDES.iter().find(|row| row.0 == name) else {
            let names = OVERRIDES.map(|row| row.0);
            return Err(unknown_value(&field, format!("there is no setting {name}"), &names));
        };
        if !(min..=max).contains(&value) {
            return Err(out_of_range(&field, min, max));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_those_of_the_table() {
        let row = |mode: usize| {
            let settings = Applied { mode, ..Applied::default() }.settings();
            let custom = |name: &str| settings.custom_settings[name];
            let (rate, npcs, culling) =
                (custom("ai_update_rate_millihz"), custom("max_active_npcs"), custom("culling_permille"));
            (settings.target_fps, settings.ai_quality, settings.render_quality, rate, npcs, culling)
        };
        assert_eq!(row(0), (90, 30, 30, 4_400, 51, 720));
        assert_eq!(row(1), (90, 50, 50, 6_000, 65, 600));
        assert_eq!(row(2), (90, 70, 70, 7_600, 79, 480));
        assert_eq!(row(3), (90, 100, 100, 10_000, 100, 300));
    }
}
