//! What the documented examples do not show of ai-integration: two replicas that share cache, budgets and cancels; the
//! chain of providers; what repeats, events and streams say.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::post;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::{eventually, gateway, project, url};
use tidegate::bus::{Bus, Headers, Subject};
use tidegate::gateway::{Running, network};
use tidegate::services::{Settings, roster};
use tidegate::snapshot::Snapshot;
use tidegate::store::{Event, Store};
use tidegate::worker::{Context, Options, Service, Worker};

const NOW_MS: i64 = 1_760_000_000_000;

fn tables() -> Snapshot {
    project().build(None).unwrap_or_else(|_| panic!("the project's own tables are refused"))
}

/// A gateway and two replicas of every service.
struct Game {
    running: Running,
    bus: Bus,
    store: Store,
    now_ms: Arc<AtomicI64>,
    _workers: Vec<Worker>,
}

struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn label(&self, name: &str) -> Value {
        self.json()["meta"]["labels"][name].clone()
    }

    fn chunks(&self) -> Vec<Value> {
        self.text.lines().filter_map(chunk_of).collect()
    }
}

fn chunk_of(line: &str) -> Option<Value> {
    serde_json::from_str(line.strip_prefix("data:")?).ok()
}

impl Game {
    async fn on(bus: Bus, settings: &str) -> Game {
        let settings = Settings::parse("services.yaml", settings).unwrap_or_else(|problems| panic!("{problems:?}"));
        let (running, _) =
            gateway(tables(), &bus, |config| config.trusted = [network("127.0.0.1").unwrap()].into_iter().collect())
                .await;
        let (now_ms, mut workers, mut options) =
            (Arc::new(AtomicI64::new(NOW_MS)), Vec::new(), Options::new(bus.clone(), Arc::new(tables())));
        let clock = now_ms.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        for instance in ["a", "b"] {
            options.instance = instance.to_owned();
            let is_wanted = |name: &str| name == "ai-integration";
            let services = roster(&options.store, &settings.clone().into(), is_wanted).await.unwrap();
            workers.push(Worker::start(options.clone(), services).await.unwrap_or_else(|error| panic!("{error}")));
        }
        Game { running, bus, store: options.store, now_ms, _workers: workers }
    }

    async fn embedded(settings: &str) -> Game {
        Game::on(Bus::embedded(), settings).await
    }

    async fn ask(&self, path: &str, body: &Value) -> Answer {
        self.ask_with(path, body, &[]).await
    }

    async fn ask_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = reqwest::Client::new().post(url(&self.running, path)).body(body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        Answer { status: answer.status().as_u16(), text: answer.text().await.unwrap() }
    }

    async fn infer(&self, body: &Value) -> Answer {
        self.ask("/v1/inference", body).await
    }

    /// The newest event of a generation, as JSON texts find it: its payload's printable parts.
    async fn last_event(&self) -> String {
        let mut last = None;
        let mut after = 0;
        while let Some(logged) = self.store.event_after("AI_EVENTS", after).await.unwrap() {
            after = logged.sequence;
            last = Some(logged);
        }
        String::from_utf8_lossy(&last.expect("an event").payload).into_owned()
    }
}

/// A seeded request: the same one gets the same text.
fn seeded(prompt: &str) -> Value {
    json!({"model_id": "gpt-5-pro", "prompt": prompt, "params": {"seed": "7", "max_tokens": 64}})
}

