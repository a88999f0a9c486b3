//! A worker over the embedded bus: what callers see of its replies, streams, faults, limits and its end.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use support::place::on_each_bus;
use support::{eventually, snapshot};
use tidegate::bus::{
    Branch, Bus, BusError, Delivery, Headers, Limits, Message, Pattern, Reply, Request, Subject, Subscription,
};
use tidegate::fault::{Code, Fault};
use tidegate::snapshot::Snapshot;
use tidegate::store::LogConfig;
use tidegate::transcode::{from_wire, to_wire};
use tidegate::worker::types::Timestamp;
use tidegate::worker::{Chunks, Context, Failed, Options, Service, StartError, Worker};
use tokio::sync::Notify;

const PROTO: &str = r#"
syntax = "proto3";
package t.v1;
import "google/protobuf/timestamp.proto";
import "tidegate/options.proto";

service EchoService {
  option (tidegate.service) = { name: "echo" queue_group: "q.echo" };
  rpc Say(SayRequest) returns (SayReply) { option (tidegate.method) = { subject: "svc.echo.say" chunk: "t.v1.SayChunk" }; }
  rpc Ask(SayRequest) returns (SayReply) { option (tidegate.method) = { subject: "svc.echo.ask" }; }
  rpc Watch(SayRequest) returns (stream SayChunk) { option (tidegate.method) = { subject: "svc.echo.watch" }; }
}
service PlainService {
  option (tidegate.service) = { name: "plain" };
  rpc Say(Plain) returns (Plain) { option (tidegate.method) = { subject: "svc.plain.say" }; }
  rpc Watch(Plain) returns (stream Plain) { option (tidegate.method) = { subject: "svc.plain.watch" }; }
}
message Plain { string text = 1; }
message Meta {
  string request_id = 1; string user_id = 4; string tenant_id = 5; google.protobuf.Timestamp timestamp = 6;
  string idempotency_key = 7; map<string, string> labels = 8;
}
message Error {
  enum Code { UNKNOWN = 0; INVALID_ARGUMENT = 1; NOT_FOUND = 2; RESOURCE_EXHAUSTED = 6; FAILED_PRECONDITION = 7;
    INTERNAL = 11; UNAVAILABLE = 12; DEADLINE_EXCEEDED = 13; }
  Code code = 1; string message = 2; map<string, string> details = 3;
}
message SayRequest { Meta meta = 1; string text = 2; bool stream = 3; uint32 count = 4; }
message SayReply { Meta meta = 1; string text = 2; uint64 version = 3; Error error = 4; }
message SayChunk { Meta meta = 1; uint32 index = 3; string text = 2; bool is_final = 5; Error error = 6; }
"#;

const ROUTES: &str = r#"
version: 1
styles:
  house:
    context:
      field: meta
      fill:
        request_id: [ generated ]
        user_id: [ caller.user ]
        tenant_id: [ caller.tenant ]
        timestamp: [ now ]
        idempotency_key: [ { header: Idempotency-Key } ]
      labels: { field: labels, max: 32, reserved: [ role, origin ], set: { origin: edge, role: caller.role } }
    error: { field: error, code: code, message: message, details: details }
    chunk: { index: index, last: is_final, stream_when: stream }
defaults: { style: house }
annotations: [ { services: [ "*" ] } ]
methods:
  t.v1.PlainService/Say: { style: plain }
  t.v1.PlainService/Watch: { style: plain }
"#;

const NOW_MS: i64 = 1_795_521_600_123;

// What handlers work with: no context, no error, no place in the stream.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Say {
    text: String,
    stream: bool,
    count: u32,
}

