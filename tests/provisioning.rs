//! Streams, consumers and buckets on a real nats-server: made, compared, changed and refused by `tidegate streams apply`,
//! used by workers; and `docs/events.md`, whose commands are run as they stand there.

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy, StorageType};
use bytes::Bytes;
use support::nats::NatsServer;
use support::{eventually, project};
use tidegate::bus::{Bus, Headers, NatsOptions, Subject};
use tidegate::fault::{Code, Fault};
use tidegate::services::buckets::BUCKETS;
use tidegate::services::events::{
    DLQ_ADVISORIES, EVENTS, LOGS, ORCHESTRATION_STEP, WEATHER_TIME_SYNC, consumers, keeping_dead_letters,
};
use tidegate::store::{Event, Logged, Replicas, Resource, Step, Store};
use tidegate::worker::{Consume, Context, Options, Service, Setback, Worker};

fn tidegate(server: &NatsServer, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env("NATS_URL", server.url()).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn resources() -> Vec<Resource> {
    let logs = LOGS.iter().cloned().map(Resource::Log);
    logs.chain(consumers().map(Resource::Consumer)).chain(BUCKETS.iter().cloned().map(Resource::Bucket)).collect()
}

async fn client(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

#[tokio::test]
async fn apply_says_what_it_does_does_it_once_and_changes_nothing_when_dry() {
    let server = NatsServer::start();
    let all = resources().len();
    let (code, plan, _) = said(&tidegate(&server, &["streams", "apply", "--dry-run"]));
    assert_eq!(code, Some(3), "{plan}");
    assert!(plan.starts_with("create stream GAME_EVENTS\n"), "{plan}");
    assert!(plan.contains("create consumer GAME_EVENTS/quest_processor\n"), "{plan}");
    assert!(plan.contains("create bucket tg_state\n"), "{plan}");
    assert!(plan.ends_with(&format!("{all} to create, 0 to change, 0 refused, 0 as they should be\n")), "{plan}");
    assert_eq!(client(&server).await.query_account().await.unwrap().streams, 0);

    assert_eq!(said(&tidegate(&server, &["streams", "apply"])), (Some(0), plan, String::new()));
    let nothing = format!("0 to create, 0 to change, 0 refused, {all} as they should be\n");
    for arguments in [["streams", "apply"].as_slice(), &["streams", "apply", "--dry-run"]] {
        assert_eq!(said(&tidegate(&server, arguments)), (Some(0), nothing.clone(), String::new()));
    }
}

/// The contract's rows, read back from the server.
#[tokio::test]
async fn the_server_has_the_settings_of_the_contract() {
    let server = NatsServer::start();
    assert!(tidegate(&server, &["streams", "apply"]).status.success());
    let client = client(&server).await;
    let (limits, work) = (RetentionPolicy::Limits, RetentionPolicy::WorkQueue);
    let (old, new) = (DiscardPolicy::Old, DiscardPolicy::New);
    for (name, subjects, retention, age_s, size, window_s, most, discard, is_denied) in [
        ("GAME_EVENTS", 12, limits, 3_600, 983_040, 120, 100, old, false),
        ("SYSTEM_EVENTS", 5, limits, 300, 524_288, 60, 50, old, false),
        ("AI_EVENTS", 1, limits, 3_600, 524_288, 120, 50, old, false),
        ("NARRATIVE_EVENTS", 4, limits, 7_200, 983_040, 300, 20, old, false),
        ("ORCHESTRATION_EVENTS", 1, limits, 86_400, 983_040, 600, 50, old, false),
        ("ORCHESTRATION_WORK", 1, work, 86_400, 983_040, 600, 10, new, false),
        ("DLQ", 1, limits, 604_800, 1_048_576, 120, 5, old, false),
        ("DLQ_ADVISORIES", 2, limits, 604_800, 65_536, 120, 5, old, false),
        ("AUDIT", 1, limits, 7_776_000, 262_144, 120, 5, old, true),
    ] {
        let config = client.get_stream(name).await.unwrap().cached_info().config.clone();
        let times = (config.max_age.as_secs(), config.duplicate_window.as_secs());
        assert_eq!(
            (config.subjects.len(), config.retention, times),
            (subjects, retention, (age_s, window_s)),
            "{name}"
        );
        assert_eq!((config.max_message_size, config.max_consumers, config.discard), (size, most, discard), "{name}");
        assert_eq!((config.deny_delete, config.deny_purge), (is_denied, is_denied), "{name}");
        assert_eq!((config.storage, config.num_replicas), (StorageType::File, 1), "{name}");
    }
    for (stream, name, filter, ack_wait_s, deliveries) in [
        ("GAME_EVENTS", "quest_processor", "evt.quest.>", 30, 3),
        ("GAME_EVENTS", "world_state_sync", "evt.world.>", 10, 5),
        ("GAME_EVENTS", "weather_time_sync", "evt.time.>", 10, 5),
        ("GAME_EVENTS", "event_dispatch_game", "evt.>", 30, 5),
        ("SYSTEM_EVENTS", "event_dispatch_system", "evt.>", 30, 5),
        ("NARRATIVE_EVENTS", "event_dispatch_narrative", "evt.>", 30, 5),
        ("AI_EVENTS", "event_dispatch_ai", "evt.>", 30, 5),
        ("ORCHESTRATION_EVENTS", "event_dispatch_orchestration", "evt.>", 30, 5),
        ("ORCHESTRATION_WORK", "orchestration_step", "work.orchestration.>", 30, 5),
        ("DLQ_ADVISORIES", "dlq_advisories", "$JS.EVENT.ADVISORY.CONSUMER.>", 30, -1),
    ] {
        let stream = client.get_stream(stream).await.unwrap();
        let config = stream.consumer_info(name).await.unwrap().config;
        assert_eq!((&*config.filter_subject, config.ack_wait.as_secs()), (filter, ack_wait_s), "{name}");
        assert_eq!((config.max_deliver, config.max_ack_pending), (deliveries, 1_000), "{name}");
        assert!(config.deliver_subject.is_none() && config.backoff.is_empty(), "{name}");
    }
    let bucket = client.get_stream("KV_tg_caps").await.unwrap().cached_info().config.clone();
    assert_eq!((bucket.max_age.as_secs(), bucket.max_messages_per_subject, bucket.allow_direct), (330, 1, true));
    let bucket = client.get_key_value("tg_routes").await.unwrap().status().await.unwrap();
    assert_eq!((bucket.history(), bucket.max_age()), (16, Duration::ZERO));
}

#[tokio::test]
async fn what_differs_is_changed_and_what_would_lose_data_is_refused() {
    let server = NatsServer::start();
    assert!(tidegate(&server, &["streams", "apply"]).status.success());
    let client = client(&server).await;
    let change = async |name: &str, change: fn(&mut jetstream::stream::Config)| {
        let mut config = client.get_stream(name).await.unwrap().cached_info().config.clone();
        change(&mut config);
        client.update_stream(&config).await.unwrap();
    };
    change("AI_EVENTS", |config| {
        config.max_age = Duration::from_secs(1_800);
        config.description = Some("an operator's words".to_owned());
    })
    .await;
    change("SYSTEM_EVENTS", |config| config.subjects.push("evt.extra.>".to_owned())).await;
    change("KV_tg_state", |config| config.max_messages_per_subject = 16).await;
    change("KV_tg_quests", |config| config.max_age = Duration::from_secs(30 * 86_400)).await;
    let stream = client.get_stream("GAME_EVENTS").await.unwrap();
    let mut config = stream.get_consumer::<jetstream::consumer::pull::Config>("weather_time_sync").await.unwrap();
    let config = &mut config.info().await.unwrap().config.clone();
    config.ack_wait = Duration::from_secs(20);
    let pull = jetstream::consumer::FromConsumer::try_from_consumer_config(config.clone()).unwrap();
    stream.update_consumer::<jetstream::consumer::pull::Config>(pull).await.unwrap();

    let kept = resources().len() - 5;
    let refused = [
        "refuse bucket tg_state: history 16 → 8 (refused: it would lose revisions)",
        "refuse bucket tg_quests: max age 30d → 7d (refused: it would lose events)",
    ];
    let subjects = "evt.auth.> evt.capability.> evt.extra.> evt.perf.> evt.router.> evt.settings.> → evt.auth.> \
                    evt.capability.> evt.perf.> evt.router.> evt.settings.>";
    let plan = [
        &format!("refuse stream SYSTEM_EVENTS: subjects {subjects} (refused: it would lose events)"),
        "change stream AI_EVENTS: max age 30m → 1h",
        "change consumer GAME_EVENTS/weather_time_sync: ack wait 20s → 10s",
        refused[0],
        refused[1],
        &format!("0 to create, 2 to change, 3 refused, {kept} as they should be"),
    ];
    let error = "error: 3 refused: change them by hand where you mean it, everything else is done\n".to_owned();
    let first = said(&tidegate(&server, &["streams", "apply"]));
    assert_eq!(first, (Some(1), plan.join("\n") + "\n", error.clone()));

    let ai = client.get_stream("AI_EVENTS").await.unwrap().cached_info().config.clone();
    assert_eq!(ai.max_age, Duration::from_secs(3_600));
    assert_eq!(ai.description.as_deref(), Some("an operator's words"), "what is not ours stays");
    let state = client.get_stream("KV_tg_state").await.unwrap().cached_info().config.clone();
    assert_eq!(state.max_messages_per_subject, 16);
    let kept = kept + 2;
    let plan =
        [plan[0], refused[0], refused[1], &format!("0 to create, 0 to change, 3 refused, {kept} as they should be")];
    assert_eq!(said(&tidegate(&server, &["streams", "apply"])), (Some(1), plan.join("\n") + "\n", error));
}

#[tokio::test]
async fn without_a_server_it_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["streams", "apply", "--nats", "nats://127.0.0.1:1"])
        .output()
        .unwrap();
    let error = "error: no NATS server takes a connection at nats://127.0.0.1:1\n".to_owned();
    assert_eq!(said(&output), (Some(1), String::new(), error));
}

