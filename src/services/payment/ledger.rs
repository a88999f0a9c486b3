//! The ledger: an entry for each movement, written once, and an index from transactions to them. Who writes a key first
//! says what it holds, so the same movement can be written again and again.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Payments;
use crate::fault::{Code, Fault};
use crate::services::seed::Part::Text;
use crate::services::seed::{Part, id_of, tenant_part};
use crate::store::key;
use crate::worker::Context;

/// What a movement does to a balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    #[default]
    Debit,
    Refund,
    Credit,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Debit => "debit",
            Kind::Refund => "refund",
            Kind::Credit => "credit",
        }
    }
}

/// A movement, as the ledger keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) seq: u32,
    pub(super) transaction_id: String,
    pub(super) kind: Kind,
    /// Units taken or given, above 0.
    pub(super) amount: i32,
    pub(super) balance_after: i32,
    pub(super) item_id: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) timestamp_ms: i64,
    /// SHA-256 of the request, which tells a repeat from another request with the same key.
    pub(super) fingerprint: String,
    /// Hash of the call's key.
    pub(super) key: String,
    /// Of a refund, the debit that it gives back.
    pub(super) refunds: String,
    /// Of a refund or credit, what it was made for.
    pub(super) reason: String,
}

/// Where a transaction's entry is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) seq: u32,
}

/// A wallet's place in both buckets.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) player: &'p str,
    pub(super) currency: &'p str,
}

impl Place<'_> {
    /// Key of the wallet.
    pub(super) fn wallet(&self, context: &Context) -> String {
        key(&[context.tenant(), self.player, self.currency])
    }

    /// The keys that a movement writes once, with their values.
    pub(super) fn puts(&self, context: &Context, entry: &Entry) -> Result<[(String, serde_json::Value); 2], Fault> {
        let broken = |error: serde_json::Error| {
            Fault::ours(Code::Internal, "a ledger entry does not encode").internal(error.to_string())
        };
        let index =
            Index { player_id: self.player.to_owned(), currency_type: self.currency.to_owned(), seq: entry.seq };
        Ok([
            (self.entry(context, entry.seq), serde_json::to_value(entry).map_err(broken)?),
            (transaction(context, &entry.transaction_id), serde_json::to_value(index).map_err(broken)?),
        ])
    }

    fn entry(&self, context: &Context, seq: u32) -> String {
        format!("{}.{seq}", self.wallet(context))
    }
}

/// Key of a transaction's index.
fn transaction(context: &Context, transaction_id: &str) -> String {
    key(&[context.tenant(), "tx", transaction_id])
}

/// Id of a payment, or of a credit: the same for each repeat of a call.
pub(super) fn transaction_id(tenant: &str, kind: Kind, player: &str, call_key: &str) -> String {
    // A credit is another operation, whose keys do not meet those of payments.
    let label = if kind == Kind::Credit { "credit.v1" } else { "payment.v1" };
    id_of("txn", &[Text(label), tenant_part(tenant), Text(player), Text(call_key)])
}

/// Id of the one refund of a transaction.
pub(super) fn refund_id(tenant: &str, transaction_id: &str) -> String {
    id_of("rfd", &[Text("refund.v1"), tenant_part(tenant), Text(transaction_id)])
}

/// What an entry keeps of the key of its call.
pub(super) fn key_hash(call_key: &str) -> String {
    id_of("key", &[Part::Text(call_key)])
}

impl Payments {
    /// The entry of a transaction and where it is, as the leader has it.
    pub(super) async fn transaction(
        &self,
        context: &Context,
        transaction_id: &str,
    ) -> Result<Option<(Index, Entry)>, Fault> {
        let Some(index) = self.read::<Index>(&transaction(context, transaction_id)).await? else { return Ok(None) };
        let place = Place { player: &index.player_id, currency: &index.currency_type };
        let key = place.entry(context, index.seq);
        if let Some(entry) = self.read(&key).await? {
            return Ok(Some((index, entry)));
        }
        // The index was written and the entry was not: the wallet still holds it.
        self.wallets.finish_puts(&place.wallet(context)).await?;
        match self.read(&key).await? {
            Some(entry) => Ok(Some((index, entry))),
            None => Err(Fault::ours(Code::Internal, "a ledger entry is missing").internal(key)),
        }
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Fault> {
        let Some(found) = self.ledger.get(key).await? else { return Ok(None) };
        let broken = |error: serde_json::Error| {
            Fault::ours(Code::Internal, "the ledger cannot be read").internal(format!("`{key}`: {error}"))
        };
        serde_json::from_slice(&found.value).map(Some).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_documented_ones() {
        let transaction_id = transaction_id("", Kind::Debit, "p1", "k-1");
        assert_eq!(transaction_id, "txn_d5d7615202588589");
        assert_eq!(refund_id("", &transaction_id), "rfd_18ad3ee741053603");
    }
}
