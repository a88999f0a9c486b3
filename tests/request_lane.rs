//! The request lane beside the bus' first connection: what callers see when it is cut, refused, or not there.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::nats::NatsServer;
use support::{PATIENCE, eventually, settle};
use tidegate::bus::{Bus, BusError, Headers, Limits, Message, NatsOptions, Pattern, Request, Status, Subject};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

fn request(subject: &str, payload: &'static str) -> Request<'static> {
    Request {
        subject: Subject::new(subject).unwrap(),
        headers: Headers::new(),
        payload: payload.into(),
        timeout: PATIENCE,
        proof: None,
    }
}

/// Answers `svc.echo` with what it gets, and leaves `svc.silent` waiting.
async fn workers(bus: &Bus) {
    let silent = bus.subscribe(&Pattern::new("svc.silent").unwrap(), None, Limits::WORKER).await.unwrap();
    let mut echo = bus.subscribe(&Pattern::new("svc.echo").unwrap(), None, Limits::WORKER).await.unwrap();
    settle(bus).await;
    let bus = bus.clone();
    tokio::spawn(async move {
        let _silent = silent;
        while let Some(Ok(delivery)) = echo.next().await {
            let message = Message {
                subject: delivery.reply.unwrap(),
                reply: None,
                headers: delivery.headers,
                payload: delivery.payload,
            };
            let _ = bus.publish(message).await;
        }
    });
}

/// Stands between a bus and its server, and can cut the lane alone.
struct Between {
    url: String,
    lane: Arc<Mutex<Option<AbortHandle>>>,
}

impl Between {
    async fn start(server: &NatsServer) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let target = server.url().trim_start_matches("nats://").to_owned();
        let lane = Arc::new(Mutex::new(None));
        let cut = lane.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, lane) = (target.clone(), lane.clone());
                let (told, is_told) = tokio::sync::oneshot::channel();
                let carrying = tokio::spawn(carry(client, target, told));
                tokio::spawn(async move {
                    if is_told.await == Ok(true) {
                        *lane.lock().unwrap() = Some(carrying.abort_handle());
                    }
                });
            }
        });
        Between { url, lane: cut }
    }

    fn cut_lane(&self) {
        self.lane.lock().unwrap().take().expect("the lane came this way").abort();
    }
}

/// Carries bytes both ways; tells whether the client's first line is a lane's.
async fn carry(client: TcpStream, target: String, told: tokio::sync::oneshot::Sender<bool>) {
    let mut server = TcpStream::connect(target).await.unwrap();
    let (mut client, mut info, mut connect) = (BufReader::new(client), String::new(), String::new());
    let mut reader = BufReader::new(&mut server);
    reader.read_line(&mut info).await.unwrap();
    client.write_all(info.as_bytes()).await.unwrap();
    client.read_line(&mut connect).await.unwrap();
    server.write_all(connect.as_bytes()).await.unwrap();
    let _ = told.send(connect.contains("requests"));
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_cut_lane_fails_what_waits_on_it_and_the_next_calls_go_another_way_until_it_is_back() {
    let server = NatsServer::start();
    workers(&server.bus().await).await;
    let between = Between::start(&server).await;
    let bus = server.lane_bus_through(&between.url).await;
    let on_lane = bus.figures().on_lane;
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.request(request("svc.silent", "")).await }
    });
    eventually("the call is on its way", async || bus.figures().on_lane > on_lane).await;
    between.cut_lane();
    let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("long before its timeout").unwrap();
    assert_eq!(ended.unwrap_err(), BusError::Disconnected);
    // The bus itself was never away.
    assert_eq!((*bus.status().borrow(), bus.figures().reconnects), (Status::Connected, 0));
    let before = bus.figures().on_lane;
    eventually("the lane is back", async || {
        assert_eq!(bus.request(request("svc.echo", "still here")).await.unwrap().payload, "still here");
        bus.figures().on_lane > before
    })
    .await;
    assert_eq!(bus.figures().pending, 0);
}