/// An endpoint that answers each request once `gate` lets it.
struct Endpoint {
    address: String,
    asked: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Endpoint {
    /// With a status, and a text that breaks off before its end where `is_whole` is not set.
    async fn start(status: u16, is_whole: bool) -> Endpoint {
        let (asked, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let (count, wait) = (asked.clone(), gate.clone());
        let handler = move || {
            let (count, wait) = (count.clone(), wait.clone());
            async move {
                count.fetch_add(1, Ordering::Relaxed);
                wait.acquire().await.unwrap().forget();
                let piece =
                    |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
                let text = piece("From ") + &piece("afar.");
                let end = if is_whole { "data: [DONE]\n\n" } else { "" };
                (StatusCode::from_u16(status).unwrap(), format!("{text}{end}")).into_response()
            }
        };
        let router = Router::new().route("/v1/chat/completions", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Endpoint { address, asked, gate }
    }

    async fn open(status: u16, is_whole: bool) -> Endpoint {
        let endpoint = Endpoint::start(status, is_whole).await;
        endpoint.gate.add_permits(1_000);
        endpoint
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The settings of a chain of endpoints, asked once each.
fn chain(endpoints: &[(&str, &Endpoint)], more: &str) -> String {
    let rows = endpoints.iter().map(|(name, endpoint)| {
        format!("      - {{ name: {name}, kind: openai, base_url: '{}' }}\n", endpoint.address)
    });
    format!("common:\n  text:\n    retries: 1\n    providers:\n{}{more}", rows.collect::<String>())
}

async fn an_answer_is_kept_for_all_replicas(game: Game) {
    let first = game.infer(&seeded("Where is the ferryman?")).await.json();
    for _ in 0..8 {
        let again = game.infer(&seeded("Where is the ferryman?")).await;
        let reply = again.json();
        assert_eq!((&reply["cached"], again.label("cache")), (&json!(true), json!("hit")), "{}", again.text);
        assert_eq!((&reply["output_text"], &reply["usage"]), (&first["output_text"], &first["usage"]));
        assert_ne!(reply["generation_id"], first["generation_id"]);
    }
    let chunks = game.ask("/v1/inference:stream", &seeded("Where is the ferryman?")).await.chunks();
    let said: String = chunks.iter().filter_map(|chunk| chunk["output_text_delta"].as_str()).collect();
    assert_eq!(said, first["output_text"]);
    assert_eq!(chunks.last().unwrap()["meta"]["labels"]["cache"], "hit");
    for other in [
        json!({"model_id": "gpt-5-pro", "prompt": "Where is the ferryman?", "params": {"seed": "8", "max_tokens": 64}}),
        json!({"model_id": "gpt-5-pro", "prompt": "Where is the ferryman?", "params": {"max_tokens": 64}}),
        seeded("Where is the widow?"),
    ] {
        assert_eq!(game.infer(&other).await.json().get("cached"), None, "{other}");
    }
    game.now_ms.fetch_add(301_000, Ordering::Relaxed);
    assert_eq!(game.infer(&seeded("Where is the ferryman?")).await.json().get("cached"), None);
}

async fn a_budget_is_shared_by_the_replicas_and_refills(game: Game) {
    let body = json!({"model_id": "gpt-5-pro", "prompt": "Where is the ferryman?", "params": {"max_tokens": 60}});
    let mut spent = 0;
    let refused = loop {
        let answer = game.infer(&body).await;
        if answer.status != 200 {
            break answer;
        }
        spent += answer.json()["usage"]["total_tokens"].as_i64().unwrap();
        assert!(spent <= 200, "{spent} tokens of 200 were given out");
    };
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["code"]), (429, &json!("RESOURCE_EXHAUSTED")));
    assert_eq!((&error["details"]["limit"], &error["details"]["reason"]), (&json!("200"), &json!("token_budget")));
    assert_eq!(error["message"], "the tenant's token budget is used up");
    // What was estimated and not used has come back: more calls passed than the estimates alone would allow.
    assert!(spent > 200 - 65, "{spent}");
    let wait_ms: i64 = error["details"]["retry_after_ms"].as_str().unwrap().parse().unwrap();
    game.now_ms.fetch_add(wait_ms, Ordering::Relaxed);
    assert_eq!(game.infer(&body).await.status, 200);
    assert_eq!(game.infer(&body).await.status, 429);
    let other_tenant = game.ask_with("/v1/inference", &body, &[("X-Tenant-ID", "t2")]).await;
    assert_eq!(other_tenant.status, 200, "{}", other_tenant.text);
}

async fn a_generation_is_cancelled_on_whichever_replica_runs_it(game: Game) {
    // With several of them, some run on the replica that does not take the cancel.
    for _ in 0..8 {
        let body = json!({"prompt": "Tell me of the docks", "params": {"max_tokens": 200}});
        let request = reqwest::Client::new().post(url(&game.running, "/v1/inference:stream")).body(body.to_string());
        let mut bytes = request.header("X-Tenant-ID", "t1").send().await.unwrap().bytes_stream();
        let (mut seen, mut is_cancelled) = (String::new(), false);
        while let Some(more) = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("it goes on") {
            seen.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
            if !is_cancelled && let Some(first) = seen.lines().find_map(chunk_of) {
                is_cancelled = true;
                let path = format!("/v1/generations/{}:cancel", first["generation_id"].as_str().unwrap());
                let others = game.ask_with(&path, &json!({}), &[("X-Tenant-ID", "t2")]).await;
                assert_eq!((others.status, others.json().get("cancelled")), (200, None), "another tenant's");
                let own = game.ask_with(&path, &json!({}), &[("X-Tenant-ID", "t1")]).await;
                assert_eq!(own.json()["cancelled"], true);
            }
        }
        let last = seen.lines().rev().find_map(chunk_of).unwrap();
        assert_eq!((&last["is_final"], &last["finish_reason"]), (&json!(true), &json!("cancelled")), "{seen}");
    }
    let nobodys = game.ask("/v1/generations/gen_0000000000000000:cancel", &json!({})).await;
    assert_eq!((nobodys.status, nobodys.json().get("cancelled")), (200, None));
}

const SMALL_BUDGET: &str = "ai-integration: { budget: { tokens_per_minute: 200 } }\n";
const SLOW: &str = "common: { text: { pacing: 100ms } }\n";

#[tokio::test]
async fn an_answer_is_kept_for_all_replicas_embedded() {
    an_answer_is_kept_for_all_replicas(Game::embedded("").await).await;
}

#[tokio::test]
async fn an_answer_is_kept_for_all_replicas_on_nats() {
    let server = NatsServer::start();
    an_answer_is_kept_for_all_replicas(Game::on(server.bus().await, "").await).await;
}

#[tokio::test]
async fn a_budget_is_shared_by_the_replicas_and_refills_embedded() {
    a_budget_is_shared_by_the_replicas_and_refills(Game::embedded(SMALL_BUDGET).await).await;
}

#[tokio::test]
async fn a_budget_is_shared_by_the_replicas_and_refills_on_nats() {
    let server = NatsServer::start();
    a_budget_is_shared_by_the_replicas_and_refills(Game::on(server.bus().await, SMALL_BUDGET).await).await;
}

#[tokio::test]
async fn a_generation_is_cancelled_on_whichever_replica_runs_it_embedded() {
    a_generation_is_cancelled_on_whichever_replica_runs_it(Game::embedded(SLOW).await).await;
}

#[tokio::test]
async fn a_generation_is_cancelled_on_whichever_replica_runs_it_on_nats() {
    let server = NatsServer::start();
    a_generation_is_cancelled_on_whichever_replica_runs_it(Game::on(server.bus().await, SLOW).await).await;
}

#[tokio::test]
async fn answers_of_a_model_that_loses_the_selection_are_dropped() {
    let game = Game::embedded("").await;
    let other = json!({"model_id": "claude-4.5-sonnet", "prompt": "Who?", "params": {"seed": "7"}});
    game.infer(&seeded("Who?")).await;
    game.infer(&other).await;
    select(&game, "gemini-2.5-pro", "gpt-5-pro").await;
    eventually("the answer is dropped", async || !game.store_holds("gpt-5-pro").await).await;
    assert!(game.store_holds("claude-4.5-sonnet").await);
    assert_eq!(game.infer(&seeded("Who?")).await.json().get("cached"), None);
    assert_eq!(game.infer(&other).await.json()["cached"], true);
}

impl Game {
    /// Whether the shared cache has an answer of a model.
    async fn store_holds(&self, model: &str) -> bool {
        let config = tidegate::store::BucketConfig { name: "tg_llm", ttl: None, history: 1 };
        let entries = self.store.bucket(config).await.unwrap().list(&tidegate::store::Keys::All).await.unwrap();
        entries.iter().any(|entry| String::from_utf8_lossy(&entry.value).contains(&format!("\"tag\":\"{model}\"")))
    }
}

/// The event of a selection, as model-management publishes it.
async fn select(game: &Game, model: &str, before: &str) {
    use tidegate::transcode::wire::put_bytes;
    let (mut info, mut entry, mut event) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(1, model.as_bytes(), &mut info);
    put_bytes(1, b"previous_model_id", &mut entry);
    put_bytes(2, before.as_bytes(), &mut entry);
    put_bytes(1, b"select:chat:1", &mut event);
    put_bytes(4, &info, &mut event);
    put_bytes(5, &entry, &mut event);
    let subject = Subject::new("evt.ai.model.selected.v1").unwrap();
    let event = Event { subject, id: "select:chat:1".to_owned(), headers: Headers::new(), payload: event.into() };
    game.store.append(event).await.unwrap();
}

#[tokio::test]
async fn equal_requests_on_their_way_are_made_once() {
    let endpoint = Endpoint::start(200, true).await;
    let game = Arc::new(Game::embedded(&chain(&[("house", &endpoint)], "")).await);
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let game = game.clone();
            tokio::spawn(async move { game.infer(&seeded("Who?")).await })
        })
        .collect();
    // Each of the two replicas makes it at most once, and the others wait for that one.
    eventually("a replica asks", async || endpoint.asked() >= 1).await;
    endpoint.gate.add_permits(1_000);
    let mut ids = std::collections::BTreeSet::new();
    for answer in asking {
        let reply = answer.await.unwrap().json();
        assert_eq!(reply["output_text"], "From afar.");
        ids.insert(reply["generation_id"].to_string());
    }
    assert_eq!((ids.len(), endpoint.asked() <= 2), (20, true), "{} asked", endpoint.asked());
}

#[tokio::test]
async fn a_full_tier_drops_to_a_cheaper_one_and_says_so() {
    let tiers = "ai-integration: { tiers: { T3: { parallel: 0 }, T2: { parallel: 0 }, T1: { cap: 5 } } }\n";
    let game = Game::embedded(tiers).await;
    let body = json!({"prompt": "Who rules here?", "context": {"purpose": "major_npc"}});
    let answer = game.infer(&body).await;
    assert_eq!((answer.status, answer.label("tier_dropped")), (200, json!("true")));
    assert_eq!(answer.json()["usage"]["completion_tokens"], 5);
    // A model that the caller names takes no slot and has no cap.
    let named = game.infer(&json!({"model_id": "gpt-5-pro", "prompt": "Who rules here?"})).await;
    assert_eq!((named.status, named.label("tier_dropped")), (200, Value::Null));
    assert!(named.json()["usage"]["completion_tokens"].as_u64() > Some(5));
}

#[tokio::test]
async fn the_next_provider_of_the_chain_answers_and_says_so() {
    let (broken, good) = (Endpoint::open(500, true).await, Endpoint::open(200, true).await);
    let game = Game::embedded(&chain(&[("first", &broken), ("second", &good)], "")).await;
    let answer = game.infer(&seeded("Who?")).await;
    assert_eq!((answer.json()["output_text"].as_str(), answer.label("degraded")), (Some("From afar."), json!("true")));
    assert_eq!(answer.label("provider"), "second");
    // A stand-in's answer is not kept.
    assert_eq!(game.infer(&seeded("Who?")).await.json().get("cached"), None);
    assert_eq!((broken.asked(), good.asked()), (2, 2));
}

#[tokio::test]
async fn without_the_built_in_engine_a_broken_chain_is_unavailable_and_its_event_says_so() {
    let broken = Endpoint::open(500, true).await;
    let game = Game::embedded(&chain(&[("first", &broken)], "    fallback: { builtin: false }\n")).await;
    let answer = game.infer(&seeded("Who?")).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["message"]), (503, &json!("the text provider does not answer")));
    let event = game.last_event().await;
    assert!(event.contains("the text provider does not answer") && event.contains("gen_"), "{event}");
}

