//! In-game currency: wallets of players on a ledger that only grows. Money with outside providers is none of it.
//!
//! Money moves exactly when a wallet's compare-and-set wins. Entry, index, event and audit record of the movement are
//! in the same write and follow from it, whoever finds them.

mod coupons;
mod ledger;
mod messages;
mod process;
mod reads;
mod refund;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{invalid, own_player, required};
use super::notices::{notice, records};
use super::settings::{LiveSettings, Payment};
use crate::fault::{Code, Fault};
use crate::store::{Bucket, BucketConfig, Store, key};
use crate::worker::records::{Change, Current, EventId, Notice, Records, RecordsConfig};
use crate::worker::{Context, Failed, Repeats, Service};
use coupons::Redemptions;
use ledger::{Entry, Kind, Place};
use messages::Processed;

/// Name of the ledger's bucket.
const LEDGER: &str = "tg_ledger";
/// Longest name of a currency in bytes.
const CURRENCY_MAX: usize = 32;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: LEDGER, ttl: None, history: 1 };
    let ledger = store.bucket(bucket.clone()).await?;
    let wallets = records(settings, BucketConfig { name: "tg_wallets", ttl: None, history: 4 });
    let wallets = RecordsConfig { others: vec![(LEDGER, ledger.clone())], ..wallets };
    let payments = Payments {
        wallets: Records::open(store, wallets).await?,
        ledger,
        redemptions: Records::open(store, records(settings, bucket)).await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("payment", VERSION)
        .keeping(&payments.wallets)
        .keeping_values(LEDGER, &payments.ledger)
        .sweeping("sweeper", &payments.wallets)
        .sharing(payments)
        .unary("payment.v1.PaymentService/ProcessPayment", Payments::process)
        .unary("payment.v1.PaymentService/ValidatePayment", Payments::validate)
        .unary("payment.v1.PaymentService/Refund", Payments::refund)
        .unary("payment.v1.PaymentService/Credit", Payments::credit)
        .hook_list("payment.v1.PaymentService/ListTransactions", Payments::list)
        .guarded("payment.v1.PaymentService/ListTransactions", "player_id", own_player(settings))
        .hook_watch("payment.v1.PaymentService/WatchBalance", Payments::watch)
        .guarded("payment.v1.PaymentService/WatchBalance", "player_id", own_player(settings))
        .done())
}

struct Payments {
    wallets: Records<Wallet>,
    /// Entries and the index of transactions, which wallets put there.
    ledger: Bucket,
    /// Redemptions of coupons, in the ledger's bucket as well.
    redemptions: Records<Redemptions>,
    repeats: Repeats,
    settings: LiveSettings,
}

/// What a player has of a currency. Made by the first movement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wallet {
    currency_type: String,
    opening_balance: i32,
    balance: i32,
    /// Movements so far.
    seq: u32,
    /// The last one.
    transaction_id: String,
}

/// A movement that is to be made.
struct Movement<'m> {
    place: Place<'m>,
    kind: Kind,
    transaction_id: &'m str,
    amount: i32,
    item_id: &'m str,
    /// What the ledger keeps besides.
    entry: Entry,
}

/// The balance after a movement, and when it was made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Moved {
    balance: i32,
    at_ms: i64,
}

impl Payments {
    /// The change of a wallet by a movement: balance, ledger entry, index, event and audit record at once.
    fn moved<R>(
        context: &Context,
        settings: &Payment,
        current: &Current<Wallet>,
        movement: &Movement<'_>,
        reply: impl FnOnce(Moved) -> R,
    ) -> Result<Change<Wallet, R>, Failed<R>> {
        let currency = movement.place.currency;
        let opening = opening_balance(settings, currency);
        let (opening_balance, before, seq) = match &current.value {
            Some(wallet) => (wallet.opening_balance, wallet.balance, wallet.seq),
            None => (opening, opening, 0),
        };
        let balance = match movement.kind {
            Kind::Debit => before.checked_sub(movement.amount),
            Kind::Credit | Kind::Refund => before.checked_add(movement.amount),
        };
        let Some(balance) = balance.filter(|balance| *balance >= 0) else {
            return Err(full(before).into());
        };
        // Readings of other replicas' clocks may lie ahead; the ledger's times never go back.
        let moved = Moved { balance, at_ms: current.now_ms.max(current.updated_ms) };
        let seq = seq + 1;
        let wallet = Wallet {
            currency_type: currency.to_owned(),
            opening_balance,
            balance,
            seq,
            transaction_id: movement.transaction_id.to_owned(),
        };
        let entry = Entry {
            seq,
            transaction_id: movement.transaction_id.to_owned(),
            kind: movement.kind,
            amount: movement.amount,
            balance_after: balance,
            item_id: movement.item_id.to_owned(),
            timestamp_ms: moved.at_ms,
            ..movement.entry.clone()
        };
        let mut change = Change::put(wallet, reply(moved));
        for (key, value) in movement.place.puts(context, &entry)? {
            change = change.also_put(LEDGER, key, value);
        }
        for notice in told(context, movement, moved)? {
            change = change.event(notice);
        }
        Ok(change)
    }

