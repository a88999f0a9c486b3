//! What a stream does when its worker, its client or its table misbehaves: each ends in exactly one way, and says so, on
//! the embedded bus and on a real nats-server.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use support::place::{Place, on_each_bus};
use support::{PATIENCE, eventually, gateway, project, settle, url, watch};
use tidegate::bus::{Branch, Bus, Delivery, Headers, Limits, Message, Pattern, Subject};
use tidegate::gateway::{GatewayConfig, Running};
use tidegate::snapshot::{Live, Snapshot};
use tokio::sync::mpsc;

const ASK: &str = r#"{"prompt": "Say hello", "params": {"stream": true}}"#;

/// One chunk of the inference stream.
fn chunk(index: u8, text: &str, is_final: bool) -> Vec<u8> {
    let mut bytes = if index == 0 { vec![] } else { vec![0x18, index] };
    if is_final {
        bytes.extend_from_slice(&[0x20, 1]);
    }
    bytes.extend_from_slice(&[0x2a, text.len() as u8]);
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// `error { code: NOT_FOUND, message: "no such model" }`, final.
fn failed() -> Vec<u8> {
    let error = [&[0x08, 2, 0x12, 13], b"no such model".as_slice()].concat();
    [&[0x20, 1, 0x4a, error.len() as u8], error.as_slice()].concat()
}

on_each_bus!(
    |place| (place);
    whatever_a_worker_does_to_its_stream_ends_it_in_one_way_and_says_which,
    an_error_in_the_first_chunk_is_a_real_status,
    a_stream_that_begins_without_a_chunk_has_its_head_at_once_and_waits_for_as_long_as_it_takes,
    a_client_that_leaves_cancels_the_worker_and_frees_the_slot,
    credit_goes_back_to_the_worker_as_totals,
    draining_ends_streams_with_an_end_event_within_the_grace_period,
    a_removed_route_ends_its_streams,
    silence_is_filled_with_comments_and_an_unchanged_route_survives_a_reload,
    a_stream_that_begins_while_we_drain_ends_with_an_end_event_too,
    a_route_that_is_removed_before_the_first_chunk_ends_its_stream,
    an_error_in_the_middle_is_an_event_and_the_last_one,
    a_client_that_reads_nothing_for_a_while_holds_its_worker_and_misses_nothing,
    a_client_that_reads_nothing_for_too_long_loses_its_connection_and_frees_its_slot,
    a_client_that_does_not_read_ends_its_stream_and_its_connection_and_bounds_the_memory,
    a_resume_at_the_end_of_a_finished_stream_is_204_and_one_before_it_is_served,
);

/// A worker that hands each request to the test, which answers by hand.
struct Stage {
    edge: Bus,
    bus: Bus,
    requests: mpsc::UnboundedReceiver<Delivery>,
    running: Running,
    live: Arc<Live>,
    _place: Place,
}

fn table(change: impl Fn(String) -> String) -> Snapshot {
    let mut material = project();
    material.routes = change(material.routes);
    material.build(None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

impl Stage {
    async fn new(place: Place, change: impl Fn(String) -> String) -> Stage {
        Stage::with(place, change, |_| {}).await
    }

    async fn with(place: Place, change: impl Fn(String) -> String, set: impl FnOnce(&mut GatewayConfig)) -> Stage {
        let (edge, bus) = (place.gateway_bus().await, place.bus.clone());
        let pattern = Pattern::new("svc.ai.llm.v1.infer").unwrap();
        let mut subscription = bus.subscribe(&pattern, Some("q"), Limits::WORKER).await.unwrap();
        settle(&bus).await;
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = subscription.next().await {
                if sender.send(delivery).is_err() {
                    return;
                }
            }
        });
        let (running, live) = gateway(table(change), &edge, set).await;
        Stage { edge, bus, requests, running, live, _place: place }
    }

    /// Asks over HTTP; the worker answers with these chunks.
    async fn answered(&mut self, chunks: &[Vec<u8>]) -> reqwest::Response {
        let call = tokio::spawn(reqwest::Client::new().post(url(&self.running, "/ai/llm/infer")).body(ASK).send());
        let request = self.requests.recv().await.unwrap();
        for payload in chunks {
            self.send(&request, payload.clone(), None).await;
        }
        call.await.unwrap().unwrap()
    }

    async fn send(&self, request: &Delivery, payload: Vec<u8>, control: Option<Subject>) {
        let subject = request.reply.clone().unwrap();
        let message = Message { subject, reply: control, headers: Headers::new(), payload: payload.into() };
        self.bus.publish(message).await.unwrap();
    }
}

fn unchanged(routes: String) -> String {
    routes
}

/// Something that a worker does to its stream, and what its client sees of it.
struct Deed {
    name: &'static str,
    /// The bodies that it sends, one by one; then it is silent.
    sends: Vec<Vec<u8>>,
    status: u16,
    /// Ids of the events that come through.
    ids: &'static [u64],
    /// The error as `CODE reason: message`; none where the stream ends as it should.
    error: Option<&'static str>,
    /// What the worker is told.
    told: Option<&'static str>,
}

fn deeds() -> Vec<Deed> {
    let whole = || chunk(1, "b", false);
    let [first, second, third] = [chunk(0, "a", false), whole(), chunk(2, "c", true)];
    let cut = whole()[..whole().len() - 1].to_vec();
    let gap = Some("INTERNAL broken_stream: the worker's stream has a gap");
    let undecodable = Some("INTERNAL malformed_reply: the worker's reply does not decode");
    let stalled = Some("DEADLINE_EXCEEDED stream_idle: the worker's stream stalled");
    let late = Some("DEADLINE_EXCEEDED upstream_timeout: the worker sent no chunk in time");
    let row = |name, sends: &[&Vec<u8>], status, ids, error, told| Deed {
        name,
        sends: sends.iter().map(|payload| payload.to_vec()).collect(),
        status,
        ids,
        error,
        told,
    };
    let stop = Some("client_gone");
    vec![
        row("nothing wrong", &[&first, &second, &third], 200, &[0, 1, 2], None, None),
        row("sends on behind the last chunk", &[&first, &chunk(1, "b", true), &third], 200, &[0, 1], None, None),
        row("leaves one out", &[&first, &third], 200, &[0], gap, stop),
        row("swaps two", &[&first, &third, &second], 200, &[0], gap, stop),
        row("swaps the first two", &[&second, &first, &third], 502, &[], gap, stop),
        row("sends one twice", &[&first, &second, &second, &third], 200, &[0, 1], gap, stop),
        row("sends the first twice", &[&first, &first], 200, &[0], gap, stop),
        row("cuts a chunk", &[&first, &cut], 200, &[0], undecodable, stop),
        row("cuts the first chunk", &[&cut], 502, &[], undecodable, stop),
        row("cuts the stream", &[&first, &second], 200, &[0, 1], stalled, Some("deadline")),
        row("says nothing", &[], 504, &[], late, None),
    ]
}

/// An error's body as `CODE reason: message`.
fn said(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let error = &body["error"];
    format!("{} {}: {}", text(&error["code"]), text(&error["details"]["reason"]), text(&error["message"]))
}

async fn whatever_a_worker_does_to_its_stream_ends_it_in_one_way_and_says_which(place: Place) {
    let one_slot_and_little_patience =
        |routes: String| routes.replace("streams: 100", "streams: 1\n    stream_idle: 1s");
    let mut stage = Stage::new(place, one_slot_and_little_patience).await;
    for Deed { name, sends, status, ids, error, told } in deeds() {
        let control = stage.bus.new_inbox(Branch::Control);
        let mut controls = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
        let call = reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK);
        // Only who says nothing at all needs a short deadline; it is no limit to the others.
        let call = if sends.is_empty() { call.header("x-timeout-ms", "200") } else { call };
        let call = tokio::spawn(call.send());
        let request = stage.requests.recv().await.unwrap();
        for payload in sends {
            stage.send(&request, payload, Some(control.clone())).await;
        }
        let answer = call.await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{name}");
        let text = tokio::time::timeout(PATIENCE, answer.text()).await.expect("the stream ends").unwrap();
        let lines = |start: &'static str| text.lines().filter_map(move |line| line.strip_prefix(start));
        assert_eq!(lines("id: ").map(|id| id.parse().unwrap()).collect::<Vec<u64>>(), ids, "{name}: {text}");
        let errors: Vec<String> = match status {
            200 => {
                text.split("\n\n").filter_map(|event| event.strip_prefix("event: error\ndata: ")).map(said).collect()
            }
            _ => vec![said(&text)],
        };
        assert_eq!(errors, error.into_iter().collect::<Vec<_>>(), "{name}: {text}");
        assert_eq!(lines("event: ").count(), usize::from(status == 200 && error.is_some()), "{name}: {text}");
        if let Some(told) = told {
            let cancel = tokio::time::timeout(PATIENCE, controls.next()).await.expect("the worker is told");
            assert_eq!(cancel.unwrap().unwrap().headers.get("Tidegate-Cancel"), Some(told), "{name}");
        }
        let again = stage.answered(&[chunk(0, "again", true)]).await;
        assert_eq!(again.status(), 200, "{name}: the one slot is free again");
        assert!(again.text().await.unwrap().contains("\"again\""), "{name}");
    }
    assert_eq!(stage.edge.figures().pending, 0);
}

