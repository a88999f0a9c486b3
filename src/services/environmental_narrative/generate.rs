//! The generator: the same place, context, tags and seed give the same set, byte for byte.

use std::collections::BTreeMap;

use super::super::checks::{id, invalid, out_of_range, short, texts};
use super::super::numbers::rounded;
use super::super::seed::{Draws, Part, canonical_texts, id_of, seed, tenant_part};
use super::super::text::{capitalised, words};
use super::messages::{Element, Generation};
use super::tables::{
    AIRS, ELEMENT_TYPES, HOURS, NIGHT_SOUND, POSITIONS, ROOM_TONE, SCENE_TAGS, SCENE_TYPES, SCENES, Scene, WEARS,
    WEATHERS, WEIGHTS, named,
};
use crate::fault::Fault;
use crate::worker::Context;

/// How far places reach: to the sides, and up and down.
const REACH: [(&str, f64); 3] = [("x", 100_000.0), ("y", 100_000.0), ("z", 10_000.0)];
/// Objects that a context may ask for.
const DENSITY: (i64, i64) = (5, 50);
const ELEMENTS_MAX: i32 = 50;
const TAGS_MAX: usize = 16;
const TAG_BYTES_MAX: usize = 16 * 1024;
const WEAR_MAX: f64 = 0.7;

/// A set before its prose is written anew.
pub(super) struct Set {
    /// Seed of its draws, which is its identity, too.
    pub(super) seed: u64,
    pub(super) scene: &'static Scene,
    pub(super) elements: Vec<Element>,
    pub(super) atmosphere: String,
    pub(super) recommended_sounds: Vec<String>,
}

/// Checks a request; its first fault in the order of fields. Gives the type of the scene.
pub(super) fn check(request: &Generation) -> Result<&'static str, Fault> {
    id("location_id", &request.location_id)?;
    let wanted = if request.scene_type.is_empty() { "ambient" } else { &request.scene_type };
    let Some((scene_type, _)) = SCENE_TYPES.iter().find(|row| row.0.eq_ignore_ascii_case(wanted)) else {
        let text = "scene_type must be ambient, discovery or transition";
        return Err(invalid("scene_type", "unknown_value", text));
    };
    texts("context", &request.context)?;
    for (name, reach) in REACH {
        let field = format!("context.{name}");
        let Some(text) = request.context.get(name) else { continue };
        let value: f64 = text.parse().map_err(|_| invalid(&field, "bad_format", format!("{name} must be a number")))?;
        if !(-reach..=reach).contains(&value) {
            return Err(out_of_range(&field, -reach, reach));
        }
    }
    if request.context.get("density").is_some_and(|text| text.parse::<i64>().is_err()) {
        return Err(invalid("context.density", "bad_format", "density must be a whole number"));
    }
    if request.tags.len() > TAGS_MAX {
        return Err(invalid("tags", "too_many", format!("at most {TAGS_MAX} tags")));
    }
    request.tags.iter().try_for_each(|tag| short("tags", tag, TAG_BYTES_MAX))?;
    if !(0..=ELEMENTS_MAX).contains(&request.max_elements) {
        return Err(out_of_range("max_elements", 1, ELEMENTS_MAX));
    }
    Ok(scene_type)
}

/// The set of a checked request, in the context that is known of the place together with the request's own.
pub(super) fn set(caller: &Context, request: &Generation, scene_type: &str, context: &BTreeMap<String, String>) -> Set {
    let mut tags = request.tags.clone();
    tags.sort_unstable();
    let seed = seed(&[
        Part::Text("narrative.v1"),
        tenant_part(caller.tenant()),
        Part::Text(&request.location_id),
        Part::Text(scene_type),
        Part::Text(&canonical_texts(context)),
        Part::Text(&tags.join(",")),
        Part::Number(request.seed),
    ]);
    let place = Place { scene: scene(scene_type, context, &request.tags), context, tags: &request.tags };
    let density = context.get("density").and_then(|text| text.parse().ok());
    Set {
        seed,
        scene: place.scene,
        elements: place.elements(seed, density, request.max_elements),
        atmosphere: place.atmosphere().to_owned(),
        recommended_sounds: place.sounds().into_iter().map(str::to_owned).collect(),
    }
}

