//! Documents with their events and repeat keys: nothing is lost between the change and its event, nothing is told
//! twice, versions never go back; on the embedded bus and on a real nats-server, with two replicas.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::eventually;
use support::nats::NatsServer;
use support::place::on_each_bus;
use tidegate::bus::Bus;
use tidegate::fault::{Code, Fault};
use tidegate::store::{BucketConfig, Expected, Keys, LogConfig, LogReader, Store};
use tidegate::worker::records::{Change, Current, EventId, Notice, RecordSeen, Records, RecordsConfig};
use tidegate::worker::{Context, Failed, Options, Service, Worker};

const SWEEP: Duration = Duration::from_millis(50);
const LOG: LogConfig = LogConfig {
    name: "COUNTED",
    subjects: &["evt.counted.>"],
    max_age: Duration::from_secs(3_600),
    duplicate_window: Duration::from_secs(120),
    ..LogConfig::DEFAULT
};
const PROTO: &str = r#"
    syntax = "proto3";
    package count.v1;
    message Count { int64 count = 1; }
"#;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Count {
    count: i64,
}

/// One replica of a service that counts.
struct Replica {
    context: Context,
    counts: Records<Count>,
    now_ms: Arc<AtomicI64>,
    _worker: Worker,
}

impl Replica {
    /// A replica with its sweeper running or not.
    async fn start(bus: &Bus, store: &Store, sweeps: bool) -> Replica {
        Replica::with(bus, store, sweeps, |_| {}).await
    }

    async fn with(bus: &Bus, store: &Store, sweeps: bool, change: impl FnOnce(&mut RecordsConfig)) -> Replica {
        let snapshot = Arc::new(support::snapshot("version: 1\nroutes: []\n", PROTO));
        let mut options = Options::new(bus.clone(), snapshot);
        options.store = store.clone();
        let now_ms = Arc::new(AtomicI64::new(1_760_000_000_000));
        let clock = now_ms.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let mut config = RecordsConfig::new(BucketConfig { name: "tg_counts", ttl: None, history: 1 });
        config.sweep = Arc::new(|| SWEEP);
        let others = BucketConfig { name: "tg_others", ttl: None, history: 1 };
        config.others = vec![("tg_others", store.bucket(others).await.unwrap())];
        change(&mut config);
        let counts: Records<Count> = Records::open(store, config).await.unwrap();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let sweeper = counts.clone();
        let service = Service::new("counter", "1.0.0").task("sweeper", move |context| {
            let (tell, sweeper) = (tell.clone(), sweeper.clone());
            async move {
                tell.send(context.clone()).unwrap();
                if sweeps {
                    sweeper.sweeper(&context).await;
                }
            }
        });
        let worker = Worker::start(options, vec![service]).await.unwrap();
        let mut told = told;
        let context = told.recv().await.unwrap();
        Replica { context, counts, now_ms, _worker: worker }
    }

    fn counted(&self, count: i64) -> Result<Notice, Fault> {
        let id = EventId::AtRevision("count".to_owned());
        Notice::new(&self.context, "evt.counted.up.v1", id, "count.v1.Count", &Count { count })
    }

    /// Counts up by one, with an event.
    async fn up(&self, key: &str) -> Result<(i64, u64), Failed<i64>> {
        let rule = |current: &Current<Count>| {
            let count = current.value.as_ref().map_or(0, |count| count.count) + 1;
            Ok(Change::put(Count { count }, count).event(self.counted(count)?))
        };
        let done = self.counts.change(&self.context, key, rule).await?;
        Ok((done.reply, done.revision))
    }

    /// Counts up, again where a stream of a fresh cluster has no leader for a moment.
    async fn up_surely(&self, key: &str) -> (i64, u64) {
        loop {
            match self.up(key).await {
                Ok(done) => return done,
                Err(failed) if failed.fault.code() == Code::Unavailable => {}
                Err(failed) => panic!("{:?}", failed.fault),
            }
        }
    }

    /// The unsent work in a record, as the bucket holds it.
    async fn pending(&self, key: &str) -> usize {
        let entry = self.counts.bucket().get(key).await.unwrap().unwrap();
        let record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        record["pending"].as_array().unwrap().len()
    }

    async fn swept(&self, key: &str) {
        eventually("the record holds no unsent work", async || self.pending(key).await == 0).await;
    }
}

async fn log(store: &Store) -> LogReader {
    store.read_log(LOG.name, ">", 0).await.unwrap()
}