#[tokio::test]
async fn a_worker_that_is_gone_in_the_middle_ends_its_stream_alone() {
    let idle = |routes: String| routes.replace("streams: 100", "streams: 100\n    stream_idle: 1s");
    let mut stage = Stage::new(Place::nats().await, idle).await;
    let answer = stage.answered(&[chunk(0, "a", false)]).await;
    stage.bus.close().await;
    let text = tokio::time::timeout(PATIENCE, answer.text()).await.expect("the stream ends").unwrap();
    let (before, error) = text.split_once("event: error\ndata: ").unwrap();
    assert!(before.contains("id: 0\n"), "{text}");
    assert_eq!(said(error.trim_end()), "DEADLINE_EXCEEDED stream_idle: the worker's stream stalled");
    // Nobody is left for the next one, and it is told at once.
    let call = reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK);
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(said(&answer.text().await.unwrap()), "UNAVAILABLE no_responders: no worker answers for this method");
}

async fn an_error_in_the_first_chunk_is_a_real_status(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let answer = stage.answered(&[failed()]).await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let text = answer.text().await.unwrap();
    assert!(text.starts_with(r#"{"error":{"code":"NOT_FOUND","message":"no such model"}"#), "{text}");
}

async fn a_stream_that_begins_without_a_chunk_has_its_head_at_once_and_waits_for_as_long_as_it_takes(place: Place) {
    let mut stage =
        Stage::new(place, |routes| routes.replace("streams: 100", "streams: 100\n    stream_idle: 30s")).await;
    let (control, limit) = (stage.bus.new_inbox(Branch::Control), Duration::from_millis(300));
    let mut cancels = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    let sign = |request: &Delivery, names: &[&'static str]| {
        let mut headers = Headers::new();
        names.iter().for_each(|name| assert!(headers.push(*name, "1")));
        let subject = request.reply.clone().unwrap();
        Message { subject, reply: Some(control.clone()), headers, payload: Default::default() }
    };
    for is_refused in [false, true] {
        let call = reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK);
        let call = tokio::spawn(call.header("x-timeout-ms", limit.as_millis().to_string()).send());
        let request = stage.requests.recv().await.unwrap();
        // A heartbeat alone says no more than that somebody is there.
        stage.bus.publish(sign(&request, &["Stream-Heartbeat"])).await.unwrap();
        settle(&stage.bus).await;
        assert!(!call.is_finished());
        stage.bus.publish(sign(&request, &["Stream-Heartbeat", "Tidegate-Begun"])).await.unwrap();
        let mut answer = call.await.unwrap().unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let mut text = String::new();
        while !text.ends_with(":keepalive\n\n") {
            text.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
        }
        assert!(text.starts_with("retry: ") && !text.contains("data:"), "{text}");
        // The limit was one for the beginning.
        tokio::time::sleep(limit).await;
        if is_refused {
            stage.send(&request, failed(), None).await;
            let text = answer.text().await.unwrap();
            assert!(text.starts_with("event: error\ndata: {\"error\":{\"code\":\"NOT_FOUND\""), "{text}");
        } else {
            stage.send(&request, chunk(0, "a", false), None).await;
            let text = answer.chunk().await.unwrap().unwrap();
            assert!(text.starts_with(b"id: 0\ndata: {"), "{text:?}");
            drop(answer);
            let cancel = tokio::time::timeout(PATIENCE, cancels.next()).await.expect("the worker is told");
            assert_eq!(cancel.unwrap().unwrap().headers.get("Tidegate-Cancel"), Some("client_gone"));
        }
    }
}

async fn a_client_that_leaves_cancels_the_worker_and_frees_the_slot(place: Place) {
    let mut stage = Stage::new(place, |routes| routes.replace("streams: 100", "streams: 1")).await;
    let control = stage.bus.new_inbox(Branch::Control);
    let mut cancels = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    let address = url(&stage.running, "/ai/llm/infer");
    let call = tokio::spawn(reqwest::Client::new().post(&address).body(ASK).send());
    let request = stage.requests.recv().await.unwrap();
    assert_eq!(request.headers.get("Tidegate-Window"), Some("64 1048576"));
    stage.send(&request, chunk(0, "a", false), Some(control)).await;
    let mut body = call.await.unwrap().unwrap().bytes_stream();
    assert!(body.next().await.is_some());
    // The one slot is taken: the next stream is refused before anything is published.
    let refused = reqwest::Client::new().post(&address).body(ASK).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "10");
    settle(&stage.edge).await;
    settle(&stage.bus).await;
    assert!(stage.requests.try_recv().is_err());
    drop(body);
    let cancel = cancels.next().await.unwrap().unwrap();
    assert_eq!(cancel.headers.get("Tidegate-Cancel"), Some("client_gone"));
    let answer = stage.answered(&[chunk(0, "b", true)]).await;
    assert_eq!(answer.status(), 200);
}