/// Starts a worker and ends it once it is ready; its complaint where it does not start.
fn start_worker(server: &NatsServer, arguments: &[&str]) -> Result<(), String> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["worker", "--nats", server.url()])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut complaint = Vec::new();
    let is_ready = lines.by_ref().any(|line| {
        complaint.push(line.clone());
        line.contains("worker ready")
    });
    if is_ready {
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        lines.for_each(drop);
        assert!(child.wait().unwrap().success());
        return Ok(());
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
    Err(complaint.into_iter().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn a_worker_makes_what_is_missing_just_as_apply_does_or_says_what_to_do() {
    let server = NatsServer::start();
    assert_eq!(
        start_worker(&server, &["--provision", "never"]),
        Err("error: the store is not set up\nno log takes `GAME_EVENTS`; make what is missing with \
             `tidegate streams apply`"
            .to_owned())
    );
    assert_eq!(start_worker(&server, &[]), Ok(()));
    let store = Store::of(&server.bus().await);
    let mut missing = 0;
    for resource in resources() {
        match store.compare(&resource, Replicas::AtLeast(1)).await.unwrap() {
            Step::Keep => {}
            // Buckets of services that do not run here.
            Step::Create => missing += 1,
            Step::Change(differences) => panic!("{resource}: {differences:?}"),
        }
    }
    assert!(missing < BUCKETS.len(), "the worker has made no bucket");
    assert!(tidegate(&server, &["streams", "apply"]).status.success());
    assert_eq!(start_worker(&server, &["--provision", "never"]), Ok(()));
}

/// Whatever a service names as an event's subject, its log is checked when a worker starts.
#[test]
fn every_event_that_a_service_names_is_in_the_table() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/services")];
    let mut named = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "events.rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let is_subject = |part: &&str| part.starts_with("evt.") && part.ends_with(".v1");
                // Subjects with a hole are those of types that callers name: event-bus checks their beginning itself.
                for subject in text.split('"').filter(is_subject).filter(|part| !part.contains('{')) {
                    assert!(EVENTS.contains(&subject), "{}: `{subject}`", path.display());
                    named += 1;
                }
            }
        }
    }
    assert!(named > 3, "the services name {named} events");
}

