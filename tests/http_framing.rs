//! What a raw socket can do to the edge (HTTP/1 framing), and what it gets for it.

mod support;

use std::time::Duration;

use support::{gateway, project};
use tidegate::bus::Bus;
use tidegate::gateway::{GatewayConfig, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn edge(change: impl FnOnce(&mut GatewayConfig)) -> Running {
    gateway(project().build(None).unwrap(), &Bus::embedded(), change).await.0
}

/// Sends bytes and reads until the server closes.
async fn say(running: &Running, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    // The server may close before it has read everything.
    let _ = socket.write_all(bytes).await;
    read_all(&mut socket).await
}

async fn read_all(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(support::PATIENCE, socket.read_to_end(&mut answer)).await;
    let _ = read.expect("the server closes the connection in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

const GOOD_HEAD: &str = "POST /quest/generate HTTP/1.1\r\nhost: a\r\n";

#[tokio::test]
async fn broken_heads_are_refused_with_their_status_and_a_reason() {
    let running = edge(|_| {}).await;
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let big = format!("x-big: {}\r\n", "v".repeat(20 * 1024));
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "u".repeat(70 * 1024));
    let rows: Vec<(String, &str, &str)> = vec![
        (
            format!("{GOOD_HEAD}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{{}}"),
            "400",
            "both Transfer-Encoding",
        ),
        (format!("{GOOD_HEAD}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"), "400", "two Content-Length"),
        (format!("{GOOD_HEAD}content-length: +2\r\n\r\n{{}}"), "400", "Content-Length is no number"),
        (format!("{GOOD_HEAD}transfer-encoding: gzip\r\n\r\n"), "400", "Transfer-Encoding is not"),
        (format!("{GOOD_HEAD}transfer-encoding : chunked\r\n\r\n"), "400", "space before the colon"),
        ("POST /quest/generate HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".into(), "400", "in HTTP/1.0"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400", "no Host field"),
        ("GET /a>b HTTP/1.1\r\nhost: a\r\n\r\n".into(), "400", "must be percent-encoded"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into(), "400", "two Host fields"),
        ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n".into(), "400", "names another host"),
        ("GET / HTTP/1.1\nhost: a\n\n".into(), "400", "bare LF"),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".into(), "400", "control character"),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n".into(), "400", "bare CR"),
        ("GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n".into(), "400", "folded"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), "431", "too many or too large"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{big}\r\n"), "431", "too many or too large"),
        (long, "414", "too long"),
        (format!("{GOOD_HEAD}expect: tea\r\n\r\n"), "417", "100-continue"),
        ("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n".into(), "405", "TRACE"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n".into(), "501", "tunnels"),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".into(), "501", "upgrades"),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n".into(), "400", "version"),
    ];
    for (request, wanted, text) in rows {
        let answer = say(&running, request.as_bytes()).await;
        let shown = request.chars().take(80).collect::<String>();
        assert_eq!(status(&answer), wanted, "{shown:?} gave {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
        assert!(answer.contains(text), "{shown:?}: `{text}` is not in {answer}");
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_at_the_first_byte_limit() {
    let running = edge(|config| config.limits.first_byte = Duration::from_millis(50)).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    assert_eq!(read_all(&mut socket).await, "");
}

#[tokio::test]
async fn a_head_that_drips_gets_408() {
    let running = edge(|config| config.limits.head = Duration::from_millis(150)).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nhost: a\r\nx-very-slow-header: and so on and on and on".iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => {}
        read = tokio::time::timeout(support::PATIENCE, reader.read_to_end(&mut answer)) => { let _ = read.unwrap(); }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn a_body_that_stops_gets_408() {
    let running = edge(|config| config.limits.body_progress = Duration::from_millis(100)).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    socket.write_all(format!("{GOOD_HEAD}content-length: 20\r\n\r\n{{").as_bytes()).await.unwrap();
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), "408", "{answer}");
    assert!(answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn bad_chunks_and_trailers_break_the_request() {
    let running = edge(|_| {}).await;
    let head = format!("{GOOD_HEAD}transfer-encoding: chunked\r\n\r\n");
    for body in [
        format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(30_000)),
        "fffffffffffffffff\r\n".to_owned(),
        "2\r\n{}xx\r\n0\r\n\r\n".to_owned(),
        format!("2\r\n{{}}\r\n0\r\n{}\r\n", "t: v\r\n".repeat(2_000)),
    ] {
        let answer = say(&running, format!("{head}{body}").as_bytes()).await;
        assert!(matches!(status(&answer), "400" | "503" | "431"), "{answer}");
    }
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let running = edge(|_| {}).await;
    let mut requests = String::new();
    for number in 0..1_000 {
        requests.push_str(&format!("GET /nowhere HTTP/1.1\r\nhost: a\r\nx-request-id: n{number}\r\n\r\n"));
    }
    requests.push_str("GET /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-request-id: last\r\n\r\n");
    let socket = TcpStream::connect(running.local_addr).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let send = tokio::spawn(async move {
        writer.write_all(requests.as_bytes()).await.unwrap();
        writer
    });
    let mut answer = Vec::new();
    tokio::time::timeout(support::PATIENCE, reader.read_to_end(&mut answer)).await.unwrap().unwrap();
    drop(send);
    let answer = String::from_utf8(answer).unwrap();
    let ids: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("x-request-id: ")).collect();
    assert_eq!(ids.len(), 1_001);
    assert!(ids[..1_000].iter().enumerate().all(|(number, id)| *id == format!("n{number}")));
}

#[tokio::test]
async fn a_half_closed_connection_still_gets_its_answer() {
    let running = edge(|_| {}).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    socket.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    socket.shutdown().await.unwrap();
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), "404", "{answer}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let running = edge(|config| config.limits.idle = Duration::from_millis(80)).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    socket.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answer = read_all(&mut socket).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_body_that_drips_gets_408_although_it_never_pauses() {
    let running = edge(|config| config.limits.body_progress = Duration::from_millis(150)).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let drip = async {
        writer.write_all(format!("{GOOD_HEAD}content-length: 100000\r\n\r\n").as_bytes()).await.unwrap();
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drip => {}
        read = tokio::time::timeout(support::PATIENCE, reader.read_to_end(&mut answer)) => { let _ = read.unwrap(); }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn a_body_has_no_longer_than_the_requests_deadline() {
    let running = edge(|_| {}).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    let request = format!("{GOOD_HEAD}x-timeout-ms: 60\r\ncontent-length: 20\r\n\r\n{{");
    socket.write_all(request.as_bytes()).await.unwrap();
    let answer = read_all(&mut socket).await;
    assert_eq!(status(&answer), "408", "{answer}");
}

/// Reads until the answers hold a text, and no further.
async fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut answer = String::new();
    while !answer.contains(text) {
        let mut block = [0; 4096];
        let read = tokio::time::timeout(support::PATIENCE, socket.read(&mut block)).await;
        match read.expect("the answer comes in time").unwrap() {
            0 => panic!("closed after {answer:?}"),
            read => answer.push_str(&String::from_utf8_lossy(&block[..read])),
        }
    }
    answer
}

#[tokio::test]
async fn heads_in_pieces_behind_one_another_each_have_their_own_time() {
    let running = edge(|config| config.limits.head = Duration::from_millis(400)).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    // Every piece ends one head and begins the next; all together take longer than one head may.
    socket.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\nx-request-id: n0").await.unwrap();
    for number in 1..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let piece = format!("\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: a\r\nx-request-id: n{number}");
        socket.write_all(piece.as_bytes()).await.unwrap();
        let answer = read_until(&mut socket, &format!("x-request-id: n{}", number - 1)).await;
        assert_eq!(status(&answer), "404", "{answer}");
    }
}

#[tokio::test]
async fn a_connection_is_idle_from_the_end_of_its_answer() {
    let running = edge(|config| {
        config.limits.idle = Duration::from_millis(300);
        config.limits.body_progress = Duration::from_secs(5);
    })
    .await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    for _ in 0..3 {
        // The body takes longer than a connection may be idle.
        socket.write_all(format!("{GOOD_HEAD}content-length: 2\r\n\r\n{{").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(350)).await;
        socket.write_all(b"}").await.unwrap();
        let answer = read_until(&mut socket, "no_responders").await;
        assert_eq!(status(&answer), "503", "{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_a_bad_body_is_the_only_one() {
    let running = edge(|_| {}).await;
    let mut socket = TcpStream::connect(running.local_addr).await.unwrap();
    socket.write_all(b"POST /nowhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let mut answer = read_until(&mut socket, "route_not_found").await;
    let _ = socket.write_all(b"2\r\n{}\r\n").await;
    let _ = socket.write_all(b"zz\r\n").await;
    answer.push_str(&read_all(&mut socket).await);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn draining_serves_what_has_come_and_closes_what_is_silent() {
    let running = edge(|_| {}).await;
    let mut silent = TcpStream::connect(running.local_addr).await.unwrap();
    let mut idle = TcpStream::connect(running.local_addr).await.unwrap();
    idle.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    read_until(&mut idle, "route_not_found").await;
    // The request is in the kernel's queue before the listener hears of the end.
    let mut last = TcpStream::connect(running.local_addr).await.unwrap();
    last.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let start = std::time::Instant::now();
    let (cut, answer) = tokio::join!(running.drain(Duration::from_secs(10)), read_all(&mut last));
    assert_eq!(status(&answer), "404", "{answer}");
    assert_eq!((cut, read_all(&mut silent).await.as_str(), read_all(&mut idle).await.as_str()), (0, "", ""));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
