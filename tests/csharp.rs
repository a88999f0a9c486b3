//! The C# client of docs/streaming.md, compiled and run by Mono against real gateways: the file, and the loop that the
//! page shows around it.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use support::program::Program;
use support::proxy::{Proxy, Trouble};
use support::{gateway, settle, url, watch};
use tidegate::bus::{Bus, Delivery, Limits, Pattern};

/// Longer than any test takes.
const FOR_EVER: &str = "600000";
/// Longest time without a line where a test waits for it to pass.
const SHORT: &str = "500";

/// The compiled client, made once. Nothing where this machine has no Mono; with CI set that fails, so that nobody
/// believes in tests that never ran.
fn has_mono() -> bool {
    static HAS_MONO: OnceLock<bool> = OnceLock::new();
    *HAS_MONO.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/csharp/fetch-mono.sh");
        let made = Command::new("sh").arg(script).output().unwrap();
        let said = String::from_utf8_lossy(&made.stdout).into_owned();
        if made.status.code() == Some(3) && std::env::var_os("CI").is_none() {
            eprintln!("NOT RUN: the C# client: {said}");
            return false;
        }
        assert!(made.status.success(), "{said}");
        true
    })
}

/// The loop of docs/streaming.md, asking `server`.
fn page_loop(server: &str) -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/streaming.md")).unwrap();
    let (_, after) = page.split_once("```csharp\n").unwrap();
    let (shown, _) = after.split_once("```").unwrap();
    assert!(shown.contains("http://127.0.0.1:8080"), "{shown}");
    let shown = shown.replace("http://127.0.0.1:8080", server);
    let used = "using System.IO;\nusing System.Threading;\nusing System.Threading.Tasks;\n";
    format!(
        "{used}static partial class Example {{\nstatic async Task Follow(CancellationToken cancel) {{\n{shown}}}\n}}\n"
    )
}