/// The ids of the next events.
async fn ids(reader: &mut LogReader, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let event = tokio::time::timeout(support::PATIENCE, reader.next()).await.expect("an event").unwrap();
        ids.push(event.headers.get("Nats-Msg-Id").unwrap().to_owned());
    }
    ids
}

/// True where the log stays as it is while the sweepers have passed a few times.
async fn is_silent(reader: &mut LogReader) -> bool {
    tokio::time::timeout(SWEEP * 6, reader.next()).await.is_err()
}

on_each_bus!(
    |place| (&place.bus, &Store::of(&place.bus));
    a_change_its_event_and_its_clearing,
    an_event_that_found_no_log_is_sent_later,
    what_a_dead_replica_left_is_sent_by_another_one,
    a_put_in_another_bucket_goes_with_the_change,
    racing_writers_lose_nothing,
    a_read_is_no_older_than_an_acknowledged_write,
    a_deletion_keeps_the_version,
    a_document_expires_and_that_is_told,
    a_watch_tells_each_change_once,
    a_record_that_cannot_be_read_keeps_nobody_from_the_others,
);

async fn a_change_its_event_and_its_clearing(bus: &Bus, store: &Store) {
    store.provide_log(LOG).await.unwrap();
    let replica = Replica::start(bus, store, true).await;
    let (count, revision) = replica.up("k").await.ok().unwrap();
    assert_eq!(count, 1);
    let mut events = log(store).await;
    assert_eq!(ids(&mut events, 1).await, [format!("count:{revision}")]);
    replica.swept("k").await;
    let document = replica.counts.get(&replica.context, "k").await.unwrap().unwrap();
    assert_eq!((document.value.count, document.version), (1, 1));
    assert_eq!(document.revision, revision, "clearing what was sent is no change");
    assert!(is_silent(&mut events).await, "the event is sent once");
}

async fn an_event_that_found_no_log_is_sent_later(bus: &Bus, store: &Store) {
    let replica = Replica::start(bus, store, true).await;
    let (_, first) = replica.up("k").await.ok().unwrap();
    let (_, second) = replica.up("k").await.ok().unwrap();
    assert_eq!(replica.pending("k").await, 2, "both events wait in the record");
    store.provide_log(LOG).await.unwrap();
    let mut events = log(store).await;
    let mut found = ids(&mut events, 2).await;
    found.sort();
    let mut expected = vec![format!("count:{first}"), format!("count:{second}")];
    expected.sort();
    assert_eq!(found, expected);
    replica.swept("k").await;
}

async fn what_a_dead_replica_left_is_sent_by_another_one(bus: &Bus, store: &Store) {
    let dead = Replica::start(bus, store, false).await;
    let (_, revision) = dead.up("k").await.ok().unwrap();
    drop(dead);
    store.provide_log(LOG).await.unwrap();
    let replica = Replica::start(bus, store, true).await;
    let mut events = log(store).await;
    assert_eq!(ids(&mut events, 1).await, [format!("count:{revision}")]);
    replica.swept("k").await;
}

async fn a_put_in_another_bucket_goes_with_the_change(bus: &Bus, store: &Store) {
    let replica = Replica::start(bus, store, true).await;
    let rule = |_: &Current<Count>| {
        Ok(Change::put(Count { count: 1 }, ()).also_put("tg_others", "entry.1".to_owned(), 7.into()))
    };
    replica.counts.change(&replica.context, "k", rule).await.ok().unwrap();
    let others = BucketConfig { name: "tg_others", ttl: None, history: 1 };
    let others = store.bucket(others).await.unwrap();
    assert_eq!(others.get("entry.1").await.unwrap().unwrap().value, "7");
    replica.swept("k").await;
}

async fn racing_writers_lose_nothing(bus: &Bus, store: &Store) {
    store.provide_log(LOG).await.unwrap();
    let replicas = Arc::new([Replica::start(bus, store, true).await, Replica::start(bus, store, true).await]);
    let writers = (0..20).map(|writer| {
        let replicas = replicas.clone();
        tokio::spawn(async move { replicas[writer % 2].up("k").await.ok().expect("a writer gave up").0 })
    });
    let mut counts = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        counts.push(writer.await.unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>());
    let mut found = ids(&mut log(store).await, 20).await;
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 20, "every change has an event of its own");
}

