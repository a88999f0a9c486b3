//! What a stream does when its worker, its client or its table misbehaves: each ends in exactly one way, and says so.

mod support;

use futures_util::StreamExt as _;
use support::{eventually, gateway, project, url, watch};
use tidegate::bus::{Branch, Bus, Delivery, Headers, Limits, Message, Pattern, Subject};
use tidegate::gateway::Running;
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

/// A worker that hands each request to the test, which answers by hand.
struct Stage {
    bus: Bus,
    requests: mpsc::UnboundedReceiver<Delivery>,
    running: Running,
    live: std::sync::Arc<Live>,
}

fn table(change: impl Fn(String) -> String) -> Snapshot {
    let mut material = project();
    material.routes = change(material.routes);
    material.build(None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

impl Stage {
    async fn new(change: impl Fn(String) -> String) -> Stage {
        let bus = Bus::embedded();
        let pattern = Pattern::new("svc.ai.llm.v1.infer").unwrap();
        let mut subscription = bus.subscribe(&pattern, Some("q"), Limits::WORKER).await.unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = subscription.next().await {
                if sender.send(delivery).is_err() {
                    return;
                }
            }
        });
        let (running, live) = gateway(table(change), &bus, |_| {}).await;
        Stage { bus, requests, running, live }
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

#[tokio::test]
async fn a_gap_ends_the_stream_with_an_error_event() {
    let mut stage = Stage::new(unchanged).await;
    let answer = stage.answered(&[chunk(0, "a", false), chunk(2, "c", false)]).await;
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    assert!(text.contains("id: 0\n"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap().to_owned();
    assert!(last.starts_with("event: error\ndata: {\"error\":{\"code\":\"INTERNAL\""), "{text}");
    assert!(last.contains("\"reason\":\"broken_stream\""), "{text}");
}

#[tokio::test]
async fn an_error_in_the_first_chunk_is_a_real_status() {
    let mut stage = Stage::new(unchanged).await;
    let answer = stage.answered(&[failed()]).await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let text = answer.text().await.unwrap();
    assert!(text.starts_with(r#"{"error":{"code":"NOT_FOUND","message":"no such model"}"#), "{text}");
}

#[tokio::test]
async fn a_stalled_stream_ends_with_deadline_exceeded() {
    let mut stage = Stage::new(|routes| routes.replace("streams: 100", "streams: 100\n    stream_idle: 100ms")).await;
    let text = stage.answered(&[chunk(0, "a", false)]).await.text().await.unwrap();
    assert!(text.contains("event: error\n") && text.contains("DEADLINE_EXCEEDED"), "{text}");
}

#[tokio::test]
async fn no_first_chunk_in_time_is_504() {
    let mut stage = Stage::new(unchanged).await;
    let call = reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).header("x-timeout-ms", "80").body(ASK);
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 504);
    assert!(stage.requests.recv().await.is_some());
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_worker_and_frees_the_slot() {
    let mut stage = Stage::new(|routes| routes.replace("streams: 100", "streams: 1")).await;
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
    assert!(stage.requests.try_recv().is_err());
    drop(body);
    let cancel = cancels.next().await.unwrap().unwrap();
    assert_eq!(cancel.headers.get("Tidegate-Cancel"), Some("client_gone"));
    let answer = stage.answered(&[chunk(0, "b", true)]).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn credit_goes_back_to_the_worker_as_totals() {
    let mut stage = Stage::new(unchanged).await;
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

#[tokio::test]
async fn draining_ends_streams_with_an_end_event_within_the_grace_period() {
    let mut stage = Stage::new(unchanged).await;
    let answer = stage.answered(&[chunk(0, "a", false)]).await;
    let drained = stage.running.drain(support::PATIENCE);
    let (text, cut) = tokio::join!(answer.text(), drained);
    let text = text.unwrap();
    assert!(text.contains("event: end\ndata: {\"reason\":\"draining\"}"), "{text}");
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn a_removed_route_ends_its_streams() {
    let mut stage = Stage::new(unchanged).await;
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

#[tokio::test]
async fn silence_is_filled_with_comments_and_an_unchanged_route_survives_a_reload() {
    let mut stage = Stage::new(unchanged).await;
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

#[tokio::test]
async fn a_stream_that_begins_while_we_drain_ends_with_an_end_event_too() {
    let mut stage = Stage::new(unchanged).await;
    let call = tokio::spawn(reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK).send());
    let request = stage.requests.recv().await.unwrap();
    let begin = async {
        // `drain` below is polled first.
        stage.send(&request, chunk(0, "a", false), None).await;
        call.await.unwrap().unwrap().text().await.unwrap()
    };
    let (cut, text) = tokio::join!(biased; stage.running.drain(support::PATIENCE), begin);
    assert!(text.contains("event: end\ndata: {\"reason\":\"draining\"}"), "{text}");
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn a_route_that_is_removed_before_the_first_chunk_ends_its_stream() {
    let mut stage = Stage::new(unchanged).await;
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

#[tokio::test]
async fn a_worker_whose_stream_has_a_gap_or_a_repeat_or_does_not_decode_is_told_to_stop() {
    for wrong in [chunk(2, "c", false), chunk(0, "a", false), vec![0xff, 0xff]] {
        let mut stage = Stage::new(unchanged).await;
        let control = stage.bus.new_inbox(Branch::Control);
        let mut cancels = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
        let call = tokio::spawn(reqwest::Client::new().post(url(&stage.running, "/ai/llm/infer")).body(ASK).send());
        let request = stage.requests.recv().await.unwrap();
        stage.send(&request, chunk(0, "a", false), Some(control.clone())).await;
        stage.send(&request, wrong, Some(control)).await;
        let text = call.await.unwrap().unwrap().text().await.unwrap();
        assert_eq!(text.matches("event: ").count(), 1, "{text}");
        assert!(text.contains("event: error\ndata: {\"error\":{\"code\":\"INTERNAL\""), "{text}");
        let cancel = cancels.next().await.unwrap().unwrap();
        assert_eq!(cancel.headers.get("Tidegate-Cancel"), Some("client_gone"));
    }
}

#[tokio::test]
async fn an_error_in_the_middle_is_an_event_and_the_last_one() {
    let mut stage = Stage::new(unchanged).await;
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

#[tokio::test]
async fn a_client_that_does_not_read_ends_its_stream_and_its_connection_and_bounds_the_memory() {
    let mut stage = Stage::new(unchanged).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut socket = socket.connect(stage.running.local_addr).await.unwrap();
    let head = format!("POST /ai/llm/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{ASK}", ASK.len());
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    let request = stage.requests.recv().await.unwrap();
    // A worker that knows no credit sends without a pause, until the gateway's own buffers are full.
    for index in 0..30_000_u32 {
        let mut payload = vec![0x2a, 0x80, 0x08];
        payload.resize(3 + 1024, b'x');
        if index > 0 {
            let low = (index & 0x7f) as u8 | 0x80;
            payload.extend_from_slice(&[0x18, low, (index >> 7 & 0x7f) as u8 | 0x80, (index >> 14) as u8]);
        }
        stage.send(&request, payload, None).await;
        if index % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut answer);
    let read = tokio::time::timeout(support::PATIENCE, read).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(read.is_ok(), "{} bytes, ending in {}", text.len(), text.chars().rev().take(400).collect::<String>());
    let last = &text[text.rfind("event: ").unwrap()..];
    assert!(last.contains("RESOURCE_EXHAUSTED") && last.contains("slow_consumer"), "{last}");
    assert_eq!(text.matches("event: ").count(), 1);
}

#[tokio::test]
async fn a_resume_at_the_end_of_a_finished_stream_is_204_and_one_before_it_is_served() {
    let bus = Bus::embedded();
    let pattern = Pattern::new(watch::SUBJECT).unwrap();
    let mut requests = bus.subscribe(&pattern, None, Limits::WORKER).await.unwrap();
    let worker = bus.clone();
    tokio::spawn(async move {
        // The feed is over at revision 7: who comes back gets its end again.
        while let Some(Ok(request)) = requests.next().await {
            watch::send(&worker, &request, watch::item(0, 7, true)).await;
        }
    });
    let (running, _) = gateway(support::snapshot(watch::ROUTES, watch::PROTO), &bus, |_| {}).await;
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
