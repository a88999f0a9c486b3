//! What a client can do to the edge over HTTP/2, frame by frame: what it gets for it, and that it costs little.

mod support;

use std::time::Duration;

use support::http2::{
    self, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS,
    INITIAL_WINDOW, NO_ERROR, PING, PRIORITY, PROTOCOL_ERROR, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, get,
    post, reset,
};
use support::{eventually, gateway, project};
use tidegate::bus::{Branch, Bus, Delivery, Headers, Limits, Message, Pattern, Subject, Subscription};
use tidegate::gateway::{GatewayConfig, Running};

const UNARY: &str = "svc.quest.v1.generate";
const STREAM: &str = "svc.ai.llm.v1.infer";
const ASK: &str = r#"{"prompt": "x", "params": {"stream": true}}"#;

/// Header fields of a request.
type Fields<'a> = Vec<(&'a str, &'a str)>;
/// The frames of a mistake on a stream.
type Mistake<'a> = &'a dyn Fn(u32) -> Vec<u8>;

/// An edge, and the requests that reach the bus.
struct Stage {
    bus: Bus,
    requests: Subscription,
    running: Running,
}

impl Stage {
    async fn new(subject: &str, change: impl FnOnce(&mut GatewayConfig)) -> Stage {
        let bus = Bus::embedded();
        let limits = Limits { messages: 20_000, bytes: 1 << 30, ends_on_overflow: false };
        let requests = bus.subscribe(&Pattern::new(subject).unwrap(), None, limits).await.unwrap();
        let (running, _) = gateway(project().build(None).unwrap(), &bus, change).await;
        Stage { bus, requests, running }
    }

    async fn request(&mut self) -> Delivery {
        let next = tokio::time::timeout(support::PATIENCE, self.requests.next());
        next.await.expect("a request in time").unwrap().unwrap()
    }

    /// How many requests have come and were not read.
    fn waiting(&mut self) -> usize {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::iter::from_fn(|| match self.requests.poll_next(&mut context) {
            std::task::Poll::Ready(Some(Ok(delivery))) => Some(delivery),
            _ => None,
        })
        .count()
    }

    /// Nothing is left of all that, and others are served.
    async fn is_unharmed(&self) {
        eventually("nothing waits on the bus", async || self.bus.figures().pending == 0).await;
        let mut other = Raw::connect(&self.running, &[]).await;
        other.send(&get(1, "/nowhere")).await;
        assert!(other.body(1).await.contains("route_not_found"));
    }

