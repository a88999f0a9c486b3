//! Networks, rights and load that go wrong between the edge and a real nats-server, and what callers see of it.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use support::calls::{TIMEOUT, answer, ask, listen, quest, readiness, routes, worker};
use support::nats::NatsServer;
use support::proxy::{Proxy, Trouble, Way};
use support::{PATIENCE, eventually, gateway, project, url, watch};
use tidegate::bus::{Bus, Limits, NatsOptions, Status};
use tidegate::gateway::{Gateway, GatewayConfig, Running};
use tidegate::services::{Settings, roster};
use tidegate::snapshot::Live;
use tidegate::store::Store;
use tidegate::worker::{Options, Worker};

async fn through(proxy: &Proxy) -> Bus {
    let bus = Bus::nats(NatsOptions { url: proxy.url(), ..NatsOptions::default() }).await.unwrap();
    eventually("connected", async || *bus.status().borrow() == Status::Connected).await;
    bus
}

#[tokio::test]
async fn trouble_on_the_way_to_the_server_costs_no_call_more_than_its_timeout_and_passes() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("here"))]).await;
    let held = Way { is_held: true, ..Way::default() };
    // 64 kbit/s, and a byte at a time.
    let slow = Way { pieces: Some((64, Duration::from_millis(8))), ..Way::default() };
    let sliced = Way { pieces: Some((1, Duration::ZERO)), ..Way::default() };
    let spoilt = Way { is_spoilt: true, ..Way::default() };
    let none = Way::default();
    let rows: [(&str, Trouble, &[u16]); 8] = [
        ("a partition", Trouble { up: held, down: held, ..Trouble::default() }, &[504]),
        ("nothing reaches the server", Trouble { up: held, down: none, ..Trouble::default() }, &[504]),
        ("nothing comes back", Trouble { up: none, down: held, ..Trouble::default() }, &[504]),
        ("connections are refused", Trouble { is_cut: true, ..Trouble::default() }, &[503]),
        ("a slow line", Trouble { up: slow, down: slow, ..Trouble::default() }, &[200]),
        ("bytes one by one", Trouble { up: sliced, down: sliced, ..Trouble::default() }, &[200]),
        ("spoilt answers", Trouble { down: spoilt, ..Trouble::default() }, &[503, 504]),
        ("spoilt requests", Trouble { up: spoilt, ..Trouble::default() }, &[503, 504]),
    ];
    for (name, trouble, expected) in rows {
        let proxy = Proxy::start(server.url()).await;
        let bus = through(&proxy).await;
        let (running, _) = gateway(routes(), &bus, |_| {}).await;
        assert_eq!(ask(&running).await.0, 200, "{name}: before it");
        proxy.set(trouble);
        let (status, word, took) = ask(&running).await;
        assert!(expected.contains(&status), "{name}: {status} {word}");
        assert!(took < TIMEOUT + Duration::from_millis(900), "{name}: {took:?}");
        proxy.set(Trouble::default());
        eventually("calls are answered again", async || ask(&running).await.0 == 200).await;
        assert_eq!(bus.figures().pending, 0, "{name}");
    }
}

#[tokio::test]
async fn a_line_that_loses_three_packets_of_ten_costs_time_and_no_call_more_than_its_timeout() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("here"))]).await;
    let proxy = Proxy::start(server.url()).await;
    let bus = through(&proxy).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    let lossy = Way { lost: 0.3, ..Way::default() };
    proxy.set(Trouble { up: lossy, down: lossy, ..Trouble::default() });
    // A packet is late by more than the second that a call has once in a hundred times, and then what is behind it, too.
    let (mut served, mut late, begun) = (0, 0, Instant::now());
    while served < 30 {
        assert!(begun.elapsed() < 4 * PATIENCE, "{served} served, {late} too late");
        for (status, word, took) in futures_util::future::join_all((0..5).map(|_| ask(&running))).await {
            match (status, word.as_str()) {
                (200, "here") => served += 1,
                (504, "upstream_timeout") => late += 1,
                other => panic!("{other:?}"),
            }
            assert!(took < TIMEOUT + Duration::from_millis(900), "{took:?}");
        }
    }
    assert_eq!(bus.figures().reconnects, 0);
    proxy.set(Trouble::default());
    eventually("calls are answered at once again", async || {
        let (status, _, took) = ask(&running).await;
        status == 200 && took < Duration::from_millis(200)
    })
    .await;
    assert_eq!(bus.figures().pending, 0);
}

