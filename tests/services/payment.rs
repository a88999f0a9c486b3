//! What the documented examples do not show of payment: races between two replicas, coupons that run out, crashes in
//! the middle, repeats after days, events, streams, who may do what.

use crate::support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::place::on_each_bus;
use support::replicas::{NOW_MS, Replicas};

const PROCESS: &str = "svc.payment.v1.process";
const REFUND: &str = "svc.payment.v1.refund";
const CREDIT: &str = "svc.payment.v1.credit";
const LIST: &str = "svc.payment.v1.list";
const HOUR: Duration = Duration::from_secs(3_600);

fn debit(amount: i32) -> Value {
    json!({ "player_id": "p1", "currency_type": "credits", "amount": amount })
}

fn with_coupon(code: &str) -> Value {
    json!({ "player_id": "p1", "currency_type": "credits", "amount": 10, "metadata": { "coupon": code } })
}

fn reason(reply: &Value) -> &str {
    reply["error"]["details"]["reason"].as_str().unwrap_or_default()
}

async fn balance(game: &Replicas) -> Value {
    let reply = game.ask("svc.payment.v1.validate", debit(1)).await;
    reply.get("current_balance").cloned().unwrap_or_else(|| json!(0))
}

/// The movements of p1's credits, newest first, page by page.
async fn movements(game: &Replicas) -> Vec<Value> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = json!({ "page_size": 20, "page_token": token });
        let reply = game.ask(LIST, json!({ "player_id": "p1", "currency_type": "credits", "page": page })).await;
        found.extend(reply["transactions"].as_array().into_iter().flatten().cloned());
        match reply["next_page_token"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => return found,
        }
    }
}

/// How many replies are successes, and how many fail for this reason; there may be no others.
fn counts(replies: &[Value], why: &str) -> [usize; 2] {
    let won = replies.iter().filter(|reply| reply["success"] == true).count();
    let lost = replies.iter().filter(|reply| reason(reply) == why).count();
    assert_eq!(won + lost, replies.len(), "{replies:?}");
    [won, lost]
}

async fn parallel_debits_never_overdraw(game: Replicas) {
    let replies = join_all((0..100).map(|_| game.ask(PROCESS, debit(20)))).await;
    assert_eq!(counts(&replies, "insufficient_funds"), [50, 50]);
    assert_eq!(balance(&game).await, 0);
    support::eventually("the ledger lists every debit", async || movements(&game).await.len() == 50).await;
    let after: Vec<i64> = movements(&game).await.iter().map(|row| row["balance_after"].as_i64().unwrap_or(0)).collect();
    assert_eq!(after, (0..50).map(|number| number * 20).collect::<Vec<_>>());
}

async fn a_debit_is_refunded_once_however_many_ask(game: Replicas) {
    let paid = game.ask(PROCESS, debit(300)).await;
    let refund = json!({ "transaction_id": paid["transaction_id"] });
    let replies = join_all((0..12).map(|_| game.ask(REFUND, refund.clone()))).await;
    assert_eq!(counts(&replies, "already_refunded"), [1, 11]);
    assert_eq!(balance(&game).await, 1_000);
}

async fn a_coupon_is_redeemed_as_often_as_it_may_be(game: Replicas) {
    let replies = join_all((0..60).map(|_| game.ask(PROCESS, with_coupon("forty")))).await;
    assert_eq!(counts(&replies, "coupon"), [40, 20]);
    // Ten percent off: 40 payments of 9.
    assert_eq!(balance(&game).await, 1_000 - 40 * 9);
}

