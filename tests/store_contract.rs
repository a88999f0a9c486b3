//! One contract for every store: each rule is tested on the embedded one, in memory and on disk, and on JetStream of a
//! real nats-server.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::eventually;
use support::nats::NatsServer;
use tidegate::bus::{Bus, Headers, Limits, Pattern, Subject};
use tidegate::store::{
    Bucket, BucketConfig, Change, Event, Expected, Keys, Seen, Store, StoreError, VALUE_BYTES_MAX, key,
};
use tidegate::store::{Consumer, ConsumerConfig, ConsumerFigures, Job, LogConfig, LogFigures, Retention};

const BUCKET: BucketConfig = BucketConfig { name: "tg_test", ttl: None, history: 4 };
const LOG: LogConfig = LogConfig {
    name: "TEST_EVENTS",
    subjects: &["evt.test.>"],
    max_age: Duration::from_secs(3600),
    duplicate_window: Duration::from_secs(120),
    ..LogConfig::DEFAULT
};

/// Work that is gone once it is done.
const WORK: LogConfig =
    LogConfig { name: "TEST_WORK", subjects: &["work.test.>"], retention: Retention::WorkQueue, ..LogConfig::DEFAULT };
/// What the store says of events that it gives up.
const ADVISORIES: LogConfig = LogConfig {
    name: "ADVISORIES",
    subjects: &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
    ..LogConfig::DEFAULT
};
const READER: ConsumerConfig = ConsumerConfig {
    log: "TEST_EVENTS",
    name: "reader",
    filter: "evt.test.>",
    ack_wait: Duration::from_secs(30),
    deliveries_max: Some(3),
};
/// For rules of what happens without an answer.
const ACK_WAIT: Duration = Duration::from_millis(400);

/// Runs a rule on each engine; on NATS the two buses are two connections, as of two replicas.
macro_rules! contract {
    ($($rule:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $rule() {
                let bus = tidegate::bus::Bus::embedded();
                let store = tidegate::store::Store::of(&bus);
                super::$rule(&super::Replicas { one: store.clone(), other: store, bus }).await;
            })*
        }
        mod disk {
            $(#[tokio::test]
            async fn $rule() {
                let bus = tidegate::bus::Bus::embedded();
                let folder = tempfile::tempdir().unwrap();
                let store = tidegate::store::Store::on_disk(&bus, folder.path()).unwrap();
                super::$rule(&super::Replicas { one: store.clone(), other: store, bus }).await;
            })*
        }
        mod jetstream {
            $(#[tokio::test]
            async fn $rule() {
                let server = super::NatsServer::start();
                let (one, other) = (server.bus().await, server.bus().await);
                let replicas = super::Replicas {
                    one: tidegate::store::Store::of(&one),
                    other: tidegate::store::Store::of(&other),
                    bus: one,
                };
                super::$rule(&replicas).await;
            })*
        }
    };
}

struct Replicas {
    one: Store,
    other: Store,
    bus: Bus,
}

impl Replicas {
    async fn buckets(&self) -> (Bucket, Bucket) {
        (self.one.bucket(BUCKET).await.unwrap(), self.other.bucket(BUCKET).await.unwrap())
    }
}

contract!(
    what_is_put_is_got,
    a_write_happens_only_at_the_expected_revision,
    revisions_go_on_behind_a_deletion,
    the_newest_revision_is_known_to_all,
    of_two_writers_at_once_exactly_one_wins,
    lists_know_own_writes_at_once_and_others_soon,
    a_watch_tells_what_is_there_and_then_each_write,
    a_watch_goes_on_behind_a_revision_or_starts_over,
    old_records_go,
    what_is_too_large_or_no_key_is_refused,
    an_event_is_kept_once_and_heard_by_subscribers,
    a_log_is_read_from_a_position,
    a_log_takes_no_more_than_it_says,
    events_are_looked_at_and_removed_by_position,
    a_job_comes_to_one_of_the_readers_and_never_again_once_done,
    a_job_without_an_answer_comes_again_and_is_counted,
    a_job_in_progress_stays_with_its_reader,
    a_job_comes_again_after_the_pause_that_its_reader_asks_for,
    what_is_given_up_is_told_and_never_comes_again,
    a_work_queue_lets_go_of_what_is_done,
    a_reader_needs_a_consumer_that_is_there,
);

