//! What the gateway does where a service fails: a breaker for each subject, and repeats of what is safe to repeat.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{calls, eventually, gateway, snapshot, url};
use tidegate::bus::{Bus, BusError};
use tidegate::fault::{Code, Fault, Reason};
use tidegate::gateway::Running;
use tidegate::limits::{Breaker, BreakerRule};
use tidegate::telemetry;

const PROTO: &str = r#"
syntax = "proto3";
package t.v1;
message Asked { string text = 1; }
message Said { string text = 1; }
message Item { uint64 index = 1; bool is_final = 2; }
service Speaker {
  rpc Ask(Asked) returns (Said);
  rpc Tell(Asked) returns (stream Item);
}
"#;
const ROUTES: &str = r#"
version: 1
styles:
  told:
    chunk: { index: index, last: is_final }
defaults:
  style: told
  timeout: 150ms
  retries: 2
  breaker: { failures: 3, open: 400ms }
routes:
  - { route: POST /ask, call: t.v1.Speaker/Ask, body: "*" }
  - { route: "GET /ask/{text}", call: t.v1.Speaker/Ask }
  - { route: POST /tell, call: t.v1.Speaker/Tell, body: "*" }
"#;
const ASK: &str = "t.v1.Speaker.Ask";
const OPEN: Duration = Duration::from_millis(400);

struct Edge {
    bus: Bus,
    running: Running,
}

impl Edge {
    async fn start() -> Edge {
        let bus = Bus::embedded();
        let (running, _) = gateway(snapshot(ROUTES, PROTO), &bus, |_| {}).await;
        Edge { bus, running }
    }

    /// Status, reason and `Retry-After` of an answer.
    async fn post(&self, path: &str, timeout_ms: Option<u32>) -> (u16, String, String) {
        let mut request = reqwest::Client::new().post(url(&self.running, path)).body("{}");
        if let Some(timeout_ms) = timeout_ms {
            request = request.header("x-timeout-ms", timeout_ms);
        }
        let answer = request.send().await.unwrap();
        let after = answer.headers().get("retry-after").map_or("", |value| value.to_str().unwrap()).to_owned();
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        (status, body["reason"].as_str().unwrap_or_default().to_owned(), after)
    }

    async fn ask(&self) -> (u16, String) {
        let (status, reason, _) = self.post("/ask", None).await;
        (status, reason)
    }

    /// Plays the service: `answers` gets how many requests came before.
    async fn play(&self, answers: impl Fn(usize) -> Option<&'static str> + Send + 'static) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        calls::worker(&self.bus, ASK, move |delivery| {
            let answer = answers(count.fetch_add(1, Ordering::Relaxed));
            let said = |code| {
                let mut message = calls::answer(&delivery, b"");
                if code != "OK" {
                    message.headers.push("Nats-Service-Error-Code", code);
                    message.headers.push("Nats-Service-Error", "no");
                }
                message
            };
            answer.map(said).into_iter().collect()
        })
        .await;
        asked
    }
}

fn timeout() -> (u16, String) {
    (504, "upstream_timeout".to_owned())
}

fn paused() -> (u16, String) {
    (503, "breaker_open".to_owned())
}

#[test]
fn a_breaker_hears_only_of_a_service_that_is_silent_or_answers() {
    #[derive(Debug, PartialEq)]
    enum Verdict {
        Fails,
        Works,
        Nothing,
    }
    use Verdict::{Fails, Nothing, Works};
    let answered = |code, reason| Some(Fault::upstream(code, "no").reason(reason));
    let (rule, open) = (BreakerRule { failures: 2, probes: 1, ..BreakerRule::default() }, Duration::from_secs(30));
    let verdict = |fault: Option<&Fault>, had_time| {
        let breaker = Breaker::new(rule);
        for _ in 0..2 {
            breaker.admit(Duration::ZERO).unwrap().failed(Duration::ZERO);
        }
        // A probe tells all three apart: it closes the breaker, opens it anew, or makes room for the next one.
        breaker.admit(open).unwrap().ended(fault, had_time, open);
        match (breaker.is_open(), breaker.admit(open).is_ok()) {
            (false, _) => Works,
            (true, false) => Fails,
            (true, true) => Nothing,
        }
    };
    for (fault, had_time, expected) in [
        (None, true, Works),
        (None, false, Works),
        (answered(Code::Internal, Reason::None), true, Works),
        (answered(Code::Unavailable, Reason::None), true, Works),
        (answered(Code::NotFound, Reason::None), false, Works),
        (answered(Code::Internal, Reason::MalformedReply), true, Works),
        (answered(Code::Internal, Reason::BrokenStream), true, Works),
        (Some(BusError::Timeout.into()), true, Fails),
        (Some(BusError::Timeout.into()), false, Nothing),
        (Some(BusError::Unproven(2).into()), true, Fails),
        (Some(BusError::Unproven(2).into()), false, Nothing),
        (Some(BusError::NoResponders.into()), true, Nothing),
        (Some(BusError::Disconnected.into()), true, Nothing),
        (Some(BusError::Closed.into()), true, Nothing),
        (Some(BusError::TooLarge { size: 2, max: 1 }.into()), true, Nothing),
        (Some(BusError::Busy.into()), true, Nothing),
        (Some(BusError::Other("no right to publish".to_owned()).into()), true, Nothing),
        (Some(Fault::client(Code::Cancelled, "gone")), true, Nothing),
    ] {
        assert_eq!(verdict(fault.as_ref(), had_time), expected, "{fault:?}, had time: {had_time}");
    }
}

