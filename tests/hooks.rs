//! Declared operations with a hook: somebody else's service with one rule in code, as docs/declared.md shows it, and what
//! each kind of hook is given and may say; on the embedded bus and on a real nats-server, with two replicas.

#[path = "../docs/declared/library.rs"]
mod library;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::nats::NatsServer;
use support::{eventually, gateway, url};
use tidegate::bus::Bus;
use tidegate::fault::Fault;
use tidegate::gateway::Running;
use tidegate::store::{Appended, BucketConfig, Expected, LogConfig, Store};
use tidegate::worker::records::{Change, Current, Document, EventId, Notice, RecordSeen, Records, RecordsConfig};
use tidegate::worker::{
    Confirm, Context, Moment, Options, Parting, Rule, RuleBeside, Service, StartError, Worker, declared,
};

const LIBRARY: &str = include_str!("../docs/declared/library.proto");
const ROUTES: &str = include_str!("../docs/declared/routes.yaml");

/// Scores of games in a struct of the service's own, and what hooks make of them.
const SCORES: &str = r#"
syntax = "proto3";
package scores.v1;
import "google/api/annotations.proto";
import "tidegate/options.proto";

service ScoreService {
  option (tidegate.service) = { name: "scores" };
  option (tidegate.document) = { bucket: "scores" ttl: { seconds: 3600 } };
  option (tidegate.log) = { name: "SCORES_EVENTS" subjects: "evt.scores.>" };

  rpc Add(AddRequest) returns (AddReply) {
    option (google.api.http) = { post: "/v1/games/{game}/scores" body: "*" };
    option (tidegate.operation) = {
      hook: true put { bucket: "scores" expected_revision: "expected_revision" version_into: "version" revision_into: "revision" }
    };
  }
  rpc Catch(CatchRequest) returns (AddReply) {
    option (google.api.http) = { post: "/v1/games/{game}/scores/{player}:catch" body: "*" };
    option (tidegate.operation) = {
      hook: true put { bucket: "scores" key: "{game}.{player}" beside: "{game}.{rival}" version_into: "version" }
    };
  }
  rpc Get(GetRequest) returns (GetReply) {
    option (google.api.http) = { get: "/v1/games/{game}/scores/{player}" };
    option (tidegate.operation) = { hook: true get { bucket: "scores" key: "{game}.{player}" } };
  }
  rpc Cheer(CheerRequest) returns (CheerReply) {
    option (google.api.http) = { post: "/v1/games/{game}/cheers" body: "*" };
    option (tidegate.operation) = {
      hook: true
      publish {
        subject: "evt.scores.{game}.{topic=**}" message: "scores.v1.Cheer" within: { seconds: 2 }
        sequence_into: "sequence" duplicate_into: "duplicate"
      }
    };
  }
  rpc Best(BestRequest) returns (BestReply) {
    option (google.api.http) = { get: "/v1/games/{game}:best" };
    option (tidegate.operation) = { hook: true list { bucket: "scores" under: "{game}" } };
  }
  rpc Forget(ForgetRequest) returns (ForgetReply) {
    option (google.api.http) = { delete: "/v1/games/{game}/scores/{player}" };
    option (tidegate.operation) = {
      hook: true
      delete {
        bucket: "scores" key: "{game}.{player}" expected_version: "version" version_into: "version" deleted_into: "forgotten"
      }
    };
  }
  rpc Follow(FollowRequest) returns (stream WatchReply) {
    option (google.api.http) = { get: "/v1/games/{game}:follow" };
    option (tidegate.operation) = { hook: true watch { under: "{game}" bucket: "scores" every: { seconds: 1 } } };
  }
  rpc Watch(WatchRequest) returns (stream WatchReply) {
    option (google.api.http) = { get: "/v1/games/{game}/scores/{player}:watch" };
    option (tidegate.operation) = {
      hook: true
      watch { bucket: "scores" key: "{game}.{player}" after_revision: "after_revision" }
    };
    option (tidegate.binding) = { index: -1 header_in: { header: "Last-Event-ID" field: "after_revision" } };
  }
  rpc Copy(CopyRequest) returns (AddReply) {
    option (google.api.http) = { post: "/v1/games/{game}/scores/{player}:copy" body: "*" };
    option (tidegate.operation) = {
      hook: true put { bucket: "scores" beside: "{game}.{player}" version_into: "version" revision_into: "revision" }
    };
  }
  rpc WatchLead(WatchLeadRequest) returns (stream WatchReply) {
    option (google.api.http) = { get: "/v1/games/{game}:watchLead" };
    option (tidegate.operation) = {
      hook: true watch { under: "{game}" bucket: "scores" after_revision: "after_revision" }
    };
    option (tidegate.binding) = { index: -1 header_in: { header: "Last-Event-ID" field: "after_revision" } };
  }
}

message CopyRequest { string game = 1; string player = 2; string to = 3; }
message WatchLeadRequest { string game = 1; uint64 after_revision = 2; }
message AddRequest { string game = 1; string player = 2; int32 points = 3; uint64 expected_revision = 4; }
message AddReply { int32 total = 1; uint64 version = 2; uint64 revision = 3; }
message CatchRequest { string game = 1; string player = 2; string rival = 3; }
message GetRequest { string game = 1; string player = 2; }
message GetReply { int32 total = 1; bool has_played = 2; }
message CheerRequest { string game = 1; string topic = 2; string cheer_id = 3; string text = 4; }
message Cheer { string text = 1; int32 points = 2; }
message CheerReply { string said = 1; uint64 sequence = 2; bool duplicate = 3; }
message BestRequest { string game = 1; }
message BestReply { string player = 1; int32 total = 2; }
message ForgetRequest { string game = 1; string player = 2; string reason = 3; uint64 version = 4; }
message ForgetReply { uint64 version = 1; bool forgotten = 2; }
message FollowRequest { string game = 1; }
message WatchRequest { string game = 1; string player = 2; uint64 after_revision = 3; }
message WatchReply { uint64 revision = 1; string text = 2; }
"#;

