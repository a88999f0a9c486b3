//! Traces as a collector gets them: one trace through all processes, what the spans say, and what happens where the
//! collector does not take them.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::collector::{Collector, Span};
use support::nats::NatsServer;
use support::program::Program;
use support::{eventually, snapshot};
use tidegate::bus::{Bus, Headers, Subject};
use tidegate::fault::{Code, Fault};
use tidegate::store::{ConsumerConfig, Event, LogConfig, Logged};
use tidegate::telemetry::trace::{self, Position, Sampler, SpanKind, SpanRecord};
use tidegate::worker::{Context, Options, Service, Setback, Worker};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A gateway and workers on a server, all of which send their traces to a collector.
struct Game {
    collector: Collector,
    _server: NatsServer,
    gateway: Program,
    workers: Vec<Program>,
}

impl Game {
    async fn start(variables: &[(&str, &str)], workers: &[&[&str]]) -> Game {
        let (collector, address) = Collector::start(&[]).await;
        let server = NatsServer::start();
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()), ("NATS_URL", server.url())];
        all.extend(variables);
        let gateway = Program::start_with(&all, &["serve"]);
        let workers = workers.iter().map(|names| Program::worker(&all, names)).collect();
        Game { collector, _server: server, gateway, workers }
    }

    async fn post(&self, path: &str, body: &str, sampled: Option<bool>) -> (u16, String) {
        let mut request = reqwest::Client::new().post(format!("http://{}{path}", self.gateway.address));
        if let Some(sampled) = sampled {
            request = request
                .header("traceparent", format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled)))
                .header("tracestate", "shop=7");
        }
        let answer = request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Calls until somebody answers.
    async fn is_there(&self, path: &str, body: &str) {
        eventually(path, async || self.post(path, body, Some(false)).await.0 == 200).await;
    }

    /// Ends all processes; gives what the collector has got then.
    fn end(self) -> Vec<Span> {
        self.gateway.end();
        self.workers.into_iter().for_each(Program::end);
        self.collector.spans()
    }
}

const ROUTE: &str = "/v1/services/quest-system/operations/generate:route";
/// A request for a quest, its player aside empty.
const QUEST: &str = r#"{"payload": "EgJwMQ=="}"#;

