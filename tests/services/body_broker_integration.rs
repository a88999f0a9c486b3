//! What the documented examples do not show of the trade: races for parts and deals between two replicas, reservations
//! that lapse, families that unlock, wallets credited after a crash, mixtures, deaths, streams, who may do what.

use crate::support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::eventually;
use support::place::on_each_bus;
use support::replicas::Replicas;
use tidegate::store::{Expected, Keys};

const HARVEST: &str = "svc.broker.v1.harvest";
const NEGOTIATE: &str = "svc.broker.v1.negotiate";
const COMPLETE: &str = "svc.broker.v1.complete_deal";
const PROFILE: &str = "svc.broker.v1.get_profile";
const HOUR: Duration = Duration::from_secs(3_600);

fn harvest(player: &str, parts: &[&str]) -> Value {
    json!({ "player_id": player, "target_id": "npc_1", "body_parts": parts, "tool_used": "scalpel" })
}

/// An offer of pristine hearts without an owner, to a family.
fn offer(family: &str) -> Value {
    let heart = json!({ "part_type": "heart", "quality": "pristine", "freshness": 1 });
    json!({ "player_id": "p1", "family_id": family, "offered_parts": [heart] })
}

fn complete(deal: &Value) -> Value {
    json!({ "player_id": "p1", "deal_id": deal["deal_id"] })
}

fn code(reply: &Value) -> &str {
    reply["error"]["code"].as_str().unwrap_or("OK")
}

fn reason(reply: &Value) -> &str {
    reply["error"]["details"]["reason"].as_str().unwrap_or_default()
}

async fn profile(game: &Replicas) -> Value {
    game.ask(PROFILE, json!({ "player_id": "p1" })).await["profile"].clone()
}

async fn a_part_is_taken_once_and_a_refused_harvest_takes_nothing(game: Replicas) {
    let players: Vec<String> = (0..12).map(|number| format!("p{number}")).collect();
    let replies = join_all(players.iter().map(|player| game.ask(HARVEST, harvest(player, &["heart", "kidney"])))).await;
    let won = replies.iter().filter(|reply| code(reply) == "OK").count();
    assert_eq!(won, 1);
    for reply in replies.iter().filter(|reply| code(reply) != "OK") {
        assert_eq!((code(reply), &reply["error"]["details"]["parts"]), ("CONFLICT", &json!("heart")));
    }
    // The losers' kidneys are where they were: one of two is left.
    assert_eq!(code(&game.ask(HARVEST, harvest("p1", &["kidney"])).await), "OK");
    assert_eq!(code(&game.ask(HARVEST, harvest("p2", &["kidney"])).await), "CONFLICT");
}

#[tokio::test]
async fn what_is_gone_of_a_target_is_named_once() {
    let game = Replicas::embedded(&[]).await;
    let all = ["kidney", "heart", "kidney"];
    assert_eq!(code(&game.ask(HARVEST, harvest("p1", &all)).await), "OK");
    let refused = game.ask(HARVEST, harvest("p2", &all)).await;
    assert_eq!((code(&refused), &refused["error"]["details"]["parts"]), ("CONFLICT", &json!("kidney,heart")));
}

#[tokio::test]
async fn a_harvest_that_filled_the_inventory_is_found_by_its_repeat() {
    let game = Replicas::embedded(&[]).await;
    let first = game.ask_with_key(HARVEST, "h-1", harvest("p1", &["bone"])).await;
    // As it is when the inventory held 999 parts before, and the replica died before it kept the reply.
    let entries = game.bucket("tg_broker").await;
    let record = entries.get("_.profile.p1").await.unwrap().unwrap();
    let mut left: Value = serde_json::from_slice(&record.value).unwrap();
    let parts = left["value"]["Profile"]["parts"].as_object_mut().unwrap();
    let bone = parts.values().next().unwrap().clone();
    parts.extend((0..999).map(|number| (format!("part_{number}"), bone.clone())));
    entries.put("_.profile.p1", left.to_string().into(), Expected::Any).await.unwrap();
    let kept = game.bucket("tg_idem").await;
    for reply in kept.list(&Keys::All).await.unwrap() {
        kept.delete(&reply.key, Expected::Any).await.unwrap();
    }
    assert_eq!(game.ask_with_key(HARVEST, "h-1", harvest("p1", &["bone"])).await, first);
    assert_eq!(reason(&game.ask(HARVEST, harvest("p1", &["bone"])).await), "inventory_full");
}

async fn a_deal_is_paid_once_however_many_complete_it(game: Replicas) {
    let deal = game.ask(NEGOTIATE, offer("carrion_kin")).await;
    let replies = join_all((0..12).map(|_| game.ask(COMPLETE, complete(&deal)))).await;
    for reply in &replies {
        assert_eq!((code(reply), &reply["quantities"]["grave_dust"]), ("OK", &json!(2_400)));
    }
    eventually("the profile is the newest one", async || {
        let profile = profile(&game).await;
        profile["drugs"]["grave_dust"] == 2_400 && profile["deals"]["carrion_kin"] == 1
    })
    .await;
}

