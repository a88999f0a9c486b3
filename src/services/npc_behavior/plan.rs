//! The rules of a plan: a strategy, what it does here, and what the NPC wants besides. Nothing is left to chance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::situation::{Place, Situation, Thing, between, length};
use crate::services::numbers::comparable;

/// How sure a plan is of its strategy.
pub(super) const CONFIDENCE: f64 = 0.8;
/// Actions of one plan, and goals that an NPC keeps.
const ACTIONS_MAX: usize = 5;
const GOALS_MAX: usize = 10;
/// What a goal loses with each plan, and the weight at which it is given up.
const GOAL_LOSS: f64 = 0.1;
const GOAL_MIN: f64 = 0.1;
/// From which on a trait is a goal.
const TRAIT_GOAL: f64 = 0.6;
/// Metres a second on foot, and the longest move in milliseconds.
const WALK: f64 = 1.5;
const MOVE_MAX_MS: f64 = 5_000.0;
/// Metres that one flees, and that one keeps away.
const FLEE_TO: f64 = 20.0;
const KEEP_AWAY: f64 = 10.0;

/// `npc_behavior.v1.Action`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Action {
    pub(super) r#type: String,
    pub(super) params: BTreeMap<String, String>,
}

/// What an NPC is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Retreat,
    Aggressive,
    Defensive,
    Curious,
    Social,
    Neutral,
}

impl Strategy {
    fn of(situation: &Situation) -> Strategy {
        let (traits, has_enemy) = (&situation.traits, !situation.enemies.is_empty());
        if situation.health < 0.3 && has_enemy {
            Strategy::Retreat
        } else if traits.aggression > 0.7 && has_enemy {
            Strategy::Aggressive
        } else if has_enemy {
            Strategy::Defensive
        } else if traits.curiosity > 0.7 {
            Strategy::Curious
        } else if traits.social > 0.7 {
            Strategy::Social
        } else {
            Strategy::Neutral
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Strategy::Retreat => "RETREAT",
            Strategy::Aggressive => "AGGRESSIVE",
            Strategy::Defensive => "DEFENSIVE",
            Strategy::Curious => "CURIOUS",
            Strategy::Social => "SOCIAL",
            Strategy::Neutral => "NEUTRAL",
        }
    }

    /// The goal that it serves already.
    fn covers(self) -> &'static str {
        match self {
            Strategy::Retreat | Strategy::Aggressive | Strategy::Defensive => "combat",
            Strategy::Curious => "explore",
            Strategy::Social => "interaction",
            Strategy::Neutral => "",
        }
    }
}

/// A plan's actions before they are written down.
struct Draft<'s> {
    situation: &'s Situation,
    strategy: Strategy,
    actions: Vec<(f64, Action)>,
}

/// The strategy for a situation, and its actions, most urgent first.
pub(super) fn plan(situation: &Situation) -> (Strategy, Vec<Action>) {
    let strategy = Strategy::of(situation);
    let mut draft = Draft { situation, strategy, actions: Vec::new() };
    draft.reflex();
    draft.strategy();
    let goals = goals(situation);
    if situation.enemies.is_empty() && goals.first().is_some_and(|goal| goal.0 != strategy.covers()) {
        draft.goal(&goals[0].0);
    }
    let mut actions = draft.actions;
    // The sort is stable.
    actions.sort_by(|a, b| b.0.total_cmp(&a.0));
    actions.truncate(ACTIONS_MAX);
    let mut actions: Vec<Action> = actions.into_iter().map(|(_, action)| action).collect();
    if let Some(first) = actions.first_mut() {
        let listed = goals.iter().map(|(name, weight)| format!("{name}:{}", figure(*weight)));
        first.params.insert("goals".to_owned(), listed.collect::<Vec<_>>().join(","));
    }
    (strategy, actions)
}

