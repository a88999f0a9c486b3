//! Two replicas of every service on one bus, called over the bus with JSON in and out, as a gateway or as a service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::bus::{Bus, Headers, Limits, Request, Subject, Subscription};
use tidegate::services::{LiveSettings, Settings, roster};
use tidegate::snapshot::{Method, Snapshot};
use tidegate::store::{Bucket, Expected, Keys, Store};
use tidegate::transcode::{
    BodyPlan, Claims, JsonIn, JsonOut, MessageId, Names, Root, Scratch, Unknown, json_to_wire, wire_to_json,
};
use tidegate::worker::{Options, Worker};

use super::nats::NatsServer;
use super::place::Place;
use super::{PATIENCE, project};

/// Where the clock stands at first.
pub const NOW_MS: i64 = 1_760_000_000_000;

pub struct Replicas {
    pub bus: Bus,
    pub store: Store,
    snapshot: Arc<Snapshot>,
    now_ms: Arc<AtomicI64>,
    _workers: Vec<Worker>,
    place: Option<Place>,
    _folder: Option<tempfile::TempDir>,
}

impl Replicas {
    /// On the embedded bus, with settings as `services.yaml` names them.
    pub async fn embedded(settings: &[(&str, Value)]) -> Replicas {
        Replicas::at(Place::embedded(), settings).await
    }

    /// On the embedded bus, with the store on disk.
    pub async fn disk(settings: &[(&str, Value)]) -> Replicas {
        let (bus, folder) = (Bus::embedded(), tempfile::tempdir().unwrap());
        let store = Store::on_disk(&bus, folder.path()).unwrap();
        Replicas { _folder: Some(folder), ..Replicas::on(bus, Some(store), settings).await }
    }

    /// On a nats-server of their own.
    pub async fn nats(settings: &[(&str, Value)]) -> Replicas {
        Replicas::at(Place::nats().await, settings).await
    }

    pub async fn at(place: Place, settings: &[(&str, Value)]) -> Replicas {
        let bus = place.bus.clone();
        let shared = place.server().is_none().then(|| Store::of(&bus));
        Replicas { place: Some(place), ..Replicas::on(bus, shared, settings).await }
    }

    /// On one store for all, as an embedded one is, or on a handle each.
    async fn on(bus: Bus, shared: Option<Store>, settings: &[(&str, Value)]) -> Replicas {
        let settings = Settings::with(settings.iter().map(|(path, value)| (*path, value)))
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        Replicas::live(bus, shared, LiveSettings::from(settings)).await
    }

    /// On the embedded bus, with settings that may change.
    pub async fn following(settings: LiveSettings) -> Replicas {
        let bus = Bus::embedded();
        let store = Store::of(&bus);
        Replicas::live(bus, Some(store), settings).await
    }

    async fn live(bus: Bus, shared: Option<Store>, settings: LiveSettings) -> Replicas {
        let without = settings.now().common.without.clone();
        let snapshot = Arc::new(project().build(None).unwrap_or_else(|_| panic!("the tables are refused")));
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let store = shared.clone().unwrap_or_else(|| Store::of(&bus));
        let mut workers = Vec::new();
        for _ in 0..2 {
            let mut options = Options::new(bus.clone(), snapshot.clone());
            let clock = now_ms.clone();
            options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
            if let Some(store) = &shared {
                options.store = store.clone();
            }
            let is_wanted = |name: &str| !without.iter().any(|other| other == name);
            let services = roster(&options.store, &settings, is_wanted).await.unwrap();
            workers.push(Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}")));
        }
        Replicas { bus, store, snapshot, now_ms, _workers: workers, place: None, _folder: None }
    }

    /// The nats-server that they are on.
    pub fn server(&self) -> &NatsServer {
        self.place.as_ref().and_then(Place::server).expect("replicas on a nats-server")
    }