on_each_bus!(
    |place| (Replicas::at(place, &[]).await);
    a_part_is_taken_once_and_a_refused_harvest_takes_nothing,
    a_deal_is_paid_once_however_many_complete_it,
);

#[tokio::test]
async fn a_rusty_hurried_shotgun_harvest_is_junk() {
    let game = Replicas::embedded(&[]).await;
    let context = json!({ "method": "SHOTGUN_BLAST", "skill": "0", "time_pressure": "true" });
    let mut request = harvest("p1", &["heart"]);
    request["tool_used"] = "rusty_saw".into();
    request["context"] = context;
    let reply = game.ask_with_key(HARVEST, "h-1", request.clone()).await;
    let heart = &reply["harvested_parts"][0];
    let seen = json!([heart["quality"], heart["properties"]["value"], heart["properties"]["score"]]);
    assert_eq!((seen, &reply["skill_xp_gained"]), (json!(["junk", "12500", "-0.1"]), &json!(2.5)));
    assert_eq!(game.ask_with_key(HARVEST, "h-1", request).await, reply);
    let profile = profile(&game).await;
    assert_eq!((&profile["counters"]["neutral"], &profile["skill_xp"]), (&json!(1), &json!(2.5)));
    let told = game.events("GAME_EVENTS", "evt.broker.harvest.completed.v1", 1).await;
    assert_eq!((&*told[0].1["target_id"], &*told[0].1["path"]), ("npc_1", "mixed"));
}

#[tokio::test]
async fn a_part_in_an_open_deal_is_free_again_when_the_deal_lapses() {
    let game = Replicas::embedded(&[]).await;
    let taken = game.ask(HARVEST, harvest("p1", &["heart"])).await;
    let mut request = offer("carrion_kin");
    request["offered_parts"] = taken["harvested_parts"].clone();
    let deal = game.ask(NEGOTIATE, request.clone()).await;
    assert_eq!(deal["accepted"], true);
    assert_eq!(reason(&game.ask(NEGOTIATE, request.clone()).await), "part_unavailable");
    game.pass(HOUR);
    assert_eq!(reason(&game.ask(COMPLETE, complete(&deal)).await), "expired");
    let again = game.ask(NEGOTIATE, request.clone()).await;
    assert_eq!(code(&game.ask(COMPLETE, complete(&again)).await), "OK");
    assert_eq!(reason(&game.ask(NEGOTIATE, request).await), "part_unavailable");
    assert_eq!(profile(&game).await.get("parts"), None);
}

#[tokio::test]
async fn strict_inventories_take_no_offer_at_its_word() {
    let game = Replicas::embedded(&[("body-broker-integration.strict_inventory", json!(true))]).await;
    assert_eq!(reason(&game.ask(NEGOTIATE, offer("carrion_kin")).await), "part_unavailable");
}

#[tokio::test]
async fn three_deals_unlock_the_next_family_and_hostility_lasts_a_day() {
    let game = Replicas::embedded(&[]).await;
    assert_eq!(reason(&game.ask(NEGOTIATE, offer("stitch_guild")).await), "family_locked");
    for _ in 0..3 {
        let deal = game.ask(NEGOTIATE, offer("chatter_swarm")).await;
        assert_eq!(code(&game.ask(COMPLETE, complete(&deal)).await), "OK");
    }
    assert_eq!(code(&game.ask(NEGOTIATE, offer("stitch_guild")).await), "OK");
    let shown = game.ask_as(PROFILE, json!({}), json!({ "player_id": "p1" })).await;
    let book = &shown["meta"]["labels"];
    assert_eq!((&book["book.chatter_swarm"], &book["book.moon_clans"]), (&json!("familiarity"), &json!("whispers")));
    let mut insult = offer("carrion_kin");
    insult["offered_parts"] = json!([{ "part_type": "skin", "quality": "junk", "freshness": 0.5 }]);
    insult["context"] = json!({ "charisma": "1", "tactics": "logic" });
    assert_eq!(game.ask(NEGOTIATE, insult).await["outcome"], "hostile");
    let refused = game.ask(NEGOTIATE, offer("carrion_kin")).await;
    assert_eq!((reason(&refused), &refused["error"]["details"]["retry_after_ms"]), ("hostile", &json!("86400000")));
    game.pass(24 * HOUR);
    // Reputation 0: the heart's 0.4 less 0.5.
    assert_eq!(game.ask(NEGOTIATE, offer("carrion_kin")).await["outcome"], "fair");
}

