//! The known keys of players' settings: type, default, and what a value may be.

use crate::fault::{Code, Fault};
use crate::services::checks::{invalid, out_of_range, unknown_value};

/// Most bytes of a key and of a value outside of the table.
const KEY_MAX: usize = 64;
const VALUE_MAX: usize = 4 * 1024;
/// Prefix of keys for single actions.
const ACTION_KEY: &str = "controls.key.";

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Float {
        min: f64,
        max: f64,
    },
    Int {
        min: i32,
        max: i32,
    },
    /// One of these numbers.
    OneOf(&'static [i32]),
    Bool,
    /// One of these texts; any text where there are none.
    Text(&'static [&'static str]),
}

/// A key of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
}

const fn float(key: &'static str, default: &'static str, min: f64, max: f64) -> Known {
    Known { key, kind: Kind::Float { min, max }, default }
}

const fn int(key: &'static str, default: &'static str, min: i32, max: i32) -> Known {
    Known { key, kind: Kind::Int { min, max }, default }
}

const fn bool(key: &'static str, default: &'static str) -> Known {
    Known { key, kind: Kind::Bool, default }
}

const fn text(key: &'static str, default: &'static str, values: &'static [&'static str]) -> Known {
    Known { key, kind: Kind::Text(values), default }
}

const LEVELS: &[&str] = &["low", "medium", "high"];

/// Codes of the languages that subtitles may have.
const LANGUAGES: &[&str] =
    &["common", "en", "fr", "es", "it", "vampire", "werewolf", "zombie", "ghoul", "lich", "music"];

/// The table, in order of keys.
pub(super) const KNOWN: &[Known] = &[
    text("accessibility.color_blind_mode", "none", &["none", "protanopia", "deuteranopia", "tritanopia"]),
    bool("accessibility.high_contrast_mode", "false"),
    float("accessibility.motion_sensitivity", "1", 0.0, 1.0),
    bool("accessibility.screen_reader_enabled", "false"),
    bool("accessibility.subtitles_always_on", "false"),
    bool("accessibility.subtitles_enabled", "true"),
    float("accessibility.text_scaling", "1", 0.5, 3.0),
    text("account.tier", "free", &["free", "premium", "whale"]),
    float("audio.master_volume", "1", 0.0, 1.0),
    float("audio.music_volume", "0.8", 0.0, 1.0),
    text("audio.quality", "medium", LEVELS),
    float("audio.sfx_volume", "1", 0.0, 1.0),
    bool("audio.show_original_language", "false"),
    text("audio.subtitle_language", "common", LANGUAGES),
    float("audio.voice_volume", "1", 0.0, 1.0),
    int("content.drugs_substances", "2", 0, 4),
    int("content.horror_intensity", "2", 0, 4),
    int("content.language_profanity", "2", 0, 4),
    int("content.moral_complexity", "2", 0, 4),
    int("content.sensitive_themes", "2", 0, 4),
    int("content.sexual_content_nudity", "2", 0, 4),
    int("content.violence_gore", "2", 0, 4),
    bool("controls.controller_enabled", "false"),
    bool("controls.invert_y_axis", "false"),
    float("controls.mouse_sensitivity", "1", 0.1, 10.0),
    bool("controls.mouse_smoothing", "false"),
    Known { key: "video.frame_rate_limit", kind: Kind::OneOf(&[0, 30, 60, 120]), default: "60" },
    bool("video.lumen_enabled", "true"),
    bool("video.nanite_enabled", "true"),
    bool("video.post_processing", "true"),
    text("video.quality_preset", "medium", &["low", "medium", "high", "ultra"]),
    bool("video.ray_tracing_enabled", "false"),
    int("video.resolution_x", "1920", 640, 7_680),
    int("video.resolution_y", "1080", 480, 4_320),
    text("video.shadow_quality", "medium", LEVELS),
    text("video.texture_quality", "medium", LEVELS),
    bool("video.vsync", "true"),
    text("video.window_mode", "fullscreen", &["windowed", "fullscreen", "borderless"]),
];

/// A key of an action, whatever the action is called.
const ACTION: Known = text(ACTION_KEY, "", &[]);

/// The row of a key.
pub(super) fn known(key: &str) -> Option<Known> {
    if key.strip_prefix(ACTION_KEY).is_some_and(|action| !action.is_empty()) {
        return Some(ACTION);
    }
    KNOWN.binary_search_by(|row| row.key.cmp(key)).ok().map(|index| KNOWN[index])
}