// Ending a process waits, and the collector has to answer meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_http_through_the_gateway_to_a_worker_and_on_to_another_one() {
    // Nothing goes out before the end, so all of it is what was flushed.
    let late = [("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let game = Game::start(&late, &[&["router"], &["quest-system", "ai-integration"]]).await;
    game.is_there(ROUTE, QUEST).await;
    game.is_there("/v1/inference", r#"{"prompt": "hello"}"#).await;
    assert_eq!(game.post(ROUTE, QUEST, Some(true)).await.0, 200);
    let (status, events) = game.post("/v1/inference:stream", r#"{"prompt": "hello"}"#, Some(true)).await;
    assert_eq!(status, 200);
    let chunks = events.matches("\ndata: ").count();
    assert_eq!(game.post("/v1/zones/harbour/weather:set", "{}", Some(true)).await.0, 404);
    assert_eq!(game.post("/v1/workflows/none:execute", "{}", Some(true)).await.0, 503);
    let resources = game.collector.clone();
    let spans: Vec<Span> = game.end().into_iter().filter(|span| span.trace == TRACE).collect();

    let one = |service: &str, kind: &str, name: &str| {
        let found: Vec<&Span> =
            spans.iter().filter(|span| span.service == service && span.kind == kind && span.name == name).collect();
        assert_eq!(found.len(), 1, "{service} {kind} {name} in {spans:#?}");
        found[0]
    };
    let template = "POST /v1/services/{service_name}/operations/{operation}:route";
    let steps = [
        one("tidegate", "SERVER", template),
        one("tidegate", "CLIENT", "router.v1.RouterService/Route"),
        one("router", "SERVER", "router.v1.RouterService/Route"),
        one("router", "CLIENT", "quest.v1.QuestService/GenerateQuest"),
        one("quest-system", "SERVER", "quest.v1.QuestService/GenerateQuest"),
    ];
    let mut parent = CALLER;
    for step in steps {
        assert_eq!((step.parent.as_str(), step.state.as_str(), &step.error), (parent, "shop=7", &None), "{step:?}");
        parent = &step.span;
    }
    assert!(steps.windows(2).all(|pair| pair[0].took >= pair[1].took), "{steps:?}");
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/services/{service_name}/operations/{operation}:route"),
        ("http.response.status_code", "200"),
        ("url.path", ROUTE),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(steps[0].attribute(name), value, "{name}");
    }
    for (name, value) in [
        ("rpc.system", "nats"),
        ("rpc.service", "quest.v1.QuestService"),
        ("rpc.method", "GenerateQuest"),
        ("messaging.destination.name", "svc.quest.v1.generate"),
    ] {
        assert_eq!((steps[3].attribute(name), steps[4].attribute(name)), (value, value), "{name}");
    }
    assert_eq!(steps[0].attribute("tidegate.request_id"), steps[2].attribute("tidegate.request_id"));

    // A stream's spans end with its body.
    let stream = one("tidegate", "SERVER", "POST /v1/inference:stream");
    assert_eq!(stream.attribute("tidegate.stream.end"), "final");
    assert_eq!(stream.attribute("tidegate.stream.chunks"), chunks.to_string());
    let call = spans.iter().find(|span| span.parent == stream.span).unwrap();
    let served = spans.iter().find(|span| span.parent == call.span).unwrap();
    assert_eq!((call.kind.as_str(), served.service.as_str()), ("CLIENT", "ai-integration"));
    assert!(stream.took >= call.took && call.took >= served.took / 2, "{stream:?} {call:?} {served:?}");

    // The client's mistake is no error of ours; nobody there is one.
    let unrouted = one("tidegate", "SERVER", "POST");
    assert_eq!((unrouted.attribute("http.response.status_code"), &unrouted.error), ("404", &None));
    let refused = one("tidegate", "SERVER", "POST /v1/workflows/{workflow_id}:execute");
    assert_eq!((refused.attribute("error.type"), refused.error.is_some()), ("no_responders", true));
    let nobody = spans.iter().find(|span| span.parent == refused.span).unwrap();
    assert_eq!((nobody.attribute("error.type"), nobody.error.is_some()), ("UNAVAILABLE", true));

    let resources = resources.resources();
    let services: BTreeSet<&str> = resources.iter().map(|resource| resource["service.name"].as_str()).collect();
    for service in ["tidegate", "router", "quest-system", "ai-integration"] {
        assert!(services.contains(service), "{services:?}");
    }
    let versions: BTreeSet<&str> = resources.iter().map(|resource| resource["service.version"].as_str()).collect();
    assert_eq!(versions, BTreeSet::from([env!("CARGO_PKG_VERSION")]));
}

// Ending a process waits, and the collector has to answer meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_caller_does_not_sample_leaves_nothing_and_what_begins_here_goes_by_the_ratio() {
    let variables = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc"),
    ];
    let game = Game::start(&variables, &[&["quest-system"]]).await;
    let path = "/v1/players/p1/quests:generate";
    game.is_there(path, "{}").await;
    for sampled in [None, Some(false), Some(true)] {
        assert_eq!(game.post(path, "{}", sampled).await.0, 200);
    }
    let collector = game.collector.clone();
    let spans = game.end();
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace == TRACE && span.service == "edge"), "{spans:#?}");
    assert!(collector.resources().iter().all(|resource| resource["deployment.environment"] == "test"));
    let headers = collector.headers();
    assert!(!headers.is_empty());
    assert!(headers.iter().all(|headers| headers["authorization"] == "Bearer abc"));
    assert!(headers.iter().all(|headers| headers["content-type"] == "application/x-protobuf"));
}