async fn put(bucket: &Bucket, key: &str, value: &'static str) -> u64 {
    bucket.put(key, Bytes::from_static(value.as_bytes()), Expected::Any).await.unwrap()
}

async fn what_is_put_is_got(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    assert_eq!(one.get("t.a").await, Ok(None));
    assert_eq!(one.get_cached("t.a").await, Ok(None));
    let id = key(&["t", "a.b/c d"]);
    assert_eq!(id, "t.a=2Eb=2Fc=20d");
    let revision = put(&one, &id, "value").await;
    let entry = other.get(&id).await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..], entry.revision), (id.as_str(), &b"value"[..], revision));
    assert!(entry.created_ms > 1_700_000_000_000);
    assert_eq!(other.get_cached(&id).await.unwrap().unwrap(), entry);
    put(&one, "t.empty", "").await;
    assert_eq!(one.get("t.empty").await.unwrap().unwrap().value, Bytes::new());
}

async fn a_write_happens_only_at_the_expected_revision(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    let value = || Bytes::from_static(b"x");
    assert_eq!(one.put("k", value(), Expected::Revision(7)).await, Err(StoreError::Conflict));
    let first = one.put("k", value(), Expected::Absent).await.unwrap();
    assert_eq!(other.put("k", value(), Expected::Absent).await, Err(StoreError::Conflict));
    let second = other.put("k", value(), Expected::Revision(first)).await.unwrap();
    assert!(second > first);
    assert_eq!(one.put("k", value(), Expected::Revision(first)).await, Err(StoreError::Conflict));
    assert_eq!(one.delete("k", Expected::Revision(first)).await, Err(StoreError::Conflict));
    assert!(one.delete("k", Expected::Revision(second)).await.unwrap() > second);
}

async fn revisions_go_on_behind_a_deletion(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    let first = put(&one, "k", "old").await;
    let deleted = one.delete("k", Expected::Any).await.unwrap();
    assert!(deleted > first);
    assert_eq!(other.get("k").await, Ok(None));
    assert_eq!(other.get_cached("k").await, Ok(None));
    assert_eq!(one.list(&Keys::All).await, Ok(Vec::new()));
    let again = other.put("k", Bytes::from_static(b"new"), Expected::Absent).await.unwrap();
    assert!(again > deleted);
    assert_eq!(one.get("k").await.unwrap().unwrap().revision, again);
}

async fn the_newest_revision_is_known_to_all(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    assert_eq!(one.newest_revision().await, Ok(0));
    let first = put(&one, "k", "x").await;
    assert_eq!(other.newest_revision().await, Ok(first));
    let second = put(&other, "other", "x").await;
    assert_eq!(one.newest_revision().await, Ok(second));
    let deleted = one.delete("k", Expected::Any).await.unwrap();
    assert_eq!(other.newest_revision().await, Ok(deleted));
}

async fn of_two_writers_at_once_exactly_one_wins(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    let mut revision = put(&one, "k", "0").await;
    for _ in 0..50 {
        let write = |bucket: &Bucket| {
            let bucket = bucket.clone();
            async move { bucket.put("k", Bytes::from_static(b"x"), Expected::Revision(revision)).await }
        };
        let results = tokio::join!(write(&one), write(&other));
        let winners: Vec<u64> = [results.0, results.1].into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        revision = winners[0];
    }
}

