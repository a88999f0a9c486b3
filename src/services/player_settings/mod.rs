//! Settings of players with typed defaults: what a player has set is stored, everything else is the default.

mod keys;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checks::{admin, invalid, player, unknown_value};
use super::notices::{notice, records};
use super::settings::{LiveSettings, UnknownKeys};
use super::{Settings, VERSION};
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Keys, Store, key};
use crate::worker::records::{Change, Current, EventId, Notice, RecordSeen, Records};
use crate::worker::{Chunks, Context, Failed, Repeats, Service};
use keys::{Kind, is_computed, is_for_admins, is_key, known};
use view::View;

/// Settings in one request.
const SETTINGS_MAX: usize = 100;
/// Keys outside of the table that a player may have.
const OWN_KEYS_MAX: usize = 200;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_settings", ttl: None, history: 8 };
    let players = Players {
        overrides: Records::open(store, records(bucket)).await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("settings", VERSION)
        .sharing(players)
        .unary("settings.v1.SettingsService/GetSettings", Players::get)
        .unary("settings.v1.SettingsService/UpdateSettings", Players::update)
        .unary("settings.v1.SettingsService/ResetSettings", Players::reset)
        .stream("settings.v1.SettingsService/WatchSettings", Players::watch)
        .task("sweeper", Players::sweep)
        .done())
}

struct Players {
    overrides: Records<Overrides>,
    repeats: Repeats,
    settings: LiveSettings,
}