/// The sum of a metric's rows that have a text.
async fn metric(gateway: &Program, name: &str, has: &str) -> f64 {
    let text = reqwest::get(format!("http://{}/metrics", gateway.admin)).await.unwrap().text().await.unwrap();
    let rows = text.lines().filter(|line| line.starts_with(name) && line.contains(has));
    rows.map(|row| row.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn latencies_lead_to_traces() {
    let (collector, address) = Collector::start(&[]).await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let gateway = Program::start_with(&variables, &["dev", "--routes", "built-in"]);
    assert_eq!(gateway.post("/v1/players/p1/quests:generate", "{}").await.0, 200);
    let is_it = |span: &Span| span.kind == "SERVER" && span.service == "tidegate";
    eventually("the span arrives", async || collector.spans().iter().any(is_it)).await;
    let figures = async |accept: &str| {
        let request = reqwest::Client::new().get(format!("http://{}/metrics", gateway.admin)).header("accept", accept);
        let answer = request.send().await.unwrap();
        (answer.headers()["content-type"].to_str().unwrap().to_owned(), answer.text().await.unwrap())
    };
    // What Prometheus 2 asks for where it keeps exemplars.
    let (form, text) = figures("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5").await;
    assert_eq!(form, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let spans = collector.spans();
    let span = spans.iter().find(|span| is_it(span)).unwrap();
    let row = text.lines().find(|line| line.contains(&format!("# {{trace_id=\"{}\"}}", span.trace)));
    assert!(row.is_some_and(|row| row.contains("quests:generate\",le=")), "{} is not in\n{text}", span.trace);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let (form, text) = figures("*/*").await;
    assert_eq!((form.as_str(), text.contains("trace_id")), ("text/plain; version=0.0.4; charset=utf-8", false));
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_it_could_not_take() {
    let (collector, address) = Collector::start(&[503, 429]).await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let gateway = Program::start_with(&variables, &["serve"]);
    assert_eq!(gateway.get("/nowhere").await.0, 404);
    eventually("the span arrives", async || !collector.spans().is_empty()).await;
    assert_eq!((collector.headers().len(), collector.spans().len()), (3, 1));
    eventually("it is counted", async || metric(&gateway, "tidegate_spans_exported_total", "").await == 1.0).await;
    assert_eq!(metric(&gateway, "tidegate_spans_dropped_total", "").await, 0.0);
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_no_request() {
    // It takes connections and never answers.
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", hole.local_addr().unwrap());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
    ];
    let gateway = Program::start_with(&variables, &["serve"]);
    for _ in 0..20 {
        assert_eq!(gateway.get("/nowhere").await.0, 404);
    }
    assert!(metric(&gateway, "tidegate_spans_dropped_total", r#"reason="queue_full""#).await >= 15.0);
    let start = Instant::now();
    gateway.end();
    assert!(start.elapsed() < Duration::from_secs(10), "the end waited for the collector: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_variable_that_cannot_be_meant_stops_the_start() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["serve", "--otlp", "http://127.0.0.1:1"]).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: OTEL_EXPORTER_OTLP_PROTOCOL: `grpc` is not spoken: expected `http/protobuf`\n"
    );
}

const SAID: LogConfig = LogConfig { name: "SAID", subjects: &["evt.said.>"], ..LogConfig::DEFAULT };
const DLQ: LogConfig = LogConfig { name: "DLQ", subjects: &["dlq.>"], ..LogConfig::DEFAULT };
const LISTENER: ConsumerConfig = ConsumerConfig {
    log: "SAID",
    name: "listener",
    filter: "evt.said.>",
    ack_wait: Duration::from_secs(30),
    deliveries_max: Some(5),
};

#[derive(serde::Serialize)]
struct Said {
    text: &'static str,
}

#[tokio::test]
async fn an_event_goes_on_with_the_trace_of_who_published_it_through_every_delivery() {
    static NOW: AtomicU64 = AtomicU64::new(1);
    let sampler = Sampler { ratio: 0.0, is_parent_based: true };
    // The clock of spans counts its readings.
    let mut spans = trace::install(sampler, || NOW.fetch_add(1, Ordering::Relaxed), 100).expect("nobody else traces");
    let schema = r#"syntax = "proto3"; package t.v1; message Said { string text = 1; }"#;
    let options = Options::new(Bus::embedded(), Arc::new(snapshot("version: 1\n", schema)));
    for log in [SAID, DLQ] {
        options.store.provide_log(log).await.unwrap();
    }
    options.store.provide_consumer(LISTENER).await.unwrap();
    let service = Service::new("listening", "1.0.0").consumer(LISTENER, |context: Context, event: Logged| async move {
        let text = String::from_utf8_lossy(&event.payload).into_owned();
        if text == "first" {
            // What it says goes on with its own span as the parent.
            context
                .append("evt.said.answer", "t.v1.Said", &Said { text: "yes" }, "answer")
                .await
                .map_err(Setback::Again)?;
            return Ok(());
        }
        Err(Setback::Never(Fault::ours(Code::Internal, "it cannot be understood")))
    });
    let _worker = Worker::start(options.clone(), vec![service]).await.unwrap();
    let mut headers = Headers::new();
    headers.push("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let subject = Subject::new("evt.said.first").unwrap();
    let event = Event { subject, id: "first".to_owned(), headers, payload: "first".into() };
    options.store.append(event).await.unwrap();
    let mut next = async || tokio::time::timeout(support::PATIENCE, spans.recv()).await.expect("in time").unwrap();
    let (first, answer): (SpanRecord, SpanRecord) = (next().await, next().await);
    let caller = Position::parse(format!("00-{TRACE}-{CALLER}-01").as_bytes()).unwrap();
    assert_eq!((first.kind, first.name.as_str(), first.error), (SpanKind::Consumer, "process SAID", None));
    assert_eq!((first.position.trace, first.parent), (caller.trace, Some(caller.span)));
    assert_eq!(first.service.as_deref(), Some("listening"));
    assert!(first.end > first.start);
    assert_eq!((answer.position.trace, answer.parent), (caller.trace, Some(first.position.span)));
    assert_eq!(answer.error.as_deref(), Some("it cannot be understood"));
}
