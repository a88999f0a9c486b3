//! Text from an endpoint of the OpenAI chat-completions form: asked as documented, streamed on, stood in for when it
//! fails, and as the prose of other services.

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use support::model::Model;
use support::replicas::Replicas;
use support::{gateway, project, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::services::{LiveSettings, roster};
use tidegate::worker::{Options, Worker};

const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
    : a comment\n\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"Ask \"}}]}\n\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"the widow.\"},\"finish_reason\":null}]}\r\n\r\n\
    data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
    data: [DONE]\n\n";

async fn fake(statuses: &[u16]) -> (Model, String) {
    Model::start(statuses, STREAM).await
}

async fn game(base_url: String) -> (Running, Worker) {
    let build = || project().build(None).unwrap_or_else(|_| panic!("the project's own tables are refused"));
    let bus = Bus::embedded();
    let (running, _) = gateway(build(), &bus, |_| {}).await;
    let options = Options::new(bus, Arc::new(build()));
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("services.yaml"), folder.path().join("key"));
    std::fs::write(&key, "secret\n").unwrap();
    let text = format!(
        "common:
  text:
    retry_pause: [1ms]
    providers:
      - {{ kind: openai, base_url: '{base_url}', models: {{ gpt-5-pro: their-model }}, key: 'file:{}' }}
",
        key.display()
    );
    std::fs::write(&file, text).unwrap();
    let (settings, _) = LiveSettings::follow(&file).unwrap_or_else(|report| panic!("{report}"));
    let services = roster(&options.store, &settings, |_| true).await.unwrap();
    let worker = Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"));
    (running, worker)
}

async fn post_json(running: &Running, path: &str, body: Value) -> (u16, String) {
    let answer = reqwest::Client::new().post(url(running, path)).body(body.to_string()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn request() -> Value {
    json!({
        "prompt": "Where is the ferryman?",
        "params": {"temperature": 0, "max_tokens": 64, "stop": ["END"], "seed": "7"},
        "context": {"npc": "widow", "layer": "interaction"},
    })
}

#[tokio::test]
async fn the_endpoint_is_asked_as_documented() {
    let (fake, address) = fake(&[200]).await;
    let (running, _worker) = game(address).await;
    let (status, text) = post_json(&running, "/v1/models/gpt-5-pro:infer", request()).await;
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &reply["output_text"], &reply["finish_reason"]),
        (200, &json!("Ask the widow."), &json!("length"))
    );
    assert_eq!(reply["usage"], json!({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}));
    let (headers, asked) = fake.asked().remove(0);
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(
        asked,
        json!({
            "model": "their-model",
            "messages": [
                {
                    "role": "system",
                    "content": "You speak as a character of a dark city: short, in dialogue, without stage directions.",
                },
                {"role": "system", "content": "{\"npc\":\"widow\"}"},
                {"role": "user", "content": "Where is the ferryman?"},
            ],
            "stream": true, "max_tokens": 64, "temperature": 0.0, "stop": ["END"], "seed": 7,
        })
    );
}

#[tokio::test]
async fn pieces_are_streamed_on() {
    let (_, address) = fake(&[200]).await;
    let (running, _worker) = game(address).await;
    let (status, text) = post_json(&running, "/v1/models/gpt-5-pro:streamInfer", request()).await;
    assert_eq!(status, 200);
    let chunks: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said: Vec<&str> = chunks.iter().filter_map(|chunk| chunk["output_text_delta"].as_str()).collect();
    assert_eq!(said, ["Ask ", "the widow."]);
    assert_eq!(chunks.last().unwrap()["finish_reason"], "length");
}

#[tokio::test]
async fn a_failed_try_is_made_again() {
    let (fake, address) = fake(&[500, 503, 200]).await;
    let (running, _worker) = game(address).await;
    let (status, text) = post_json(&running, "/v1/inference", request()).await;
    assert!(status == 200 && text.contains("Ask the widow."), "{text}");
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn the_built_in_engine_stands_in_and_an_open_breaker_asks_no_more() {
    let (fake, address) = fake(&[500]).await;
    let (running, _worker) = game(address).await;
    for _ in 0..4 {
        let (status, text) = post_json(&running, "/v1/inference", request()).await;
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &reply["meta"]["labels"]["degraded"]), (200, &json!("true")));
        assert_eq!(reply["meta"]["labels"]["provider"], "builtin");
    }
    // Three tries of the first call, two of the second, which open the breaker.
    assert_eq!(fake.asked().len(), 5);
}