async fn credit_goes_back_to_the_worker_as_totals(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let control = stage.bus.new_inbox(Branch::Control);
    let mut credits = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    let call = tokio::spawn(reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK).send());
    let request = stage.requests.recv().await.unwrap();
    for index in 0..16 {
        stage.send(&request, chunk(index, "x", false), Some(control.clone())).await;
    }
    let mut body = call.await.unwrap().unwrap().bytes_stream();
    let read = tokio::spawn(async move { while body.next().await.is_some() {} });
    let credit = credits.next().await.unwrap().unwrap();
    let total: u64 = credit.headers.get("Tidegate-Credit").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(total, 16 + 64);
    stage.send(&request, chunk(16, "end", true), Some(control)).await;
    read.await.unwrap();
}

async fn draining_ends_streams_with_an_end_event_within_the_grace_period(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let answer = stage.answered(&[chunk(0, "a", false)]).await;
    let drained = stage.running.drain(PATIENCE);
    let (text, cut) = tokio::join!(answer.text(), drained);
    let text = text.unwrap();
    assert!(text.contains("event: end\ndata: {\"reason\":\"draining\"}"), "{text}");
    assert_eq!(cut, 0);
}

async fn a_removed_route_ends_its_streams(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let answer = stage.answered(&[chunk(0, "a", false)]).await;
    stage.live.swap(table(|routes| {
        routes.replace("- services: [ \"*\" ]", "- services: [ quest.v1.QuestService ]").replace(
            "ai_integration.v1.AiIntegrationService/Infer:\n    streams: 100",
            "quest.v1.QuestService/GetQuest: {}",
        )
    }));
    let text = answer.text().await.unwrap();
    assert!(text.contains("event: end\ndata: {\"reason\":\"reloaded\"}"), "{text}");
}

