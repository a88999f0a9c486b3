//! Section `payment`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Keys, seconds};

/// Wallets and coupons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Opening balance by currency.
    pub opening_balance: BTreeMap<String, u32>,
    /// Opening balance of all other currencies.
    pub other_opening_balance: u32,
    /// A call without an idempotency key is INVALID_ARGUMENT.
    pub require_idempotency_key: bool,
    /// The coupons.
    pub coupons: Vec<Coupon>,
    /// Life of a reservation that is not confirmed.
    pub coupon_reservation: Duration,
    /// Oldest debit that may be refunded, in days.
    pub refund_days: u32,
}

/// A coupon, or all coupons with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    /// Its code.
    pub code: CouponCode,
    /// What it is worth.
    pub discount: Discount,
    /// When it ends, in milliseconds since 1970; never without it.
    pub expires_at_ms: Option<i64>,
    /// Redemptions of one code; any number without it.
    pub limit: Option<u32>,
}

/// Which codes a coupon is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CouponCode {
    /// This one.
    Exact(String),
    /// All that begin so.
    Prefix(String),
}

/// What a coupon is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discount {
    /// Hundredths of the amount.
    Percent(u32),
    /// A fixed amount.
    Amount(u32),
}

/// Currencies that open at 0.
const DRUGS: [(&str, u32); 8] = [
    ("grave_dust", 0),
    ("hive_nectar", 0),
    ("still_blood", 0),
    ("moon_wine", 0),
    ("vitae", 0),
    ("logic_spore", 0),
    ("enchantment", 0),
    ("aether", 0),
];
/// The row of all other currencies.
const OTHER: (&str, u32) = ("*", 1_000);

impl Payment {
    pub(super) fn read(keys: &mut Keys) -> Payment {
        let default: Vec<(&str, u32)> = DRUGS.into_iter().chain([OTHER]).collect();
        let mut opening_balance = keys
            .key("opening_balance", "currency → opening balance; `*` is any other currency")
            .count_map(&default, 0..=i32::MAX as u32);
        let coupons = keys.key("coupons", "coupons (default: prefix `ambassador_`, 20 %, 100 redemptions a code)");
        Payment {
            other_opening_balance: opening_balance.remove(OTHER.0).unwrap_or(OTHER.1),
            opening_balance,
            coupons: coupons.rows(None, Coupon::read).unwrap_or_else(|| {
                vec![Coupon {
                    code: CouponCode::Prefix("ambassador_".to_owned()),
                    discount: Discount::Percent(20),
                    expires_at_ms: None,
                    limit: Some(100),
                }]
            }),
            require_idempotency_key: keys
                .key("require_idempotency_key", "a call without a key is INVALID_ARGUMENT")
                .truth(false),
            coupon_reservation: keys
                .key("coupon_reservation", "life of a reservation that is not confirmed")
                .length(seconds(60), seconds(1)..=seconds(3_600)),
            refund_days: keys.key("refund_days", "oldest debit that may be refunded").count(30, 0..=3_650),
        }
    }
}

impl Coupon {
    fn read(keys: &mut Keys) -> Coupon {
        let code = keys.key("code", "the code").optional_text();
        let prefix = keys.key("prefix", "all codes that begin so").optional_text();
        let percent = keys.key("percent", "hundredths of the amount").optional_count(1..=100);
        let amount = keys.key("amount", "a fixed amount").optional_count(1..=i32::MAX as u32);
        let expires_at_ms = keys.key("expiry", "when it ends: `2026-12-31T23:59:59Z`").optional_moment();
        let limit = keys.key("limit", "redemptions of one code").optional_count(1..=1_000_000_000);
        if code.is_some() == prefix.is_some() {
            keys.problem("code", "a coupon has either `code` or `prefix`");
        }
        if percent.is_some() == amount.is_some() {
            keys.problem("percent", "a coupon has either `percent` or `amount`");
        }
        let code = match (code, prefix) {
            (None, Some(prefix)) => CouponCode::Prefix(prefix),
            (code, _) => CouponCode::Exact(code.unwrap_or_default()),
        };
        let discount = match (percent, amount) {
            (None, Some(amount)) => Discount::Amount(amount),
            (percent, _) => Discount::Percent(percent.unwrap_or_default()),
        };
        Coupon { code, discount, expires_at_ms, limit }
    }
}
