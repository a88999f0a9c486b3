//! The trade at the heart of the game: parts are harvested, offered to a family, and paid in drugs. No chance at all:
//! equal inputs and profile give equal results.

mod deals;
mod harvest;
mod messages;
mod negotiate;
mod profile;
mod reads;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{invalid, out_of_range, own_player, unknown_value};
use super::notices::records;
use super::settings::LiveSettings;
use crate::fault::Fault;
use crate::store::{Bucket, BucketConfig, Store, key};
use crate::worker::records::{Change, Current, Records, RecordsConfig};
use crate::worker::{Context, Failed, Repeats, Service};
use profile::Profile;

/// Name of the bucket of deals.
const DEALS: &str = "tg_deals";

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let day = std::time::Duration::from_secs(24 * 3_600);
    let deals = store.bucket(BucketConfig { name: DEALS, ttl: Some(day), history: 2 }).await?;
    let players = records(settings, BucketConfig { name: "tg_broker", ttl: None, history: 4 });
    let players = RecordsConfig { others: vec![(DEALS, deals.clone())], ..players };
    let broker = Broker {
        entries: Records::open(store, players).await?,
        deals,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("body-broker-integration", VERSION)
        .keeping(&broker.entries)
        .sweeping("sweeper", &broker.entries)
        .sharing(broker)
        .unary("body_broker.v1.BodyBrokerService/Harvest", Broker::harvest)
        .unary("body_broker.v1.BodyBrokerService/Negotiate", Broker::negotiate)
        .unary("body_broker.v1.BodyBrokerService/CompleteDeal", Broker::complete)
        .hook_get("body_broker.v1.BodyBrokerService/GetProfile", Broker::profile)
        .guarded("body_broker.v1.BodyBrokerService/GetProfile", "player_id", own_player(settings))
        .unary("body_broker.v1.BodyBrokerService/MixDrugs", Broker::mix)
        .unary("body_broker.v1.BodyBrokerService/RecordDeath", Broker::record_death)
        .hook_watch("body_broker.v1.BodyBrokerService/WatchBroker", Broker::watch)
        .guarded("body_broker.v1.BodyBrokerService/WatchBroker", "player_id", own_player(settings))
        .task("payer", Broker::pay_what_is_owed)
        .done())
}

struct Broker {
    entries: Records<Entry>,
    /// The terms of deals, which profiles put there.
    deals: Bucket,
    repeats: Repeats,
    settings: LiveSettings,
}

/// What the bucket holds: players' profiles, and what has been taken from targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Entry {
    Profile(Box<Profile>),
    Target(Target),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Target {
    /// Parts taken so far.
    taken: BTreeMap<String, u32>,
    /// Players who have taken some.
    harvesters: BTreeSet<String>,
}

impl Entry {
    fn profile(self) -> Option<Profile> {
        match self {
            Entry::Profile(profile) => Some(*profile),
            Entry::Target(_) => None,
        }
    }
}

impl Broker {
    /// The profile in a record, for a rule to change; a player without one begins with an empty one.
    fn current(context: &Context, player_id: &str, current: &Current<Entry>, change: &str) -> Profile {
        let profile = current.value.clone().and_then(Entry::profile);
        let mut profile = profile.unwrap_or_else(|| Profile::new(context, player_id));
        profile.forget(current.now_ms);
        change.clone_into(&mut profile.change);
        profile
    }

    /// The profile as a rule has changed it.
    fn changed<R>(profile: Profile, reply: R) -> Change<Entry, R> {
        Change::put(Entry::Profile(Box::new(profile)), reply)
    }

    /// Changes a profile as a rule says.
    async fn change<R: Serialize + serde::de::DeserializeOwned>(
        &self,
        context: &Context,
        player_id: &str,
        rule: impl Fn(&Current<Entry>) -> Result<Change<Entry, R>, Failed<R>>,
    ) -> Result<R, Failed<R>> {
        Ok(self.entries.change(context, &place(context, player_id), rule).await?.reply)
    }
}

/// Key of a profile.
fn place(context: &Context, player_id: &str) -> String {
    key(&[context.tenant(), "profile", player_id])
}

/// The row that a word names, without case; the default one where there is no word.
fn row<'t, T>(
    field: &str,
    word: &str,
    rows: &'t [(&'static str, T)],
    default: usize,
) -> Result<&'t (&'static str, T), Fault> {
    if word.is_empty() {
        return Ok(&rows[default]);
    }
    rows.iter().find(|row| row.0.eq_ignore_ascii_case(word)).ok_or_else(|| {
        let allowed: Vec<&str> = rows.iter().map(|row| row.0).collect();
        unknown_value(field, format!("unknown {field} {word}"), &allowed)
    })
}

/// A number in a map of texts; the default where it is not there.
fn number(map: &BTreeMap<String, String>, name: &str, default: f64, min: f64, max: f64) -> Result<f64, Fault> {
    let Some(text) = map.get(name) else { return Ok(default) };
    number_of(&format!("context.{name}"), text, min, max)
}

fn number_of(field: &str, text: &str, min: f64, max: f64) -> Result<f64, Fault> {
    let number: f64 =
        text.trim().parse().map_err(|_| invalid(field, "bad_format", format!("{field} must be a number")))?;
    // NaN is in no range.
    if (min..=max).contains(&number) { Ok(number) } else { Err(out_of_range(field, min, max)) }
}
