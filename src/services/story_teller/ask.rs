//! Requests for stories: checked, with everything that they left open filled in.

use std::collections::BTreeMap;

use super::super::checks::{invalid, out_of_range, required, texts, unknown_value};
use super::super::seed::{Part, canonical_json, seed, tenant_part};
use super::judge;
use super::messages::{Asked, Generation};
use super::tables::{STORY_TYPES, StoryType};
use crate::fault::Fault;
use crate::worker::types::{Struct, Value};

const LENGTH_MAX: i32 = 20_000;
const MIN_LENGTH: i32 = 200;
const MAX_LENGTH: i32 = 1_200;
const THEMES_MAX: usize = 8;
/// Longest theme and tone in characters.
const WORD_MAX: usize = 32;
const ALTERNATIVES_MAX: u64 = 3;

/// Checks a request; its first fault in the order of fields.
pub(super) fn check(request: &Generation) -> Result<Asked, Fault> {
    let names = STORY_TYPES.each_ref().map(|row| row.name);
    if request.story_type.is_empty() {
        return Err(required("story_type"));
    }
    let Some(story_type) = names.into_iter().find(|name| name.eq_ignore_ascii_case(&request.story_type)) else {
        let text = "story_type must be quest, dialogue, lore or cutscene";
        return Err(unknown_value("story_type", text, &names));
    };
    texts("context", &request.context)?;
    alternatives(&request.context)?;
    given_seed(&request.context)?;
    judge::check(&request.context)?;
    if request.themes.len() > THEMES_MAX {
        return Err(invalid("themes", "too_many", format!("at most {THEMES_MAX} themes")));
    }
    for theme in &request.themes {
        if theme.is_empty() {
            return Err(required("themes"));
        }
        check_word("themes", "a theme", theme)?;
    }
    for (field, length) in [("min_length", request.min_length), ("max_length", request.max_length)] {
        if !(0..=LENGTH_MAX).contains(&length) {
            return Err(out_of_range(field, 1, LENGTH_MAX));
        }
    }
    let min_length = if request.min_length == 0 { MIN_LENGTH } else { request.min_length };
    let max_length = if request.max_length == 0 { MAX_LENGTH.max(min_length) } else { request.max_length };
    if min_length > max_length {
        return Err(invalid("max_length", "conflicting_fields", "min_length is above max_length"));
    }
    check_word("tone", "tone", &request.tone)?;
    Ok(Asked {
        story_type: story_type.to_owned(),
        context: request.context.clone(),
        themes: request.themes.clone(),
        min_length: min_length as usize,
        max_length: max_length as usize,
        tone: if request.tone.is_empty() { "dark".to_owned() } else { request.tone.clone() },
    })
}

fn check_word(field: &str, name: &str, word: &str) -> Result<(), Fault> {
    match word.chars().count() <= WORD_MAX {
        true => Ok(()),
        false => Err(invalid(field, "too_long", format!("{name} has at most {WORD_MAX} characters"))),
    }
}

/// How many other stories are asked for.
pub(super) fn alternatives(context: &BTreeMap<String, String>) -> Result<u64, Fault> {
    Ok(whole(context, "alternatives", ALTERNATIVES_MAX)?.unwrap_or(0))
}

/// The seed that the context names.
pub(super) fn given_seed(context: &BTreeMap<String, String>) -> Result<Option<u64>, Fault> {
    whole(context, "seed", u64::MAX)
}

/// A whole number of the context, from 0 to `max`.
fn whole(context: &BTreeMap<String, String>, name: &str, max: u64) -> Result<Option<u64>, Fault> {
    let Some(text) = context.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let field = format!("context.{name}");
    let number: i128 =
        text.parse().map_err(|_| invalid(&field, "bad_format", format!("{name} must be a whole number")))?;
    let number = u64::try_from(number).ok().filter(|number| *number <= max);
    number.map(Some).ok_or_else(|| out_of_range(&field, 0, max))
}

/// The seed of a request that names none.
pub(super) fn own_seed(tenant: &str, asked: &Asked) -> u64 {
    let mut sorted = asked.clone();
    sorted.themes.sort_unstable();
    seed(&[Part::Text("story.seed.v1"), tenant_part(tenant), Part::Text(&canonical(&sorted))])
}

/// A request as canonical JSON. Motifs go round through the themes as they stand: in another order they are another story.
pub(super) fn canonical(asked: &Asked) -> String {
    let themes = asked.themes.iter().cloned().map(Value::String).collect();
    let context = asked.context.iter().map(|(name, text)| (name.clone(), Value::String(text.clone())));
    let document = Struct::default()
        .with("story_type", asked.story_type.as_str())
        .with("context", Value::Struct(Struct(context.collect())))
        .with("themes", Value::List(themes))
        .with("min_length", asked.min_length as f64)
        .with("max_length", asked.max_length as f64)
        .with("tone", asked.tone.as_str());
    canonical_json(&document)
}

/// How a request's type is told.
pub(super) fn story_type(asked: &Asked) -> &'static StoryType {
    STORY_TYPES.iter().find(|row| row.name == asked.story_type).unwrap_or(&STORY_TYPES[0])
}
