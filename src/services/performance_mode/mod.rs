//! Quality of the game's picture by player: modes, samples of their machines, budgets, and steps by themselves.

mod presets;
mod samples;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{id, invalid, out_of_range, own_player, owner, player, required, unknown_value};
use super::notices::{notice, records};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Change, Current, EventId, Notice, RecordSeen, Records};
use crate::worker::{Context, Failed, Repeats, Rule, Service};
use presets::{Applied, BUDGETS, MODES, WORDS, check_overrides};
use samples::{Budget, Budgets, Metrics, Ring};

/// The window that a mode moves by, and the one that a request for `auto` starts from.
const STEP_MS: i64 = 10_000;
const AUTO_MS: i64 = 60_000;
/// Seconds of a window where the request does not say, and at most.
const WINDOW_DEFAULT_S: i32 = 60;
const WINDOW_MAX_S: i32 = 3_600;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_perf", ttl: None, history: 4 };
    let applied: Records<Applied> = Records::open(store, records(settings, bucket)).await?;
    let modes = Modes {
        rings: applied.also(),
        budgets: applied.also(),
        applied,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("performance-mode", VERSION)
        .keeping(&modes.applied)
        .keeping(&modes.budgets)
        .sweeping("sweeper", &modes.applied)
        .hook_watch("performance_mode.v1.PerformanceModeService/WatchMode", watch)
        .guarded("performance_mode.v1.PerformanceModeService/WatchMode", "player_id", own_player(settings))
        .sharing(modes)
        .unary("performance_mode.v1.PerformanceModeService/AdjustMode", Modes::adjust)
        .unary("performance_mode.v1.PerformanceModeService/GetMetrics", Modes::metrics)
        .hook_put_at("performance_mode.v1.PerformanceModeService/SetBudget", Modes::set_budget)
        .unary("performance_mode.v1.PerformanceModeService/ReportMetrics", Modes::report)
        .done())
}