#[derive(Clone, Serialize, Deserialize)]
struct Score {
    rounds: BTreeMap<u64, i32>,
}

impl Score {
    fn total(&self) -> i32 {
        self.rounds.values().sum()
    }
}

/// How many points a round may have.
struct Rules {
    points_max: i32,
}

#[derive(Serialize, Deserialize)]
struct Add {
    game: String,
    player: String,
    points: i32,
    expected_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Added {
    total: i32,
}

#[derive(Serialize, Deserialize)]
struct Catch {
    game: String,
    player: String,
    rival: String,
}

/// A reply whose revision nobody fills.
#[derive(Serialize, Deserialize)]
struct Caught {
    total: i32,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Get {
    game: String,
    player: String,
}

#[derive(Serialize, Deserialize)]
struct Got {
    total: i32,
    has_played: bool,
}

#[derive(Serialize, Deserialize)]
struct CheerRequest {
    game: String,
    topic: String,
    cheer_id: String,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Cheer {
    text: String,
    points: i32,
}

#[derive(Serialize, Deserialize)]
struct Cheered {
    said: String,
}

#[derive(Serialize, Deserialize)]
struct Best {
    game: String,
}

#[derive(Serialize, Deserialize)]
struct BestFound {
    player: String,
    total: i32,
}

#[derive(Serialize, Deserialize)]
struct Forget {
    game: String,
    player: String,
    reason: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct Watch {
    game: String,
    player: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Follow {
    game: String,
}

#[derive(Serialize, Deserialize)]
struct Told {
    revision: u64,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Copy {
    game: String,
    player: String,
    to: String,
}

#[derive(Serialize, Deserialize)]
struct WatchLead {
    game: String,
    after_revision: u64,
}

impl Rules {
    fn add(self: Arc<Self>, _: Context, request: Add) -> Result<(Vec<String>, impl Rule<Score, Added>), Fault> {
        use tidegate::fault::Code;
        let Add { game, player, points, .. } = request;
        if points > self.points_max {
            return Err(Fault::client(Code::OutOfRange, format!("points must be at most {}", self.points_max)));
        }
        // The key is the hook's: players count without case.
        let tokens = vec![game, player.to_lowercase()];
        let rule = move |current: &Current<Score>| {
            let mut score = current.value.clone().unwrap_or(Score { rounds: BTreeMap::new() });
            if points == 0 {
                return Ok(Change::nothing(Added { total: score.total() }));
            }
            score.rounds.insert(current.version, points);
            let total = score.total();
            Ok(Change::put(score, Added { total }))
        };
        Ok((tokens, rule))
    }

    fn cheer(
        self: Arc<Self>,
        _: Context,
        request: CheerRequest,
    ) -> Result<(String, Cheer, impl Confirm<Cheer, Cheered>), Fault> {
        use tidegate::fault::Code;
        if request.text.is_empty() {
            return Err(Fault::client(Code::InvalidArgument, "text is required"));
        }
        let cheer = Cheer { text: request.text.to_uppercase(), points: 5 };
        let told = |cheer: &Cheer, kept: &Appended| Cheered { said: format!("{} {}", kept.sequence, cheer.text) };
        Ok((request.cheer_id, cheer, told))
    }

    fn copy(
        self: Arc<Self>,
        _: Context,
        request: Copy,
        given: Option<Document<Score>>,
    ) -> Result<(Vec<String>, impl Rule<Score, Added>), Fault> {
        use tidegate::fault::Code;
        let Copy { game, player, to } = request;
        let Some(Document { value: score, .. }) = given else {
            return Err(Fault::client(Code::NotFound, format!("{player} has not played")));
        };
        let rule = move |_: &Current<Score>| Ok(Change::put(score.clone(), Added { total: score.total() }));
        Ok((vec![game, to], rule))
    }

    fn watch_lead(
        self: Arc<Self>,
        _: Context,
        _: WatchLead,
        known: Option<Vec<(String, Document<Score>)>>,
    ) -> Result<impl FnMut(RecordSeen<Score>) -> Result<Option<Told>, Fault>, Fault> {
        let mut is_beginning = known.is_none();
        let documents = known.into_iter().flatten();
        let mut totals: BTreeMap<String, i32> = documents.map(|(key, score)| (key, score.value.total())).collect();
        let mut newest = 0;
        Ok(move |seen: RecordSeen<Score>| {
            match seen {
                RecordSeen::Change { key, document, revision, .. } => {
                    newest = revision;
                    totals.insert(key, document.map_or(0, |score| score.value.total()));
                }
                RecordSeen::Current if is_beginning => is_beginning = false,
                RecordSeen::Current => return Ok(None),
            }
            let lead = totals.iter().max_by_key(|(_, total)| **total).filter(|_| !is_beginning);
            let player = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
            let text = |(key, total): (&String, &i32)| format!("{} leads {} with {total}", player(key), totals.len());
            Ok(lead.map(|lead| Told { revision: newest, text: text(lead) }))
        })
    }

    fn best(&self, _: &Context, _: &Best, found: Vec<(String, Document<Score>)>) -> Result<BestFound, Fault> {
        let totals = found.into_iter().map(|(key, score)| (score.value.total(), key));
        let (total, key) = totals.max().unwrap_or_default();
        Ok(BestFound { player: key.rsplit('.').next().unwrap_or_default().to_owned(), total })
    }

    fn forget(self: Arc<Self>, context: Context, request: Forget) -> Result<impl Parting<Score>, Fault> {
        use tidegate::fault::Code;
        let Forget { reason, .. } = request;
        if reason.is_empty() {
            return Err(Fault::client(Code::InvalidArgument, "reason is required").detail("field", "reason"));
        }
        Ok(move |score: Document<&Score>| {
            let total = score.value.total();
            if total >= self.points_max {
                return Err(Fault::client(Code::FailedPrecondition, format!("who has {total} points stays")));
            }
            let (id, last) = (EventId::AtRevision("forgotten".to_owned()), Got { total, has_played: true });
            let notice = Notice::new(&context, "evt.scores.forgotten", id, "scores.v1.GetReply", &last)?;
            Ok(vec![notice])
        })
    }

    fn watch(
        self: Arc<Self>,
        _: Context,
        request: Watch,
        begins_anew: bool,
    ) -> Result<impl FnMut(RecordSeen<Score>) -> Result<Vec<Told>, Fault>, Fault> {
        let (player, mut count) = (request.player, 0);
        Ok(move |seen: RecordSeen<Score>| {
            Ok(match seen {
                RecordSeen::Current if count == 0 && begins_anew => {
                    vec![Told { revision: 0, text: format!("{player} has not played") }]
                }
                RecordSeen::Current => Vec::new(),
                RecordSeen::Change { document, revision, .. } => {
                    count += 1;
                    let rounds = document.map(|score| score.value.rounds).unwrap_or_default();
                    let last = rounds.into_values().next_back().map(|points| format!("{points} points"));
                    last.into_iter().map(|text| Told { revision, text }).collect()
                }
            })
        })
    }
}

/// Who plays, and who has not for a while.
fn follow(
    _: Context,
    request: Follow,
    _: Option<Vec<(String, Document<Score>)>>,
) -> Result<impl FnMut(Moment<Score>) -> Result<Vec<Told>, Fault>, Fault> {
    let mut active: Vec<String> = Vec::new();
    Ok(move |seen| {
        let told = |text: String| Told { revision: 0, text: format!("{}: {text}", request.game) };
        Ok(match seen {
            Some(RecordSeen::Change { key, .. }) => {
                let player = key.rsplit('.').next().unwrap_or_default().to_owned();
                active.push(player.clone());
                vec![told(format!("{player} plays"))]
            }
            Some(RecordSeen::Current) => Vec::new(),
            None => active.drain(..).map(|player| told(format!("{player} is idle"))).collect(),
        })
    })
}

/// A player gets as many points as lack to a rival's, who has to have played.
fn catch(_: Context, request: Catch) -> Result<impl RuleBeside<Score, Caught>, Fault> {
    use tidegate::fault::Code;
    Ok(move |current: &Current<Score>, rival: Option<&Document<Score>>| {
        let Some(rival) = rival else {
            let text = format!("{} has not played", request.rival);
            return Err(Fault::client(Code::FailedPrecondition, text).into());
        };
        let mut score = current.value.clone().unwrap_or(Score { rounds: BTreeMap::new() });
        score.rounds.insert(current.version, rival.value.total() - score.total());
        let caught = Caught { total: score.total(), revision: rival.revision };
        Ok(Change::put(score, caught))
    })
}

fn get(_: &Context, _: &Get, found: Option<Document<Score>>) -> Result<Got, Fault> {
    Ok(Got { has_played: found.is_some(), total: found.map_or(0, |score| score.value.total()) })
}

async fn library(store: &Store, options: &Options) -> Service {
    library::service(store, &options.snapshot).await.unwrap()
}

async fn scores(store: &Store, _: &Options) -> Service {
    let config = RecordsConfig::new(BucketConfig { name: "scores", ttl: None, history: 8 });
    let records: Records<Score> = Records::open(store, config).await.unwrap();
    let log = LogConfig { name: "SCORES_EVENTS", subjects: &["evt.scores.>"], ..LogConfig::DEFAULT };
    store.provide_log(log).await.unwrap();
    Service::new("scores", "1.0.0")
        .keeping(&records)
        .sweeping("sweeper", &records)
        .hook_put_beside("scores.v1.ScoreService/Catch", catch)
        .sharing(Rules { points_max: 100 })
        .hook_put_at("scores.v1.ScoreService/Add", Rules::add)
        .hook_publish("scores.v1.ScoreService/Cheer", Rules::cheer)
        .hook_list("scores.v1.ScoreService/Best", Rules::best)
        .hook_delete("scores.v1.ScoreService/Forget", Rules::forget)
        .hook_watch("scores.v1.ScoreService/Watch", Rules::watch)
        .hook_put_at_beside("scores.v1.ScoreService/Copy", Rules::copy)
        .hook_watch_knowing("scores.v1.ScoreService/WatchLead", Rules::watch_lead)
        .done()
        .hook_get("scores.v1.ScoreService/Get", get)
        .hook_watch_every("scores.v1.ScoreService/Follow", follow)
}

/// A gateway in front of two replicas.
struct Served {
    running: Running,
    client: reqwest::Client,
    _workers: Vec<Worker>,
}

impl Served {
    async fn new(proto: &str, bus: &Bus, store: &Store, make: impl AsyncFn(&Store, &Options) -> Service) -> Served {
        let (running, _) = gateway(support::snapshot(ROUTES, proto), bus, |_| {}).await;
        let mut workers = Vec::new();
        for _ in 0..2 {
            let mut options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, proto)));
            options.store = store.clone();
            let service = make(store, &options).await;
            workers.push(Worker::start(options, vec![service]).await.unwrap_or_else(|error| panic!("{error}")));
        }
        Served { running, client: reqwest::Client::new(), _workers: workers }
    }

