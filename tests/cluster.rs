//! A whole deployment on a NATS cluster of three nodes with three copies of everything, and nodes that are killed while
//! writes run: what was acknowledged is there afterwards, what was not is told as something to try again, and every
//! event reaches every durable consumer once.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use support::fleet::Fleet;
use support::{PATIENCE, eventually};
use tidegate::bus::Bus;
use tidegate::services::ROSTER;
use tidegate::services::events::{QUEST_PROCESSOR, consumers};
use tidegate::store::{ConsumerConfig, Logged, Store};

/// Longest wait for a cluster that has lost a node to be whole again, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(90);

/// A kind of write, as clients make it again and again, and where it is found afterwards. `WHO` stands for the client,
/// `N` for the number of its write from 1, `B` for the number of the one before, `ID` for what `id` names in the reply.
struct Kind {
    name: &'static str,
    verb: &'static str,
    path: &'static str,
    /// A further header of every write but the first.
    header: Option<(&'static str, &'static str)>,
    body: &'static str,
    /// JSON pointer into the reply.
    id: &'static str,
    /// Where the write is looked for: by GET, or by POST where there is a body. Each one where `ID` or `N` stand in it,
    /// else the last one.
    read: (&'static str, &'static str),
    /// JSON pointers into what is found, and what has to be there.
    finds: &'static [(&'static str, &'static str)],
    /// The event that every such write has.
    event: Option<&'static str>,
}

const NOTHING: Kind = Kind {
    name: "",
    verb: "POST",
    path: "",
    header: None,
    body: "{}",
    id: "",
    read: ("", ""),
    finds: &[],
    event: None,
};

