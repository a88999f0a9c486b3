//! services.yaml: every mistake with its place and text, the defaults, single keys by path, reloads while calls run, and
//! what people read about it.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use support::eventually;
use tempfile::TempDir;
use tidegate::services::settings::{CouponCode, Discount, NAMES, ProviderKind, UnknownKeys};
use tidegate::services::{LiveSettings, Settings};
use tidegate::snapshot::Outcome;
use tidegate::snapshot::problem::{Problem, render};

fn problems(text: &str) -> Vec<Problem> {
    Settings::parse("services.yaml", text).err().unwrap_or_default()
}

fn said(text: &str) -> Vec<String> {
    let line = |problem: Problem| match problem.hint.as_str() {
        "" => format!("{}:{}: {}", problem.place.line, problem.place.column, problem.message),
        hint => format!("{}:{}: {} ({hint})", problem.place.line, problem.place.column, problem.message),
    };
    problems(text).into_iter().map(line).collect()
}

/// A file with one mistake, and all that is said of it.
const MISTAKES: &[(&str, &str)] = &[
    ("- common\n", "1:1: expected a map of sections, found a list"),
    ("common: 7\n", "1:9: expected a map, found `7`"),
    (
        "common: { drian: 1s }\n",
        "1:11: unknown field `drian`, expected one of callbacks, drain, max_parallel, register, sweep, text, without (did you mean `drain`?)",
    ),
    ("state-manager: { cache: 1 }\n", "1:18: unknown field `cache`: there are none here"),
    ("common: { drain: 25 }\n", "1:18: expected a duration such as `500ms` or `30s`, found `25`"),
    ("common: { drain: 20m }\n", "1:18: `20m` is out of range: expected 0ms to 600s"),
    ("common: { max_parallel: many }\n", "1:25: expected a whole number, found `many`"),
    ("common: { max_parallel: 0 }\n", "1:25: `0` is out of range: expected 1 to 65536"),
    ("common: { max_parallel: 1.5 }\n", "1:25: expected a whole number, found `1.5`"),
    ("common: { register: maybe }\n", "1:21: expected `true` or `false`, found `maybe`"),
    ("common: { without: quest-system }\n", "1:20: expected a list of texts, found `quest-system`"),
    ("common: { callbacks: [ svc ] }\n", "1:22: expected the beginning of a subject, such as `cb.`, found `svc`"),
    ("common: { text: { retry_pause: [] } }\n", "1:32: expected a list of durations such as `[1s, 2s]`, found a list"),
    (
        "common: { text: { providers: [ openai ] } }\n",
        "1:32: a provider of kind `openai` has a `base_url` such as `https://host/v1`",
    ),
    ("common: { text: { providers: [ closedai ] } }\n", "1:32: expected `builtin` or `openai`, found `closedai`"),
    (
        "common: { text: { providers: [ { kind: builtin, base_url: 'http://a/v1' } ] } }\n",
        "1:40: `builtin` has neither `base_url`, `models` nor `key`: is its kind `openai`?",
    ),
    (
        "common: { text: { providers: [ builtin, builtin ] } }\n",
        "1:30: two providers have the name `builtin`: give each a `name` of its own",
    ),
    (
        "common: { text: { providers: [], fallback: { builtin: false } } }\n",
        "1:30: expected at least one provider where `fallback.builtin` is off",
    ),
    (
        "common: { text: { providers: [ { kind: openai, base_url: 'http://a/v1', key: sk-123 } ] } }\n",
        "1:78: `key` is a secret, which is never written into this file (put it into a file or an environment variable and write `file:PATH` or `env:NAME`)",
    ),
    (
        "auth: { seal_key: 'file:' }\n",
        "1:19: `seal_key` is a secret, which is never written into this file (put it into a file or an environment variable and write `file:PATH` or `env:NAME`)",
    ),
    ("auth: { limits: { admin: 0 } }\n", "1:17: `admin`: `0` is out of range: expected 1 to 60000"),
    ("ai-integration: { cache: { ttl: 10s } }\n", "1:33: `10s` is out of range: expected 30s to 300s"),
    (
        "ai-integration: { tiers: { T4: { cap: 1 } } }\n",
        "1:28: unknown field `T4`, expected one of T1, T2, T3 (did you mean `T1`?)",
    ),
    ("ai-integration: { tiers: { T1: { model: 7 } } }\n", "1:41: expected a text, found `7`: put it in quotes"),
    ("ai-integration: { batch: { size: 2 } }\n", "1:34: expected `min` ≤ `size` ≤ `max`, found 8, 2, 64"),
    (
        "ai-integration: { models: { gpt-5-pro: there } }\n",
        "1:17: `models` sends `gpt-5-pro` to `there`, which `common.text.providers` does not have",
    ),
    ("model-management: { models: [ { model_id: m } ] }\n", "1:31: `provider` is missing"),
    ("model-management: { models: { m: {} } }\n", "1:29: expected a list, found a map"),
    ("router: { events: { sample: 2 } }\n", "1:29: `2` is out of range: expected 0 to 1"),
    (
        "time-manager: { start: 1/13/1 07:00:00 }\n",
        "1:24: expected a game time such as `1/1/1 07:00:00`, found `1/13/1 07:00:00`",
    ),
    ("settings: { unknown_keys: drop }\n", "1:27: expected `accept` or `refuse`, found `drop`"),
    ("settings: { flags: { sewers: { rollout: 101 } } }\n", "1:41: `101` is out of range: expected 0 to 100"),
    ("payment: { coupons: [ { code: a, prefix: b, percent: 5 } ] }\n", "1:31: a coupon has either `code` or `prefix`"),
    ("payment: { coupons: [ { code: a } ] }\n", "1:23: a coupon has either `percent` or `amount`"),
    (
        "payment: { coupons: [ { code: a, percent: 5, expiry: soon } ] }\n",
        "1:54: expected a time such as `2026-12-31T23:59:59Z`, found `soon`",
    ),
    ("knowledge-base: { vectors: { base_url: 'https://a/v1' } }\n", "1:28: `vectors` names its `model`"),
    (
        "language-system: { concepts: [ { concept: c, class: q } ] }\n",
        "1:53: expected `n` or `v` or `a` or `p` or `x`, found `q`",
    ),
    ("common: {\n", "1:9: unclosed bracket '{'"),
    ("auth: {}\nauth: {}\n", "2:1: duplicate mapping key: auth"),
];

