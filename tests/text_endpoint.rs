//! Text from an endpoint of the OpenAI chat-completions form: asked as documented, streamed on, and stood in for when
//! it fails.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
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

/// An endpoint that answers with these statuses in turn, the last one for ever, and keeps what it was asked.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    statuses: Vec<u16>,
    asked: Vec<(HeaderMap, Value)>,
}

impl Fake {
    async fn start(statuses: &[u16]) -> (Fake, String) {
        let fake = Fake(Arc::new(Mutex::new(State { statuses: statuses.to_vec(), asked: Vec::new() })));
        let (answering, listener) = (fake.clone(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let handler = move |headers: HeaderMap, body: Bytes| async move { answering.answer(headers, &body) };
        let router = Router::new().route("/v1/chat/completions", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, format!("http://{address}/v1"))
    }

    fn answer(&self, headers: HeaderMap, body: &[u8]) -> Response {
        let mut state = self.0.lock().unwrap();
        state.asked.push((headers, serde_json::from_slice(body).unwrap()));
        let status = if state.statuses.len() > 1 { state.statuses.remove(0) } else { state.statuses[0] };
        (StatusCode::from_u16(status).unwrap(), if status == 200 { STREAM } else { "{}" }).into_response()
    }

    fn asked(&self) -> Vec<(HeaderMap, Value)> {
        self.0.lock().unwrap().asked.clone()
    }
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
    let (fake, address) = Fake::start(&[200]).await;
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
    let (_, address) = Fake::start(&[200]).await;
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
    let (fake, address) = Fake::start(&[500, 503, 200]).await;
    let (running, _worker) = game(address).await;
    let (status, text) = post_json(&running, "/v1/inference", request()).await;
    assert!(status == 200 && text.contains("Ask the widow."), "{text}");
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test]
async fn the_built_in_engine_stands_in_and_an_open_breaker_asks_no_more() {
    let (fake, address) = Fake::start(&[500]).await;
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
        let (fake, address) = Fake::start(&[given]).await;
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