/// A service opens its own buckets, so what the schema says of them would not be seen to be wrong.
#[test]
fn declared_documents_are_kept_as_the_table_of_buckets_says() {
    let snapshot = project().build(None).unwrap();
    let methods = snapshot.services.iter().flat_map(|row| &row.methods);
    let kinds: Vec<_> = methods.filter_map(|method| method.operation.as_ref()?.kind().cloned()).collect();
    assert!(!kinds.is_empty());
    for kind in kinds {
        let bucket = BUCKETS.iter().find(|bucket| bucket.name == kind.bucket);
        let bucket = bucket.unwrap_or_else(|| panic!("no bucket `{}` in the table", kind.bucket));
        assert_eq!(kind.history, bucket.history, "{}", bucket.name);
        assert!(kind.ttl.is_none() || kind.ttl == bucket.ttl, "{}", bucket.name);
    }
}

#[tokio::test]
async fn a_cluster_keeps_three_copies() {
    let servers = NatsServer::jetstream_cluster::<3>().await;
    let store = Store::of(&servers[0].bus().await);
    assert_eq!(store.replicas_default(), 3);
    // A server that has just started may not be known as a place for copies yet.
    eventually("there is a place for three copies", async || store.provide_log(LOGS[0].clone()).await.is_ok()).await;
    let client = client(&servers[1]).await;
    let copies_are = async |name: &str, count: usize| {
        eventually("the stream has so many copies", async || {
            client.get_stream(name).await.is_ok_and(|stream| stream.cached_info().config.num_replicas == count)
        })
        .await;
    };
    copies_are("GAME_EVENTS", 3).await;
    let log = Resource::Log(LOGS[0].clone());
    let step = store.apply(&log, Replicas::Exactly(1)).await.unwrap();
    let Step::Change(differences) = step else { panic!("{step:?}") };
    assert_eq!(differences[0].to_string(), "replicas 3 → 1");
    copies_are("GAME_EVENTS", 1).await;
    assert_eq!(store.compare(&log, Replicas::Exactly(1)).await, Ok(Step::Keep));
    let bucket = Resource::Bucket(BUCKETS[0].clone());
    assert_eq!(store.apply(&bucket, Replicas::AtLeast(3)).await, Ok(Step::Create));
    copies_are("KV_tg_idem", 3).await;
    assert_eq!(store.compare(&bucket, Replicas::AtLeast(1)).await, Ok(Step::Keep), "copies are not taken away");
}

