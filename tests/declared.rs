//! Somebody else's service, served from its descriptor alone: create, get, compare-and-set, delete, list, watch, events;
//! over HTTP, on the embedded bus and on a real nats-server, with two replicas.

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::nats::NatsServer;
use support::place::on_each_bus;
use support::{eventually, gateway, url};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tidegate::store::{BucketConfig, Expected, Keys, Store};
use tidegate::worker::{Options, Worker, declared};

const PROTO: &str = include_str!("../docs/declared/todo.proto");
const ROUTES: &str = include_str!("../docs/declared/routes.yaml");

struct Todo {
    store: Store,
    running: Running,
    client: reqwest::Client,
    _workers: [Worker; 2],
}

struct Answer {
    status: u16,
    etag: Option<String>,
    body: Value,
}

impl Todo {
    async fn on(bus: &Bus, store: &Store) -> Todo {
        Todo::of(PROTO, bus, store).await
    }

    async fn of(proto: &str, bus: &Bus, store: &Store) -> Todo {
        let (running, _) = gateway(support::snapshot(ROUTES, proto), bus, |_| {}).await;
        let mut workers = Vec::new();
        for _ in 0..2 {
            let mut options = Options::new(bus.clone(), Arc::new(support::snapshot(ROUTES, proto)));
            options.store = store.clone();
            let service = declared(store, &options.snapshot, "todo.v1.TodoService").await.unwrap();
            workers.push(Worker::start(options, vec![service]).await.unwrap_or_else(|error| panic!("{error}")));
        }
        let workers = workers.try_into().unwrap_or_else(|_| panic!("two workers"));
        Todo { store: store.clone(), running, client: reqwest::Client::new(), _workers: workers }
    }

    async fn ask(&self, verb: &str, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let etag = answer.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        Answer { status, etag, body: serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")) }
    }

    async fn create(&self, id: &str, done: bool) -> Answer {
        self.ask("POST", "/v1/lists/home/tasks", Some(json!({"taskId": id, "title": id, "done": done})), &[]).await
    }

    /// The first events of a stream.
    async fn events(&self, path: &str, headers: &[(&str, &str)], count: usize) -> Vec<(String, Value)> {
        use futures_util::StreamExt as _;
        let mut request = self.client.get(url(&self.running, path)).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut bytes = request.send().await.unwrap().bytes_stream();
        let mut text = String::new();
        loop {
            let frames = text.split("\n\n").filter(|frame| frame.contains("data:")).map(|frame| {
                let line = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
                (line("id:").to_owned(), serde_json::from_str(line("data:")).unwrap_or(Value::Null))
            });
            let whole = text.matches("\n\n").count();
            let events: Vec<(String, Value)> = frames.take(whole).collect();
            if events.len() >= count && !events[..count].iter().any(|event| event.1.is_null()) {
                return events.into_iter().take(count).collect();
            }
            let next = tokio::time::timeout(support::PATIENCE, bytes.next()).await.expect("an event");
            text.push_str(std::str::from_utf8(&next.expect("the stream goes on").unwrap()).unwrap());
        }
    }
}

on_each_bus!(
    |place| (Todo::on(&place.bus, &Store::of(&place.bus)).await);
    a_task_is_created_once_and_read,
    a_write_at_a_version_wins_or_names_the_current_one,
    racing_writers_of_one_version_have_one_winner,
    a_deletion_keeps_the_version,
    a_list_comes_in_filtered_pages,
    a_document_that_does_not_fit_its_message_is_left_out_of_lists_and_watches,
    a_watch_tells_what_is_there_and_each_change_and_resumes,
    events_are_kept_once_and_read_from_a_position,
    a_repeat_with_the_same_key_gets_the_same_answer,
    what_is_missing_is_named,
);

async fn a_task_is_created_once_and_read(todo: Todo) {
    let made = todo.create("milk", false).await;
    assert_eq!(made.status, 200);
    assert_eq!((&made.body["listId"], &made.body["version"]), (&json!("home"), &json!("1")));
    assert!(made.body["updateTime"].as_str().unwrap().ends_with('Z'));
    let got = todo.ask("GET", "/v1/lists/home/tasks/milk", None, &[]).await;
    assert_eq!((got.status, got.etag.as_deref()), (200, Some("\"1\"")));
    assert_eq!(got.body, made.body);
    let again = todo.create("milk", true).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.body["code"], "ALREADY_EXISTS");
}

