//! What a choice means: how well it fits, how much it changes, and what follows from it.

use std::collections::BTreeMap;

use super::super::checks::invalid;
use super::super::numbers::{comparable, rounded};
use super::messages::{Asked, Evaluation};
use super::tables::{COHERENCE_TONES, CONSEQUENCES, Consequence, EVENTS, GOODS, KINDS, Kind, named};
use crate::fault::{Code, Fault};

/// Probability from which on a consequence adds to the impact.
const LIKELY: f64 = 0.8;
/// How far a price moves by one step.
const VOLATILITY: f64 = 0.1;
/// A change of price that people notice.
const NOTICED: f64 = 0.2;
/// What a player needs, and what the player has.
const NEEDS: [(&str, &str); 3] =
    [("required_level", "level"), ("required_money", "money"), ("required_reputation", "reputation")];

type Texts = BTreeMap<String, String>;

/// The kind of a stored branch.
pub(super) fn kind(name: &str) -> Result<&'static Kind, Fault> {
    KINDS
        .iter()
        .find(|kind| kind.name == name)
        .ok_or_else(|| Fault::ours(Code::Internal, "a stored branch is of no known kind").internal(name))
}

/// What the context says about a story that drifts.
pub(super) fn drift(context: &Texts) -> Result<Vec<&'static str>, Fault> {
    let mut flags = Vec::new();
    if number(context, "minutes_since_main_arc")?.is_some_and(|minutes| minutes > 120.0) {
        flags.push("main_arc");
    }
    if number(context, "tangential_share")?.is_some_and(|share| comparable(share) > 0.3) {
        flags.push("tangential");
    }
    let is_off = number(context, "off_theme_share")?.is_some_and(|share| comparable(share) > 0.25);
    let is_weak = number(context, "theme_score")?.is_some_and(|score| comparable(score) < 0.7);
    if is_off || is_weak {
        flags.push("off_theme");
    }
    Ok(flags)
}

fn number(context: &Texts, name: &str) -> Result<Option<f64>, Fault> {
    let Some(text) = context.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(value)),
        _ => Err(invalid(&format!("context.{name}"), "bad_format", format!("{name} must be a number"))),
    }
}

/// Refuses what a judgement could not read, so that no story is kept whose branches nobody can judge.
pub(super) fn check(context: &Texts) -> Result<(), Fault> {
    drift(context)?;
    missing(context)?;
    GOODS.iter().try_for_each(|(name, _)| ratio(context, name).map(drop))
}

/// Refuses a choice for which the player lacks something.
pub(super) fn check_needs(context: &Texts) -> Result<(), Fault> {
    let missing = missing(context)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fault::client(Code::FailedPrecondition, "the player lacks what this choice needs")
        .detail("reason", "prerequisites")
        .detail("missing", missing.join(",")))
}

fn missing(context: &Texts) -> Result<Vec<String>, Fault> {
    let mut missing = Vec::new();
    for (needed, owned) in NEEDS {
        if let Some(least) = number(context, needed)?
            && number(context, owned)?.unwrap_or(0.0) < least
        {
            missing.push(owned.to_owned());
        }
    }
    let has = |item: &str| {
        let items = context.get("items").map_or("", String::as_str);
        items.split(',').any(|own| own.trim().eq_ignore_ascii_case(item))
    };
    if let Some(item) = context.get("required_item").map(|item| item.trim())
        && !item.is_empty()
        && !has(item)
    {
        missing.push(item.to_owned());
    }
    Ok(missing)
}