/// Users of the contract with what they may do here, `_INBOX` for replies and discovery besides.
const USERS: &[(&str, &[&str])] = &[
    ("provisioner", &["$JS.API.>", "$KV.>"]),
    (
        "weather-manager",
        &[
            "dlq.>",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.INFO.GAME_EVENTS",
            "$JS.API.CONSUMER.INFO.GAME_EVENTS.weather_time_sync",
            "$JS.API.CONSUMER.MSG.NEXT.GAME_EVENTS.weather_time_sync",
            "$JS.ACK.GAME_EVENTS.weather_time_sync.>",
        ],
    ),
    (
        "orchestration",
        &[
            "work.orchestration.>",
            "$JS.API.STREAM.INFO.ORCHESTRATION_WORK",
            "$JS.API.CONSUMER.INFO.ORCHESTRATION_WORK.orchestration_step",
            "$JS.API.CONSUMER.MSG.NEXT.ORCHESTRATION_WORK.orchestration_step",
            "$JS.ACK.ORCHESTRATION_WORK.orchestration_step.>",
        ],
    ),
    (
        "event-bus",
        &[
            "evt.>",
            "dlq.>",
            "$JS.API.STREAM.INFO.DLQ_ADVISORIES",
            "$JS.API.CONSUMER.INFO.DLQ_ADVISORIES.dlq_advisories",
            "$JS.API.CONSUMER.MSG.NEXT.DLQ_ADVISORIES.dlq_advisories",
            "$JS.ACK.DLQ_ADVISORIES.dlq_advisories.>",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.DIRECT.GET.*",
            "$JS.API.STREAM.MSG.DELETE.ORCHESTRATION_WORK",
        ],
    ),
    (
        "redrive",
        &[
            "evt.>",
            "work.>",
            "$JS.API.STREAM.INFO.DLQ",
            "$JS.API.STREAM.MSG.GET.DLQ",
            "$JS.API.STREAM.MSG.DELETE.DLQ",
            "$JS.API.DIRECT.GET.DLQ",
        ],
    ),
];