/// What a player has set, by key.
type Overrides = BTreeMap<String, Override>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Override {
    value_type: String,
    value: String,
    modified_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Setting {
    key: String,
    value_type: String,
    value: String,
    is_default: bool,
    last_modified_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Get {
    player_id: String,
    setting_keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Got {
    settings: Vec<Setting>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Update {
    player_id: String,
    settings: Vec<Setting>,
    merge: bool,
    expected_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Updated {
    updated_count: i32,
    updated_keys: Vec<String>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Reset {
    player_id: String,
    setting_keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct WasReset {
    reset_count: i32,
    reset_keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Watch {
    player_id: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Item {
    revision: u64,
    settings: Vec<Setting>,
}

impl Players {
    async fn get(self: Arc<Self>, context: Context, request: Get) -> Result<Got, Fault> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let key = key(&[context.tenant(), &request.player_id]);
        let stored = self.overrides.get_cached(&context, &key).await?;
        let (overrides, revision) = stored.map_or_else(Default::default, |stored| (stored.value, stored.revision));
        let view = View { context: &context, player_id: &request.player_id, settings: &settings.settings };
        Ok(Got { settings: view.wanted(&overrides, &request.setting_keys), revision })
    }

    async fn update(self: Arc<Self>, context: Context, request: Update) -> Result<Updated, Failed<Updated>> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let given = check_settings(&context, &settings, &request)?;
        let keys: Vec<String> = given.keys().cloned().collect();
        let place = key(&[context.tenant(), &request.player_id]);
        let rule = |current: &Current<Overrides>| {
            if request.expected_revision > 0 && request.expected_revision != current.revision {
                let text = format!("revision is {}, expected {}", current.revision, request.expected_revision);
                return Err(Fault::client(Code::FailedPrecondition, text)
                    .detail("reason", "revision_mismatch")
                    .detail("current_revision", current.revision.to_string())
                    .into());
            }
            let before = current.value.clone().unwrap_or_default();
            let mut after = if request.merge { before.clone() } else { Overrides::new() };
            for (key, (kind, value)) in &given {
                let (value_type, modified_ms) = (kind.name().to_owned(), current.now_ms);
                after.insert(key.clone(), Override { value_type, value: value.clone(), modified_ms });
            }
            // What only admins set, only admins replace.
            if before.keys().any(|key| is_for_admins(key) && !after.contains_key(key)) {
                admin(&context, settings.auth.enforce)?;
            }
            if after.keys().filter(|key| known(key).is_none()).count() > OWN_KEYS_MAX {
                let text = format!("a player has at most {OWN_KEYS_MAX} keys of its own");
                return Err(invalid("settings", "too_many", text).into());
            }
            let reply = Updated { updated_count: keys.len() as i32, updated_keys: keys.clone(), revision: 0 };
            let told = self.told(&context, &settings, &request.player_id, [&before, &after], "update")?;
            let change = Change::put(after, reply);
            Ok(if let Some(notice) = told { change.event(notice) } else { change })
        };
        let write = async {
            let done = self.overrides.change(&context, &place, rule).await?;
            Ok(Updated { revision: done.revision, ..done.reply })
        };
        self.repeats.once(&context, write).await
    }

    async fn reset(self: Arc<Self>, context: Context, request: Reset) -> Result<WasReset, Failed<WasReset>> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let place = key(&[context.tenant(), &request.player_id]);
        let is_meant = |key: &str| {
            request.setting_keys.is_empty() || request.setting_keys.iter().any(|wanted| view::names(wanted, key))
        };
        let rule = |current: &Current<Overrides>| {
            let before = current.value.clone().unwrap_or_default();
            let (gone, after): (Overrides, Overrides) = before.clone().into_iter().partition(|(key, _)| is_meant(key));
            if gone.keys().any(|key| is_for_admins(key)) {
                admin(&context, settings.auth.enforce)?;
            }
            let reset_keys: Vec<String> = gone.into_keys().collect();
            let reply = WasReset { reset_count: reset_keys.len() as i32, reset_keys };
            if reply.reset_keys.is_empty() {
                return Ok(Change::nothing(reply));
            }
            let told = self.told(&context, &settings, &request.player_id, [&before, &after], "reset")?;
            let change = Change::put(after, reply);
            Ok(if let Some(notice) = told { change.event(notice) } else { change })
        };
        let write = async { Ok(self.overrides.change(&context, &place, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }

    async fn watch(self: Arc<Self>, context: Context, request: Watch, mut chunks: Chunks<Item>) -> Result<(), Fault> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let place = key(&[context.tenant(), &request.player_id]);
        let view = View { context: &context, player_id: &request.player_id, settings: &settings.settings };
        let mut watch = self.overrides.watch(Keys::One(place), Some(request.after_revision)).await?;
        if watch.is_reset() {
            context.label("reset", "true");
        }
        let begins = request.after_revision == 0 || watch.is_reset();
        // What the reader has, once it has been told everything; a resumed reader has it already.
        let mut shown: Option<Vec<Setting>> = None;
        loop {
            let seen = tokio::select! {
                seen = watch.next(&context) => seen?,
                _ = context.until_cancelled() => return Ok(()),
            };
            let (overrides, revision) = match seen {
                RecordSeen::Change { document, revision, .. } => {
                    (document.map(|document| document.value).unwrap_or_default(), revision)
                }
                // Nothing is stored: everything is a default.
                RecordSeen::Current if shown.is_none() && begins => (Overrides::new(), 0),
                RecordSeen::Current => continue,
            };
            let all = view.wanted(&overrides, &[]);
            let settings = match &shown {
                Some(before) => all.iter().filter(|setting| !before.contains(setting)).cloned().collect(),
                None => all.clone(),
            };
            shown = Some(all);
            chunks.send(&Item { revision, settings }).await?;
        }
    }

    /// The event of the keys whose effective value has changed; nothing where none has.
    fn told(
        &self,
        context: &Context,
        settings: &Settings,
        player_id: &str,
        [before, after]: [&Overrides; 2],
        cause: &str,
    ) -> Result<Option<Notice>, Fault> {
        let view = View { context, player_id, settings: &settings.settings };
        let [old, new] = [before, after].map(|overrides| view.effective(overrides));
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed: Vec<&String> = keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = changed.iter().map(|key| (*key).clone()).collect();
        let payload = Got { settings: view.wanted(after, &names), revision: 0 };
        let id = EventId::AtRevision(player_id.to_owned());
        let notice = notice(context, "evt.settings.changed.v1", id, "settings.v1.GetResponse", &payload)?
            .with("player_id", player_id)
            .with("changed_keys", names.join(","))
            .with("cause", cause);
        let was = |key: &String| (format!("old.{key}"), old.get(key).cloned().unwrap_or_default());
        Ok(Some(names.iter().map(was).fold(notice, |notice, (name, value)| notice.with(&name, value))))
    }

    async fn sweep(self: Arc<Self>, context: Context) {
        self.overrides.sweeper(&context).await;
    }
}

/// The settings of an update, by key: the last one of a key counts.
fn check_settings(
    context: &Context,
    settings: &Settings,
    request: &Update,
) -> Result<BTreeMap<String, (Kind, String)>, Fault> {
    if request.settings.is_empty() {
        return Err(invalid("settings", "required", "settings is required: use reset to take settings back"));
    }
    if request.settings.len() > SETTINGS_MAX {
        return Err(invalid("settings", "too_many", format!("at most {SETTINGS_MAX} settings in one request")));
    }
    let mut given = BTreeMap::new();
    for (index, setting) in request.settings.iter().enumerate() {
        let (key, at) = (&setting.key, |name: &str| format!("settings[{index}].{name}"));
        if is_for_admins(key) {
            admin(context, settings.auth.enforce)?;
        }
        if is_computed(key) {
            return Err(Fault::client(Code::FailedPrecondition, format!("{key} is computed"))
                .detail("field", at("key"))
                .detail("reason", "read_only"));
        }
        let kind = match known(key) {
            Some(row) => Some(row.kind),
            None if settings.settings.unknown_keys == UnknownKeys::Refuse => {
                return Err(invalid(&at("key"), "unknown_value", format!("there is no setting {key}")));
            }
            None if !is_key(key) => {
                let text = "a key has 1 to 64 of a to z, 0 to 9, `_`, `.` and `-`";
                return Err(invalid(&at("key"), "bad_format", text));
            }
            None => Kind::of_name(&setting.value_type),
        };
        let kind =
            kind.filter(|kind| setting.value_type.is_empty() || kind.name().eq_ignore_ascii_case(&setting.value_type));
        let Some(kind) = kind else {
            let allowed =
                known(key).map_or_else(|| vec!["string", "int", "bool", "float"], |row| vec![row.kind.name()]);
            let text = format!("{key} is of type {}", allowed.join(" or "));
            return Err(unknown_value(&at("value_type"), text, &allowed));
        };
        given.insert(key.clone(), (kind, kind.canonical(key, &at("value"), &setting.value)?));
    }
    Ok(given)
}