async fn silence_is_filled_with_comments_and_an_unchanged_route_survives_a_reload(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let call = tokio::spawn(reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK).send());
    let request = stage.requests.recv().await.unwrap();
    stage.send(&request, chunk(0, "a", false), None).await;
    let answer = call.await.unwrap().unwrap();
    stage.live.swap(table(unchanged));
    eventually("the new generation is in force", async || stage.live.pin().generation > 1).await;
    stage.send(&request, chunk(1, "b", true), None).await;
    let text = answer.text().await.unwrap();
    assert!(text.contains("id: 1\n") && !text.contains("event:"), "{text}");
}

async fn a_stream_that_begins_while_we_drain_ends_with_an_end_event_too(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let call = tokio::spawn(reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK).send());
    let request = stage.requests.recv().await.unwrap();
    let begin = async {
        // `drain` below is polled first.
        stage.send(&request, chunk(0, "a", false), None).await;
        call.await.unwrap().unwrap().text().await.unwrap()
    };
    let (cut, text) = tokio::join!(biased; stage.running.drain(PATIENCE), begin);
    assert!(text.contains("event: end\ndata: {\"reason\":\"draining\"}"), "{text}");
    assert_eq!(cut, 0);
}

async fn a_route_that_is_removed_before_the_first_chunk_ends_its_stream(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let call = tokio::spawn(reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK).send());
    let request = stage.requests.recv().await.unwrap();
    stage.live.swap(table(|routes| {
        routes.replace("- services: [ \"*\" ]", "- services: [ quest.v1.QuestService ]").replace(
            "ai_integration.v1.AiIntegrationService/Infer:\n    streams: 100",
            "quest.v1.QuestService/GetQuest: {}",
        )
    }));
    stage.send(&request, chunk(0, "a", false), None).await;
    let text = call.await.unwrap().unwrap().text().await.unwrap();
    assert!(text.contains("event: end\ndata: {\"reason\":\"reloaded\"}"), "{text}");
}