/// Three kinds of documents in one bucket; only modes have events.
struct Modes {
    applied: Records<Applied>,
    rings: Records<Ring>,
    budgets: Records<StoredBudget>,
    repeats: Repeats,
    settings: LiveSettings,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredBudget {
    value: i32,
    is_strict: bool,
}

#[derive(Serialize, Deserialize)]
struct Adjust {
    player_id: String,
    mode: String,
    custom_settings: BTreeMap<String, i32>,
}

#[derive(Serialize, Deserialize)]
struct Adjusted {
    applied_settings: Option<presets::Settings>,
    previous_mode: String,
}

#[derive(Serialize, Deserialize)]
struct GetMetrics {
    player_id: String,
    duration_seconds: i32,
}

#[derive(Serialize, Deserialize)]
struct GotMetrics {
    metrics: Option<Metrics>,
    recommended_mode: String,
}

#[derive(Serialize, Deserialize)]
struct SetBudget {
    budget_type: String,
    budget_value: i32,
    strict_enforcement: bool,
    player_id: String,
}

#[derive(Serialize, Deserialize)]
struct BudgetSet {
    success: bool,
    applied_budget: i32,
}

#[derive(Serialize, Deserialize)]
struct Watch {
    player_id: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Item {
    revision: u64,
    settings: Option<presets::Settings>,
    cause: String,
}

#[derive(Serialize, Deserialize)]
struct Report {
    player_id: String,
    sample: Option<Metrics>,
    frames: i32,
}

#[derive(Serialize, Deserialize)]
struct Reported {
    accepted: bool,
    applied_settings: Option<presets::Settings>,
}

impl Modes {
    async fn adjust(self: Arc<Self>, context: Context, request: Adjust) -> Result<Adjusted, Failed<Adjusted>> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        if request.mode.is_empty() {
            return Err(required("mode").into());
        }
        let wanted = request.mode.to_ascii_lowercase();
        if !WORDS.contains(&wanted.as_str()) {
            return Err(unknown_value("mode", format!("unknown mode {}", request.mode), &WORDS).into());
        }
        check_overrides(&request.custom_settings)?;
        let ring = self.ring(&context, &request.player_id).await?;
        let cooldown_ms = settings.performance_mode.cooldown.as_millis() as i64;
        let budgets =
            self.budgets(&context, &request.player_id, request.custom_settings.get("competitive") == Some(&1)).await?;
        let rule = |current: &Current<Applied>| {
            let before = current.value.clone().unwrap_or_default();
            let (is_auto, now_ms) = (wanted == "auto", current.now_ms);
            let is_same = match is_auto {
                true => before.is_auto,
                false => !before.is_auto && before.name() == wanted,
            };
            let reply = |applied: &Applied| Adjusted {
                applied_settings: Some(applied.settings()),
                previous_mode: before.name().to_owned(),
            };
            if is_same && before.overrides == request.custom_settings {
                return Ok(Change::nothing(reply(&before)));
            }
            let ago_ms = now_ms - before.switched_ms;
            if !is_same && ago_ms < cooldown_ms {
                return Err(Fault::client(Code::Aborted, format!("mode was switched {ago_ms} ms ago"))
                    .detail("reason", "cooldown")
                    .detail("retry_after_ms", (cooldown_ms - ago_ms).to_string())
                    .into());
            }
            let mut after = Applied { is_auto, overrides: request.custom_settings.clone(), ..before.clone() };
            let target_fps = after.settings().target_fps;
            after.mode = match MODES.iter().position(|(name, _)| *name == wanted) {
                Some(mode) => mode,
                None if is_same => before.mode,
                None => ring
                    .window(now_ms - AUTO_MS, now_ms)
                    .recommended(before.mode, target_fps, &budgets)
                    .unwrap_or(presets::DEFAULT),
            };
            if ring.window(now_ms - STEP_MS, now_ms).exceeds_strictly(&budgets) {
                after.mode = after.mode.saturating_sub(1);
            }
            if !is_same || after.mode != before.mode {
                after.switched_ms = now_ms;
            }
            let reply = reply(&after);
            self.changed(&context, &request.player_id, &before, after, "request", reply)
        };
        let place = key(&[context.tenant(), "p", &request.player_id]);
        let write = async { Ok(self.applied.change(&context, &place, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }

    /// A mode that follows another, and its event where it is another one.
    fn changed<R>(
        &self,
        context: &Context,
        player_id: &str,
        before: &Applied,
        after: Applied,
        cause: &str,
        reply: R,
    ) -> Result<Change<Applied, R>, Failed<R>> {
        let after = Applied { cause: cause.to_owned(), ..after };
        let told = (before.mode != after.mode).then(|| told(context, player_id, before, &after)).transpose()?;
        let change = Change::put(after, reply);
        Ok(if let Some(notice) = told { change.event(notice) } else { change })
    }

    async fn metrics(self: Arc<Self>, context: Context, request: GetMetrics) -> Result<GotMetrics, Fault> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        let seconds = match request.duration_seconds {
            0 => WINDOW_DEFAULT_S,
            seconds @ 1..=WINDOW_MAX_S => seconds,
            _ => return Err(out_of_range("duration_seconds", 1, WINDOW_MAX_S)),
        };
        let applied = self.in_force(&context, &request.player_id).await?;
        let ring = self.ring(&context, &request.player_id).await?;
        let budgets = self.budgets(&context, &request.player_id, applied.is_competitive()).await?;
        let now_ms = context.now_ms();
        let window = ring.window(now_ms - i64::from(seconds) * 1_000, now_ms);
        let recommended = window.recommended(applied.mode, applied.settings().target_fps, &budgets);
        Ok(GotMetrics {
            metrics: Some(window.metrics(&budgets)),
            recommended_mode: MODES[recommended.unwrap_or(applied.mode)].0.to_owned(),
        })
    }

    #[allow(clippy::needless_pass_by_value, reason = "hooks own what they are given")]
    fn set_budget(
        self: Arc<Self>,
        context: Context,
        request: SetBudget,
    ) -> Result<(Vec<String>, impl Rule<StoredBudget, BudgetSet>), Fault> {
        owner(&context, self.settings.now().auth.enforce, "player_id", &request.player_id)?;
        if request.budget_type.is_empty() {
            return Err(required("budget_type"));
        }
        let wanted = request.budget_type.to_ascii_lowercase();
        let Some(kind) = BUDGETS.iter().find(|kind| kind.name == wanted) else {
            let text = format!("unknown budget {}", request.budget_type);
            return Err(unknown_value("budget_type", text, &BUDGETS.map(|kind| kind.name)));
        };
        let value = request.budget_value;
        if value <= 0 {
            return Err(invalid("budget_value", "not_positive", "budget_value must be above 0"));
        }
        if request.strict_enforcement && !(kind.min..=kind.max).contains(&value) {
            let text = format!("{} budget must be {} to {}", kind.name, kind.min, kind.max);
            return Err(Fault::client(Code::OutOfRange, text)
                .detail("field", "budget_value")
                .detail("reason", "out_of_range")
                .detail("min", kind.min.to_string())
                .detail("max", kind.max.to_string()));
        }
        if !request.player_id.is_empty() {
            id("player_id", &request.player_id)?;
        }
        let stored = StoredBudget { value: value.clamp(kind.min, kind.max), is_strict: request.strict_enforcement };
        let rule = move |_: &Current<StoredBudget>| {
            Ok(Change::put(stored.clone(), BudgetSet { success: true, applied_budget: stored.value }))
        };
        Ok((budget_tokens(kind.name, &request.player_id), rule))
    }

    async fn report(self: Arc<Self>, context: Context, request: Report) -> Result<Reported, Failed<Reported>> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        let Some(sample) = &request.sample else { return Err(required("sample").into()) };
        sample.check()?;
        if request.frames < 0 {
            return Err(out_of_range("frames", 0, i32::MAX).into());
        }
        let rule = |current: &Current<Ring>| {
            let ring = current.value.clone().unwrap_or_default();
            Ok(Change::put(ring.with(current.now_ms, request.frames, sample.clone()), ()))
        };
        let place = key(&[context.tenant(), "s", &request.player_id]);
        let write = async {
            self.rings.change(&context, &place, rule).await.map_err(|failed| failed.fault)?;
            let applied = self.step(&context, &request.player_id).await?;
            Ok(Reported { accepted: true, applied_settings: Some(applied.settings()) })
        };
        self.repeats.once(&context, write).await
    }