#[tokio::test]
async fn a_stream_over_a_line_that_loses_three_packets_of_ten_comes_whole_and_in_order() {
    let server = NatsServer::start();
    let (proxy, workers) = (Proxy::start(server.url()).await, server.bus().await);
    let mut requests = listen(&workers, watch::SUBJECT, Limits::WORKER).await;
    let held = workers.clone();
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            for index in 0..100 {
                watch::send(&held, &request, watch::item(index, index + 1, index == 99)).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let bus = through(&proxy).await;
    let (running, _) = gateway(support::snapshot(watch::ROUTES, watch::PROTO), &bus, |_| {}).await;
    let lossy = Way { lost: 0.3, ..Way::default() };
    proxy.set(Trouble { up: lossy, down: lossy, ..Trouble::default() });
    let answer = watch_from(&reqwest::Client::new(), &running, None).await;
    assert_eq!(answer.status(), 200);
    let (ids, text) = events(answer).await;
    assert_eq!(ids, (1..=100).collect::<Vec<_>>());
    assert!(!text.contains("event: "), "{text}");
}

#[tokio::test]
async fn a_keyed_write_that_the_store_did_not_answer_can_be_made_again_as_soon_as_it_does() {
    let server = NatsServer::start();
    let proxy = Proxy::start(server.url()).await;
    let store = Store::of(&through(&proxy).await);
    // Calls reach the worker all the while: only its store is cut off.
    let bus = Bus::embedded();
    let live = Live::new(project().build(None).unwrap());
    let options = Options { store: store.clone(), ..Options::new(bus.clone(), live.pin()) };
    let settings = Settings::default().into();
    let services = roster(&store, &settings, |name| name == "state-manager").await.unwrap();
    let _worker = Worker::start(options, services).await.unwrap();
    let running = Gateway::start(GatewayConfig::new(([127, 0, 0, 1], 0).into()), live, bus, None).await.unwrap();
    let client = reqwest::Client::new();
    let write = async |key: &str| {
        let request = client.put(url(&running, "/v1/players/p1/state")).header("idempotency-key", key);
        let answer = request.body(r#"{"state": {"n": 1}}"#).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str::<serde_json::Value>(&answer.text().await.unwrap()).unwrap())
    };
    assert_eq!(write("before").await.0, 200);
    let held = Way { is_held: true, ..Way::default() };
    let none = Way::default();
    // Whatever of the three writes of a call was made, its repeat makes it whole, and makes nothing twice.
    for (version, (up, down)) in [(held, none), (none, held), (held, held)].into_iter().enumerate() {
        let key = format!("key-{version}");
        proxy.set(Trouble { up, down, ..Trouble::default() });
        let (status, body) = write(&key).await;
        assert_eq!((status, body["error"]["code"].as_str()), (503, Some("UNAVAILABLE")), "{body}");
        proxy.set(Trouble::default());
        let answered = Instant::now();
        eventually("the repeat is made", async || {
            let (status, body) = write(&key).await;
            assert!(status == 200 || [&body["error"]["code"]] == ["ABORTED"] || status == 503, "{status} {body}");
            status == 200
        })
        .await;
        // A claim lasts a minute where nobody takes it back.
        assert!(answered.elapsed() < Duration::from_secs(15), "{:?}", answered.elapsed());
        let (_, body) = write(&key).await;
        assert_eq!(body["new_version"], (version + 2).to_string(), "{body}");
    }
}

#[tokio::test]
async fn a_storm_of_resets_fails_calls_at_once_and_leaves_nothing() {
    let server = NatsServer::start();
    let workers = server.bus().await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("here"))]).await;
    let proxy = Proxy::start(server.url()).await;
    let bus = through(&proxy).await;
    let (running, _) = gateway(routes(), &bus, |_| {}).await;
    for storm in 1..=10 {
        proxy.reset();
        let (status, word, took) = ask(&running).await;
        assert!(matches!((status, word.as_str()), (200, "here") | (503, "bus_down")), "{status} {word}");
        assert!(took < TIMEOUT, "{took:?}");
        eventually("connected again", async || bus.figures().reconnects >= storm).await;
    }
    eventually("calls are answered", async || ask(&running).await.0 == 200).await;
    assert_eq!(bus.figures().pending, 0);
}

