//! The store on disk: what has been acknowledged is there after an end and after a crash, numbers never go back, and a
//! folder that cannot be used is refused with its reason.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use support::program::Program;
use support::{PATIENCE, eventually};
use tidegate::bus::{Bus, Headers, Subject};
use tidegate::store::{
    BucketConfig, Consumer, ConsumerConfig, Event, Expected, Job, Keys, LogConfig, Retention, Seen, Store, StoreError,
};

const BUCKET: BucketConfig = BucketConfig { name: "tg_test", ttl: None, history: 2 };
const LOG: LogConfig = LogConfig { name: "TEST_EVENTS", subjects: &["evt.test.>"], ..LogConfig::DEFAULT };
const WORK: LogConfig =
    LogConfig { name: "TEST_WORK", subjects: &["work.test.>"], retention: Retention::WorkQueue, ..LogConfig::DEFAULT };

fn open(folder: &Path) -> Store {
    Store::on_disk(&Bus::embedded(), folder).unwrap()
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn event(subject: &str, id: &str) -> Event {
    let mut headers = Headers::new();
    headers.push("Event-Type", "test");
    Event { subject: Subject::new(subject).unwrap(), id: id.to_owned(), headers, payload: value("body") }
}

#[tokio::test]
async fn records_and_their_revisions_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, deleted, last) = {
        let bucket = open(folder.path()).bucket(BUCKET).await.unwrap();
        bucket.put("t.a", value("old"), Expected::Any).await.unwrap();
        let kept = bucket.put("t.a", value("new"), Expected::Any).await.unwrap();
        bucket.put("t.gone", value("x"), Expected::Any).await.unwrap();
        let deleted = bucket.delete("t.gone", Expected::Any).await.unwrap();
        let last = bucket.put("t.empty", Bytes::new(), Expected::Absent).await.unwrap();
        (kept, deleted, last)
    };
    let bucket = open(folder.path()).bucket(BUCKET).await.unwrap();
    let entry = bucket.get("t.a").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"new"[..], kept));
    assert_eq!(bucket.get("t.gone").await, Ok(None));
    assert_eq!(bucket.get("t.empty").await.unwrap().unwrap().value, Bytes::new());
    let keys: Vec<String> = bucket.list(&Keys::All).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["t.a", "t.empty"]);
    assert_eq!(bucket.put("t.a", value("x"), Expected::Revision(kept - 1)).await, Err(StoreError::Conflict));
    // A watch goes on where the last one was, over the end of the process.
    let mut watch = bucket.watch(Keys::All, Some(kept)).await.unwrap();
    assert!(!watch.is_reset());
    let mut told = Vec::new();
    while let Seen::Change(change) = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap() {
        told.push((change.key, change.revision, change.value.is_some()));
    }
    let rows = [("t.gone", deleted - 1, true), ("t.gone", deleted, false), ("t.empty", last, true)];
    assert_eq!(told, rows.map(|(key, revision, is_live)| (key.to_owned(), revision, is_live)));
    assert_eq!(bucket.put("t.gone", value("again"), Expected::Absent).await, Ok(last + 1));
}

#[tokio::test]
async fn revisions_never_go_back_also_where_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let config = BucketConfig { name: "tg_short", ttl: Some(Duration::from_millis(200)), history: 1 };
    let last = {
        let bucket = open(folder.path()).bucket(config.clone()).await.unwrap();
        bucket.put("k", value("x"), Expected::Any).await.unwrap();
        bucket.delete("k", Expected::Any).await.unwrap()
    };
    // Its age goes on while nobody has it open.
    let path = folder.path().to_owned();
    eventually("the record is too old", async || {
        let bucket = open(&path).bucket(config.clone()).await.unwrap();
        let watch = bucket.watch(Keys::All, Some(last)).await.unwrap();
        watch.is_reset()
    })
    .await;
    let bucket = open(folder.path()).bucket(config).await.unwrap();
    assert_eq!(bucket.put("k", value("y"), Expected::Absent).await, Ok(last + 1));
}

#[tokio::test]
async fn fewer_revisions_are_kept_where_the_bucket_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = {
        let bucket = open(folder.path()).bucket(BUCKET).await.unwrap();
        let first = bucket.put("k", value("1"), Expected::Any).await.unwrap();
        bucket.put("k", value("2"), Expected::Any).await.unwrap();
        first
    };
    let shorter = BucketConfig { history: 1, ..BUCKET };
    let bucket = open(folder.path()).bucket(shorter).await.unwrap();
    assert!(bucket.watch(Keys::All, Some(first)).await.unwrap().is_reset());
    assert_eq!(bucket.get("k").await.unwrap().unwrap().value, "2");
}