fn coupons() -> [(&'static str, Value); 1] {
    let coupons = json!([
        { "code": "forty", "percent": 10, "limit": 40 },
        { "code": "once", "amount": 4, "limit": 1 },
        { "code": "ended", "percent": 10, "expiry": "2020-01-01T00:00:00Z" },
    ]);
    [("payment.coupons", coupons)]
}

on_each_bus!(
    |place| (Replicas::at(place, &coupons()).await);
    parallel_debits_never_overdraw,
    a_debit_is_refunded_once_however_many_ask,
    a_coupon_is_redeemed_as_often_as_it_may_be,
    a_watch_of_one_currency_hears_of_no_other_and_goes_on_where_it_was,
);

/// A reservation of the coupon `once`, as a replica that was killed before its wallet's write leaves it.
fn reservation(transaction_id: &Value) -> Value {
    let reservation = json!({
        "transaction_id": transaction_id, "player_id": "p1", "currency_type": "credits", "until_ms": NOW_MS + 60_000,
    });
    json!({ "confirmed": 0, "reserved": [reservation] })
}

#[tokio::test]
async fn a_reservation_without_a_payment_is_free_after_a_minute() {
    let game = Replicas::embedded(&coupons()).await;
    game.leave_behind("tg_ledger", "_.coupon.once", reservation(&json!("txn_0000000000000000")), &[]).await;
    assert_eq!(reason(&game.ask(PROCESS, with_coupon("once")).await), "coupon");
    game.pass(Duration::from_secs(60));
    assert_eq!(game.ask(PROCESS, with_coupon("once")).await["new_balance"], 994);
    assert_eq!(reason(&game.ask(PROCESS, with_coupon("once")).await), "coupon");
}

#[tokio::test]
async fn a_reservation_whose_payment_was_made_is_a_redemption() {
    let game = Replicas::embedded(&coupons()).await;
    let paid = game.ask(PROCESS, debit(10)).await;
    game.leave_behind("tg_ledger", "_.coupon.once", reservation(&paid["transaction_id"]), &[]).await;
    game.pass(Duration::from_secs(60));
    assert_eq!(reason(&game.ask(PROCESS, with_coupon("once")).await), "coupon");
}

#[tokio::test]
async fn a_refund_whose_replica_died_behind_the_wallets_write_is_known() {
    let game = Replicas::embedded(&[]).await;
    let paid = game.ask_with_key(PROCESS, "k-1", debit(300)).await;
    let wallet = json!({
        "currency_type": "credits", "opening_balance": 1_000, "balance": 1_000, "seq": 2,
        "transaction_id": "rfd_18ad3ee741053603",
    });
    let entry = json!({
        "seq": 2, "transaction_id": "rfd_18ad3ee741053603", "kind": "refund", "amount": 300, "balance_after": 1_000,
        "item_id": "", "metadata": {}, "timestamp_ms": NOW_MS, "fingerprint": "", "key": "",
        "refunds": paid["transaction_id"], "reason": "",
    });
    let index = json!({ "player_id": "p1", "currency_type": "credits", "seq": 2 });
    let puts = [("tg_ledger", "_.p1.credits.2", entry), ("tg_ledger", "_.tx.rfd_18ad3ee741053603", index)];
    game.leave_behind("tg_wallets", "_.p1.credits", wallet, &puts).await;
    let again = game.ask(REFUND, json!({ "transaction_id": paid["transaction_id"] })).await;
    assert_eq!(reason(&again), "already_refunded");
    assert_eq!(balance(&game).await, 1_000);
}

#[tokio::test]
async fn a_payment_that_fails_gives_its_redemption_back() {
    let game = Replicas::embedded(&coupons()).await;
    let much = json!({
        "player_id": "p1", "currency_type": "credits", "amount": 5_000, "metadata": { "coupon": "once" },
    });
    assert_eq!(reason(&game.ask(PROCESS, much).await), "insufficient_funds");
    let reply = game.ask_as(PROCESS, json!({}), with_coupon("once")).await;
    assert_eq!((&reply["new_balance"], &reply["meta"]["labels"]["discount"]), (&json!(994), &json!("4")));
    for code in ["ended", "unheard_of"] {
        assert_eq!(reason(&game.ask(PROCESS, with_coupon(code)).await), "coupon");
    }
}

#[tokio::test]
async fn a_repeat_finds_its_entry_when_all_else_has_forgotten_it() {
    let game = Replicas::embedded(&[]).await;
    let first = game.ask_with_key(PROCESS, "k-1", debit(100)).await;
    let refund = json!({ "transaction_id": first["transaction_id"] });
    let refunded = game.ask_with_key(REFUND, "r-1", refund.clone()).await;
    // More than a record and more than a day remembers.
    for number in 0..20 {
        game.ask_with_key(PROCESS, &format!("other-{number}"), debit(1)).await;
    }
    game.pass(25 * HOUR);
    let mut again = game.ask_with_key(PROCESS, "k-1", debit(100)).await;
    assert_eq!(again["duplicate"].take(), true);
    again.as_object_mut().unwrap().remove("duplicate");
    assert_eq!(again, first);
    assert_eq!(reason(&game.ask_with_key(PROCESS, "k-1", debit(101)).await), "key_reused");
    assert_eq!(game.ask_with_key(REFUND, "r-1", refund.clone()).await, refunded);
    assert_eq!(reason(&game.ask_with_key(REFUND, "r-2", refund).await), "already_refunded");
    assert_eq!(balance(&game).await, 980);
}

#[tokio::test]
async fn what_cannot_be_refunded_says_why() {
    let game = Replicas::embedded(&[]).await;
    let credited = game.ask(CREDIT, debit(5)).await;
    let refund = |reply: &Value| json!({ "transaction_id": reply["transaction_id"] });
    assert_eq!(reason(&game.ask(REFUND, refund(&credited)).await), "not_refundable");
    let paid = game.ask(PROCESS, debit(5)).await;
    let too_much = game.ask(CREDIT, debit(i32::MAX)).await;
    assert_eq!(too_much["error"]["code"], "OUT_OF_RANGE");
    game.pass(30 * 24 * HOUR + Duration::from_millis(1));
    assert_eq!(reason(&game.ask(REFUND, refund(&paid)).await), "too_old");
    let unknown = game.ask(REFUND, json!({ "transaction_id": "txn_0" })).await;
    assert_eq!(unknown["error"]["code"], "NOT_FOUND");
}

#[tokio::test]
async fn each_movement_is_told_once_and_listed_newest_first() {
    let game = Replicas::embedded(&[]).await;
    let sold = json!({ "player_id": "p1", "currency_type": "credits", "amount": 300, "item_id": "scalpel" });
    let paid = game.ask_with_key(PROCESS, "k-1", sold.clone()).await;
    game.ask_with_key(PROCESS, "k-1", sold).await;
    game.ask(REFUND, json!({ "transaction_id": paid["transaction_id"] })).await;
    let credited = game.ask(CREDIT, debit(7)).await;
    let told: Vec<(String, String)> = game
        .events("GAME_EVENTS", "evt.payment.completed.v1", 3)
        .await
        .into_iter()
        .map(|(id, metadata)| {
            let words = metadata.into_iter().map(|(name, value)| format!("{name}={value}"));
            (id, words.collect::<Vec<_>>().join(" "))
        })
        .collect();
    let (paid_id, credit_id) = ("txn_d5d7615202588589", credited["transaction_id"].as_str().unwrap());
    let common = "currency_type=credits";
    assert_eq!(
        told,
        [
            (format!("{paid_id}:debit"), format!("amount=300 {common} item_id=scalpel kind=debit player_id=p1")),
            (format!("{paid_id}:refund"), format!("amount=300 {common} item_id=scalpel kind=refund player_id=p1")),
            (format!("{credit_id}:credit"), format!("amount=7 {common} kind=credit player_id=p1")),
        ]
    );
    let rows: Vec<Value> = movements(&game)
        .await
        .iter()
        .map(|row| json!([row["kind"], row["amount"], row["balance_after"], row["refunded"]]))
        .collect();
    assert_eq!(
        rows,
        [json!(["credit", 7, 1_007, null]), json!(["refund", 300, 1_000, null]), json!(["debit", 300, 700, true])]
    );
}

#[tokio::test]
async fn a_watch_tells_the_balance_then_each_movement() {
    let game = Replicas::embedded(&[]).await;
    let watch = json!({ "player_id": "p1", "currency_type": "credits" });
    let pay = async { drop(game.ask(PROCESS, debit(300)).await) };
    let chunks = game.chunks("svc.payment.v1.watch", watch, [1, 1], pay).await;
    let told: Vec<(&Value, bool)> =
        chunks.iter().map(|chunk| (&chunk["balance"], chunk["transaction_id"].is_string())).collect();
    assert_eq!(told, [(&json!(1_000), false), (&json!(700), true)]);
}

async fn a_watch_of_one_currency_hears_of_no_other_and_goes_on_where_it_was(game: Replicas) {
    let move_both = async {
        game.ask(PROCESS, debit(300)).await;
        game.ask(CREDIT, json!({ "player_id": "p1", "currency_type": "vitae", "amount": 7 })).await;
    };
    let watch = |currency: &str, after: &Value| json!({ "player_id": "p1", "currency_type": currency, "after_revision": after });
    let told = |chunks: &[Value]| -> Vec<Value> {
        chunks.iter().map(|chunk| json!([chunk["currency_type"], chunk["balance"]])).collect()
    };
    let chunks = game.chunks("svc.payment.v1.watch", watch("vitae", &json!("0")), [1, 1], move_both).await;
    assert_eq!(told(&chunks), [json!(["vitae", null]), json!(["vitae", 7])]);
    assert!(chunks[0].get("revision").is_none(), "nothing is stored of a wallet without movements");
    let all = game.chunks("svc.payment.v1.watch", watch("", &json!("0")), [2, 0], async {}).await;
    assert_eq!(told(&all), [json!(["credits", 700]), json!(["vitae", 7])]);
    // Behind a movement there is nothing to open with.
    game.ask(PROCESS, debit(1)).await;
    let later = game.chunks("svc.payment.v1.watch", watch("credits", &all[0]["revision"]), [1, 0], async {}).await;
    assert_eq!(told(&later), [json!(["credits", 699])]);
    let later = game.chunks("svc.payment.v1.watch", watch("", &all[0]["revision"]), [2, 0], async {}).await;
    assert_eq!(told(&later), [json!(["vitae", 7]), json!(["credits", 699])]);
}

#[tokio::test]
async fn a_list_has_the_movements_of_one_player_in_one_currency_or_in_all() {
    let game = Replicas::embedded(&[]).await;
    let listed = async |player: &str, currency: &str| -> Vec<Value> {
        let reply = game.ask(LIST, json!({ "player_id": player, "currency_type": currency })).await;
        let rows = reply["transactions"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| json!([row["kind"], row["currency_type"], row["amount"]])).collect()
    };
    let credit = |player: &str| json!({ "player_id": player, "currency_type": "vitae", "amount": 7 });
    game.ask(PROCESS, debit(300)).await;
    game.pass(Duration::from_secs(1));
    game.ask(CREDIT, credit("p1")).await;
    let [paid, credited] = [json!(["debit", "credits", 300]), json!(["credit", "vitae", 7])];
    support::eventually("every replica lists both", async || {
        let both = [listed("p1", "").await, listed("p1", "").await];
        both.iter().all(|rows| *rows == [credited.clone(), paid.clone()])
    })
    .await;
    assert_eq!(listed("p1", "credits").await, [paid]);
    assert_eq!(listed("p1", "vitae").await, std::slice::from_ref(&credited));
    assert_eq!(listed("p1", "aether").await, [json!(null); 0]);
    // The index of transactions and the coupons lie where the movements of such players do.
    for player in ["tx", "coupon"] {
        game.ask(CREDIT, credit(player)).await;
        support::eventually("a player called as the index has a list", async || {
            listed(player, "").await == std::slice::from_ref(&credited)
        })
        .await;
    }
    let refused = game.ask(LIST, json!({ "player_id": "p1", "currency_type": "No!" })).await;
    assert_eq!(refused["error"]["details"], json!({ "field": "currency_type", "reason": "bad_format" }));
}

#[tokio::test]
async fn others_wallets_are_closed_and_credits_are_for_admins() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let code = |reply: Value| reply["error"]["code"].as_str().unwrap_or("OK").to_owned();
    assert_eq!(code(game.ask_from_edge(PROCESS, "p1", "", debit(10)).await), "OK");
    assert_eq!(code(game.ask_from_edge(PROCESS, "p2", "", debit(10)).await), "PERMISSION_DENIED");
    let movements = json!({ "player_id": "p1" });
    assert_eq!(code(game.ask_from_edge(LIST, "p1", "", movements.clone()).await), "OK");
    assert_eq!(code(game.ask_from_edge(LIST, "p2", "", movements).await), "PERMISSION_DENIED");
    assert_eq!(code(game.ask_from_edge(CREDIT, "p1", "user", debit(10)).await), "PERMISSION_DENIED");
    assert_eq!(code(game.ask_from_edge(CREDIT, "p9", "admin", debit(10)).await), "OK");
    let paid = game.ask(PROCESS, debit(10)).await;
    let refund = json!({ "transaction_id": paid["transaction_id"] });
    assert_eq!(code(game.ask_from_edge(REFUND, "p2", "", refund).await), "PERMISSION_DENIED");
}

