//! Negotiation: leverage decides how it ends, and what ends well is a deal that waits for an hour.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::harvest::find_part;
use super::messages::{BodyPart, Negotiate, Negotiated};
use super::profile::{OpenDeal, Profile};
use super::tables::{DEMANDS, FAMILIES, Family, GRADES, Grade, Outcome, Part, grade_of, outcome_of};
use super::{Broker, DEALS, Entry, key, number_of, row};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, invalid, out_of_range, player, required, texts, unknown_value};
use crate::services::numbers::comparable;
use crate::services::seed::Part::Text;
use crate::services::seed::{call_key, id_of, tenant_part};
use crate::telemetry;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed};

/// Parts of one offer, units that may be asked for, and deals that a player may have open.
const OFFER_MAX: usize = 50;
const QUANTITY_MAX: i32 = 1_000_000;
const OPEN_MAX: usize = 100;
/// What all tactics together can do.
const TACTICS_MAX: f64 = 0.3;
/// How long a deal waits, and how long a family stays hostile.
const DEAL_MS: i64 = 3_600 * 1_000;
const HOSTILE_MS: i64 = 24 * 3_600 * 1_000;

/// A part as it is offered.
struct Offered {
    part: &'static Part,
    grade: &'static Grade,
    freshness: f64,
    /// Its id, where the player owns it.
    part_id: String,
}

/// What a request says besides its offer.
struct Terms {
    family: &'static Family,
    deal_id: String,
    charisma: f64,
    tactics: String,
    demand: f64,
    temper: f64,
    /// Offers need owned parts.
    is_strict: bool,
}

impl Broker {
    pub(super) async fn negotiate(
        self: Arc<Self>,
        context: Context,
        request: Negotiate,
    ) -> Result<Negotiated, Failed<Negotiated>> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let is_strict = settings.body_broker_integration.strict_inventory;
        let (terms, offer) = check(&context, &request, is_strict)?;
        let rule = |current: &Current<Entry>| settle(&context, &request, &terms, &offer, current);
        let write = async {
            let reply = self.change(&context, &request.player_id, rule).await?;
            metrics::counter!(telemetry::BROKER_NEGOTIATIONS, "outcome" => reply.outcome.clone()).increment(1);
            Ok(reply)
        };
        let reply = self.repeats.once(&context, write).await?;
        if !reply.deal_id.is_empty() {
            context.label("deal_id", &*reply.deal_id);
        }
        Ok(reply)
    }
}

/// How a negotiation ends for the player as they are now.
fn settle(
    context: &Context,
    request: &Negotiate,
    terms: &Terms,
    offer: &[Offered],
    current: &Current<Entry>,
) -> Result<Change<Entry, Negotiated>, Failed<Negotiated>> {
    let (family, now_ms) = (terms.family, current.now_ms);
    let mut profile = Broker::current(context, &request.player_id, current, "negotiation");
    allowed(&profile, family, now_ms)?;
    let offer = owned(&profile, offer, terms.is_strict, now_ms)?;
    let outcome = outcome_of(leverage(&profile, terms, &offer), terms.temper);
    let mut reply = Negotiated {
        dialogue_lines: vec![format!("{}: \"{}\"", family.name, outcome.line)],
        outcome: outcome.name.to_owned(),
        ..Negotiated::default()
    };
    let Some(price) = outcome.price else {
        profile.regard(family, outcome.reputation);
        if outcome.name == "hostile" {
            profile.hostile_until.insert(family.id.to_owned(), now_ms + HOSTILE_MS);
        }
        reply.relationship_change = f64::from(outcome.reputation);
        return Ok(Broker::changed(profile, reply));
    };
    let value: f64 = offer.iter().map(|row| row.part.value * row.grade.factor * row.freshness).sum();
    let units = comparable(value * price / family.street_value).floor() as i32;
    let is_theirs = request.requested_drug.is_empty() || request.requested_drug.eq_ignore_ascii_case(family.drug);
    reply.accepted = is_theirs && units >= 1 && request.requested_quantity <= units;
    if units < 1 {
        return Ok(Broker::changed(profile, reply));
    }
    if !reply.accepted {
        family.drug.clone_into(&mut reply.counter_offer_drug);
        reply.counter_offer_quantity = units;
    }
    let is_asked = reply.accepted && request.requested_quantity > 0;
    let units = if is_asked { request.requested_quantity } else { units };
    let deal = open(terms, outcome, &offer, [value, f64::from(units)], now_ms);
    open_deal(context, request, terms, profile, deal, reply)
}