#[tokio::test]
async fn events_their_ids_and_positions_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path());
        store.provide_log(LOG).await.unwrap();
        for id in ["1", "2", "3"] {
            store.append(event("evt.test.a", id)).await.unwrap();
        }
        assert_eq!(store.remove_event("TEST_EVENTS", 2).await, Ok(true));
    }
    let store = open(folder.path());
    store.provide_log(LOG).await.unwrap();
    let again = store.append(event("evt.test.a", "2")).await.unwrap();
    assert_eq!((again.sequence, again.is_duplicate), (2, true), "an id is remembered, even of what was removed");
    let next = store.append(event("evt.test.b", "4")).await.unwrap();
    assert_eq!((next.sequence, next.is_duplicate), (4, false));
    let mut reader = store.read_log("TEST_EVENTS", ">", 0).await.unwrap();
    for (sequence, subject, id) in [(1, "evt.test.a", "1"), (3, "evt.test.a", "3"), (4, "evt.test.b", "4")] {
        let event = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        assert_eq!((event.sequence, event.subject.as_str(), &event.payload[..]), (sequence, subject, &b"body"[..]));
        let headers = (event.headers.get("Event-Type"), event.headers.get("Nats-Msg-Id"));
        assert_eq!(headers, (Some("test"), Some(id)));
    }
}

async fn job(reader: &mut Consumer) -> Job {
    tokio::time::timeout(PATIENCE, reader.next(1)).await.expect("no job came").unwrap()
}

fn reader(log: &'static str, filter: &'static str) -> ConsumerConfig {
    ConsumerConfig { log, name: "reader", filter, ack_wait: Duration::from_secs(60), deliveries_max: Some(9) }
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    const PAUSE: Duration = Duration::from_secs(3_600);
    {
        let store = open(folder.path());
        store.provide_log(LOG).await.unwrap();
        store.provide_consumer(reader("TEST_EVENTS", ">")).await.unwrap();
        for id in ["1", "2", "3", "4"] {
            store.append(event("evt.test.a", id)).await.unwrap();
        }
        let mut consumer = store.consumer("TEST_EVENTS", "reader").await.unwrap();
        let jobs = [job(&mut consumer).await, job(&mut consumer).await, job(&mut consumer).await];
        jobs[0].ack().await.unwrap();
        jobs[1].retry(PAUSE).await.unwrap();
    }
    let store = open(folder.path());
    store.provide_log(LOG).await.unwrap();
    store.provide_consumer(reader("TEST_EVENTS", ">")).await.unwrap();
    let mut consumer = store.consumer("TEST_EVENTS", "reader").await.unwrap();
    // The first is done, the second waits for its hour, the third was with a reader that is gone.
    for expected in [(3, 2), (4, 1)] {
        let job = job(&mut consumer).await;
        assert_eq!((job.event.sequence, job.deliveries), expected);
        job.ack().await.unwrap();
    }
    let figures = store.log_figures("TEST_EVENTS").await.unwrap();
    assert_eq!((figures.consumers[0].waiting, figures.consumers[0].unanswered), (0, 1));
}

#[tokio::test]
async fn done_work_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path());
        store.provide_log(WORK).await.unwrap();
        store.provide_consumer(reader("TEST_WORK", ">")).await.unwrap();
        for id in ["1", "2"] {
            store.append(event("work.test.a", id)).await.unwrap();
        }
        let mut consumer = store.consumer("TEST_WORK", "reader").await.unwrap();
        job(&mut consumer).await.ack().await.unwrap();
    }
    let store = open(folder.path());
    store.provide_log(WORK).await.unwrap();
    let figures = store.log_figures("TEST_WORK").await.unwrap();
    assert_eq!((figures.events, figures.first, figures.last), (1, Some(2), 2));
}

