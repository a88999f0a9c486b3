//! One request and one stream, end to end, on the embedded bus and on a real nats-server.

mod support;

use support::nats::NatsServer;
use support::{gateway, project, settle, url};
use tidegate::bus::{Bus, Delivery, Headers, Limits, Message, Pattern};

/// Answers every message of a subject with what `answer` makes of it.
async fn worker(bus: &Bus, subject: &str, answer: impl Fn(&Bus, Delivery) -> Vec<Message> + Send + 'static) {
    let mut subscription =
        bus.subscribe(&Pattern::new(subject).unwrap(), Some("q.test"), Limits::WORKER).await.unwrap();
    settle(bus).await;
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = subscription.next().await {
            for message in answer(&bus, delivery) {
                bus.publish(message).await.unwrap();
            }
        }
    });
}

fn reply(delivery: &Delivery, payload: Vec<u8>) -> Message {
    Message { subject: delivery.reply.clone().unwrap(), reply: None, headers: Headers::new(), payload: payload.into() }
}

/// `quest { quest_id, title }`.
fn quest() -> Vec<u8> {
    let quest = [b"\x0a\x05qst_1".as_slice(), b"\x12\x08The Hunt"].concat();
    [&[0x12, quest.len() as u8], quest.as_slice()].concat()
}

async fn a_quest_comes_back(bus: Bus) {
    worker(&bus, "svc.quest.v1.generate", |_, delivery| {
        // player_id from the path, seed from the body, and a context that the gateway wrote.
        assert!(delivery.payload.windows(4).any(|w| w == b"\x12\x02p1"), "{:?}", delivery.payload);
        assert_eq!(delivery.headers.get("message-type"), Some("quest.v1.QuestGenerationRequest"));
        vec![reply(&delivery, quest())]
    })
    .await;
    let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
    let client = reqwest::Client::new();
    let answer = client
        .post(url(&running, "/v1/players/p1/quests:generate"))
        .body(r#"{"seed": "42", "meta": {"user_id": "mallory"}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("x-request-id"));
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body, serde_json::json!({"quest": {"quest_id": "qst_1", "title": "The Hunt"}}));
}

async fn a_stream_comes_through(bus: Bus) {
    worker(&bus, "svc.ai.llm.v1.infer", |_, delivery| {
        let chunk = |index: u8, text: &str, is_final: bool| {
            let mut bytes = if index == 0 { vec![] } else { vec![0x18, index] };
            if is_final {
                bytes.extend_from_slice(&[0x20, 1]);
            }
            bytes.extend_from_slice(&[0x2a, text.len() as u8]);
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        vec![
            reply(&delivery, chunk(0, "Hello ", false)),
            reply(&delivery, chunk(1, "there", false)),
            reply(&delivery, chunk(2, ".", true)),
        ]
    })
    .await;
    let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
    let client = reqwest::Client::new();
    let answer = client
        .post(url(&running, "/ai/llm/infer"))
        .body(r#"{"prompt": "Say hello", "params": {"stream": true}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let text = answer.text().await.unwrap();
    let events: Vec<&str> = text.split("\n\n").filter(|event| event.starts_with("id:")).collect();
    assert_eq!(
        events,
        [
            "id: 0\ndata: {\"output_text_delta\":\"Hello \"}",
            "id: 1\ndata: {\"index\":1,\"output_text_delta\":\"there\"}",
            "id: 2\ndata: {\"index\":2,\"is_final\":true,\"output_text_delta\":\".\"}",
        ],
        "{text}"
    );
    assert!(text.starts_with("retry: "), "{text}");
}

async fn without_a_worker_the_answer_is_503_at_once(bus: Bus) {
    let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
    let answer = reqwest::Client::new().post(url(&running, "/quest/generate")).body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "5");
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(body["error"]["code"], "UNAVAILABLE");
    assert_eq!(body["error"]["details"]["reason"], "no_responders");
}

#[tokio::test]
async fn a_quest_over_the_embedded_bus() {
    a_quest_comes_back(Bus::embedded()).await;
}

#[tokio::test]
async fn a_quest_over_nats() {
    let server = NatsServer::start();
    a_quest_comes_back(server.bus().await).await;
}

#[tokio::test]
async fn a_stream_over_the_embedded_bus() {
    a_stream_comes_through(Bus::embedded()).await;
}

#[tokio::test]
async fn a_stream_over_nats() {
    let server = NatsServer::start();
    a_stream_comes_through(server.bus().await).await;
}

#[tokio::test]
async fn no_worker_on_the_embedded_bus() {
    without_a_worker_the_answer_is_503_at_once(Bus::embedded()).await;
}

#[tokio::test]
async fn no_worker_on_nats() {
    let server = NatsServer::start();
    without_a_worker_the_answer_is_503_at_once(server.bus().await).await;
}