#[test]
fn each_mistake_has_its_text_and_place() {
    for (text, expected) in MISTAKES {
        assert_eq!(said(text), [*expected], "{text}");
    }
}

#[test]
fn an_unknown_service_is_named_with_those_that_there_are() {
    let expected = format!("1:20: there is no service `quests`: there are {}", NAMES.join(", "));
    assert_eq!(said("common: { without: [ quests ] }\n"), [expected]);
    let sections = said("quests: {}\n");
    assert!(sections[0].starts_with("1:1: unknown field `quests`, expected one of ai-integration, ai-router, auth, "));
}

#[test]
fn all_mistakes_are_shown_at_once_in_the_order_of_the_file() {
    let text = "\
common:
  drain: 25
  max_paralel: 9
payment:
  refund_days: -1
comon: {}
";
    let shown = render(&problems(text), false, |_| Some(text.to_owned()));
    let expected = r"
error: expected a duration such as `500ms` or `30s`, found `25`
 --> services.yaml:2:10
  |
2 |   drain: 25
  |          ^^

error: unknown field `max_paralel`, expected one of callbacks, drain, max_parallel, register, sweep, text, without
 --> services.yaml:3:3
  |
3 |   max_paralel: 9
  |   ^^^^^^^^^^^^^^
  |
  = help: did you mean `max_parallel`?

error: `-1` is out of range: expected 0 to 3650
 --> services.yaml:5:16
  |
5 |   refund_days: -1
  |                ^^
";
    assert!(shown.trim_start().starts_with(expected.trim()), "{shown}");
    assert!(shown.contains("services.yaml:6:1") && shown.contains("did you mean `common`?"), "{shown}");
}

#[test]
fn a_secret_in_the_file_is_not_repeated_in_the_report() {
    let text = "auth: { seal_key: hunter2 }\n";
    let shown = render(&problems(text), false, |_| Some(text.to_owned()));
    assert!(shown.contains("services.yaml:1:19") && !shown.contains("hunter2"), "{shown}");
}