/// Compiles the client with the page's loop asking `server`, warnings refused.
fn compiled(folder: &Path, server: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (program, follow) = (folder.join("example.exe"), folder.join("Follow.cs"));
    std::fs::write(&follow, page_loop(server)).unwrap();
    let output = Command::new("mcs")
        .args(["-warnaserror", "-r:System.Net.Http.dll"])
        .arg(format!("-out:{}", program.display()))
        .args([&root.join("docs/streaming/Stream.cs"), &root.join("tests/csharp/Example.cs"), &follow])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

/// The running client, ended with the test.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Client {
    fn start(server: &str, arguments: &[&str]) -> Client {
        let folder = tempfile::tempdir().unwrap();
        let program = compiled(folder.path(), server);
        let mut command = Command::new("mono");
        command.arg(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Client { child, input, output, _folder: folder }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line, which is a chunk: its id and its JSON.
    fn chunk(&mut self) -> (String, Value) {
        let line = self.line();
        let (id, text) =
            line.strip_prefix("chunk ").and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("{line}"));
        (id.to_owned(), serde_json::from_str(text).unwrap())
    }

    /// A chunk that the page's loop was given.
    fn applied(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(line.strip_prefix("chunk ").unwrap_or_else(|| panic!("{line}"))).unwrap()
    }

    fn cancel(&mut self) {
        writeln!(self.input).unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway whose worker answers each watch by `answer`, and the address of its stream.
async fn watched(answer: impl AsyncFn(&Bus, &Delivery) + Send + 'static) -> (tidegate::gateway::Running, String) {
    let bus = Bus::embedded();
    let pattern = Pattern::new(watch::SUBJECT).unwrap();
    let mut requests = bus.subscribe(&pattern, None, Limits::WORKER).await.unwrap();
    settle(&bus).await;
    let worker = bus.clone();
    tokio::task::spawn_local(async move {
        while let Some(Ok(request)) = requests.next().await {
            answer(&worker, &request).await;
        }
    });
    let (running, _) = gateway(support::snapshot(watch::ROUTES, watch::PROTO), &bus, |_| {}).await;
    let address = url(&running, "/watch/tides");
    (running, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_read_to_its_end_and_a_refusal_is_an_error() {
    if !has_mono() {
        return;
    }
    let program = Program::start(&["dev", "--routes", "built-in"]);
    // The same seed tells the same quest.
    let (server, seed) = (format!("http://{}", program.address), r#"{"seed": "42"}"#);
    let stream = format!("{server}/v1/players/p1/quests:streamGenerate");
    let mut client = Client::start(&server, &["read", &stream, FOR_EVER, seed]);
    let mut chunks = vec![client.chunk()];
    while chunks.last().unwrap().1["is_final"] != true {
        chunks.push(client.chunk());
    }
    assert!(chunks.len() > 1, "{chunks:?}");
    let ids: Vec<String> = chunks.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids, (0..chunks.len()).map(|number| number.to_string()).collect::<Vec<_>>());
    let told: String = chunks.iter().filter_map(|(_, chunk)| chunk["description_delta"].as_str()).collect();
    let (_, whole) = program.post("/v1/players/p1/quests:generate", seed).await;
    assert_eq!(json!(told), serde_json::from_str::<Value>(&whole).unwrap()["quest"]["description"], "{whole}");
    assert_eq!(client.line(), "ended");
    let at = client.line();
    let retry = at.strip_prefix(&format!("at {} null ", chunks.len() - 1)).unwrap_or_else(|| panic!("{at}"));
    assert!(
        (1_000..10_000).contains(&retry.parse::<u32>().unwrap()),
        "the pause that the gateway asks for: {retry} ms"
    );

    let mut client = Client::start(&server, &["read", &stream, FOR_EVER, r#"{"seed": {}}"#]);
    let line = client.line();
    let error: Value =
        serde_json::from_str(line.strip_prefix("error 400 ").unwrap_or_else(|| panic!("{line}"))).unwrap();
    assert_eq!(error["error"]["details"], json!({"field": "seed", "reason": "malformed_body"}), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_of_the_page_goes_on_where_it_was() {
    if !has_mono() {
        return;
    }
    let program = Program::start(&["dev", "--routes", "built-in"]);
    let proxy = Proxy::start(&program.address).await;
    let money = async |amount: u32| {
        let address = format!("http://{}/v1/players/p1/state", program.address);
        let body = json!({ "state": { "money": amount } }).to_string();
        let answer = reqwest::Client::new().put(address).header("content-type", "application/json").body(body).send();
        assert_eq!(answer.await.unwrap().status(), 200);
    };
    money(1).await;
    let mut client = Client::start(&proxy.url().replace("nats://", "http://"), &["follow"]);
    assert_eq!(client.applied()["state"]["money"], 1);
    for amount in 2..4 {
        proxy.reset();
        money(amount).await;
        assert_eq!(client.applied()["state"]["money"], amount, "the change in between, and none twice");
    }
    // Nobody is there for a while.
    proxy.set(Trouble { is_cut: true, ..Trouble::default() });
    money(4).await;
    proxy.set(Trouble::default());
    assert_eq!(client.applied()["state"]["money"], 4);
    client.cancel();
    assert_eq!(client.line(), "cancelled");
    drop(program);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_stream_has_its_word() {
    if !has_mono() {
        return;
    }
    let program = Program::start(&["dev", "--routes", "built-in"]);
    let (status, _) = put(&program, "/v1/players/p1/state", r#"{"state": {"money": 1}}"#).await;
    assert_eq!(status, 200);
    let server = format!("http://{}", program.address);
    let stream = format!("{server}/v1/players/p1/state:watch");
    let proxy = Proxy::start(&program.address).await;
    let far = format!("{}/v1/players/p1/state:watch", proxy.url().replace("nats://", "http://"));

    let mut silent = Client::start(&server, &["read", &far, SHORT]);
    assert_eq!(silent.chunk().0, "1");
    assert_eq!(silent.line(), "broken: no line for 00:00:00.5000000");

    let mut cancelled = Client::start(&server, &["read", &stream, FOR_EVER]);
    assert_eq!(cancelled.chunk().0, "1");
    cancelled.cancel();
    assert_eq!(cancelled.line(), "cancelled");

    let mut cut = Client::start(&server, &["read", &far, FOR_EVER]);
    assert_eq!(cut.chunk().0, "1");
    proxy.reset();
    assert!(cut.line().starts_with("broken: "));

    let mut drained = Client::start(&server, &["read", &stream, FOR_EVER]);
    assert_eq!(drained.chunk().0, "1");
    program.end();
    assert_eq!(drained.line(), "ended");
    let at = drained.line();
    assert!(at.starts_with("at 1 draining "), "{at}");

    let mut nobody = Client::start(&server, &["read", &stream, FOR_EVER]);
    let line = nobody.line();
    assert!(line.starts_with("broken: "), "{line}");
}

#[tokio::test]
async fn a_gap_is_an_error_and_a_stream_that_is_over_is_not_read_again() {
    if !has_mono() {
        return;
    }
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (_running, address) = watched(async |bus, request| {
                watch::send(bus, request, watch::item(0, 1, false)).await;
                watch::send(bus, request, watch::item(2, 3, false)).await;
            })
            .await;
            let said = tokio::task::spawn_blocking(move || {
                let mut client = Client::start("http://127.0.0.1:9", &["read", &address, FOR_EVER]);
                (client.chunk(), client.line())
            });
            let ((id, _), line) = said.await.unwrap();
            assert_eq!(id, "1");
            let error: Value =
                serde_json::from_str(line.strip_prefix("error 200 ").unwrap_or_else(|| panic!("{line}"))).unwrap();
            assert_eq!(error["reason"], "broken_stream", "{error}");

            let (_running, address) = watched(async |bus, request| {
                watch::send(bus, request, watch::item(0, 7, true)).await;
            })
            .await;
            let said = tokio::task::spawn_blocking(move || {
                let mut client = Client::start("http://127.0.0.1:9", &["twice", &address, FOR_EVER]);
                let mut rest = || client.line();
                [rest(), rest(), rest(), rest(), rest()]
            });
            let lines = said.await.unwrap();
            let kinds: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
            assert_eq!(kinds, ["chunk", "ended", "at", "ended", "at"], "{lines:?}");
            assert!(lines[0].starts_with("chunk 7 ") && lines[4].starts_with("at 7 null "), "{lines:?}");
        })
        .await;
}

async fn put(program: &Program, path: &str, body: &str) -> (u16, String) {
    let request = reqwest::Client::new().put(format!("http://{}{path}", program.address));
    let answer = request.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}