#[tokio::test]
async fn a_model_of_the_settings_goes_to_its_provider_and_the_others_take_the_chain() {
    let endpoint = Endpoint::open(200, true).await;
    let settings = format!(
        "common:\n  text:\n    providers: [ builtin, {{ name: house, kind: openai, base_url: '{}' }} ]\n\
         ai-integration: {{ models: {{ claude-4.5-sonnet: house }} }}\n",
        endpoint.address
    );
    let game = Game::embedded(&settings).await;
    let mapped = json!({"model_id": "claude-4.5-sonnet", "prompt": "Who?"});
    assert_eq!(game.infer(&mapped).await.json()["output_text"], "From afar.");
    assert_ne!(game.infer(&seeded("Who?")).await.json()["output_text"], "From afar.");
    assert_eq!(endpoint.asked(), 1);
}

#[tokio::test]
async fn a_text_that_breaks_off_ends_with_an_error_and_no_replica_keeps_it() {
    let endpoint = Endpoint::open(200, false).await;
    let game = Game::embedded(&chain(&[("house", &endpoint)], "    fallback: { builtin: false }\n")).await;
    let answer = game.ask("/v1/inference:stream", &seeded("Who?")).await;
    assert!(answer.text.contains("afar.") && answer.text.contains("event: error"), "{}", answer.text);
    assert!(!game.store_holds("gpt-5-pro").await);
}

