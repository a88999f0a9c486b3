//! CPU per request of the gateway with its features on, against a hand-written static gateway for one route and
//! against nginx as a plain HTTP proxy; and the gateway's memory at rest.
//!
//! Gateway, static floor and nginx each run alone on core 0; the load, the worker and nats-server share core 1.
//! `-- --instructions` counts the instructions of a request instead, where valgrind is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use tidegate_floor::bench::{EchoReply, EchoRequest};

use crate::support::load::{self, Load};
use crate::support::process::{Counted, Program, free_address, gateway_arguments, on_path, pin, wait_for};
use crate::support::service::Service;
use crate::support::{self as bench, Goal, Ratio, Report};
use crate::system::nats::NatsServer;

const CONNECTIONS: usize = 64;
const REQUESTS_EACH: usize = 150;
const WARM_UP_EACH: usize = 100;
const BODY: &str = r#"{"player_id":"p1","seed":"4242"}"#;
const SUBJECT: &str = "svc.bench.v1.echo";

const ROUTES: &str = include_str!("gateway-routes.yaml");
/// What the gateway does for each request; of these the static floor has the context and the error, and nginx none.
const FEATURES: &str = "token bucket with RateLimit fields, call slot, metrics, request id, traceparent, deadline, \
                        limits of head, body and connection, house style's context and error, reload, drain";

/// CPU of a request, in that of the static floor; in that of nginx, below which it should be.
const OF_FLOOR: Goal = Goal::AtMost(0.95);
const OF_NGINX: Goal = Goal::AtMost(1.0);
/// Resident memory at rest, in MiB.
const IDLE: Goal = Goal::AtMost(20.0);

pub fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if std::env::args().any(|argument| argument == "--instructions") {
        runtime.block_on(count());
    } else {
        runtime.block_on(measure(report));
    }
}

/// Instructions a request in user space, which neither a noisy machine nor its clock changes; what the kernel does
/// for a request is not in it. The profiles stay, for `callgrind_annotate`.
async fn count() {
    let nats = NatsServer::start();
    let _service = start_service(nats.url()).await;
    let folder = tempfile::tempdir().expect("a folder").keep();
    let (arguments, gateway_at) = gateway_arguments(&folder, nats.url(), ROUTES);
    let gateway = (env!("CARGO_BIN_EXE_tidegate").to_owned(), arguments, gateway_at);
    let floor_at = free_address();
    let floor = (static_floor(), vec![floor_at.to_string(), nats.url().to_owned()], floor_at);
    for (name, (program, arguments, address)) in [("gateway", gateway), ("static floor", floor)] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Some(counted) = Counted::start(name, &folder, &program, &arguments) else {
            return println!("instructions a request: not counted, valgrind is not on PATH");
        };
        load::wait_for_answer(address, &load::post(address, "/v1/echo", BODY)).await;
        let mut load = Load::open(address, CONNECTIONS, "/v1/echo", BODY).await;
        load.run(WARM_UP_EACH).await;
        counted.zero();
        load.run(WARM_UP_EACH).await;
        let (instructions, profile) = counted.dump();
        let each = instructions as f64 / (CONNECTIONS * WARM_UP_EACH) as f64;
        println!("  instructions a request, {name}: {each:.0} ({})", profile.display());
    }
}

async fn measure(report: &mut Report) {
    let pairs = if bench::is_measuring() { bench::PAIRS } else { 1 };
    let nats = NatsServer::start();
    pin(std::process::id(), 1);
    let service = start_service(nats.url()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (gateway, gateway_at) = start_gateway(folder.path(), nats.url());
    load::wait_for_answer(gateway_at, &load::post(gateway_at, "/v1/echo", BODY)).await;
    let idle = mebibytes(&gateway);
    let (floor, floor_at) = start_floor(nats.url());
    let proxied = plain_http_backend().await;
    let nginx = start_nginx(folder.path(), proxied);

    let mut ours = Load::open(gateway_at, CONNECTIONS, "/v1/echo", BODY).await;
    let mut hand_written = Load::open(floor_at, CONNECTIONS, "/v1/echo", BODY).await;
    same_answer(&ours.run(WARM_UP_EACH).await, &hand_written.run(WARM_UP_EACH).await);
    println!(
        "gateway: {CONNECTIONS} connections, {} requests a run, {pairs} interleaved runs",
        CONNECTIONS * REQUESTS_EACH
    );
    println!("  features on: {FEATURES}");
    println!(
        "  resident memory: idle {idle:.1} MiB, after {} requests on {CONNECTIONS} connections {:.1} MiB",
        CONNECTIONS * WARM_UP_EACH,
        mebibytes(&gateway)
    );

    let mut through_nginx = match &nginx {
        Some((_, at)) => {
            let mut load = Load::open(*at, CONNECTIONS, "/v1/echo", BODY).await;
            load.run(WARM_UP_EACH).await;
            Some(load)
        }
        None => None,
    };
    let (mut to_floor, mut to_nginx, mut micros) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let a = micros_each(&gateway, &mut ours).await;
        let b = micros_each(&floor, &mut hand_written).await;
        to_floor.push(a / b);
        let mut c = f64::NAN;
        if let (Some((nginx, _)), Some(load)) = (&nginx, &mut through_nginx) {
            c = micros_each(nginx, load).await;
            to_nginx.push(a / c);
        }
        micros.push((a, b, c));
    }
    let median = |pick: fn(&(f64, f64, f64)) -> f64| bench::ratio_of(micros.iter().map(pick).collect()).median;
    println!(
        "  CPU a request: gateway {:.1} µs, static floor {:.1} µs, nginx {:.1} µs",
        median(|m| m.0),
        median(|m| m.1),
        median(|m| m.2)
    );
    report.ratio("CPU a request: gateway / static floor", OF_FLOOR, bench::ratio_of(to_floor));
    if to_nginx.is_empty() {
        println!("  nginx is not on PATH (Debian: apt-get install nginx-light)");
        report.missing("CPU a request: gateway / nginx as a plain proxy", OF_NGINX);
    } else {
        report.ratio("CPU a request: gateway / nginx as a plain proxy", OF_NGINX, bench::ratio_of(to_nginx));
    }
    report.quantity("resident memory at rest", "MiB", IDLE, Ratio { low: idle, median: idle, high: idle });
    drop(service);
}