/// A server that lets each user do no more than the contract says.
fn strict_server(folder: &std::path::Path) -> NatsServer {
    let users = USERS.iter().map(|(user, publish)| {
        let publish: Vec<String> = publish.iter().map(|subject| format!("{subject:?}")).collect();
        let publish = publish.join(", ");
        format!(
            "{{ user: {user:?}, password: secret, permissions: {{ publish: [ {publish}, \"_INBOX.*.r.>\" ], \
             subscribe: [ \"_INBOX.{user}.>\", \"$SRV.>\" ] }} }}\n"
        )
    });
    let users: String = users.collect();
    let (config, store) = (folder.join("server.conf"), folder.join("js"));
    std::fs::write(&config, format!("authorization {{ users: [\n{users}] }}\n")).unwrap();
    NatsServer::start_with(&["-js", "-sd", store.to_str().unwrap(), "-c", config.to_str().unwrap()])
}

#[tokio::test]
async fn everybody_gets_along_with_the_permissions_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let server = strict_server(folder.path());
    let url = |user: &str| server.url().replace("nats://", &format!("nats://{user}:secret@"));
    let options = async |user: &str| {
        let password = Some((user.to_owned(), "secret".to_owned()));
        let url = server.url().to_owned();
        let options = NatsOptions { url, user: user.to_owned(), password, ..NatsOptions::default() };
        let bus = Bus::nats(options).await.unwrap();
        bus.flush().await.unwrap();
        let mut options = Options::new(bus, Arc::new(project().build(None).unwrap()));
        options.store = options.store.without_creating();
        options
    };
    let run = |arguments: &[&str]| said(&tidegate(&server, arguments));
    let (code, _, complaint) = run(&["streams", "apply", "--nats", &url("provisioner")]);
    assert_eq!((code, &*complaint), (Some(0), ""));

    let weather = options("weather-manager").await;
    for log in LOGS {
        weather.store.provide_log(log.clone()).await.unwrap();
    }
    let refusing = Service::new("weather-manager", "1.0.0")
        .consumer(WEATHER_TIME_SYNC, |_: Context, _: Logged| async {
            Err(Setback::Never(Fault::ours(Code::Internal, "no such hour")))
        });
    let _weather = Worker::start(weather, vec![refusing]).await.unwrap();
    let event_bus = options("event-bus").await;
    let store = event_bus.store.clone();
    let dead_letters = keeping_dead_letters(Service::new("event-bus", "1.0.0"));
    let _event_bus = Worker::start(event_bus, vec![dead_letters]).await.unwrap();
    let event = |subject: &str| {
        let (subject, headers) = (Subject::new(subject).unwrap(), Headers::new());
        Event { subject, id: "1".to_owned(), headers, payload: Bytes::from_static(b"x") }
    };
    store.append(event("evt.time.hour.changed.v1")).await.unwrap();
    let kept = async |sequence| store.event("DLQ", sequence).await.unwrap();
    eventually("weather's dead letter", async || kept(1).await.is_some()).await;

    let orchestration = options("orchestration").await.store;
    orchestration.append(event("work.orchestration.step.v1")).await.unwrap();
    let mut steps = orchestration.consumer("ORCHESTRATION_WORK", "orchestration_step").await.unwrap();
    for _ in 0..5 {
        steps.next(1).await.unwrap().retry(Duration::ZERO).await.unwrap();
    }
    // The server notices that the step is used up when somebody asks for more.
    let more = tokio::time::timeout(support::PATIENCE, steps.next(1));
    let noticed = eventually("event-bus's dead letter", async || kept(2).await.is_some());
    tokio::select! {
        () = noticed => {}
        _ = more => panic!("a sixth delivery"),
    }
    let (code, printed, complaint) = run(&["dlq", "list", "--nats", &url("redrive")]);
    assert_eq!((code, printed.lines().count(), &*complaint), (Some(0), 3, ""));
    let (code, printed, complaint) = run(&["dlq", "redrive", "2", "--nats", &url("redrive")]);
    assert_eq!((code, &*complaint), (Some(0), ""));
    assert_eq!(printed, "2 sent to work.orchestration.step.v1, position 2\n");
    // A step that leaves the queue while it is with somebody was done elsewhere: event-bus may see that, too.
    assert_eq!(steps.next(1).await.unwrap().event.sequence, 2);
    assert_eq!(store.remove_event("ORCHESTRATION_WORK", 2).await, Ok(true));
    let reports = async || store.event("DLQ_ADVISORIES", 3).await.unwrap();
    eventually("the server reports it", async || reports().await.is_some()).await;
    orchestration.append(Event { id: "2".to_owned(), ..event("work.orchestration.step.v1") }).await.unwrap();
    steps.next(1).await.unwrap().end("never").await.unwrap();
    eventually("the next dead letter", async || kept(3).await.is_some()).await;
    assert_eq!(kept(3).await.unwrap().headers.get("Dlq-Sequence"), Some("3"));
}