async fn lists_know_own_writes_at_once_and_others_soon(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    for name in ["t.p.b", "t.p.a", "t.p.a.more", "t.pp.a", "u.p.a"] {
        put(&one, name, "x").await;
    }
    let names = async |bucket: &Bucket, keys: &Keys| -> Vec<String> {
        bucket.list(keys).await.unwrap().into_iter().map(|entry| entry.key).collect()
    };
    let under = Keys::Under("t.p".to_owned());
    assert_eq!(names(&one, &under).await, ["t.p.a", "t.p.a.more", "t.p.b"]);
    assert_eq!(names(&one, &Keys::One("t.p.a".to_owned())).await, ["t.p.a"]);
    assert_eq!(names(&one, &Keys::All).await.len(), 5);
    one.delete("t.p.a.more", Expected::Any).await.unwrap();
    assert_eq!(names(&one, &under).await, ["t.p.a", "t.p.b"]);
    eventually("the other replica's list", async || names(&other, &under).await == ["t.p.a", "t.p.b"]).await;
    for _ in 0..20 {
        put(&other, "t.p.c", "x").await;
        assert_eq!(names(&other, &under).await.len(), 3);
        other.delete("t.p.c", Expected::Any).await.unwrap();
        assert_eq!(names(&other, &under).await.len(), 2);
    }
}

async fn next(watch: &mut tidegate::store::Watch) -> Seen {
    tokio::time::timeout(support::PATIENCE, watch.next()).await.expect("the watch is silent").unwrap()
}

fn told(seen: Seen) -> (String, Option<Bytes>, u64) {
    match seen {
        Seen::Change(Change { key, value, revision, .. }) => (key, value, revision),
        Seen::Current => ("current".to_owned(), None, 0),
    }
}

async fn a_watch_tells_what_is_there_and_then_each_write(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    let mut empty = other.watch(Keys::All, None).await.unwrap();
    assert_eq!(next(&mut empty).await, Seen::Current);
    put(&one, "t.a", "old").await;
    let a = put(&one, "t.a", "new").await;
    put(&one, "t.gone", "x").await;
    one.delete("t.gone", Expected::Any).await.unwrap();
    let b = put(&one, "t.b", "b").await;
    put(&one, "u.a", "elsewhere").await;
    let mut watch = other.watch(Keys::Under("t".to_owned()), None).await.unwrap();
    assert!(!watch.is_reset());
    assert_eq!(told(next(&mut watch).await), ("t.a".to_owned(), Some(Bytes::from_static(b"new")), a));
    assert_eq!(told(next(&mut watch).await), ("t.b".to_owned(), Some(Bytes::from_static(b"b")), b));
    assert_eq!(next(&mut watch).await, Seen::Current);
    let c = put(&one, "t.c", "c").await;
    let d = one.delete("t.a", Expected::Any).await.unwrap();
    assert_eq!(told(next(&mut watch).await), ("t.c".to_owned(), Some(Bytes::from_static(b"c")), c));
    assert_eq!(told(next(&mut watch).await), ("t.a".to_owned(), None, d));
}

async fn a_watch_goes_on_behind_a_revision_or_starts_over(replicas: &Replicas) {
    let (one, other) = replicas.buckets().await;
    let first = put(&one, "k", "1").await;
    let second = put(&one, "k", "2").await;
    let third = one.delete("k", Expected::Any).await.unwrap();
    let mut watch = other.watch(Keys::One("k".to_owned()), Some(first)).await.unwrap();
    assert!(!watch.is_reset());
    assert_eq!(told(next(&mut watch).await).2, second);
    assert_eq!(told(next(&mut watch).await), ("k".to_owned(), None, third));
    assert_eq!(next(&mut watch).await, Seen::Current);
    let fourth = put(&one, "k", "4").await;
    assert_eq!(told(next(&mut watch).await).2, fourth);

    let mut last = fourth;
    for _ in 0..usize::from(BUCKET.history) {
        last = put(&one, "k", "more").await;
    }
    for lost in [first, last + 1_000] {
        let mut watch = other.watch(Keys::One("k".to_owned()), Some(lost)).await.unwrap();
        assert!(watch.is_reset(), "{lost}");
        assert_eq!(told(next(&mut watch).await).2, last);
        assert_eq!(next(&mut watch).await, Seen::Current);
    }
}

