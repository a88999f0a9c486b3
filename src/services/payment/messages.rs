//! The messages, by the descriptors' names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::services::paging::Pagination;

#[derive(Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) amount: i32,
    pub(super) item_id: String,
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Processed {
    pub(super) transaction_id: String,
    pub(super) success: bool,
    pub(super) new_balance: i32,
    pub(super) timestamp_ms: i64,
    pub(super) duplicate: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Validate {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) amount: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Validated {
    pub(super) is_valid: bool,
    pub(super) current_balance: i32,
    pub(super) required_amount: i32,
    pub(super) missing_currencies: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refund {
    pub(super) transaction_id: String,
    pub(super) reason: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refunded {
    pub(super) success: bool,
    pub(super) refunded_amount: i32,
    pub(super) new_balance: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Credit {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) amount: i32,
    pub(super) reason: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Credited {
    pub(super) transaction_id: String,
    pub(super) new_balance: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct List {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) page: Option<Pagination>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) transactions: Vec<Transaction>,
    pub(super) next_page_token: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub(super) transaction_id: String,
    pub(super) kind: String,
    pub(super) currency_type: String,
    pub(super) amount: i32,
    pub(super) balance_after: i32,
    pub(super) item_id: String,
    pub(super) timestamp_ms: i64,
    pub(super) refunded: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) player_id: String,
    pub(super) currency_type: String,
    pub(super) after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) revision: u64,
    pub(super) currency_type: String,
    pub(super) balance: i32,
    pub(super) transaction_id: String,
}