#[tokio::test]
async fn a_finished_stream_is_told_again_under_its_key_and_a_running_one_is_not_doubled() {
    let endpoint = Endpoint::start(200, true).await;
    let game = Arc::new(Game::embedded(&chain(&[("house", &endpoint)], "")).await);
    let (body, keyed) = (json!({"prompt": "Tell me of the docks"}), [("Idempotency-Key", "k1")]);
    let (asking, asked) = (game.clone(), body.clone());
    let first = tokio::spawn(async move { asking.ask_with("/v1/inference:stream", &asked, &keyed).await });
    eventually("the first call runs", async || endpoint.asked() == 1).await;
    let meanwhile = game.ask_with("/v1/inference:stream", &body, &keyed).await;
    let error = &meanwhile.json()["error"];
    assert_eq!((&error["code"], &error["details"]["reason"]), (&json!("ABORTED"), &json!("in_progress")));
    endpoint.gate.add_permits(1_000);
    let text = |chunks: &[Value]| -> String {
        chunks.iter().filter_map(|chunk| chunk["output_text_delta"].as_str()).collect()
    };
    let first = first.await.unwrap().chunks();
    assert_eq!((text(&first).as_str(), endpoint.asked()), ("From afar.", 1));
    let again = game.ask_with("/v1/inference:stream", &body, &keyed).await.chunks();
    assert_eq!(text(&again), text(&first));
    assert_eq!(again[0]["generation_id"], first[0]["generation_id"]);
    assert_eq!(again.last().unwrap()["usage"], first.last().unwrap()["usage"]);
    assert_eq!((first.len(), again.len(), endpoint.asked()), (3, 2, 1));
}

