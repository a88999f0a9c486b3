//! Reads: whether a wallet covers an amount, its movements, and its balance as it moves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ledger::{Entry, Kind, Place};
use super::messages::{Item, List, Listed, Transaction, Validate, Validated, Watch};
use super::{Payments, check_amount, check_currency, key, opening_balance};
use crate::fault::Fault;
use crate::services::checks::player;
use crate::services::paging::Page;
use crate::store::{Keys, key_token};
use crate::worker::records::RecordSeen;
use crate::worker::{Chunks, Context};

/// Tokens of an entry's key: tenant, player, currency, number.
const ENTRY_TOKENS: usize = 4;

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

    pub(super) async fn list(self: Arc<Self>, context: Context, request: List) -> Result<Listed, Fault> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        let is_all = request.currency_type.is_empty();
        if !is_all {
            check_currency(&request.currency_type)?;
        }
        let page = Page::of(request.page.as_ref())?;
        let keys = match is_all {
            true => key(&[context.tenant(), &request.player_id]),
            false => key(&[context.tenant(), &request.player_id, &request.currency_type]),
        };
        let found = self.ledger.list(&Keys::Under(keys)).await?;
        let entries = found.iter().filter_map(|found| {
            // A player may be called as the index is: its keys are shorter.
            let tokens: Vec<&str> = found.key.split('.').collect();
            let entry = serde_json::from_slice::<Entry>(&found.value).ok();
            entry.filter(|_| tokens.len() == ENTRY_TOKENS).map(|entry| (tokens[2].to_owned(), entry))
        });
        let entries: Vec<(String, Entry)> = entries.collect();
        let refunded: BTreeSet<String> =
            entries.iter().filter(|row| row.1.kind == Kind::Refund).map(|row| row.1.refunds.clone()).collect();
        let mut rows: Vec<(String, Transaction)> = entries
            .into_iter()
            .map(|(currency_type, entry)| {
                let is_refunded = refunded.contains(&entry.transaction_id);
                (newest_first(&currency_type, &entry), transaction(currency_type, entry, is_refunded))
            })
            .collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let (transactions, next_page_token) = page.take(rows);
        Ok(Listed { transactions, next_page_token })
    }

    pub(super) async fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let currency = request.currency_type;
        let keys = if currency.is_empty() {
            Keys::Under(key(&[context.tenant(), &request.player_id]))
        } else {
            check_currency(&currency)?;
            Keys::One(Place { player: &request.player_id, currency: &currency }.wallet(&context))
        };
        let mut watch = self.wallets.watch(keys, Some(request.after_revision)).await?;
        if watch.is_reset() {
            context.label("reset", "true");
        }
        loop {
            let seen = tokio::select! {
                seen = watch.next(&context) => seen?,
                _ = context.until_cancelled() => return Ok(()),
            };
            match seen {
                RecordSeen::Change { document: Some(document), revision, .. } => {
                    let wallet = document.value;
                    let (currency_type, transaction_id) = (wallet.currency_type, wallet.transaction_id);
                    chunks.send(&Item { revision, currency_type, balance: wallet.balance, transaction_id }).await?;
                }
                // A wallet that has not been made yet has its opening balance.
                RecordSeen::Current if chunks.count() == 0 && request.after_revision == 0 && !currency.is_empty() => {
                    let balance = opening_balance(&settings.payment, &currency);
                    let (currency_type, transaction_id) = (currency.clone(), String::new());
                    chunks.send(&Item { revision: 0, currency_type, balance, transaction_id }).await?;
                }
                RecordSeen::Change { .. } | RecordSeen::Current => {}
            }
        }
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
