//! The documented examples of the services, each as its calls say: over HTTP through a real gateway and over the bus,
//! on the embedded bus and on a real nats-server. Every run begins with an empty store and a stopped clock.

#[path = "examples/compare.rs"]
mod compare;
#[path = "examples/documented.rs"]
mod documented;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use compare::{Answer, Door};
use documented::{Documented, text};
use futures_util::StreamExt as _;
use serde_json::Value;
use support::nats::NatsServer;
use tidegate::bus::{Bus, Headers, Limits, Request, Subject};
use tidegate::gateway::{Gateway, GatewayConfig, Running};
use tidegate::services::{LiveSettings, ROSTER, Settings, roster};
use tidegate::snapshot::Live;
use tidegate::transcode::{
    BodyPlan, Claims, JsonIn, JsonOut, MessageId, Names, Root, Scratch, Unknown, json_to_wire, wire_to_json,
};
use tidegate::worker::{Options, Worker};

/// Where the clock stands when an example does not say.
const NOW_MS: i64 = 1_760_000_000_000;

/// Services of the documentation that are still to be built. Once one of them is there, its line must go.
const NOT_BUILT: &[&str] = &[];

/// Examples that work with services besides their own.
const NEEDS: &[(&str, &[&str])] = &[
    ("7.1", &["router"]),
    ("7.4", &["router"]),
    ("8.1", &["time-manager"]),
    ("11.3", &["time-manager"]),
    ("17.1", &["capability-registry"]),
    ("17.2", &["capability-registry"]),
    ("17.3", &["capability-registry"]),
];

/// Examples of built services that do not hold, with the reason. One that holds after all must go from here.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("21.3", "its story is illustrative: nothing of the example stores it"),
    ("21.4", "its story is illustrative: nothing of the example stores it"),
];

/// The settings of an example's `config`, or nothing where they cannot say it yet.
fn settings_for(config: &BTreeMap<String, Value>) -> Option<LiveSettings> {
    let keys = config.iter().map(|(path, value)| (path.as_str(), value));
    Settings::with(keys).ok().map(LiveSettings::from)
}

/// How many services the registry knows.
async fn registrations(bus: &Bus) -> usize {
    let subject = Subject::new("svc.capability.v1.query").unwrap();
    let (headers, timeout) = (Headers::new(), support::PATIENCE);
    let request = Request { subject, headers, payload: Default::default(), timeout, proof: None };
    let (reply, mut count) = (bus.request(request).await.unwrap().payload, 0);
    // QueryResponse.services
    tidegate::transcode::wire::each_message(&reply, 2, |_| {
        count += 1;
        Ok(())
    })
    .unwrap();
    count
}

/// A gateway and one replica of every service, on a bus of its own.
struct Game {
    bus: Bus,
    live: Arc<Live>,
    running: Running,
    client: reqwest::Client,
    now_ms: Arc<AtomicI64>,
    _worker: Worker,
    _server: Option<NatsServer>,
}

impl Game {
    async fn start(engine: Engine, live: &Arc<Live>, settings: &LiveSettings) -> Game {
        let server = (engine == Engine::Nats).then(NatsServer::start);
        let bus = match &server {
            Some(server) => server.bus().await,
            None => Bus::embedded(),
        };
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let mut options = Options::new(bus.clone(), live.pin());
        let clock = now_ms.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let without = settings.now().common.without.clone();
        let is_wanted = |name: &str| !without.iter().any(|other| other == name);
        let services = roster(&options.store, settings, is_wanted).await.unwrap();
        let registering = if settings.now().common.register { services.len() } else { 0 };
        let worker = Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"));
        if is_wanted("capability-registry") {
            let known = async || registrations(&bus).await >= registering;
            support::eventually("the services are registered", known).await;
        }
        let config = GatewayConfig::new(([127, 0, 0, 1], 0).into());
        let running = Gateway::start(config, live.clone(), bus.clone(), None).await.unwrap();
        let client = reqwest::Client::new();
        Game { bus, live: live.clone(), running, client, now_ms, _worker: worker, _server: server }
    }