#[tokio::test]
async fn a_server_that_comes_back_gets_its_lane_back() {
    let mut server = NatsServer::start();
    let bus = server.lane_bus().await;
    server.restart();
    workers(&server.bus().await).await;
    let before = bus.figures().on_lane;
    eventually("requests go over the lane", async || {
        let _ = bus.request(request("svc.echo", "")).await;
        bus.figures().on_lane > before
    })
    .await;
    assert_eq!(bus.request(request("svc.echo", "again")).await.unwrap().payload, "again");
}

#[tokio::test]
async fn both_connections_prove_who_they_are_with_the_same_credentials() {
    let user = nkeys::KeyPair::new_user();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\nhead.body.sign\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let options = NatsOptions { url, credentials: Some(file), request_lane: true, ..NatsOptions::default() };
    let (bus, introductions) = tokio::join!(Bus::nats(options), introductions_of_two(listener));
    let _bus = bus.unwrap();
    for (nonce, introduction) in introductions {
        assert_eq!(introduction["jwt"], "head.body.sign");
        let signature = URL_SAFE_NO_PAD.decode(introduction["sig"].as_str().unwrap()).unwrap();
        user.verify(nonce.as_bytes(), &signature).unwrap();
    }
}

/// Plays a server for two connections: the nonce that each got, and what its CONNECT says.
async fn introductions_of_two(listener: TcpListener) -> Vec<(String, serde_json::Value)> {
    let mut found = Vec::new();
    for number in 0..2 {
        let (mut socket, _) = listener.accept().await.unwrap();
        let nonce = format!("nonce-{number}");
        let info = serde_json::json!({ "nonce": nonce, "headers": true, "max_payload": 1024 });
        socket.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut lines = BufReader::new(socket);
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        let json = line.strip_prefix("CONNECT ").expect("CONNECT comes first");
        found.push((nonce, serde_json::from_str(json).unwrap()));
        lines.write_all(b"PONG\r\n").await.unwrap();
        // The connection stays open while the other one is made.
        tokio::spawn(async move { while lines.read_line(&mut String::new()).await.is_ok_and(|read| read > 0) {} });
    }
    found
}

#[tokio::test]
async fn a_server_that_turns_the_lane_away_still_serves_requests() {
    let server = NatsServer::start();
    workers(&server.bus().await).await;
    let url = one_connection_only(&server).await;
    let bus = Bus::nats(NatsOptions { url, request_lane: true, ..NatsOptions::default() }).await.unwrap();
    eventually("connected", async || *bus.status().borrow() == Status::Connected).await;
    for _ in 0..10 {
        assert_eq!(bus.request(request("svc.echo", "hello")).await.unwrap().payload, "hello");
    }
    assert_eq!(bus.figures().on_lane, 0);
}

/// A way to a server that takes one connection, and refuses others as a server at its limit does.
async fn one_connection_only(server: &NatsServer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let target = server.url().trim_start_matches("nats://").to_owned();
    tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        let (told, _) = tokio::sync::oneshot::channel();
        tokio::spawn(carry(first, target, told));
        while let Ok((mut other, _)) = listener.accept().await {
            let _ = other.write_all(b"INFO {\"headers\":true}\r\n-ERR 'maximum connections exceeded'\r\n").await;
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_is_about_to_stop_loses_its_lane_without_a_failed_request() {
    let server = NatsServer::start();
    workers(&server.bus().await).await;
    let bus = server.lane_bus().await;
    server.signal("USR2");
    eventually("requests go another way", async || {
        let before = bus.figures().on_lane;
        assert_eq!(bus.request(request("svc.echo", "still here")).await.unwrap().payload, "still here");
        bus.figures().on_lane == before
    })
    .await;
    assert_eq!(bus.figures().pending, 0);
}