/// Commands of a page, each with what it prints; `…` stands for anything.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_console = false;
    for line in page.lines() {
        match line.strip_prefix("$ tidegate ") {
            _ if line.starts_with("```") => is_console = line == "```console",
            Some(command) if is_console => commands.push((command.to_owned(), Vec::new())),
            None if is_console => commands.last_mut().expect("a command before its output").1.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

/// True where a text is as printed on the page.
fn is_like(text: &str, page: &str) -> bool {
    let mut parts = page.split('…');
    let Some(mut rest) = parts.next().and_then(|start| text.trim_end().strip_prefix(start)) else { return false };
    let mut is_open = false;
    for part in parts {
        is_open = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    is_open || rest.is_empty()
}

/// A step of a workflow fails until it is mended; the page shows how an operator sees it and sends it again.
#[tokio::test]
async fn the_commands_of_the_docs_work_as_printed() {
    let server = NatsServer::start();
    let mut commands = commands(include_str!("../docs/events.md")).into_iter();
    let mut run = |count: usize| {
        for (command, expected) in commands.by_ref().take(count) {
            let arguments: Vec<&str> = command.split(' ').collect();
            let (code, printed, complaint) = said(&tidegate(&server, &arguments));
            assert!(matches!(code, Some(0 | 3)), "{command}: {printed}{complaint}");
            let mut lines = printed.lines();
            for line in &expected {
                assert!(lines.any(|printed| is_like(printed, line)), "{command}: no line `{line}` in\n{printed}");
            }
        }
    };
    run(3);

    let options = Options::new(server.bus().await, Arc::new(project().build(None).unwrap()));
    let store = options.store.clone();
    let consume = Consume::new(ORCHESTRATION_STEP).first_pause(Duration::from_millis(10));
    let failing = Service::new("orchestration", "1.0.0").consumer(consume, |_: Context, _: Logged| async {
        Err(Fault::ours(Code::Unavailable, "no worker answers for this method").into())
    });
    // The reader of advisories runs as well: it has to see that the copy is there already.
    let dead_letters = keeping_dead_letters(Service::new("event-bus", "1.0.0"));
    let worker = Worker::start(options, vec![failing, dead_letters]).await.unwrap();
    let mut headers = Headers::new();
    headers.push("message-type", "event_bus.v1.GameEvent");
    let subject = Subject::new("work.orchestration.step.v1").unwrap();
    let payload = Bytes::from_static(b"\x0a\x0aexec_1:pay");
    store.append(Event { subject, id: "exec_1:pay".to_owned(), headers, payload }).await.unwrap();
    let events = async |log: &str| store.log_figures(log).await.unwrap().events;
    eventually("the step is a dead letter", async || events("DLQ").await == 1).await;
    eventually("the step leaves the queue", async || events("ORCHESTRATION_WORK").await == 0).await;
    eventually("the advisory is read", async || {
        let figures = store.log_figures(DLQ_ADVISORIES.log).await.unwrap();
        figures.events == 1 && figures.consumers.iter().all(|reader| reader.waiting + reader.unanswered == 0)
    })
    .await;
    assert_eq!(events("DLQ").await, 1, "one copy, whoever makes it");
    worker.drain().await;
    run(usize::MAX);
    assert_eq!((events("DLQ").await, events("ORCHESTRATION_WORK").await), (0, 1));

    let (code, _, complaint) = said(&tidegate(&server, &["dlq", "show", "1"]));
    let missing = "error: there is no dead letter at position 1: see `tidegate dlq list`\n";
    assert_eq!((code, &*complaint), (Some(1), missing));
    let (code, printed, _) = said(&tidegate(&server, &["dlq", "redrive", "--all"]));
    assert_eq!((code, &*printed), (Some(0), "0 sent, 0 without anything to send\n"));
}
