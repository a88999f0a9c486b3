//! Debits and credits. A repeat of a call finds its own entry in the ledger, however late it comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::coupons::{Offer, Reserved};
use super::ledger::{Entry, Index, Kind, Place, key_hash, transaction_id};
use super::messages::{Credit, Credited, Process, Processed};
use super::{Movement, Payments, Wallet, check_amount, check_currency, check_key, opening_balance};
use crate::fault::{Code, Fault};
use crate::services::checks::{admin, id, invalid, owner, short, texts};
use crate::services::seed::call_key;
use crate::services::settings::Payment;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed, fingerprint};

/// Longest `item_id` in bytes, and `reason` in characters.
const ITEM_MAX: usize = 128;
pub(super) const REASON_MAX: usize = 256;

/// What a call wants to move, and what tells its repeats.
struct Call<'c> {
    kind: Kind,
    place: Place<'c>,
    amount: i32,
    item_id: &'c str,
    metadata: &'c BTreeMap<String, String>,
    reason: &'c str,
    transaction_id: String,
    fingerprint: String,
    key: String,
}

impl Payments {
    pub(super) async fn process(
        self: Arc<Self>,
        context: Context,
        request: Process,
    ) -> Result<Processed, Failed<Processed>> {
        let settings = self.settings.now();
        owner(&context, settings.auth.enforce, "player_id", &request.player_id)?;
        check_key(&context, &settings.payment)?;
        id("player_id", &request.player_id)?;
        check_currency(&request.currency_type)?;
        check_amount(request.amount)?;
        short("item_id", &request.item_id, ITEM_MAX)?;
        texts("metadata", &request.metadata)?;
        let place = Place { player: &request.player_id, currency: &request.currency_type };
        let call = Call {
            item_id: &request.item_id,
            metadata: &request.metadata,
            ..Call::new(&context, Kind::Debit, place, request.amount)?
        };
        let code = request.metadata.get("coupon").map_or("", String::as_str);
        let is_first = AtomicBool::new(false);
        let write = async {
            is_first.store(true, Ordering::Relaxed);
            self.pay(&context, &settings.payment, call, code).await
        };
        let mut paid = self.repeats.once(&context, write).await?;
        paid.duplicate |= !is_first.into_inner();
        if let Some(offer) = Offer::of(&settings.payment, code) {
            context.label("discount", offer.discount(request.amount).to_string());
        }
        Ok(paid)
    }

    pub(super) async fn credit(
        self: Arc<Self>,
        context: Context,
        request: Credit,
    ) -> Result<Credited, Failed<Credited>> {
        let settings = self.settings.now();
        admin(&context, settings.auth.enforce)?;
        check_key(&context, &settings.payment)?;
        id("player_id", &request.player_id)?;
        check_currency(&request.currency_type)?;
        check_amount(request.amount)?;
        check_reason(&request.reason)?;
        let place = Place { player: &request.player_id, currency: &request.currency_type };
        let call = Call { reason: &request.reason, ..Call::new(&context, Kind::Credit, place, request.amount)? };
        let write = async {
            let done = self.move_once(&context, &settings.payment, &call, None).await;
            let Processed { transaction_id, new_balance, .. } = done.map_err(|failed| failed.fault)?;
            Ok(Credited { transaction_id, new_balance })
        };
        self.repeats.once(&context, write).await
    }

    /// A debit, with the coupon that its metadata names.
    async fn pay(
        &self,
        context: &Context,
        settings: &Payment,
        call: Call<'_>,
        code: &str,
    ) -> Result<Processed, Failed<Processed>> {
        if code.is_empty() {
            return self.move_once(context, settings, &call, None).await;
        }
        // A repeat takes no redemption, whatever has become of the coupon.
        if let Some(found) = self.transaction(context, &call.transaction_id).await? {
            return call.repeated(context, &found).map_err(Failed::from);
        }
        let offer = Offer::find(settings, code, context.now_ms())?;
        let discounted = Call { amount: offer.charged(call.amount), ..call };
        let Some(limit) = offer.limit() else { return self.move_once(context, settings, &discounted, None).await };
        let life = settings.coupon_reservation;
        let reserved = self.reserve(context, (code, limit, life), &discounted.transaction_id, &call.place).await?;
        let paid = self.move_once(context, settings, &discounted, Some(&reserved)).await;
        match &paid {
            Ok(_) => self.confirm(context, &reserved).await,
            // Nothing was written: the redemption is free at once. After any other failure it lapses, or turns out paid.
            Err(failed) if failed.fault.code() == Code::FailedPrecondition => self.release(context, &reserved).await,
            Err(_) => {}
        }
        paid
    }