fn scene(scene_type: &str, context: &BTreeMap<String, String>, tags: &[String]) -> &'static Scene {
    let known = |name: &str| SCENES.iter().find(|scene| scene.name.eq_ignore_ascii_case(name));
    let of_context = context.get("scene").and_then(|name| known(name));
    let of_tags = || tags.iter().find_map(|tag| named(&SCENE_TAGS, tag)).and_then(known);
    let of_type = || named(&SCENE_TYPES, scene_type).and_then(known);
    of_context.or_else(of_tags).or_else(of_type).unwrap_or(&SCENES[0])
}

struct Place<'a> {
    scene: &'static Scene,
    context: &'a BTreeMap<String, String>,
    tags: &'a [String],
}

impl Place<'_> {
    fn elements(&self, seed: u64, density: Option<i64>, elements_max: i32) -> Vec<Element> {
        let mut draws = Draws::new(seed);
        let (from, to) = self.scene.objects;
        let drawn = draws.between(from, to);
        let wanted = density.map(|density| density.clamp(DENSITY.0, DENSITY.1) as u64);
        let count = wanted.map_or(drawn, |wanted| wanted.clamp(from, to));
        let count = if elements_max > 0 { count.min(elements_max as u64) } else { count };
        (0..count as usize).map(|index| self.element(seed, index, &mut draws)).collect()
    }

    fn element(&self, seed: u64, index: usize, draws: &mut Draws) -> Element {
        let object = match self.scene.required.get(index) {
            Some(object) => object,
            None => draws.pick(self.scene.optional),
        };
        let object = object.replace('_', " ");
        let wear = draws.unit() * WEAR_MAX;
        let damage = draws.unit() * wear;
        let position = draws.pick(&POSITIONS);
        let weight = &WEIGHTS[draws.weighted(&WEIGHTS.map(|weight| weight.odds))];
        let wear = WEARS.iter().find(|row| wear <= row.0).map_or("", |row| row.1);
        let element_type = ELEMENT_TYPES[index % ELEMENT_TYPES.len()];
        let content = match element_type {
            "description" => format!("A {wear} {object} lies {position}."),
            "visual" => format!("Light catches the {object} {position}; it looks {wear}."),
            "sound" => format!("{} comes from the {object}.", draws.pick(words("sound").unwrap_or(&["silence"]))),
            _ => format!("The {wear} {object} {position} can be searched."),
        };
        let mut triggers = BTreeMap::new();
        if element_type == "interaction" {
            let reward = [("action", "search"), ("reward", weight.reward), ("reward_type", weight.reward_type)];
            triggers.extend(reward.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        for (name, step) in [("weather", 3_usize), ("time_of_day", 4)] {
            if let Some(value) = self.context.get(name).filter(|_| index.is_multiple_of(step)) {
                triggers.insert(name.to_owned(), value.clone());
            }
        }
        let id_parts = [Part::Text("narrative.el.v1"), Part::Number(seed), Part::Number(index as u64)];
        Element {
            element_id: id_of("el", &id_parts),
            element_type: element_type.to_owned(),
            content: capitalised(&content),
            intensity: self.intensity(damage, weight.intensity),
            duration_seconds: self.scene.seconds,
            triggers,
        }
    }

    fn intensity(&self, damage: f64, weight: f64) -> f64 {
        let is_grim = self.tags.iter().any(|tag| ["horror", "tense"].iter().any(|grim| tag.eq_ignore_ascii_case(grim)));
        let grim = if is_grim { 0.2 } else { 0.0 };
        let night = if self.is_night() { 0.1 } else { 0.0 };
        rounded((0.3 + grim + 0.3 * damage + weight + night).clamp(0.0, 1.0), 3)
    }

    fn is_night(&self) -> bool {
        self.context.get("time_of_day").is_some_and(|time| time.eq_ignore_ascii_case("night"))
    }

    fn atmosphere(&self) -> &'static str {
        let of_tags = self.tags.iter().find_map(|tag| named(&AIRS, tag));
        let of_hour = || self.context.get("time_of_day").and_then(|time| named(&HOURS, time));
        of_tags.or_else(of_hour).unwrap_or("still")
    }

    fn sounds(&self) -> Vec<&'static str> {
        let of_weather = self.context.get("weather").and_then(|weather| named(&WEATHERS, weather));
        let mut sounds = vec![of_weather.unwrap_or(ROOM_TONE), self.scene.sound];
        if self.is_night() {
            sounds.push(NIGHT_SOUND);
        }
        sounds
    }
}