    /// Status and body.
    async fn ask(&self, verb: &str, path: &str, body: Option<Value>, key: &str) -> (u16, Value) {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None, "").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The first events of a stream: the data of each.
    async fn events(&self, path: &str, after: &str, count: usize) -> Vec<Value> {
        use futures_util::StreamExt as _;
        let request = self.client.get(url(&self.running, path)).header("accept", "text/event-stream");
        let request = if after.is_empty() { request } else { request.header("last-event-id", after) };
        let mut bytes = request.send().await.unwrap().bytes_stream();
        let mut text = String::new();
        loop {
            let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
            let data = whole.lines().filter_map(|line| line.strip_prefix("data:"));
            let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
            if events.len() >= count {
                return events;
            }
            let next = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("an event");
            text.push_str(std::str::from_utf8(&next.expect("the stream goes on").unwrap()).unwrap());
        }
    }
}

macro_rules! on_both_buses {
    ($($rule:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::Bus::embedded()).await;
            })*
        }
        mod nats {
            $(#[tokio::test]
            async fn $rule() {
                let server = super::NatsServer::start();
                super::$rule(server.bus().await).await;
            })*
        }
    };
}

on_both_buses!(
    a_hook_decides_about_a_declared_document,
    the_event_of_a_hook_s_change_is_the_document_as_written,
    a_hook_has_its_own_struct_and_key,
    a_hook_knows_the_document_beside_the_one_that_it_writes,
    a_hook_makes_the_event_that_is_published,
    a_refused_check_takes_no_idempotency_key,
    a_hook_s_change_drops_what_a_cached_read_keeps,
    reads_are_what_the_hooks_make_of_them,
    a_watch_tells_what_the_hook_says_and_resumes,
    a_watch_also_tells_what_time_alone_has_changed,
    a_hook_says_whether_a_document_may_go_and_what_tells_it,
    a_deleted_message_is_its_event,
    a_hook_is_given_another_document_and_its_repeats_are_not,
    a_watch_knows_what_its_reader_knows,
    documents_of_the_beginning_are_there_once,
);