/// The table of the keys and their defaults, as documented.
#[test]
fn without_a_file_the_documented_defaults_hold() {
    for settings in [Settings::default(), Settings::parse("", "").unwrap(), Settings::parse("", "auth:\n").unwrap()] {
        let common = &settings.common;
        assert_eq!((common.without.len(), common.register, common.max_parallel), (0, true, 256));
        assert_eq!((common.drain, common.sweep), (Duration::from_secs(25), Duration::from_secs(5)));
        assert_eq!(common.callbacks, ["cb.", "_INBOX."]);
        let text = &common.text;
        assert_eq!((text.providers.len(), text.providers[0].kind), (1, ProviderKind::BuiltIn));
        assert_eq!((text.fallback_builtin, text.pacing, text.retries), (true, Duration::ZERO, 3));
        assert_eq!(text.retry_pause, [1, 2, 4].map(Duration::from_secs));
        assert_eq!((text.breaker.failures, text.breaker.open), (5, Duration::from_secs(60)));
        let ai = &settings.ai_integration;
        let tiers =
            ai.tiers.each_ref().map(|tier| (tier.model.as_str(), tier.cap, tier.latency.as_millis(), tier.parallel));
        assert_eq!(tiers, [("phi3-mini", 256, 150, 20), ("llama3.1-8b", 512, 300, 10), ("llama3.1-8b", 512, 500, 5)]);
        assert_eq!((ai.cache_ttl, ai.tokens_per_minute), (Duration::from_secs(300), 100_000));
        let batch = ai.batch;
        assert_eq!((batch.enabled, batch.size, batch.min, batch.max, batch.wait.as_millis()), (false, 32, 8, 64, 5));
        assert_eq!((ai.models.len(), ai.events_include_text), (0, false));
        assert!(settings.model_management.models.is_empty());
        assert!(
            !settings.quest_system.text_llm && !settings.knowledge_base.text_llm && !settings.story_teller.text_llm
        );
        assert!(!settings.language_system.text_llm && !settings.environmental_narrative.text_llm);
        assert_eq!((settings.npc_behavior.plans_per_second, settings.world_state.simulation_enabled), (0, false));
        assert_eq!((&settings.orchestration.workflows, settings.orchestration.for_each_parallel), (&None, 16));
        let router = &settings.router;
        assert_eq!((router.deny.len(), router.events_sample), (0, 1.0));
        assert_eq!(router.critical, ["auth", "state-manager", "payment", "ai-integration"]);
        assert_eq!((router.probe_idle.as_secs(), router.retry_unhealthy.as_secs()), (30, 60));
        assert_eq!(settings.event_bus.lease, Duration::from_secs(5));
        let time = &settings.time_manager;
        assert_eq!((time.scale, time.max_schedules), (60.0, 10_000));
        assert_eq!((time.start.year, time.start.month, time.start.day, time.start.hour), (1, 1, 1, 7));
        assert!(settings.weather_manager.ask_time);
        let auth = &settings.auth;
        assert_eq!((auth.enforce, &auth.seal_key, auth.max_sessions, auth.other_limit), (false, &None, 20, 100));
        assert_eq!((auth.limits["public_read"], auth.limits["ai_generation"], auth.limits.len()), (200, 10, 5));
        assert_eq!(settings.settings.unknown_keys, UnknownKeys::Accept);
        assert!(settings.settings.flags.is_empty());
        let payment = &settings.payment;
        assert_eq!((payment.other_opening_balance, payment.opening_balance["vitae"]), (1_000, 0));
        assert_eq!(payment.opening_balance.len(), 8);
        assert!(!payment.require_idempotency_key);
        assert_eq!(payment.coupons[0].code, CouponCode::Prefix("ambassador_".to_owned()));
        let coupon = &payment.coupons[0];
        assert_eq!((coupon.discount, coupon.expires_at_ms, coupon.limit), (Discount::Percent(20), None, Some(100)));
        assert_eq!((payment.coupon_reservation.as_secs(), payment.refund_days), (60, 30));
        assert_eq!(settings.performance_mode.cooldown, Duration::from_secs(1));
        assert_eq!(settings.capability_registry.grace, Duration::from_secs(30));
        assert_eq!((&settings.knowledge_base.vectors, settings.knowledge_base.seed_corpus), (&None, false));
        let language = &settings.language_system;
        assert_eq!((language.concepts.len(), language.lexicons.len(), language.render_cache), (0, 0, 1_000));
        let broker = &settings.body_broker_integration;
        assert_eq!((broker.strict_inventory, broker.credit_wallet), (false, false));
    }
}