    /// Moves the mode where the samples say so: down for a strict budget, either way in auto mode.
    async fn step(&self, context: &Context, player_id: &str) -> Result<Applied, Fault> {
        let cooldown_ms = self.settings.now().performance_mode.cooldown.as_millis() as i64;
        let ring = self.ring(context, player_id).await?;
        let applied = self.in_force(context, player_id).await?;
        let budgets = self.budgets(context, player_id, applied.is_competitive()).await?;
        let rule = |current: &Current<Applied>| {
            let before = current.value.clone().unwrap_or_default();
            let now_ms = current.now_ms;
            let since_ms = now_ms - before.switched_ms;
            let (latest, earlier) =
                (ring.window(now_ms - STEP_MS, now_ms), ring.window(now_ms - 2 * STEP_MS, now_ms - STEP_MS));
            // Samples from before a switch say nothing about the mode behind it.
            let (mode, cause) = if since_ms >= STEP_MS && latest.exceeds_strictly(&budgets) {
                (before.mode.saturating_sub(1), "budget")
            } else if before.is_auto && since_ms >= cooldown_ms.max(2 * STEP_MS) {
                let target_fps = before.settings().target_fps;
                let [latest, earlier] =
                    [latest, earlier].map(|window| window.recommended(before.mode, target_fps, &budgets));
                (latest.filter(|_| latest == earlier).unwrap_or(before.mode), "auto")
            } else {
                (before.mode, "")
            };
            if mode == before.mode {
                return Ok(Change::nothing(before));
            }
            let after = Applied { mode, switched_ms: now_ms, cause: cause.to_owned(), ..before.clone() };
            self.changed(context, player_id, &before, after.clone(), cause, after)
        };
        let place = key(&[context.tenant(), "p", player_id]);
        Ok(self.applied.change(context, &place, rule).await.map_err(|failed| failed.fault)?.reply)
    }

    async fn in_force(&self, context: &Context, player_id: &str) -> Result<Applied, Fault> {
        let place = key(&[context.tenant(), "p", player_id]);
        Ok(self.applied.get_cached(context, &place).await?.map(|document| document.value).unwrap_or_default())
    }

    async fn ring(&self, context: &Context, player_id: &str) -> Result<Ring, Fault> {
        let place = key(&[context.tenant(), "s", player_id]);
        Ok(self.rings.get(context, &place).await?.map(|document| document.value).unwrap_or_default())
    }

    /// The budgets of a player: their own, the tenant's, the default.
    async fn budgets(&self, context: &Context, player_id: &str, is_competitive: bool) -> Result<Budgets, Fault> {
        let mut budgets = BUDGETS.map(|kind| Budget { value: kind.default(is_competitive), is_strict: false });
        for (kind, budget) in BUDGETS.iter().zip(&mut budgets) {
            for of in [player_id, ""] {
                let mut tokens = vec![context.tenant().to_owned()];
                tokens.extend(budget_tokens(kind.name, of));
                let found = self.budgets.get_cached(context, &key(&tokens)).await?;
                if let Some(StoredBudget { value, is_strict }) = found.map(|document| document.value) {
                    *budget = Budget { value, is_strict };
                    break;
                }
            }
        }
        Ok(budgets)
    }
}

/// The hook of the declared watch: the settings in force, and what has changed them.
fn watch(
    _: Context,
    _: Watch,
    begins_anew: bool,
) -> Result<impl FnMut(RecordSeen<Applied>) -> Result<Option<Item>, Fault>, Fault> {
    let mut has_told = !begins_anew;
    Ok(move |seen| {
        let (applied, revision) = match seen {
            RecordSeen::Change { document, revision, .. } => {
                (document.map(|document| document.value).unwrap_or_default(), revision)
            }
            RecordSeen::Current if has_told => return Ok(None),
            // Nothing is stored: the default is in force.
            RecordSeen::Current => (Applied::default(), 0),
        };
        let settings = Some(applied.settings());
        let cause = if has_told { applied.cause } else { "snapshot".to_owned() };
        has_told = true;
        Ok(Some(Item { revision, settings, cause }))
    })
}

/// Key of a budget below the tenant: everybody's, or a player's own.
fn budget_tokens(kind: &str, player_id: &str) -> Vec<String> {
    let tokens = ["budget", kind, player_id].into_iter().filter(|token| !token.is_empty());
    tokens.map(str::to_owned).collect()
}

/// The event of a mode that has changed.
fn told(context: &Context, player_id: &str, before: &Applied, after: &Applied) -> Result<Notice, Fault> {
    let (id, message) = (EventId::AtRevision(player_id.to_owned()), "performance_mode.v1.PerformanceSettings");
    Ok(notice(context, "evt.perf.mode.changed.v1", id, message, &after.settings())?
        .with("player_id", player_id)
        .with("previous_mode", before.name())
        .with("cause", &*after.cause))
}