const KINDS: &[Kind] = &[
    Kind {
        name: "player-state",
        verb: "PUT",
        path: "/v1/players/WHO/state",
        header: Some(("if-match", "B")),
        body: r#"{"state": {"n": "N"}}"#,
        read: ("/v1/players/WHO/state", ""),
        finds: &[("/version", "N"), ("/state/n", "N")],
        event: Some("evt.state.player.updated.v1"),
        ..NOTHING
    },
    Kind {
        name: "entity-state",
        verb: "PUT",
        path: "/v1/entities/WHO/state",
        body: r#"{"state": {"n": "N"}}"#,
        read: ("/v1/entities/WHO/state", ""),
        finds: &[("/version", "N"), ("/state/n", "N")],
        event: Some("evt.state.entity.updated.v1"),
        ..NOTHING
    },
    Kind {
        name: "payment",
        path: "/v1/players/WHO/payments",
        body: r#"{"currency_type": "credits", "amount": 1, "item_id": "itemN"}"#,
        read: ("/v1/players/WHO/balances/credits?amount=1", ""),
        finds: &[("/current_balance", "1000 - N")],
        event: Some("evt.payment.completed.v1"),
        ..NOTHING
    },
    Kind {
        name: "quest",
        path: "/v1/players/WHO/quests:generate",
        body: r#"{"seed": "N"}"#,
        id: "/quest/quest_id",
        read: ("/v1/players/WHO/quests/ID", ""),
        finds: &[("/quest/quest_id", "ID")],
        event: Some("evt.quest.generated.v1"),
        ..NOTHING
    },
    Kind {
        name: "world",
        verb: "PATCH",
        path: "/v1/worlds/WHO/state",
        body: r#"{"global_flags_to_update": {"flagN": "on"}, "merge": true}"#,
        read: ("/v1/worlds/WHO/state?of=N", ""),
        finds: &[("/world_state/global_flags/flagN", "on")],
        ..NOTHING
    },
    Kind {
        name: "settings",
        verb: "PATCH",
        path: "/v1/players/WHO/settings",
        body: r#"{"settings": [{"key": "hud.layout", "value_type": "string", "value": "layoutN"}], "merge": true}"#,
        read: ("/v1/players/WHO/settings?setting_keys=hud.layout", ""),
        finds: &[("/settings/0/value", "layoutN")],
        event: Some("evt.settings.changed.v1"),
        ..NOTHING
    },
    Kind {
        name: "document",
        path: "/v1/knowledge/collections/WHO/documents",
        body: r#"{"documents": [{"document_id": "WHO.N", "content": "The ferryman took coin number N."}]}"#,
        read: ("/v1/knowledge/documents/WHO.N", ""),
        finds: &[("/document/content", "The ferryman took coin number N.")],
        event: Some("evt.kb.document.ingested.v1"),
        ..NOTHING
    },
    Kind {
        name: "event",
        path: "/v1/events",
        body: r#"{"event_type": "custom.soak", "event_id": "WHO.N", "metadata": {"who": "WHO"}}"#,
        event: Some("evt.custom.soak.v1"),
        ..NOTHING
    },
    Kind {
        name: "story",
        path: "/v1/stories:generate",
        body: r#"{"story_type": "lore", "themes": ["betrayal"], "min_length": 60, "max_length": 200, "context": {"player_id": "WHO", "seed": "N"}}"#,
        id: "/story/metadata/checkpoint_id",
        read: ("/v1/story-checkpoints/ID", ""),
        finds: &[("/story/metadata/checkpoint_id", "ID")],
        ..NOTHING
    },
    Kind {
        name: "session",
        path: "/v1/users/WHO-N/sessions",
        body: r#"{"session_data": {"tier": "premium"}, "ttl_seconds": 6000}"#,
        id: "/session_token",
        read: ("/v1/sessions:validate", r#"{"session_token": "ID"}"#),
        finds: &[("/is_valid", "true"), ("/user_id", "WHO-N")],
        ..NOTHING
    },
    Kind {
        name: "workflow",
        path: "/v1/workflows/health_probe:execute",
        body: r#"{"timeout_seconds": 60}"#,
        id: "/execution_id",
        read: ("/v1/executions/ID", ""),
        // Its step may have met a store without a leader: then it has failed, and that is what is there.
        finds: &[("/execution_id", "ID"), ("/progress_percentage", "100")],
        ..NOTHING
    },
    Kind {
        name: "harvest",
        path: "/v1/players/WHO/harvests",
        body: r#"{"target_id": "WHO.N", "body_parts": ["heart"], "tool_used": "scalpel", "context": {"method": "blade_kill", "skill": "0.5", "target_type": "deserving"}}"#,
        event: Some("evt.broker.harvest.completed.v1"),
        ..NOTHING
    },
];

/// The clients of a run and what they have been told.
struct Run {
    client: reqwest::Client,
    gateway: String,
    is_over: AtomicBool,
    /// Writes acknowledged so far.
    count: AtomicU64,
    /// Refusals by status and reason.
    refused: Mutex<BTreeMap<String, usize>>,
    slowest_ms: AtomicU64,
}

/// What one client was told: a reply to each of its writes, in order.
struct Told {
    kind: &'static Kind,
    who: String,
    replies: Vec<Value>,
}

impl Run {
    fn new(gateway: &str) -> Arc<Run> {
        Arc::new(Run {
            client: reqwest::Client::new(),
            gateway: gateway.to_owned(),
            is_over: AtomicBool::new(false),
            count: AtomicU64::new(0),
            refused: Mutex::default(),
            slowest_ms: AtomicU64::new(0),
        })
    }

    /// Sends one request; the status and the body.
    async fn ask(&self, verb: &str, path: &str, headers: &[(&str, String)], body: String) -> (u16, bool, Value) {
        let mut request = self.client.request(verb.parse().unwrap(), format!("http://{}{path}", self.gateway));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.body(body).send().await.expect("the gateway is always there");
        let (status, says_when) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let text = answer.text().await.unwrap();
        (status, says_when, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Makes a write, under the same key again where the answer says that it may be made again.
    async fn write(&self, kind: &Kind, who: &str, number: u64) -> Value {
        let filled = |text: &str| filled(text, who, number, "");
        let mut headers = vec![("idempotency-key", format!("{who}.{number}"))];
        headers.extend(kind.header.filter(|_| number > 1).map(|(name, value)| (name, filled(value))));
        let begun = Instant::now();
        loop {
            let start = Instant::now();
            let (status, says_when, body) = self.ask(kind.verb, &filled(kind.path), &headers, filled(kind.body)).await;
            self.slowest_ms.fetch_max(start.elapsed().as_millis() as u64, Ordering::Relaxed);
            if status == 200 {
                self.count.fetch_add(1, Ordering::Relaxed);
                return body;
            }
            let error = &body["error"];
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (code, reason) = (word(&error["code"]), word(&error["details"]["reason"]));
            let may_be_repeated = match status {
                503 => code == "UNAVAILABLE" && says_when,
                504 => code == "DEADLINE_EXCEEDED",
                409 => code == "ABORTED",
                _ => false,
            };
            assert!(may_be_repeated, "{} {number} by {who}: {status} {body}", kind.name);
            assert!(begun.elapsed() < RECOVERY, "{} {number} by {who} never succeeds: {status} {body}", kind.name);
            *self.refused.lock().unwrap().entry(format!("{status} {code} {reason}")).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Writes until the run is over.
    async fn client(self: Arc<Self>, kind: &'static Kind, who: String) -> Told {
        let mut replies = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            replies.push(self.write(kind, &who, replies.len() as u64 + 1).await);
        }
        Told { kind, who, replies }
    }

    /// Waits until so many more writes have been acknowledged.
    async fn more(&self, count: u64) {
        let wanted = self.count.load(Ordering::Relaxed) + count;
        let start = Instant::now();
        while self.count.load(Ordering::Relaxed) < wanted {
            assert!(start.elapsed() < RECOVERY, "no writes are acknowledged: {:?}", self.refused.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn report(&self, what: &str) {
        let (count, refused) = (self.count.load(Ordering::Relaxed), self.refused.lock().unwrap());
        let slowest_ms = self.slowest_ms.load(Ordering::Relaxed);
        println!("{what}: {count} writes acknowledged, slowest answer {slowest_ms} ms, refused {refused:?}");
    }

    /// Looks for what a client was told; what is missing, in words.
    async fn missing(&self, told: &Told) -> Vec<String> {
        let (path, body) = told.kind.read;
        let is_each = format!("{path}{body}").contains("ID") || path.contains('N');
        let mut missing = Vec::new();
        for (index, reply) in told.replies.iter().enumerate() {
            if path.is_empty() || (!is_each && index + 1 < told.replies.len()) {
                continue;
            }
            let id = reply.pointer(told.kind.id).and_then(Value::as_str).unwrap_or_default();
            let filled = |text: &str| filled(text, &told.who, index as u64 + 1, id);
            let verb = if body.is_empty() { "GET" } else { "POST" };
            let (status, _, found) = self.ask(verb, &filled(path), &[], filled(body)).await;
            for (pointer, wanted) in told.kind.finds {
                let (pointer, wanted) = (filled(pointer), filled(wanted));
                let is = found.pointer(&pointer).map(|value| value.to_string().trim_matches('"').to_owned());
                if status != 200 || is.as_deref() != Some(&*wanted) {
                    missing.push(format!("{} {}: {wanted} at {pointer}, but {status} {found}", verb, filled(path)));
                }
            }
        }
        missing
    }
}

fn filled(text: &str, who: &str, number: u64, id: &str) -> String {
    let left = (1_000 - i64::try_from(number).unwrap()).to_string();
    // `WHO` and `ID` come last: what they stand for is not looked through again.
    let text = text.replace("1000 - N", &left).replace('N', &number.to_string());
    if text == "B" { (number - 1).to_string() } else { text.replace("WHO", who).replace("ID", id) }
}

/// Every event that a durable consumer of our own has been given, by its id.
#[derive(Default)]
struct Heard {
    events: BTreeMap<String, (String, Vec<u8>)>,
    deliveries: usize,
}

impl Heard {
    fn note(&mut self, event: &Logged) {
        let id = event.headers.get("Nats-Msg-Id").unwrap_or_default().to_owned();
        let event = (event.subject.to_string(), event.payload.to_vec());
        self.deliveries += 1;
        let before = self.events.insert(id.clone(), event.clone());
        assert!(before.is_none_or(|before| before == event), "two events have the id `{id}`");
    }
}

/// The logs of the game's events, and a durable consumer of each.
const EARS: [ConsumerConfig; 5] =
    [ear("GAME_EVENTS"), ear("SYSTEM_EVENTS"), ear("AI_EVENTS"), ear("NARRATIVE_EVENTS"), ear("ORCHESTRATION_EVENTS")];

const fn ear(log: &'static str) -> ConsumerConfig {
    ConsumerConfig { log, name: "soak", filter: "evt.>", ack_wait: Duration::from_secs(10), deliveries_max: None }
}

/// Reads all events, as a program of the game does that may be told one twice.
async fn listen(store: &Store) -> Arc<Mutex<Heard>> {
    let heard = Arc::<Mutex<Heard>>::default();
    for ear in EARS {
        eventually("the consumer is there", async || store.provide_consumer(ear.clone()).await.is_ok()).await;
        let (store, heard) = (store.clone(), heard.clone());
        tokio::spawn(async move {
            loop {
                let Ok(mut consumer) = store.consumer(ear.log, ear.name).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                while let Ok(job) = consumer.next(64).await {
                    heard.lock().unwrap().note(&job.event);
                    // An answer that is lost brings the event once more.
                    let _ = job.ack().await;
                }
            }
        });
    }
    heard
}

/// Ids of the events of a client's writes.
fn ids_of(heard: &Heard, told: &Told, subject: &str) -> BTreeSet<String> {
    let is_theirs = |payload: &[u8]| payload.windows(told.who.len()).any(|window| window == told.who.as_bytes());
    let events = heard.events.iter().filter(|(_, (of, payload))| of == subject && is_theirs(payload));
    events.map(|(id, _)| id.clone()).collect()
}

/// Everything that was acknowledged is there, and every event was told once.
async fn nothing_is_lost(run: &Run, told: &[Told], heard: &Mutex<Heard>) {
    let start = Instant::now();
    let mut missing = Vec::new();
    // Workflows end a moment after their call, and an event may have waited for its log's leader.
    loop {
        missing.clear();
        for told in told {
            missing.extend(run.missing(told).await);
            let Some(subject) = told.kind.event else { continue };
            let (count, wanted) = (ids_of(&heard.lock().unwrap(), told, subject).len(), told.replies.len());
            if count != wanted {
                missing.push(format!("{count} events on {subject} for {wanted} writes of {}", told.who));
            }
        }
        if missing.is_empty() || start.elapsed() > RECOVERY {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(
        missing.is_empty(),
        "{} things are missing:\n{}",
        missing.len(),
        missing[..missing.len().min(20)].join("\n")
    );
}

/// Every consumer of ours has handled everything, and nothing failed too often.
async fn nothing_waits(store: &Store) {
    let waiting = async || {
        let mut waiting = Vec::new();
        for log in consumers().map(|consumer| consumer.log).collect::<BTreeSet<_>>() {
            let Ok(figures) = store.log_figures(log).await else {
                waiting.push(format!("{log}: no figures"));
                continue;
            };
            // Programs of the game read that one.
            let ours = figures.consumers.iter().filter(|consumer| consumer.name != QUEST_PROCESSOR.name);
            let busy = ours.filter(|consumer| consumer.waiting + consumer.unanswered > 0);
            waiting.extend(busy.map(|consumer| format!("{log}: {consumer:?}")));
        }
        waiting
    };
    let start = Instant::now();
    let mut last = waiting().await;
    while !last.is_empty() {
        assert!(start.elapsed() < RECOVERY, "still waiting: {}", last.join(", "));
        tokio::time::sleep(Duration::from_millis(500)).await;
        last = waiting().await;
    }
    // None at all, though the node that comes back reports work as deleted that was done while it was away.
    let (mut dead, mut last) = (Vec::new(), 0);
    while let Some(letter) = store.event_after("DLQ", last).await.unwrap() {
        last = letter.sequence;
        dead.push(letter.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", "));
    }
    let reports = store.log_figures("DLQ_ADVISORIES").await.unwrap().last;
    println!("{reports} events reported as given up or gone");
    assert!(dead.is_empty(), "dead letters:\n{}", dead.join("\n"));
}

async fn store_of(fleet: &Fleet) -> (Bus, Store) {
    let bus = fleet.bus().await;
    let store = Store::of(&bus);
    (bus, store)
}

/// How long the clients write, and whether each service has processes of its own: `TIDEGATE_SOAK=60` says seconds.
fn length() -> (Duration, bool) {
    match std::env::var("TIDEGATE_SOAK") {
        Ok(seconds) => (Duration::from_secs(seconds.parse().expect("TIDEGATE_SOAK is a number of seconds")), true),
        Err(_) => (Duration::from_secs(10), false),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_services_lose_nothing_when_a_node_is_killed_and_comes_back() {
    let (length, is_alone) = length();
    let groups: Vec<&[&str]> = if is_alone { ROSTER.chunks(1).collect() } else { ROSTER.chunks(8).collect() };
    let mut fleet = Fleet::start(&groups).await;
    let (_bus, store) = store_of(&fleet).await;
    let heard = listen(&store).await;
    let run = Run::new(&fleet.gateway.address);
    let clients = KINDS.iter().flat_map(|kind| (0..2).map(move |number| (kind, format!("{}-{number}", kind.name))));
    let clients: Vec<_> = clients.map(|(kind, who)| tokio::spawn(run.clone().client(kind, who))).collect();
    let share = length / 3;
    tokio::time::sleep(share).await;
    let killed = fleet.leader("KV_tg_state").await;
    fleet.nodes[killed].kill();
    tokio::time::sleep(share).await;
    fleet.nodes[killed].restart();
    tokio::time::sleep(share).await;
    run.more(100).await;
    run.is_over.store(true, Ordering::Relaxed);
    let told: Vec<Told> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    run.report("all services, a node killed and restarted");
    nothing_is_lost(&run, &told, &heard).await;
    nothing_waits(&store).await;
    let heard = heard.lock().unwrap();
    println!("{} events heard in {} deliveries", heard.events.len(), heard.deliveries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_leader_a_stream_is_written_again_soon_and_without_a_majority_it_says_so_at_once() {
    let mut fleet = Fleet::start(&[&["state-manager"]]).await;
    let (_bus, store) = store_of(&fleet).await;
    let heard = listen(&store).await;
    let run = Run::new(&fleet.gateway.address);
    let clients = (0..8).map(|number| tokio::spawn(run.clone().client(&KINDS[0], format!("player-{number}"))));
    let clients: Vec<_> = clients.collect();
    run.more(100).await;
    let first = fleet.leader("KV_tg_state").await;
    fleet.nodes[first].kill();
    let start = Instant::now();
    run.more(100).await;
    println!("100 writes after {:?} without the leader", start.elapsed());
    // With one of three left there is no majority: nothing can be acknowledged, and nobody waits for the impossible.
    let second = (first + 1) % 3;
    fleet.nodes[second].kill();
    let refused = async || {
        let body = r#"{"state": {"n": "1"}}"#.to_owned();
        let start = Instant::now();
        let (status, says_when, body) = run.ask("PUT", "/v1/players/nobody/state", &[], body).await;
        (status, says_when, body["error"]["code"].as_str().unwrap_or_default().to_owned(), start.elapsed())
    };
    eventually("writes are refused", async || refused().await.0 == 503).await;
    for _ in 0..5 {
        let (status, says_when, code, took) = refused().await;
        assert_eq!((status, says_when, code.as_str()), (503, true, "UNAVAILABLE"));
        assert!(took < PATIENCE / 2, "{took:?}");
    }
    fleet.nodes[first].restart();
    fleet.nodes[second].restart();
    run.more(100).await;
    run.is_over.store(true, Ordering::Relaxed);
    let told: Vec<Told> = join_all(clients).await.into_iter().map(Result::unwrap).collect();
    run.report("one service, its leader and another node killed");
    nothing_is_lost(&run, &told, &heard).await;
}
