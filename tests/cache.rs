//! The cache of workers: what a key depends on, the two tiers, requests that wait for an equal one, and what becomes of
//! them when that one fails or is given up. Each rule holds where a bucket is the shared tier, and where a real Redis is.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use support::redis::RedisServer;
use support::{PATIENCE, eventually};
use tidegate::bus::{Bus, Headers, Reply, Request, Subject};
use tidegate::fault::{Code, Fault};
use tidegate::store::{BucketConfig, CACHE_PATIENCE, Store};
use tidegate::transcode::wire::{WireReader, put_bytes};
use tidegate::worker::{Cache, CacheConfig, CacheKey, Context, Keep, Made, Options, Service, Worker};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
import "tidegate/options.proto";
message Ask { string id = 1; map<string, string> more = 2; }
message Answer { string text = 1; string origin = 2; }
service Things {
  option (tidegate.service) = { name: "things" };
  rpc Get(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.things.get" }; }
  rpc Drop(Ask) returns (Answer) { option (tidegate.method) = { subject: "svc.things.drop" }; }
}
"#;
const ROUTES: &str = "annotations:\n  - { services: [ '*' ], convention: true }\n";

#[derive(Serialize, Deserialize)]
struct Ask {
    id: String,
    more: std::collections::BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    text: String,
    origin: String,
}

/// A service with one cached read.
struct Things {
    cache: Cache<String>,
    shared: Arc<Shared>,
}

/// What the test sees and steers of all replicas.
struct Shared {
    made: AtomicUsize,
    gate: tokio::sync::Semaphore,
    fails: AtomicBool,
    now_ms: AtomicI64,
}

impl Things {
    async fn get(self: Arc<Self>, context: Context, request: Ask) -> Result<Answer, Fault> {
        let key = CacheKey::of_request(&context)?;
        let make = async {
            let count = self.shared.made.fetch_add(1, Ordering::SeqCst) + 1;
            self.shared.gate.acquire().await.unwrap().forget();
            match self.shared.fails.load(Ordering::SeqCst) {
                false => Ok(Made { value: format!("{} {count}", request.id), is_kept: true }),
                true => Err(Fault::client(Code::FailedPrecondition, "it cannot be made").detail("reason", "test")),
            }
        };
        let keep = Keep { ttl: Duration::from_secs(60), tag: &request.id };
        let (text, origin) = self.cache.read(&context, &key, keep, make).await?;
        Ok(Answer { text: text.to_string(), origin: format!("{origin:?}") })
    }

    async fn drop(self: Arc<Self>, context: Context, request: Ask) -> Result<Answer, Fault> {
        self.cache.drop_tagged(Some(context.tenant()), &request.id).await?;
        Ok(Answer { text: String::new(), origin: String::new() })
    }
}

/// Two replicas that share a store, each on a bus of its own, so that a test chooses which one it asks.
struct Setup {
    buses: Vec<Bus>,
    shared: Arc<Shared>,
    _workers: Vec<Worker>,
}

impl Setup {
    async fn start() -> Setup {
        let store = Store::of(&Bus::embedded());
        Setup::on("test", [store.clone(), store]).await
    }

    /// Two replicas with a connection each to a Redis server.
    async fn on_redis(url: &str) -> Setup {
        Setup::named_on_redis("test", url, PATIENCE).await
    }

    /// The same with a name of its own in metrics, and another longest wait for the server.
    async fn named_on_redis(name: &'static str, url: &str, patience: Duration) -> Setup {
        let store = Store::of(&Bus::embedded());
        Setup::on(name, [(); 2].map(|()| store.with_cache(url, patience).unwrap())).await
    }

    async fn on(name: &'static str, stores: [Store; 2]) -> Setup {
        let shared = Arc::new(Shared {
            made: AtomicUsize::new(0),
            gate: tokio::sync::Semaphore::new(1_000),
            fails: AtomicBool::new(false),
            now_ms: AtomicI64::new(1_760_000_000_000),
        });
        let (buses, mut workers) = (vec![Bus::embedded(), Bus::embedded()], Vec::new());
        for (bus, store) in buses.iter().zip(&stores) {
            let mut options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, PROTO)));
            options.store = store.clone();
            let clock = shared.clone();
            options.clock = Arc::new(move || clock.now_ms.load(Ordering::SeqCst));
            let bucket = BucketConfig { name: "tg_test", ttl: None, history: 1 };
            let config = CacheConfig { name, bucket, local_ttl: Duration::from_secs(5), local_max: 3 };
            let things = Things { cache: Cache::open(store, config).await.unwrap(), shared: shared.clone() };
            let service = Service::new("things", "1.0.0").sharing(things);
            let service = service.unary("t.v1.Things/Get", Things::get).unary("t.v1.Things/Drop", Things::drop).done();
            workers.push(Worker::start(options, vec![service]).await.unwrap_or_else(|error| panic!("{error}")));
        }
        Setup { buses, shared, _workers: workers }
    }

    async fn send(&self, replica: usize, method: &str, payload: Vec<u8>, headers: &[(&'static str, &str)]) -> Reply {
        let mut all = Headers::new();
        for (name, value) in headers {
            all.push(*name, *value);
        }
        let subject = Subject::new(format!("svc.things.{method}")).unwrap();
        let timeout = Duration::from_secs(5);
        let request = Request { subject, headers: all, payload: payload.into(), timeout, proof: None };
        self.buses[replica].request(request).await.unwrap()
    }

    /// Text and origin of an answer, or its error.
    async fn ask(&self, replica: usize, id: &str, headers: &[(&'static str, &str)]) -> String {
        let mut payload = Vec::new();
        put_bytes(1, id.as_bytes(), &mut payload);
        said(&self.send(replica, "get", payload, headers).await)
    }

    async fn get(&self, replica: usize, id: &str) -> String {
        self.ask(replica, id, &[]).await
    }

    fn made(&self) -> usize {
        self.shared.made.load(Ordering::SeqCst)
    }

    /// From now on nothing is made until the gate is opened.
    fn close(&self) {
        self.shared.gate.forget_permits(1_000);
    }

    fn open(&self) {
        self.shared.gate.add_permits(1_000);
    }
}

fn said(reply: &Reply) -> String {
    if let Some(error) = reply.headers.get("Nats-Service-Error") {
        return error.to_owned();
    }
    let mut reader = WireReader::new(&reply.payload);
    let mut texts = Vec::new();
    while !reader.is_done() {
        reader.tag().unwrap();
        let (from, to) = reader.length().unwrap();
        texts.push(String::from_utf8_lossy(&reply.payload[from..to]).into_owned());
    }
    texts.join(", ")
}

/// Runs a rule with each shared tier.
macro_rules! with_each_tier {
    ($($rule:ident),* $(,)?) => {
        mod bucket {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(&super::Setup::start().await).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $rule() {
                let server = super::RedisServer::start();
                super::$rule(&super::Setup::on_redis(&server.url()).await).await;
            })*
        }
    };
}

with_each_tier!(
    a_value_is_made_once_for_both_replicas_until_it_is_too_old,
    a_key_is_method_tenant_user_and_content_in_any_encoding,
    more_values_than_fit_in_memory_are_still_in_the_shared_tier,
    what_is_dropped_by_its_tag_is_made_anew,
    what_is_dropped_while_it_is_made_is_for_those_who_asked_before,
    equal_requests_wait_for_the_one_that_is_being_made,
    a_failure_is_shared_by_those_who_wait_and_not_kept,
    who_waits_makes_the_value_where_the_first_one_has_no_time_left,
);

async fn a_value_is_made_once_for_both_replicas_until_it_is_too_old(setup: &Setup) {
    assert_eq!(setup.get(0, "a").await, "a 1, Made");
    assert_eq!(setup.get(0, "a").await, "a 1, Local");
    assert_eq!(setup.get(1, "a").await, "a 1, Store");
    assert_eq!(setup.get(1, "a").await, "a 1, Local");
    setup.shared.now_ms.fetch_add(5_000, Ordering::SeqCst);
    assert_eq!(setup.get(0, "a").await, "a 1, Store");
    setup.shared.now_ms.fetch_add(55_000, Ordering::SeqCst);
    assert_eq!(setup.get(0, "a").await, "a 2, Made");
}

async fn a_key_is_method_tenant_user_and_content_in_any_encoding(setup: &Setup) {
    assert_eq!(setup.get(0, "a").await, "a 1, Made");
    assert_eq!(setup.get(0, "b").await, "b 2, Made");
    assert_eq!(setup.ask(0, "a", &[("Tidegate-User", "u")]).await, "a 3, Made");
    assert_eq!(setup.ask(0, "a", &[("Tidegate-Tenant", "t")]).await, "a 4, Made");
    let entry = |key: &str| {
        let mut entry = Vec::new();
        put_bytes(1, key.as_bytes(), &mut entry);
        entry
    };
    for (keys, expected) in [(["x", "y"], "c 5, Made"), (["y", "x"], "c 5, Local")] {
        let mut payload = Vec::new();
        keys.iter().for_each(|key| put_bytes(2, &entry(key), &mut payload));
        put_bytes(1, b"c", &mut payload);
        assert_eq!(said(&setup.send(0, "get", payload, &[]).await), expected);
    }
}

async fn more_values_than_fit_in_memory_are_still_in_the_shared_tier(setup: &Setup) {
    for id in ["a", "b", "c", "d", "e"] {
        setup.get(0, id).await;
    }
    for id in ["a", "b", "c", "d", "e"] {
        let said = setup.get(0, id).await;
        assert!(said.ends_with("Local") || said.ends_with("Store"), "{said}");
    }
    assert_eq!(setup.made(), 5);
}

async fn what_is_dropped_by_its_tag_is_made_anew(setup: &Setup) {
    setup.get(0, "a").await;
    setup.get(0, "b").await;
    let mut tag = Vec::new();
    put_bytes(1, b"a", &mut tag);
    setup.send(0, "drop", tag, &[]).await;
    assert_eq!(setup.get(0, "b").await, "b 2, Local");
    assert_eq!(setup.get(0, "a").await, "a 3, Made");
    assert_eq!(setup.get(1, "a").await, "a 3, Store");
}

async fn what_is_dropped_while_it_is_made_is_for_those_who_asked_before(setup: &Setup) {
    setup.close();
    let changing = async {
        eventually("one is being made", async || setup.made() == 1).await;
        let mut tag = Vec::new();
        put_bytes(1, b"a", &mut tag);
        setup.send(0, "drop", tag, &[]).await;
        let opening = async {
            eventually("another one is being made", async || setup.made() == 2).await;
            setup.open();
        };
        tokio::join!(setup.get(0, "a"), opening).0
    };
    let (before, after) = tokio::join!(setup.get(0, "a"), changing);
    assert_eq!((before.as_str(), after.as_str()), ("a 1, Made", "a 2, Made"));
    assert_eq!(setup.get(0, "a").await, "a 2, Local");
    assert_eq!(setup.get(1, "a").await, "a 2, Store");
}

async fn equal_requests_wait_for_the_one_that_is_being_made(setup: &Setup) {
    setup.close();
    let opening = async {
        eventually("one is being made", async || setup.made() == 1).await;
        setup.open();
    };
    let (first, second, third, ()) = tokio::join!(setup.get(0, "a"), setup.get(0, "a"), setup.get(0, "a"), opening);
    let mut answers = [first, second, third];
    answers.sort();
    assert_eq!(answers, ["a 1, Joined", "a 1, Joined", "a 1, Made"]);
}

async fn a_failure_is_shared_by_those_who_wait_and_not_kept(setup: &Setup) {
    setup.close();
    setup.shared.fails.store(true, Ordering::SeqCst);
    let opening = async {
        eventually("one is being made", async || setup.made() == 1).await;
        setup.open();
    };
    let (first, second, ()) = tokio::join!(setup.get(0, "a"), setup.get(0, "a"), opening);
    assert_eq!((first.as_str(), second.as_str(), setup.made()), ("it cannot be made", "it cannot be made", 1));
    setup.shared.fails.store(false, Ordering::SeqCst);
    assert_eq!(setup.get(0, "a").await, "a 2, Made");
}

async fn who_waits_makes_the_value_where_the_first_one_has_no_time_left(setup: &Setup) {
    setup.close();
    let opening = async {
        eventually("the second one makes it", async || setup.made() == 2).await;
        setup.open();
    };
    let (first, second, ()) =
        tokio::join!(setup.ask(0, "a", &[("Tidegate-Timeout", "100")]), setup.get(0, "a"), opening);
    assert_eq!((first.as_str(), second.as_str()), ("the deadline has passed", "a 2, Made"));
}

#[tokio::test]
async fn redis_keeps_a_value_as_long_as_it_is_good_and_no_tag_longer_than_its_values() {
    let server = RedisServer::start();
    let setup = Setup::on_redis(&server.url()).await;
    setup.get(0, "a").await;
    setup.ask(0, "a", &[("Tidegate-User", "u")]).await;
    let number = |answer: String| answer.trim_start_matches(':').parse::<i64>().unwrap();
    let keys = server.say("KEYS tidegate:tg_test:*");
    let key = keys.lines().find(|line| line.starts_with("tidegate:")).unwrap();
    for key in [key, "tidegate:tg_test#a"] {
        let left_ms = number(server.say(&format!("PTTL {key}")));
        assert!(left_ms > 50_000 && left_ms <= 60_000, "{key}: {left_ms}");
    }
    assert_eq!(number(server.say("ZCARD tidegate:tg_test#a")), 2);
    // What has gone by itself leaves the tag with the next value.
    server.say("ZADD tidegate:tg_test#a 1 gone");
    setup.ask(0, "a", &[("Tidegate-User", "v")]).await;
    assert_eq!(number(server.say("ZCARD tidegate:tg_test#a")), 3);
    let mut tag = Vec::new();
    put_bytes(1, b"a", &mut tag);
    setup.send(0, "drop", tag, &[]).await;
    assert_eq!(server.say("KEYS *"), "*0", "nothing is left of what was dropped");
}

#[tokio::test]
async fn environments_with_prefixes_of_their_own_share_a_server_and_nothing_else() {
    let server = RedisServer::start();
    let on = async |prefix: &str| Setup::on_redis(&format!("{}?prefix={prefix}", server.url())).await;
    let (staging, production) = (on("staging").await, on("production").await);
    assert_eq!(staging.get(0, "a").await, "a 1, Made");
    assert_eq!(production.get(0, "a").await, "a 1, Made");
    assert_eq!((staging.get(1, "a").await, production.get(1, "a").await), ("a 1, Store".into(), "a 1, Store".into()));
    let mut tag = Vec::new();
    put_bytes(1, b"a", &mut tag);
    staging.send(0, "drop", tag, &[]).await;
    assert_eq!(server.say("KEYS staging:*"), "*0");
    assert!(server.say("KEYS production:*").starts_with("*2"));
}

/// What a counter of this process stands at.
fn counted(handle: &tidegate::telemetry::PrometheusHandle, line: &str) -> u64 {
    let text = handle.render();
    text.lines().find_map(|found| found.strip_prefix(line)).map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test]
async fn reads_do_not_fail_and_hardly_wait_where_redis_is_not_there_and_share_again_once_it_is() {
    let handle = tidegate::telemetry::install_metrics().expect("this test alone counts");
    let mut server = RedisServer::start();
    let url = server.url();
    server.kill();
    const WAIT: Duration = Duration::from_millis(500);
    let setup = Setup::named_on_redis("lonely", &url, WAIT).await;
    let started = Instant::now();
    for id in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        assert!(setup.get(0, id).await.ends_with(", Made"));
    }
    // Three wait for the server, then a breaker says so at once: without it there would be sixteen waits.
    assert!(started.elapsed() < WAIT * 10, "{:?}", started.elapsed());
    assert_eq!(setup.get(0, "h").await, "h 8, Local");
    assert_eq!(counted(&handle, r#"tidegate_cache_failures_total{cache="lonely"}"#), 16);

    server.restart();
    eventually("the replicas share again", async || {
        let id = uuid::Uuid::new_v4().to_string();
        setup.get(0, &id).await;
        setup.get(1, &id).await.ends_with(", Store")
    })
    .await;
    // A server that hangs is no better than none.
    server.signal("STOP");
    let started = Instant::now();
    assert!(setup.get(0, "later").await.ends_with(", Made"));
    assert!(started.elapsed() < WAIT * 6, "{:?}", started.elapsed());
    server.signal("CONT");
    eventually("the replicas share once more", async || {
        let id = uuid::Uuid::new_v4().to_string();
        setup.get(0, &id).await;
        setup.get(1, &id).await.ends_with(", Store")
    })
    .await;
    let hits =
        |origin: &str| counted(&handle, &format!(r#"tidegate_cache_reads_total{{cache="lonely",origin="{origin}"}}"#));
    assert!(hits("local") >= 1 && hits("store") >= 2 && hits("made") >= 9);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_without_its_password() {
    let store = Store::of(&Bus::embedded());
    for url in ["http://user:secret@host", "redis//user:secret@host", ""] {
        let error = store.with_cache(url, CACHE_PATIENCE).err().expect("it is refused");
        let expected = "the store refuses it: the address of the cache is none: expected one such as \
                        `redis://user:password@host:6379/0`, or `rediss://` for TLS";
        assert_eq!(error.to_string(), expected);
    }
}
