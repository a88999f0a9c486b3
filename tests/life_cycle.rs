//! The program's life as the system makes it: told to end in the middle of everything, and short of files.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::calls::{answer, listen, next, quest};
use support::nats::NatsServer;
use support::program::Program;
use support::{PATIENCE, eventually};
use tidegate::bus::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ASK: &str = r#"{"prompt": "x", "params": {"stream": true}}"#;

/// A gateway in front of a server, with the built-in tables.
fn gateway(server: &NatsServer, grace: &str) -> Program {
    Program::start(&["serve", "--nats", server.url(), "--routes", "built-in", "--grace", grace])
}

async fn readiness(program: &Program) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}/readyz", program.admin)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn exit_code(program: &mut Program) -> Option<i32> {
    let mut status = None;
    eventually("the program has ended", async || {
        status = program.ended();
        status.is_some()
    })
    .await;
    status.unwrap().code()
}

#[tokio::test]
async fn told_to_end_it_answers_what_it_has_begun_ends_streams_and_cuts_only_who_is_slow() {
    const GRACE: Duration = Duration::from_secs(2);
    let server = NatsServer::start();
    let workers = server.bus().await;
    let mut calls = listen(&workers, "svc.quest.v1.generate", Limits::WORKER).await;
    let mut streams = listen(&workers, "svc.ai.llm.v1.infer", Limits::WORKER).await;
    let mut program = gateway(&server, "2");
    eventually("ready", async || readiness(&program).await.0 == 200).await;

    // A call, a stream, and a client that does not come to the end of its request.
    let client = reqwest::Client::new();
    let post = |path: &str, body: &'static str| client.post(format!("http://{}{path}", program.address)).body(body);
    let call = tokio::spawn(post("/quest/generate", "{}").send());
    let begun = next(&mut calls).await.unwrap().unwrap();
    let stream = tokio::spawn(post("/ai/llm/infer", ASK).send());
    let asked = next(&mut streams).await.unwrap().unwrap();
    workers.publish(answer(&asked, b"\x2a\x02Hi")).await.unwrap();
    let stream = stream.await.unwrap().unwrap();
    let mut slow = TcpStream::connect(&program.address).await.unwrap();
    slow.write_all(b"POST /quest/generate HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").await.unwrap();

    let told = Instant::now();
    program.signal("TERM");
    eventually("not ready", async || readiness(&program).await == (503, "draining\n".to_owned())).await;
    let text = tokio::time::timeout(PATIENCE, stream.text()).await.unwrap().unwrap();
    assert!(text.contains("event: end\ndata: {\"reason\":\"draining\"}"), "{text}");
    eventually("nobody new comes in", async || TcpStream::connect(&program.address).await.is_err()).await;
    workers.publish(answer(&begun, &quest("in time"))).await.unwrap();
    let call = call.await.unwrap().unwrap();
    assert_eq!(call.status(), 200);
    assert!(call.text().await.unwrap().contains("in time"));
    assert_eq!(exit_code(&mut program).await, Some(0));
    let took = told.elapsed();
    assert!(took >= GRACE && took < GRACE * 3, "the slow client is waited for, but no longer: {took:?}");
}

#[tokio::test]
async fn told_to_end_with_nothing_to_do_it_ends_at_once() {
    let server = NatsServer::start();
    let mut program = gateway(&server, "60");
    let client = reqwest::Client::new();
    let answer = client.get(format!("http://{}/nowhere", program.address)).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    // The client's connection is kept alive, and idle.
    program.signal("INT");
    assert_eq!(exit_code(&mut program).await, Some(0));
}

#[tokio::test]
async fn told_twice_it_waits_for_nobody() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    let mut calls = listen(&workers, "svc.quest.v1.generate", Limits::WORKER).await;
    let mut program = gateway(&server, "60");
    eventually("ready", async || readiness(&program).await.0 == 200).await;
    let call = reqwest::Client::new().post(format!("http://{}/quest/generate", program.address)).body("{}").send();
    let call = tokio::spawn(call);
    next(&mut calls).await.unwrap().unwrap();
    program.signal("TERM");
    eventually("not ready", async || readiness(&program).await.0 == 503).await;
    assert!(program.ended().is_none(), "it waits for the call");
    program.signal("TERM");
    assert_eq!(exit_code(&mut program).await, Some(0));
    assert!(call.await.unwrap().is_err());
}

/// Processor time in half a second, as a share of it.
async fn load(program: &Program) -> f64 {
    let (start, before) = (Instant::now(), program.ticks());
    tokio::time::sleep(Duration::from_millis(500)).await;
    (program.ticks() - before) as f64 / 100.0 / start.elapsed().as_secs_f64()
}

#[tokio::test]
async fn short_of_files_it_sheds_does_not_spin_and_recovers() {
    let program = Program::start_with_files(80, &["dev", "--routes", "built-in"]);
    // Of 80 files 64 are kept back: the connections above the other 16 are closed at once.
    eventually("the services are there", async || program.post("/quest/generate", "{}").await.0 != 503).await;
    let quiet = program.open_files_below(80);
    let closed = Arc::new(AtomicUsize::new(0));
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut socket = TcpStream::connect(&program.address).await.unwrap();
        let closed = closed.clone();
        held.spawn(async move {
            let _ = socket.write_all(b"GET /nowhere HTTP/1.1\r\n").await;
            let _ = socket.read(&mut [0; 16]).await;
            closed.fetch_add(1, Ordering::Relaxed);
        });
    }
    eventually("24 are closed", async || closed.load(Ordering::Relaxed) >= 24).await;
    // The connection of the call before may have been one of the 16.
    assert!(closed.load(Ordering::Relaxed) <= 25, "{closed:?}");
    held.shutdown().await;
    eventually("others are served", async || {
        let answer = reqwest::get(format!("http://{}/nowhere", program.address)).await;
        answer.is_ok_and(|answer| answer.status() == 404)
    })
    .await;
    eventually("all connections are gone", async || program.open_files_below(80) <= quiet).await;
    // The admin port keeps no such account: with all files gone nobody is accepted, until some are free again.
    let mut hogs = Vec::new();
    for _ in 0..80 {
        hogs.push(TcpStream::connect(&program.admin).await.unwrap());
    }
    eventually("all files are gone", async || program.open_files_below(80) == 80).await;
    let mut waiting = TcpStream::connect(&program.address).await.unwrap();
    waiting.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let share = load(&program).await;
    assert!(share < 0.2, "it spins: {share}");
    let mut text = String::new();
    let early = tokio::time::timeout(Duration::from_millis(1), waiting.read_to_string(&mut text)).await;
    assert!(early.is_err(), "there were files left: {text}");
    drop(hogs);
    tokio::time::timeout(PATIENCE, waiting.read_to_string(&mut text)).await.expect("served in time").unwrap();
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
}
