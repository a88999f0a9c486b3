//! Faults of the bus and of workers, made to happen on a real nats-server, and what callers of the edge see of them.

mod support;

use std::time::{Duration, Instant};

use support::calls::{TIMEOUT, answer, ask, listen, message, next, quest, readiness, routes, worker};
use support::nats::NatsServer;
use support::{PATIENCE, eventually, gateway, project, url};
use tidegate::bus::{Bus, BusError, Headers, Limits, NatsOptions, Pattern, Request, Status, StreamError, Subject};

#[tokio::test]
async fn without_a_server_the_edge_is_up_but_not_ready_and_connects_later() {
    let mut server = NatsServer::start();
    server.kill();
    let bus = server.bus_not_waiting().await;
    assert_eq!(*bus.status().borrow(), Status::Connecting);
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    assert_eq!(readiness(&running).await, (503, "the message bus is not connected\n".to_owned()));
    let (status, reason, took) = ask(&running).await;
    assert_eq!((status, reason.as_str()), (503, "bus_down"));
    assert!(took < TIMEOUT, "{took:?}");
    // A worker that starts now waits for the server as well.
    let waiting = server.bus_not_waiting().await;
    let starting = worker(&waiting, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("late"))]);
    let ((), ()) = tokio::join!(starting, async { server.restart() });
    eventually("the edge is ready", async || readiness(&running).await.0 == 200).await;
    assert_eq!(ask(&running).await.1, "late");
}

#[tokio::test]
async fn a_killed_server_fails_waiting_calls_at_once_and_everything_comes_back_with_it() {
    let mut server = NatsServer::start();
    let (bus, workers) = (server.lane_bus().await, server.bus().await);
    let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
    let mut held = listen(&workers, "svc.quest.v1.generate", Limits::WORKER).await;
    let killing = async {
        next(&mut held).await.unwrap().unwrap();
        server.kill();
    };
    let ((status, reason, took), ()) = tokio::join!(ask(&running), killing);
    assert_eq!((status, reason.as_str()), (503, "bus_down"));
    assert!(took < Duration::from_secs(10), "the route's timeout is 30 s, it took {took:?}");
    assert_eq!(bus.figures().pending, 0);
    eventually("not ready", async || readiness(&running).await.0 == 503).await;
    server.restart();
    eventually("ready", async || readiness(&running).await.0 == 200).await;
    // The worker's subscription comes back by itself.
    let workers_again = workers.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = held.next().await {
            let _ = workers_again.publish(answer(&delivery, &quest("again"))).await;
        }
    });
    eventually("calls are answered", async || ask(&running).await.1 == "again").await;
    assert!(bus.figures().reconnects >= 1);
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_call_more_than_its_timeout() {
    let server = NatsServer::start();
    let (bus, workers) = (server.lane_bus().await, server.bus().await);
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("x"))]).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    server.signal("STOP");
    let (status, reason, took) = ask(&running).await;
    assert_eq!((status, reason.as_str()), (504, "upstream_timeout"));
    assert!(took >= TIMEOUT && took < TIMEOUT * 5, "{took:?}");
    let start = Instant::now();
    server.bus_not_waiting().await.close().await;
    assert!(start.elapsed() < PATIENCE, "closing is bounded: {:?}", start.elapsed());
    server.signal("CONT");
    eventually("calls are answered", async || ask(&running).await.0 == 200).await;
    assert_eq!(bus.figures().pending, 0);
}

#[tokio::test]
async fn a_stream_that_loses_the_server_says_so() {
    let mut server = NatsServer::start();
    let bus = server.lane_bus().await;
    let mut feed = listen(&bus, "feed", Limits::STREAM).await;
    let workers = server.bus().await;
    worker(&workers, "svc.ai.llm.v1.infer", |delivery| vec![answer(&delivery, b"\x2a\x02Hi")]).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    let mut events = reqwest::Client::new()
        .post(url(&running, "/ai/llm/infer"))
        .body(r#"{"prompt": "x", "params": {"stream": true}}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(events.status(), 200);
    // A restart that is over before anyone has looked counts, too: what came meanwhile is gone.
    server.restart();
    let mut text = String::new();
    while let Some(bytes) = tokio::time::timeout(PATIENCE, events.chunk()).await.expect("the stream ends").unwrap() {
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert!(text.contains("output_text_delta") && text.contains("\nevent: error\n"), "{text}");
    assert_eq!(next(&mut feed).await.unwrap().unwrap_err(), StreamError::Disconnected);
    assert!(next(&mut feed).await.is_none());
}

#[tokio::test]
async fn a_server_in_lame_duck_mode_is_noticed_and_still_used() {
    let server = NatsServer::start();
    let bus = server.lane_bus().await;
    worker(&bus, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("x"))]).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    server.signal("USR2");
    let mut status = bus.status();
    tokio::time::timeout(PATIENCE, status.wait_for(|status| *status == Status::LameDuck)).await.unwrap().unwrap();
    assert_eq!(ask(&running).await.0, 200);
    assert_eq!(readiness(&running).await.0, 200);
}