#[tokio::test]
async fn a_refusal_is_the_callers_answer() {
    for (given, expected, code) in [(422, 400, "INVALID_ARGUMENT"), (429, 429, "RESOURCE_EXHAUSTED")] {
        let (fake, address) = fake(&[given]).await;
        let (running, _worker) = game(address).await;
        let (status, text) = post_json(&running, "/v1/inference", request()).await;
        let reply: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &reply["error"]["code"]), (expected, &json!(code)));
        assert_eq!(fake.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_cancelled_generation_ends_with_its_last_chunk() {
    use futures_util::StreamExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = || async {
        let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"on and \"}}]}\n\n";
        let endless = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Some((Ok::<_, std::convert::Infallible>(piece), ()))
        });
        axum::body::Body::from_stream(endless)
    };
    let router = Router::new().route("/v1/chat/completions", post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (running, _worker) = game(format!("http://{address}/v1")).await;
    let stream = reqwest::Client::new().post(url(&running, "/v1/inference:stream")).body(request().to_string());
    let mut bytes = stream.send().await.unwrap().bytes_stream();
    let (mut seen, mut is_cancelled) = (String::new(), false);
    let chunk = |line: &str| -> Option<Value> { serde_json::from_str(line.strip_prefix("data:")?).ok() };
    while let Some(more) = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("the stream goes on") {
        seen.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
        if !is_cancelled && let Some(first) = seen.lines().find_map(chunk) {
            is_cancelled = true;
            let path = format!("/v1/generations/{}:cancel", first["generation_id"].as_str().unwrap());
            let (status, text) = post_json(&running, &path, json!({})).await;
            assert!(status == 200 && text.contains("\"cancelled\":true"), "{text}");
        }
    }
    let last = seen.lines().rev().find_map(chunk).unwrap();
    assert_eq!((&last["is_final"], &last["finish_reason"]), (&json!(true), &json!("cancelled")));
}

/// A text of a service in which a model's words may stand.
struct Prose {
    setting: &'static str,
    subject: &'static str,
    request: Value,
    /// Where the words are in the reply.
    at: &'static str,
    /// Fields that go with the words, such as how sure the service is of them.
    with: &'static [&'static str],
}

fn all_prose() -> [Prose; 5] {
    let set = json!({ "location_id": "cellar", "scene_type": "transition", "max_elements": 1 });
    let lore = json!({ "story_type": "lore", "themes": ["greed"], "min_length": 100, "max_length": 300 });
    let unknown = json!({ "text": "Umbrellas rust.", "source_language": "en", "target_language": "fr" });
    [
        Prose {
            setting: "quest-system.text.llm",
            subject: "svc.quest.v1.generate",
            request: json!({ "player_id": "p1", "seed": 5 }),
            at: "/quest/description",
            with: &[],
        },
        Prose {
            setting: "story-teller.text.llm",
            subject: "svc.story.v1.generate",
            request: lore,
            at: "/story/content",
            with: &[],
        },
        Prose {
            setting: "environmental-narrative.text.llm",
            subject: "svc.narrative.v1.generate",
            request: set,
            at: "/elements/0/content",
            with: &[],
        },
        Prose {
            setting: "knowledge-base.text.llm",
            subject: "svc.kb.v1.query",
            request: json!({ "query_text": "riddles" }),
            at: "/synthesized_answer",
            with: &[],
        },
        Prose {
            setting: "language-system.text.llm",
            subject: "svc.lang.v1.translate",
            request: unknown,
            at: "/translated_text",
            with: &["confidence", "alternatives"],
        },
    ]
}

/// Settings that take prose from this endpoint, tried once, or from the built-in engine alone.
fn prose_settings(base_url: Option<&str>) -> Vec<(&'static str, Value)> {
    let mut settings: Vec<_> = all_prose().map(|prose| (prose.setting, json!(true))).into();
    if let Some(base_url) = base_url {
        settings.push(("common.text.providers", json!([{ "kind": "openai", "base_url": base_url }])));
        settings.push(("common.text.retries", json!(1)));
        // An endpoint that has recovered is asked again, if anybody wants to.
        settings.push(("common.text.breaker.failures", json!(1_000)));
    }
    settings
}

/// The reply, its labels, and the words in it, which are taken out together with what goes with them.
async fn told(game: &Replicas, prose: &Prose) -> (Value, Value, String) {
    let mut reply = game.ask_as(prose.subject, json!({}), prose.request.clone()).await;
    let labels = reply["meta"]["labels"].take();
    reply.as_object_mut().unwrap().remove("meta");
    let words = reply.pointer_mut(prose.at).unwrap_or_else(|| panic!("no prose")).take();
    for name in prose.with {
        reply.as_object_mut().unwrap().remove(*name);
    }
    (reply, labels, words.as_str().unwrap().to_owned())
}