#[tokio::test]
async fn whose_wallet_it_is_not_is_told_nothing_else() {
    let game =
        Replicas::embedded(&[("auth.enforce", json!(true)), ("payment.require_idempotency_key", json!(true))]).await;
    let reason_of = async |user: &str| reason(&game.ask_from_edge(PROCESS, user, "", debit(10)).await).to_owned();
    assert_eq!(reason_of("p1").await, "required");
    assert_eq!(reason_of("p2").await, "not_owner");
}

#[tokio::test]
async fn the_sweeper_does_what_a_dead_replica_left_as_often_as_it_is_told_to() {
    let game = Replicas::embedded(&[("common.sweep", json!("100ms"))]).await;
    let wallet = json!({ "currency_type": "credits", "opening_balance": 1_000, "balance": 990, "seq": 1, "transaction_id": "t" });
    let index = json!({ "player_id": "p1", "currency_type": "credits", "seq": 1 });
    game.leave_behind("tg_wallets", "_.p1.credits", wallet, &[("tg_ledger", "_.tx.t", index)]).await;
    let ledger = game.bucket("tg_ledger").await;
    let swept = support::eventually("it is written", async || ledger.get("_.tx.t").await.unwrap().is_some());
    tokio::time::timeout(Duration::from_secs(5), swept).await.expect("before the default's ten seconds");
}
