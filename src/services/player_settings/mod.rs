//! Settings of players with typed defaults: what a player has set is stored, everything else is the default.

mod keys;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checks::{admin, invalid, own_player, player, unknown_value};
use super::notices::{notice, records};
use super::settings::{LiveSettings, UnknownKeys};
use super::{Settings, VERSION};
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store};
use crate::worker::records::{Change, Current, Document, EventId, Notice, RecordSeen, Records};
use crate::worker::{Context, Rule, Service};
use keys::{Kind, is_computed, is_for_admins, is_key, known};
use view::View;

/// Settings in one request.
const SETTINGS_MAX: usize = 100;
/// Keys outside of the table that a player may have.
const OWN_KEYS_MAX: usize = 200;

/// The service: its operations on the store are declared in the schema, and these are their hooks.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_settings", ttl: None, history: 8 };
    let overrides: Records<Overrides> = Records::open(store, records(settings, bucket)).await?;
    Ok(Service::new("settings", VERSION)
        .keeping(&overrides)
        .sweeping("sweeper", &overrides)
        .sharing(Players { settings: settings.clone() })
        .hook_get("settings.v1.SettingsService/GetSettings", Players::get)
        .guarded("settings.v1.SettingsService/GetSettings", "player_id", own_player(settings))
        .hook_put("settings.v1.SettingsService/UpdateSettings", Players::update)
        .hook_put("settings.v1.SettingsService/ResetSettings", Players::reset)
        .hook_watch("settings.v1.SettingsService/WatchSettings", Players::watch)
        .guarded("settings.v1.SettingsService/WatchSettings", "player_id", own_player(settings))
        .done())
}

struct Players {
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
    fn get(&self, context: &Context, request: &Get, stored: Option<Document<Overrides>>) -> Result<Got, Fault> {
        let settings = self.settings.now();
        let (overrides, revision) = stored.map_or_else(Default::default, |stored| (stored.value, stored.revision));
        let view = View { context, player_id: &request.player_id, settings: &settings.settings };
        Ok(Got { settings: view.wanted(&overrides, &request.setting_keys), revision })
    }

    fn update(self: Arc<Self>, context: Context, request: Update) -> Result<impl Rule<Overrides, Updated>, Fault> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let given = check_settings(&context, &settings, &request)?;
        Ok(move |current: &Current<Overrides>| {
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
            let reply = Updated { updated_count: given.len() as i32, updated_keys: given.keys().cloned().collect() };
            let told = told(&context, &settings, &request.player_id, [&before, &after], "update")?;
            Ok(Change::put(after, reply).events(told))
        })
    }

    fn reset(self: Arc<Self>, context: Context, request: Reset) -> Result<impl Rule<Overrides, WasReset>, Fault> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        Ok(move |current: &Current<Overrides>| {
            let is_meant = |key: &str| {
                request.setting_keys.is_empty() || request.setting_keys.iter().any(|wanted| view::names(wanted, key))
            };
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
            let told = told(&context, &settings, &request.player_id, [&before, &after], "reset")?;
            Ok(Change::put(after, reply).events(told))
        })
    }

    fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        begins_anew: bool,
    ) -> Result<impl FnMut(RecordSeen<Overrides>) -> Result<Option<Item>, Fault>, Fault> {
        let settings = self.settings.now();
        // What the reader has, once it has been told everything; a resumed reader has it already.
        let mut shown: Option<Vec<Setting>> = None;
        Ok(move |seen| {
            let (overrides, revision) = match seen {
                RecordSeen::Change { document, revision, .. } => {
                    (document.map(|document| document.value).unwrap_or_default(), revision)
                }
                // Nothing is stored: everything is a default.
                RecordSeen::Current if shown.is_none() && begins_anew => (Overrides::new(), 0),
                RecordSeen::Current => return Ok(None),
            };
            let view = View { context: &context, player_id: &request.player_id, settings: &settings.settings };
            let all = view.wanted(&overrides, &[]);
            let settings = match &shown {
                Some(before) => all.iter().filter(|setting| !before.contains(setting)).cloned().collect(),
                None => all.clone(),
            };
            shown = Some(all);
            Ok(Some(Item { revision, settings }))
        })
    }
}

/// The event of the keys whose effective value has changed; nothing where none has.
fn told(
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