impl Draft<'_> {
    fn reflex(&mut self) {
        let obstacle = self.situation.obstacles.iter().find(|thing| thing.is_moving && thing.distance < 2.0);
        if let Some(obstacle) = obstacle.cloned() {
            self.towards("DODGE", 1.0, 400.0, &obstacle);
        }
    }

    fn strategy(&mut self) {
        let situation = self.situation;
        let (enemy, ally, thing) =
            (situation.enemies.first(), situation.allies.first(), situation.interactables.first());
        match (self.strategy, enemy) {
            (Strategy::Retreat, Some(enemy)) if enemy.distance < 20.0 => {
                let target = situation.place.zip(enemy.place).map(|(own, of)| away(own, own, of, FLEE_TO));
                self.push("FLEE", 1.0, 4_000.0, Some(enemy), target);
            }
            (Strategy::Aggressive, Some(enemy)) if enemy.distance <= 5.0 => {
                self.towards("ATTACK", 0.9, 800.0, enemy);
            }
            (Strategy::Aggressive, Some(enemy)) => self.towards("MOVE", 0.8, walk_ms(enemy.distance), enemy),
            (Strategy::Defensive, Some(enemy)) if enemy.distance < 3.0 => {
                self.towards("DEFEND", 0.9, 1_000.0, enemy);
            }
            (Strategy::Defensive, Some(enemy)) if enemy.distance <= KEEP_AWAY => {
                let target = situation.place.zip(enemy.place).map(|(own, of)| away(of, own, of, KEEP_AWAY));
                self.push("MOVE", 0.7, walk_ms(KEEP_AWAY - enemy.distance), Some(enemy), target);
            }
            (Strategy::Curious, _) => self.near_or_to("INTERACT", 1_500.0, thing),
            (Strategy::Social, _) => self.near_or_to("SPEAK", 2_500.0, ally),
            _ => self.push("WAIT", 0.1, 2_000.0, None, None),
        }
    }

    /// Does something with what is nearer than two metres, or goes to it.
    fn near_or_to(&mut self, action: &str, duration_ms: f64, thing: Option<&Thing>) {
        match thing {
            Some(thing) if thing.distance < 2.0 => self.towards(action, 0.6, duration_ms, thing),
            Some(thing) => self.towards("MOVE", 0.5, walk_ms(thing.distance), thing),
            None => self.push("WAIT", 0.1, 2_000.0, None, None),
        }
    }

    fn goal(&mut self, goal: &str) {
        let situation = self.situation;
        let near = |things: &[Thing]| things.first().filter(|thing| thing.distance <= 2.0).cloned();
        match goal {
            "interaction" => {
                if let Some(ally) = near(&situation.allies) {
                    self.towards("SPEAK", 0.4, 2_500.0, &ally);
                }
            }
            "explore" => {
                if let Some(thing) = near(&situation.interactables) {
                    self.towards("INTERACT", 0.4, 1_500.0, &thing);
                }
            }
            "task" => {
                let works = situation.interactables.iter().filter(|thing| thing.kind == "work");
                if let Some(work) = works.min_by_key(|thing| thing.given_at) {
                    self.towards("MOVE", 0.4, walk_ms(work.distance), work);
                }
            }
            _ => {}
        }
    }

    fn towards(&mut self, action: &str, priority: f64, duration_ms: f64, thing: &Thing) {
        self.push(action, priority, duration_ms, Some(thing), thing.place);
    }

    fn push(&mut self, action: &str, priority: f64, duration_ms: f64, thing: Option<&Thing>, target: Option<Place>) {
        let mut params = BTreeMap::new();
        let mut put = |name: &str, value: String| drop(params.insert(name.to_owned(), value));
        put("priority", figure(priority));
        put("strategy", self.strategy.name().to_owned());
        put("duration_ms", figure(duration_ms.round()));
        if let Some(thing) = thing {
            put("target_id", thing.id.clone());
            put("distance", figure(thing.distance));
        }
        for (name, value) in ["target_x", "target_y", "target_z"].iter().zip(target.into_iter().flatten()) {
            put(name, figure(value));
        }
        if action == "SPEAK" {
            put("dialogue", self.situation.dialogue.clone());
        }
        self.actions.push((priority, Action { r#type: action.to_owned(), params }));
    }
}

/// The goals that are kept, weightiest first; of equally weighty ones the one whose actions suit the NPC more.
fn goals(situation: &Situation) -> Vec<(String, f64)> {
    let traits = &situation.traits;
    let own = [
        ("combat", traits.aggression),
        ("interaction", traits.social),
        ("explore", traits.curiosity),
        ("task", traits.conscientiousness),
    ];
    let mut goals: BTreeMap<String, f64> = own
        .into_iter()
        .filter(|(_, weight)| *weight > TRAIT_GOAL)
        .map(|(name, weight)| (name.to_owned(), weight))
        .collect();
    if goals.is_empty() {
        goals.insert("survive".to_owned(), 0.5);
    }
    for (name, weight) in &situation.goals {
        let weight = comparable(weight - GOAL_LOSS);
        if weight > GOAL_MIN {
            let held = goals.entry(name.clone()).or_insert(weight);
            *held = held.max(weight);
        }
    }
    let suits = |name: &str| match name {
        "combat" => 0.6 * traits.aggression + 0.4 * traits.neuroticism,
        "interaction" => 0.6 * traits.extraversion + 0.4 * traits.social,
        "explore" => 0.6 * traits.openness + 0.4 * traits.curiosity,
        "help" => traits.agreeableness,
        "task" | "work" => traits.conscientiousness,
        _ => 0.0,
    };
    let mut goals: Vec<(String, f64)> = goals.into_iter().collect();
    goals.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| suits(&b.0).total_cmp(&suits(&a.0))));
    goals.truncate(GOALS_MAX);
    goals
}