#[test]
fn single_keys_are_set_by_path_with_the_same_checks() {
    let (none, list) = (json!(0), json!(["story-teller"]));
    let settings = Settings::with([("ai-integration.tiers.T1.parallel", &none), ("common.without", &list)]).unwrap();
    assert_eq!(settings.ai_integration.tiers.each_ref().map(|tier| tier.parallel), [0, 10, 5]);
    assert_eq!(
        (settings.ai_integration.tiers[0].cap, settings.common.without.as_slice()),
        (256, &["story-teller".to_owned()][..])
    );
    let problems =
        Settings::with([("quest-system.text.llm", &json!(true)), ("auth.enforce", &json!("yes"))]).unwrap_err();
    let said: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.place.file, problem.message)).collect();
    assert_eq!(said, ["auth.enforce: expected `true` or `false`, found `yes`"]);
    let problems = Settings::with([("auth.enforced", &json!(true))]).unwrap_err();
    assert_eq!(problems[0].hint, "did you mean `enforce`?");
}

/// A followed file in a folder of its own.
struct Followed {
    folder: TempDir,
    settings: LiveSettings,
    outcome: tokio::sync::watch::Receiver<Outcome>,
}

impl Followed {
    fn start(text: &str) -> Followed {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("services.yaml"), text).unwrap();
        let (settings, outcome) = LiveSettings::follow(&folder.path().join("services.yaml")).unwrap();
        Followed { folder, settings, outcome }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("services.yaml"), text).unwrap();
    }

    fn refund_days(&self) -> u32 {
        self.settings.now().payment.refund_days
    }

    async fn refused(&self, count: u64) -> String {
        eventually("the reload is refused", async || self.outcome.borrow().refused >= count).await;
        self.outcome.borrow().report.clone()
    }
}

#[tokio::test]
async fn an_edit_is_in_force_for_new_calls_while_running_ones_keep_their_values() {
    let followed = Followed::start("payment: { refund_days: 7 }\n");
    let of_a_running_call = followed.settings.now();
    followed.write("payment: { refund_days: 8 }\n");
    eventually("the edit is in force", async || followed.refund_days() == 8).await;
    assert_eq!(of_a_running_call.payment.refund_days, 7);
}

#[tokio::test]
async fn a_faulty_file_is_refused_as_a_whole_and_its_repair_is_in_force() {
    let followed = Followed::start("payment: { refund_days: 7 }\n");
    followed.write("payment: { refund_days: 8, coupon_reservation: 1 }\n");
    let report = followed.refused(1).await;
    assert!(report.contains("services.yaml:1:48") && report.contains("expected a duration"), "{report}");
    assert_eq!(followed.refund_days(), 7);
    followed.write("payment: { refund_days: 8 }\n");
    eventually("the repair is in force", async || followed.refund_days() == 8).await;
    eventually("the report is gone", async || !followed.outcome.borrow().is_stale).await;
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name() {
    let followed = Followed::start("event-bus: { lease: 5s }\npayment: { refund_days: 7 }\n");
    followed.write("event-bus: { lease: 6s }\npayment: { refund_days: 8 }\ncommon: { without: [ payment ] }\n");
    let report = followed.refused(1).await;
    for part in ["`event-bus.lease` needs a restart", "services.yaml:1:21", "`common.without` needs a restart"] {
        assert!(report.contains(part), "{report}");
    }
    assert_eq!(followed.refund_days(), 7);
    // The same value in other words changes nothing.
    followed.write("event-bus: { lease: 5000ms }\npayment: { refund_days: 8 }\n");
    eventually("the rest is in force", async || followed.refund_days() == 8).await;
}

#[tokio::test]
async fn an_emptied_or_removed_file_keeps_the_settings_until_it_is_back() {
    let followed = Followed::start("payment: { refund_days: 7 }\n");
    followed.write("");
    assert!(followed.refused(1).await.contains("this file is empty, as one that is still being written"));
    std::fs::remove_file(followed.path("services.yaml")).unwrap();
    assert!(followed.refused(2).await.contains("cannot be read"));
    assert_eq!(followed.refund_days(), 7);
    followed.write("payment: { refund_days: 8 }\n");
    eventually("the file is back", async || followed.refund_days() == 8).await;
}

#[tokio::test]
async fn a_secret_comes_from_its_file_and_a_rotated_one_is_in_force_without_an_edit() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("services.yaml"), folder.path().join("key"));
    std::fs::write(&file, format!("auth: {{ seal_key: 'file:{}' }}\n", key.display())).unwrap();
    let report = LiveSettings::follow(&file).err().unwrap();
    assert!(
        report.contains("the secret of `seal_key` cannot be read") && report.contains("services.yaml:1:19"),
        "{report}"
    );
    std::fs::write(&key, "first\n").unwrap();
    let (settings, _outcome) = LiveSettings::follow(&file).unwrap();
    let text = || settings.now().auth.seal_key.as_ref().unwrap().text().to_owned();
    assert_eq!(text(), "first");
    assert!(!format!("{:?}", settings.now()).contains("first"));
    std::fs::write(&key, "second\n").unwrap();
    eventually("the rotated secret is in force", async || text() == "second").await;
}