async fn a_hook_decides_about_a_declared_document(bus: Bus) {
    let library = Served::new(LIBRARY, &bus, &Store::of(&bus), library).await;
    let lend = async |reader: &str, key: &str| {
        library.ask("POST", "/v1/books/emma:lend", Some(json!({ "reader": reader })), key).await
    };
    let (status, missing) = lend("ann", "").await;
    assert_eq!((status, &missing["detail"]), (404, &json!("there is nothing under book_id emma")));
    library.ask("POST", "/v1/books", Some(json!({"bookId": "emma", "title": "Emma"})), "").await;
    let lent = json!({"bookId": "emma", "title": "Emma", "reader": "ann", "timesLent": "1", "version": "2"});
    assert_eq!(lend("ann", "k-1").await, (200, lent.clone()));
    assert_eq!(lend("ann", "k-1").await, (200, lent.clone()), "a repeat gets the same answer");
    assert_eq!(library.get("/v1/books/emma").await, lent, "plain operations read what the hook wrote");
    let (status, refused) = lend("bob", "").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("emma is out")));
    assert_eq!(refused["details"]["reason"], "out");
    let (status, refused) = lend("", "").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("reader is required")));
}

async fn the_event_of_a_hook_s_change_is_the_document_as_written(bus: Bus) {
    let store = Store::of(&bus);
    let library = Served::new(LIBRARY, &bus, &store, library).await;
    library.ask("POST", "/v1/books", Some(json!({"bookId": "emma", "title": "Emma"})), "").await;
    library.ask("POST", "/v1/books/emma:lend", Some(json!({"reader": "ann"})), "").await;
    let mut log = store.read_log("LIBRARY_EVENTS", ">", 0).await.unwrap();
    let event = tokio::time::timeout(support::PATIENCE, log.next()).await.unwrap().unwrap();
    assert_eq!(event.subject.as_str(), "evt.library.emma.lent");
    assert_eq!(event.headers.get("Nats-Msg-Id"), Some("library_books:_.emma:2"));
    // book_id, title, reader, times_lent, version.
    assert_eq!(&event.payload[..], b"\x0a\x04emma\x12\x04Emma\x1a\x03ann\x20\x01\x28\x02");
}

async fn a_hook_has_its_own_struct_and_key(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let add = async |body: Value| scores.ask("POST", "/v1/games/go/scores", Some(body), "").await;
    let (_, first) = add(json!({"player": "Ann", "points": 3})).await;
    assert_eq!((&first["total"], &first["version"]), (&json!(3), &json!("1")));
    let (_, second) = add(json!({"player": "ANN", "points": 4, "expectedRevision": first["revision"]})).await;
    assert_eq!((&second["total"], &second["version"]), (&json!(7), &json!("2")));
    let (status, late) = add(json!({"player": "ann", "points": 5, "expectedRevision": first["revision"]})).await;
    let [now, then] = [&second, &first].map(|reply| reply["revision"].as_str().unwrap());
    assert_eq!((status, &late["detail"]), (400, &json!(format!("revision is {now}, expected {then}"))));
    assert_eq!(late["details"], json!({"reason": "revision_mismatch", "current_revision": now}));
    let (_, nothing) = add(json!({"player": "ann"})).await;
    assert_eq!((&nothing["total"], &nothing["version"]), (&json!(7), &json!("2")), "nothing was written");
}

async fn a_hook_knows_the_document_beside_the_one_that_it_writes(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let add = async |points: i32| {
        let body = json!({"player": "bob", "points": points});
        scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.1
    };
    let catch =
        async |key: &str| scores.ask("POST", "/v1/games/go/scores/ann:catch", Some(json!({"rival": "bob"})), key).await;
    let (status, refused) = catch("").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("bob has not played")));
    for (points, total) in [(7, 7), (5, 12)] {
        let beside = add(points).await;
        // What was written a moment ago on any replica is what the rule is given.
        let expected = json!({"total": total, "version": beside["version"], "revision": beside["revision"]});
        assert_eq!(catch("").await, (200, expected));
    }
    let first = catch("k-1").await;
    add(1).await;
    assert_eq!(catch("k-1").await, first, "a repeat gets the same answer");
    assert_eq!(scores.get("/v1/games/go/scores/ann").await["total"], 12);
}

