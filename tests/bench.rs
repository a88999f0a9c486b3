//! `tidegate bench`: what it counts, and that it measures what callers feel; completions and the manual.

mod support;

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use support::eventually;
use support::nats::NatsServer;
use support::program::Program;

/// Runs a command on a thread, as it would keep the test's server from answering.
async fn tidegate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs a short bench, and reads its report.
async fn bench(arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["bench", "--format", "json", "--warm-up", "100ms"];
    all.extend(arguments);
    let output = tidegate(&all).await;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {report}"))
}

/// A server on which the nth request takes so long.
async fn server(slow: impl Fn(u64) -> Duration + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let handler = move || {
        let pause = slow(count.fetch_add(1, Ordering::Relaxed));
        async move {
            tokio::time::sleep(pause).await;
            "fine"
        }
    };
    let router = Router::new().route("/", get(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/")
}

#[tokio::test]
async fn an_open_loop_feels_a_stall_as_those_who_had_to_wait_and_a_closed_one_does_not() {
    let stall = |count| if count == 100 { Duration::from_millis(600) } else { Duration::ZERO };
    let arguments = ["--connections", "1", "--duration", "2s"];
    let open = server(stall).await;
    let (code, open) = bench(&[&[open.as_str(), "--rate", "200"][..], &arguments].concat()).await;
    assert_eq!(code, Some(0), "{open}");
    // Of 400 requests some 120 were due during the stall.
    assert!(number(&open, "/latency_ms/p90") > 100.0, "{open}");
    let closed = server(stall).await;
    let (_, closed) = bench(&[&[closed.as_str()][..], &arguments].concat()).await;
    assert!(number(&closed, "/latency_ms/p90") < 100.0, "{closed}");
    assert!(number(&closed, "/latency_ms/max") > 500.0, "{closed}");
}

#[tokio::test]
async fn what_was_due_and_never_sent_is_told() {
    let slow = server(|_| Duration::from_millis(200)).await;
    let (_, report) = bench(&[&slow, "--rate", "100", "--connections", "1", "--duration", "1s"]).await;
    assert!(number(&report, "/unsent") > 50.0, "{report}");
    assert!(number(&report, "/answered") < 10.0, "{report}");
}

#[tokio::test]
async fn requests_and_streams_over_http_and_over_nats() {
    let nats = NatsServer::start();
    let variables = [("NATS_URL", nats.url())];
    let gateway = Program::start_with(&variables, &["serve"]);
    let _worker = Program::worker(&variables, &["quest-system", "ai-integration"]);
    let quest = "/v1/players/p1/quests:generate";
    eventually("the services are there", async || {
        gateway.post("/v1/inference", r#"{"prompt": "hello"}"#).await.0 == 200
            && gateway.post(quest, "{}").await.0 == 200
    })
    .await;
    let url = |path: &str| format!("http://{}{path}", gateway.address);
    let short = ["--duration", "500ms", "--connections", "4"];
    let (code, report) = bench(&[&[url(quest).as_str(), "--json", "{}"][..], &short].concat()).await;
    let answered = report["answered"].as_u64().unwrap();
    assert!(answered > 10, "{report}");
    assert_eq!((code, &report["answers"]), (Some(0), &json!({ "200": answered })));
    let at = |percentile: &str| number(&report, &format!("/latency_ms/{percentile}"));
    assert!(0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"), "{report}");

    let streams = [url("/v1/inference:stream"), "ai_integration.v1.AiIntegrationService/Infer".to_owned()];
    for target in &streams {
        let arguments = [target, "--stream", "--json", r#"{"prompt": "hello"}"#, "--nats", nats.url()];
        let (code, report) = bench(&[&arguments[..], &short].concat()).await;
        assert_eq!(code, Some(0), "{report}");
        assert!(number(&report, "/events") > number(&report, "/answered"), "{report}");
        assert!(number(&report, "/whole_ms/p50") >= number(&report, "/latency_ms/p50"), "{report}");
    }
    let arguments = ["svc.quest.v1.generate", "--json", r#"{"player_id": "p1"}"#, "--nats", nats.url()];
    let (code, report) = bench(&[&arguments[..], &short].concat()).await;
    assert_eq!((code, &report["answers"]), (Some(0), &json!({ "OK": report["answered"] })), "{report}");

    // What is no success has no latency, and is told by its status or code.
    let (code, report) = bench(&[&[url("/nowhere").as_str()][..], &short].concat()).await;
    assert_eq!((code, &report["answered"]), (Some(1), &json!(0)));
    assert!(report["answers"]["404"].as_u64().unwrap() > 10, "{report}");
    let arguments = ["svc.quest.v1.generate", "--nats", nats.url()];
    let (code, report) = bench(&[&arguments[..], &short].concat()).await;
    assert!(report["answers"]["INVALID_ARGUMENT"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let rows = [
        (
            &["svc.nobody"][..],
            "error: `svc.nobody` is no http:// address, and the tables have no such method or subject: see `tidegate routes`\n",
        ),
        (&["http://127.0.0.1:1/", "-H", "nonsense"], "error: `nonsense` is no header: expected `name: value`\n"),
        (&["svc.quest.v1.generate", "--json", "["], "error: the request does not fit: "),
    ];
    for (arguments, text) in rows {
        let output = tidegate(&[&["bench"], arguments].concat()).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.starts_with(text), "{arguments:?}: {errors}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[tokio::test]
async fn shells_take_their_completions_and_every_command_has_a_page() {
    let script = tidegate(&["completions", "bash"]).await.stdout;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.bash");
    std::fs::write(&file, script).unwrap();
    let ask = r#"source "$0"; COMP_WORDS=(tidegate ver); COMP_CWORD=1; _tidegate tidegate ver tidegate; echo "${COMPREPLY[*]}""#;
    let output = Command::new("bash").args(["-c", ask]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "verify\n", "{output:?}");
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        assert!(String::from_utf8_lossy(&tidegate(&["completions", shell]).await.stdout).contains("verify"), "{shell}");
    }
    let page = String::from_utf8(tidegate(&["man"]).await.stdout).unwrap();
    assert!(page.contains(".TH tidegate 1") && page.contains("verify"), "{page}");
    let pages = folder.path().join("man1");
    let output = tidegate(&["man", "--out", pages.to_str().unwrap()]).await;
    assert!(output.status.success(), "{output:?}");
    for page in ["tidegate.1", "tidegate-serve.1", "tidegate-bench.1", "tidegate-dlq-list.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}
