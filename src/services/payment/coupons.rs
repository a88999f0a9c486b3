//! Coupons: what they are worth, and how often a code has been redeemed. A payment reserves a redemption before the
//! wallet is debited and confirms it after; a reservation that lapses counts as redeemed where its payment has been
//! made, and is free otherwise. So a limit is never passed, and a crash costs no redemption.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::Place;
use super::{Payments, key};
use crate::fault::{Code, Fault};
use crate::services::settings::{Coupon, CouponCode, Discount, Payment};
use crate::worker::Context;
use crate::worker::records::{Change, Current};

/// Longest code in bytes.
const CODE_MAX: usize = 128;
/// Lapsed reservations that one payment looks into.
const SETTLED_MAX: usize = 32;

/// A coupon that a payment names.
pub(super) struct Offer<'o>(&'o Coupon);

impl<'o> Offer<'o> {
    /// The coupon of a code, whether it has ended or not.
    pub(super) fn of(settings: &'o Payment, code: &str) -> Option<Offer<'o>> {
        let is_its = |coupon: &&Coupon| match &coupon.code {
            CouponCode::Exact(exact) => exact == code,
            CouponCode::Prefix(prefix) => code.starts_with(prefix.as_str()),
        };
        let is_code = !code.is_empty() && code.len() <= CODE_MAX;
        settings.coupons.iter().filter(|_| is_code).find(is_its).map(Offer)
    }

    /// The coupon of a code, as long as it holds.
    pub(super) fn find(settings: &'o Payment, code: &str, now_ms: i64) -> Result<Offer<'o>, Fault> {
        let Some(offer) = Offer::of(settings, code) else { return Err(refused("there is no such coupon")) };
        if offer.0.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Err(refused("the coupon has ended"));
        }
        Ok(offer)
    }

    /// Redemptions of one code; nothing where there may be any number.
    pub(super) fn limit(&self) -> Option<u32> {
        self.0.limit
    }

    /// What an amount costs with it, at least 1.
    pub(super) fn charged(&self, amount: i32) -> i32 {
        let amount = i64::from(amount);
        let discount = match self.0.discount {
            Discount::Percent(percent) => amount * i64::from(percent) / 100,
            Discount::Amount(fixed) => i64::from(fixed),
        };
        (amount - discount).max(1) as i32
    }

    /// What an amount costs less.
    pub(super) fn discount(&self, amount: i32) -> i32 {
        amount - self.charged(amount)
    }
}

fn refused(text: &'static str) -> Fault {
    Fault::client(Code::FailedPrecondition, text).detail("reason", "coupon")
}

/// The redemptions of a code.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Redemptions {
    confirmed: u32,
    reserved: Vec<Reservation>,
}

/// A redemption that waits for its payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reservation {
    transaction_id: String,
    player_id: String,
    currency_type: String,
    until_ms: i64,
}

/// A reservation that a payment holds.
#[derive(Debug)]
pub(super) struct Reserved {
    /// Key of the code.
    place: String,
    transaction_id: String,
    until_ms: i64,
}

impl Reserved {
    /// Others may have it from then on.
    pub(super) fn is_over(&self, now_ms: i64) -> bool {
        self.until_ms <= now_ms
    }
}

impl Payments {
    /// Reserves a redemption of a code with a limit for a payment; the reservation lapses after `life`.
    pub(super) async fn reserve(
        &self,
        context: &Context,
        (code, limit, life): (&str, u32, Duration),
        transaction_id: &str,
        wallet: &Place<'_>,
    ) -> Result<Reserved, Fault> {
        let place = key(&[context.tenant(), "coupon", code]);
        let (paid, free) = self.lapsed(context, &place).await?;
        let rule = |current: &Current<Redemptions>| {
            let mut after = current.value.clone().unwrap_or_default();
            let before = after.reserved.len();
            after.reserved.retain(|reservation| !paid.contains(reservation));
            after.confirmed += (before - after.reserved.len()) as u32;
            after.reserved.retain(|reservation| !free.contains(reservation));
            after.reserved.retain(|reservation| reservation.transaction_id != transaction_id);
            if after.confirmed as usize + after.reserved.len() >= limit as usize {
                return Err(refused("the coupon has been used up").into());
            }
            let until_ms = current.now_ms + life.as_millis() as i64;
            after.reserved.push(Reservation {
                transaction_id: transaction_id.to_owned(),
                player_id: wallet.player.to_owned(),
                currency_type: wallet.currency.to_owned(),
                until_ms,
            });
            Ok(Change::put(after, until_ms))
        };
        let done = self.redemptions.change(&own(context), &place, rule).await.map_err(|failed| failed.fault)?;
        Ok(Reserved { place, transaction_id: transaction_id.to_owned(), until_ms: done.reply })
    }

    /// The payment was made.
    pub(super) async fn confirm(&self, context: &Context, reserved: &Reserved) {
        self.end(context, reserved, 1).await;
    }

    /// The payment was not made.
    pub(super) async fn release(&self, context: &Context, reserved: &Reserved) {
        self.end(context, reserved, 0).await;
    }

    /// A reservation that cannot be ended now lapses, and whoever comes next looks whether it was paid.
    async fn end(&self, context: &Context, reserved: &Reserved, confirmed: u32) {
        let rule = |current: &Current<Redemptions>| {
            let mut after = current.value.clone().unwrap_or_default();
            let before = after.reserved.len();
            after.reserved.retain(|reservation| reservation.transaction_id != reserved.transaction_id);
            if after.reserved.len() == before {
                return Ok(Change::nothing(()));
            }
            after.confirmed += confirmed;
            Ok(Change::put(after, ()))
        };
        if let Err(failed) = self.redemptions.change(&own(context), &reserved.place, rule).await {
            tracing::warn!(fault = %failed.fault, "a coupon's reservation is left to lapse");
        }
    }

    /// The lapsed reservations of a code: those whose payment was made, and those that are free.
    async fn lapsed(&self, context: &Context, place: &str) -> Result<(Vec<Reservation>, Vec<Reservation>), Fault> {
        let (mut paid, mut free) = (Vec::new(), Vec::new());
        let Some(found) = self.redemptions.get(context, place).await? else { return Ok((paid, free)) };
        let is_lapsed = |reservation: &Reservation| reservation.until_ms <= context.now_ms();
        for reservation in found.value.reserved.into_iter().filter(is_lapsed).take(SETTLED_MAX) {
            let wallet = Place { player: &reservation.player_id, currency: &reservation.currency_type };
            // A payment that was made is in the ledger once its wallet's puts are done.
            self.wallets.finish_puts(&wallet.wallet(context)).await?;
            match self.transaction(context, &reservation.transaction_id).await? {
                Some(_) => paid.push(reservation),
                None => free.push(reservation),
            }
        }
        Ok((paid, free))
    }
}

/// Several writes of one call to one record are no repeats of each other.
fn own(context: &Context) -> Context {
    context.for_tenant(context.tenant())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discount_is_rounded_down_and_never_makes_a_payment_free() {
        let coupon =
            |discount| Coupon { code: CouponCode::Exact("x".to_owned()), discount, expires_at_ms: None, limit: None };
        let charged = |discount, amount| Offer(&coupon(discount)).charged(amount);
        assert_eq!(charged(Discount::Percent(20), 300), 240);
        assert_eq!(charged(Discount::Percent(20), 4), 4);
        assert_eq!(charged(Discount::Percent(100), 300), 1);
        assert_eq!(charged(Discount::Amount(50), 300), 250);
        assert_eq!(charged(Discount::Amount(u32::MAX), i32::MAX), 1);
    }
}