/// Judges a choice in a context.
pub(super) fn evaluation(
    branch_id: &str,
    kind: &'static Kind,
    asked: &Asked,
    context: &Texts,
) -> Result<Evaluation, Fault> {
    let mut causes: Vec<&str> = kind.causes.to_vec();
    causes.extend(context.get("event").and_then(|event| named(&EVENTS, event)));
    let mut state_changes = changes(kind, context);
    for (name, base) in GOODS {
        if let Some(ratio) = ratio(context, name)? {
            let (factor, moves) = market(ratio);
            state_changes.insert(format!("price.{name}"), rounded(base * factor, 2).to_string());
            if !moves.is_empty() {
                state_changes.insert(format!("market.{name}"), moves.join(","));
            }
            causes.extend(moves);
        }
    }
    let consequences = consequences(&causes);
    let is_likely = consequences.iter().any(|row| row.probability >= LIKELY);
    let impact = kind.impact + if is_likely { 0.1 } else { 0.0 };
    let column = named(&COHERENCE_TONES, &asked.tone).copied().unwrap_or(4);
    let coherence = kind.coherence[column] - 0.2 * drift(context)?.len() as f64;
    Ok(Evaluation {
        branch_id: branch_id.to_owned(),
        coherence_score: rounded(coherence.max(0.0), 3),
        impact_score: rounded(impact.min(1.0), 3),
        consequences: consequences.into_iter().map(told).collect(),
        state_changes,
    })
}

/// The rows of some causes, each once.
fn consequences(causes: &[&str]) -> Vec<&'static Consequence> {
    let mut rows: Vec<&Consequence> = Vec::new();
    for cause in causes {
        for row in CONSEQUENCES.iter().filter(|row| row.cause == *cause) {
            if !rows.iter().any(|known| std::ptr::eq(*known, row)) {
                rows.push(row);
            }
        }
    }
    rows
}

fn told(row: &Consequence) -> String {
    format!("{} in {} days (p={:?})", row.text, row.delay, row.probability)
}

fn changes(kind: &Kind, context: &Texts) -> Texts {
    let change = |wanted: &str| kind.changes.iter().find(|row| row.0 == wanted).map_or(0, |row| row.1);
    let mut changes: Texts =
        kind.changes.iter().map(|(name, value)| ((*name).to_owned(), format!("{value:+}"))).collect();
    let named = |name: &str| context.get(name).filter(|text| !text.is_empty());
    if let Some(npc) = named("npc") {
        changes.insert("relationships".to_owned(), format!("{:+} {npc}", change("reputation")));
    }
    if let Some(item) = named("item") {
        let taken = i64::from(kind.name == "greedy");
        changes.insert("items".to_owned(), format!("{taken:+} {item}"));
    }
    changes
}

/// Supply by demand of a good: a number, or two with a slash between them.
fn ratio(context: &Texts, good: &str) -> Result<Option<f64>, Fault> {
    let name = format!("market.{good}");
    let Some(text) = context.get(&name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = match text.split_once('/') {
        None => text.trim().parse::<f64>().ok(),
        Some((supply, demand)) => {
            let parts = (supply.trim().parse::<f64>().ok(), demand.trim().parse::<f64>().ok());
            parts.0.zip(parts.1).map(|(supply, demand)| supply / demand)
        }
    };
    match parsed.filter(|ratio| ratio.is_finite() && *ratio >= 0.0) {
        Some(ratio) => Ok(Some(comparable(ratio))),
        None => {
            let text = format!("{name} must be supply/demand, a number from 0");
            Err(invalid(&format!("context.{name}"), "bad_format", text))
        }
    }
}

/// Factor of a price, and what the market makes of it.
fn market(ratio: f64) -> (f64, Vec<&'static str>) {
    let step = match ratio {
        ratio if ratio < 0.5 => 2.0,
        ratio if ratio < 1.0 => 1.0,
        ratio if ratio > 2.0 => -2.0,
        ratio if ratio > 1.0 => -1.0,
        _ => 0.0,
    };
    let factor = comparable(1.0 + step * VOLATILITY).clamp(0.5, 2.0);
    let mut moves = Vec::new();
    if comparable((factor - 1.0).abs()) >= NOTICED {
        moves.push(if factor > 1.0 { "price spike" } else { "price crash" });
    }
    if ratio < 0.3 {
        moves.push("shortage");
    } else if ratio > 3.0 {
        moves.push("surplus");
    }
    (factor, moves)
}