#[tokio::test]
async fn a_deal_credits_the_wallet_once_also_after_a_crash() {
    let settings = [("body-broker-integration.credit_wallet", json!(true)), ("common.sweep", json!("1s"))];
    let game = Replicas::embedded(&settings).await;
    let balance = async || {
        let wallet = json!({ "player_id": "p1", "currency_type": "grave_dust", "amount": 1 });
        game.ask("svc.payment.v1.validate", wallet).await["current_balance"].clone()
    };
    let deal = game.ask(NEGOTIATE, offer("carrion_kin")).await;
    game.ask(COMPLETE, complete(&deal)).await;
    assert_eq!(balance().await, 2_400);
    // As a replica leaves it that dies behind the profile's write.
    let entries = game.bucket("tg_broker").await;
    let record = entries.get("_.profile.p1").await.unwrap().unwrap();
    let mut left: Value = serde_json::from_slice(&record.value).unwrap();
    let profile = &mut left["value"]["Profile"];
    assert_eq!(profile["owed"], json!({}));
    profile["owed"][deal["deal_id"].as_str().unwrap()] = json!({ "drug": "grave_dust", "units": 2_400 });
    profile["owed"]["deal_of_the_dead"] = json!({ "drug": "grave_dust", "units": 100 });
    let value = profile.take();
    game.leave_behind("tg_broker", "_.profile.p1", json!({ "Profile": value }), &[]).await;
    eventually("the payer pays", async || balance().await == 2_500).await;
    eventually("nothing is owed any more", async || {
        let record = entries.get("_.profile.p1").await.unwrap().unwrap();
        !String::from_utf8_lossy(&record.value).contains("deal_of_the_dead")
    })
    .await;
    assert_eq!(balance().await, 2_500);
}

#[tokio::test]
async fn drugs_mix_by_the_table_in_any_order() {
    let game = Replicas::embedded(&[]).await;
    let mix = async |first: &str, second: &str| {
        game.ask("svc.broker.v1.mix", json!({ "player_id": "p1", "first": first, "second": second })).await
    };
    assert_eq!(mix("moon_wine", "grave_dust").await, json!({ "result": "grave_dust", "potency": 1.5 }));
    assert_eq!(mix("aether", "still_blood").await, json!({ "fatal": true }));
    assert_eq!(code(&mix("vitae", "aether").await), "FAILED_PRECONDITION");
    assert_eq!(reason(&mix("vitae", "water").await), "unknown_value");
}

#[tokio::test]
async fn deaths_fray_the_veil_until_a_major_deal() {
    let game = Replicas::embedded(&[]).await;
    let death = async |tithe: i32| {
        let reply = game
            .ask("svc.broker.v1.record_death", json!({ "player_id": "p1", "world": "dark", "tithe_value": tithe }))
            .await;
        json!([reply["veil_fray_level"], reply["stat_penalty"], reply["area_pacified"]])
    };
    let deaths = [death(0).await, death(9).await, death(10).await, death(0).await];
    assert_eq!(deaths, [json!([1, 0.1, null]), json!([2, 0.25, null]), json!([3, 0.4, true]), json!([4, 0.4, null])]);
    let deal = game.ask(NEGOTIATE, offer("carrion_kin")).await;
    game.ask(COMPLETE, complete(&deal)).await;
    assert_eq!(death(0).await, json!([1, 0.1, null]));
}

#[tokio::test]
async fn a_watch_tells_the_profile_then_what_changes_it() {
    let game = Replicas::embedded(&[]).await;
    let trade = async {
        game.ask(HARVEST, harvest("p1", &["bone"])).await;
    };
    let chunks = game.chunks("svc.broker.v1.watch", json!({ "player_id": "p1" }), [1, 1], trade).await;
    let told: Vec<(&Value, usize)> = chunks
        .iter()
        .map(|chunk| (&chunk["change"], chunk["profile"]["parts"].as_array().map_or(0, Vec::len)))
        .collect();
    assert_eq!(told, [(&Value::Null, 0), (&json!("harvest"), 1)]);
}

#[tokio::test]
async fn a_watch_tells_a_deal_once_also_where_its_drug_is_credited() {
    let game = Replicas::embedded(&[("body-broker-integration.credit_wallet", json!(true))]).await;
    let trade = async {
        let deal = game.ask(NEGOTIATE, offer("carrion_kin")).await;
        game.ask(COMPLETE, complete(&deal)).await;
    };
    let chunks = game.chunks("svc.broker.v1.watch", json!({ "player_id": "p1" }), [1, 3], trade).await;
    let told: Vec<&Value> = chunks[1..].iter().map(|chunk| &chunk["change"]).collect();
    assert_eq!(told, ["negotiation", "deal", "credit"]);
}

#[tokio::test]
async fn the_whole_request_is_checked_before_the_family_is_looked_up() {
    let game = Replicas::embedded(&[]).await;
    let mut request = offer("nobody");
    assert_eq!(code(&game.ask(NEGOTIATE, request.clone()).await), "NOT_FOUND");
    request["context"] = json!({ "temper": "2" });
    assert_eq!(code(&game.ask(NEGOTIATE, request).await), "OUT_OF_RANGE");
}

#[tokio::test]
async fn nobody_trades_for_others() {
    let game = Replicas::embedded(&[("auth.enforce", json!(true))]).await;
    let player = json!({ "player_id": "p1" });
    for (subject, request) in
        [(HARVEST, harvest("p1", &["heart"])), (NEGOTIATE, offer("carrion_kin")), (PROFILE, player)]
    {
        assert_eq!(code(&game.ask_from_edge(subject, "p2", "", request.clone()).await), "PERMISSION_DENIED");
        assert_eq!(code(&game.ask_from_edge(subject, "p1", "", request).await), "OK");
    }
}