async fn old_records_go(replicas: &Replicas) {
    let config = BucketConfig { name: "tg_short", ttl: Some(Duration::from_millis(400)), history: 1 };
    let bucket = replicas.one.bucket(config).await.unwrap();
    let first = put(&bucket, "k", "x").await;
    assert_eq!(bucket.list(&Keys::All).await.unwrap().len(), 1);
    eventually("the record goes", async || bucket.get("k").await.unwrap().is_none()).await;
    assert_eq!(bucket.list(&Keys::All).await, Ok(Vec::new()));
    assert!(bucket.put("k", Bytes::new(), Expected::Absent).await.unwrap() > first);
}

async fn what_is_too_large_or_no_key_is_refused(replicas: &Replicas) {
    let (one, _) = replicas.buckets().await;
    let large = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    let too_large = StoreError::TooLarge { size: VALUE_BYTES_MAX + 1, max: VALUE_BYTES_MAX };
    assert_eq!(one.put("k", large.clone(), Expected::Any).await, Err(too_large));
    let revision = one.put("k", large.slice(1..), Expected::Any).await.unwrap();
    assert_eq!(one.get("k").await.unwrap().unwrap().revision, revision);
    for bad in ["", "a..b", "a.*", ">", "a b"] {
        assert_eq!(one.get(bad).await, Err(StoreError::BadKey(bad.to_owned())));
        assert_eq!(one.put(bad, Bytes::new(), Expected::Any).await, Err(StoreError::BadKey(bad.to_owned())));
    }
}

fn event(subject: &str, id: &str, payload: &'static str) -> Event {
    let mut headers = Headers::new();
    headers.push("Event-Type", "test");
    Event { subject: Subject::new(subject).unwrap(), id: id.to_owned(), headers, payload: payload.into() }
}

