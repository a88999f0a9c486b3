//! What an NPC finds around it, read from the request's free form: numbers, places, who is near, what it is like.

use crate::fault::Fault;
use crate::services::checks::invalid;
use crate::services::numbers::comparable;
use crate::worker::types::{Struct, Value};

/// Longest list of things around.
const THINGS_MAX: usize = 64;
/// Metres to something of which neither place nor distance is known.
const FAR: f64 = 1_000.0;
/// How much an alert lifts aggression, and night neuroticism.
const ALERT: f64 = 0.2;
const NIGHT: f64 = 0.1;

/// A place in metres.
pub(super) type Place = [f64; 3];

/// Something around.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) id: String,
    pub(super) place: Option<Place>,
    /// Metres from the NPC.
    pub(super) distance: f64,
    pub(super) is_moving: bool,
    pub(super) kind: String,
    /// Where it stands in the request's list.
    pub(super) given_at: usize,
}

/// What an NPC is like, each between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    pub(super) openness: f64,
    pub(super) conscientiousness: f64,
    pub(super) extraversion: f64,
    pub(super) agreeableness: f64,
    pub(super) neuroticism: f64,
    pub(super) aggression: f64,
    pub(super) social: f64,
    pub(super) curiosity: f64,
}

/// A name, traits that differ from the defaults, and what one says.
type Archetype = (&'static str, &'static [(&'static str, f64)], &'static str);

const ARCHETYPES: [Archetype; 4] = [
    (
        "merchant",
        &[("extraversion", 0.7), ("agreeableness", 0.8), ("conscientiousness", 0.7)],
        "Fresh goods, fair weight.",
    ),
    ("guard", &[("conscientiousness", 0.8), ("aggression", 0.6), ("neuroticism", 0.4)], "Keep moving."),
    ("civilian", &[("agreeableness", 0.6), ("social", 0.6), ("aggression", 0.2)], "Did you hear that?"),
    ("criminal", &[("aggression", 0.7), ("neuroticism", 0.6), ("agreeableness", 0.3)], "You didn't see me."),
];

impl Traits {
    const DEFAULT: Traits = Traits {
        openness: 0.5,
        conscientiousness: 0.5,
        extraversion: 0.5,
        agreeableness: 0.5,
        neuroticism: 0.5,
        aggression: 0.3,
        social: 0.5,
        curiosity: 0.5,
    };

    fn of_name(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "openness" => &mut self.openness,
            "conscientiousness" => &mut self.conscientiousness,
            "extraversion" => &mut self.extraversion,
            "agreeableness" => &mut self.agreeableness,
            "neuroticism" => &mut self.neuroticism,
            "aggression" => &mut self.aggression,
            "social" => &mut self.social,
            "curiosity" => &mut self.curiosity,
            _ => return None,
        })
    }

    fn read(situation: &Struct, world: &Struct) -> Traits {
        let mut traits = Traits::DEFAULT;
        let archetype = situation.str("archetype").unwrap_or_default();
        let row = ARCHETYPES.iter().find(|row| row.0.eq_ignore_ascii_case(archetype));
        let own = row.map_or(&[][..], |row| row.1).iter().map(|(name, value)| ((*name).to_owned(), *value));
        let given = situation.get("personality").and_then(Value::as_struct).into_iter().flat_map(|given| &given.0);
        let given = given.filter_map(|(name, value)| Some((name.clone(), value.as_number()?)));
        for (name, value) in own.chain(given) {
            if let Some(held) = traits.of_name(&name) {
                *held = value;
            }
        }
        if world.bool("alert") == Some(true) {
            traits.aggression += ALERT;
        }
        if world.str("time_of_day").is_some_and(|time| time.eq_ignore_ascii_case("night")) {
            traits.neuroticism += NIGHT;
        }
        for name in [
            "openness",
            "conscientiousness",
            "extraversion",
            "agreeableness",
            "neuroticism",
            "aggression",
            "social",
            "curiosity",
        ] {
            if let Some(held) = traits.of_name(name) {
                *held = comparable(held.clamp(0.0, 1.0));
            }
        }
        traits
    }
}