#[tokio::test]
async fn a_silent_service_is_left_alone_and_tried_again_one_request_at_a_time() {
    let edge = Edge::start().await;
    let asked = edge.play(|count| (count >= 4).then_some("OK")).await;
    for _ in 0..3 {
        assert_eq!(edge.ask().await, timeout());
    }
    let start = Instant::now();
    let (status, reason, after) = edge.post("/ask", None).await;
    assert_eq!((status, reason.as_str(), after.as_str()), (503, "breaker_open", "1"));
    // The subject has one breaker, whatever route leads to it.
    let other = reqwest::get(url(&edge.running, "/ask/x")).await.unwrap();
    assert_eq!(other.status(), 503);
    assert!(start.elapsed() < OPEN, "{:?}", start.elapsed());
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    // The first probe finds nobody yet, and meanwhile nobody else is let through.
    tokio::time::sleep_until((start + OPEN).into()).await;
    let (probe, other) = tokio::join!(edge.ask(), edge.ask());
    let mut both = [probe, other];
    both.sort();
    assert_eq!(both, [paused(), timeout()]);
    assert_eq!(edge.ask().await, paused());
    // Then two that are answered close it.
    eventually("the service is tried", async || edge.ask().await.0 == 200).await;
    assert_eq!(edge.ask().await.0, 200);
    let all = futures_util::future::join_all((0..8).map(|_| edge.ask())).await;
    assert!(all.iter().all(|answer| answer.0 == 200), "{all:?}");
}

#[tokio::test]
async fn answers_of_any_kind_and_clients_in_a_hurry_open_nothing() {
    let edge = Edge::start().await;
    edge.play(|count| match count % 3 {
        0 => Some("13"),
        1 => Some("5"),
        _ => None,
    })
    .await;
    for _ in 0..5 {
        assert_eq!(edge.ask().await.0, 500);
        assert_eq!(edge.ask().await.0, 404);
        // Less time than the route gives: what comes of it says nothing about the service.
        assert_eq!(edge.post("/ask", Some(20)).await.0, 504);
    }
    let silent = Edge::start().await;
    silent.play(|_| None).await;
    for _ in 0..5 {
        assert_eq!(silent.post("/ask", Some(20)).await.1, "upstream_timeout");
    }
    assert_eq!(silent.ask().await, timeout());
}

#[tokio::test]
async fn streams_that_do_not_begin_open_the_breaker_too() {
    let edge = Edge::start().await;
    calls::worker(&edge.bus, "t.v1.Speaker.Tell", |_| Vec::new()).await;
    for _ in 0..3 {
        assert_eq!(edge.post("/tell", None).await.1, "upstream_timeout");
    }
    assert_eq!(edge.post("/tell", None).await.1, "breaker_open");
}

#[tokio::test]
async fn nobody_there_is_asked_for_again_and_opens_nothing() {
    let handle = telemetry::install_metrics().expect("nobody else counts");
    let edge = Edge::start().await;
    for _ in 0..4 {
        assert_eq!(edge.ask().await, (503, "no_responders".to_owned()));
    }
    let figures = handle.render();
    for row in [
        r#"nats_client_requests_total{subject="t.v1.Speaker.Ask",outcome="no_responders"} 12"#,
        r#"tidegate_bus_repeats_total{subject="t.v1.Speaker.Ask"} 8"#,
        r#"tidegate_breaker_open{subject="t.v1.Speaker.Ask"} 0"#,
    ] {
        assert!(figures.contains(row), "{row} is not in\n{figures}");
    }
}

#[test]
fn what_a_row_cannot_mean_is_said() {
    let build = |old: &str, new: &str| {
        assert!(ROUTES.contains(old));
        let problems = support::material(&ROUTES.replace(old, new), PROTO).build(None).unwrap_err();
        problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect::<Vec<_>>().join("\n")
    };
    for (old, new, text) in [
        ("retries: 2", "retries: 9", "routes.yaml:9:12: expected 0 to 2 repeats, found 9"),
        ("failures: 3", "failures: 0", "routes.yaml:10:12: `failures`: expected a number above 0"),
        ("open: 400ms", "open: soon", "routes.yaml:10:12: `open`: expected a duration such as `30s`, found `soon`"),
    ] {
        assert!(build(old, new).contains(text), "{}", build(old, new));
    }
}
