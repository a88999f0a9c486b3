//! One contract for every store: each rule is tested on the embedded one and on JetStream of a real nats-server.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::eventually;
use support::nats::NatsServer;
use tidegate::bus::{Bus, Headers, Limits, Pattern, Subject};
use tidegate::store::{Bucket, BucketConfig, Change, Event, Expected, Keys, LogConfig, Seen, Store, StoreError};
use tidegate::store::{VALUE_BYTES_MAX, key};

const BUCKET: BucketConfig = BucketConfig { name: "tg_test", ttl: None, history: 4 };
const LOG: LogConfig = LogConfig {
    name: "TEST_EVENTS",
    subjects: &["evt.test.>"],
    max_age: Duration::from_secs(3600),
    duplicate_window: Duration::from_secs(120),
};

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
    of_two_writers_at_once_exactly_one_wins,
    lists_know_own_writes_at_once_and_others_soon,
    a_watch_tells_what_is_there_and_then_each_write,
    a_watch_goes_on_behind_a_revision_or_starts_over,
    old_records_go,
    what_is_too_large_or_no_key_is_refused,
    an_event_is_kept_once_and_heard_by_subscribers,
    a_log_is_read_from_a_position,
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
    replicas.bus.flush().await.unwrap();
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