#[tokio::test]
async fn the_event_of_a_generation_has_its_text_only_where_the_settings_say_so() {
    for (settings, has_text) in [("", false), ("ai-integration: { events: { include_text: true } }\n", true)] {
        let game = Game::embedded(settings).await;
        let reply = game.infer(&seeded("Who?")).await.json();
        let event = game.last_event().await;
        assert!(event.contains(reply["generation_id"].as_str().unwrap()), "{event}");
        assert_eq!(event.contains(reply["output_text"].as_str().unwrap()), has_text, "{event}");
    }
}

/// The registry's reply, as far as this test says it.
#[derive(serde::Serialize, serde::Deserialize)]
struct GetModel {
    model_id: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct OneModel {
    model: Option<ModelInfo>,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct ModelInfo {
    model_id: String,
    name: String,
    provider: String,
    family: String,
    modality: String,
    is_default: bool,
    metadata: std::collections::BTreeMap<String, String>,
    created_at: Option<tidegate::worker::types::Timestamp>,
    updated_at: Option<tidegate::worker::types::Timestamp>,
}

#[tokio::test]
async fn models_are_those_of_the_registry_where_it_runs() {
    let game = Game::embedded("").await;
    let registry = Service::new("model-management", "1.0.0").unary(
        "model_mgmt.v1.ModelManagementService/GetModel",
        async |_: Context, request: GetModel| {
            let status = match request.model_id.as_str() {
                "old" => "deprecated",
                "small" => "current",
                _ => {
                    use tidegate::fault::{Code, Fault};
                    return Err(Fault::client(Code::NotFound, "no such model"));
                }
            };
            let metadata = [("status", status), ("context_length", "10")];
            let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            Ok(OneModel { model: Some(ModelInfo { model_id: request.model_id, metadata, ..ModelInfo::default() }) })
        },
    );
    let options = Options::new(game.bus.clone(), Arc::new(tables()));
    let _registry = Worker::start(options, vec![registry]).await.unwrap_or_else(|error| panic!("{error}"));
    let ask = async |model: &str| {
        let body = json!({"model_id": model, "prompt": "Who goes there?", "params": {"max_tokens": 7}});
        let answer = game.infer(&body).await;
        let error = answer.json()["error"].clone();
        (answer.status, error["code"].clone(), error["details"]["reason"].clone())
    };
    assert_eq!(ask("old").await, (412, json!("FAILED_PRECONDITION"), json!("deprecated")));
    assert_eq!(ask("gpt-5-pro").await, (404, json!("NOT_FOUND"), Value::Null));
    assert_eq!(ask("small").await, (400, json!("OUT_OF_RANGE"), json!("out_of_range")));
}

#[tokio::test]
async fn streamed_words_of_the_built_in_engine_are_paced() {
    let game = Game::embedded("common: { text: { pacing: 30ms } }\n").await;
    let before = std::time::Instant::now();
    let chunks = game.ask("/v1/inference:stream", &seeded("Who?")).await.chunks();
    let words = chunks.len() as u32 - 1;
    assert!(words > 3 && before.elapsed() >= Duration::from_millis(30) * (words - 1), "{:?}", before.elapsed());
}

#[tokio::test]
async fn prompts_go_to_the_endpoint_together_where_the_settings_say_so() {
    let batches = Arc::new(std::sync::Mutex::new(Vec::<Value>::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen = batches.clone();
    let handler = move |body: axum::body::Bytes| {
        let body: Value = serde_json::from_slice(&body).unwrap();
        // In another order than asked: the index says which text is whose.
        let prompts = body["prompt"].as_array().unwrap().iter().enumerate().rev();
        let choices: Vec<Value> = prompts
            .map(|(index, prompt)| {
                let about = prompt.as_str().unwrap().rsplit(' ').next().unwrap();
                json!({"index": index, "text": format!("On {about}"), "finish_reason": "length"})
            })
            .collect();
        seen.lock().unwrap().push(body);
        async move { json!({ "choices": choices }).to_string() }
    };
    let router = Router::new().route("/v1/completions", post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = format!(
        "common: {{ text: {{ retries: 1, providers: [ {{ kind: openai, base_url: '{address}' }} ] }} }}\n\
         ai-integration: {{ batch: {{ enabled: true, wait: 500ms }} }}\n"
    );
    let game = Arc::new(Game::embedded(&settings).await);
    let asking: Vec<_> = (0..12)
        .map(|number| {
            let game = game.clone();
            let body =
                json!({"model_id": "gpt-5-pro", "prompt": format!("Tell me of {number}"), "params": {"max_tokens": 9}});
            tokio::spawn(async move { game.infer(&body).await.json() })
        })
        .collect();
    for (number, reply) in asking.into_iter().enumerate() {
        let reply = reply.await.unwrap();
        assert_eq!(reply["output_text"], format!("On {number}"), "{reply}");
        assert_eq!(reply["finish_reason"], "length");
    }
    let batches = batches.lock().unwrap();
    let sizes: Vec<usize> = batches.iter().map(|body| body["prompt"].as_array().unwrap().len()).collect();
    // One a replica.
    assert_eq!((sizes.iter().sum::<usize>(), sizes.len() <= 2), (12, true), "{sizes:?}");
    assert_eq!((&batches[0]["max_tokens"], &batches[0]["stream"]), (&json!(9), &json!(false)));
}

#[tokio::test]
async fn a_text_is_as_long_as_wanted_and_streams_the_same() {
    let game = Game::embedded("").await;
    let wanting = |words: Value| {
        let context = json!({"layer": "foundation", "wanted_words": words});
        json!({"model_id": "gpt-5-pro", "prompt": "Where is the ferryman?", "params": {"seed": "7"}, "context": context})
    };
    let count = |text: &str| text.split_whitespace().count();
    let whole = game.infer(&wanting(json!(120))).await.json();
    let text = whole["output_text"].as_str().unwrap();
    assert!((120..160).contains(&count(text)) && text.ends_with('.') && text.contains("ferryman"), "{text}");
    assert_eq!(whole["finish_reason"], "stop");
    let streamed = game.ask("/v1/inference:stream", &wanting(json!(120))).await.chunks();
    let told: String = streamed.iter().filter_map(|chunk| chunk["output_text_delta"].as_str()).collect();
    assert_eq!(told, text);
    let short = game.infer(&wanting(json!(1))).await.json();
    assert!(count(short["output_text"].as_str().unwrap()) < 20, "{short}");
    let longest = game.infer(&wanting(json!(400))).await.json();
    assert!((390..=400).contains(&count(longest["output_text"].as_str().unwrap())), "{longest}");
    for (words, code, reason) in [
        (json!(0), "OUT_OF_RANGE", "out_of_range"),
        (json!(401), "OUT_OF_RANGE", "out_of_range"),
        (json!(1.5), "INVALID_ARGUMENT", "bad_format"),
        (json!("many"), "INVALID_ARGUMENT", "bad_format"),
    ] {
        let refused = game.infer(&wanting(words.clone())).await;
        let error = &refused.json()["error"];
        let found = [&error["code"], &error["details"]["reason"], &error["details"]["field"]];
        assert_eq!(
            (refused.status, found),
            (400, [&json!(code), &json!(reason), &json!("context.wanted_words")]),
            "{words}"
        );
    }
}

#[tokio::test]
async fn words_of_closed_lists_count_in_any_case_and_others_are_refused() {
    let game = Game::embedded("").await;
    let text = async |context: Value| {
        let mut body = seeded("Where is the ferryman?");
        body["context"] = context;
        game.infer(&body).await.json()["output_text"].clone()
    };
    assert_eq!(text(json!({"layer": "Coordination"})).await, text(json!({"layer": "coordination"})).await);
    let chosen = async |mode: &str| text(json!({"mode": mode, "story_act": 2, "npc": "Mara"})).await;
    assert_eq!(chosen("STORY").await, chosen("story").await);

    let deep = (0..16).fold(json!(1), |inner, _| json!([inner]));
    for (body, details) in [
        (
            json!({"prompt": "hi", "context": {"mode": "some"}}),
            json!({"field": "context.mode", "reason": "unknown_value", "allowed": "full,minimal,story,world"}),
        ),
        (json!({"prompt": "hi", "context": {"deep": deep}}), json!({"field": "context", "reason": "too_long"})),
        (
            json!({"prompt": "hi", "params": {"top_p": 0}}),
            json!({"field": "params.top_p", "reason": "out_of_range", "min": "more than 0", "max": "1"}),
        ),
        (json!({"prompt": "hi", "params": {"stop": [""]}}), json!({"field": "params.stop[0]", "reason": "required"})),
        (
            json!({"chat_messages": {"messages": [{"role": "ASSISTANT", "content": "hi"}]}}),
            json!({"field": "chat_messages.messages[0].role", "reason": "unknown_value", "allowed": "USER,TOOL"}),
        ),
    ] {
        let refused = game.infer(&body).await.json();
        assert_eq!(refused["error"]["details"], details, "{body}: {refused}");
    }
}

#[tokio::test]
async fn a_text_depends_on_the_chosen_part_of_the_context_alone() {
    let game = Game::embedded("").await;
    let answer = async |context: Value| {
        let mut body = seeded("Where is the ferryman?");
        body["context"] = context;
        game.infer(&body).await
    };
    let first = answer(json!({})).await;
    assert_eq!(first.label("cache"), Value::Null);
    for same in
        [json!({"layer": "interaction"}), json!({"purpose": "greeting"}), json!({"mode": "world", "npc": "Mara"})]
    {
        let again = answer(same.clone()).await;
        assert_eq!(again.json()["output_text"], first.json()["output_text"], "{same}");
        assert_eq!(again.label("cache"), "hit", "{same}");
    }
    assert_eq!(answer(json!({"world_rain": true})).await.label("cache"), Value::Null, "another input");
}