async fn an_error_in_the_middle_is_an_event_and_the_last_one(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let error = [vec![0x18, 1], failed()].concat();
    let text = stage.answered(&[chunk(0, "a", false), error]).await.text().await.unwrap();
    let events: Vec<&str> = text.trim_end().split("\n\n").collect();
    let first = events[0].strip_prefix("retry: ").unwrap().parse::<u32>().unwrap();
    assert!((1_000..=5_000).contains(&first), "{text}");
    assert_eq!(events[1], ":keepalive");
    assert!(events[2].starts_with("id: 0\ndata: {"), "{text}");
    let wanted = "event: error\ndata: {\"error\":{\"code\":\"NOT_FOUND\",\"message\":\"no such model\"";
    assert!(events[3].starts_with(wanted) && events.len() == 4, "{text}");
}

/// A chunk of that many bytes of text.
fn long_chunk(index: u32, size: usize, is_final: bool) -> Vec<u8> {
    let mut payload = vec![0x2a, (size & 0x7f) as u8 | 0x80, (size >> 7 & 0x7f) as u8 | 0x80, (size >> 14) as u8];
    payload.resize(4 + size, b'x');
    if index > 0 {
        payload.extend([0x18, (index & 0x7f) as u8 | 0x80, (index >> 7 & 0x7f) as u8 | 0x80, (index >> 14) as u8]);
    }
    if is_final {
        payload.extend([0x20, 1]);
    }
    payload
}

/// A client that asks for a stream and has hardly room for what comes.
async fn slow_client(stage: &Stage) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut socket = socket.connect(stage.running.local_addr).await.unwrap();
    let length = ASK.len();
    let head =
        format!("POST /ai/llm/infer HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{ASK}");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    socket
}

/// Sends a stream of long chunks, none of them without credit. Counts them in `sent`; ends with the last one, or gives
/// the word by which it is told to stop.
async fn send_on_credit(bus: Bus, request: Delivery, count: u32, sent: Arc<AtomicU32>) -> Option<String> {
    let control = bus.new_inbox(Branch::Control);
    let mut controls = bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    let window = request.headers.get("Tidegate-Window").unwrap();
    let totals = |text: &str| {
        let (chunks, bytes) = text.split_once(' ').unwrap();
        (chunks.parse::<u32>().unwrap(), bytes.parse::<usize>().unwrap())
    };
    let (mut credit, mut bytes) = (totals(window), 0);
    for index in 0..count {
        let payload = long_chunk(index, LONG, index + 1 == count);
        bytes += payload.len();
        while credit.0 <= index || credit.1 < bytes {
            let told = controls.next().await.unwrap().unwrap();
            if let Some(reason) = told.headers.get("Tidegate-Cancel") {
                return Some(reason.to_owned());
            }
            credit = totals(told.headers.get("Tidegate-Credit").unwrap());
        }
        let (subject, reply) = (request.reply.clone().unwrap(), Some(control.clone()));
        bus.publish(Message { subject, reply, headers: Headers::new(), payload: payload.into() }).await.unwrap();
        sent.fetch_add(1, Ordering::Relaxed);
    }
    None
}

/// Bytes of the text in a long chunk.
const LONG: usize = 16 * 1024;
/// Chunks of a stream that fits into no socket: 32 MiB.
const MANY: u32 = 2_048;