#[tokio::test]
async fn a_node_in_lame_duck_mode_is_left_without_a_failed_request() {
    let nodes = NatsServer::cluster::<3>();
    let urls: Vec<&str> = nodes.iter().map(NatsServer::url).collect();
    let bus = Bus::nats(NatsOptions { url: urls.join(","), ..NatsOptions::default() }).await.unwrap();
    eventually("connected", async || *bus.status().borrow() == Status::Connected).await;
    let mut held = Vec::new();
    for node in &nodes {
        held.push(node.connections().await);
    }
    let left = held.iter().position(|count| *count > 0).unwrap();
    let workers = nodes[(left + 1) % 3].bus().await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("x"))]).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    eventually("the nodes know the worker", async || ask(&running).await.0 == 200).await;
    let (client, address) = (reqwest::Client::new(), url(&running, "/quest/generate"));
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    nodes[left].signal("USR2");
    // Some at once, all the while, and a little longer.
    let mut rounds_behind = 0;
    let start = Instant::now();
    while rounds_behind < 20 {
        let calls = (0..8).map(|_| client.post(&address).body("{}").send());
        for answer in futures_util::future::join_all(calls).await {
            *statuses.entry(answer.unwrap().status().as_u16()).or_default() += 1;
        }
        rounds_behind += usize::from(bus.figures().reconnects > 0);
        assert!(start.elapsed() < PATIENCE, "it stays where it is: {statuses:?}");
    }
    assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [200], "{statuses:?}");
    assert_eq!(nodes[left].connections().await, 0);
}

#[tokio::test]
async fn killed_nodes_of_a_cluster_are_left_for_the_last_one() {
    let mut nodes = NatsServer::cluster::<3>();
    let urls: Vec<&str> = nodes.iter().map(NatsServer::url).collect();
    let bus = Bus::nats(NatsOptions { url: urls.join(","), ..NatsOptions::default() }).await.unwrap();
    eventually("connected", async || *bus.status().borrow() == Status::Connected).await;
    let mut held = Vec::new();
    for node in &nodes {
        held.push(node.connections().await);
    }
    let killed = held.iter().position(|count| *count > 0).unwrap();
    let workers = nodes[(killed + 1) % 3].bus().await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("x"))]).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    eventually("the nodes know the worker", async || ask(&running).await.0 == 200).await;
    let start = Instant::now();
    nodes[killed].kill();
    eventually("the loss is noticed", async || bus.figures().reconnects > 0).await;
    eventually("calls are answered", async || ask(&running).await.0 == 200).await;
    assert!(start.elapsed() < Duration::from_secs(2), "fail-over took {:?}", start.elapsed());
    // The worker's node is the next; both find the third.
    nodes[(killed + 1) % 3].kill();
    eventually("the last node has both", async || nodes[(killed + 2) % 3].connections().await == 2).await;
    eventually("calls are answered", async || ask(&running).await.0 == 200).await;
    assert_eq!(readiness(&running).await.0, 200);
    assert_eq!(bus.figures().pending, 0);
}

#[tokio::test]
async fn a_refused_password_is_never_ready_and_the_right_one_is() {
    let server = NatsServer::start_with(&["--user", "edge", "--pass", "secret"]);
    let with = |password: &str| {
        let password = Some(("edge".to_owned(), password.to_owned()));
        Bus::nats(NatsOptions { url: server.url().to_owned(), password, ..NatsOptions::default() })
    };
    let (good, bad) = (with("secret").await.unwrap(), with("guess").await.unwrap());
    eventually("connected", async || *good.status().borrow() == Status::Connected).await;
    let (running, _) = gateway(routes(), &bad, |_| {}).await;
    assert_eq!(ask(&running).await.1, "bus_down");
    assert_eq!(readiness(&running).await.0, 503);
}