async fn a_hook_makes_the_event_that_is_published(bus: Bus) {
    let store = Store::of(&bus);
    let scores = Served::new(SCORES, &bus, &store, scores).await;
    let cheer = async |topic: &str, id: &str, text: &str, key: &str| {
        let body = json!({"topic": topic, "cheerId": id, "text": text});
        scores.ask("POST", "/v1/games/go.9x9/cheers", Some(body), key).await
    };
    let (status, refused) = cheer("home.north", "c-1", "", "k-1").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("text is required")));
    let first = cheer("home.north", "c-1", "hey", "k-1").await;
    assert_eq!(first, (200, json!({"said": "1 HEY", "sequence": "1"})));
    assert_eq!(cheer("home.north", "c-1", "hey", "k-1").await, first, "a repeat gets the same answer");
    let (_, again) = cheer("home.north", "c-1", "hey", "").await;
    assert_eq!(again, json!({"said": "1 HEY", "sequence": "1", "duplicate": true}));
    // Without an id of its own an event has its call's.
    assert_eq!(cheer("away", "", "ho", "k-2").await, (200, json!({"said": "2 HO", "sequence": "2"})));
    let mut reader = store.read_log("SCORES_EVENTS", ">", 0).await.unwrap();
    for (subject, id, text) in [("home.north", "c-1", "HEY"), ("away", "k-2", "HO")] {
        let event = tokio::time::timeout(support::PATIENCE, reader.next()).await.expect("an event").unwrap();
        // A field is one token, whatever it holds; the dots of another one part tokens.
        assert_eq!(event.subject.as_str(), format!("evt.scores.go=2E9x9.{subject}"));
        assert_eq!(event.headers.get("Nats-Msg-Id"), Some(id));
        assert_eq!(event.headers.get("message-type"), Some("scores.v1.Cheer"));
        assert!(event.payload.windows(text.len()).any(|part| part == text.as_bytes()), "{:?}", event.payload);
    }
    for (topic, reason) in [("a..b", "bad_format"), ("", "required"), ("a.*", "bad_id"), ("a.>", "bad_id")] {
        let (status, refused) = cheer(topic, "", "ho", "").await;
        let details = json!({"field": "topic", "reason": reason});
        assert_eq!((status, &refused["details"]), (400, &details), "{topic}");
    }
}

async fn a_refused_check_takes_no_idempotency_key(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let add = async |points: i32| {
        let body = json!({"player": "ann", "points": points});
        scores.ask("POST", "/v1/games/go/scores", Some(body), "k-1").await
    };
    let (status, refused) = add(101).await;
    assert_eq!((status, &refused["detail"]), (400, &json!("points must be at most 100")));
    let (status, added) = add(10).await;
    assert_eq!((status, &added["total"]), (200, &json!(10)));
    assert_eq!(add(10).await.1, added);
    let (status, other) = add(11).await;
    assert_eq!((status, &other["details"]["reason"]), (409, &json!("key_reused")));
}

async fn a_hook_s_change_drops_what_a_cached_read_keeps(bus: Bus) {
    let proto = LIBRARY.replace(".get = { bucket", ".get = { cache: { seconds: 3600 } bucket");
    assert_ne!(proto, LIBRARY);
    let library = Served::new(&proto, &bus, &Store::of(&bus), library).await;
    library.ask("POST", "/v1/books", Some(json!({"bookId": "emma", "title": "Emma"})), "").await;
    let readers = async || {
        let mut readers = Vec::new();
        for _ in 0..4 {
            readers.push(library.get("/v1/books/emma").await["reader"].clone());
        }
        readers
    };
    assert_eq!(readers().await, vec![Value::Null; 4]);
    let (status, lent) = library.ask("POST", "/v1/books/emma:lend", Some(json!({"reader": "ann"})), "").await;
    assert_eq!((status, &lent["reader"]), (200, &json!("ann")));
    // The memory of the other replica goes by its age of a second.
    eventually("every replica shows the reader", async || readers().await == vec![json!("ann"); 4]).await;
}

async fn reads_are_what_the_hooks_make_of_them(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    assert_eq!(scores.get("/v1/games/go/scores/ann").await, json!({}));
    for (player, points) in [("ann", 3), ("bob", 5), ("ann", 4)] {
        let body = json!({"player": player, "points": points});
        assert_eq!(scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.0, 200);
    }
    assert_eq!(scores.get("/v1/games/go/scores/ann").await, json!({"total": 7, "hasPlayed": true}));
    let (status, refused) = scores.ask("GET", "/v1/games/go/scores/a%20b", None, "").await;
    let text = "player must have 1 to 128 bytes, without white space, `*` or `>`";
    assert_eq!((status, &refused["detail"]), (400, &json!(text)));
    // The other replica's list is a moment behind.
    eventually("every replica knows the best", async || {
        let mut best = Vec::new();
        for _ in 0..4 {
            best.push(scores.get("/v1/games/go:best").await);
        }
        best.iter().all(|best| *best == json!({"player": "ann", "total": 7}))
    })
    .await;
    assert_eq!(scores.get("/v1/games/chess:best").await, json!({}));
}

async fn a_watch_tells_what_the_hook_says_and_resumes(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let path = "/v1/games/go/scores/ann:watch";
    assert_eq!(scores.events(path, "", 1).await[0]["text"], "ann has not played");
    let add = async |points: i32| {
        let body = json!({"player": "ann", "points": points});
        scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.1
    };
    let first = add(3).await["revision"].as_str().unwrap().to_owned();
    let told = scores.events(path, "", 1).await;
    assert_eq!(told[0], json!({"revision": first, "text": "3 points"}));
    add(4).await;
    assert_eq!(scores.events(path, &first, 1).await[0]["text"], "4 points");
}

async fn a_watch_also_tells_what_time_alone_has_changed(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let body = json!({"player": "ann", "points": 3});
    assert_eq!(scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.0, 200);
    let told = scores.events("/v1/games/go:follow", "", 2).await;
    assert_eq!(told, [json!({"text": "go: ann plays"}), json!({"text": "go: ann is idle"})]);
}

