//! The program as a user runs it: dev, check, routes, init, a reload seen live.

mod support;

use std::process::{Command, Output, Stdio};

use support::eventually;
use support::program::Program;

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn dev_serves_the_game_out_of_the_box_as_the_readme_says() {
    let dev = Program::start(&["dev", "--routes", "built-in"]);
    let (status, quest) = dev.post("/v1/players/p1/quests:generate", r#"{"seed": "42"}"#).await;
    assert_eq!(status, 200, "{quest}");
    let quest: serde_json::Value = serde_json::from_str(&quest).unwrap();
    assert_eq!(quest["quest"]["quest_id"], "qst_ebd72078c3abbb3f");
    assert_eq!(quest["quest"]["title"], "The Corrupt Hunt");
    let put = |version: &'static str, body: &'static str| {
        let request = reqwest::Client::new().put(format!("http://{}/v1/players/p1/state", dev.address));
        let request = if version.is_empty() { request } else { request.header("if-match", version) };
        request.body(body).send()
    };
    let written = put("", r#"{"state": {"money": 120}}"#).await.unwrap();
    assert_eq!(written.headers()["etag"], "\"1\"");
    let late = put("\"9\"", r#"{"state": {"money": 1}}"#).await.unwrap();
    assert_eq!(late.status(), 412);
    let late: serde_json::Value = serde_json::from_str(&late.text().await.unwrap()).unwrap();
    assert_eq!(late["error"]["code"], "FAILED_PRECONDITION");
    assert_eq!(late["error"]["details"]["current_version"], "1");
    let (status, stream) = dev.post("/v1/inference:stream", r#"{"prompt": "Where is the ferryman?"}"#).await;
    assert_eq!(status, 200, "{stream}");
    assert!(stream.starts_with("retry: ") && stream.contains("\nid: 0\ndata: {"), "{stream}");
    assert!(stream.trim_end().rsplit("\n\n").next().unwrap().contains("\"is_final\":true"), "{stream}");
}

#[test]
fn init_makes_a_folder_that_checks_out_and_a_mistake_in_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let made = tidegate(&["init", &path("")]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let tables = ["--routes", &path("routes.yaml"), "--descriptors", &path("descriptors")].map(str::to_owned);
    let with = |command: &str| {
        let mut arguments = vec![command];
        arguments.extend(tables.iter().map(String::as_str));
        tidegate(&arguments)
    };
    let checked = with("check");
    assert_eq!((checked.status.code(), text(&checked.stdout).trim()), (Some(0), "ok: 2 routes"));
    assert!(text(&with("routes").stdout).contains("/v1/hello/{name}"));
    let routes = std::fs::read_to_string(path("routes.yaml")).unwrap();
    std::fs::write(path("routes.yaml"), routes.replace("SayHello", "SayHallo")).unwrap();
    let checked = with("check");
    assert_eq!(checked.status.code(), Some(1));
    let report = text(&checked.stderr);
    assert!(
        report.contains("did you mean `hello.v1.HelloService/SayHello`?") && report.contains("1 problem"),
        "{report}"
    );
}

#[test]
fn the_schema_for_editors_takes_the_projects_own_file() {
    let schema: serde_json::Value = serde_json::from_slice(&tidegate(&["schema"]).stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let wrong = serde_json::json!({"version": 1, "ruotes": []});
    assert!(!validator.is_valid(&wrong));
    let right = serde_json::json!({"version": 1, "routes": [{"route": "GET /a", "call": "a.B/C"}]});
    assert!(validator.is_valid(&right));
}

#[tokio::test]
async fn a_reload_is_seen_live_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    assert!(tidegate(&["init", &path("")]).status.success());
    let routes = path("routes.yaml");
    let gateway = Program::start(&["dev", "--routes", &routes, "--descriptors", &path("descriptors")]);
    assert_eq!(gateway.get("/hello").await.0, 503);
    assert_eq!(gateway.get("/hallo").await.0, 404);
    let good = std::fs::read_to_string(&routes).unwrap().replace("GET /hello", "GET /hallo");
    std::fs::write(&routes, &good).unwrap();
    eventually("the new route is there", async || gateway.get("/hallo").await.0 == 503).await;
    assert_eq!(gateway.get("/hello").await.0, 404);
    // A broken file, then a removed one, then a good one in another way: a symlink swapped, as ConfigMaps do.
    std::fs::write(&routes, "version: 1\nruotes: []\n").unwrap();
    std::fs::remove_file(&routes).unwrap();
    std::fs::create_dir(path("next")).unwrap();
    std::fs::write(path("next/routes.yaml"), good.replace("GET /hallo", "GET /hoi")).unwrap();
    assert_eq!(gateway.get("/hallo").await.0, 503);
    std::os::unix::fs::symlink(path("next/routes.yaml"), &routes).unwrap();
    eventually("the swapped route is there", async || gateway.get("/hoi").await.0 == 503).await;
}

#[tokio::test]
async fn gateway_and_workers_as_processes_of_their_own_on_a_real_nats_server() {
    let server = support::nats::NatsServer::start();
    let gateway = Program::start(&["serve", "--nats", server.url(), "--routes", "built-in"]);
    assert_eq!(gateway.post("/quest/generate", r#"{"player_id": "p1"}"#).await.0, 503);
    let worker = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["worker", "--nats", server.url(), "--routes", "built-in"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let worker = Program::of(worker);
    let ask = r#"{"player_id": "p1", "seed": "42"}"#;
    eventually("the worker answers", async || gateway.post("/quest/generate", ask).await.0 == 200).await;
    let (_, stream) = gateway.post("/ai/llm/infer", r#"{"prompt": "hi", "params": {"stream": true}}"#).await;
    assert!(stream.contains("\"is_final\":true"), "{stream}");
    let called = tidegate(&["call", "svc.quest.v1.generate", ask, "--nats", server.url(), "--routes", "built-in"]);
    assert!(text(&called.stdout).contains("qst_ebd72078c3abbb3f"), "{}{}", text(&called.stdout), text(&called.stderr));
    let call = |json: &str| {
        let called = ["call", "svc.quest.v1.get", json, "--nats", server.url(), "--routes", "built-in"];
        tidegate(&called)
    };
    let missing = call(r#"{"player_id": "p1", "quest_id": "qst_0000000000000000"}"#);
    assert_eq!(missing.status.code(), Some(1), "an error of the worker is one of the command");
    assert!(text(&missing.stdout).contains("NOT_FOUND"), "{}", text(&missing.stdout));
    drop(worker);
    eventually("nobody answers any more", async || gateway.post("/quest/generate", ask).await.0 == 503).await;
}

#[test]
fn check_reads_the_service_settings_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        tidegate(&["check", "--services", file.to_str().unwrap()])
    };
    let good = check("auth: { enforce: true }\n");
    assert!(good.status.success() && text(&good.stdout).contains("service settings of "), "{}", text(&good.stderr));
    let bad = check("auth: { enforced: true }\npayment: { refund_days: soon }\n");
    let report = text(&bad.stderr);
    assert!(!bad.status.success());
    for part in ["did you mean `enforce`?", "services.yaml:2:25", "2 problems"] {
        assert!(report.contains(part), "{report}");
    }
    let schema: serde_json::Value = serde_json::from_slice(&tidegate(&["schema", "--services"]).stdout).unwrap();
    assert_eq!(schema["properties"]["payment"]["properties"]["refund_days"]["maximum"], 3_650);
}
