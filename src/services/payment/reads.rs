//! Reads: whether a wallet covers an amount, its movements, and its balance as it moves.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::ledger::{Entry, Kind, Place};
use super::messages::{Item, List, Listed, Transaction, Validate, Validated, Watch};
use super::{Payments, Wallet, check_amount, check_currency, opening_balance};
use crate::fault::Fault;
use crate::services::checks::player;
use crate::services::paging::Page;
use crate::store::key_token;
use crate::worker::Context;
use crate::worker::records::{Document, RecordSeen};

impl Payments {
    pub(super) async fn validate(self: Arc<Self>, context: Context, request: Validate) -> Result<Validated, Fault> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        check_currency(&request.currency_type)?;
        check_amount(request.amount)?;
        let place = Place { player: &request.player_id, currency: &request.currency_type };
        let current_balance = self.balance(&context, &settings.payment, &place).await?;
        let is_valid = current_balance >= request.amount;
        Ok(Validated {
            is_valid,
            current_balance,
            required_amount: request.amount,
            missing_currencies: if is_valid { Vec::new() } else { vec![request.currency_type] },
        })
    }

    pub(super) fn list(
        &self,
        _: &Context,
        request: &List,
        found: Vec<(String, Document<Box<RawValue>>)>,
    ) -> Result<Listed, Fault> {
        let wanted = &request.currency_type;
        if !wanted.is_empty() {
            check_currency(wanted)?;
        }
        let page = Page::of(request.page.as_ref())?;
        let entries = found.into_iter().filter_map(|(key, found)| {
            // A player may be called as the index is: its keys are shorter.
            let [_, _, currency, _] = key.split('.').collect::<Vec<_>>()[..] else { return None };
            let is_wanted = wanted.is_empty() || currency == wanted;
            let entry = is_wanted.then(|| serde_json::from_str::<Entry>(found.value.get()));
            Some((currency.to_owned(), entry?.ok()?))
        });
        let entries: Vec<(String, Entry)> = entries.collect();
        let refunded: BTreeSet<String> =
            entries.iter().filter(|row| row.1.kind == Kind::Refund).map(|row| row.1.refunds.clone()).collect();
        let mut rows: Vec<(String, Transaction)> = entries
            .into_iter()
            .map(|(currency, entry)| {
                let is_refunded = refunded.contains(&entry.transaction_id);
                (newest_first(&currency, &entry), transaction(currency, entry, is_refunded))
            })
            .collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let (transactions, next_page_token) = page.take(rows);
        Ok(Listed { transactions, next_page_token })
    }

    #[allow(clippy::needless_pass_by_value, reason = "hooks own what they are given")]
    pub(super) fn watch(
        self: Arc<Self>,
        _: Context,
        request: Watch,
        _: bool,
    ) -> Result<impl FnMut(RecordSeen<Wallet>) -> Result<Option<Item>, Fault>, Fault> {
        let settings = self.settings.now();
        let Watch { currency_type: wanted, after_revision, .. } = request;
        if !wanted.is_empty() {
            check_currency(&wanted)?;
        }
        // A wallet that has not been made yet has its opening balance.
        let mut opening = (!wanted.is_empty() && after_revision == 0).then(|| Item {
            revision: 0,
            currency_type: wanted.clone(),
            balance: opening_balance(&settings.payment, &wanted),
            transaction_id: String::new(),
        });
        Ok(move |seen: RecordSeen<Wallet>| {
            Ok(match seen {
                RecordSeen::Change { document: Some(Document { value: wallet, .. }), revision, .. }
                    if wanted.is_empty() || wallet.currency_type == wanted =>
                {
                    opening = None;
                    let Wallet { currency_type, balance, transaction_id, .. } = wallet;
                    Some(Item { revision, currency_type, balance, transaction_id })
                }
                RecordSeen::Current => opening.take(),
                RecordSeen::Change { .. } => None,
            })
        })
    }
}

/// Rows in order of these are newest first.
fn newest_first(currency: &str, entry: &Entry) -> String {
    let (time, number) = (i64::MAX - entry.timestamp_ms, u32::MAX - entry.seq);
    format!("{time:019}.{}.{number:010}", key_token(currency))
}

fn transaction(currency_type: String, entry: Entry, refunded: bool) -> Transaction {
    Transaction {
        transaction_id: entry.transaction_id,
        kind: entry.kind.name().to_owned(),
        currency_type,
        amount: entry.amount,
        balance_after: entry.balance_after,
        item_id: entry.item_id,
        timestamp_ms: entry.timestamp_ms,
        refunded,
    }
}