fn mebibytes(program: &Program) -> f64 {
    program.resident() as f64 / (1024.0 * 1024.0)
}

async fn micros_each(program: &Program, load: &mut Load) -> f64 {
    let before = program.cpu();
    load.run(REQUESTS_EACH).await;
    (program.cpu() - before).as_secs_f64() * 1e6 / (CONNECTIONS * REQUESTS_EACH) as f64
}

/// Both answers carry what the worker sent, and a context that the gateway made.
fn same_answer(ours: &[u8], floor: &[u8]) {
    let parse = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).expect("JSON");
    let (ours, floor) = (parse(ours), parse(floor));
    for member in ["title", "tags", "reward"] {
        assert_eq!(ours[member], floor[member], "{ours}\n{floor}");
    }
    for member in ["traceId", "requestId", "clientId", "timestamp"] {
        assert!(ours["meta"][member].is_string(), "{ours}");
        assert!(floor["meta"][member].is_string(), "{floor}");
    }
}

fn start_gateway(folder: &Path, nats: &str) -> (Program, SocketAddr) {
    let (arguments, address) = gateway_arguments(folder, nats, ROUTES);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = Program::start("gateway", 0, env!("CARGO_BIN_EXE_tidegate"), &arguments);
    wait_for(address);
    (program, address)
}

fn static_floor() -> String {
    let path: PathBuf = Path::new(env!("CARGO_BIN_EXE_tidegate")).with_file_name("static-floor");
    // `cargo test --workspace` has built it already; a measuring run builds what it measures.
    let mut build = Command::new(if path.exists() && !bench::is_measuring() { "true" } else { env!("CARGO") });
    build.args(["build", "--quiet", "-p", "tidegate-floor", "--bin", "static-floor"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().is_ok_and(|status| status.success()), "static-floor does not build");
    path.to_string_lossy().into_owned()
}

fn start_floor(nats: &str) -> (Program, SocketAddr) {
    let address = free_address();
    let program = Program::start("static floor", 0, &static_floor(), &[&address.to_string(), nats]);
    wait_for(address);
    (program, address)
}

fn start_nginx(folder: &Path, backend: SocketAddr) -> Option<(Program, SocketAddr)> {
    let nginx = on_path("nginx")?;
    let address = free_address();
    let folder = folder.display();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
         events {{ worker_connections 1024; }}
         http {{
           access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
           uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000;
           upstream backend {{ server {backend}; keepalive 64; keepalive_requests 1000000; }}
           server {{
             listen {address};
             location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
           }}
         }}"
    );
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, configuration).expect("nginx.conf");
    let program = Program::start("nginx", 0, &nginx.to_string_lossy(), &["-c", &file]);
    wait_for(address);
    Some((program, address))
}

fn reply_to(request: &EchoRequest) -> EchoReply {
    EchoReply {
        meta: request.meta.clone(),
        quest_id: "qst_ebd72078c3abbb3f".to_owned(),
        title: "The Corrupt Hunt".to_owned(),
        tags: vec!["survival".to_owned(), "urban".to_owned()],
        reward: 100,
        error: None,
    }
}

/// A service in this process.
async fn start_service(url: &str) -> Service<()> {
    Service::start(url, SUBJECT, async |client, requests, mut told| {
        tokio::select! { () = answer_all(client, requests) => {}, _ = told.recv() => {} }
    })
    .await
}

async fn answer_all(client: async_nats::Client, mut subscription: async_nats::Subscriber) {
    use futures_util::StreamExt;
    while let Some(message) = subscription.next().await {
        let Some(inbox) = message.reply else { continue };
        let request = EchoRequest::decode(message.payload).expect("a request of the bench schema");
        let mut headers = async_nats::HeaderMap::new();
        if let Some(call) = message.headers.as_ref().and_then(|headers| headers.get("Tidegate-Call")) {
            headers.insert("Tidegate-Call", call.clone());
        }
        let payload = reply_to(&request).encode_to_vec().into();
        client.publish_with_reply_and_headers(inbox, SUBJECT, headers, payload).await.expect("published");
    }
}

/// The backend behind nginx: the same answer over plain HTTP, nothing transcoded.
async fn plain_http_backend() -> SocketAddr {
    let answer = serde_json::to_vec(&reply_to(&EchoRequest::default())).expect("JSON");
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            send.send(listener.local_addr().expect("an address")).expect("somebody waits");
            let app = axum::Router::new().route(
                "/v1/echo",
                axum::routing::post(move |_body: axum::body::Bytes| {
                    let answer = answer.clone();
                    async move { answer }
                }),
            );
            axum::serve(listener, app).await.expect("serving");
        });
    });
    receive.recv().expect("the backend starts")
}