#[tokio::test]
async fn workers_that_misbehave_cost_one_call_each() {
    let server = NatsServer::start();
    let (bus, workers) = (server.lane_bus().await, server.bus().await);
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    let mut late = Vec::new();
    let mut call = 0;
    worker(&workers, "svc.quest.v1.generate", move |delivery| {
        call += 1;
        match call {
            1 => {
                late.push(answer(&delivery, &quest("late")));
                vec![]
            }
            2 => [std::mem::take(&mut late), vec![answer(&delivery, &quest("in time"))]].concat(),
            3 => vec![answer(&delivery, &quest("again")); 10_000],
            4 => {
                let mut bad = answer(&delivery, b"");
                assert!(bad.headers.push("Nats-Service-Error-Code", "abc"));
                assert!(bad.headers.push("Nats-Service-Error", "what?"));
                vec![bad]
            }
            5 => vec![answer(&delivery, b"\x12\x7fcut")],
            // An empty message is a message.
            6 => vec![answer(&delivery, b"")],
            _ => vec![answer(&delivery, &quest("good"))],
        }
    })
    .await;
    let expected = [
        (504, "upstream_timeout"),
        (200, "in time"),
        (200, "again"),
        (502, "malformed_reply"),
        (502, "malformed_reply"),
        (200, ""),
        (200, "good"),
    ];
    for (number, expected) in expected.into_iter().enumerate() {
        let (status, word, _) = ask(&running).await;
        assert_eq!((status, word.as_str()), expected, "call {}", number + 1);
    }
    assert_eq!(bus.figures().pending, 0);
    assert!(bus.figures().strays > 0);
}

#[tokio::test]
async fn no_path_of_a_client_reaches_another_subject() {
    let server = NatsServer::start();
    let bus = server.lane_bus().await;
    let mut all = listen(&server.bus().await, ">", Limits::WORKER).await;
    worker(&bus, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("x"))]).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    let long = "x".repeat(5_000);
    let rows = [
        "a.b",
        "*",
        ">",
        "%2A",
        "%3E",
        "%2E",
        "a%2Eb",
        "%00",
        "%20",
        "a%0D%0APUB%20x%200",
        "%F0%9F%8C%8A",
        "%C0%AE",
        "%ff",
        "%2F",
        "..",
        "a%2F..%2Fb",
        "%24SYS",
        &long,
    ];
    let mut answered = 0;
    for row in rows {
        // By hand: an HTTP client would tidy the path.
        let mut socket = tokio::net::TcpStream::connect(running.local_addr).await.unwrap();
        let head = format!(
            "POST /v1/players/{row}/quests:generate HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut text).await.unwrap();
        let status = text.get(9..12).unwrap_or_else(|| panic!("`{row}` got no answer: `{text}`"));
        assert!(["200", "400", "404"].contains(&status), "`{row}`: {text}");
        answered += usize::from(status == "200");
    }
    assert!(answered > 0);
    bus.publish(message("the.end", b"")).await.unwrap();
    let mut asked = 0;
    while let Some(Ok(delivery)) = next(&mut all).await {
        match delivery.subject.as_str() {
            "the.end" => break,
            "svc.quest.v1.generate" => asked += 1,
            inbox => assert!(inbox.starts_with("_INBOX.tidegate.r."), "`{inbox}`"),
        }
    }
    assert_eq!(asked, answered);
}

#[test]
fn subjects_are_clean_text_and_say_why_not() {
    let rows = [
        ("", "`` is no subject: expected 1 to 1,024 bytes"),
        ("a..b", "`a..b` is no subject: it has an empty token"),
        (".a", "`.a` is no subject: it has an empty token"),
        ("a.*", "`a.*` is no subject: `*` and `>` are wildcards"),
        ("a.>", "`a.>` is no subject: `*` and `>` are wildcards"),
        ("a.b*c", "`a.b*c` is no subject: `*` and `>` are wildcards"),
        ("a b", "`a b` is no subject: white space and control characters cannot stand in it"),
        ("a\r\nPUB", "`a\\r\\nPUB` is no subject: white space and control characters cannot stand in it"),
        ("a\u{7f}", "`a\\u{7f}` is no subject: white space and control characters cannot stand in it"),
    ];
    for (text, error) in rows {
        assert_eq!(Subject::new(text).unwrap_err().to_string(), error);
    }
    assert!(Subject::new("x".repeat(1_024)).is_ok() && Subject::new("x".repeat(1_025)).is_err());
    for (text, is_pattern) in [("a.*.>", true), ("*", true), (">", true), ("a.>.b", false), ("a.b*", false)] {
        assert_eq!(Pattern::new(text).is_ok(), is_pattern, "`{text}`");
    }
}

#[tokio::test]
async fn a_dropped_bus_gives_its_connection_back() {
    let server = NatsServer::start();
    let bus = server.bus().await;
    let stream = listen(&bus, "feed", Limits::STREAM).await;
    let request = Request {
        subject: Subject::new("nobody").unwrap(),
        headers: Headers::new(),
        payload: Default::default(),
        timeout: PATIENCE,
        proof: None,
    };
    assert_eq!(bus.request(request).await.unwrap_err(), BusError::NoResponders);
    assert_eq!(server.connections().await, 1);
    drop((stream, bus));
    eventually("no connection is left", async || server.connections().await == 0).await;
}