/// Stores a deal: in the profile, which holds its parts, and under its own id, which says whose it is.
fn open_deal(
    context: &Context,
    request: &Negotiate,
    terms: &Terms,
    mut profile: Profile,
    deal: OpenDeal,
    reply: Negotiated,
) -> Result<Change<Entry, Negotiated>, Failed<Negotiated>> {
    if profile.open.len() >= OPEN_MAX {
        let text = format!("{OPEN_MAX} deals are open: complete one, or wait until one lapses");
        return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "too_many_deals").into());
    }
    let reply = Negotiated {
        relationship_change: f64::from(deal.reputation),
        deal_id: terms.deal_id.clone(),
        expires_at_ms: deal.expires_at_ms,
        ..reply
    };
    let whose = serde_json::json!({ "player_id": request.player_id, "expires_at_ms": deal.expires_at_ms });
    profile.open.insert(terms.deal_id.clone(), deal);
    Ok(Broker::changed(profile, reply).also_put(DEALS, key(&[context.tenant(), &terms.deal_id]), whose))
}

fn open(terms: &Terms, outcome: &Outcome, offer: &[Offered], [value, units]: [f64; 2], now_ms: i64) -> OpenDeal {
    OpenDeal {
        family_id: terms.family.id.to_owned(),
        units: units as i32,
        value,
        reputation: outcome.reputation,
        parts: offer.iter().map(|row| row.part_id.clone()).filter(|part_id| !part_id.is_empty()).collect(),
        expires_at_ms: now_ms + DEAL_MS,
    }
}

/// Refuses what the profile forbids.
fn allowed(profile: &Profile, family: &Family, now_ms: i64) -> Result<(), Fault> {
    if !profile.is_unlocked(family) {
        let text = format!("the {} does not deal with you yet", family.name);
        return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "family_locked"));
    }
    match profile.hostile_until.get(family.id) {
        Some(until_ms) if *until_ms > now_ms => {
            let wait = Duration::from_millis((until_ms - now_ms) as u64);
            let text = format!("the {} is hostile", family.name);
            Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "hostile").retry_after(wait))
        }
        _ => Ok(()),
    }
}

/// The offer with owned parts as they really are; a part that cannot be had is refused.
fn owned(profile: &Profile, offer: &[Offered], is_strict: bool, now_ms: i64) -> Result<Vec<Offered>, Fault> {
    let mut rows: Vec<Offered> = Vec::with_capacity(offer.len());
    for (index, row) in offer.iter().enumerate() {
        let Offered { part, grade, freshness, .. } = *row;
        let unavailable = || {
            Fault::client(Code::FailedPrecondition, "a part is not yours, sold, or in an open deal")
                .detail("field", format!("offered_parts[{index}].properties.part_id"))
                .detail("reason", "part_unavailable")
        };
        if row.part_id.is_empty() {
            if is_strict {
                return Err(unavailable());
            }
            rows.push(Offered { part, grade, freshness, part_id: String::new() });
            continue;
        }
        let mine = profile.parts.get(&row.part_id).filter(|mine| mine.part_type == part.name);
        let is_twice = rows.iter().any(|other| other.part_id == row.part_id);
        let is_free = !is_twice && !profile.is_reserved(&row.part_id, now_ms);
        let mine = mine.filter(|_| is_free).ok_or_else(unavailable)?;
        let (grade, freshness) = (mine.grade(now_ms), mine.freshness(now_ms));
        rows.push(Offered { part, grade, freshness, part_id: row.part_id.clone() });
    }
    Ok(rows)
}

/// What the player has on the family.
fn leverage(profile: &Profile, terms: &Terms, offer: &[Offered]) -> f64 {
    let words = terms.tactics.split(',').map(|word| word.trim().to_ascii_lowercase());
    let tactics: f64 = words.filter(|word| !word.is_empty()).map(|word| terms.family.temperament.tactic(&word)).sum();
    let weight: f64 = offer.iter().map(|row| row.part.value).sum();
    let quality = offer.iter().map(|row| row.grade.leverage * row.part.value).sum::<f64>() / weight;
    comparable(
        f64::from(profile.reputation(terms.family) - 50) / 100.0
            + (terms.charisma - 5.0) / 10.0
            + terms.demand
            + quality
            + tactics.clamp(-TACTICS_MAX, TACTICS_MAX),
    )
}

