//! The access log as operators read it: a line of JSON for each request, whatever became of it.

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::calls::{self, quest};
use support::{eventually, gateway, http2, project, url};
use tidegate::bus::{Bus, Limits};
use tidegate::gateway::{AccessConfig, Running};

struct Edge {
    bus: Bus,
    running: Running,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Edge {
    async fn start(sample: f64) -> Edge {
        let folder = tempfile::tempdir().unwrap();
        let (bus, file) = (Bus::embedded(), folder.path().join("access.log"));
        let config = AccessConfig { file: Some(file.clone()), sample };
        let (running, _) =
            gateway(project().build(None).unwrap(), &bus, |gateway| gateway.access_log = Some(config)).await;
        Edge { bus, running, file, _folder: folder }
    }

    async fn post(&self, path: &str, body: &str) -> reqwest::Response {
        let request = reqwest::Client::new().post(url(&self.running, path)).header("x-request-id", "mine");
        let request = request.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        request.body(body.to_owned()).send().await.unwrap()
    }

    /// The lines, once there are that many.
    async fn lines(&self, count: usize) -> Vec<Value> {
        eventually("the lines are written", async || read(&self.file).len() >= count).await;
        read(&self.file)
    }
}

fn read(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    // The last line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What differs from run to run taken out, after a look at it.
fn without_times(mut line: Value) -> Value {
    let row = line.as_object_mut().unwrap();
    let time = row.remove("time").unwrap();
    assert!(tidegate::transcode::rfc3339_millis(time.as_str().unwrap()).is_some(), "{time}");
    assert!(row.remove("duration_ms").unwrap().as_f64().unwrap() > 0.0);
    assert_eq!(row.remove("request_id").unwrap().as_str().unwrap().len(), 36);
    if let Some(bus) = row.remove("bus_ms") {
        assert!(bus.as_f64().unwrap() > 0.0);
    }
    line
}

#[tokio::test]
async fn a_request_has_its_route_and_never_its_path() {
    let edge = Edge::start(1.0).await;
    let answer = quest("The Hunt");
    calls::worker(&edge.bus, "svc.quest.v1.generate", move |asked| vec![calls::answer(&asked, &answer)]).await;
    let answer = edge.post("/v1/players/secret-name/quests:generate", r#"{"seed": "42"}"#).await;
    let body = answer.text().await.unwrap();
    assert_eq!(edge.post("/nowhere/secret-name", "").await.status(), 404);
    assert_eq!(edge.post("/v1/players/secret-name/quests:generate", "[").await.status(), 400);
    let lines = edge.lines(3).await;
    assert!(!std::fs::read_to_string(&edge.file).unwrap().contains("secret-name"));
    let lines: Vec<Value> = lines.into_iter().map(without_times).collect();
    let line = |more: Value| {
        let mut line = json!({
            "method": "POST", "protocol": "HTTP/1.1", "client": "127.0.0.1", "client_request_id": "mine",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let route = "/v1/players/{player_id}/quests:generate";
    let call = "quest.v1.QuestService/GenerateQuest";
    let served = json!({"route": route, "call": call, "status": 200, "bytes_in": 14, "bytes_out": body.len()});
    assert_eq!(lines[0], line(served));
    let unrouted = &lines[1];
    assert_eq!(
        (&unrouted["status"], &unrouted["error"], &unrouted["route"]),
        (&json!(404), &json!("route_not_found"), &Value::Null)
    );
    let malformed = &lines[2];
    assert_eq!(
        (&malformed["status"], &malformed["error"], &malformed["bytes_in"]),
        (&json!(400), &json!("malformed_body"), &json!(1))
    );
    assert!(malformed.get("bus_ms").is_none(), "{malformed}");
}

#[tokio::test]
async fn a_stream_has_its_line_once_its_body_is_over() {
    let edge = Edge::start(1.0).await;
    let mut requests = calls::listen(&edge.bus, "svc.ai.llm.v1.infer", Limits::WORKER).await;
    let asking = edge.post("/v1/inference:stream", r#"{"prompt": "hello"}"#);
    let (answer, asked) = tokio::join!(asking, async {
        let asked = calls::next(&mut requests).await.unwrap().unwrap();
        edge.bus.publish(calls::answer(&asked, b"\x2a\x02hi")).await.unwrap();
        asked
    });
    assert_eq!((answer.status().as_u16(), read(&edge.file).len()), (200, 0));
    edge.bus.publish(calls::answer(&asked, b"\x18\x01\x20\x01\x2a\x02ho")).await.unwrap();
    let body = answer.text().await.unwrap();
    let line = &edge.lines(1).await[0];
    assert_eq!((&line["status"], &line["stream_end"], &line["chunks"]), (&json!(200), &json!("final"), &json!(2)));
    assert_eq!(line["bytes_out"], body.len());
    assert!(line.get("error").is_none(), "{line}");

    let asking = edge.post("/v1/inference:stream", r#"{"prompt": "hello"}"#);
    let (answer, asked) = tokio::join!(asking, async {
        let asked = calls::next(&mut requests).await.unwrap().unwrap();
        edge.bus.publish(calls::answer(&asked, b"\x2a\x02hi")).await.unwrap();
        asked
    });
    // A chunk is missing.
    edge.bus.publish(calls::answer(&asked, b"\x18\x05\x2a\x02ho")).await.unwrap();
    assert!(answer.text().await.unwrap().contains("event: error"));
    let line = &edge.lines(2).await[1];
    assert_eq!(
        (&line["status"], &line["stream_end"], &line["error"]),
        (&json!(200), &json!("error"), &json!("broken_stream"))
    );
}

#[tokio::test]
async fn a_client_that_goes_away_is_seen_and_errors_are_never_left_out() {
    let edge = Edge::start(0.0).await;
    let mut requests = calls::listen(&edge.bus, "svc.quest.v1.generate", Limits::WORKER).await;
    // Over HTTP/2: of HTTP/1 a client may have closed its half and still wait.
    let mut client = http2::Raw::connect(&edge.running, &[]).await;
    client.send(&http2::post(1, "/quest/generate", Some("{}"))).await;
    assert!(calls::next(&mut requests).await.is_some());
    client.send(&http2::reset(1)).await;
    let line = &edge.lines(1).await[0];
    assert_eq!((&line["status"], &line["error"]), (&json!(499), &json!("client_gone")));
    assert_eq!(line["protocol"], "HTTP/2");
    drop(requests);
    let answer = quest("The Hunt");
    calls::worker(&edge.bus, "svc.quest.v1.generate", move |asked| vec![calls::answer(&asked, &answer)]).await;
    assert_eq!(edge.post("/quest/generate", "{}").await.status(), 200);
    assert_eq!(edge.post("/nowhere", "").await.status(), 404);
    edge.running.drain(std::time::Duration::from_secs(5)).await;
    let errors: Vec<Value> = read(&edge.file).into_iter().map(|mut line| line["error"].take()).collect();
    assert_eq!(errors, ["client_gone", "route_not_found"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_stops_the_start() {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--access-log", "/nowhere/access.log"])
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let text = "error: the access log `/nowhere/access.log` cannot be opened: No such file or directory (os error 2)\n";
    assert!(errors.ends_with(text), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}