#[tokio::test]
async fn feature_flags_come_from_their_file_and_an_edit_of_it_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let (file, flags) = (folder.path().join("services.yaml"), folder.path().join("flags.yaml"));
    std::fs::write(&file, format!("settings: {{ flags: '{}' }}\n", flags.display())).unwrap();
    let report = LiveSettings::follow(&file).err().unwrap();
    assert!(report.contains("the file cannot be read") && report.contains("services.yaml:1:20"), "{report}");
    std::fs::write(&flags, "fog: { rollout: 200 }\n").unwrap();
    let report = LiveSettings::follow(&file).err().unwrap();
    assert!(report.contains("flags.yaml") && report.contains("200"), "{report}");
    std::fs::write(&flags, "fog: { tiers: [whale], rollout: 25 }\n").unwrap();
    let (settings, _outcome) = LiveSettings::follow(&file).unwrap();
    let rollout = || settings.now().settings.flags["fog"].rollout;
    assert_eq!((rollout(), settings.now().settings.flags["fog"].tiers.as_slice()), (25, &["whale".to_owned()][..]));
    std::fs::write(&flags, "fog: { rollout: 50 }\n").unwrap();
    eventually("the edited flags are in force", async || rollout() == 50).await;
}

#[tokio::test]
async fn a_secret_comes_from_the_environment() {
    let followed = Followed::start("auth: { seal_key: 'env:PATH' }\n");
    let seal_key = followed.settings.now().auth.seal_key.clone().unwrap();
    assert_eq!(seal_key.text(), std::env::var("PATH").unwrap());
    followed.write("auth: { seal_key: 'env:TIDEGATE_NO_SUCH_VARIABLE' }\n");
    let report = followed.refused(1).await;
    assert!(report.contains("the environment has no variable `TIDEGATE_NO_SUCH_VARIABLE`"), "{report}");
}

#[test]
fn the_example_in_the_documentation_is_good_and_fits_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&Settings::json_schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let page = include_str!("../docs/services-yaml.md");
    let examples: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let shown = render(&problems(example), false, |_| Some(example.to_owned()));
        assert_eq!(shown, "", "{example}");
    }
    assert!(validator.is_valid(&json!({ "common": { "drain": "10s" }, "settings": { "flags": "flags.yaml" } })));
    for wrong in [json!({ "comon": {} }), json!({ "common": { "drain": 10 } }), json!({ "auth": { "seal_key": "x" } })]
    {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

/// Every key of the schema stands in the documentation's table, so that neither can go stale.
#[test]
fn the_documentation_names_every_key() {
    fn keys(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else { return found.push(path.to_owned()) };
        for (name, schema) in properties {
            keys(&format!("{path}.{name}"), schema, found);
        }
    }
    let schema: serde_json::Value = serde_json::from_str(&Settings::json_schema()).unwrap();
    let page = include_str!("../docs/services-yaml.md");
    let mut section = "";
    let documented: Vec<String> = page
        .lines()
        .filter_map(|line| {
            section = line.strip_prefix("## ").unwrap_or(section);
            let key = line.strip_prefix("| `")?.split('`').next()?;
            Some(format!("{section}.{key}"))
        })
        .collect();
    for (section, schema) in schema["properties"].as_object().unwrap() {
        let mut found = Vec::new();
        keys(section, schema, &mut found);
        for key in found.iter().filter(|key| key.contains('.')) {
            assert!(documented.contains(key), "`{key}` is not in docs/services-yaml.md");
        }
    }
}