/// Reads at the same moment ask the leader once how far it is, and nothing else; and they miss nothing that another
/// replica has written before.
async fn reads_share_a_question(servers: &[NatsServer]) {
    const KEYS: usize = 20;
    const READS: usize = 200;
    let (bus, other_bus) = (servers[0].bus().await, servers[servers.len() - 1].bus().await);
    let (store, other_store) = (Store::of(&bus), Store::of(&other_bus));
    eventually("the log is there", async || store.provide_log(LOG).await.is_ok()).await;
    let reader = Replica::start(&bus, &store, true).await;
    let other = Replica::start(&other_bus, &other_store, true).await;
    let name = |number: usize| format!("k{}", number % KEYS);
    for number in 0..KEYS {
        other.up_surely(&name(number)).await;
    }
    eventually("reads share a question", async || {
        let before = messages(servers).await;
        let reads = (0..READS).map(|number| {
            let (reader, name) = (&reader, name(number));
            async move { reader.counts.get(&reader.context, &name).await.unwrap().unwrap().value.count }
        });
        assert!(futures_util::future::join_all(reads).await.iter().all(|count| *count >= 1));
        messages(servers).await - before < READS as u64 / 4
    })
    .await;
    for turn in 0..200 {
        let (count, revision) = other.up_surely(&name(turn)).await;
        let read = reader.counts.get(&reader.context, &name(turn)).await.unwrap().unwrap();
        assert_eq!((read.value.count, read.revision), (count, revision), "{turn}");
        let (count, _) = reader.up_surely(&name(turn)).await;
        let read = other.counts.get(&other.context, &name(turn)).await.unwrap().unwrap();
        assert_eq!(read.value.count, count, "{turn}");
    }
}

/// Messages to the servers so far: their figures of JetStream leave reads out.
async fn messages(servers: &[NatsServer]) -> u64 {
    let mut sum = 0;
    for server in servers {
        sum += server.monitored("/varz").await.unwrap()["in_msgs"].as_u64().unwrap();
    }
    sum
}

#[tokio::test]
async fn reads_on_a_server_share_a_question() {
    reads_share_a_question(&[NatsServer::start()]).await;
}

#[tokio::test]
async fn reads_on_a_cluster_share_a_question() {
    reads_share_a_question(&NatsServer::jetstream_cluster::<3>().await).await;
}

/// Two replicas write the same few documents as fast as they can, the third one reads them: revisions are replaced
/// before anybody's watch has come to them.
async fn a_read_is_no_older_than_an_acknowledged_write(bus: &Bus, store: &Store) {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    store.provide_log(LOG).await.unwrap();
    let replica = || async { Arc::new(Replica::start(bus, store, true).await) };
    let (one, other, reader) = (replica().await, replica().await, replica().await);
    let acknowledged: Arc<[AtomicI64; 3]> = Arc::default();
    let writers = [one, other].into_iter().enumerate().map(|(number, replica)| {
        let acknowledged = acknowledged.clone();
        tokio::spawn(async move {
            for turn in 0..150 {
                let key = (turn + number) % KEYS.len();
                let (count, _) = replica.up(KEYS[key]).await.ok().expect("a writer gave up");
                acknowledged[key].fetch_max(count, Ordering::SeqCst);
            }
        })
    });
    let mut writers = futures_util::future::join_all(writers.collect::<Vec<_>>());
    let mut reads = 0;
    loop {
        for (key, acknowledged) in KEYS.iter().zip(acknowledged.iter()) {
            let before = acknowledged.load(Ordering::SeqCst);
            let found = reader.counts.get(&reader.context, key).await.unwrap().map_or(0, |found| found.value.count);
            assert!(found >= before, "{key}: read {found} behind {before}");
            reads += 1;
        }
        let pause = tokio::time::sleep(Duration::from_millis(1));
        if tokio::select! { _ = &mut writers => true, () = pause => false } {
            break;
        }
    }
    assert!(reads > 30, "only {reads} reads");
}

async fn a_deletion_keeps_the_version(bus: &Bus, store: &Store) {
    let replica = Replica::start(bus, store, true).await;
    let change = |value: Option<i64>| {
        let counts = &replica.counts;
        let context = &replica.context;
        async move {
            let rule = |_: &Current<Count>| {
                Ok(match value {
                    Some(count) => Change::put(Count { count }, ()),
                    None => Change::delete(()),
                })
            };
            counts.change(context, "k", rule).await.ok().unwrap().version
        }
    };
    assert_eq!(change(Some(1)).await, 1);
    assert_eq!(change(None).await, 2);
    assert!(replica.counts.get(&replica.context, "k").await.unwrap().is_none());
    assert_eq!(change(Some(2)).await, 3);
}