    /// The wallet as the leader has it; its balance is the opening one where it has not been made yet.
    async fn balance(&self, context: &Context, settings: &Payment, place: &Place<'_>) -> Result<i32, Fault> {
        let wallet = self.wallets.get(context, &place.wallet(context)).await?;
        Ok(wallet.map_or_else(|| opening_balance(settings, place.currency), |wallet| wallet.value.balance))
    }
}

/// The event of a movement and its audit record.
fn told(context: &Context, movement: &Movement<'_>, moved: Moved) -> Result<[Notice; 2], Fault> {
    let kind = movement.kind.name();
    // A refund is told under the transaction that it gives back.
    let transaction_id = match movement.kind {
        Kind::Refund => movement.entry.refunds.as_str(),
        Kind::Debit | Kind::Credit => movement.transaction_id,
    };
    let payload = Processed {
        transaction_id: transaction_id.to_owned(),
        success: true,
        new_balance: moved.balance,
        timestamp_ms: moved.at_ms,
        duplicate: false,
    };
    let made = |subject: &str, id: String| {
        let made = notice(context, subject, EventId::Text(id), "payment.v1.ProcessPaymentResponse", &payload)?;
        Ok::<_, Fault>(
            made.with("player_id", movement.place.player)
                .with("currency_type", movement.place.currency)
                .with("amount", movement.amount.to_string())
                .with("kind", kind)
                .with("item_id", movement.item_id),
        )
    };
    let event = made("evt.payment.completed.v1", format!("{transaction_id}:{kind}"))?;
    let audit = made(&format!("audit.payment.{kind}"), format!("audit:{transaction_id}:{kind}"))?;
    Ok([event, audit.with("user_id", context.user())])
}

fn opening_balance(settings: &Payment, currency: &str) -> i32 {
    let balance = settings.opening_balance.get(currency).copied().unwrap_or(settings.other_opening_balance);
    i32::try_from(balance).unwrap_or(i32::MAX)
}

/// A wallet cannot hold more than an int32.
fn full(balance: i32) -> Fault {
    Fault::client(Code::OutOfRange, format!("the balance would pass {}", i32::MAX))
        .detail("field", "amount")
        .detail("reason", "out_of_range")
        .detail("min", "1")
        .detail("max", (i32::MAX - balance).to_string())
}

/// A currency: a letter, then letters, digits and underscores, all lower case.
fn check_currency(currency: &str) -> Result<(), Fault> {
    if currency.is_empty() {
        return Err(required("currency_type"));
    }
    let is_tail = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if currency.len() <= CURRENCY_MAX && currency.as_bytes()[0].is_ascii_lowercase() && currency.bytes().all(is_tail) {
        return Ok(());
    }
    let text = format!("currency_type has 1 to {CURRENCY_MAX} of a to z, 0 to 9 and `_`, and begins with a letter");
    Err(invalid("currency_type", "bad_format", text))
}

fn check_amount(amount: i32) -> Result<(), Fault> {
    if amount > 0 { Ok(()) } else { Err(invalid("amount", "not_positive", "amount must be positive")) }
}

/// `require_idempotency_key`.
fn check_key(context: &Context, settings: &Payment) -> Result<(), Fault> {
    if settings.require_idempotency_key && context.idempotency_key().is_empty() {
        return Err(invalid("meta.idempotency_key", "required", "an idempotency key is required"));
    }
    Ok(())
}