async fn an_event_is_kept_once_and_heard_by_subscribers(replicas: &Replicas) {
    let lost = replicas.one.append(event("evt.test.a", "1", "x")).await;
    assert_eq!(lost, Err(StoreError::NoLog("evt.test.a".to_owned())));
    replicas.one.provide_log(LOG).await.unwrap();
    replicas.other.provide_log(LOG).await.unwrap();
    let pattern = Pattern::new("evt.test.>").unwrap();
    let mut heard = replicas.bus.subscribe(&pattern, None, Limits::WORKER).await.unwrap();
    support::settle(&replicas.bus).await;
    let first = replicas.one.append(event("evt.test.a", "1", "x")).await.unwrap();
    assert_eq!((first.sequence, first.is_duplicate), (1, false));
    let again = replicas.other.append(event("evt.test.a", "1", "x")).await.unwrap();
    assert_eq!((again.sequence, again.is_duplicate), (1, true));
    let second = replicas.other.append(event("evt.test.b", "2", "y")).await.unwrap();
    assert_eq!((second.sequence, second.is_duplicate), (2, false));
    let delivery = tokio::time::timeout(support::PATIENCE, heard.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((delivery.subject.as_str(), &delivery.payload[..]), ("evt.test.a", &b"x"[..]));
}

async fn a_log_is_read_from_a_position(replicas: &Replicas) {
    replicas.one.provide_log(LOG).await.unwrap();
    for (subject, id) in [("evt.test.a", "1"), ("evt.test.b", "2"), ("evt.test.a", "3")] {
        replicas.one.append(event(subject, id, "x")).await.unwrap();
    }
    let read = async |reader: &mut tidegate::store::LogReader| {
        let event = tokio::time::timeout(support::PATIENCE, reader.next()).await.unwrap().unwrap();
        assert_eq!(event.headers.get("Event-Type"), Some("test"));
        (event.sequence, event.subject.as_str().to_owned(), event.headers.get("Nats-Msg-Id").unwrap().to_owned())
    };
    let mut all = replicas.other.read_log("TEST_EVENTS", ">", 1).await.unwrap();
    assert_eq!(read(&mut all).await, (2, "evt.test.b".to_owned(), "2".to_owned()));
    assert_eq!(read(&mut all).await, (3, "evt.test.a".to_owned(), "3".to_owned()));
    let mut some = replicas.other.read_log("TEST_EVENTS", "evt.test.a", 0).await.unwrap();
    assert_eq!(read(&mut some).await.0, 1);
    assert_eq!(read(&mut some).await.0, 3);
    replicas.one.append(event("evt.test.a", "4", "x")).await.unwrap();
    assert_eq!(read(&mut all).await.0, 4);
    assert_eq!(read(&mut some).await.0, 4);
    assert_eq!(replicas.one.read_log("NOWHERE", ">", 0).await.err(), Some(StoreError::NoLog("NOWHERE".to_owned())));
}

async fn append(store: &Store, subject: &str, id: &str) -> u64 {
    store.append(event(subject, id, "x")).await.unwrap().sequence
}

async fn a_log_takes_no_more_than_it_says(replicas: &Replicas) {
    let small = LogConfig { name: "SMALL", subjects: &["small.>"], message_bytes_max: 100, ..LogConfig::DEFAULT };
    replicas.one.provide_log(small).await.unwrap();
    let large = Event { payload: Bytes::from_static(&[b'x'; 100]), ..event("small.a", "1", "") };
    match replicas.one.append(large).await {
        Err(StoreError::TooLarge { size: 101.., max: 100 }) => {}
        other => panic!("{other:?}"),
    }
    let same = LogConfig { name: "SAME", subjects: &["*.a.b"], ..LogConfig::DEFAULT };
    assert!(matches!(replicas.one.provide_log(same).await, Err(StoreError::Refused(_))));
}

async fn events_are_looked_at_and_removed_by_position(replicas: &Replicas) {
    let empty = LogFigures { events: 0, bytes: 0, first: None, last: 0, consumers: Vec::new() };
    let (one, other) = (&replicas.one, &replicas.other);
    one.provide_log(LOG).await.unwrap();
    assert_eq!(one.log_figures("TEST_EVENTS").await, Ok(empty));
    for id in ["1", "2", "3"] {
        append(one, "evt.test.a", id).await;
    }
    let second = other.event("TEST_EVENTS", 2).await.unwrap().unwrap();
    assert_eq!((second.sequence, second.subject.as_str(), &second.payload[..]), (2, "evt.test.a", &b"x"[..]));
    assert_eq!(second.headers.get("Nats-Msg-Id"), Some("2"));
    assert!(second.created_ms > 1_700_000_000_000);
    assert_eq!(other.remove_event("TEST_EVENTS", 2).await, Ok(true));
    assert_eq!(other.remove_event("TEST_EVENTS", 2).await, Ok(false));
    assert_eq!(one.event("TEST_EVENTS", 2).await, Ok(None));
    let after = async |sequence| one.event_after("TEST_EVENTS", sequence).await.unwrap().map(|event| event.sequence);
    assert_eq!((after(0).await, after(1).await, after(3).await), (Some(1), Some(3), None));
    let LogFigures { events, bytes, first, last, .. } = one.log_figures("TEST_EVENTS").await.unwrap();
    assert_eq!((events, bytes > 0, first, last), (2, true, Some(1), 3));

    let kept = LogConfig { name: "KEPT", subjects: &["kept.>"], denies_removal: true, ..LogConfig::DEFAULT };
    one.provide_log(kept).await.unwrap();
    append(one, "kept.a", "1").await;
    assert!(matches!(one.remove_event("KEPT", 1).await, Err(StoreError::Refused(_))));
    let no_log = || StoreError::NoLog("NOWHERE".to_owned());
    assert_eq!(one.event("NOWHERE", 1).await, Err(no_log()));
    assert_eq!(one.event_after("NOWHERE", 1).await, Err(no_log()));
    assert_eq!(one.remove_event("NOWHERE", 1).await, Err(no_log()));
    assert_eq!(one.log_figures("NOWHERE").await, Err(no_log()));
}

/// Readers of one consumer, a replica each.
async fn readers(replicas: &Replicas, log: LogConfig, consumer: ConsumerConfig) -> (Consumer, Consumer) {
    replicas.one.provide_log(log).await.unwrap();
    replicas.one.provide_consumer(consumer.clone()).await.unwrap();
    replicas.other.provide_consumer(consumer.clone()).await.unwrap();
    let open = async |store: &Store| store.consumer(consumer.log, consumer.name).await.unwrap();
    (open(&replicas.one).await, open(&replicas.other).await)
}

async fn job(reader: &mut Consumer) -> Job {
    tokio::time::timeout(support::PATIENCE, reader.next(1)).await.expect("a job in time").unwrap()
}

fn place(job: &Job) -> (u64, u32) {
    (job.event.sequence, job.deliveries)
}

/// Nothing comes for a while that is longer than any pause of these tests.
async fn nothing_comes(reader: &mut Consumer) {
    if let Ok(job) = tokio::time::timeout(3 * ACK_WAIT, reader.next(1)).await {
        panic!("{:?} comes", place(&job.unwrap()));
    }
}

async fn unanswered(store: &Store, log: &str) -> Vec<ConsumerFigures> {
    store.log_figures(log).await.unwrap().consumers
}

async fn a_job_comes_to_one_of_the_readers_and_never_again_once_done(replicas: &Replicas) {
    replicas.one.provide_log(LOG).await.unwrap();
    append(&replicas.one, "evt.test.a", "before the consumer").await;
    let filter = "evt.test.a";
    let (mut one, mut other) = readers(replicas, LOG, ConsumerConfig { filter, ack_wait: ACK_WAIT, ..READER }).await;
    append(&replicas.one, "evt.test.b", "not taken").await;
    for id in 0..18 {
        append(&replicas.one, "evt.test.a", &id.to_string()).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 19 {
        let job = tokio::select! { job = one.next(5) => job, job = other.next(5) => job }.unwrap();
        assert_eq!((job.deliveries, job.event.subject.as_str()), (1, "evt.test.a"));
        assert_eq!(job.event.headers.get("Event-Type"), Some("test"));
        seen.push(job.event.sequence);
        job.ack().await.unwrap();
    }
    seen.sort_unstable();
    let all: Vec<u64> = (1..=20).filter(|sequence| *sequence != 2).collect();
    assert_eq!(seen, all);
    let done = ConsumerFigures { name: "reader".to_owned(), waiting: 0, unanswered: 0 };
    assert_eq!(unanswered(&replicas.one, "TEST_EVENTS").await, [done]);
    nothing_comes(&mut one).await;
}

async fn a_job_without_an_answer_comes_again_and_is_counted(replicas: &Replicas) {
    let (mut one, mut other) = readers(replicas, LOG, ConsumerConfig { ack_wait: ACK_WAIT, ..READER }).await;
    append(&replicas.one, "evt.test.a", "1").await;
    drop(job(&mut one).await);
    let late = job(&mut other).await;
    assert_eq!(place(&late), (1, 2));
    let again = job(&mut one).await;
    assert_eq!(place(&again), (1, 3));
    // An answer counts, whichever delivery it answers.
    late.ack().await.unwrap();
    nothing_comes(&mut other).await;
}

async fn a_job_in_progress_stays_with_its_reader(replicas: &Replicas) {
    let (mut one, mut other) = readers(replicas, LOG, ConsumerConfig { ack_wait: ACK_WAIT, ..READER }).await;
    append(&replicas.one, "evt.test.a", "1").await;
    let slow = job(&mut one).await;
    let work = async {
        for _ in 0..8 {
            tokio::time::sleep(ACK_WAIT / 3).await;
            slow.in_progress().await.unwrap();
        }
    };
    tokio::select! {
        () = work => {}
        job = other.next(1) => panic!("{:?} comes while it is in progress", place(&job.unwrap())),
    }
    slow.ack().await.unwrap();
    nothing_comes(&mut one).await;
}

async fn a_job_comes_again_after_the_pause_that_its_reader_asks_for(replicas: &Replicas) {
    let (mut one, mut other) = readers(replicas, LOG, READER).await;
    append(&replicas.one, "evt.test.a", "1").await;
    append(&replicas.one, "evt.test.a", "2").await;
    let first = job(&mut one).await;
    assert_eq!(place(&first), (1, 1));
    let asked = std::time::Instant::now();
    first.retry(ACK_WAIT).await.unwrap();
    let second = job(&mut one).await;
    assert_eq!(place(&second), (2, 1), "others do not wait for it");
    second.ack().await.unwrap();
    let again = job(&mut other).await;
    assert_eq!(place(&again), (1, 2));
    assert!(asked.elapsed() >= ACK_WAIT);
    again.ack().await.unwrap();
}

async fn what_is_given_up_is_told_and_never_comes_again(replicas: &Replicas) {
    replicas.one.provide_log(ADVISORIES).await.unwrap();
    let (mut one, _other) = readers(replicas, LOG, ConsumerConfig { ack_wait: ACK_WAIT, ..READER }).await;
    append(&replicas.one, "evt.test.a", "ended").await;
    job(&mut one).await.end("dlq").await.unwrap();
    append(&replicas.one, "evt.test.a", "never answered").await;
    for delivery in 1..=3 {
        assert_eq!(place(&job(&mut one).await), (2, delivery));
    }
    nothing_comes(&mut one).await;
    let mut advisories = replicas.one.read_log("ADVISORIES", ">", 0).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = tokio::time::timeout(support::PATIENCE, advisories.next()).await.unwrap().unwrap();
        let text: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        let subject = event.subject.as_str().trim_start_matches("$JS.EVENT.ADVISORY.CONSUMER.").to_owned();
        let reason = text["reason"].as_str().unwrap_or_default().to_owned();
        told.push((subject, text["stream_seq"].as_u64(), text["deliveries"].as_u64(), reason));
    }
    let ended = ("MSG_TERMINATED.TEST_EVENTS.reader".to_owned(), Some(1), Some(1), "dlq".to_owned());
    let given_up = ("MAX_DELIVERIES.TEST_EVENTS.reader".to_owned(), Some(2), Some(3), String::new());
    assert_eq!(told, [ended, given_up]);
}

async fn a_work_queue_lets_go_of_what_is_done(replicas: &Replicas) {
    let worker = ConsumerConfig { log: "TEST_WORK", name: "worker", filter: "work.test.>", ..READER };
    let (mut one, mut other) = readers(replicas, WORK, worker.clone()).await;
    for id in ["1", "2", "3"] {
        append(&replicas.one, "work.test.a", id).await;
    }
    let left = async || replicas.one.log_figures("TEST_WORK").await.unwrap().events;
    job(&mut one).await.ack().await.unwrap();
    eventually("what is done goes", async || left().await == 2).await;
    job(&mut other).await.end("dlq").await.unwrap();
    eventually("what is given up goes", async || left().await == 1).await;
    let last = job(&mut one).await;
    assert_eq!(place(&last), (3, 1));
    last.retry(Duration::ZERO).await.unwrap();
    assert_eq!(place(&job(&mut other).await), (3, 2));
    assert_eq!(left().await, 1);
    let second = ConsumerConfig { name: "second", filter: "work.*.a", ..worker };
    assert!(matches!(replicas.one.provide_consumer(second).await, Err(StoreError::Refused(_))));
}

async fn a_reader_needs_a_consumer_that_is_there(replicas: &Replicas) {
    let no_log = StoreError::NoLog("TEST_EVENTS".to_owned());
    assert_eq!(replicas.one.consumer("TEST_EVENTS", "reader").await.err(), Some(no_log.clone()));
    assert_eq!(replicas.one.provide_consumer(READER).await.err(), Some(no_log));
    replicas.one.provide_log(LOG).await.unwrap();
    let missing = StoreError::NoConsumer { log: "TEST_EVENTS".to_owned(), name: "reader".to_owned() };
    assert_eq!(replicas.one.consumer("TEST_EVENTS", "reader").await.err(), Some(missing));
}

#[tokio::test]
async fn readers_wait_until_the_server_is_back() {
    let mut server = NatsServer::start();
    let (one, other) = (Store::of(&server.bus().await), Store::of(&server.bus().await));
    one.provide_log(LOG).await.unwrap();
    one.provide_consumer(READER).await.unwrap();
    let mut reader = other.consumer("TEST_EVENTS", "reader").await.unwrap();
    let asks = tokio::time::timeout(ACK_WAIT, reader.next(1)).await;
    assert!(asks.is_err());
    server.restart();
    eventually("an event is kept", async || one.append(event("evt.test.a", "1", "x")).await.is_ok()).await;
    let job = job(&mut reader).await;
    assert_eq!(place(&job), (1, 1));
    job.ack().await.unwrap();
}

/// A store lists from its first list on by what it is told; each pass has a store of its own, whose first list begins
/// while it writes.
#[tokio::test]
async fn lists_know_own_writes_that_were_under_way_when_the_first_list_began() {
    let server = NatsServer::start();
    let bus = server.bus().await;
    let names = async |bucket: &Bucket| -> Vec<String> {
        bucket.list(&Keys::All).await.unwrap().into_iter().map(|entry| entry.key).collect()
    };
    let setup = Store::of(&bus).bucket(BUCKET).await.unwrap();
    for _ in 0..40 {
        let bucket = Store::of(&bus).bucket(BUCKET).await.unwrap();
        tokio::join!(names(&bucket), put(&bucket, "a", "x"), put(&bucket, "b", "x"));
        assert_eq!(names(&bucket).await, ["a", "b"]);
        let bucket = Store::of(&bus).bucket(BUCKET).await.unwrap();
        let (_, deleted, _) = tokio::join!(names(&bucket), bucket.delete("a", Expected::Any), put(&bucket, "b", "y"));
        deleted.unwrap();
        assert_eq!(names(&bucket).await, ["b"]);
        let bucket = Store::of(&bus).bucket(BUCKET).await.unwrap();
        let (_, deleted) = tokio::join!(names(&bucket), bucket.delete("b", Expected::Any));
        deleted.unwrap();
        assert!(names(&bucket).await.is_empty());
        put(&setup, "a", "x").await;
    }
}

#[tokio::test]
async fn without_a_server_every_call_fails_at_once() {
    let mut server = NatsServer::start();
    let bus = server.bus().await;
    let store = Store::of(&bus);
    let bucket = store.bucket(BUCKET).await.unwrap();
    put(&bucket, "k", "x").await;
    server.kill();
    eventually("the loss is known", async || *bus.status().borrow() != tidegate::bus::Status::Connected).await;
    let started = std::time::Instant::now();
    let lost = StoreError::Unavailable("not connected".to_owned());
    assert_eq!(bucket.get("k").await, Err(lost.clone()));
    assert_eq!(bucket.get_cached("k").await, Err(lost.clone()));
    assert!(bucket.put("k", Bytes::new(), Expected::Any).await.is_err());
    assert_eq!(bucket.watch(Keys::All, None).await.err(), Some(lost));
    assert!(started.elapsed() < Duration::from_secs(1));
    server.restart();
    eventually("the store is back", async || bucket.get("k").await.is_ok_and(|entry| entry.is_some())).await;
}