async fn a_write_at_a_version_wins_or_names_the_current_one(todo: Todo) {
    todo.create("milk", false).await;
    let write = async |tag: &str| {
        let body = json!({"title": "oat milk", "version": "77", "done": true});
        todo.ask("PUT", "/v1/lists/home/tasks/milk", Some(body), &[("If-Match", tag)]).await
    };
    let won = write("\"1\"").await;
    assert_eq!((won.status, &won.body["version"], &won.body["title"]), (200, &json!("2"), &json!("oat milk")));
    let lost = write("\"1\"").await;
    assert_eq!(lost.body["code"], "FAILED_PRECONDITION");
    assert_eq!(lost.body["detail"], "version is 2, expected 1");
    let text = lost.body.to_string();
    assert!(text.contains("current_version") && text.contains("\"2\""), "the details name the version: {text}");
}

async fn racing_writers_of_one_version_have_one_winner(todo: Todo) {
    todo.create("milk", false).await;
    let todo = Arc::new(todo);
    let writers = (0..20).map(|writer| {
        let todo = todo.clone();
        tokio::spawn(async move {
            let body = json!({"title": format!("w{writer}")});
            let answer = todo.ask("PUT", "/v1/lists/home/tasks/milk", Some(body), &[("If-Match", "\"1\"")]).await;
            answer.body["version"].as_str() == Some("2")
        })
    });
    let mut winners = 0;
    for writer in writers.collect::<Vec<_>>() {
        winners += usize::from(writer.await.unwrap());
    }
    assert_eq!(winners, 1);
    let got = todo.ask("GET", "/v1/lists/home/tasks/milk", None, &[]).await;
    assert_eq!(got.body["version"], "2");
}

async fn a_deletion_keeps_the_version(todo: Todo) {
    todo.create("milk", false).await;
    let gone = todo.ask("DELETE", "/v1/lists/home/tasks/milk", None, &[]).await;
    assert_eq!((gone.status, gone.body), (200, json!({})));
    let missing = todo.ask("DELETE", "/v1/lists/home/tasks/milk", None, &[]).await;
    assert_eq!((missing.status, &missing.body["code"]), (404, &json!("NOT_FOUND")));
    assert_eq!(todo.create("milk", false).await.body["version"], "3", "versions never go back");
}

