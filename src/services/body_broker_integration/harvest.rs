//! Harvest: parts are taken from a target once, whoever takes them, then they are the player's.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::messages::{Harvest, Harvested};
use super::profile::OwnedPart;
use super::tables::{METHODS, PARTS, PRESERVATIONS, Part, TARGET_TYPES, TOOLS};
use super::{Broker, Entry, Target, key, number, row};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, invalid, player, required, short, texts, unknown_value};
use crate::services::notices::notice;
use crate::services::numbers::{comparable, rounded};
use crate::services::seed::Part::{Number, Text};
use crate::services::seed::{id_of, tenant_part};
use crate::telemetry;
use crate::worker::records::{Change, Current, EventId};
use crate::worker::{Context, Failed};

/// Parts of one harvest, and parts that a player may have.
const PARTS_MAX: usize = 20;
const INVENTORY_MAX: usize = 1_000;
const TOOL_MAX: usize = 128;
const TIME_PRESSURE: f64 = 0.15;
/// Longest time since a death in hours.
const HOURS_MAX: f64 = 1e6;

/// What a harvest is made with.
struct Cut {
    parts: Vec<&'static Part>,
    method: &'static str,
    tool_class: &'static str,
    is_tool_known: bool,
    /// What method, tool and hurry make of the score.
    base: f64,
    skill: Option<f64>,
    target_type: &'static str,
    decay_hours: f64,
    hours_before: f64,
    decay_rate: f64,
}

/// What a harvest has taken from its target.
#[derive(Clone, Serialize, Deserialize)]
struct Taken {
    /// Kind, and number among equal parts of the target.
    parts: Vec<(String, u32)>,
    /// The player's first harvest of this target.
    is_first: bool,
}

impl Broker {
    pub(super) async fn harvest(
        self: Arc<Self>,
        context: Context,
        request: Harvest,
    ) -> Result<Harvested, Failed<Harvested>> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        let cut = check(&request)?;
        if !cut.is_tool_known {
            context.label("tool_class", cut.tool_class);
        }
        let write = async {
            let profile = self.entries.get(&context, &super::place(&context, &request.player_id)).await?;
            let owned = profile.and_then(|found| found.value.profile()).map_or(0, |profile| profile.parts.len());
            // The target comes first: it alone says who gets a part.
            let taken = self.take(&context, &request, &cut.parts, owned).await?;
            let rule = |current: &Current<Entry>| receive(&context, &request, &cut, &taken, current);
            let reply = self.change(&context, &request.player_id, rule).await?;
            for part in &reply.harvested_parts {
                let (quality, path) = (part.quality.clone(), reply.morality_impact.clone());
                metrics::counter!(telemetry::BROKER_PARTS, "quality" => quality, "path" => path).increment(1);
            }
            Ok(reply)
        };
        self.repeats.once(&context, write).await
    }

    /// Takes parts from a target, all or none, for an inventory of `owned` ones. A repeat, whose parts may be among
    /// them, gets what was taken.
    async fn take(&self, context: &Context, request: &Harvest, parts: &[&Part], owned: usize) -> Result<Taken, Fault> {
        let rule = |current: &Current<Entry>| {
            if owned + parts.len() > INVENTORY_MAX {
                let text = format!("an inventory has room for {INVENTORY_MAX} parts");
                return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "inventory_full").into());
            }
            let mut target = match &current.value {
                Some(Entry::Target(target)) => target.clone(),
                _ => Target::default(),
            };
            let (mut taken, mut gone) = (Vec::new(), Vec::new());
            for part in parts {
                let count = target.taken.entry(part.name.to_owned()).or_default();
                if *count >= part.most && !gone.contains(&part.name) {
                    gone.push(part.name);
                }
                taken.push((part.name.to_owned(), *count));
                *count += 1;
            }
            if !gone.is_empty() {
                let text = format!("{} of {} has been taken before", gone.join(", "), request.target_id);
                return Err(Fault::client(Code::Conflict, text).detail("parts", gone.join(",")).into());
            }
            let is_first = target.harvesters.insert(request.player_id.clone());
            Ok(Change::put(Entry::Target(target), Taken { parts: taken, is_first }))
        };
        let target = key(&[context.tenant(), "target", &request.target_id]);
        Ok(self.entries.change(context, &target, rule).await.map_err(|failed| failed.fault)?.reply)
    }
}

