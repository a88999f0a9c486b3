//! Workers by hand, and calls through the edge, for tests of faults.

use std::time::{Duration, Instant};

use tidegate::bus::{Bus, Delivery, Headers, Limits, Message, Pattern, StreamError, Subject, Subscription};
use tidegate::gateway::Running;
use tidegate::snapshot::Snapshot;

use super::{PATIENCE, project, url};

/// Timeout of every route of [`routes`].
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// The project's routes with a short timeout.
pub fn routes() -> Snapshot {
    let mut material = project();
    let (long, short) = ("timeout: 30s", "timeout: 1s");
    assert!(material.routes.contains(long));
    material.routes = material.routes.replace(long, short);
    material.build(None).unwrap()
}

pub async fn listen(bus: &Bus, pattern: &str, limits: Limits) -> Subscription {
    let subscription = bus.subscribe(&Pattern::new(pattern).unwrap(), None, limits).await.unwrap();
    super::settle(bus).await;
    subscription
}

pub async fn next(subscription: &mut Subscription) -> Option<Result<Delivery, StreamError>> {
    tokio::time::timeout(PATIENCE, subscription.next()).await.expect("a message in time")
}

pub fn message(to: &str, payload: &[u8]) -> Message {
    Message {
        subject: Subject::new(to).unwrap(),
        reply: None,
        headers: Headers::new(),
        payload: payload.to_vec().into(),
    }
}

pub fn answer(delivery: &Delivery, payload: &[u8]) -> Message {
    message(delivery.reply.as_ref().unwrap().as_str(), payload)
}

/// Answers each message with what `answers` makes of it.
pub async fn worker(bus: &Bus, subject: &str, mut answers: impl FnMut(Delivery) -> Vec<Message> + Send + 'static) {
    let mut requests = listen(bus, subject, Limits::WORKER).await;
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = requests.next().await {
            for message in answers(delivery) {
                let _ = bus.publish(message).await;
            }
        }
    });
}

/// `quest { title }`.
pub fn quest(title: &str) -> Vec<u8> {
    let length = title.len() as u8;
    [&[0x12, length + 2, 0x12, length], title.as_bytes()].concat()
}

/// Asks for a quest; gives the status, the error's reason or the quest's title, and how long it took.
pub async fn ask(running: &Running) -> (u16, String, Duration) {
    let start = Instant::now();
    let answer = reqwest::Client::new().post(url(running, "/quest/generate")).body("{}").send().await.unwrap();
    let status = answer.status().as_u16();
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let word = [&body["error"]["details"]["reason"], &body["error"]["code"], &body["quest"]["title"]]
        .iter()
        .find_map(|word| word.as_str())
        .unwrap_or_default()
        .to_owned();
    (status, word, start.elapsed())
}

pub async fn readiness(running: &Running) -> (u16, String) {
    let admin = running.admin_addr.unwrap();
    let answer = reqwest::get(format!("http://{admin}/readyz")).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
