//! Refunds: a debit is given back whole, and once. The refund's id follows from the debit's, and a wallet that has made
//! it has it in the ledger before it makes anything else.

use std::sync::Arc;

use super::ledger::{Entry, Index, Kind, Place, key_hash, refund_id};
use super::messages::{Refund, Refunded};
use super::process::check_reason;
use super::{Movement, Payments, Wallet};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, owner};
use crate::services::seed::call_key;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed, fingerprint};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

impl Payments {
    pub(super) async fn refund(
        self: Arc<Self>,
        context: Context,
        request: Refund,
    ) -> Result<Refunded, Failed<Refunded>> {
        id("transaction_id", &request.transaction_id)?;
        check_reason(&request.reason)?;
        let write = self.give_back(&context, &request);
        self.repeats.once(&context, write).await
    }

    async fn give_back(&self, context: &Context, request: &Refund) -> Result<Refunded, Failed<Refunded>> {
        let settings = self.settings.now();
        let transaction_id = request.transaction_id.as_str();
        let Some((index, debit)) = self.transaction(context, transaction_id).await? else {
            let text = format!("there is no transaction {transaction_id}");
            return Err(Fault::client(Code::NotFound, text).detail("field", "transaction_id").into());
        };
        owner(context, settings.auth.enforce, "transaction_id", &index.player_id)?;
        if debit.kind != Kind::Debit {
            let text = format!("a {} cannot be refunded", debit.kind.name());
            return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "not_refundable").into());
        }
        let (refund_id, key) = (refund_id(context.tenant(), transaction_id), key_hash(&call_key(context)));
        let entry = Entry {
            fingerprint: fingerprint(context)?,
            key: key.clone(),
            refunds: transaction_id.to_owned(),
            reason: request.reason.clone(),
            ..Entry::default()
        };
        let place = Place { player: &index.player_id, currency: &index.currency_type };
        let movement = Movement {
            place,
            kind: Kind::Refund,
            transaction_id: &refund_id,
            amount: debit.amount,
            item_id: &debit.item_id,
            entry,
        };
        let look = || self.transaction(context, &refund_id);
        let rule = |current: &Current<Wallet>, known: Option<(Index, Entry)>| {
            if let Some((_, refund)) = known {
                return Ok(Change::nothing(repeated(context, &refund, &movement.entry)?));
            }
            let days = settings.payment.refund_days;
            if current.now_ms - debit.timestamp_ms > i64::from(days) * DAY_MS {
                let text = format!("the payment is older than {days} days");
                return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "too_old").into());
            }
            Payments::moved(context, &settings.payment, current, &movement, |moved| Refunded {
                success: true,
                refunded_amount: debit.amount,
                new_balance: moved.balance,
            })
        };
        Ok(self.wallets.change_knowing(context, &place.wallet(context), look, rule).await?.reply)
    }
}

/// The reply to a repeat of the call that made the refund; any other call comes too late.
fn repeated(context: &Context, refund: &Entry, asked: &Entry) -> Result<Refunded, Fault> {
    if refund.key != asked.key || refund.fingerprint != asked.fingerprint {
        return Err(Fault::client(Code::FailedPrecondition, "already refunded")
            .detail("reason", "already_refunded")
            .detail("refund_transaction_id", refund.transaction_id.as_str()));
    }
    context.label("idempotent_replay", "true");
    Ok(Refunded { success: true, refunded_amount: refund.amount, new_balance: refund.balance_after })
}