/// Reads events until the stream ends; their ids, and the whole text.
async fn events(answer: reqwest::Response) -> (Vec<u64>, String) {
    let text = tokio::time::timeout(PATIENCE, answer.text()).await.expect("the stream ends").unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect();
    (ids, text)
}

async fn watch_from(client: &reqwest::Client, running: &Running, last: Option<u64>) -> reqwest::Response {
    let request = client.get(url(running, "/watch/tides"));
    let request = match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_stream_over_a_restart_of_the_server_goes_on_where_it_was() {
    let mut server = NatsServer::start();
    let (bus, workers) = (server.bus().await, server.bus().await);
    let mut requests = listen(&workers, watch::SUBJECT, Limits::WORKER).await;
    let held = workers.clone();
    tokio::spawn(async move {
        // Three revisions for who comes first; the rest, to the end, for who comes back.
        while let Some(Ok(request)) = requests.next().await {
            let after = watch::after(&request);
            let last = if after == 0 { 3 } else { 6 };
            for revision in after + 1..=last {
                watch::send(&held, &request, watch::item(revision - after - 1, revision, revision == 6)).await;
            }
        }
    });
    let (running, _) = gateway(support::snapshot(watch::ROUTES, watch::PROTO), &bus, |_| {}).await;
    let client = reqwest::Client::new();
    let mut first = watch_from(&client, &running, None).await;
    let mut text = String::new();
    while !text.contains("id: 3\n") {
        text.push_str(std::str::from_utf8(&first.chunk().await.unwrap().unwrap()).unwrap());
    }
    server.restart();
    let (ids, end) = events(first).await;
    assert!(ids.is_empty() && end.contains("event: error\n") && end.contains("\"bus_down\""), "{end}");
    eventually("the next one is served", async || {
        let next = watch_from(&client, &running, Some(3)).await;
        next.status() == 200 && events(next).await.0 == [4, 5, 6]
    })
    .await;
}

#[tokio::test]
async fn hundreds_of_streams_that_come_back_at_once_are_all_served_and_told_to_spread() {
    const COUNT: usize = 300;
    let mut server = NatsServer::start();
    let (bus, workers) = (server.bus().await, server.bus().await);
    let mut requests = listen(&workers, watch::SUBJECT, Limits::WORKER).await;
    let held = workers.clone();
    tokio::spawn(async move {
        while let Some(Ok(request)) = requests.next().await {
            watch::send(&held, &request, watch::item(0, 1, false)).await;
        }
    });
    let (running, _) = gateway(support::snapshot(watch::ROUTES, watch::PROTO), &bus, |_| {}).await;
    let client = reqwest::Client::new();
    let all = || futures_util::future::join_all((0..COUNT).map(|_| watch_from(&client, &running, None)));
    let open = all().await;
    assert!(open.iter().all(|answer| answer.status() == 200));
    server.restart();
    let mut pauses = HashSet::new();
    for answer in open {
        let (_, text) = events(answer).await;
        assert!(text.contains("event: error\n"), "{text}");
        let pause: u32 = text.lines().next().unwrap().strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1_000..=5_000).contains(&pause), "{pause}");
        pauses.insert(pause);
    }
    assert!(pauses.len() > COUNT / 2, "only {} different pauses", pauses.len());
    // The worst client waits for nothing at all.
    eventually("all are served again", async || all().await.iter().all(|answer| answer.status() == 200)).await;
    eventually("their requests are gone", async || bus.figures().pending == 0).await;
}