/// True for keys that nobody can write.
pub(super) fn is_computed(key: &str) -> bool {
    key.starts_with("limits.") || key.starts_with("features.")
}

/// True for keys that only admins write.
pub(super) fn is_for_admins(key: &str) -> bool {
    key == "account.tier"
}

impl Kind {
    /// Its name in `value_type`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Float { .. } => "float",
            Kind::Int { .. } | Kind::OneOf(_) => "int",
            Kind::Bool => "bool",
            Kind::Text(_) => "string",
        }
    }

    /// The type of a key outside of the table.
    pub(super) fn of_name(name: &str) -> Option<Kind> {
        match name {
            "" | "string" => Some(Kind::Text(&[])),
            "int" => Some(Kind::Int { min: i32::MIN, max: i32::MAX }),
            "bool" => Some(Kind::Bool),
            "float" => Some(Kind::Float { min: f64::MIN, max: f64::MAX }),
            _ => None,
        }
    }

    /// A value in its canonical form. `field` is where it stands in the request.
    pub(super) fn canonical(self, key: &str, field: &str, value: &str) -> Result<String, Fault> {
        let bad = |what: &str| invalid(field, "bad_format", format!("{key} must be {what}"));
        match self {
            Kind::Float { min, max } => {
                let number: f64 = Some(value)
                    .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte)))
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| bad("a decimal number"))?;
                if !(min..=max).contains(&number) {
                    return Err(range(field, key, min, max));
                }
                // Not `-0`, which is the same number.
                Ok((number + 0.0).to_string())
            }
            Kind::Int { min, max } => {
                let number: i32 = value.parse().map_err(|_| bad("a whole number"))?;
                if (min..=max).contains(&number) { Ok(number.to_string()) } else { Err(range(field, key, min, max)) }
            }
            Kind::OneOf(numbers) => {
                let number: i32 = value.parse().map_err(|_| bad("a whole number"))?;
                if numbers.contains(&number) {
                    return Ok(number.to_string());
                }
                let allowed: Vec<String> = numbers.iter().map(i32::to_string).collect();
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                Err(unknown_value(field, format!("{key} must be one of {}", allowed.join(", ")), &allowed))
            }
            Kind::Bool => match value.to_ascii_lowercase().as_str() {
                "true" => Ok("true".to_owned()),
                "false" => Ok("false".to_owned()),
                _ => Err(bad("true or false")),
            },
            Kind::Text([]) if value.len() > VALUE_MAX => {
                Err(invalid(field, "too_long", format!("{key} has more than {VALUE_MAX} bytes")))
            }
            Kind::Text([]) => Ok(value.to_owned()),
            Kind::Text(values) => {
                let found = values.iter().find(|allowed| allowed.eq_ignore_ascii_case(value));
                found
                    .map(|value| (*value).to_owned())
                    .ok_or_else(|| unknown_value(field, format!("{key} must be one of {}", values.join(", ")), values))
            }
        }
    }
}

fn range(field: &str, key: &str, min: impl std::fmt::Display, max: impl std::fmt::Display) -> Fault {
    let fault = out_of_range(field, &min, &max);
    let text = format!("{key} must be {min} to {max}");
    fault
        .details()
        .iter()
        .fold(Fault::client(Code::OutOfRange, text), |fault, (name, value)| fault.detail(name.clone(), value.clone()))
}

/// True for a key outside of the table that may be kept.
pub(super) fn is_key(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_defaults_are_canonical() {
        assert!(KNOWN.is_sorted_by_key(|row| row.key));
        for row in KNOWN {
            assert_eq!(row.kind.canonical(row.key, "value", row.default).unwrap(), row.default, "{}", row.key);
        }
    }

    #[test]
    fn values_lose_what_says_nothing() {
        let canonical = |key: &str, value: &str| known(key).unwrap().kind.canonical(key, "f", value).unwrap();
        assert_eq!(canonical("audio.music_volume", "0.50"), "0.5");
        assert_eq!(canonical("audio.music_volume", "-0.0"), "0");
        assert_eq!(canonical("video.vsync", "TRUE"), "true");
        assert_eq!(canonical("video.quality_preset", "Ultra"), "ultra");
        assert_eq!(canonical("controls.key.jump", "Space"), "Space");
    }
}