/// Why a folder is refused, without the folder's name.
fn refusal(folder: &Path) -> String {
    let error = Store::on_disk(&Bus::embedded(), folder).err().expect("the folder is refused");
    let StoreError::NotOpened(text) = error else { panic!("{error:?}") };
    text.replace(folder.to_str().unwrap(), "DIR")
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let in_use = "`DIR/tidegate.redb` is in use by another process: stop it, or name another folder";
    assert_eq!(refusal(folder.path()), in_use);
    let bucket = store.bucket(BUCKET).await.unwrap();
    bucket.put("k", vec![7; 100_000].into(), Expected::Any).await.unwrap();
    drop((store, bucket));

    let file = folder.path().join("tidegate.redb");
    let whole = std::fs::read(&file).unwrap();
    let damaged = "` is damaged or not written by Tidegate (";
    let advice = "): bring a copy back, or move it away to begin anew";
    let mut flipped = whole.clone();
    let middle = flipped.windows(1_000).position(|window| window.iter().all(|byte| *byte == 7)).unwrap();
    flipped[middle + 500] = 8;
    let foreign = b"SQLite format 3\0, and nothing that is ours".to_vec();
    for (what, bytes) in [("foreign", foreign), ("flipped", flipped), ("cut", whole[..whole.len() / 3].to_vec())] {
        std::fs::write(&file, &bytes).unwrap();
        let text = refusal(folder.path());
        assert!(text.contains(damaged) && text.ends_with(advice), "{what}: {text}");
    }
    assert_eq!(std::fs::read(&file).unwrap().len(), whole.len() / 3, "what is refused is left as it is");
    std::fs::write(&file, whole).unwrap();
    let bucket = open(folder.path()).bucket(BUCKET).await.unwrap();
    assert_eq!(bucket.get("k").await.unwrap().unwrap().value.len(), 100_000);

    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("data"), "a file").unwrap();
    let text = refusal(&elsewhere.path().join("data"));
    assert!(text.starts_with("the folder `DIR` cannot be made: "), "{text}");
}

fn dev(folder: &Path) -> Program {
    Program::start(&["dev", "--data", folder.to_str().unwrap(), "--routes", "built-in"])
}

/// The services' thread starts behind the gateway's.
async fn is_up(program: &Program) {
    eventually("the services are there", async || program.get("/v1/players/nobody/state").await.0 == 404).await;
}

async fn put(client: &reqwest::Client, address: &str, player: &str, money: u64) -> Option<u64> {
    let url = format!("http://{address}/v1/players/{player}/state");
    let body = format!(r#"{{"state": {{"money": {money}}}}}"#);
    let answer = client.put(url).header("content-type", "application/json").body(body).send().await.ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
    answer["new_version"].as_str()?.parse().ok()
}

#[tokio::test]
async fn after_kill_9_every_acknowledged_write_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut counts = [0_u64; 4];
    for round in 0..2 {
        let mut program = dev(folder.path());
        is_up(&program).await;
        let (client, is_over) = (reqwest::Client::new(), Arc::new(AtomicBool::new(false)));
        let writers: Vec<_> = (0..counts.len())
            .map(|player| {
                let (client, address, is_over) = (client.clone(), program.address.clone(), is_over.clone());
                let mut acknowledged = counts[player];
                tokio::spawn(async move {
                    while !is_over.load(Ordering::Relaxed) {
                        match put(&client, &address, &format!("p{player}"), acknowledged + 1).await {
                            Some(version) => {
                                // Versions go on by one: over the crash at most the write without an answer came in.
                                assert!(version > acknowledged && version <= acknowledged + 2, "{version}");
                                acknowledged = version;
                            }
                            None => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("there are many writes", async || {
            let (_, text) = program.get("/v1/players/p3/state").await;
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
            let version = answer["version"].as_str().and_then(|text| text.parse::<u64>().ok());
            version.is_some_and(|version| version >= 25 * (round + 1))
        })
        .await;
        program.signal("KILL");
        eventually("it is dead", async || program.ended().is_some()).await;
        is_over.store(true, Ordering::Relaxed);
        for (count, writer) in counts.iter_mut().zip(writers) {
            *count = writer.await.unwrap();
        }
    }
    let program = dev(folder.path());
    is_up(&program).await;
    for (player, count) in counts.iter().enumerate() {
        let (status, text) = program.get(&format!("/v1/players/p{player}/state")).await;
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let version: u64 = answer["version"].as_str().unwrap().parse().unwrap();
        assert_eq!(status, 200);
        assert!(version == *count || version == count + 1, "p{player}: {count} acknowledged, {version} there");
    }
}