async fn a_hook_says_whether_a_document_may_go_and_what_tells_it(bus: Bus) {
    let store = Store::of(&bus);
    let scores = Served::new(SCORES, &bus, &store, scores).await;
    let add = async |points: i32| {
        let body = json!({"player": "ann", "points": points});
        assert_eq!(scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.0, 200);
    };
    let forget = async |query: &str, key: &str| {
        scores.ask("DELETE", &format!("/v1/games/go/scores/ann?{query}"), None, key).await
    };
    let (status, missing) = forget("reason=left", "").await;
    assert_eq!((status, &missing["detail"]), (404, &json!("there is nothing under game go, player ann")));
    add(60).await;
    add(40).await;
    let (status, refused) = forget("reason=left", "").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("who has 100 points stays")));
    add(-30).await;
    let (status, late) = forget("reason=left&version=2", "").await;
    assert_eq!((status, &late["detail"]), (400, &json!("version is 3, expected 2")));
    let (status, refused) = forget("", "k-1").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("reason is required")));
    let gone = (200, json!({"version": "4", "forgotten": true}));
    assert_eq!(forget("reason=left&version=3", "k-1").await, gone, "the refused check has taken no key");
    assert_eq!(forget("reason=left&version=3", "k-1").await, gone, "a repeat gets the same answer");
    assert_eq!(forget("reason=left", "").await.0, 404);
    assert_eq!(scores.get("/v1/games/go/scores/ann").await, json!({}));
    let mut log = store.read_log("SCORES_EVENTS", ">", 0).await.unwrap();
    let event = tokio::time::timeout(support::PATIENCE, log.next()).await.unwrap().unwrap();
    // total 70, has_played.
    assert_eq!((event.subject.as_str(), &event.payload[..]), ("evt.scores.forgotten", &b"\x08\x46\x10\x01"[..]));
    assert!(event.headers.get("Nats-Msg-Id").unwrap().starts_with("forgotten:"));
}

async fn a_deleted_message_is_its_event(bus: Bus) {
    let store = Store::of(&bus);
    let library = Served::new(LIBRARY, &bus, &store, library).await;
    for book in ["emma", "dune"] {
        library.ask("POST", "/v1/books", Some(json!({"bookId": book, "title": book})), "").await;
    }
    library.ask("POST", "/v1/books/emma:lend", Some(json!({"reader": "ann"})), "").await;
    let (status, refused) = library.ask("DELETE", "/v1/books/emma", None, "").await;
    assert_eq!((status, &refused["detail"]), (400, &json!("ann has it")));
    assert_eq!(library.ask("DELETE", "/v1/books/dune", None, "").await, (200, json!({})));
    assert_eq!(library.ask("GET", "/v1/books/dune", None, "").await.0, 404);
    let mut log = store.read_log("LIBRARY_EVENTS", "evt.library.*.removed", 0).await.unwrap();
    let event = tokio::time::timeout(support::PATIENCE, log.next()).await.unwrap().unwrap();
    assert_eq!(event.headers.get("Nats-Msg-Id"), Some("library_books:_.dune:2"));
    assert_eq!(&event.payload[..], b"\x0a\x04dune\x12\x04dune");
}

#[tokio::test]
async fn a_log_that_does_not_answer_in_time_is_told() {
    let server = NatsServer::start();
    let store = Store::of(&server.bus().await);
    let proto = SCORES.replace("within: { seconds: 2 }", "within: { seconds: 1 }");
    let scores = Served::new(&proto, &Bus::embedded(), &store, scores).await;
    server.signal("STOP");
    let body = json!({"topic": "home", "cheerId": "c-1", "text": "hey"});
    let (status, refused) = scores.ask("POST", "/v1/games/go/cheers", Some(body), "").await;
    let text = "the log does not answer: publish it again under the same id";
    assert_eq!((status, &refused["detail"]), (503, &json!(text)));
}

async fn a_hook_is_given_another_document_and_its_repeats_are_not(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let copy = async |from: &str, key: &str| {
        let path = format!("/v1/games/go/scores/{from}:copy");
        scores.ask("POST", &path, Some(json!({"to": "eve"})), key).await
    };
    let add = async |points: i32| {
        let body = json!({"player": "ann", "points": points});
        assert_eq!(scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.0, 200);
    };
    let (status, refused) = copy("ann", "").await;
    assert_eq!((status, &refused["detail"]), (404, &json!("ann has not played")));
    let (status, refused) = copy("a%20b", "").await;
    assert_eq!((status, &refused["details"]["reason"]), (400, &json!("bad_id")));
    add(3).await;
    let (_, copied) = copy("ann", "k-1").await;
    assert_eq!((&copied["total"], &copied["version"]), (&json!(3), &json!("1")));
    add(4).await;
    for _ in 0..4 {
        assert_eq!(copy("ann", "k-1").await, (200, copied.clone()), "on any replica");
    }
    let (_, anew) = copy("ann", "k-2").await;
    assert_eq!((&anew["total"], &anew["version"]), (&json!(7), &json!("2")));
    assert_eq!(scores.get("/v1/games/go/scores/eve").await["total"], json!(7));
}

async fn a_watch_knows_what_its_reader_knows(bus: Bus) {
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), scores).await;
    let add = async |player: &str, points: i32| {
        let body = json!({"player": player, "points": points});
        assert_eq!(scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.0, 200);
    };
    add("ann", 9).await;
    add("bob", 3).await;
    let path = "/v1/games/go:watchLead";
    let first = scores.events(path, "", 1).await;
    assert_eq!(first[0]["text"], "ann leads 2 with 9");
    // A list of the replica that answers may be a second behind.
    eventually("both replicas list ann", async || {
        let mut best = Vec::new();
        for _ in 0..4 {
            best.push(scores.get("/v1/games/go:best").await);
        }
        best.iter().all(|best| best["player"] == "ann")
    })
    .await;
    add("bob", 4).await;
    let told = scores.events(path, first[0]["revision"].as_str().unwrap(), 1).await;
    assert_eq!(told[0]["text"], "ann leads 2 with 9", "bob alone has changed");
}