async fn a_document_expires_and_that_is_told(bus: &Bus, store: &Store) {
    store.provide_log(LOG).await.unwrap();
    let replica = Replica::with(bus, store, true, |config| {
        config.keeps_tombstones = false;
        config.expired = Some(Arc::new(|context, key, value| {
            let count = Count { count: value["count"].as_i64().unwrap() };
            let id = EventId::Text(format!("{key}:gone"));
            Ok(vec![Notice::new(context, "evt.counted.gone.v1", id, "count.v1.Count", &count)?])
        }));
    })
    .await;
    let at_ms = replica.context.now_ms() + 1_000;
    let rule = |_: &Current<Count>| Ok(Change::put(Count { count: 4 }, ()).expires_at_ms(at_ms));
    replica.counts.change(&replica.context, "k", rule).await.ok().unwrap();
    assert!(replica.counts.get(&replica.context, "k").await.unwrap().is_some());
    replica.now_ms.store(at_ms, Ordering::Relaxed);
    assert!(replica.counts.get(&replica.context, "k").await.unwrap().is_none(), "it counts as absent at once");
    assert_eq!(ids(&mut log(store).await, 1).await, ["k:gone"]);
    eventually("the record is gone", async || replica.counts.bucket().get("k").await.unwrap().is_none()).await;
}

async fn a_watch_tells_each_change_once(bus: &Bus, store: &Store) {
    store.provide_log(LOG).await.unwrap();
    let replica = Replica::start(bus, store, true).await;
    let (_, first) = replica.up("k").await.ok().unwrap();
    replica.swept("k").await;
    let context = &replica.context;
    let mut watch = replica.counts.watch(Keys::All, None).await.unwrap();
    let mut resumed = replica.counts.watch(Keys::One("k".to_owned()), Some(first)).await.unwrap();
    let told = |seen: RecordSeen<Count>| match seen {
        RecordSeen::Change { document, revision, .. } => Some((document.unwrap().value.count, revision)),
        RecordSeen::Current => None,
    };
    assert_eq!(told(watch.next(context).await.unwrap()), Some((1, first)));
    assert_eq!(told(watch.next(context).await.unwrap()), None);
    let (_, second) = replica.up("k").await.ok().unwrap();
    replica.swept("k").await;
    let (_, third) = replica.up("k").await.ok().unwrap();
    for (watch, name) in [(&mut watch, "from the start"), (&mut resumed, "resumed")] {
        let mut changes = Vec::new();
        while changes.last() != Some(&(3, third)) {
            let next = tokio::time::timeout(support::PATIENCE, watch.next(context)).await.expect(name);
            changes.extend(told(next.unwrap()));
        }
        // A slow reader may miss the second change, and never sees one twice.
        assert!(changes == [(2, second), (3, third)] || changes == [(3, third)], "{name}: {changes:?}");
    }
}

/// What somebody may write past the workers: no record, and a record of another kind of document.
const GARBAGE: &str = "garbage";
const ANOTHER_KIND: &str = r#"{"schema":1,"value":{"count":"seven"},"version":1,"updated_ms":1,"expires_at_ms":0,
    "changed_at":null,"pending":[],"recent":[]}"#;

impl Replica {
    async fn write_past(&self, key: &str, text: &'static str) {
        self.counts.bucket().put(key, text.into(), Expected::Any).await.unwrap();
    }

    async fn listed(&self) -> Vec<String> {
        let listed = self.counts.list(&self.context, &Keys::All).await.unwrap();
        listed.into_iter().map(|(key, _)| key).collect()
    }
}