    /// Makes a call until its answer is as `is_right` wants it, or the answers end. Gives the last one.
    async fn call(
        &self,
        door: Door,
        call: &Value,
        documented: &Documented,
        mut is_right: impl FnMut(&Answer) -> bool,
    ) -> Answer {
        let patience = Instant::now() + support::PATIENCE;
        loop {
            let answer = match door {
                Door::Http => self.over_http(call, documented, &mut is_right).await,
                Door::Bus => self.over_bus(call, &mut is_right).await,
            };
            // What a list may say late it says in the end; how soon is no matter of a machine that others use too.
            if is_right(&answer) || call.get("wait_for").is_none() || Instant::now() > patience {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn over_http(
        &self,
        call: &Value,
        documented: &Documented,
        is_right: &mut impl FnMut(&Answer) -> bool,
    ) -> Answer {
        let (verb, path, body) = documented.http_request(call);
        let mut request = self.client.request(verb.parse().unwrap(), support::url(&self.running, &path));
        for (name, value) in documented::headers(&call["request"]["meta"]) {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        if call["stream"] != true || status != 200 {
            let text = answer.text().await.unwrap();
            return Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) };
        }
        let (mut bytes, mut seen, mut last) =
            (answer.bytes_stream(), String::new(), Answer { status, body: Value::Null });
        while let Ok(Some(more)) = tokio::time::timeout(support::PATIENCE, bytes.next()).await {
            seen.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
            while let Some((line, rest)) = seen.split_once('\n') {
                if let Some(chunk) = line.strip_prefix("data:") {
                    last.body = serde_json::from_str(chunk).unwrap();
                    if is_right(&last) {
                        return last;
                    }
                }
                seen = rest.to_owned();
            }
        }
        last
    }

    async fn over_bus(&self, call: &Value, is_right: &mut impl FnMut(&Answer) -> bool) -> Answer {
        let snapshot = self.live.pin();
        let subject = text(call, "call");
        let method = snapshot.method_on(&subject).unwrap_or_else(|| panic!("no method on `{subject}`"));
        let mut request = call["request"].clone();
        // What a gateway would write; a caller on the bus does it itself.
        request["meta"]["request_id"] = uuid::Uuid::new_v4().to_string().into();
        let root = Root::Message(method.request);
        let plan = BodyPlan { root, options: JsonIn::default(), claims: Claims::new(), lift: None };
        let mut payload = Vec::new();
        json_to_wire(&method.tables, &plan, 0, request.to_string().as_bytes(), &mut payload, None).unwrap();
        let printed = |message: MessageId, wire: &[u8]| -> Answer {
            let options = JsonOut { names: Names::Proto, ..JsonOut::default() };
            let mut out = Vec::new();
            wire_to_json(&method.tables, message, &options, wire, &mut Scratch::default(), &mut out).unwrap();
            Answer { status: 0, body: serde_json::from_slice(&out).unwrap() }
        };
        let (subject, headers, payload) = (Subject::new(subject).unwrap(), Headers::new(), payload.into());
        if call["stream"] != true {
            let request = Request { subject, headers, payload, timeout: support::PATIENCE, proof: None };
            return printed(method.reply, &self.bus.request(request).await.unwrap().payload);
        }
        let item = method.chunk;
        let mut stream = self.bus.open_stream(subject, headers, payload, Limits::STREAM).await.unwrap();
        loop {
            let chunk = tokio::time::timeout(support::PATIENCE, stream.next()).await.expect("the stream is silent");
            let answer = printed(item, &chunk.unwrap().unwrap().payload);
            if is_right(&answer) || answer.body["is_final"] == true {
                return answer;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Embedded,
    Nats,
}

/// Runs one example, those that it builds on first; says what is not as documented.
async fn run(engine: Engine, door: Door, id: &str, documented: &Documented, live: &Arc<Live>) -> Vec<String> {
    let Some(settings) = settings_for(&documented.config(id)) else {
        return vec![format!("{id}: the settings cannot say its `config`")];
    };
    let game = Game::start(engine, live, &settings).await;
    let (mut captured, mut problems) = (Vec::new(), Vec::new());
    for id in documented.in_order(id) {
        for call in documented.calls(&id) {
            let call = documented::with_captured(call, &captured);
            let door = if call.get("http").is_some() { door } else { Door::Bus };
            if let Some(now_ms) = call["clock_ms"].as_i64() {
                game.now_ms.store(now_ms, Ordering::Relaxed);
            }
            let differences = |answer: &Answer| compare::differences(door, &call, answer, documented);
            let mut answer = None;
            for _ in 0..call["repeat"].as_u64().unwrap_or(1) {
                answer = Some(game.call(door, &call, documented, |answer| differences(answer).is_empty()).await);
            }
            let answer = answer.unwrap();
            let found = differences(&answer);
            problems.extend(found.iter().map(|text| {
                format!(
                    "{id} {} over {door:?} on {engine:?}: {text}\n    {} {}",
                    call["call"], answer.status, answer.body
                )
            }));
            for name in call["capture"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                captured.push((call["response"][name].clone(), answer.body[name].clone()));
            }
        }
    }
    problems
}

fn built() -> BTreeSet<String> {
    ROSTER.iter().map(|name| (*name).to_owned()).collect()
}

/// The examples whose services are all there.
async fn runnable(documented: &Documented) -> Vec<String> {
    let built = built();
    let needed = |id: &String| -> BTreeSet<String> {
        let extra = NEEDS.iter().filter(|(needing, _)| needing == id).flat_map(|(_, services)| services.iter());
        let mut services: BTreeSet<String> = extra.map(|service| (*service).to_owned()).collect();
        services.extend(documented.in_order(id).iter().map(|id| documented.service(id)));
        services
    };
    let (run, wait): (Vec<_>, Vec<_>) = documented.ids().into_iter().partition(|id| needed(id).is_subset(&built));
    println!("{} examples, not built yet: {}", run.len(), wait.join(" "));
    // For work on one service: `TIDEGATE_EXAMPLES=13.` runs those whose number begins so.
    let wanted = std::env::var("TIDEGATE_EXAMPLES").unwrap_or_default();
    run.into_iter().filter(|id| id.starts_with(&wanted)).collect()
}

async fn every_example_holds(engine: Engine) {
    let documented = Documented::read();
    let live = Live::new(support::project().build(None).unwrap_or_else(|_| panic!("the tables are refused")));
    let runs = runnable(&documented).await.into_iter().flat_map(|id| [(id.clone(), Door::Http), (id, Door::Bus)]);
    // Four at a time: each waits for its servers most of its time.
    let outcomes = futures_util::stream::iter(runs).map(|(id, door)| {
        let (documented, live) = (&documented, &live);
        async move { (run(engine, door, &id, documented, live).await, id) }
    });
    let outcomes: Vec<(Vec<String>, String)> = outcomes.buffer_unordered(4).collect().await;
    let mut failed: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (problems, id) in &outcomes {
        failed.entry(id).or_default().extend_from_slice(problems);
    }
    let mut report = Vec::new();
    for (id, problems) in failed {
        match EXCEPTIONS.iter().find(|(exception, _)| *exception == id) {
            Some(_) if problems.is_empty() => report.push(format!("{id} holds: take it out of the exceptions")),
            Some(_) => {}
            None => report.extend(problems),
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
}

#[tokio::test]
async fn every_example_holds_on_the_embedded_bus() {
    every_example_holds(Engine::Embedded).await;
}

#[tokio::test]
async fn every_example_holds_on_nats() {
    every_example_holds(Engine::Nats).await;
}

#[tokio::test]
async fn the_list_of_missing_services_is_true() {
    let documented = Documented::read();
    let services: BTreeSet<String> = documented.ids().iter().map(|id| documented.service(id)).collect();
    for (id, _) in EXCEPTIONS {
        assert!(documented.ids().iter().any(|known| known == id), "`EXCEPTIONS` names {id}, which is no example");
    }
    for (id, _) in NEEDS {
        assert!(documented.ids().iter().any(|known| known == id), "`NEEDS` names {id}, which is no example");
    }
    let built = built();
    let missing: Vec<&String> = services.difference(&built).collect();
    let mut listed = NOT_BUILT.to_vec();
    listed.sort_unstable();
    assert_eq!(missing, listed, "`NOT_BUILT` has to name the services that are not in the roster, and no other");
}

#[test]
fn every_example_fits_the_schema_and_a_binding() {
    let documented = Documented::read();
    let snapshot = support::project().build(None).unwrap_or_else(|_| panic!("the tables are refused"));
    for call in documented.ids().iter().flat_map(|id| documented.calls(id)) {
        let method = snapshot.method_on(&text(call, "call")).unwrap_or_else(|| panic!("no method for {call}"));
        let reply = method.tables.message_id(&documented.reply(call)).unwrap();
        for (message, part) in [(method.request, &call["request"]), (reply, &call["response"])] {
            let options = JsonIn { unknown: Unknown::Reject };
            let plan = BodyPlan { root: Root::Message(message), options, claims: Claims::new(), lift: None };
            let (mut wire, text) = (Vec::new(), part.to_string());
            let result = json_to_wire(&method.tables, &plan, 0, text.as_bytes(), &mut wire, None);
            assert!(result.is_ok(), "{}: {}", result.unwrap_err(), call);
        }
        if call.get("http").is_some() {
            documented.http_request(call);
        }
    }
    compare::every_illustrative_field_is_known(&documented);
}
