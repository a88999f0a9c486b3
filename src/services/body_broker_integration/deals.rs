//! Deals completed: parts, drug, count and reputation change in one write, once. What payment has to credit stands in
//! the same write and stays there until payment has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::messages::{Complete, Completed, Credit, Credited};
use super::negotiate::{family_of, quantities};
use super::profile::{Owed, Profile};
use super::{Broker, Entry, key, place};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, player};
use crate::services::notices::notice;
use crate::store::Keys;
use crate::telemetry;
use crate::worker::records::{Change, Current, EventId, RecordSeen};
use crate::worker::{Context, Failed};

/// Worth of a deal that lets the veil heal.
const MAJOR_DEAL: f64 = 100_000.0;

/// What the bucket of deals says of one.
#[derive(Deserialize)]
struct Terms {
    player_id: String,
}

impl Broker {
    pub(super) async fn complete(
        self: Arc<Self>,
        context: Context,
        request: Complete,
    ) -> Result<Completed, Failed<Completed>> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        id("deal_id", &request.deal_id)?;
        let Some(terms) = self.terms(&context, &request).await? else {
            let text = format!("there is no deal {}", request.deal_id);
            return Err(Fault::client(Code::NotFound, text).detail("field", "deal_id").into());
        };
        if terms.player_id != request.player_id {
            let fault = Fault::client(Code::PermissionDenied, "deal belongs to another player");
            return Err(fault.detail("field", "deal_id").into());
        }
        let credits = self.settings.now().body_broker_integration.credit_wallet;
        let rule = |current: &Current<Entry>| finish(&context, &request, credits, current);
        let write = async {
            let done = self.change(&context, &request.player_id, rule).await;
            let (reply, is_first) = done.map_err(|failed| failed.fault)?;
            if is_first {
                count(&reply);
            }
            if credits {
                // What does not succeed now is tried again by the payer.
                self.pay(&context, &request.player_id).await;
            }
            Ok(reply)
        };
        self.repeats.once(&context, write).await
    }

    /// Whose deal it is. A profile that was written and has not put that yet does it first.
    async fn terms(&self, context: &Context, request: &Complete) -> Result<Option<Terms>, Fault> {
        let deal = key(&[context.tenant(), &request.deal_id]);
        let mut found = self.deals.get(&deal).await?;
        if found.is_none() {
            self.entries.finish_puts(&place(context, &request.player_id)).await?;
            found = self.deals.get(&deal).await?;
        }
        let broken = |error: serde_json::Error| {
            Fault::ours(Code::Internal, "a stored deal cannot be read").internal(error.to_string())
        };
        found.map(|found| serde_json::from_slice(&found.value).map_err(broken)).transpose()
    }

    /// Credits what a player's deals have earned; each deal is credited under its own key, so it can be tried again.
    async fn pay(&self, context: &Context, player_id: &str) {
        let own = context.for_tenant(context.tenant());
        if let Err(fault) = self.try_to_pay(&own, player_id).await {
            tracing::warn!(%fault, "a deal's drug is credited later");
        }
    }

    async fn try_to_pay(&self, own: &Context, player_id: &str) -> Result<(), Fault> {
        let found = self.entries.get(own, &place(own, player_id)).await?;
        let owed = found.and_then(|found| found.value.profile()).map(|profile| profile.owed).unwrap_or_default();
        for (deal_id, Owed { drug, units }) in owed {
            let reason = format!("deal {deal_id}");
            let credit = Credit { player_id: player_id.to_owned(), currency_type: drug, amount: units, reason };
            let peer = own.peer("payment.v1.PaymentService/Credit")?.as_service().key(&*deal_id);
            peer.ask::<_, Credited>(&credit).await?;
            let rule = |current: &Current<Entry>| {
                let Some(mut profile) = current.value.clone().and_then(Entry::profile) else {
                    return Ok(Change::nothing(()));
                };
                match profile.owed.remove(&deal_id) {
                    Some(_) => {
                        // Else a watch would tell the deal once more.
                        "credit".clone_into(&mut profile.change);
                        Ok(Broker::changed(profile, ()))
                    }
                    None => Ok(Change::nothing(())),
                }
            };
            self.change(own, player_id, rule).await.map_err(|failed| failed.fault)?;
        }
        Ok(())
    }

    /// Credits what crashes and failures have left uncredited. Every replica tries; payment credits a deal once.
    pub(super) async fn pay_what_is_owed(self: Arc<Self>, context: Context) {
        while context.cancelled().is_none() {
            if let Err(fault) = self.follow_debts(&context).await {
                tracing::warn!(%fault, "the payer starts anew");
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.now().common.sweep) => {}
                _ = context.until_cancelled() => {}
            }
        }
    }

    async fn follow_debts(&self, context: &Context) -> Result<(), Fault> {
        let mut watch = self.entries.watch(Keys::All, None).await?;
        let mut debts: BTreeMap<String, Profile> = BTreeMap::new();
        let mut next_try = tokio::time::Instant::now();
        loop {
            tokio::select! {
                seen = watch.next(context) => {
                    let RecordSeen::Change { key, document, .. } = seen? else { continue };
                    match document.and_then(|document| document.value.profile()) {
                        Some(profile) if !profile.owed.is_empty() => drop(debts.insert(key, profile)),
                        _ => drop(debts.remove(&key)),
                    }
                }
                () = tokio::time::sleep_until(next_try) => {
                    for profile in debts.values() {
                        self.pay(&context.for_tenant(&profile.tenant_id), &profile.player_id).await;
                    }
                    next_try = tokio::time::Instant::now() + self.settings.now().common.sweep;
                }
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }
}

fn count(reply: &Completed) {
    for (drug, units) in &reply.quantities {
        let units = units.unsigned_abs().into();
        metrics::counter!(telemetry::BROKER_DRUG_UNITS, "drug" => drug.clone()).increment(units);
        metrics::histogram!(telemetry::BROKER_REPUTATION, "drug" => drug.clone()).record(reply.new_reputation);
    }
}

/// A completed deal, and whether it was completed just now.
type Ending = (Completed, bool);

/// Completes a deal of a profile, or finds that it was completed; true where this call is the first.
fn finish(
    context: &Context,
    request: &Complete,
    credits: bool,
    current: &Current<Entry>,
) -> Result<Change<Entry, Ending>, Failed<Ending>> {
    let mut profile = Broker::current(context, &request.player_id, current, "deal");
    if let Some(finished) = profile.finished.get(&request.deal_id) {
        context.label("idempotent_replay", "true");
        return Ok(Change::nothing((finished.reply.clone(), false)));
    }
    // A deal that is over is not among the open ones any more.
    let Some(deal) = profile.open.remove(&request.deal_id) else {
        let text = "the deal has lapsed: negotiate again";
        return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "expired").into());
    };
    let family = family_of(&deal)?;
    for part_id in &deal.parts {
        profile.parts.remove(part_id);
    }
    let drugs = profile.drugs.entry(family.drug.to_owned()).or_default();
    *drugs = drugs.saturating_add(deal.units);
    *profile.deals.entry(family.id.to_owned()).or_default() += 1;
    let new_reputation = f64::from(profile.regard(family, deal.reputation));
    if deal.value >= MAJOR_DEAL {
        profile.veil_fray = 0;
    }
    if credits {
        let owed = Owed { drug: family.drug.to_owned(), units: deal.units };
        profile.owed.insert(request.deal_id.clone(), owed);
    }
    let quantities = quantities(family.drug, deal.units);
    let reply = Completed { success: true, rewards: vec![family.drug.to_owned()], quantities, new_reputation };
    profile.finish(&request.deal_id, &reply, current.now_ms);
    let id = EventId::Text(request.deal_id.clone());
    let event = notice(context, "evt.broker.deal.completed.v1", id, "body_broker.v1.CompleteDealResponse", &reply)?
        .with("player_id", &*request.player_id)
        .with("family_id", family.id)
        .with("deal_id", &*request.deal_id);
    Ok(Broker::changed(profile, (reply, true)).event(event))
}