async fn a_record_that_cannot_be_read_keeps_nobody_from_the_others(bus: &Bus, store: &Store) {
    store.provide_log(LOG).await.unwrap();
    let replica = Replica::start(bus, store, true).await;
    let (context, counts) = (&replica.context, &replica.counts);
    replica.up_surely("a").await;
    replica.write_past("b", GARBAGE).await;
    replica.write_past("c", ANOTHER_KIND).await;
    replica.up_surely("d").await;
    assert_eq!(replica.listed().await, ["a", "d"]);

    let mut watch = counts.watch(Keys::All, None).await.unwrap();
    let mut told = async || match tokio::time::timeout(support::PATIENCE, watch.next(context)).await {
        Ok(Ok(RecordSeen::Change { key, .. })) => key,
        Ok(Ok(RecordSeen::Current)) => "current".to_owned(),
        other => panic!("{other:?}"),
    };
    let mut there = [told().await, told().await];
    there.sort();
    assert_eq!(there, ["a", "d"]);
    assert_eq!(told().await, "current");
    replica.write_past("a", GARBAGE).await;
    replica.up_surely("e").await;
    assert_eq!(told().await, "e");

    // Who asks for the record itself is told what is wrong with it.
    let refused = [
        ("b", "INTERNAL: a stored record cannot be read (expected value at line 1 column 1)"),
        (
            "c",
            "INTERNAL: a stored record cannot be read (invalid type: string \"seven\", expected i64 at line 1 column 16)",
        ),
    ];
    for (key, text) in refused {
        assert_eq!(counts.get(context, key).await.unwrap_err().to_string(), text);
        assert_eq!(replica.up(key).await.unwrap_err().fault.to_string(), text);
        let mut watch = counts.watch(Keys::One(key.to_owned()), None).await.unwrap();
        assert_eq!(watch.next(context).await.unwrap_err().to_string(), text);
    }

    // The sweeper goes on, and a key whose garbage was deleted can be written.
    replica.swept("e").await;
    counts.bucket().delete("b", Expected::Any).await.unwrap();
    replica.up_surely("b").await;
    assert_eq!(told().await, "b");
    assert_eq!(replica.listed().await, ["b", "d", "e"]);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_counted_once() {
    let handle = tidegate::telemetry::install_metrics().expect("this test alone counts");
    let bus = Bus::embedded();
    let store = Store::of(&bus);
    let replica = Replica::with(&bus, &store, true, |config| config.bucket.name = "tg_garbled").await;
    let counted = || {
        let text = handle.render();
        let line =
            text.lines().find(|line| line.starts_with(r#"tidegate_records_unreadable_total{bucket="tg_garbled"}"#));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    // Nobody has to list it: the sweeper comes by.
    replica.write_past("b", GARBAGE).await;
    eventually("the sweeper counts garbage", async || counted() == 1).await;
    replica.write_past("c", ANOTHER_KIND).await;
    for _ in 0..3 {
        assert!(replica.listed().await.is_empty());
    }
    assert_eq!(counted(), 2);
    replica.write_past("b", GARBAGE).await;
    eventually("garbage written anew counts anew", async || counted() == 3).await;
}

#[tokio::test]
async fn more_expiring_records_than_a_sweeper_keeps_hold_up_none_of_them() {
    const LATE: usize = 100_100;
    let bus = Bus::embedded();
    let store = Store::of(&bus);
    let replica = Replica::with(&bus, &store, true, |config| config.keeps_tombstones = false).await;
    let (context, bucket) = (&replica.context, replica.counts.bucket());
    let (soon_ms, late_ms) = (context.now_ms() + 1_000, context.now_ms() + 3_600_000);
    for number in 0..LATE {
        let record = ANOTHER_KIND.replace(r#""expires_at_ms":0"#, &format!(r#""expires_at_ms":{late_ms}"#));
        bucket.put(&format!("late.{number}"), record.into(), Expected::Any).await.unwrap();
    }
    let rule = |_: &Current<Count>| Ok(Change::put(Count { count: 1 }, ()).expires_at_ms(soon_ms));
    replica.counts.change(context, "soon", rule).await.ok().unwrap();
    replica.now_ms.store(soon_ms, Ordering::Relaxed);
    eventually("the newest record goes first", async || bucket.get("soon").await.unwrap().is_none()).await;
    replica.now_ms.store(late_ms, Ordering::Relaxed);
    // A busy machine takes its time for so many, but never stands still: a few of them tell.
    let mut left: Vec<usize> = (0..LATE).step_by(LATE / 100).collect();
    while !left.is_empty() {
        let before = left.len();
        eventually("more have gone, in turns", async || {
            let mut still = Vec::new();
            for number in &left {
                if bucket.get(&format!("late.{number}")).await.unwrap().is_some() {
                    still.push(*number);
                }
            }
            left = still;
            left.len() < before
        })
        .await;
    }
    eventually("all have gone", async || bucket.list(&Keys::All).await.unwrap().is_empty()).await;
}