async fn documents_of_the_beginning_are_there_once(bus: Bus) {
    let houses = Arc::new(std::sync::Mutex::new(Arc::new(vec![("house", 5)])));
    let beginning = async |store: &Store, _: &Options| {
        let config = RecordsConfig::new(BucketConfig { name: "scores", ttl: None, history: 8 });
        let records: Records<Score> = Records::open(store, config).await.unwrap();
        let houses = houses.clone();
        let first = |houses: &Vec<(&str, i32)>, _: i64| {
            let score = |points: i32| Score { rounds: [(0, points)].into() };
            let place = |player: &str| vec!["go".to_owned(), player.to_owned()];
            houses.iter().map(|(player, points)| (place(player), score(*points))).collect()
        };
        Service::new("scores", "1.0.0")
            .keeping(&records)
            .beginning_with(&records, move || houses.lock().unwrap().clone(), first)
            .sharing(Rules { points_max: 100 })
            .hook_put_at("scores.v1.ScoreService/Add", Rules::add)
            .hook_watch("scores.v1.ScoreService/Watch", Rules::watch)
            .done()
            .hook_get("scores.v1.ScoreService/Get", get)
    };
    let scores = Served::new(SCORES, &bus, &Store::of(&bus), beginning).await;
    let total = async |player: &str| scores.get(&format!("/v1/games/go/scores/{player}")).await["total"].clone();
    // A watch finds them, too.
    let told = scores.events("/v1/games/go/scores/house:watch", "", 1).await;
    assert_eq!(told[0]["text"], "5 points");
    let body = json!({"player": "house", "points": 2});
    assert_eq!(scores.ask("POST", "/v1/games/go/scores", Some(body), "").await.1["total"], json!(7));
    *houses.lock().unwrap() = Arc::new(vec![("house", 50), ("annex", 8)]);
    for _ in 0..4 {
        // What is there stays as it is, on each replica; what is new is added.
        assert_eq!((total("house").await, total("annex").await), (json!(7), json!(8)));
    }
}

#[test]
fn the_page_shows_what_runs() {
    let page = include_str!("../docs/declared.md");
    let bare = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let block = |kind: &str, begins: &str| {
        let opened = format!("```{kind}\n");
        let blocks = page.split(&opened).skip(1).filter_map(|rest| rest.split("```").next());
        blocks.map(bare).find(|block| block.starts_with(begins)).unwrap_or_else(|| panic!("no block with {begins}"))
    };
    assert!(bare(LIBRARY).contains(&block("proto", "rpc LendBook")));
    let code = bare(include_str!("../docs/declared/library.rs"));
    assert!(code.contains(&block("rust", "/// A book goes to one")));
    assert!(code.contains(&block("rust", "pub async fn service")));
}

