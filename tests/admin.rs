//! The admin port of both long-running commands, and NATS over TLS, as operators meet them.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::eventually;
use support::nats::NatsServer;

/// A running program, ended with the test.
struct Program {
    child: Child,
    admin: String,
    listen: String,
}

impl Program {
    /// Starts a command on free ports, and waits for the log line that names the admin address.
    fn start(arguments: &[&str]) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let listen: &[&str] = if arguments[0] == "serve" { &["--listen", "127.0.0.1:0"] } else { &[] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .args(listen)
            .args(["--admin", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = |log: &serde_json::Value, name: &str| {
            let text = log["fields"][name].as_str()?;
            Some(text.trim_start_matches("Some(").trim_end_matches(')').to_owned())
        };
        let (admin, listen) = lines
            .find_map(|line| {
                let log: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                Some((address(&log, "admin")?, address(&log, "listen").unwrap_or_default()))
            })
            .expect("the program says where its admin port is");
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, admin, listen }
    }

    async fn admin(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.admin)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn is_ready(&self) -> bool {
        self.admin("/readyz").await == (200, "ready\n".to_owned())
    }

    fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_worker_says_whether_it_is_ready_and_ends_when_told_also_before_the_bus_is_there() {
    let mut server = NatsServer::start();
    server.kill();
    let worker = Program::start(&["worker", "quest-system", "--nats", server.url()]);
    assert_eq!(worker.admin("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(worker.admin("/readyz").await, (503, "the message bus is not connected\n".to_owned()));
    let (_, metrics) = worker.admin("/metrics").await;
    assert!(metrics.contains("tidegate_bus_connected 0\n"), "{metrics}");
    assert!(metrics.contains(concat!("tidegate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")));
    let mut early = Program::start(&["worker", "--nats", server.url()]);
    early.terminate();
    assert_eq!(early.child.wait().unwrap().code(), Some(0));
    server.restart();
    eventually("the worker is ready", async || worker.is_ready().await).await;
    let (_, metrics) = worker.admin("/metrics").await;
    assert!(metrics.contains("tidegate_bus_connected 1\n"), "{metrics}");
}

#[tokio::test]
async fn requests_over_the_bus_are_counted_by_subject_and_outcome() {
    let server = NatsServer::start();
    let gateway = Program::start(&["serve", "--nats", server.url()]);
    eventually("the gateway is ready", async || gateway.is_ready().await).await;
    let generate = async || {
        let request = reqwest::Client::new().post(format!("http://{}/v1/players/p1/quests:generate", gateway.listen));
        request.body(r#"{"seed": "42"}"#).send().await.unwrap().status().as_u16()
    };
    assert_eq!(generate().await, 503);
    let worker = Program::start(&["worker", "quest-system", "--nats", server.url()]);
    eventually("the worker is ready", async || worker.is_ready().await).await;
    assert_eq!(generate().await, 200);
    let (_, metrics) = gateway.admin("/metrics").await;
    for row in [
        r#"nats_client_requests_total{subject="svc.quest.v1.generate",outcome="no_responders"} 1"#,
        r#"nats_client_requests_total{subject="svc.quest.v1.generate",outcome="ok"} 1"#,
        r#"nats_client_request_timeouts_total{subject="svc.quest.v1.generate"} 0"#,
        r#"nats_client_request_duration_seconds_count{subject="svc.quest.v1.generate"} 1"#,
    ] {
        assert!(metrics.contains(row), "{row} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn connections_that_ask_for_nothing_keep_no_probe_out() {
    let dev = Program::start(&["dev", "--routes", "built-in", "--listen", "127.0.0.1:0"]);
    let client = reqwest::Client::new();
    let ready = async || {
        let answer = client.get(format!("http://{}/readyz", dev.admin)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ready().await.0, 200);
    // More than the port takes at once, for longer than a probe waits.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(tokio::net::TcpStream::connect(&dev.admin).await.unwrap());
    }
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(dev.admin("/readyz").await.0, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// The series of a process: names with their labels, without values.
async fn series(program: &Program) -> BTreeSet<String> {
    let (_, text) = program.admin("/metrics").await;
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn nothing_that_a_client_chooses_makes_a_metric() {
    let server = NatsServer::start();
    let gateway = Program::start(&["serve", "--nats", server.url()]);
    eventually("the gateway is ready", async || gateway.is_ready().await).await;
    let client = reqwest::Client::new();
    let ask = async |number: usize| {
        let verbs = ["GET", "POST", "PUT", "BREW"];
        let paths =
            ["/v1/players/P/quests:generate", "/v1/players/P/state?p=P", "/P/P", "/v1/worlds/P:P", "/healthz/P"];
        let path = paths[number % paths.len()].replace('P', &format!("p{number}"));
        let verb = match number % 7 {
            0 => format!("VERB{number}"),
            kind => verbs[kind % verbs.len()].to_owned(),
        };
        let request = client
            .request(verb.parse().unwrap(), format!("http://{}{path}", gateway.listen))
            .header("host", format!("host{number}"))
            .header("authorization", format!("Bearer token{number}"))
            .header("idempotency-key", format!("key{number}"))
            .header("x-forwarded-for", format!("10.0.{}.{}", number / 256 % 256, number % 256))
            .header("x-client-id", format!("client{number}"))
            .header("traceparent", format!("00-{number:032x}-{number:016x}-01"));
        let status = request.body("{}").send().await.unwrap().status();
        assert!(status.is_client_error() || status == 501 || status == 503, "{verb} {path}: {status}");
    };
    // One of each kind, so that everything that has to be there is.
    for number in 0..140 {
        ask(number).await;
    }
    let before = series(&gateway).await;
    assert!(before.len() > 100, "{before:?}");
    for round in 0..40 {
        futures_util::future::join_all((0..50).map(|number| ask(140 + round * 50 + number))).await;
    }
    let after = series(&gateway).await;
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn nats_over_tls_wants_the_right_authority_and_shows_our_certificate() {
    let file = |name: &str| format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (ca, cert, key) = (file("ca.crt"), file("server.crt"), file("server.key"));
    let server =
        NatsServer::start_with(&["--tls", "--tlsverify", "--tlscert", &cert, "--tlskey", &key, "--tlscacert", &ca]);
    let with = |arguments: &[&str]| {
        let mut all = vec!["serve", "--nats", server.url()];
        all.extend(arguments);
        Program::start(&all)
    };
    let (cert, key) = (file("client.crt"), file("client.key"));
    let trusted = with(&["--nats-ca", &ca, "--nats-cert", &cert, "--nats-key", &key]);
    let stranger = with(&["--nats-cert", &cert, "--nats-key", &key]);
    let nameless = with(&["--nats-ca", &ca]);
    eventually("the gateway is ready", async || trusted.is_ready().await).await;
    for refused in [&stranger, &nameless] {
        assert_eq!(refused.admin("/readyz").await, (503, "the message bus is not connected\n".to_owned()));
    }
}