async fn a_list_comes_in_filtered_pages(todo: Todo) {
    for (index, id) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        todo.create(id, index % 2 == 0).await;
    }
    let ids = |body: &Value| -> Vec<String> {
        let tasks = body["tasks"].as_array().cloned().unwrap_or_default();
        tasks.iter().map(|task| task["taskId"].as_str().unwrap().to_owned()).collect()
    };
    // The other replica's list is a moment behind.
    eventually("all five are listed", async || {
        let all = todo.ask("GET", "/v1/lists/home/tasks", None, &[]).await;
        ids(&all.body) == ["a", "b", "c", "d", "e"]
    })
    .await;
    eventually("three are done", async || {
        ids(&todo.ask("GET", "/v1/lists/home/tasks?done=true", None, &[]).await.body) == ["a", "c", "e"]
    })
    .await;
    eventually("both replicas page alike", async || {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/lists/home/tasks?page_size=2&page_token={token}");
            let page = todo.ask("GET", &path, None, &[]).await;
            pages.push(ids(&page.body));
            token = page.body["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
        pages == [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
    })
    .await;
    let other = todo.ask("GET", "/v1/lists/work/tasks", None, &[]).await;
    assert_eq!(other.body, json!({}));
}

async fn a_document_that_does_not_fit_its_message_is_left_out_of_lists_and_watches(todo: Todo) {
    for id in ["a", "b", "c"] {
        todo.create(id, false).await;
    }
    // Somebody writes past the worker: `done` is no boolean.
    let config = BucketConfig { name: "todo_tasks", ttl: None, history: 1 };
    let bucket = todo.store.bucket(config).await.unwrap();
    let entries = bucket.list(&Keys::All).await.unwrap();
    let entry = entries.iter().find(|entry| entry.key.ends_with(".b")).unwrap();
    let text = std::str::from_utf8(&entry.value).unwrap().replace(r#""title":"b""#, r#""done":"perhaps""#);
    bucket.put(&entry.key, text.into(), Expected::Any).await.unwrap();

    eventually("every replica lists the others", async || {
        let mut lists = Vec::new();
        for _ in 0..4 {
            let body = todo.ask("GET", "/v1/lists/home/tasks", None, &[]).await.body;
            let tasks = body["tasks"].as_array().cloned().unwrap_or_default();
            lists.push(tasks.iter().map(|task| task["taskId"].clone()).collect::<Vec<_>>());
        }
        lists.iter().all(|ids| *ids == ["a", "c"])
    })
    .await;
    let told = todo.events("/v1/lists/home/tasks:watch", &[], 2).await;
    assert_eq!((&told[0].1["taskId"], &told[1].1["taskId"]), (&json!("a"), &json!("c")));
    let refused = todo.ask("GET", "/v1/lists/home/tasks/b", None, &[]).await;
    assert_eq!((refused.status, &refused.body["detail"]), (500, &json!("a stored document cannot be read")));
}

async fn a_watch_tells_what_is_there_and_each_change_and_resumes(todo: Todo) {
    todo.create("a", false).await;
    todo.create("b", false).await;
    let path = "/v1/lists/home/tasks:watch";
    let there = todo.events(path, &[], 2).await;
    assert_eq!((&there[0].1["taskId"], &there[1].1["taskId"]), (&json!("a"), &json!("b")));
    let id = there[1].0.clone();
    assert_eq!(there[1].1["revision"], json!(id), "an event's id is its revision");
    todo.ask("DELETE", "/v1/lists/home/tasks/a", None, &[]).await;
    let next = todo.events(path, &[("Last-Event-ID", &id)], 1).await;
    assert_eq!((&next[0].1["taskId"], &next[0].1["deleted"]), (&json!("a"), &json!(true)));
}

async fn events_are_kept_once_and_read_from_a_position(todo: Todo) {
    let say = async |id: &str, text: &str| {
        let body = json!({"remarkId": id, "remark": {"text": text}});
        todo.ask("POST", "/v1/lists/home/remarks", Some(body), &[]).await.body
    };
    let first = say("r1", "hello").await;
    assert_eq!(say("r1", "hello").await["duplicate"], true);
    say("r2", "there").await;
    let told = todo.events("/v1/lists/home/remarks", &[], 2).await;
    let texts: Vec<&Value> = told.iter().map(|event| &event.1["remark"]["text"]).collect();
    assert_eq!(texts, ["hello", "there"]);
    let after = format!("/v1/lists/home/remarks?after={}", first["sequence"].as_str().unwrap());
    assert_eq!(todo.events(&after, &[], 1).await[0].1["remarkId"], "r2");
}

async fn a_repeat_with_the_same_key_gets_the_same_answer(todo: Todo) {
    let make = async |title: &str| {
        let body = json!({"taskId": "milk", "title": title});
        todo.ask("POST", "/v1/lists/home/tasks", Some(body), &[("Idempotency-Key", "k-1")]).await
    };
    let first = make("milk").await;
    let again = make("milk").await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    let other = make("beer").await;
    assert_eq!((other.status, &other.body["details"]["reason"]), (409, &json!("key_reused")));
}

async fn what_is_missing_is_named(todo: Todo) {
    let answer = todo.ask("POST", "/v1/lists/home/tasks", Some(json!({"title": "x"})), &[]).await;
    assert_eq!((answer.status, &answer.body["detail"]), (400, &json!("task_id is required")));
    let answer = todo.ask("GET", "/v1/lists/home/tasks?page_size=501", None, &[]).await;
    assert_eq!((answer.status, &answer.body["code"]), (400, &json!("OUT_OF_RANGE")));
}

#[test]
fn a_declaration_that_does_not_fit_is_refused_with_its_place() {
    let refused = |from: &str, to: &str| {
        let proto = PROTO.replace(from, to);
        assert_ne!(proto, PROTO);
        let problems = support::material(ROUTES, &proto).build(None).expect_err("it is refused");
        problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("\n")
    };
    let text = refused("into: \"tasks\"", "into: \"jobs\"");
    assert!(text.contains("`operation.list`: `jobs` of the reply"), "{text}");
    let text = refused("key: \"{list_id}.{task_id}\" mode", "key: \"{list_id}.{task}\" mode");
    assert!(text.contains("`operation.put`: `task` of the request"), "{text}");
    let text = refused("returns (stream TaskChange)", "returns (TaskChange)");
    assert!(text.contains("`operation.watch` answers with a stream"), "{text}");
    let text = refused("subjects: \"evt.todo.>\"", "subjects: \"todo.>\"");
    assert!(text.contains("log `TODO_EVENTS` takes `todo.>`, and with it the requests of `todo.v1."), "{text}");
    let text = refused("version: \"version\"", "version: \"title\"");
    assert!(text.contains("`title` of the document is no integer"), "{text}");
    let text = refused("bucket: \"todo_tasks\" key: \"{list_id}.{task_id}\" };", "bucket: \"x\" key: \"{list_id}\" };");
    assert!(text.contains("no document is declared for bucket `x`"), "{text}");
}

/// The service with reads that may be an hour old.
fn with_cached_reads() -> String {
    let proto = PROTO
        .replace(r#".get = { bucket"#, r#".get = { cache: { seconds: 3600 } bucket"#)
        .replace(r#".list = {"#, r#".list = { cache: { seconds: 3600 }"#);
    assert_eq!(proto.matches("cache:").count(), 2);
    proto
}

async fn a_read_may_be_as_old_as_it_says_and_a_change_drops_its_document(bus: &Bus, store: &Store) {
    let todo = Todo::of(&with_cached_reads(), bus, store).await;
    let config = BucketConfig { name: "todo_tasks_cache", ttl: Some(Duration::from_secs(3_600)), history: 1 };
    let kept = store.bucket(config).await.unwrap();
    let count = async || kept.list(&Keys::All).await.unwrap().len();
    todo.create("a", false).await;
    for _ in 0..3 {
        let answer = todo.ask("GET", "/v1/lists/home/tasks/a", None, &[]).await;
        assert_eq!((answer.status, &answer.body["version"], answer.etag.as_deref()), (200, &json!("1"), Some("\"1\"")));
    }
    eventually("the reply is kept once", async || count().await == 1).await;
    let update = json!({ "title": "new" });
    assert_eq!(todo.ask("PUT", "/v1/lists/home/tasks/a", Some(update), &[]).await.status, 200);
    eventually("every replica has dropped it", async || {
        let mut versions = Vec::new();
        for _ in 0..4 {
            versions.push(todo.ask("GET", "/v1/lists/home/tasks/a", None, &[]).await.body["version"].clone());
        }
        versions.iter().all(|version| *version == "2")
    })
    .await;

    let list = async |size: usize| {
        let answer = todo.ask("GET", &format!("/v1/lists/home/tasks?page_size={size}"), None, &[]).await;
        answer.body["tasks"].as_array().map_or(0, Vec::len)
    };
    // Each page size is a request of its own; one whose replica did not know the task yet is no use here.
    let mut size = 100;
    eventually("a list shows the task", async || {
        size += 1;
        list(size).await == 1
    })
    .await;
    let seen = size;
    todo.create("b", false).await;
    eventually("a new list shows both", async || {
        size += 1;
        list(size).await == 2
    })
    .await;
    assert_eq!(list(seen).await, 1, "a list lives out its age");
}

#[tokio::test]
async fn cached_reads_on_the_embedded_store() {
    let bus = Bus::embedded();
    a_read_may_be_as_old_as_it_says_and_a_change_drops_its_document(&bus, &Store::of(&bus)).await;
}

#[tokio::test]
async fn cached_reads_on_a_nats_server() {
    let server = NatsServer::start();
    let bus = server.bus().await;
    a_read_may_be_as_old_as_it_says_and_a_change_drops_its_document(&bus, &Store::of(&bus)).await;
}