    /// A chunk of the inference stream.
    async fn send(&self, request: &Delivery, index: u32, text: &str, control: Option<Subject>) {
        let mut payload = vec![0x2a, text.len() as u8];
        payload.extend_from_slice(text.as_bytes());
        if index > 0 {
            payload.extend_from_slice(&[0x18, (index & 0x7f) as u8 | 0x80, (index >> 7 & 0x7f) as u8]);
        }
        let subject = request.reply.clone().unwrap();
        let message = Message { subject, reply: control, headers: Headers::new(), payload: payload.into() };
        self.bus.publish(message).await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_requests_that_are_reset_at_once_end_the_connection() {
    let mut stage = Stage::new(UNARY, |_| {}).await;
    let mut client = Raw::connect(&stage.running, &[]).await;
    let pairs = (0..10_000u32).flat_map(|number| {
        let stream = number * 2 + 1;
        [post(stream, "/quest/generate", Some("{}")), reset(stream)].concat()
    });
    client.send(&pairs.collect::<Vec<u8>>()).await;
    assert_eq!(client.last_words().await, Some(ENHANCE_YOUR_CALM));
    stage.is_unharmed().await;
    let started = stage.waiting();
    assert!(started <= 200, "{started} requests reached the bus");
}

#[tokio::test]
async fn requests_that_are_reset_once_they_have_begun_end_the_connection_too() {
    let mut stage = Stage::new(UNARY, |_| {}).await;
    let mut client = Raw::connect(&stage.running, &[]).await;
    let mut started = 0;
    let words = loop {
        client.send(&post(started * 2 + 1, "/quest/generate", Some("{}"))).await;
        tokio::select! {
            _ = stage.requests.next() => started += 1,
            words = client.find("GOAWAY", |frame| frame.kind == GOAWAY) => break words,
        }
        assert!(stage.bus.figures().pending <= 200);
        client.send(&reset(started * 2 - 1)).await;
    };
    assert_eq!((words.error(), client.last_words().await), (ENHANCE_YOUR_CALM, None));
    assert!((200..300).contains(&started), "{started} requests reached the bus");
    stage.is_unharmed().await;
}

#[tokio::test]
async fn a_client_that_gives_up_some_of_many_answered_requests_is_served_on() {
    let mut stage = Stage::new(UNARY, |_| {}).await;
    let mut client = Raw::connect(&stage.running, &[]).await;
    for number in 0..1_000 {
        let stream = number * 2 + 1;
        if number % 3 == 0 {
            client.send(&post(stream, "/quest/generate", Some("{}"))).await;
            stage.request().await;
            client.send(&reset(stream)).await;
        } else {
            client.send(&get(stream, "/nowhere")).await;
            assert!(client.body(stream).await.contains("route_not_found"));
        }
    }
    stage.is_unharmed().await;
}

#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_end_the_connection() {
    let mut stage = Stage::new(UNARY, |_| {}).await;
    let open = || post(1, "/quest/generate", None);
    let unfinished = frame(HEADERS, 0, 1, &http2::block(&[(":method", "GET")]));
    let rows: [(&str, Vec<u8>, Vec<u8>); 8] = [
        ("PING", vec![], frame(PING, 0, 0, &[7; 8])),
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", vec![], frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16])),
        ("WINDOW_UPDATE", vec![], frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("an unknown kind", vec![], frame(0xee, 0, 0, &[])),
        ("RST_STREAM", open(), reset(1)),
        ("empty DATA", open(), frame(DATA, 0, 1, &[])),
        ("CONTINUATION", unfinished, frame(CONTINUATION, 0, 1, &http2::block(&[("x", "y")]))),
    ];
    for (name, before, flood) in rows {
        let mut client = Raw::connect(&stage.running, &[]).await;
        client.send(&before).await;
        client.send(&flood.repeat(10_000)).await;
        assert_eq!(client.last_words().await, Some(ENHANCE_YOUR_CALM), "{name}");
    }
    stage.is_unharmed().await;
    assert_eq!(stage.waiting(), 0);
}

#[tokio::test]
async fn mistakes_that_make_us_reset_streams_end_the_connection_at_the_cap_or_at_once() {
    let overflow = |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
    let data = |stream| frame(DATA, END_STREAM, stream, b"{}");
    let nothing = |stream| frame(WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes());
    let rows: [(&str, Mistake, u32); 3] = [
        ("a window above its maximum", &overflow, ENHANCE_YOUR_CALM),
        ("DATA behind the end", &data, PROTOCOL_ERROR),
        ("a window opened by nothing", &nothing, PROTOCOL_ERROR),
    ];
    for (name, mistake, words) in rows {
        let mut stage = Stage::new(UNARY, |_| {}).await;
        let mut client = Raw::connect(&stage.running, &[]).await;
        let mut all = Vec::new();
        for number in 0..5_000 {
            all.extend(post(number * 2 + 1, "/quest/generate", Some("{}")));
            all.extend(mistake(number * 2 + 1));
        }
        client.send(&all).await;
        assert_eq!(client.last_words().await, Some(words), "{name}");
        stage.is_unharmed().await;
        let started = stage.waiting();
        assert!(started <= 400, "{name}: {started} requests reached the bus");
    }
}

#[tokio::test]
async fn streams_whose_client_opens_no_window_are_given_up_alone() {
    let mut stage = Stage::new(STREAM, |config| config.limits.write_stall = Duration::from_millis(300)).await;
    let mut client = Raw::connect(&stage.running, &[(INITIAL_WINDOW, 0)]).await;
    let control = stage.bus.new_inbox(Branch::Control);
    let mut cancels = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    const COUNT: u32 = 100;
    for number in 0..COUNT {
        client.send(&post(number * 2 + 1, "/ai/llm/infer", Some(ASK))).await;
        let request = stage.request().await;
        for index in 0..300 {
            stage.send(&request, index, "some text", (index == 0).then(|| control.clone())).await;
        }
    }
    let mut given_up = Vec::new();
    while given_up.len() < COUNT as usize {
        let frame = client.find("all streams are reset", |frame| frame.kind == RST_STREAM).await;
        assert_eq!(frame.error(), CANCEL);
        given_up.push(frame.stream);
        let cancel = tokio::time::timeout(support::PATIENCE, cancels.next()).await.unwrap().unwrap().unwrap();
        assert!(cancel.headers.get("Tidegate-Cancel").is_some());
    }
    // The slots are free (100 is the route's limit), and the connection serves those who open a window.
    let stream = COUNT * 2 + 1;
    client.send(&post(stream, "/ai/llm/infer", Some(ASK))).await;
    client.send(&frame(WINDOW_UPDATE, 0, stream, &1_000_000u32.to_be_bytes())).await;
    let request = stage.request().await;
    stage.send(&request, 0, "some text", None).await;
    let event = client.find("an event", |frame| frame.kind == DATA && frame.text().contains("some text")).await;
    assert_eq!(event.stream, stream);
}

#[tokio::test]
async fn an_answer_whose_client_opens_no_window_is_given_up() {
    let stage = Stage::new(UNARY, |config| config.limits.write_stall = Duration::from_millis(100)).await;
    let mut client = Raw::connect(&stage.running, &[(INITIAL_WINDOW, 0)]).await;
    client.send(&get(1, "/nowhere")).await;
    let end = client.find("the stream is reset", |frame| frame.kind == RST_STREAM).await;
    assert_eq!((end.stream, end.error()), (1, CANCEL));
    stage.is_unharmed().await;
}

#[tokio::test]
async fn a_window_that_opens_byte_by_byte_gets_the_whole_answer() {
    let stage = Stage::new(UNARY, |config| config.limits.write_stall = Duration::from_millis(500)).await;
    let mut client = Raw::connect(&stage.running, &[(INITIAL_WINDOW, 1)]).await;
    client.send(&get(1, "/nowhere")).await;
    let mut text = String::new();
    loop {
        let frame = client.find("the answer's end", |frame| frame.kind == DATA).await;
        text.push_str(&frame.text());
        if frame.flags & END_STREAM != 0 {
            break;
        }
        client.send(&http2::frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes())).await;
    }
    assert!(text.contains("route_not_found"), "{text}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_at_all_loses_its_connection() {
    let mut stage = Stage::new(STREAM, |config| config.limits.write_stall = Duration::from_millis(300)).await;
    let window = 0x7fff_ffff;
    let mut client = Raw::connect_with(&stage.running, &[(INITIAL_WINDOW, window)], Some(4_096)).await;
    client.send_only(&post(1, "/ai/llm/infer", Some(ASK))).await;
    let request = stage.request().await;
    let control = stage.bus.new_inbox(Branch::Control);
    let mut cancels = stage.bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    let text = "x".repeat(100);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut index = 0;
    // A feed without a pause, until the gateway tells it to stop.
    loop {
        for _ in 0..100 {
            stage.send(&request, index % 16_384, &text, Some(control.clone())).await;
            index += 1;
        }
        tokio::task::yield_now().await;
        let mut is_cancelled = false;
        while let std::task::Poll::Ready(Some(Ok(told))) = cancels.poll_next(&mut context) {
            is_cancelled |= told.headers.get("Tidegate-Cancel").is_some();
        }
        if is_cancelled {
            break;
        }
    }
    stage.is_unharmed().await;
}

#[tokio::test]
async fn heads_that_break_the_protocol_end_their_stream_or_their_connection() {
    let mut stage = Stage::new(UNARY, |_| {}).await;
    let good = [(":method", "POST"), (":scheme", "http"), (":path", "/quest/generate"), (":authority", "edge")];
    let with = |field: (&'static str, &'static str)| [&good[..], &[field]].concat();
    let without = |name: &str| good.iter().filter(|field| field.0 != name).copied().collect::<Vec<_>>();
    let rows: Vec<(&str, Fields, u8)> = vec![
        ("an upper-case name", with(("X-Upper", "1")), GOAWAY),
        ("Connection", with(("connection", "keep-alive")), RST_STREAM),
        ("Transfer-Encoding", with(("transfer-encoding", "chunked")), RST_STREAM),
        ("Keep-Alive", with(("keep-alive", "1")), RST_STREAM),
        ("Upgrade", with(("upgrade", "h2c")), RST_STREAM),
        ("TE other than trailers", with(("te", "gzip")), RST_STREAM),
        ("a pseudo-header behind a field", [&[("x", "1")], &good[..]].concat(), RST_STREAM),
        ("an unknown pseudo-header", with((":tide", "low")), GOAWAY),
        ("a pseudo-header of answers", with((":status", "200")), RST_STREAM),
        ("a repeated pseudo-header", with((":path", "/other")), RST_STREAM),
        ("no :method", without(":method"), RST_STREAM),
        ("no :path", without(":path"), RST_STREAM),
        ("no :scheme", without(":scheme"), RST_STREAM),
        ("a :path without a slash", [&without(":path")[..], &[(":path", "nowhere")]].concat(), RST_STREAM),
        ("an empty :path", [&without(":path")[..], &[(":path", "")]].concat(), RST_STREAM),
        ("a line break in a value", with(("x", "a\r\nb: c")), GOAWAY),
        ("a tunnel's protocol", with((":protocol", "websocket")), RST_STREAM),
    ];
    for (name, fields, kind) in &rows {
        let mut client = Raw::connect(&stage.running, &[]).await;
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &http2::block(fields))).await;
        let end = client.find("an end", |frame| matches!(frame.kind, RST_STREAM | GOAWAY | HEADERS)).await;
        assert_eq!((end.kind, end.error()), (*kind, PROTOCOL_ERROR), "{name}");
        if *kind == RST_STREAM {
            client.send(&get(3, "/nowhere")).await;
            assert!(client.body(3).await.contains("route_not_found"), "{name}");
        }
    }
    assert_eq!(stage.waiting(), 0);
}