/// What keeps a worker from starting.
async fn problems(make: impl AsyncFn(&Store, &Options) -> Service) -> Vec<String> {
    let options = Options::new(Bus::embedded(), Arc::new(support::snapshot(ROUTES, SCORES)));
    let service = make(&options.store, &options).await;
    match Worker::start(options, vec![service]).await {
        Err(StartError::Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn for_who_is_not_let_in_nothing_is_read() {
    let bus = Bus::embedded();
    let store = Store::of(&bus);
    let guarded = async |store: &Store, _: &Options| {
        let config = RecordsConfig::new(BucketConfig { name: "scores", ttl: None, history: 8 });
        let records: Records<Score> = Records::open(store, config).await.unwrap();
        for place in ["_.go.ann", "_.go.bob"] {
            records.bucket().put(place, "garbage".into(), Expected::Any).await.unwrap();
        }
        let own = |_: &Context, player: &str| match player {
            "bob" => Ok(()),
            _ => Err(Fault::client(tidegate::fault::Code::PermissionDenied, format!("{player} is not yours"))),
        };
        Service::new("scores", "1.0.0").keeping(&records).hook_get("scores.v1.ScoreService/Get", get).guarded(
            "scores.v1.ScoreService/Get",
            "player",
            own,
        )
    };
    let scores = Served::new(SCORES, &bus, &store, guarded).await;
    let (status, refused) = scores.ask("GET", "/v1/games/go/scores/ann", None, "").await;
    assert_eq!((status, &refused["detail"]), (403, &json!("ann is not yours")));
    assert_eq!(scores.ask("GET", "/v1/games/go/scores/bob", None, "").await.0, 500, "it is read, and cannot be");
}

#[tokio::test]
async fn hooks_that_do_not_fit_stop_the_start() {
    let kept = async |store: &Store| {
        let config = RecordsConfig::new(BucketConfig { name: "scores", ttl: None, history: 8 });
        let records: Records<Score> = Records::open(store, config).await.unwrap();
        Service::new("scores", "1.0.0").keeping(&records)
    };
    let of_schema = async |store: &Store, options: &Options| {
        declared(store, &options.snapshot, "scores.v1.ScoreService").await.unwrap()
    };
    let none = problems(of_schema).await;
    assert_eq!(none.len(), SCORES.matches("hook: true").count(), "{none:?}");
    assert_eq!(
        none[0],
        "service `scores`, method `scores.v1.ScoreService/Add`: its declaration has a hook, which is code: add it with \
         `Service::hook_put`"
    );
    type Other = BTreeMap<String, i32>;
    let of = |text: &str| format!("service `scores`, method `scores.v1.ScoreService/Get`: {text}");
    let other = |_: &Context, _: &Get, _: Option<Document<Other>>| Ok::<_, Fault>(Got { total: 0, has_played: false });
    let wrong = problems(async |store, _| kept(store).await.hook_get("scores.v1.ScoreService/Get", other)).await;
    assert_eq!(wrong[0], of("bucket `scores` keeps another struct than the hook takes"));
    let bare = problems(async |_, _| Service::new("scores", "1.0.0").hook_get("scores.v1.ScoreService/Get", get)).await;
    assert_eq!(bare[0], of("the service keeps no bucket `scores`: give its records to `Service::keeping`"));
    let tell = |_: Context, _: Watch, _: Option<Vec<(String, Document<Score>)>>| {
        Ok(|_: Moment<Score>| Ok::<_, Fault>(None::<Told>))
    };
    let plain = |_: Context, _: Catch| Ok(|_: &Current<Score>| Ok(Change::nothing(Caught { total: 0, revision: 0 })));
    let wrong = problems(async |store, _| kept(store).await.hook_put("scores.v1.ScoreService/Catch", plain)).await;
    assert!(wrong[0].ends_with("/Catch`: its declaration has a `beside`: use `hook_put_beside`"), "{wrong:?}");
    let cheer = |_: Context, _: CheerRequest| Ok((String::new(), Caught { total: 0, revision: 0 }, |_: &_, _: &_| ()));
    let wrong =
        problems(async |_, _| Service::new("s", "1.0.0").hook_publish("scores.v1.ScoreService/Cheer", cheer)).await;
    assert!(wrong[0].contains("/Cheer`: event: `Caught`"), "{wrong:?}");
    let cheer = |_: Context, _: Get| Ok((String::new(), Added { total: 0 }, |_: &_, _: &_| ()));
    let wrong =
        problems(async |_, _| Service::new("s", "1.0.0").hook_publish("scores.v1.ScoreService/Get", cheer)).await;
    assert!(wrong[0].ends_with("/Get`: it declares a get: register its hook with `hook_get`"), "{wrong:?}");
    let put = |_: Context, _: Get| Ok(|_: &Current<Score>| Ok(Change::nothing(Added { total: 0 })));
    let wrong = problems(async |store, _| kept(store).await.hook_put("scores.v1.ScoreService/Get", put)).await;
    assert_eq!(wrong[0], of("it declares a get: register its hook with `hook_get`"));
    let wrong =
        problems(async |store, _| kept(store).await.hook_watch_every("scores.v1.ScoreService/Watch", tell)).await;
    let watch = "service `scores`, method `scores.v1.ScoreService/Watch`";
    assert_eq!(wrong[0], format!("{watch}: its declaration has no `every`: say it, or use `hook_watch`"));
    let put = |_: Context, _: Copy| Ok((Vec::new(), |_: &Current<Score>| Ok(Change::nothing(Added { total: 0 }))));
    let wrong = problems(async |store, _| kept(store).await.hook_put_at("scores.v1.ScoreService/Copy", put)).await;
    assert!(wrong[0].ends_with("its declaration has a `beside`: use `hook_put_at_beside`"), "{wrong:?}");
    let put = |_: Context, _: Add, _: Option<Document<Score>>| {
        Ok((Vec::new(), |_: &Current<Score>| Ok(Change::nothing(Added { total: 0 }))))
    };
    let wrong =
        problems(async |store, _| kept(store).await.hook_put_at_beside("scores.v1.ScoreService/Add", put)).await;
    assert!(wrong[0].ends_with("its declaration has no `beside`: say it, or use `hook_put_at`"), "{wrong:?}");
    let got = |_: &Context, _: &Get, _: Option<Document<Score>>| Ok::<_, Fault>(Added { total: 0 });
    let wrong = problems(async |store, _| kept(store).await.hook_get("scores.v1.ScoreService/Get", got)).await;
    assert_eq!(wrong[0], of("reply: `Added` lacks a field of `scores.v1.GetReply`: add `has_played: bool`"));
}

#[test]
fn a_declaration_whose_hook_has_no_place_is_refused_with_its_place() {
    let refused = |from: &str, to: &str| {
        let proto = SCORES.replace(from, to);
        assert_ne!(proto, SCORES);
        let problems = support::material(ROUTES, &proto).build(None).expect_err("it is refused");
        problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("\n")
    };
    let rows = [
        (
            r#"list { bucket"#,
            r#"list { into: "player" bucket"#,
            "`operation.list`: `into` is what the hook decides: remove one of the two",
        ),
        (
            "hook: true get",
            "get",
            "`operation.get`: bucket `scores` keeps no message: name one in its `document`, or say `hook: true`",
        ),
        ("hook: true watch {", "watch {", "`operation.watch`: `every` needs `hook: true`"),
        (
            "hook: true put { bucket: \"scores\" expected",
            "put { bucket: \"scores\" expected",
            "`operation.put`: `revision_into` needs `hook: true`",
        ),
        (
            r#"key: "{game}.{player}" beside"#,
            r#"key: "{game=**}.{player}" beside"#,
            "`operation.put`: `{game=**}.{player}`: in a key a field is one token: leave `=**` out",
        ),
        ("hook: true\n      publish", "publish", "`operation.publish`: `message` needs `hook: true`"),
        (
            r#"message: "scores.v1.Cheer""#,
            r#"message: "scores.v1.Boo""#,
            "`operation.publish`: `message`: the schema has no message `scores.v1.Boo`",
        ),
        (r#"message: "scores.v1.Cheer""#, "", "`operation.publish`: `message` names the event that the hook makes"),
        (
            r#"message: "scores.v1.Cheer""#,
            r#"id: "cheer_id" message: "scores.v1.Cheer""#,
            "`operation.publish`: `id` is what the hook decides: remove one of the two",
        ),
        (
            r#"beside: "{game}.{rival}""#,
            r#"beside: "{game}.{foe}""#,
            "`operation.put`: `foe` of the request (`scores.v1.CatchRequest`)",
        ),
        (
            r#"watch { bucket: "scores""#,
            r#"watch { under: "{game}" bucket: "scores""#,
            "`operation.watch`: `key` is one document, `under` are many: name one of them",
        ),
        (
            r#"put { bucket: "scores" expected"#,
            r#"put { event { subject: "evt.x" } bucket: "scores" expected"#,
            "`operation.put`: `event`: bucket `scores` keeps no message, so the hook has to do this",
        ),
        (
            r#"list { bucket: "scores" under: "{game}""#,
            r#"read { log: "SCORES_EVENTS""#,
            "`operation.read`: it has no hook: only get, put, delete, list, watch and publish have",
        ),
        (
            r#"delete {"#,
            r#"delete { event { subject: "evt.x" }"#,
            "`operation.delete`: `event`: bucket `scores` keeps no message, so the hook has to do this",
        ),
        (
            r#"beside: "{game}.{player}""#,
            r#"beside: "{game}.{rival}""#,
            "`operation.put`: `rival` of the request (`scores.v1.CopyRequest`)",
        ),
        (
            "ttl: { seconds: 3600 }",
            r#"version: "total""#,
            "bucket `scores`: `version` and `updated` are fields of a `message`: name that as well",
        ),
    ];
    for (from, to, text) in rows {
        let found = refused(from, to);
        assert!(found.contains(text), "{found}");
    }
}
