//! Events that arrive: handlers on durable consumers, on the embedded engine and on JetStream of a real nats-server.
//! Every ending of an event: done, again, a dead letter, a crash; and a dead letter sent again.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use support::nats::NatsServer;
use support::place::{Place, on_each_bus};
use support::{eventually, snapshot};
use tidegate::bus::{Bus, Headers, Subject};
use tidegate::fault::{Code, Fault};
use tidegate::store::{ConsumerConfig, Discard, Event, LogConfig, Logged, Retention, Store};
use tidegate::worker::dead_letters::{self, Redriven};
use tidegate::worker::{Consume, Context, Options, Service, Setback, WorkQueues, Worker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const PROTO: &str = r#"syntax = "proto3"; package t.v1; message Said { string text = 1; }"#;
const ROUTES: &str = "version: 1\n";

const SAID: LogConfig = LogConfig { name: "SAID", subjects: &["evt.said.>"], ..LogConfig::DEFAULT };
const WORK: LogConfig = LogConfig {
    name: "WORK",
    subjects: &["work.>"],
    retention: Retention::WorkQueue,
    discard: Discard::New,
    ..LogConfig::DEFAULT
};
const DLQ: LogConfig = LogConfig { name: "DLQ", subjects: &["dlq.>"], ..LogConfig::DEFAULT };
const ADVISORIES: LogConfig = LogConfig {
    name: "DLQ_ADVISORIES",
    subjects: &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
    ..LogConfig::DEFAULT
};
const ACK_WAIT: Duration = Duration::from_millis(500);
const LISTENER: ConsumerConfig =
    ConsumerConfig { log: "SAID", name: "listener", filter: "evt.said.>", ack_wait: ACK_WAIT, deliveries_max: Some(5) };
const DIGGER: ConsumerConfig =
    ConsumerConfig { log: "WORK", name: "digger", filter: "work.>", deliveries_max: Some(2), ..LISTENER };
const ADVISORY_READER: ConsumerConfig = ConsumerConfig {
    log: "DLQ_ADVISORIES",
    name: "dlq_advisories",
    filter: "$JS.EVENT.ADVISORY.CONSUMER.>",
    deliveries_max: None,
    ..LISTENER
};

on_each_bus!(
    |place| (&Replicas::on(&place).await);
    each_event_is_handled_once_by_one_of_the_replicas,
    an_event_comes_again_until_it_is_handled,
    what_fails_five_times_is_a_dead_letter_that_can_be_sent_again,
    what_never_goes_better_is_a_dead_letter_at_once,
    a_panic_is_a_setback,
    a_slow_handler_keeps_its_event,
    a_worker_that_drains_finishes_what_runs,
    an_event_of_a_replica_that_died_goes_to_another,
    an_event_that_kills_its_handlers_is_a_dead_letter,
    a_dead_letter_of_an_event_that_is_gone_says_so,
    work_that_nobody_does_is_a_dead_letter_before_it_is_too_old,
    work_that_a_reader_ends_is_a_dead_letter_though_it_is_gone,
    a_consumer_that_is_missing_stops_the_start,
);

struct Replicas {
    one: Options,
    other: Options,
}

impl Replicas {
    /// On NATS two connections, in one process one store.
    async fn on(place: &Place) -> Replicas {
        let one = replica(place.bus.clone());
        let other = if place.server().is_some() { replica(place.another_bus().await) } else { one.clone() };
        Replicas { one, other }
    }
}

fn replica(bus: Bus) -> Options {
    Options::new(bus, Arc::new(snapshot(ROUTES, PROTO)))
}

impl Replicas {
    fn store(&self) -> &Store {
        &self.one.store
    }

    async fn provide(&self) {
        for log in [SAID, WORK, DLQ, ADVISORIES] {
            self.store().provide_log(log).await.unwrap();
        }
        for consumer in [LISTENER, DIGGER, ADVISORY_READER] {
            self.store().provide_consumer(consumer).await.unwrap();
        }
    }

    /// Appends an event with that text as its body, and returns its position.
    async fn say(&self, subject: &str, text: &str) -> u64 {
        let mut headers = Headers::new();
        headers.push("Event-Type", "said");
        headers.push("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let event =
            Event { subject: Subject::new(subject).unwrap(), id: text.escape_default().to_string(), headers, payload };
        self.store().append(event).await.unwrap().sequence
    }

    /// Events in a log, and those of them that its one consumer has still to deal with.
    async fn left(&self, log: &str) -> (u64, u64) {
        let figures = self.store().log_figures(log).await.unwrap();
        (figures.events, figures.consumers.iter().map(|consumer| consumer.waiting + consumer.unanswered).sum())
    }

    async fn dead_letters(&self) -> Vec<Logged> {
        let mut found: Vec<Logged> = Vec::new();
        while let Some(letter) =
            self.store().event_after("DLQ", found.last().map_or(0, |letter| letter.sequence)).await.unwrap()
        {
            found.push(letter);
        }
        found
    }

    /// The one dead letter, once it is there.
    async fn dead_letter(&self) -> Logged {
        eventually("a dead letter", async || !self.dead_letters().await.is_empty()).await;
        let mut letters = self.dead_letters().await;
        assert_eq!(letters.len(), 1);
        letters.remove(0)
    }
}

/// What handlers tell the test.
type Told = UnboundedSender<String>;

async fn next(told: &mut UnboundedReceiver<String>) -> String {
    tokio::time::timeout(support::PATIENCE, told.recv()).await.expect("an event in time").unwrap()
}

fn text(event: &Logged) -> String {
    String::from_utf8(event.payload.to_vec()).unwrap()
}

fn setback(text: &'static str) -> Fault {
    Fault::ours(Code::Unavailable, text)
}

/// A worker of one service on one consumer, with short pauses.
async fn work<F, Fut>(options: &Options, consumer: ConsumerConfig, handler: F) -> Worker
where
    F: Fn(Context, Logged) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Setback>> + Send + 'static,
{
    let consume = Consume::new(consumer).first_pause(Duration::from_millis(20)).parallel(4);
    let service = Service::new("listening", "1.0.0").consumer(consume, handler);
    Worker::start(options.clone(), vec![service]).await.unwrap()
}

/// The reader of advisories, which belongs to a service of its own.
async fn read_advisories(options: &Options) -> Worker {
    read_advisories_and(options, WORK).await
}

async fn read_advisories_and(options: &Options, work_queue: LogConfig) -> Worker {
    let consume = Consume::new(ADVISORY_READER).first_pause(Duration::from_millis(20));
    let queues = WorkQueues::new(&[SAID, work_queue], [LISTENER, DIGGER]);
    let service = dead_letters::reading_advisories(Service::new("reading", "1.0.0"), consume, queues);
    Worker::start(options.clone(), vec![service]).await.unwrap()
}

async fn each_event_is_handled_once_by_one_of_the_replicas(replicas: &Replicas) {
    replicas.provide().await;
    replicas.say("evt.said.v1", "before the worker").await;
    let (told, mut heard) = unbounded_channel();
    let handler = |told: Told| {
        move |context: Context, event: Logged| {
            let told = told.clone();
            async move {
                assert_eq!(context.service(), "listening");
                told.send(text(&event)).unwrap();
                Ok(())
            }
        }
    };
    let _one = work(&replicas.one, LISTENER, handler(told.clone())).await;
    let _other = work(&replicas.other, LISTENER, handler(told)).await;
    let mut expected = vec!["before the worker".to_owned()];
    for number in 0..20 {
        expected.push(format!("event {number:02}"));
        replicas.say("evt.said.v1", &expected[number + 1]).await;
        // The same change published twice is one event.
        replicas.say("evt.said.v1", &expected[number + 1]).await;
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.push(next(&mut heard).await);
    }
    seen.sort_unstable();
    assert_eq!(seen, expected);
    eventually("all are answered", async || replicas.left("SAID").await == (21, 0)).await;
    assert!(heard.try_recv().is_err());
}

async fn an_event_comes_again_until_it_is_handled(replicas: &Replicas) {
    replicas.provide().await;
    let (told, mut heard) = unbounded_channel();
    let tries = Arc::new(AtomicU32::new(0));
    let _worker = work(&replicas.one, LISTENER, move |_, event| {
        let (told, attempt) = (told.clone(), tries.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            told.send(format!("{} {attempt}", text(&event))).unwrap();
            if attempt < 4 { Err(setback("not yet").into()) } else { Ok(()) }
        }
    })
    .await;
    replicas.say("evt.said.v1", "stubborn").await;
    for attempt in 1..=4 {
        assert_eq!(next(&mut heard).await, format!("stubborn {attempt}"));
    }
    eventually("it is answered", async || replicas.left("SAID").await == (1, 0)).await;
    assert!(replicas.dead_letters().await.is_empty());
}

async fn what_fails_five_times_is_a_dead_letter_that_can_be_sent_again(replicas: &Replicas) {
    replicas.provide().await;
    let (told, mut heard) = unbounded_channel();
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let _worker = work(&replicas.one, LISTENER, move |_, event| {
        let (told, is_mended) = (told.clone(), mended.load(Ordering::SeqCst));
        async move {
            told.send(event.headers.get("Nats-Msg-Id").unwrap().to_owned()).unwrap();
            if is_mended { Ok(()) } else { Err(setback("the weather service is down").into()) }
        }
    })
    .await;
    let sequence = replicas.say("evt.said.loud.v1", "unlucky").await;
    for _ in 0..5 {
        assert_eq!(next(&mut heard).await, "unlucky");
    }
    let letter = replicas.dead_letter().await;
    assert_eq!((letter.subject.as_str(), text(&letter)), ("dlq.SAID.listener", "unlucky".to_owned()));
    for (name, value) in [
        ("Nats-Msg-Id", &*format!("SAID:listener:{sequence}")),
        ("Dlq-Original-Msg-Id", "unlucky"),
        ("Dlq-Stream", "SAID"),
        ("Dlq-Consumer", "listener"),
        ("Dlq-Sequence", &*sequence.to_string()),
        ("Dlq-Subject", "evt.said.loud.v1"),
        ("Dlq-Deliveries", "5"),
        ("Dlq-Reason", "UNAVAILABLE: the weather service is down"),
        ("Event-Type", "said"),
    ] {
        assert_eq!(letter.headers.get(name), Some(value), "{name}");
    }
    assert!(letter.headers.get("Dlq-Time").unwrap().ends_with('Z'));
    eventually("it is given up", async || replicas.left("SAID").await == (1, 0)).await;

    is_mended.store(true, Ordering::SeqCst);
    let sent = dead_letters::redrive(&replicas.other.store, letter.sequence).await.unwrap();
    assert_eq!(sent, Redriven::Sent { subject: "evt.said.loud.v1".to_owned(), sequence: 2 });
    assert_ne!(next(&mut heard).await, "unlucky", "it has a new id");
    let again = replicas.store().event("SAID", 2).await.unwrap().unwrap();
    assert_eq!(text(&again), "unlucky");
    let names: Vec<&str> = again.headers.iter().map(|(name, _)| name).filter(|name| name.starts_with("Dlq")).collect();
    assert_eq!(names, [""; 0]);
    assert!(replicas.dead_letters().await.is_empty());
    assert_eq!(dead_letters::redrive(replicas.store(), letter.sequence).await, Ok(Redriven::Missing));
    eventually("it is handled", async || replicas.left("SAID").await == (2, 0)).await;
    assert!(heard.try_recv().is_err());
}

async fn what_never_goes_better_is_a_dead_letter_at_once(replicas: &Replicas) {
    replicas.provide().await;
    #[derive(serde::Deserialize)]
    struct Said {
        text: String,
    }
    let (told, mut heard) = unbounded_channel();
    let _worker = work(&replicas.one, LISTENER, move |context, event| {
        let told = told.clone();
        async move {
            let said: Said = context.decode("t.v1.Said", &event.payload)?;
            told.send(said.text).unwrap();
            Ok(())
        }
    })
    .await;
    replicas.say("evt.said.v1", "\n\x05hello").await;
    assert_eq!(next(&mut heard).await, "hello");
    replicas.say("evt.said.v1", "no message").await;
    let letter = replicas.dead_letter().await;
    assert_eq!((text(&letter), letter.headers.get("Dlq-Deliveries")), ("no message".to_owned(), Some("1")));
    let reason = letter.headers.get("Dlq-Reason").unwrap();
    assert!(reason.starts_with("INTERNAL: an event does not decode (`t.v1.Said`: "), "{reason}");
    eventually("it is given up", async || replicas.left("SAID").await == (2, 0)).await;
}

async fn a_panic_is_a_setback(replicas: &Replicas) {
    replicas.provide().await;
    let (told, mut heard) = unbounded_channel();
    let tries = Arc::new(AtomicU32::new(0));
    let _worker = work(&replicas.one, LISTENER, move |_, event| {
        let (told, attempt) = (told.clone(), tries.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            assert!(attempt > 1, "the first one goes wrong");
            told.send(text(&event)).unwrap();
            Ok(())
        }
    })
    .await;
    replicas.say("evt.said.v1", "shock").await;
    assert_eq!(next(&mut heard).await, "shock");
    eventually("it is answered", async || replicas.left("SAID").await == (1, 0)).await;
}

async fn a_slow_handler_keeps_its_event(replicas: &Replicas) {
    replicas.provide().await;
    let (told, mut heard) = unbounded_channel();
    let handler = |told: Told| {
        move |_: Context, event: Logged| {
            let told = told.clone();
            async move {
                told.send(format!("{} begins", text(&event))).unwrap();
                tokio::time::sleep(3 * ACK_WAIT).await;
                told.send(format!("{} ends", text(&event))).unwrap();
                Ok(())
            }
        }
    };
    let _one = work(&replicas.one, LISTENER, handler(told.clone())).await;
    let _other = work(&replicas.other, LISTENER, handler(told)).await;
    replicas.say("evt.said.v1", "long").await;
    assert_eq!(next(&mut heard).await, "long begins");
    assert_eq!(next(&mut heard).await, "long ends");
    eventually("it is answered", async || replicas.left("SAID").await == (1, 0)).await;
    assert!(heard.try_recv().is_err());
}

async fn a_worker_that_drains_finishes_what_runs(replicas: &Replicas) {
    replicas.provide().await;
    let (told, mut heard) = unbounded_channel();
    let worker = work(&replicas.one, LISTENER, move |_, event| {
        let told = told.clone();
        async move {
            told.send(text(&event)).unwrap();
            tokio::time::sleep(ACK_WAIT / 2).await;
            Ok(())
        }
    })
    .await;
    replicas.say("evt.said.v1", "last words").await;
    assert_eq!(next(&mut heard).await, "last words");
    worker.drain().await;
    assert_eq!(replicas.left("SAID").await, (1, 0));
    replicas.say("evt.said.v1", "too late").await;
    assert_eq!(replicas.left("SAID").await, (2, 1));
    assert!(heard.try_recv().is_err());
}

async fn an_event_of_a_replica_that_died_goes_to_another(replicas: &Replicas) {
    replicas.provide().await;
    let (told, mut heard) = unbounded_channel();
    let begun = told.clone();
    let dying = work(&replicas.one, LISTENER, move |_, event| {
        begun.send(format!("{} begun", text(&event))).unwrap();
        std::future::pending()
    })
    .await;
    replicas.say("evt.said.v1", "orphan").await;
    assert_eq!(next(&mut heard).await, "orphan begun");
    // Dropped, not drained: nothing is answered any more.
    drop(dying);
    let _other = work(&replicas.other, LISTENER, move |_, event| {
        told.send(format!("{} done", text(&event))).unwrap();
        async { Ok(()) }
    })
    .await;
    assert_eq!(next(&mut heard).await, "orphan done");
    eventually("it is answered", async || replicas.left("SAID").await == (1, 0)).await;
}

async fn an_event_that_kills_its_handlers_is_a_dead_letter(replicas: &Replicas) {
    replicas.provide().await;
    let sequence = replicas.say("work.dig.v1", "deep hole").await;
    let (told, mut heard) = unbounded_channel();
    for _ in 0..2 {
        let begun: Told = told.clone();
        let dying = work(&replicas.one, DIGGER, move |_, event| {
            begun.send(text(&event)).unwrap();
            std::future::pending()
        })
        .await;
        assert_eq!(next(&mut heard).await, "deep hole");
        drop(dying);
    }
    // The store notices when somebody asks for work again; nobody reads advisories yet, so they are kept.
    let living = work(&replicas.other, DIGGER, move |_, event| {
        told.send(text(&event)).unwrap();
        async { Ok(()) }
    })
    .await;
    eventually("the store gives up", async || replicas.left("DLQ_ADVISORIES").await.0 == 1).await;
    let _advisories = read_advisories(&replicas.one).await;
    let letter = replicas.dead_letter().await;
    for (name, value) in [
        ("Nats-Msg-Id", &*format!("WORK:digger:{sequence}")),
        ("Dlq-Subject", "work.dig.v1"),
        ("Dlq-Deliveries", "2"),
        ("Dlq-Reason", "max_deliveries"),
    ] {
        assert_eq!(letter.headers.get(name), Some(value), "{name}");
    }
    eventually("it is no work any more", async || replicas.left("WORK").await == (0, 0)).await;
    eventually("the advisory is done", async || replicas.left("DLQ_ADVISORIES").await == (1, 0)).await;
    assert!(heard.try_recv().is_err());

    let sent = dead_letters::redrive(replicas.store(), letter.sequence).await.unwrap();
    assert_eq!(sent, Redriven::Sent { subject: "work.dig.v1".to_owned(), sequence: 2 });
    assert_eq!(next(&mut heard).await, "deep hole");
    living.drain().await;
    assert_eq!(replicas.left("WORK").await, (0, 0));
}

async fn a_dead_letter_of_an_event_that_is_gone_says_so(replicas: &Replicas) {
    replicas.provide().await;
    let sequence = replicas.say("evt.said.v1", "fleeting").await;
    let mut reader = replicas.store().consumer("SAID", "listener").await.unwrap();
    let job = reader.next(1).await.unwrap();
    job.end("the reader does not like it").await.unwrap();
    eventually("the store says so", async || replicas.left("DLQ_ADVISORIES").await.0 == 1).await;
    assert_eq!(replicas.store().remove_event("SAID", sequence).await, Ok(true));
    let _advisories = read_advisories(&replicas.other).await;
    let letter = replicas.dead_letter().await;
    assert_eq!((letter.headers.get("Dlq-Reason"), letter.payload.len()), (Some("expired"), 0));
    assert_eq!(letter.headers.get("Dlq-Subject"), None);
    assert_eq!(dead_letters::redrive(replicas.store(), letter.sequence).await, Ok(Redriven::Empty));
}

async fn work_that_nobody_does_is_a_dead_letter_before_it_is_too_old(replicas: &Replicas) {
    let short = LogConfig { max_age: Duration::from_secs(6), duplicate_window: Duration::from_secs(1), ..WORK };
    replicas.store().provide_log(short.clone()).await.unwrap();
    replicas.provide().await;
    let _advisories = read_advisories_and(&replicas.one, short.clone()).await;
    let _other = read_advisories_and(&replicas.other, short).await;
    let begun = replicas.say("work.dig.v1", "begun").await;
    let mut reader = replicas.store().consumer("WORK", "digger").await.unwrap();
    let job = reader.next(1).await.unwrap();
    assert_eq!(job.event.sequence, begun);
    replicas.say("work.dig.v1", "not begun").await;
    eventually("dead letters of both", async || replicas.dead_letters().await.len() == 2).await;
    for (letter, body) in replicas.dead_letters().await.iter().zip(["begun", "not begun"]) {
        assert_eq!((letter.subject.as_str(), &*text(letter)), ("dlq.WORK.digger", body));
        assert_eq!(letter.headers.get("Dlq-Reason"), Some("nobody has done it in time"));
        assert_eq!(letter.headers.get("Dlq-Subject"), Some("work.dig.v1"));
    }
    eventually("both have left the queue", async || replicas.left("WORK").await.0 == 0).await;
    // A server reports the one that had been begun, and has been copied.
    eventually("no advisory is left", async || replicas.left("DLQ_ADVISORIES").await.1 == 0).await;
    assert_eq!(replicas.dead_letters().await.len(), 2);
    let first = replicas.dead_letters().await[0].sequence;
    let sent = dead_letters::redrive(replicas.store(), first).await.unwrap();
    assert_eq!(sent, Redriven::Sent { subject: "work.dig.v1".to_owned(), sequence: 3 });
}

async fn work_that_a_reader_ends_is_a_dead_letter_though_it_is_gone(replicas: &Replicas) {
    replicas.provide().await;
    let _advisories = read_advisories(&replicas.other).await;
    replicas.say("work.dig.v1", "rock").await;
    let mut reader = replicas.store().consumer("WORK", "digger").await.unwrap();
    reader.next(1).await.unwrap().end("the reader does not like it").await.unwrap();
    let letter = replicas.dead_letter().await;
    assert_eq!((letter.subject.as_str(), letter.headers.get("Dlq-Reason")), ("dlq.WORK.digger", Some("expired")));
}

/// A server says the same of work that was acknowledged while one of its nodes was away, as that node comes back, and of
/// work that has grown too old: only who has looked after the queue all the time knows that it must be the former.
#[tokio::test]
async fn work_that_a_server_reports_as_gone_is_a_dead_letter_only_where_it_may_have_been_too_old() {
    let server = NatsServer::start();
    let (one, other) = (replica(server.bus().await), replica(server.bus().await));
    let replicas = Replicas { one, other };
    replicas.provide().await;
    let mut reader = replicas.store().consumer("WORK", "digger").await.unwrap();
    // Deleted without an answer: to its consumer no other than what was acknowledged elsewhere.
    let mut goes = async |text: &str| {
        let (sequence, (before, _)) = (replicas.say("work.dig.v1", text).await, replicas.left("DLQ_ADVISORIES").await);
        let job = reader.next(1).await.unwrap();
        assert_eq!((job.event.sequence, replicas.store().remove_event("WORK", sequence).await), (sequence, Ok(true)));
        eventually("an advisory", async || replicas.left("DLQ_ADVISORIES").await.0 == before + 1).await;
        let advisory: serde_json::Value = serde_json::from_slice(
            &replicas.store().event("DLQ_ADVISORIES", before + 1).await.unwrap().unwrap().payload,
        )
        .unwrap();
        assert_eq!(
            (&advisory["stream_seq"], &advisory["reason"], &advisory["deliveries"]),
            (&sequence.into(), &"Unacknowledged message was deleted".into(), &1.into())
        );
        sequence
    };
    let unwatched = goes("while nobody looks after the queue").await;
    let _advisories = read_advisories(&replicas.other).await;
    let letter = replicas.dead_letter().await;
    assert_eq!(letter.headers.get("Dlq-Sequence"), Some(&*unwatched.to_string()));
    assert_eq!((letter.headers.get("Dlq-Reason"), letter.payload.len()), (Some("expired"), 0));
    // From the end of the first look on.
    eventually("a report that makes no dead letter", async || {
        let before = replicas.dead_letters().await.len();
        goes(&format!("while somebody looks after it, {before} dead letters")).await;
        eventually("the advisory is read", async || replicas.left("DLQ_ADVISORIES").await.1 == 0).await;
        replicas.dead_letters().await.len() == before
    })
    .await;
}

async fn a_consumer_that_is_missing_stops_the_start(replicas: &Replicas) {
    let start = async || {
        let service = Service::new("listening", "1.0.0").consumer(LISTENER, |_, _| async { Ok(()) });
        Worker::start(replicas.one.clone(), vec![service]).await.err().unwrap().to_string()
    };
    assert_eq!(
        start().await,
        "service `listening` cannot read consumer `listener` of log `SAID`: no log takes `SAID`; make it with \
         `tidegate streams apply`"
    );
    replicas.store().provide_log(SAID).await.unwrap();
    assert_eq!(
        start().await,
        "service `listening` cannot read consumer `listener` of log `SAID`: log `SAID` has no consumer `listener`; \
         make it with `tidegate streams apply`"
    );
}

/// On this thread alone, so that no other test counts in between.
#[tokio::test]
async fn dead_letters_are_counted_until_they_are_gone() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let one = replica(Bus::embedded());
    let replicas = Replicas { other: one.clone(), one };
    replicas.provide().await;
    for number in 0..2 {
        replicas.say("dlq.SAID.listener", &format!("{number}")).await;
    }
    let count = async |expected: &str| {
        let service = Service::new("counting", "1.0.0").task("dead-letters", dead_letters::count);
        let worker = Worker::start(replicas.one.clone(), vec![service]).await.unwrap();
        let line = format!("tidegate_dlq_messages {expected}");
        eventually(&line, async || shown.render().lines().any(|shown| shown == line)).await;
        worker.drain().await;
    };
    count("2").await;
    for letter in replicas.dead_letters().await {
        replicas.store().remove_event("DLQ", letter.sequence).await.unwrap();
    }
    count("0").await;
}