#[tokio::test]
async fn heads_that_say_what_cannot_be_served_get_a_status_and_a_reason() {
    let mut stage = Stage::new(UNARY, |_| {}).await;
    let mut client = Raw::connect(&stage.running, &[]).await;
    let head = |method, path, authority| {
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
    };
    let names: Vec<String> = (0..120).map(|number| format!("x-{number}")).collect();
    let mut many = head("POST", "/quest/generate", "edge");
    many.extend(names.iter().map(|name| (name.as_str(), "1")));
    let mut other_host = head("POST", "/quest/generate", "edge");
    other_host.push(("host", "other"));
    let rows: Vec<(&str, Fields, &str)> = vec![
        ("an asterisk", head("OPTIONS", "*", "edge"), "route_not_found"),
        ("another host", other_host, "the Host field names another host than `:authority`"),
        ("too many fields", many, "the request's header fields are too many or too large"),
        ("another verb", head("TRACE", "/quest/generate", "edge"), "method_not_allowed"),
        ("a tunnel", vec![(":method", "CONNECT"), (":authority", "db:5432")], "tunnels and upgrades are not served"),
        ("another path", head("POST", "/quest//generate", "edge"), "route_not_found"),
    ];
    let mut stream = 1;
    for (name, fields, text) in &rows {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &http2::block(fields))).await;
        let body = client.body(stream).await;
        assert!(body.contains(text), "{name}: {body}");
        stream += 2;
    }
    assert_eq!(stage.waiting(), 0);
}

