//! What the documented examples do not show of language-system: streams, events, fallbacks, stored templates, learners,
//! concepts of the settings.

use crate::support;

use serde_json::{Value, json};
use support::{gateway, project, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::services::{Settings, roster};
use tidegate::store::{BucketConfig, Store};
use tidegate::worker::{Options, Worker};

/// A gateway and the service, on a bus of their own.
struct Game {
    running: Running,
    client: reqwest::Client,
    store: Store,
    _worker: Worker,
}

impl Game {
    async fn start(settings: Settings) -> Game {
        let bus = Bus::embedded();
        let snapshot = project().build(None).unwrap_or_else(|_| panic!("the project's own tables are refused"));
        let (running, live) = gateway(snapshot, &bus, |_| {}).await;
        let options = Options::new(bus, live.pin());
        let store = options.store.clone();
        let services = roster(&store, &settings.into(), |name| name == "language-system").await.unwrap();
        let worker = Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"));
        Game { running, client: reqwest::Client::new(), store, _worker: worker }
    }

    /// The reply with its context's labels instead of its context.
    async fn ask(&self, verb: &str, path: &str, body: Value) -> Value {
        self.ask_with(verb, path, body, &[]).await
    }

    async fn ask_with(&self, verb: &str, path: &str, body: Value, headers: &[(&str, &str)]) -> Value {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let mut reply: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        reply["labels"] = reply["meta"]["labels"].take();
        reply.as_object_mut().unwrap().remove("meta");
        reply
    }
}

fn reason(reply: &Value) -> (&str, &str) {
    let detail = |name: &str| reply["error"]["details"][name].as_str().unwrap_or_default();
    (detail("field"), detail("reason"))
}

#[tokio::test]
async fn the_sentences_of_a_stream_are_the_whole_text_and_one_event() {
    let game = Game::start(Settings::default()).await;
    let body = json!({ "text": "The pack hunts blood.\n\nHello  friend! ", "domain": "Lore" });
    let answer = game.client.post(url(&game.running, "/v1/languages/lycan:streamTranslate"));
    let answer = answer.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let chunks: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = |chunk: &Value| chunk["sentence"]["translated_text"].as_str().unwrap_or_default().to_owned();
    assert_eq!(chunks.iter().map(told).collect::<Vec<_>>(), ["Ruk khu gar.\n\n", "Garak  khiga! "], "{text}");
    assert_eq!(chunks[0]["sentence"]["alternatives"], json!(["Ruk gar khu.\n\n"]));
    assert_eq!((&chunks[0]["is_final"], &chunks[1]["is_final"]), (&Value::Null, &json!(true)));
    let mut events = game.store.read_log("NARRATIVE_EVENTS", "evt.lang.translation.completed.v1", 0).await.unwrap();
    let event = tokio::time::timeout(support::PATIENCE, events.next()).await.expect("an event in time").unwrap();
    let printed = String::from_utf8_lossy(&event.payload);
    for part in ["Ruk khu gar.\n\nGarak  khiga! ", "werewolf", "lore", "38"] {
        assert!(printed.contains(part), "{part:?} is not in {printed:?}");
    }
}

#[tokio::test]
async fn who_says_common_reads_common_and_the_first_fault_is_told() {
    let game = Game::start(Settings::default()).await;
    let translate =
        async |to: &str, body: Value| game.ask("POST", &format!("/v1/languages/{to}:translate"), body).await;
    let reply = translate("fr", json!({ "text": "hello friend", "source_language": "Common" })).await;
    assert_eq!(reply["detected_source_language"], "common");
    let reply = translate("fr-FR", json!({ "text": "The human waits at the house" })).await;
    assert_eq!(reply["detected_source_language"], "en");
    let same = translate("en", json!({ "text": "Hello, umbrella!", "source_language": "en" })).await;
    assert_eq!((&same["translated_text"], &same["confidence"]), (&json!("Hello, umbrella!"), &json!(1)));
    let rows = [
        ("fr", json!({}), ("text", "required")),
        ("fr", json!({ "text": "x".repeat(8_193) }), ("text", "too_long")),
        ("fr", json!({ "text": "x", "source_language": "klingon" }), ("source_language", "unknown_value")),
        ("fr", json!({ "text": "x", "source_language": "music" }), ("source_language", "unknown_value")),
        ("klingon", json!({ "text": "x", "domain": "?" }), ("target_language", "unknown_value")),
        ("fr", json!({ "text": "x", "domain": "?" }), ("domain", "unknown_value")),
        ("fr", json!({ "text": "x", "context": { "skill_level": "much" } }), ("context.skill_level", "bad_format")),
        ("fr", json!({ "text": "x", "context": { "skill_level": "1.1" } }), ("context.skill_level", "out_of_range")),
    ];
    for (to, body, expected) in rows {
        let reply = translate(to, body.clone()).await;
        assert_eq!(reason(&reply), expected, "{body}: {reply}");
    }
}

#[tokio::test]
async fn a_stored_template_goes_before_the_built_in_one_and_english_before_nothing() {
    let game = Game::start(Settings::default()).await;
    let get = async |path: &str, variables: Value| {
        game.ask("POST", &format!("/v1/languages/{path}:localize"), json!({ "variables": variables })).await
    };
    let french = get("fr/contents/ui.coins", json!({ "count": "0" })).await;
    assert_eq!((&french["localized_content"], &french["language_used"]), (&json!("0 pièce"), &json!("fr")));
    let lich = get("lich/contents/ui.coins", json!({ "count": "0" })).await;
    assert_eq!((&lich["localized_content"], &lich["language_used"]), (&json!("0 coins"), &json!("en")));
    assert_eq!(lich["labels"]["fallback_language"], "en");
    let template = json!({ "template": "{count} shozu" });
    let put = game.ask("PUT", "/v1/languages/ritual/contents/ui.coins", template.clone()).await;
    assert!(put["revision"].as_str().is_some_and(|revision| revision != "0"), "{put}");
    let again = game.ask("PUT", "/v1/languages/lich/contents/ui.coins", template).await;
    assert_eq!(again["revision"], put["revision"]);
    let own = get("lich/contents/ui.coins", json!({ "count": "{count}", "more": "1" })).await;
    assert_eq!((&own["localized_content"], &own["language_used"]), (&json!("{count} shozu"), &json!("lich")));
    assert_eq!((&own["from_cache"], &own["labels"]["fallback_language"]), (&Value::Null, &Value::Null));
    let missing = get("en/contents/ui.coins", json!({})).await;
    assert_eq!(reason(&missing), ("variables.count", "required"));
    let faulty = game.ask("PUT", "/v1/languages/en/contents/x", json!({ "template": "{a" })).await;
    assert_eq!(reason(&faulty), ("template", "bad_format"));
    assert_eq!(faulty["error"]["message"], "template, character 3: close the variable with `}`");
}

#[tokio::test]
async fn a_template_is_put_once_for_each_key_and_kept_under_the_code_of_its_language() {
    let game = Game::start(Settings::default()).await;
    let put = async |language: &str, template: &str, headers: &[(&str, &str)]| {
        let path = format!("/v1/languages/{language}/contents/ui.bye");
        game.ask_with("PUT", &path, json!({ "template": template }), headers).await
    };
    let keyed = [("Idempotency-Key", "k-1")];
    let first = put("ritual", "first", &keyed).await;
    let second = put("lich", "second", &[]).await;
    assert!(first["revision"].is_string() && second["revision"] != first["revision"], "{first} {second}");
    assert_eq!(put("ritual", "first", &keyed).await["revision"], first["revision"]);
    assert_eq!(put("ritual", "other", &keyed).await["error"]["code"], "CONFLICT");
    let held = game.store.bucket(BucketConfig { name: "tg_l10n", ttl: None, history: 4 }).await.unwrap();
    let held = held.get("_.ui=2Ebye.lich").await.unwrap().expect("the template under its language's code");
    let held: Value = serde_json::from_slice(&held.value).unwrap();
    assert_eq!((&held["value"], &held["version"]), (&json!({ "template": "second" }), &json!(2)));
}

#[tokio::test]
async fn learners_gain_once_for_each_key_and_fragment() {
    let concepts = json!([{ "concept": "veil", "class": "n", "forms": { "en": "veil", "vampire": "vozil" } }]);
    let game = Game::start(Settings::with([("language-system.concepts", &concepts)]).unwrap()).await;
    let learn = async |body: Value, headers: &[(&str, &str)]| {
        let reply = game.ask_with("POST", "/v1/players/p1/languages/volkh:learn", body, headers).await;
        (reply["skill_level"].as_f64().unwrap(), reply["words_known"].as_i64().unwrap_or(0), reply["labels"].clone())
    };
    let fragment = [("X-Custom-Fragment", "tablet-1")];
    let (skill, words, labels) = learn(json!({ "event_type": "artifact" }), &fragment).await;
    // A concept of the settings counts: 53 × 0.15.
    assert_eq!((skill, words, &labels["complexity"]), (0.15, 7, &json!("1")));
    assert_eq!(learn(json!({ "event_type": "ARTIFACT", "quality": 0.5 }), &fragment).await.0, 0.2);
    let keyed = [("Idempotency-Key", "k-1")];
    assert_eq!(learn(json!({ "event_type": "study" }), &keyed).await.0, 0.23);
    assert_eq!(learn(json!({ "event_type": "study" }), &keyed).await.0, 0.23);
    // Everybody at once, and nothing is lost.
    futures_util::future::join_all((0..20).map(|_| learn(json!({ "event_type": "interaction" }), &[]))).await;
    assert_eq!(learn(json!({ "event_type": "translation" }), &[]).await.0, 0.68);
    let refused = game.ask("POST", "/v1/players/p1/languages/volkh:learn", json!({ "event_type": "sleep" })).await;
    assert_eq!(reason(&refused), ("event_type", "unknown_value"));
    let known =
        game.ask("POST", "/v1/languages/en:translate", json!({ "text": "vozil", "source_language": "volkh" })).await;
    assert_eq!(known["translated_text"], "veil");
}