async fn a_client_that_reads_nothing_for_a_while_holds_its_worker_and_misses_nothing(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let mut client = slow_client(&stage).await;
    let request = stage.requests.recv().await.unwrap();
    let sent = Arc::default();
    let sending = tokio::spawn(send_on_credit(stage.bus.clone(), request, MANY, Arc::clone(&sent)));
    // Long enough for everything else to get nervous, and less than a write may stall.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ahead = sent.load(Ordering::Relaxed);
    // What the kernel holds for the two sockets (6 MiB at most by its defaults), and the window.
    assert!(ahead < MANY / 2, "the worker sent {ahead} of {MANY} chunks to a client that reads nothing");
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer);
    tokio::time::timeout(PATIENCE * 2, read).await.expect("the stream ends").unwrap();
    let text = String::from_utf8(answer).unwrap();
    let ids: Vec<u32> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert_eq!(ids, (0..MANY).collect::<Vec<_>>());
    assert_eq!((text.matches("\nevent: ").count(), sending.await.unwrap()), (0, None));
}

async fn a_client_that_reads_nothing_for_too_long_loses_its_connection_and_frees_its_slot(place: Place) {
    let one_slot = |routes: String| routes.replace("streams: 100", "streams: 1");
    let mut stage = Stage::with(place, one_slot, |config| config.limits.write_stall = Duration::from_secs(1)).await;
    let mut client = slow_client(&stage).await;
    let request = stage.requests.recv().await.unwrap();
    let sending = send_on_credit(stage.bus.clone(), request, MANY, Arc::default());
    let told = tokio::time::timeout(PATIENCE, sending).await.expect("the worker is told");
    assert_eq!(told.as_deref(), Some("client_gone"));
    let mut answer = Vec::new();
    // The end is a reset where the client had not read all, and nothing that looks like a good end.
    let _ =
        tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer)).await.unwrap();
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{} bytes", answer.len());
    let next = stage.answered(&[chunk(0, "b", true)]).await;
    assert_eq!(next.status(), 200, "the one slot is free again");
}

async fn a_client_that_does_not_read_ends_its_stream_and_its_connection_and_bounds_the_memory(place: Place) {
    let mut stage = Stage::new(place, unchanged).await;
    let mut socket = slow_client(&stage).await;
    let request = stage.requests.recv().await.unwrap();
    // A worker that knows no credit sends without a pause, until the gateway's own buffers are full.
    for index in 0..30_000_u32 {
        stage.send(&request, long_chunk(index, 1024, false), None).await;
        if index % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer);
    let read = tokio::time::timeout(PATIENCE, read).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(read.is_ok(), "{} bytes, ending in {}", text.len(), text.chars().rev().take(400).collect::<String>());
    let last = &text[text.rfind("event: ").unwrap()..];
    assert!(last.contains("RESOURCE_EXHAUSTED") && last.contains("slow_consumer"), "{last}");
    assert_eq!(text.matches("event: ").count(), 1);
}

async fn a_resume_at_the_end_of_a_finished_stream_is_204_and_one_before_it_is_served(place: Place) {
    let (edge, worker) = (place.gateway_bus().await, place.bus.clone());
    let pattern = Pattern::new(watch::SUBJECT).unwrap();
    let mut requests = worker.subscribe(&pattern, None, Limits::WORKER).await.unwrap();
    settle(&worker).await;
    tokio::spawn(async move {
        // The feed is over at revision 7: who comes back gets its end again.
        while let Some(Ok(request)) = requests.next().await {
            watch::send(&worker, &request, watch::item(0, 7, true)).await;
        }
    });
    let (running, _) = gateway(support::snapshot(watch::ROUTES, watch::PROTO), &edge, |_| {}).await;
    let rows = [(None, 200), (Some("6"), 200), (Some("7"), 204), (Some("8"), 204), (Some(""), 400)];
    for (last, status) in rows {
        let mut request = reqwest::Client::new().get(url(&running, "/watch/tides"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{last:?}");
        let text = answer.text().await.unwrap();
        assert_eq!(text.contains("id: 7\ndata: {"), status == 200, "{last:?}: {text}");
        assert_eq!(text.is_empty(), status == 204, "{last:?}: {text}");
    }
}
