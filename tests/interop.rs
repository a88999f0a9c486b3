//! Python beside ours, with nats-py and protobuf alone: a service that shares our queue groups, and a client that keeps
//! the conventions of the SDK the services were first called by. The scripts are in `tests/interop`.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::replicas::Replicas;
use support::{gateway, project, url};

const UPDATE: &str = "svc.state.manager.v1.update";
/// Requests that are under way at a time.
const AT_ONCE: usize = 40;

/// The scripts' Python, made once where it is missing. Nothing where this machine has none to make it of; with CI set
/// that fails, so that nobody believes in tests that never ran.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = PYTHON.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = Command::new("sh").arg(root.join("tests/interop/fetch-python.sh")).output().unwrap();
        let said = String::from_utf8_lossy(&made.stdout).into_owned() + &String::from_utf8_lossy(&made.stderr);
        if made.status.code() == Some(3) && std::env::var_os("CI").is_none() {
            eprintln!("NOT RUN: services and clients in Python: {said}");
            return None;
        }
        assert!(made.status.success(), "{said}");
        Some(root.join("target/tools/interop-python/bin/python3"))
    });
    made.as_deref()
}

/// A script on a server, with the project's descriptors; ended with the test.
struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _descriptors: tempfile::TempDir,
}

impl Script {
    fn start(python: &Path, name: &str, server: &NatsServer) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let descriptors = folder.path().join("descriptors.binpb");
        std::fs::write(&descriptors, descriptor_set()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
        let mut child = Command::new(python)
            .args(["-B".as_ref(), script.as_os_str(), server.url().as_ref(), descriptors.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Script { child, input, output, _descriptors: folder }
    }

    fn service(python: &Path, server: &NatsServer) -> Script {
        let mut script = Script::start(python, "service.py", server);
        assert_eq!(script.line(), "ready");
        script
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What the client answers to a row.
    fn ask(&mut self, row: &Value) -> Value {
        writeln!(self.input, "{row}").unwrap();
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: `{line}` to {row}"))
    }

    /// The reply to a call, its context and headers aside.
    fn reply(&mut self, row: &Value) -> Value {
        without_meta(self.ask(row)["reply"].take())
    }

    /// Lets it finish what has come, and waits until it has.
    fn end(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The project's schema as one set, as `protoc --include_imports --descriptor_set_out` writes it.
fn descriptor_set() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("descriptors"), root.join("src/schema/builtin")];
    let mut compiler = protox::Compiler::new(&folders).unwrap();
    compiler.include_imports(true);
    for file in project().descriptors {
        compiler.open_file(&file.name).unwrap_or_else(|error| panic!("{error}"));
    }
    compiler.encode_file_descriptor_set()
}

fn without_meta(mut reply: Value) -> Value {
    reply.as_object_mut().expect("a reply").remove("meta");
    reply
}

/// The different replies that many readers get at once, their contexts aside, and how many came from Python.
async fn read_at_once(game: &Replicas, target: &Value) -> (Vec<Value>, usize) {
    let reads = (0..AT_ONCE).map(|_| game.ask_as("svc.state.manager.v1.get", json!({}), target.clone()));
    let (mut replies, mut from_python) = (Vec::new(), 0);
    for reply in join_all(reads).await {
        from_python += usize::from(reply["meta"]["labels"]["answered_by"] == "python");
        replies.push(without_meta(reply));
    }
    replies.dedup();
    (replies, from_python)
}

/// Players as the state service keeps them: one that is there, one that was deleted; and an entity with an id that keys
/// cannot hold.
async fn write_documents(game: &Replicas) {
    let state = json!({ "gold": 12, "name": "Mira", "tags": ["a", null, { "deep": true }] });
    for (target, op) in [
        (json!({ "player": { "player_id": "p1", "state": state } }), "UPSERT"),
        (json!({ "player": { "player_id": "p1", "state": state } }), "UPSERT"),
        (json!({ "player": { "player_id": "gone", "state": {} } }), "UPSERT"),
        (json!({ "player": { "player_id": "gone" } }), "DELETE"),
        (json!({ "entity": { "entity_id": "a.b/ü", "state": { "hp": 1.5 } } }), "UPSERT"),
    ] {
        let mut update = target;
        update["op"] = op.into();
        let ack = game.ask(UPDATE, update).await;
        assert_eq!(ack["ok"], true, "{ack}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_in_python_shares_a_queue_group_with_ours() {
    let Some(python) = python() else { return };
    let game = Replicas::nats(&[]).await;
    write_documents(&game).await;
    let targets = [
        json!({ "player_id": "p1" }),
        json!({ "player_id": "gone" }),
        json!({ "player_id": "nobody" }),
        json!({ "entity_id": "a.b/ü" }),
        json!({}),
    ];
    let mut ours = Vec::new();
    for target in &targets {
        let (replies, from_python) = read_at_once(&game, target).await;
        assert_eq!((replies.len(), from_python), (1, 0), "{target}: {replies:?}");
        ours.push(replies);
    }
    assert_eq!(ours[0][0]["version"], "2");
    assert_eq!(ours[1][0]["error"]["code"], "NOT_FOUND");
    assert_eq!(ours[4][0]["error"]["details"]["reason"], "required");

    let service = Script::service(python, game.server());
    for (target, ours) in targets.iter().zip(&ours) {
        let (replies, from_python) = read_at_once(&game, target).await;
        assert_eq!(&replies, ours, "{target}: Python answers as ours do");
        assert!((1..AT_ONCE).contains(&from_python), "{target}: {from_python} of {AT_ONCE} came from Python");
    }

    // What it took is answered before it goes, and what comes then is ours alone.
    let (under_way, ()) = tokio::join!(read_at_once(&game, &targets[0]), async {
        tokio::task::spawn_blocking(|| service.end()).await.unwrap();
    });
    assert_eq!(under_way.0, ours[0]);
    assert_eq!(read_at_once(&game, &targets[0]).await, (ours[0].clone(), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_in_python_streams_behind_the_gateway() {
    let Some(python) = python() else { return };
    let settings = [("common.without", json!(["ai-integration"]))];
    let game = Replicas::nats(&settings).await;
    let (running, _) = gateway(project().build(None).unwrap(), &game.bus, |_| {}).await;
    let _service = Script::service(python, game.server());
    let stream = async |prompt: &str| {
        let body = json!({ "model_id": "words", "prompt": prompt, "params": { "stream": true } });
        let answer = reqwest::Client::new().post(url(&running, "/ai/llm/infer")).body(body.to_string());
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let deltas = |text: &str| -> Vec<Value> {
        let chunks = text.lines().filter_map(|line| line.strip_prefix("data:"));
        chunks.map(|chunk| serde_json::from_str::<Value>(chunk).unwrap()["output_text_delta"].clone()).collect()
    };

    let (status, text) = stream("wet iron and camphor").await;
    assert_eq!((status, deltas(&text)), (200, vec!["wet ".into(), "iron ".into(), "and ".into(), "camphor".into()]));
    assert!(text.contains(r#""is_final":true"#) && text.contains(r#""finish_reason":"stop""#), "{text}");

    // The first chunk has failed: that is a status. A later one is an event.
    let (status, text) = stream("").await;
    let error = &serde_json::from_str::<Value>(&text).unwrap()["error"];
    assert_eq!((status, &error["details"]["field"]), (400, &json!("prompt")), "{text}");
    let (status, text) = stream("wet iron fail").await;
    assert_eq!(status, 200);
    let event = text.split("event: error\ndata: ").nth(1).unwrap_or_else(|| panic!("no error event: {text}"));
    let event: Value = serde_json::from_str(event.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&event["error"]["code"], &event["error"]["message"]),
        (&json!("UNAVAILABLE"), &json!("the model has gone"))
    );
}

fn update(player: &str, expected_version: u64, gold: u64) -> Value {
    let player = json!({ "player_id": player, "state": { "gold": gold } });
    json!({ "player": player, "op": "UPSERT", "expected_version": expected_version.to_string() })
}

fn write(update: &Value) -> Value {
    json!({
        "call": UPDATE, "request": ["state_manager.v1.GameStateUpdate", update],
        "reply": "state_manager.v1.GameStateUpdateAck",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_writes_and_reads_by_the_old_conventions() {
    let Some(python) = python() else { return };
    let game = Replicas::nats(&[]).await;
    let mut client = Script::start(python, "client.py", game.server());

    let mut first = write(&update("p1", 0, 10));
    first["key"] = "k-1".into();
    first["meta"] = json!({ "user_id": "u1", "trace_id": "t1", "labels": { "build": "7", "scope": "x" } });
    let answer = client.ask(&first);
    assert_eq!(answer["headers"]["message-type"], "state_manager.v1.GameStateUpdateAck");
    assert_eq!(answer["headers"]["content-type"], "application/x-protobuf");
    let meta = &answer["reply"]["meta"];
    let echoed = ["user_id", "trace_id", "client_id", "idempotency_key"].map(|name| &meta[name]);
    assert_eq!(echoed, [&json!("u1"), &json!("t1"), &json!("python-sdk"), &json!("k-1")]);
    assert_eq!(meta["labels"], json!({ "build": "7" }), "reserved labels are not echoed");
    assert_eq!(without_meta(answer["reply"].clone()), json!({ "ok": true, "new_version": "1" }));

    // The same key again: the same reply, and no second write. Another body under it: a conflict.
    let again = client.ask(&first);
    assert_eq!(again["reply"]["meta"]["labels"]["idempotent_replay"], "true");
    assert_eq!(without_meta(again["reply"].clone()), json!({ "ok": true, "new_version": "1" }));
    let mut other = write(&update("p1", 0, 11));
    other["key"] = "k-1".into();
    assert_eq!(client.reply(&other)["error"]["details"]["reason"], "key_reused");

    let refused = client.ask(&write(&update("p1", 7, 12)));
    assert_eq!(refused["headers"]["Nats-Service-Error-Code"], "7", "FAILED_PRECONDITION");
    let error = json!({
        "code": "FAILED_PRECONDITION", "message": "version is 1, expected 7",
        "details": { "reason": "version_mismatch", "current_version": "1" },
    });
    assert_eq!(without_meta(refused["reply"].clone()), json!({ "new_version": "1", "error": error }));

    let read = json!({
        "call": "svc.state.manager.v1.get", "request": ["state_manager.v1.GetStateRequest", { "player_id": "p1" }],
        "reply": "state_manager.v1.GetStateResponse",
    });
    let found = client.reply(&read);
    assert_eq!((&found["state"], &found["version"]), (&json!({ "gold": 10.0 }), &json!("1")));

    let bytes = json!({ "call": UPDATE, "bytes": "Ev////8=", "reply": "state_manager.v1.GameStateUpdateAck" });
    let malformed = client.ask(&bytes)["reply"].take();
    assert_eq!(
        (&malformed["error"]["code"], &malformed["error"]["details"]["reason"]),
        (&json!("INVALID_ARGUMENT"), &json!("malformed")),
        "{malformed}"
    );
    let mut nobody = write(&update("p1", 0, 1));
    nobody["call"] = "svc.nobody.v1.there".into();
    assert_eq!(client.ask(&nobody), json!({ "failed": "NoRespondersError" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_reads_streams_and_events() {
    let Some(python) = python() else { return };
    let game = Replicas::nats(&[]).await;
    let mut client = Script::start(python, "client.py", game.server());
    let params = json!({ "seed": "7", "max_tokens": 12, "stream": true });
    let mut infer = json!({
        "stream": "svc.ai.llm.v1.infer", "chunk": "ai_integration.v1.LLMStreamChunk",
        "request": ["ai_integration.v1.LLMInferenceRequest", { "model_id": "gpt-5-pro", "prompt": "the docks", "params": params }],
    });
    let told = client.ask(&infer);
    let chunks: Vec<&Value> = told["chunks"].as_array().unwrap().iter().map(|row| &row["chunk"]).collect();
    assert!(chunks.len() > 3, "{told}");
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk.get("is_final").is_none() && chunk.get("usage").is_none()), "{told}");
    assert!(chunks.iter().all(|chunk| chunk["generation_id"] == last["generation_id"]), "{told}");
    assert_eq!((&last["is_final"], &last["finish_reason"]), (&json!(true), &json!("length")));
    assert_eq!(told["chunks"][0]["headers"]["message-type"], "ai_integration.v1.LLMStreamChunk");
    let streamed: String = chunks.iter().filter_map(|chunk| chunk["output_text_delta"].as_str()).collect();
    // The same request at once gives the same text.
    infer["request"][1]["params"]["stream"] = false.into();
    let whole = client.reply(&json!({
        "call": "svc.ai.llm.v1.infer", "request": infer["request"], "reply": "ai_integration.v1.LLMInferenceResponse",
    }));
    assert_eq!(whole["output_text"], streamed.as_str());

    // A refused stream is one final chunk.
    infer["request"][1] = json!({ "params": { "stream": true } });
    let refused = client.ask(&infer);
    assert_eq!(refused["chunks"].as_array().unwrap().len(), 1, "{refused}");
    assert_eq!(refused["chunks"][0]["chunk"]["is_final"], true);
    assert_eq!(refused["chunks"][0]["chunk"]["error"]["code"], "INVALID_ARGUMENT");

    // A watch of a client that gives no credit, and the events of the same writes.
    for gold in 1..=3 {
        assert_eq!(client.reply(&write(&update("p2", 0, gold)))["new_version"], gold.to_string());
    }
    let watch = client.ask(&json!({
        "stream": "svc.state.manager.v1.watch", "chunk": "state_manager.v1.WatchStateResponse", "most": 1,
        "request": ["state_manager.v1.WatchStateRequest", { "player_id": "p2" }],
    }));
    let item = &watch["chunks"][0]["chunk"];
    assert_eq!((&item["state"], &item["version"]), (&json!({ "gold": 3.0 }), &json!("3")), "{watch}");
    let told = client.ask(&json!({ "events": ["GAME_EVENTS", "evt.state.player.updated.v1"], "count": 3 }));
    for (event, version) in told["events"].as_array().unwrap().iter().zip(1..) {
        let id = format!("player:p2:{version}");
        assert_eq!((&event["event"]["event_id"], &event["headers"]["Nats-Msg-Id"]), (&json!(id), &json!(id)));
        assert_eq!(event["headers"]["message-type"], "event_bus.v1.GameEvent");
        assert_eq!(event["event"]["event_type"], "state.player.updated");
        let payload =
            json!({ "player_id": "p2", "state": { "gold": f64::from(version) }, "version": version.to_string() });
        assert_eq!(event["payload"], payload);
    }
}