    /// Moves all clocks on.
    pub fn pass(&self, time: Duration) {
        self.now_ms.fetch_add(time.as_millis() as i64, Ordering::Relaxed);
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// The reply to a call, as a service makes it: without its context.
    pub async fn ask(&self, subject: &str, request: Value) -> Value {
        let mut reply = self.ask_as(subject, json!({}), request).await;
        reply.as_object_mut().unwrap().remove("meta");
        reply
    }

    /// The reply to a call with an idempotency key, without its context.
    pub async fn ask_with_key(&self, subject: &str, key: &str, request: Value) -> Value {
        let mut reply = self.ask_as(subject, json!({ "idempotency_key": key }), request).await;
        reply.as_object_mut().unwrap().remove("meta");
        reply
    }

    /// The reply to a call from the edge, for a user with a role.
    pub async fn ask_from_edge(&self, subject: &str, user: &str, role: &str, request: Value) -> Value {
        let meta = json!({ "user_id": user, "labels": { "origin": "edge", "role": role } });
        let mut reply = self.ask_as(subject, meta, request).await;
        reply.as_object_mut().unwrap().remove("meta");
        reply
    }

    /// The whole reply to a call with this context.
    pub async fn ask_as(&self, subject: &str, meta: Value, request: Value) -> Value {
        let method = self.method(subject);
        let payload = encoded(method, meta, request).into();
        let subject = Subject::new(subject.to_owned()).unwrap();
        let request = Request { subject, headers: Headers::new(), payload, timeout: PATIENCE, proof: None };
        json_of(&method.tables, method.reply, &self.bus.request(request).await.unwrap().payload)
    }

    /// The first chunks of a stream, without their contexts; `between` is done once the first ones have come.
    pub async fn chunks(
        &self,
        subject: &str,
        request: Value,
        [first, then]: [usize; 2],
        between: impl Future<Output = ()>,
    ) -> Vec<Value> {
        let mut stream = self.watch(subject, json!({}), request).await;
        let (mut between, mut seen) = (Some(between), Vec::new());
        while seen.len() < first + then {
            if seen.len() == first
                && let Some(between) = between.take()
            {
                between.await;
            }
            seen.push(stream.next().await);
        }
        seen
    }

    /// A stream with this context.
    pub async fn watch(&self, subject: &str, meta: Value, request: Value) -> Watching {
        let method = self.method(subject).clone();
        let payload = encoded(&method, meta, request).into();
        let to = Subject::new(subject.to_owned()).unwrap();
        let stream = self.bus.open_stream(to, Headers::new(), payload, Limits::STREAM).await.unwrap();
        Watching { method, stream }
    }

    /// Events on a subject, oldest first, without what differs from run to run: id and metadata of the section.
    pub async fn events(&self, log: &str, subject: &str, count: usize) -> Vec<(String, BTreeMap<String, String>)> {
        let mut reader = self.store.read_log(log, subject, 0).await.unwrap();
        let mut events = Vec::new();
        for _ in 0..count {
            let event = tokio::time::timeout(PATIENCE, reader.next()).await.expect("an event in time").unwrap();
            let envelope = self.snapshot.tables.message_id("event_bus.v1.GameEvent").unwrap();
            let mut envelope = json_of(&self.snapshot.tables, envelope, &event.payload);
            let mut metadata: BTreeMap<String, String> = serde_json::from_value(envelope["metadata"].take()).unwrap();
            metadata.retain(|name, _| !["payload_type", "producer", "request_id"].contains(&name.as_str()));
            metadata.retain(|_, value| !value.is_empty());
            events.push((envelope["event_id"].as_str().unwrap().to_owned(), metadata));
        }
        events
    }

    /// Puts a record into a bucket of a service as a crash would have left it there: `puts` are the bucket, key and
    /// value of what it had still to write elsewhere.
    pub async fn leave_behind(&self, bucket: &'static str, key: &str, value: Value, puts: &[(&str, &str, Value)]) {
        let put = |(bucket, key, value): &(&str, &str, Value)| json!({ "revision": null, "work": { "Put": { "bucket": bucket, "key": key, "value": value } } });
        let pending: Vec<Value> = puts.iter().map(put).collect();
        let record = json!({
            "schema": 1, "value": value, "version": 1, "updated_ms": NOW_MS, "expires_at_ms": 0, "changed_at": null,
            "pending": pending, "recent": [],
        });
        self.bucket(bucket).await.put(key, record.to_string().into(), Expected::Any).await.unwrap();
    }

    /// The values of a bucket of a service, as the store has them.
    pub async fn held(&self, bucket: &'static str) -> Vec<String> {
        let records = self.bucket(bucket).await.list(&Keys::All).await.unwrap();
        records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()).collect()
    }

    /// A bucket of a service.
    pub async fn bucket(&self, name: &'static str) -> Bucket {
        let config = tidegate::services::buckets::BUCKETS.iter().find(|config| config.name == name).unwrap();
        self.store.bucket(config.clone()).await.unwrap()
    }

    fn method(&self, subject: &str) -> &Arc<Method> {
        self.snapshot.method_on(subject).unwrap_or_else(|| panic!("no method on `{subject}`"))
    }
}

/// The chunks of a stream, as a service makes them.
pub struct Watching {
    method: Arc<Method>,
    stream: Subscription,
}

impl Watching {
    /// The next one, without its context; heartbeats are none.
    pub async fn next(&mut self) -> Value {
        let mut chunk = self.next_with_context().await;
        chunk.as_object_mut().unwrap().remove("meta");
        chunk
    }

    /// The next one with its context.
    pub async fn next_with_context(&mut self) -> Value {
        loop {
            let delivery = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("the stream is silent");
            let delivery = delivery.unwrap().unwrap();
            if delivery.headers.get("Stream-Heartbeat").is_none() {
                return json_of(&self.method.tables, self.method.chunk, &delivery.payload);
            }
        }
    }
}

fn encoded(method: &Method, meta: Value, mut request: Value) -> Vec<u8> {
    request["meta"] = meta;
    request["meta"]["request_id"] = uuid::Uuid::new_v4().to_string().into();
    let options = JsonIn { unknown: Unknown::Reject };
    let plan = BodyPlan { root: Root::Message(method.request), options, claims: Claims::new(), lift: None };
    let mut payload = Vec::new();
    json_to_wire(&method.tables, &plan, 0, request.to_string().as_bytes(), &mut payload, None)
        .unwrap_or_else(|error| panic!("{error}: {request}"));
    payload
}

fn json_of(tables: &tidegate::transcode::Tables, message: MessageId, wire: &[u8]) -> Value {
    let options = JsonOut { names: Names::Proto, ..JsonOut::default() };
    let mut out = Vec::new();
    wire_to_json(tables, message, &options, wire, &mut Scratch::default(), &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}