/// The point that lies so many metres from `start`, in the direction from `of` to `own`; along +x where both are one.
fn away(start: Place, own: Place, of: Place, metres: f64) -> Place {
    let way = between(of, own);
    let length = length(way);
    let direction = if length == 0.0 { [1.0, 0.0, 0.0] } else { way.map(|part| part / length) };
    std::array::from_fn(|axis| start[axis] + direction[axis] * metres)
}

fn walk_ms(metres: f64) -> f64 {
    (metres.max(0.0) / WALK * 1_000.0).min(MOVE_MAX_MS)
}

/// At most three decimals, without zeros at the end.
fn figure(value: f64) -> String {
    let value = (value * 1_000.0).round() / 1_000.0;
    // There is no minus zero for people.
    if value == 0.0 { "0".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::types::{Struct, Value};

    fn planned(situation: &Struct) -> Vec<String> {
        let situation = Situation::read(situation, &Struct::default()).unwrap();
        plan(&situation).1.into_iter().map(|action| action.r#type).collect()
    }

    #[test]
    fn work_is_the_first_that_is_given_not_the_nearest() {
        let work = |id: &str, distance: f64| {
            Value::Struct(Struct::default().with("id", id).with("kind", "work").with("distance", distance))
        };
        let diligent = Value::Struct(Struct::default().with("conscientiousness", 0.9));
        let around = Struct::default()
            .with("personality", diligent)
            .with("interactables", vec![work("far", 9.0), work("near", 3.0)]);
        let situation = Situation::read(&around, &Struct::default()).unwrap();
        let first = &plan(&situation).1[0];
        assert_eq!((first.r#type.as_str(), first.params["target_id"].as_str()), ("MOVE", "far"));
    }

    #[test]
    fn limits_are_strict_where_the_rules_say_nearer_than() {
        let at = |distance: f64| {
            let obstacle = Value::Struct(Struct::default().with("distance", distance).with("moving", true));
            planned(&Struct::default().with("obstacles", vec![obstacle]))
        };
        assert_eq!(at(1.9), ["DODGE", "WAIT"]);
        assert_eq!(at(2.0), ["WAIT"]);
        let enemy = Value::Struct(Struct::default().with("distance", 4.0));
        let hurt =
            |health: f64| planned(&Struct::default().with("health", health).with("enemies", vec![enemy.clone()]));
        assert_eq!(hurt(0.29), ["FLEE"]);
        assert_eq!(hurt(0.3), ["MOVE"], "a ratio of 0.3 is no reason to retreat");
    }
}