/// Everything that a plan is made from.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    pub(super) health: f64,
    pub(super) place: Option<Place>,
    /// Nearest first; of equally near ones the lower id.
    pub(super) enemies: Vec<Thing>,
    pub(super) allies: Vec<Thing>,
    pub(super) interactables: Vec<Thing>,
    pub(super) obstacles: Vec<Thing>,
    pub(super) traits: Traits,
    /// Names and weights, as given.
    pub(super) goals: Vec<(String, f64)>,
    pub(super) dialogue: String,
}

impl Situation {
    pub(super) fn read(situation: &Struct, world: &Struct) -> Result<Situation, Fault> {
        let number = |name: &str, default: f64| situation.number(name).unwrap_or(default);
        let max_health = number("max_health", 1.0);
        let health = if max_health > 0.0 { number("health", 1.0) / max_health } else { 0.0 };
        let place = situation.get("position").and_then(place);
        let things = |name: &str| things(situation, name, place);
        let archetype = situation.str("archetype").unwrap_or_default();
        let says = ARCHETYPES.iter().find(|row| row.0.eq_ignore_ascii_case(archetype)).map_or("…", |row| row.2);
        Ok(Situation {
            health: comparable(health.clamp(0.0, 1.0)),
            place,
            enemies: things("enemies")?,
            allies: things("allies")?,
            interactables: things("interactables")?,
            obstacles: things("obstacles")?,
            traits: Traits::read(situation, world),
            goals: goals(situation)?,
            dialogue: situation.str("dialogue").unwrap_or(says).to_owned(),
        })
    }
}

fn goals(situation: &Struct) -> Result<Vec<(String, f64)>, Fault> {
    let goal = |value: &Value| {
        let goal = value.as_struct()?;
        Some((goal.str("name")?.to_owned(), goal.number("weight").unwrap_or(0.0).clamp(0.0, 1.0)))
    };
    Ok(list(situation, "goals")?.iter().filter_map(goal).collect())
}

fn list<'s>(situation: &'s Struct, name: &str) -> Result<&'s [Value], Fault> {
    let list = situation.get(name).and_then(Value::as_list).unwrap_or_default();
    if list.len() > THINGS_MAX {
        let text = format!("{name} has more than {THINGS_MAX} entries");
        return Err(invalid(&format!("situation.{name}"), "too_many", text));
    }
    Ok(list)
}

fn things(situation: &Struct, name: &str, from: Option<Place>) -> Result<Vec<Thing>, Fault> {
    let mut unnamed = 0;
    let mut things: Vec<Thing> = list(situation, name)?
        .iter()
        .filter_map(Value::as_struct)
        .enumerate()
        .map(|(given_at, thing)| {
            let id = thing.str("id").filter(|id| !id.is_empty()).map(str::to_owned).unwrap_or_else(|| {
                unnamed += 1;
                format!("e{}", unnamed - 1)
            });
            let at = thing.get("position").and_then(place);
            let distance = match (from, at) {
                (Some(from), Some(at)) => length(between(from, at)),
                _ => thing.number("distance").unwrap_or(FAR),
            };
            Thing {
                id,
                place: at,
                distance: comparable(distance),
                is_moving: thing.bool("moving") == Some(true),
                kind: thing.str("kind").unwrap_or_default().to_owned(),
                given_at,
            }
        })
        .collect();
    things.sort_by(|a, b| a.distance.total_cmp(&b.distance).then_with(|| a.id.cmp(&b.id)));
    Ok(things)
}

fn place(value: &Value) -> Option<Place> {
    let place = value.as_struct()?;
    Some([place.number("x")?, place.number("y")?, place.number("z").unwrap_or(0.0)])
}

/// The way from one place to another.
pub(super) fn between(from: Place, to: Place) -> Place {
    std::array::from_fn(|axis| to[axis] - from[axis])
}

pub(super) fn length(way: Place) -> f64 {
    way.iter().map(|part| part * part).sum::<f64>().sqrt()
}