/// Everything that is wrong with the request itself.
fn check(context: &Context, request: &Negotiate, is_strict: bool) -> Result<(Terms, Vec<Offered>), Fault> {
    id("family_id", &request.family_id)?;
    let offer = check_offer(&request.offered_parts)?;
    let drug = &request.requested_drug;
    if !drug.is_empty() && !FAMILIES.iter().any(|family| family.drug.eq_ignore_ascii_case(drug)) {
        let allowed: Vec<&str> = FAMILIES.iter().map(|family| family.drug).collect();
        return Err(unknown_value("requested_drug", format!("unknown drug {drug}"), &allowed));
    }
    if !(0..=QUANTITY_MAX).contains(&request.requested_quantity) {
        return Err(out_of_range("requested_quantity", 0, QUANTITY_MAX));
    }
    texts("context", &request.context)?;
    // From the context, else from labels of the same names.
    let word = |name: &str| {
        let given = request.context.get(name).map(|text| (format!("context.{name}"), text.as_str()));
        given.or_else(|| context.caller().label(name).map(|text| (format!("meta.labels.{name}"), text)))
    };
    let ranged =
        |name: &str, min: f64, max: f64| word(name).map(|(field, text)| number_of(&field, text, min, max)).transpose();
    let charisma = ranged("charisma", 1.0, 10.0)?.unwrap_or(5.0);
    let (field, demand) = word("demand").unwrap_or_default();
    let demand = row(&field, demand, &DEMANDS, 1)?.1;
    let temper = ranged("temper", 0.0, 1.0)?;
    let family = find_family(&request.family_id)?;
    let temper = temper.unwrap_or(family.temperament.temper);
    let call_key = call_key(context);
    let seed = [Text("broker.deal.v1"), tenant_part(context.tenant()), Text(&request.player_id), Text(&call_key)];
    let tactics = word("tactics").map_or_else(String::new, |(_, text)| text.to_owned());
    Ok((Terms { family, deal_id: id_of("deal", &seed), charisma, tactics, demand, temper, is_strict }, offer))
}

fn find_family(family_id: &str) -> Result<&'static Family, Fault> {
    FAMILIES.iter().find(|family| family.id.eq_ignore_ascii_case(family_id)).ok_or_else(|| {
        Fault::client(Code::NotFound, format!("there is no family {family_id}")).detail("field", "family_id")
    })
}

fn check_offer(parts: &[BodyPart]) -> Result<Vec<Offered>, Fault> {
    if parts.is_empty() {
        return Err(required("offered_parts"));
    }
    if parts.len() > OFFER_MAX {
        return Err(invalid("offered_parts", "too_many", format!("at most {OFFER_MAX} offered_parts")));
    }
    let check = |(index, given): (usize, &BodyPart)| {
        let field = |name: &str| format!("offered_parts[{index}].{name}");
        let part = find_part(&field("part_type"), &given.part_type)?;
        let grade = GRADES.iter().find(|grade| grade.name.eq_ignore_ascii_case(&given.quality));
        let Some(grade) = grade else {
            let text = format!("unknown quality {}", given.quality);
            let allowed: Vec<&str> = GRADES.iter().map(|grade| grade.name).collect();
            return Err(unknown_value(&field("quality"), text, &allowed));
        };
        if !(0.0..=1.0).contains(&given.freshness) {
            return Err(out_of_range(&field("freshness"), 0, 1));
        }
        texts(&field("properties"), &given.properties)?;
        let grade = if given.freshness > 0.0 { grade } else { grade_of(0.0, 0.0) };
        let part_id = given.properties.get("part_id").cloned().unwrap_or_default();
        Ok(Offered { part, grade, freshness: given.freshness, part_id })
    };
    parts.iter().enumerate().map(check).collect()
}

/// The drugs of a player by name, for a reply.
pub(super) fn quantities(drug: &str, units: i32) -> BTreeMap<String, i32> {
    BTreeMap::from([(drug.to_owned(), units)])
}

/// A family that a stored deal names.
pub(super) fn family_of(deal: &OpenDeal) -> Result<&'static Family, Fault> {
    find_family(&deal.family_id)
}