#[tokio::test]
async fn a_connection_on_which_nothing_runs_is_closed() {
    let mut stage = Stage::new(UNARY, |config| config.limits.idle = Duration::from_millis(200)).await;
    let mut silent = Raw::connect(&stage.running, &[]).await;
    let mut client = Raw::connect(&stage.running, &[]).await;
    client.send(&post(1, "/quest/generate", Some("{}"))).await;
    let request = stage.request().await;
    assert_eq!(farewell(&mut silent).await, Some(NO_ERROR));
    // A request that waits for its answer is not nothing.
    let answer = Message {
        subject: request.reply.unwrap(),
        reply: None,
        headers: Headers::new(),
        payload: vec![0x12, 4, 0x12, 2, b'o', b'k'].into(),
    };
    stage.bus.publish(answer).await.unwrap();
    assert_eq!(client.body(1).await, r#"{"quest":{"title":"ok"}}"#);
    assert_eq!(farewell(&mut client).await, Some(NO_ERROR));
}

/// Reads to the end as a client does that goes on answering pings.
async fn farewell(client: &mut Raw) -> Option<u32> {
    let mut words = None;
    while let Some(next) = client.next().await {
        match next {
            Frame { kind: PING, flags: 0, payload, .. } => client.send(&frame(PING, 1, 0, &payload)).await,
            Frame { kind: GOAWAY, .. } => words = Some(next.error()),
            _ => {}
        }
    }
    words
}