/// Gives a player what was taken.
fn receive(
    context: &Context,
    request: &Harvest,
    cut: &Cut,
    taken: &Taken,
    current: &Current<Entry>,
) -> Result<Change<Entry, Harvested>, Failed<Harvested>> {
    let mut profile = Broker::current(context, &request.player_id, current, "harvest");
    let score = comparable(cut.base + 0.3 * cut.skill.unwrap_or_else(|| profile.skill()));
    let (mut harvested_parts, mut xp) = (Vec::new(), 0.0);
    for (part_type, index) in &taken.parts {
        let part = OwnedPart {
            part_type: part_type.clone(),
            score,
            harvested_at_ms: current.now_ms,
            hours_before: cut.hours_before,
            decay_rate: cut.decay_rate,
            decay_hours: cut.decay_hours,
            target_id: request.target_id.clone(),
        };
        let seed = [
            Text("broker.part.v1"),
            tenant_part(context.tenant()),
            Text(&request.target_id),
            Text(part_type),
            Number(u64::from(*index)),
        ];
        let part_id = id_of("part", &seed);
        xp += 10.0 * part.grade(current.now_ms).factor;
        harvested_parts.push(part.shown(&part_id, current.now_ms));
        profile.parts.insert(part_id, part);
    }
    if cut.method == "live_extraction" {
        xp *= 1.5;
    }
    let skill_xp_gained = rounded(xp, 2);
    profile.skill_xp = rounded(profile.skill_xp + skill_xp_gained, 2);
    if taken.is_first {
        profile.kill(cut.target_type);
    }
    let path = profile.path();
    let reply = Harvested { harvested_parts, skill_xp_gained, morality_impact: path.to_owned() };
    let id = EventId::AtRevision(request.target_id.clone());
    let event = notice(context, "evt.broker.harvest.completed.v1", id, "body_broker.v1.HarvestResponse", &reply)?
        .with("player_id", &*request.player_id)
        .with("target_id", &*request.target_id)
        .with("path", path);
    Ok(Broker::changed(profile, reply).event(event))
}

/// Everything that is wrong with the request itself.
fn check(request: &Harvest) -> Result<Cut, Fault> {
    id("target_id", &request.target_id)?;
    let parts = check_parts(&request.body_parts)?;
    short("tool_used", &request.tool_used, TOOL_MAX)?;
    let given = &request.context;
    texts("context", given)?;
    let word = |name: &str| given.get(name).map_or("", String::as_str);
    let (method, method_value) = row("context.method", word("method"), &METHODS, 1)?;
    let is_in_a_hurry = match word("time_pressure").to_ascii_lowercase().as_str() {
        "true" => true,
        "" | "false" => false,
        _ => return Err(invalid("context.time_pressure", "bad_format", "time_pressure must be true or false")),
    };
    let targets = TARGET_TYPES.map(|name| (name, ()));
    let target_type = row("context.target_type", word("target_type"), &targets, 1)?.0;
    let (_, decay_hours) = row("context.preservation", word("preservation"), &PRESERVATIONS, 0)?;
    let tool = request.tool_used.to_ascii_lowercase();
    let class = TOOLS.iter().find(|row| row.0 == tool || row.2.contains(&tool.as_str()));
    let (tool_class, tool_value, _) = class.unwrap_or(&TOOLS[1]);
    let hurry = if is_in_a_hurry { TIME_PRESSURE } else { 0.0 };
    let skill = given.contains_key("skill").then(|| number(given, "skill", 0.0, 0.0, 1.0)).transpose()?;
    Ok(Cut {
        parts,
        method,
        tool_class,
        is_tool_known: tool.is_empty() || class.is_some(),
        base: method_value + tool_value - hurry,
        skill,
        target_type,
        decay_hours: *decay_hours,
        hours_before: number(given, "hours_since_death", 0.0, 0.0, HOURS_MAX)?,
        decay_rate: number(given, "decay_rate", 1.0, 0.1, 5.0)?,
    })
}

fn check_parts(names: &[String]) -> Result<Vec<&'static Part>, Fault> {
    if names.is_empty() {
        return Err(required("body_parts"));
    }
    if names.len() > PARTS_MAX {
        return Err(invalid("body_parts", "too_many", format!("at most {PARTS_MAX} body_parts")));
    }
    let (mut parts, mut counts) = (Vec::new(), BTreeMap::<&str, u32>::new());
    for (index, name) in names.iter().enumerate() {
        let field = format!("body_parts[{index}]");
        let part = find_part(&field, name)?;
        let count = counts.entry(part.name).or_default();
        *count += 1;
        if *count > part.most {
            return Err(invalid(&field, "too_many", format!("a target has {} {}", part.most, part.name)));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// A part by its name.
pub(super) fn find_part(field: &str, name: &str) -> Result<&'static Part, Fault> {
    PARTS.iter().find(|part| part.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let allowed: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        unknown_value(field, format!("unknown part {name}"), &allowed)
    })
}
