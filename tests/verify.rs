//! `tidegate verify`: the services of the game stand everything it fires, and workers that do not are told what they do
//! wrong.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::calls::{self, message};
use support::eventually;
use support::nats::NatsServer;
use support::program::Program;
use tidegate::bus::{Delivery, Message};

/// Runs it on a thread, as it would keep the test's workers from answering.
async fn verify(folder: &Path, url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("verify").args(arguments).args(["--nats", url]).current_dir(folder);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_of_the_game_stand_all_of_it() {
    let server = NatsServer::start();
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let _worker = Program::worker(&[("NATS_URL", server.url())], &[]);
    eventually("the services are there", async || {
        let output = verify(project, server.url(), &["weather-manager", "--format", "json"]).await;
        json(&output)["methods"][0]["cases"].as_u64() > Some(1)
    })
    .await;
    let output = verify(project, server.url(), &["--roles", "admin,operator,service", "--format", "json"]).await;
    let report = json(&output);
    let broken: Vec<&Value> = report["methods"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|method| !method["findings"].as_array().unwrap().is_empty())
        .collect();
    assert!(broken.is_empty(), "{}", serde_json::to_string_pretty(&broken).unwrap());
    assert_eq!((&report["broken"], output.status.code()), (&Value::from(0), Some(0)));
    let services: std::collections::BTreeSet<&str> =
        report["methods"].as_array().unwrap().iter().map(|method| method["service"].as_str().unwrap()).collect();
    assert_eq!(services.len(), 22);
    assert!(report["cases"].as_u64().unwrap() > 2_000, "{}", report["cases"]);
}

const PROTO: &str = r#"
syntax = "proto3";
package t.v1;
message Asked { string text = 1; int64 count = 2; }
message Said { string text = 1; }
message Item { uint64 index = 1; bool is_final = 2; string text = 3; }
service Silent { rpc Ask(Asked) returns (Said); }
service Careless { rpc Ask(Asked) returns (Said); }
service Garbled { rpc Ask(Asked) returns (Said); }
service Failing { rpc Ask(Asked) returns (Said); }
service Strict { rpc Ask(Asked) returns (Said); }
service Hasty { rpc Tell(Asked) returns (stream Item); }
service Disordered { rpc Tell(Asked) returns (stream Item); }
service Absent { rpc Ask(Asked) returns (Said); }
"#;
const ROUTES: &str = r#"
version: 1
styles:
  told:
    chunk: { index: index, last: is_final }
defaults: { style: told }
routes:
  - { route: POST /silent, call: t.v1.Silent/Ask }
  - { route: POST /careless, call: t.v1.Careless/Ask }
  - { route: POST /garbled, call: t.v1.Garbled/Ask }
  - { route: POST /failing, call: t.v1.Failing/Ask }
  - { route: POST /strict, call: t.v1.Strict/Ask }
  - { route: POST /hasty, call: t.v1.Hasty/Tell }
  - { route: POST /disordered, call: t.v1.Disordered/Tell }
  - { route: POST /absent, call: t.v1.Absent/Ask }
"#;

fn said(text: &str) -> Vec<u8> {
    [&[0x0a, text.len() as u8], text.as_bytes()].concat()
}

fn item(index: u8, is_final: bool) -> Vec<u8> {
    let index = if index == 0 { vec![] } else { vec![0x08, index] };
    [index, if is_final { vec![0x10, 1] } else { vec![] }, vec![0x1a, 1, b'x']].concat()
}

/// Answers as a worker does that cannot stop: every chunk names a control subject, and nobody reads it.
fn items(asked: &Delivery, indexes: &[u8]) -> Vec<Message> {
    let chunk = |index: &u8| {
        let mut chunk = calls::answer(asked, &item(*index, false));
        chunk.reply = Some(message("nobody.listens", b"").subject);
        chunk
    };
    indexes.iter().map(chunk).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_does_wrong_is_named_with_the_case_that_showed_it() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("descriptors")).unwrap();
    std::fs::write(folder.path().join("descriptors/t.proto"), PROTO).unwrap();
    std::fs::write(folder.path().join("routes.yaml"), ROUTES).unwrap();
    let bus = server.bus().await;
    calls::worker(&bus, "t.v1.Silent.Ask", |_| Vec::new()).await;
    calls::worker(&bus, "t.v1.Careless.Ask", |asked| vec![calls::answer(&asked, &said("fine"))]).await;
    calls::worker(&bus, "t.v1.Garbled.Ask", |asked| vec![calls::answer(&asked, b"{}")]).await;
    calls::worker(&bus, "t.v1.Failing.Ask", |asked| {
        let mut answer = calls::answer(&asked, b"");
        answer.headers.push("Nats-Service-Error-Code", "13");
        answer.headers.push("Nats-Service-Error", "index out of bounds");
        vec![answer]
    })
    .await;
    let mut keys = Vec::new();
    calls::worker(&bus, "t.v1.Strict.Ask", move |asked| {
        let key = asked.headers.get("Nats-Msg-Id").unwrap_or_default().to_owned();
        let mut answer = calls::answer(&asked, &said("fine"));
        if !key.is_empty() && keys.contains(&key) {
            answer.payload = Default::default();
            answer.headers.push("Nats-Service-Error-Code", "6");
            answer.headers.push("Nats-Service-Error", "it is there already");
        }
        keys.push(key);
        vec![answer]
    })
    .await;
    calls::worker(&bus, "t.v1.Hasty.Tell", |asked| items(&asked, &[0, 1, 2, 3])).await;
    calls::worker(&bus, "t.v1.Disordered.Tell", |asked| items(&asked, &[0, 2, 1])).await;
    let output = verify(folder.path(), server.url(), &["--timeout", "1", "--format", "json"]).await;
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let findings: BTreeMap<&str, BTreeMap<&str, &str>> = report["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|method| {
            let findings = method["findings"].as_array().unwrap().iter();
            let findings = findings.map(|row| (row["case"].as_str().unwrap(), row["finding"].as_str().unwrap()));
            (method["method"].as_str().unwrap(), findings.collect())
        })
        .collect();
    for (method, case, finding) in [
        ("Silent/Ask", "usual values", "no answer within 1s"),
        ("Silent/Ask", "everything else", "not tried after 4 cases without an answer"),
        ("Careless/Ask", "a length beyond the end", "it was taken as if nothing were wrong"),
        ("Careless/Ask", "a text in `text` that is no UTF-8", "it was taken as if nothing were wrong"),
        ("Garbled/Ask", "usual values", "the reply is no `t.v1.Said`: …"),
        ("Failing/Ask", "no values", "INTERNAL: index out of bounds"),
        ("Strict/Ask", "one key twice", "the repeat failed: ALREADY_EXISTS: it is there already"),
        (
            "Hasty/Tell",
            "as a stream: credit for one chunk, then a cancel",
            "it sends more chunks than it has credit for",
        ),
        ("Disordered/Tell", "as a stream: usual values", "chunk 2 came where 1 was expected"),
        ("Absent/Ask", "usual values", "nobody takes requests on the subject"),
    ] {
        let found = findings[format!("t.v1.{method}").as_str()].get(case).copied().unwrap_or_default();
        let (begin, _) = finding.split_once('…').unwrap_or((finding, ""));
        assert!(found.starts_with(begin), "{method}, {case}: `{found}` in {findings:#?}");
    }
    // What is right is not complained about.
    assert!(!findings["t.v1.Careless/Ask"].contains_key("usual values"), "{findings:#?}");
    assert_eq!(findings["t.v1.Absent/Ask"].len(), 1);

    let output = verify(folder.path(), server.url(), &["Nobody"]).await;
    let text = "error: there is no service `Nobody`: there are ";
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(text), "{output:?}");
    tokio::time::timeout(Duration::from_secs(1), bus.close()).await.unwrap();
}