#[tokio::test]
async fn twice_the_capacity_leaves_what_is_served_as_it_was() {
    const SLOTS: usize = 8;
    let server = NatsServer::start();
    let (bus, workers) = (server.bus().await, server.bus().await);
    let mut requests = listen(&workers, "svc.quest.v1.generate", Limits::WORKER).await;
    let working = workers.clone();
    tokio::spawn(async move {
        // As many calls at once as there are slots, 50 ms each: 160 a second.
        while let Some(Ok(delivery)) = requests.next().await {
            let bus = working.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = bus.publish(answer(&delivery, &quest("done"))).await;
            });
        }
    });
    let mut material = project();
    material.routes = material.routes.replace("timeout: 30s", &format!("timeout: 2s\n  calls: {SLOTS}"));
    let (running, _) = gateway(material.build(None).unwrap(), &bus, |_| {}).await;
    let alone = load(&running, SLOTS).await;
    let crowded = load(&running, SLOTS * 2).await;
    assert_eq!((alone.refused, alone.other), (0, 0));
    assert_eq!(crowded.other, 0, "only 200, and 429 with Retry-After");
    assert!(crowded.refused > 0);
    let ratio = crowded.served as f64 / alone.served as f64;
    assert!(ratio > 0.6, "{} served alone, {} in the crowd", alone.served, crowded.served);
    assert!(crowded.slowest < Duration::from_millis(1_000), "the slowest took {:?}", crowded.slowest);
    assert_eq!(bus.figures().pending, 0);
}

struct Load {
    served: usize,
    refused: usize,
    other: usize,
    slowest: Duration,
}

/// That many clients ask without a pause for a while; who is refused comes again a little later.
async fn load(running: &Running, clients: usize) -> Load {
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let client = reqwest::Client::new();
    let end = Instant::now() + Duration::from_millis(800);
    let clients = (0..clients).map(|_| {
        let (counts, client, address) = (counts.clone(), client.clone(), url(running, "/quest/generate"));
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while Instant::now() < end {
                let start = Instant::now();
                let answer = client.post(&address).body("{}").send().await.unwrap();
                let kind = match answer.status().as_u16() {
                    200 => 0,
                    429 if answer.headers().contains_key("retry-after") => 1,
                    _ => 2,
                };
                answer.bytes().await.unwrap();
                counts[kind].fetch_add(1, Ordering::Relaxed);
                if kind == 0 {
                    slowest = slowest.max(start.elapsed());
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            slowest
        })
    });
    let slowest = futures_util::future::join_all(clients).await.into_iter().map(Result::unwrap).max().unwrap();
    let [served, refused, other] = [0, 1, 2].map(|kind| counts[kind].load(Ordering::Relaxed));
    Load { served, refused, other, slowest }
}