#[derive(Debug, Deserialize, Serialize)]
struct Said {
    text: String,
    version: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Part {
    text: String,
}

// What the tests look at: everything.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
struct Meta {
    request_id: String,
    user_id: String,
    tenant_id: String,
    timestamp: Option<Timestamp>,
    idempotency_key: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Error {
    code: ErrorCode,
    message: String,
    details: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
enum ErrorCode {
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    FailedPrecondition,
    Internal,
    Unavailable,
    DeadlineExceeded,
    Unknown(i32),
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct WholeReply {
    meta: Option<Meta>,
    text: String,
    version: u64,
    error: Option<Error>,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct WholeChunk {
    meta: Option<Meta>,
    text: String,
    index: u32,
    is_final: bool,
    error: Option<Error>,
}

#[derive(Default, Deserialize, Serialize)]
struct WholeRequest {
    meta: Option<Meta>,
    text: String,
    stream: bool,
    count: u32,
}

struct Rig {
    bus: Bus,
    snapshot: Arc<Snapshot>,
}

impl Rig {
    fn new() -> Rig {
        Rig::on(Bus::embedded())
    }

    fn on(bus: Bus) -> Rig {
        Rig { bus, snapshot: Arc::new(snapshot(ROUTES, PROTO)) }
    }

    fn options(&self) -> Options {
        let mut options = Options::new(self.bus.clone(), self.snapshot.clone());
        options.clock = Arc::new(|| NOW_MS);
        options.instance = "one".to_owned();
        options
    }

    async fn start(&self, service: Service) -> Worker {
        Worker::start(self.options(), vec![service]).await.unwrap()
    }

    fn wire<T: Serialize>(&self, message: &str, value: &T) -> Bytes {
        let mut out = Vec::new();
        to_wire(&self.snapshot.tables, self.snapshot.tables.message_id(message).unwrap(), value, &mut out).unwrap();
        out.into()
    }

    fn read<T: DeserializeOwned>(&self, message: &str, wire: &[u8]) -> T {
        from_wire(&self.snapshot.tables, self.snapshot.tables.message_id(message).unwrap(), wire).unwrap()
    }

    async fn ask(&self, subject: &str, headers: &[(&'static str, &str)], payload: Bytes) -> Result<Reply, BusError> {
        let mut all = Headers::new();
        headers.iter().for_each(|(name, value)| assert!(all.push(*name, *value)));
        let subject = Subject::new(subject).unwrap();
        let timeout = support::PATIENCE;
        self.bus.request(Request { subject, headers: all, payload, timeout, proof: None }).await
    }

    async fn say(
        &self,
        subject: &str,
        headers: &[(&'static str, &str)],
        request: &WholeRequest,
    ) -> (WholeReply, Reply) {
        let reply = self.ask(subject, headers, self.wire("t.v1.SayRequest", request)).await.unwrap();
        (self.read("t.v1.SayReply", &reply.payload), reply)
    }

    async fn open(&self, subject: &str, headers: &[(&'static str, &str)], payload: Bytes) -> Subscription {
        let mut all = Headers::new();
        headers.iter().for_each(|(name, value)| assert!(all.push(*name, *value)));
        self.bus.open_stream(Subject::new(subject).unwrap(), all, payload, Limits::STREAM).await.unwrap()
    }

    async fn control(&self, chunk: &Delivery, name: &'static str, value: &str) {
        let mut headers = Headers::new();
        headers.push(name, value);
        let subject = chunk.reply.clone().unwrap();
        self.bus.publish(Message { subject, reply: None, headers, payload: Bytes::new() }).await.unwrap();
    }

    fn chunk(&self, delivery: &Delivery) -> WholeChunk {
        self.read("t.v1.SayChunk", &delivery.payload)
    }
}

fn request(text: &str) -> WholeRequest {
    WholeRequest { text: text.to_owned(), ..WholeRequest::default() }
}

async fn next(stream: &mut Subscription) -> Delivery {
    tokio::time::timeout(support::PATIENCE, stream.next()).await.unwrap().unwrap().unwrap()
}

fn error(code: ErrorCode, message: &str, details: &[(&str, &str)]) -> Option<Error> {
    let details = details.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Some(Error { code, message: message.to_owned(), details })
}

fn echo() -> Service {
    Service::new("echo", "1.2.3").unary("t.v1.EchoService/Ask", |context: Context, say: Say| async move {
        context.label("greeting", "new");
        match say.text.as_str() {
            "panic" => panic!("do not look"),
            "missing" => Err(Failed::from(Fault::client(Code::NotFound, "no such thing").detail("id", "7"))),
            "conflict" => Err(Failed::with(
                Fault::client(Code::FailedPrecondition, "the version differs"),
                Said { text: String::new(), version: 9 },
            )),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                Ok(Said { text: "never".into(), version: 0 })
            }
            "who" => {
                let roles: Vec<&str> = context.roles().collect();
                let text = format!(
                    "{}|{}|{}|{}|{}|{}",
                    context.user(),
                    context.tenant(),
                    context.request_id(),
                    context.idempotency_key(),
                    roles.join(","),
                    context.now_ms()
                );
                Ok(Said { text, version: 1 })
            }
            text => Ok(Said { text: format!("{text}!"), version: 1 }),
        }
    })
}

fn meta() -> Meta {
    let labels = [("role", "admin"), ("origin", "edge"), ("greeting", "old"), ("kept", "yes")];
    Meta {
        request_id: "r1".into(),
        user_id: "u1".into(),
        tenant_id: "acme".into(),
        timestamp: Some(Timestamp { seconds: 1, nanos: 0 }),
        idempotency_key: "k1".into(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn a_reply_echoes_the_context_and_proves_itself(rig: Rig) {
    let _worker = rig.start(echo()).await;
    let request = WholeRequest { meta: Some(meta()), ..request("hello") };
    let headers = [("Tidegate-Call", "call-1"), ("message-type", "t.v1.SayRequest"), ("traceparent", "00-a-b-01")];
    let (reply, raw) = rig.say("svc.echo.ask", &headers, &request).await;
    let labels = [("greeting", "new"), ("kept", "yes")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let expected = Meta { timestamp: Some(Timestamp::from_millis(NOW_MS)), labels: BTreeMap::from(labels), ..meta() };
    assert_eq!(reply, WholeReply { meta: Some(expected), text: "hello!".into(), version: 1, error: None });
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("message-type", "t.v1.SayReply"),
        ("Tidegate-Call", "call-1"),
        ("Tidegate-Instance", "echo@one"),
        ("traceparent", "00-a-b-01"),
    ] {
        assert_eq!(raw.headers.get(name), Some(value), "{name}");
    }
    // Equal messages are equal bytes: what we read, written again, is what came.
    assert_eq!(rig.wire("t.v1.SayReply", &reply), raw.payload);
}

#[tokio::test]
async fn the_context_says_who_calls() {
    let rig = Rig::new();
    let _worker = rig.start(echo()).await;
    let (reply, _) = rig.say("svc.echo.ask", &[], &WholeRequest { meta: Some(meta()), ..request("who") }).await;
    assert_eq!(reply.text, format!("u1|acme|r1|k1|admin|{NOW_MS}"));
}

#[tokio::test]
async fn faults_travel_in_the_house_style() {
    let rig = Rig::new();
    let _worker = rig.start(echo()).await;
    let (reply, raw) = rig.say("svc.echo.ask", &[], &request("missing")).await;
    assert_eq!(reply.error, error(ErrorCode::NotFound, "no such thing", &[("id", "7")]));
    assert_eq!(
        (raw.headers.get("Nats-Service-Error-Code"), raw.headers.get("Nats-Service-Error")),
        (Some("2"), Some("no such thing"))
    );
    let (reply, _) = rig.say("svc.echo.ask", &[], &request("conflict")).await;
    assert_eq!((reply.version, reply.error), (9, error(ErrorCode::FailedPrecondition, "the version differs", &[])));
}

#[tokio::test]
async fn what_does_not_decode_is_answered() {
    let rig = Rig::new();
    let _worker = rig.start(echo()).await;
    let broken = Bytes::from_static(b"\x0a\x02\x0a\x00\x12\x01\xff");
    let raw = rig.ask("svc.echo.ask", &[("Tidegate-Call", "c")], broken).await.unwrap();
    let reply: WholeReply = rig.read("t.v1.SayReply", &raw.payload);
    let text = "the request does not decode as `t.v1.SayRequest`: `text`: text that is not UTF-8 (byte 6)";
    let details = [("reason", "malformed"), ("field", "text")];
    assert_eq!((reply.meta, reply.error), (None, error(ErrorCode::InvalidArgument, text, &details)));
    assert_eq!(raw.headers.get("Tidegate-Call"), Some("c"));

    let (reply, _) = rig.say("svc.echo.ask", &[("message-type", "t.v1.Plain")], &request("x")).await;
    let text = "expected a `t.v1.SayRequest`, found a `t.v1.Plain`";
    assert_eq!(reply.error, error(ErrorCode::InvalidArgument, text, &[("reason", "malformed")]));
}

#[tokio::test]
async fn a_panic_is_answered_and_the_worker_lives() {
    let rig = Rig::new();
    let _worker = rig.start(echo()).await;
    let (reply, _) = rig.say("svc.echo.ask", &[], &request("panic")).await;
    assert_eq!(reply.error, error(ErrorCode::Internal, "the handler failed", &[("reason", "panicked")]));
    assert_eq!(rig.say("svc.echo.ask", &[], &request("again")).await.0.text, "again!");
}

#[tokio::test]
async fn deadlines_refuse_late_work_and_cut_slow_work() {
    let rig = Rig::new();
    let started = Arc::new(AtomicU32::new(0));
    let count = started.clone();
    let service = Service::new("echo", "1.0.0").unary("t.v1.EchoService/Ask", move |_: Context, say: Say| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if say.text == "slow" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Fault>(Said { text: say.text, version: 0 })
        }
    });
    let _worker = rig.start(service).await;
    let late = error(ErrorCode::DeadlineExceeded, "the deadline has passed", &[("reason", "deadline")]);
    assert_eq!(rig.say("svc.echo.ask", &[("Tidegate-Timeout", "0")], &request("x")).await.0.error, late);
    assert_eq!(started.load(Ordering::SeqCst), 0);
    assert_eq!(rig.say("svc.echo.ask", &[("Tidegate-Timeout", "20")], &request("slow")).await.0.error, late);
    assert_eq!(rig.say("svc.echo.ask", &[("Tidegate-Timeout", "10000")], &request("x")).await.0.text, "x");
    assert_eq!(started.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_full_worker_says_so() {
    let rig = Rig::new();
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (opened, enters) = (gate.clone(), entered.clone());
    let service = Service::new("echo", "1.0.0").unary("t.v1.EchoService/Ask", move |_: Context, say: Say| {
        let (opened, enters) = (opened.clone(), enters.clone());
        async move {
            enters.notify_one();
            opened.notified().await;
            Ok::<_, Fault>(Said { text: say.text, version: 0 })
        }
    });
    let options = Options { parallel: 1, ..rig.options() };
    let _worker = Worker::start(options, vec![service]).await.unwrap();
    let (first, second) = (request("first"), request("second"));
    let first = rig.say("svc.echo.ask", &[], &first);
    let second = async {
        entered.notified().await;
        let (reply, _) = rig.say("svc.echo.ask", &[], &second).await;
        gate.notify_one();
        reply
    };
    let ((first, _), second) = tokio::join!(first, second);
    assert_eq!(first.text, "first");
    let text = "the worker handles as many requests as it can: try again";
    let details = [("reason", "busy"), ("retry_after_ms", "100")];
    assert_eq!(second.error, error(ErrorCode::ResourceExhausted, text, &details));
    // What has ended takes no place: one after the other they all fit.
    for _ in 0..50 {
        gate.notify_one();
        assert_eq!(rig.say("svc.echo.ask", &[], &request("next")).await.0.text, "next");
    }
}

#[tokio::test]
async fn a_running_worker_takes_more_at_once_when_it_is_told() {
    let rig = Rig::new();
    let (gate, running) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, count) = (gate.clone(), running.clone());
    let service = Service::new("echo", "1.0.0").unary("t.v1.EchoService/Ask", move |_: Context, say: Say| {
        let (opened, count) = (opened.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            opened.acquire().await.unwrap().forget();
            Ok::<_, Fault>(Said { text: say.text, version: 0 })
        }
    });
    let worker = Worker::start(Options { parallel: 1, ..rig.options() }, vec![service]).await.unwrap();
    worker.set_parallel(2);
    let both_run = async {
        eventually("both run", async || running.load(Ordering::Relaxed) == 2).await;
        gate.add_permits(2);
    };
    let (first, second) = (request("first"), request("second"));
    let first = rig.say("svc.echo.ask", &[], &first);
    let second = rig.say("svc.echo.ask", &[], &second);
    let ((first, _), (second, _), ()) = tokio::join!(first, second, both_run);
    assert_eq!((first.text.as_str(), second.text.as_str()), ("first", "second"));
}

/// Sends `count` chunks, the last of them as the last one where the text is `finish`; fails where it is `fail`.
fn counting() -> Service {
    async fn count(context: Context, say: Say, mut chunks: Chunks<Part>) -> Result<(), Fault> {
        for turn in 0..say.count {
            let part = Part { text: format!("{turn} ") };
            if say.text == "finish" && turn + 1 == say.count {
                return chunks.finish(&part).await;
            }
            chunks.send(&part).await?;
        }
        match say.text.as_str() {
            "fail" => Err(Fault::client(Code::NotFound, "lost it")),
            "panic" => panic!("no"),
            "wait" => {
                context.until_cancelled().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
    Service::new("echo", "1.0.0")
        .unary("t.v1.EchoService/Say", |_: Context, say: Say| async move {
            Ok::<_, Fault>(Said { text: say.text, version: 0 })
        })
        .stream("t.v1.EchoService/Say", count)
        .stream("t.v1.EchoService/Watch", count)
}

async fn a_stream_counts_its_chunks_and_marks_the_last(rig: Rig) {
    let _worker = rig.start(counting()).await;
    let ask = |text: &str, count| WholeRequest { meta: Some(meta()), stream: true, count, ..request(text) };
    for (text, count, last) in [("finish", 3, "2 "), ("close", 2, "")] {
        let payload = rig.wire("t.v1.SayRequest", &ask(text, count));
        let mut stream = rig.open("svc.echo.say", &[("Tidegate-Call", "c1")], payload).await;
        for index in 0..3 {
            let delivery = next(&mut stream).await;
            let chunk = rig.chunk(&delivery);
            let is_final = index == 2;
            assert_eq!((chunk.index, chunk.is_final, &chunk.error), (index, is_final, &None), "{text}");
            assert_eq!(chunk.text, if is_final { last.to_owned() } else { format!("{index} ") });
            assert_eq!(chunk.meta.is_some(), index == 0 || is_final);
            assert_eq!(delivery.headers.get("message-type"), Some("t.v1.SayChunk"));
            assert_eq!(delivery.headers.get("Tidegate-Instance"), (index == 0).then_some("echo@one"));
            assert_eq!((delivery.headers.get("Tidegate-Seq"), delivery.headers.get("Tidegate-End")), (None, None));
            assert!(delivery.reply.is_some());
            // Number order, although the struct's fields come otherwise.
            assert_eq!(rig.wire("t.v1.SayChunk", &chunk), delivery.payload);
        }
    }
    // The same method without the wish answers once.
    assert_eq!(rig.say("svc.echo.say", &[], &request("once")).await.0.text, "once");
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_its_error() {
    let rig = Rig::new();
    let _worker = rig.start(counting()).await;
    for (text, expected) in [
        ("fail", error(ErrorCode::NotFound, "lost it", &[])),
        ("panic", error(ErrorCode::Internal, "the handler failed", &[("reason", "panicked")])),
    ] {
        let payload = rig.wire("t.v1.SayRequest", &WholeRequest { count: 1, ..request(text) });
        let mut stream = rig.open("svc.echo.watch", &[], payload).await;
        assert_eq!(rig.chunk(&next(&mut stream).await).index, 0);
        let last = rig.chunk(&next(&mut stream).await);
        assert_eq!((last.index, last.is_final, last.error), (1, true, expected));
    }
    let mut stream = rig.open("svc.echo.watch", &[], Bytes::from_static(b"\xff")).await;
    let only = rig.chunk(&next(&mut stream).await);
    assert_eq!((only.index, only.is_final, only.error.unwrap().code), (0, true, ErrorCode::InvalidArgument));
}

async fn credit_holds_a_stream_and_lets_it_go_on(rig: Rig) {
    let _worker = rig.start(counting()).await;
    let payload = rig.wire("t.v1.SayRequest", &WholeRequest { count: 10, ..request("finish") });
    let mut stream = rig.open("svc.echo.watch", &[("Tidegate-Window", "2 1048576")], payload).await;
    let first = next(&mut stream).await;
    let mut last = next(&mut stream).await;
    tokio::select! {
        extra = stream.next() => panic!("a chunk without credit: {extra:?}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    for total in [4, 3, 10] {
        rig.control(&last, "Tidegate-Credit", &format!("{total} 1048576")).await;
        while rig.chunk(&last).index + 1 < total.max(4) {
            last = next(&mut stream).await;
        }
    }
    assert!(rig.chunk(&last).is_final);
    assert_eq!((rig.chunk(&first).index, rig.chunk(&last).index), (0, 9));
}

async fn a_cancelled_stream_stops_and_says_nothing_more(rig: Rig) {
    let ended = Arc::new(AtomicU32::new(0));
    let ends = ended.clone();
    let service = Service::new("echo", "1.0.0").stream(
        "t.v1.EchoService/Watch",
        move |context: Context, _: Say, mut chunks: Chunks<Part>| {
            let ends = ends.clone();
            async move {
                chunks.send(&Part { text: "x".into() }).await?;
                let reason = context.until_cancelled().await;
                let fault = chunks.send(&Part { text: "y".into() }).await.unwrap_err();
                assert_eq!((reason, fault.code()), ("client_gone", Code::Cancelled));
                ends.fetch_add(1, Ordering::SeqCst);
                Err(fault)
            }
        },
    );
    let _worker = rig.start(service).await;
    let payload = rig.wire("t.v1.SayRequest", &request(""));
    let mut stream = rig.open("svc.echo.watch", &[], payload).await;
    let first = next(&mut stream).await;
    rig.control(&first, "Tidegate-Cancel", "client_gone").await;
    eventually("the handler has ended", async || ended.load(Ordering::SeqCst) == 1).await;
    tokio::select! {
        extra = stream.next() => panic!("a chunk behind the cancel: {extra:?}"),
        () = tokio::time::sleep(Duration::from_millis(30)) => {}
    }
}

async fn silence_is_filled_with_heartbeats_and_a_lost_caller_is_noticed(rig: Rig) {
    let ended = Arc::new(AtomicU32::new(0));
    let ends = ended.clone();
    let service = Service::new("plain", "1.0.0").stream(
        "t.v1.PlainService/Watch",
        move |context: Context, _: Part, mut chunks: Chunks<Part>| {
            let ends = ends.clone();
            async move {
                chunks.send(&Part { text: "x".into() }).await?;
                context.until_cancelled().await;
                ends.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        },
    );
    let options = Options { heartbeat: Duration::from_millis(5), ..rig.options() };
    let _worker = Worker::start(options, vec![service]).await.unwrap();
    let mut stream = rig.open("svc.plain.watch", &[], Bytes::new()).await;
    let first = next(&mut stream).await;
    assert_eq!(first.headers.get("Tidegate-Seq"), Some("0"));
    for _ in 0..3 {
        let beat = next(&mut stream).await;
        assert_eq!((beat.headers.get("Stream-Heartbeat"), beat.payload.len()), (Some("1"), 0));
    }
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    drop(stream);
    eventually("the handler has ended", async || ended.load(Ordering::SeqCst) == 1).await;
}

async fn a_stream_that_has_nothing_to_send_yet_says_that_it_has_begun_and_outlives_its_deadline(rig: Rig) {
    let service = Service::new("plain", "1.0.0").stream(
        "t.v1.PlainService/Watch",
        |context: Context, part: Part, mut chunks: Chunks<Part>| async move {
            if part.text == "refused" {
                return Err(Fault::client(Code::NotFound, "nothing to watch"));
            }
            context.begin_stream();
            context.begin_stream();
            let left = context.time_left().expect("a deadline");
            tokio::time::sleep(left + Duration::from_millis(50)).await;
            chunks.send(&Part { text: "late".into() }).await
        },
    );
    let _worker = rig.start(service).await;
    let mut stream = rig.open("svc.plain.watch", &[("Tidegate-Timeout", "200")], Bytes::new()).await;
    let sign = next(&mut stream).await;
    let header = |name| sign.headers.get(name);
    assert_eq!((header("Tidegate-Begun"), header("Stream-Heartbeat"), sign.payload.len()), (Some("1"), Some("1"), 0));
    assert!(sign.reply.is_some(), "it can be cancelled from now on");
    let first = next(&mut stream).await;
    assert_eq!((first.headers.get("Tidegate-Seq"), &first.payload[2..]), (Some("0"), b"late".as_slice()));
    let refused = rig.wire("t.v1.Plain", &Part { text: "refused".into() });
    let mut stream = rig.open("svc.plain.watch", &[], refused).await;
    assert_eq!(next(&mut stream).await.headers.get("Nats-Service-Error"), Some("nothing to watch"));
}

#[tokio::test]
async fn the_plain_style_speaks_in_headers() {
    let rig = Rig::new();
    let service = Service::new("plain", "1.0.0")
        .unary("t.v1.PlainService/Say", |context: Context, part: Part| async move {
            match part.text.as_str() {
                "who" => Ok(Part { text: format!("{}|{}|{}", context.user(), context.tenant(), context.request_id()) }),
                _ => Err(Fault::client(Code::NotFound, "not\nhere")),
            }
        })
        .stream("t.v1.PlainService/Watch", |_: Context, part: Part, mut chunks: Chunks<Part>| async move {
            chunks.send(&part).await?;
            if part.text == "fail" { Err(Fault::client(Code::NotFound, "gone")) } else { Ok(()) }
        });
    let _worker = rig.start(service).await;
    let headers = [("Tidegate-User", "u"), ("Tidegate-Tenant", "t"), ("Tidegate-Call", "c")];
    let who = rig.ask("svc.plain.say", &headers, Bytes::from_static(b"\x0a\x03who")).await.unwrap();
    assert_eq!(rig.read::<Part>("t.v1.Plain", &who.payload).text, "u|t|c");
    let fault = rig.ask("svc.plain.say", &[], Bytes::new()).await.unwrap();
    assert_eq!(
        (fault.headers.get("Nats-Service-Error-Code"), fault.headers.get("Nats-Service-Error")),
        (Some("5"), Some("not here"))
    );
    assert!(fault.payload.is_empty());

    let mut stream = rig.open("svc.plain.watch", &[], Bytes::from_static(b"\x0a\x04fine")).await;
    let (first, last) = (next(&mut stream).await, next(&mut stream).await);
    assert_eq!((first.headers.get("Tidegate-Seq"), first.headers.get("Tidegate-End")), (Some("0"), None));
    assert_eq!((last.headers.get("Tidegate-Seq"), last.headers.get("Tidegate-End")), (Some("1"), Some("1")));
    assert!(last.payload.is_empty());
    let mut stream = rig.open("svc.plain.watch", &[], Bytes::from_static(b"\x0a\x04fail")).await;
    let (_, last) = (next(&mut stream).await, next(&mut stream).await);
    assert_eq!((last.headers.get("Nats-Service-Error-Code"), last.headers.get("Tidegate-End")), (Some("5"), Some("1")));
}

async fn a_draining_worker_finishes_and_ends_its_streams(rig: Rig) {
    let (gate, entered) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (opened, enters) = (gate.clone(), entered.clone());
    let service = counting().unary("t.v1.EchoService/Ask", move |_: Context, say: Say| {
        let (opened, enters) = (opened.clone(), enters.clone());
        async move {
            enters.notify_one();
            opened.notified().await;
            Ok::<_, Fault>(Said { text: say.text, version: 0 })
        }
    });
    let worker = rig.start(service).await;
    let payload = rig.wire("t.v1.SayRequest", &WholeRequest { count: 1, ..request("wait") });
    let mut stream = rig.open("svc.echo.watch", &[], payload).await;
    next(&mut stream).await;
    let running = request("running");
    let running = rig.say("svc.echo.ask", &[], &running);
    let drained = async {
        entered.notified().await;
        let draining = tokio::spawn(worker.drain());
        let last = rig.chunk(&next(&mut stream).await);
        let text = "the worker is stopping: connect again";
        assert_eq!((last.is_final, last.error), (true, error(ErrorCode::Unavailable, text, &[("reason", "draining")])));
        eventually("nobody answers any more", async || {
            matches!(rig.ask("svc.echo.ask", &[], Bytes::new()).await, Err(BusError::NoResponders))
        })
        .await;
        gate.notify_one();
        draining.await.unwrap();
    };
    let ((reply, _), ()) = tokio::join!(running, drained);
    assert_eq!(reply.text, "running");
}

#[tokio::test]
async fn peers_are_called_for_the_caller() {
    let rig = Rig::new();
    let service = echo().unary("t.v1.EchoService/Say", |context: Context, say: Say| async move {
        let said: Said = match say.count {
            0 => context.call("t.v1.EchoService/Ask", &say).await?,
            _ => context.call_as_service("t.v1.EchoService/Ask", &say).await?,
        };
        Ok::<_, Fault>(Said { text: format!("<{}>", said.text), version: 0 })
    });
    let _worker = rig.start(service).await;
    let who = |count| WholeRequest { meta: Some(meta()), count, ..request("who") };
    let (reply, _) = rig.say("svc.echo.say", &[], &who(0)).await;
    assert_eq!(reply.text, format!("<u1|acme|r1||admin|{NOW_MS}>"));
    let (reply, _) = rig.say("svc.echo.say", &[], &who(1)).await;
    assert_eq!(reply.text, format!("<|acme|r1|||{NOW_MS}>"));
    let (reply, _) = rig.say("svc.echo.say", &[], &request("missing")).await;
    assert_eq!(reply.error, error(ErrorCode::NotFound, "no such thing", &[("id", "7")]));
    let late = error(ErrorCode::DeadlineExceeded, "the deadline has passed", &[("reason", "deadline")]);
    assert_eq!(rig.say("svc.echo.say", &[("Tidegate-Timeout", "19")], &request("x")).await.0.error, late);
}

#[tokio::test]
async fn a_peer_that_stays_silent_is_left_alone_after_five_calls() {
    let rig = Rig::new();
    let service =
        Service::new("echo", "1.0.0").unary("t.v1.EchoService/Say", |context: Context, say: Say| async move {
            let call = context.peer("t.v1.EchoService/Ask")?.timeout(Duration::from_millis(5));
            call.ask::<Say, Said>(&say).await
        });
    let _worker = rig.start(service).await;
    let pattern = Pattern::new("svc.echo.ask").unwrap();
    let mut silent = rig.bus.subscribe(&pattern, None, Limits::WORKER).await.unwrap();
    for _ in 0..5 {
        let (reply, _) = rig.say("svc.echo.say", &[], &request("x")).await;
        assert_eq!(reply.error.unwrap().code, ErrorCode::DeadlineExceeded);
        next(&mut silent).await;
    }
    let (reply, _) = rig.say("svc.echo.say", &[], &request("x")).await;
    let refused = reply.error.unwrap();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (ErrorCode::Unavailable, "`svc.echo.ask` fails: calls to it are paused",)
    );
    assert!(refused.details.contains_key("retry_after_ms"), "{:?}", refused.details);
    assert!(tokio::time::timeout(Duration::from_millis(20), silent.next()).await.is_err(), "nobody was asked");
}

async fn events_are_published_with_their_type(rig: Rig) {
    let service =
        Service::new("echo", "1.0.0").unary("t.v1.EchoService/Ask", |context: Context, say: Say| async move {
            let event = Part { text: say.text.clone() };
            context.publish("evt.notice.v1", "t.v1.Plain", &event).await?;
            let first = context.append("evt.said.v1", "t.v1.Plain", &event, "event-1").await?;
            let again = context.append("evt.said.v1", "t.v1.Plain", &event, "event-1").await?;
            assert_eq!((first.is_duplicate, again.is_duplicate, again.sequence), (false, true, first.sequence));
            Ok::<_, Fault>(Said { text: say.text, version: 0 })
        });
    let options = rig.options();
    let log = LogConfig {
        name: "EVENTS",
        subjects: &["evt.said.>"],
        max_age: Duration::from_secs(60),
        duplicate_window: Duration::from_secs(60),
        ..LogConfig::DEFAULT
    };
    options.store.provide_log(log).await.unwrap();
    let _worker = Worker::start(options, vec![service]).await.unwrap();
    let pattern = Pattern::new("evt.>").unwrap();
    let mut events = rig.bus.subscribe(&pattern, None, Limits::STREAM).await.unwrap();
    let (reply, _) = rig.say("svc.echo.ask", &[], &request("told")).await;
    assert_eq!((reply.text.as_str(), reply.error), ("told", None));
    let notice = next(&mut events).await;
    assert_eq!((notice.subject.as_str(), notice.payload.as_ref()), ("evt.notice.v1", &b"\x0a\x04told"[..]));
    let event = next(&mut events).await;
    assert_eq!(event.payload.as_ref(), b"\x0a\x04told");
    assert_eq!(
        (event.headers.get("Nats-Msg-Id"), event.headers.get("message-type")),
        (Some("event-1"), Some("t.v1.Plain"))
    );
}

async fn the_services_protocol_finds_the_worker(rig: Rig) {
    let _worker = rig.start(echo()).await;
    rig.say("svc.echo.ask", &[], &request("x")).await;
    rig.say("svc.echo.ask", &[], &request("missing")).await;
    let ask = async |subject: &str| -> serde_json::Value {
        serde_json::from_slice(&rig.ask(subject, &[], Bytes::new()).await.unwrap().payload).unwrap()
    };
    for subject in ["$SRV.PING", "$SRV.PING.echo", "$SRV.PING.echo.one"] {
        let expected = serde_json::json!({
            "type": "io.nats.micro.v1.ping_response", "name": "echo", "id": "one", "version": "1.2.3", "metadata": {}
        });
        assert_eq!(ask(subject).await, expected);
    }
    let info = ask("$SRV.INFO.echo").await;
    assert_eq!(info["type"], "io.nats.micro.v1.info_response");
    assert_eq!(info["endpoints"][0]["subject"], "svc.echo.ask");
    assert_eq!(info["endpoints"][0]["queue_group"], "q.echo");
    assert_eq!(info["endpoints"][0]["metadata"]["request"], "t.v1.SayRequest");
    let stats = ask("$SRV.STATS.echo.one").await;
    assert_eq!(
        (&stats["type"], &stats["started"]),
        (&"io.nats.micro.v1.stats_response".into(), &"2026-11-24T12:00:00.123Z".into())
    );
    let endpoint = &stats["endpoints"][0];
    assert_eq!(
        (&endpoint["name"], &endpoint["num_requests"], &endpoint["num_errors"]),
        (&"Ask".into(), &2.into(), &1.into())
    );
    assert_eq!(endpoint["last_error"], "5:no such thing");
    // Another name or instance is not us: nobody answers.
    let inbox = rig.bus.new_inbox(Branch::Reply);
    let mut answers = rig.bus.subscribe(&inbox.clone().into(), None, Limits::STREAM).await.unwrap();
    for subject in ["$SRV.PING.other", "$SRV.PING.echo.two", "$SRV.NONSENSE", "$SRV.PING"] {
        let subject = Subject::new(subject).unwrap();
        let message = Message { subject, reply: Some(inbox.clone()), headers: Headers::new(), payload: Bytes::new() };
        rig.bus.publish(message).await.unwrap();
    }
    assert!(next(&mut answers).await.payload.starts_with(b"{\"id\":\"one\""));
}

#[tokio::test]
async fn a_worker_whose_structs_do_not_fit_does_not_start() {
    #[derive(Deserialize, Serialize)]
    struct BadSay {
        text: u32,
        stream: bool,
        extra: String,
    }
    let rig = Rig::new();
    let service =
        Service::new("echo", "1.0.0")
            .unary("t.v1.EchoService/Ask", |_: Context, _: BadSay| async move {
                Ok::<_, Fault>(Said { text: String::new(), version: 0 })
            })
            .unary("t.v1.EchoService/Watch", |_: Context, _: Say| async move {
                Ok::<_, Fault>(Part { text: String::new() })
            })
            .unary("t.v1.EchoService/Nothing", |_: Context, _: Say| async move {
                Ok::<_, Fault>(Part { text: String::new() })
            })
            .stream("t.v1.EchoService/Ask", |_: Context, _: Say, _: Chunks<Said>| async move { Ok(()) });
    let Err(StartError::Problems(problems)) = Worker::start(rig.options(), vec![service]).await else {
        panic!("it started")
    };
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "service `echo`, method `t.v1.EchoService/Ask`: request: `BadSay` lacks a field of `t.v1.SayRequest`: add `count: u32`",
            "service `echo`, method `t.v1.EchoService/Ask`: request: `text`: expected `String`, found `u32`",
            "service `echo`, method `t.v1.EchoService/Ask`: request: `extra`: `BadSay` has a field that `t.v1.SayRequest` does not have",
            "service `echo`, method `t.v1.EchoService/Watch`: it always streams: register it with `stream`",
            "service `echo`, method `t.v1.EchoService/Watch`: reply: `Part` lacks a field of `t.v1.SayChunk`: add `index: u32`",
            "service `echo`, method `t.v1.EchoService/Watch`: reply: `Part` lacks a field of `t.v1.SayChunk`: add `is_final: bool`",
            "service `echo`, method `t.v1.EchoService/Nothing`: the tables do not have it: correct the name, list its service under `annotations`, or add a route that calls it",
            "service `echo`, method `t.v1.EchoService/Ask`: it never streams: register it with `unary`",
        ]
    );
    assert!(matches!(rig.ask("svc.echo.ask", &[], Bytes::new()).await, Err(BusError::NoResponders)));
}

on_each_bus!(
    |place| (Rig::on(place.bus.clone()));
    a_reply_echoes_the_context_and_proves_itself,
    a_stream_counts_its_chunks_and_marks_the_last,
    credit_holds_a_stream_and_lets_it_go_on,
    a_cancelled_stream_stops_and_says_nothing_more,
    silence_is_filled_with_heartbeats_and_a_lost_caller_is_noticed,
    a_stream_that_has_nothing_to_send_yet_says_that_it_has_begun_and_outlives_its_deadline,
    a_draining_worker_finishes_and_ends_its_streams,
    events_are_published_with_their_type,
    the_services_protocol_finds_the_worker,
);