/// Documents that a question finds, known to both replicas.
async fn know_riddles(game: &Replicas) {
    let riddles =
        json!({ "collection": "lore", "documents": [{ "document_id": "d1", "content": "A court of riddles." }] });
    game.ask("svc.kb.v1.ingest", riddles).await;
    support::eventually("both replicas know it", async || {
        let asked = (0..8).map(|_| game.ask("svc.kb.v1.query", json!({ "query_text": "riddles" })));
        futures_util::future::join_all(asked).await.iter().all(|reply| reply["documents"].is_array())
    })
    .await;
}

async fn game_with_prose(base_url: Option<&str>, is_on_nats: bool) -> Replicas {
    let settings = prose_settings(base_url);
    let game = match is_on_nats {
        true => Replicas::nats(&settings).await,
        false => Replicas::embedded(&settings).await,
    };
    know_riddles(&game).await;
    game
}

async fn a_models_words_stand_in_the_same_structure_and_stay(is_on_nats: bool) {
    let plain = Replicas::embedded(&[]).await;
    know_riddles(&plain).await;
    let (model, base_url) = Model::saying("The ferryman knows.", &[200]).await;
    let game = game_with_prose(Some(&base_url), is_on_nats).await;
    for prose in all_prose() {
        let subject = prose.subject;
        let (structure, _, own) = told(&plain, &prose).await;
        let (same, labels, words) = told(&game, &prose).await;
        assert_eq!((&same, &labels), (&structure, &Value::Null), "{subject}");
        assert!(words.starts_with("The ferryman knows.") && words != own, "{subject}: {words}");
        let asked = model.asked().len();
        for _ in 0..6 {
            assert_eq!(told(&game, &prose).await, (same.clone(), Value::Null, words.clone()), "{subject}");
        }
        assert_eq!(model.asked().len(), asked, "{subject}: a repeat reads what is kept");
    }
    let (_, asked) = model.asked().remove(0);
    assert!(asked["messages"].to_string().contains("riddles"), "the first one was asked about the documents: {asked}");
}

#[tokio::test]
async fn a_models_words_stand_in_the_same_structure_and_stay_on_either_bus() {
    a_models_words_stand_in_the_same_structure_and_stay(false).await;
    a_models_words_stand_in_the_same_structure_and_stay(true).await;
}

#[tokio::test]
async fn the_built_in_engine_alone_writes_prose_and_answers_nothing() {
    let plain = Replicas::embedded(&[]).await;
    know_riddles(&plain).await;
    let game = game_with_prose(None, false).await;
    for prose in all_prose() {
        let subject = prose.subject;
        let (structure, _, own) = told(&plain, &prose).await;
        let (same, labels, words) = told(&game, &prose).await;
        assert_eq!((&same, &labels), (&structure, &Value::Null), "{subject}");
        // What has to be understood first is left as it is.
        let is_answer = ["svc.kb.v1.query", "svc.lang.v1.translate"].contains(&subject);
        assert_eq!(words == own, is_answer, "{subject}: {words}");
        for _ in 0..6 {
            assert_eq!(told(&game, &prose).await, (same.clone(), Value::Null, words.clone()), "{subject}");
        }
    }
}

#[tokio::test]
async fn prose_of_a_later_provider_is_labelled_and_stays_when_the_first_one_is_back() {
    let plain = Replicas::embedded(&[]).await;
    know_riddles(&plain).await;
    let (model, base_url) = Model::saying("The ferryman knows.", &[500]).await;
    let game = game_with_prose(Some(&base_url), false).await;
    let mut first = Vec::new();
    for prose in all_prose() {
        let (structure, _, own) = told(&plain, &prose).await;
        let (same, labels, words) = told(&game, &prose).await;
        let is_answer = ["svc.kb.v1.query", "svc.lang.v1.translate"].contains(&prose.subject);
        assert_eq!((&same, &labels["degraded"]), (&structure, &json!("true")), "{}", prose.subject);
        let provider = if is_answer { Value::Null } else { json!("builtin") };
        assert_eq!((&labels["provider"], words == own), (&provider, is_answer), "{}: {words}", prose.subject);
        first.push((prose, is_answer, words));
    }
    model.recover();
    for (prose, is_answer, words) in first {
        for _ in 0..4 {
            let (_, labels, now) = told(&game, &prose).await;
            let expected = if is_answer { "The ferryman knows." } else { &words };
            assert_eq!((now.as_str(), labels), (expected, Value::Null), "{}", prose.subject);
        }
    }
}