#[tokio::test]
async fn a_user_without_rights_is_not_ready_or_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    let rights = r#"authorization { users: [
        { user: all, password: x },
        { user: deaf, password: x, permissions: { publish: ">", subscribe: { deny: "_INBOX.>" } } },
        { user: narrow, password: x, permissions: { publish: "svc.ai.>", subscribe: "_INBOX.tidegate.>" } },
    ] }"#;
    std::fs::write(&file, rights).unwrap();
    let server = NatsServer::start_with(&["-c", file.to_str().unwrap()]);
    let with = async |user: &str| {
        let password = Some((user.to_owned(), "x".to_owned()));
        Bus::nats(NatsOptions { url: server.url().to_owned(), password, ..NatsOptions::default() }).await.unwrap()
    };
    let workers = with("all").await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("here"))]).await;

    let deaf = with("deaf").await;
    let (running, _) = gateway(routes(), &deaf, |_| {}).await;
    let words = "the message bus gives this user no right to its inbox\n";
    eventually("not ready, and why", async || readiness(&running).await == (503, words.to_owned())).await;
    let (status, word, took) = ask(&running).await;
    assert_eq!((status, word.as_str()), (503, "UNAVAILABLE"));
    assert!(took < TIMEOUT, "{took:?}");

    let narrow = with("narrow").await;
    let (running, _) = gateway(routes(), &narrow, |_| {}).await;
    eventually("ready", async || readiness(&running).await.0 == 200).await;
    assert_eq!(ask(&running).await.0, 504, "the first call finds it out");
    let (status, word, took) = ask(&running).await;
    assert_eq!((status, word.as_str()), (503, "UNAVAILABLE"));
    assert!(took < TIMEOUT, "{took:?}");
}

/// A token as nats-server wants it: `header.claims.signature`, signed by the issuer.
#[allow(clippy::needless_pass_by_value, reason = "calls write the claims where they stand")]
fn token(issuer: &nkeys::KeyPair, subject: &str, kind: &str, expires: Option<u64>, rest: serde_json::Value) -> String {
    let mut claims = serde_json::json!({"jti": "test", "iat": 1, "iss": issuer.public_key(), "sub": subject});
    claims["nats"] = rest;
    claims["nats"]["type"] = kind.into();
    claims["nats"]["version"] = 2.into();
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = serde_json::json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn credentials_that_expire_are_read_again_from_their_file() {
    let (operator, account) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account());
    let operator_token = token(&operator, &operator.public_key(), "operator", None, serde_json::json!({}));
    let unlimited = serde_json::json!({"limits": {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
        "wildcards": true, "conn": -1, "leaf": -1}});
    let account_token = token(&operator, &account.public_key(), "account", None, unlimited);
    let credentials = |expires: Option<u64>| {
        let user = nkeys::KeyPair::new_user();
        let rest = serde_json::json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1});
        let jwt = token(&account, &user.public_key(), "user", expires, rest);
        let seed = user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let configuration = format!(
        "operator: {operator_token}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_token} }}\n",
        account.public_key()
    );
    std::fs::write(path("nats.conf"), configuration).unwrap();
    let server = NatsServer::start_with(&["-c", path("nats.conf").to_str().unwrap()]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    std::fs::write(path("edge.creds"), credentials(Some(now + 2))).unwrap();
    std::fs::write(path("worker.creds"), credentials(None)).unwrap();
    let with = async |name: &str| {
        let (url, credentials) = (server.url().to_owned(), Some(path(name)));
        Bus::nats(NatsOptions { url, credentials, ..NatsOptions::default() }).await.unwrap()
    };
    let (edge, workers) = (with("edge.creds").await, with("worker.creds").await);
    eventually("the worker is there", async || *workers.status().borrow() == Status::Connected).await;
    worker(&workers, "svc.quest.v1.generate", |delivery| vec![answer(&delivery, &quest("here"))]).await;
    let (running, _) = gateway(routes(), &edge, |_| {}).await;
    eventually("calls are answered", async || ask(&running).await.0 == 200).await;
    eventually("the credentials have expired", async || readiness(&running).await.0 == 503).await;
    assert_eq!(ask(&running).await.1, "bus_down");
    // Half a file first, as a writer without a rename leaves it for a moment.
    let fresh = credentials(None);
    std::fs::write(path("edge.creds"), &fresh[..fresh.len() / 2]).unwrap();
    std::fs::write(path("edge.creds"), &fresh).unwrap();
    eventually("calls are answered again", async || ask(&running).await.0 == 200).await;
    assert_eq!(readiness(&running).await.0, 200);
}