    /// Makes the movement, unless the ledger has it already.
    async fn move_once(
        &self,
        context: &Context,
        settings: &Payment,
        call: &Call<'_>,
        reserved: Option<&Reserved>,
    ) -> Result<Processed, Failed<Processed>> {
        let movement = call.movement();
        let look = || self.transaction(context, &call.transaction_id);
        let rule = |current: &Current<Wallet>, known: Option<(Index, Entry)>| {
            if let Some(found) = known {
                return Ok(Change::nothing(call.repeated(context, &found)?));
            }
            if reserved.is_some_and(|reserved| reserved.is_over(current.now_ms)) {
                let text = "the coupon's reservation has lapsed: try again";
                return Err(Fault::ours(Code::Aborted, text).detail("reason", "coupon").into());
            }
            if call.kind == Kind::Debit {
                covered(settings, current, call)?;
            }
            Payments::moved(context, settings, current, &movement, |moved| Processed {
                transaction_id: call.transaction_id.clone(),
                success: true,
                new_balance: moved.balance,
                timestamp_ms: moved.at_ms,
                duplicate: false,
            })
        };
        let done = self.wallets.change_knowing(context, &call.place.wallet(context), look, rule).await?;
        Ok(Processed { duplicate: done.reply.duplicate || done.is_repeat, ..done.reply })
    }
}

impl<'c> Call<'c> {
    fn new(context: &Context, kind: Kind, place: Place<'c>, amount: i32) -> Result<Call<'c>, Fault> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        let call_key = call_key(context);
        Ok(Call {
            kind,
            place,
            amount,
            item_id: "",
            metadata: &NOTHING,
            reason: "",
            transaction_id: transaction_id(context.tenant(), kind, place.player, &call_key),
            fingerprint: fingerprint(context)?,
            key: key_hash(&call_key),
        })
    }

    fn movement(&self) -> Movement<'_> {
        let entry = Entry {
            metadata: self.metadata.clone(),
            fingerprint: self.fingerprint.clone(),
            key: self.key.clone(),
            reason: self.reason.to_owned(),
            ..Entry::default()
        };
        Movement {
            place: self.place,
            kind: self.kind,
            transaction_id: &self.transaction_id,
            amount: self.amount,
            item_id: self.item_id,
            entry,
        }
    }

    /// The reply to a repeat, from the entry that the first call has made.
    fn repeated(&self, context: &Context, (_, entry): &(Index, Entry)) -> Result<Processed, Fault> {
        if entry.fingerprint != self.fingerprint {
            let text = "the idempotency key was used for another request";
            return Err(Fault::client(Code::Conflict, text).detail("reason", "key_reused"));
        }
        context.label("idempotent_replay", "true");
        Ok(Processed {
            transaction_id: entry.transaction_id.clone(),
            success: true,
            new_balance: entry.balance_after,
            timestamp_ms: entry.timestamp_ms,
            duplicate: true,
        })
    }
}

/// Refuses a debit that the wallet does not cover; the reply then says the balance.
fn covered(settings: &Payment, current: &Current<Wallet>, call: &Call<'_>) -> Result<(), Failed<Processed>> {
    let opening = || opening_balance(settings, call.place.currency);
    let (balance, amount) = (current.value.as_ref().map_or_else(opening, |wallet| wallet.balance), call.amount);
    if balance >= amount {
        return Ok(());
    }
    let fault = Fault::client(Code::FailedPrecondition, format!("balance is {balance}, {amount} needed"))
        .detail("reason", "insufficient_funds")
        .detail("current_balance", balance.to_string())
        .detail("required_amount", amount.to_string());
    Err(Failed::with(fault, Processed { new_balance: balance, ..Processed::default() }))
}

/// A reason: at most 256 characters.
pub(super) fn check_reason(reason: &str) -> Result<(), Fault> {
    if reason.chars().count() <= REASON_MAX {
        return Ok(());
    }
    Err(invalid("reason", "too_long", format!("reason has more than {REASON_MAX} characters")))
}
