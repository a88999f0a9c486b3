//! Files as a source of tables: which ones are read, what is said of those that are none, and reloads under load.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::program::Program;
use support::{eventually, material};
use tidegate::bus::Bus;
use tidegate::snapshot::problem::Problem;
use tidegate::snapshot::{Changes, Files, Live, Material, Rules, Source, watch};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
message Ask { string id = 1; }
service Things { rpc Get(Ask) returns (Ask); }
"#;

fn table(path: &str) -> String {
    format!("routes: [ {{ route: 'GET {path}', call: t.v1.Things/Get }} ]\n")
}

/// A folder with a good table.
fn folder() -> (tempfile::TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files { routes: folder.path().join("routes.yaml"), descriptors: folder.path().join("descriptors") };
    std::fs::create_dir(&files.descriptors).unwrap();
    std::fs::write(files.descriptors.join("t.proto"), PROTO).unwrap();
    std::fs::write(&files.routes, table("/a")).unwrap();
    (folder, files)
}

fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Twelve levels of ten aliases each: 10¹² values from less than a kilobyte.
fn bomb() -> Vec<u8> {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    text.push_str("routes: *a11\n");
    text.into_bytes()
}

/// A list of five thousand words, used five thousand times where lists of words belong.
fn shaped_bomb() -> Vec<u8> {
    let words = vec!["now"; 5_000].join(", ");
    let mut text =
        format!("styles:\n  house:\n    context:\n      field: meta\n      fill:\n        f0: &a [{words}]\n");
    (1..5_000).for_each(|index| text.push_str(&format!("        f{index}: *a\n")));
    text.into_bytes()
}

/// What somebody puts in place of the good files, and what is said of it.
type Row = (&'static str, fn(&Files), &'static str);

const ROWS: &[Row] = &[
    (
        "no file",
        |files| std::fs::remove_file(&files.routes).unwrap(),
        "cannot be read: No such file or directory (os error 2)",
    ),
    (
        "a folder",
        |files| {
            std::fs::remove_file(&files.routes).unwrap();
            std::fs::create_dir(&files.routes).unwrap();
        },
        "this is a folder, not a routes file",
    ),
    (
        "a pipe",
        |files| {
            std::fs::remove_file(&files.routes).unwrap();
            assert!(Command::new("mkfifo").arg(&files.routes).status().unwrap().success());
        },
        "cannot be read: this is no regular file",
    ),
    ("an empty file", |files| replace(&files.routes, b""), "this file is empty: it would serve nothing"),
    ("50 MB", |files| replace(&files.routes, &vec![b'#'; 50 << 20]), "larger than 8388608 bytes"),
    ("a program", |files| replace(&files.routes, b"\x7fELF\x02\x01\x01\0\xff\xfe"), "not UTF-8 text"),
    ("a bomb", |files| replace(&files.routes, &bomb()), "unknown field `a0`"),
    (
        "a bomb that has the form",
        |files| replace(&files.routes, &shaped_bomb()),
        "more than a file may hold, its aliases written out",
    ),
    (
        "no descriptors",
        |files| std::fs::remove_dir_all(&files.descriptors).unwrap(),
        "cannot be read: No such file or directory (os error 2)",
    ),
    (
        "an empty descriptor",
        |files| replace(&files.descriptors.join("t.proto"), b"\n"),
        "this file is empty, as one that is still being written",
    ),
    (
        "a descriptor of 50 MB",
        |files| replace(&files.descriptors.join("t.proto"), &vec![b' '; 50 << 20]),
        "larger than 33554432 bytes",
    ),
    (
        "a descriptor that is a program",
        |files| replace(&files.descriptors.join("t.proto"), b"\x7fELF\xff\xfe\0"),
        "not UTF-8 text",
    ),
];

/// Longest time that a refusal may take: each costs below a second of a processor, of which a busy machine has few. A bomb
/// that is written out would take days.
const QUICKLY: Duration = Duration::from_secs(30);

#[test]
fn what_is_no_table_is_refused_quickly_and_said() {
    for (name, spoil, said) in ROWS {
        let (_folder, files) = folder();
        spoil(&files);
        let start = Instant::now();
        let problems = files.read().and_then(|material| material.build(None)).unwrap_err();
        assert!(problems[0].message.starts_with(said), "{name}: {problems:?}");
        assert!(start.elapsed() < QUICKLY, "{name} took {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn what_is_no_table_leaves_the_last_one_in_force() {
    for (name, spoil, said) in ROWS {
        let (_folder, files) = folder();
        let first = files.read().unwrap();
        let live = Live::new(first.build(None).unwrap());
        let outcome = watch(live.clone(), Arc::new(files.clone()), first, Rules::default());
        spoil(&files);
        eventually(&format!("{name} is refused"), async || outcome.borrow().is_stale).await;
        assert!(outcome.borrow().report.contains(said), "{name}: {}", outcome.borrow().report);
        assert_eq!((&*live.pin().routes[0].template, live.pin().generation), ("/a", 1), "{name}");
    }
}

fn tidegate(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).args(arguments).envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn the_games_tables_serve_only_where_nobody_named_others() {
    let empty = tempfile::tempdir().unwrap();
    let game = "/v1/players/{player_id}/quests:generate";
    let shown = |environment: &[(&str, &str)], arguments: &[&str]| {
        let output = tidegate(empty.path(), environment, arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    for (environment, arguments) in [
        (&[][..], &["routes"][..]),
        (&[], &["routes", "--routes", "built-in"]),
        (&[("TIDEGATE_ROUTES", "built-in")], &["routes"]),
    ] {
        let (code, text) = shown(environment, arguments);
        assert!(code == Some(0) && text.contains(game), "{arguments:?}: {text}");
    }
    for (environment, arguments) in [
        (&[][..], &["routes", "--routes", "missing.yaml"][..]),
        (&[("TIDEGATE_ROUTES", "missing.yaml")], &["routes"]),
        (&[], &["worker", "--routes", "missing.yaml"]),
        (&[], &["dev", "--routes", "missing.yaml"]),
        (&[], &["check", "--routes", "missing.yaml"]),
    ] {
        let (code, text) = shown(environment, arguments);
        assert!(code == Some(1) && text.contains("cannot be read: No such file"), "{arguments:?}: {text}");
        assert!(text.contains("missing.yaml"), "{text}");
    }
    // Descriptors of one's own are never served with the game's routes.
    let (code, text) = shown(&[], &["routes", "--descriptors", "."]);
    assert!(code == Some(1) && text.contains("routes.yaml") && text.contains("cannot be read"), "{text}");
    let (code, text) = shown(&[], &["dev", "--routes", "kv://tg_routes"]);
    let said = "error: only `serve` reads `kv://tg_routes`: `tidegate routes pull` writes it as files";
    assert!(code == Some(1) && text.contains(said), "{text}");
    let (code, text) = shown(&[], &["serve", "--routes", "kv://"]);
    let said = "error: `kv://`: expected `kv://BUCKET` or `kv://BUCKET/KEY`, such as `kv://tg_routes`";
    assert!(code == Some(1) && text.contains(said), "{text}");
    let (code, text) = shown(&[], &["serve", "--routes", "kv://tg_routes", "--descriptors", "here"]);
    let said = "error: kv://tg_routes/routes.yaml brings its descriptors: leave `--descriptors` out";
    assert!(code == Some(1) && text.contains(said), "{text}");
}

#[tokio::test]
async fn a_hang_up_signal_reads_the_tables_anew() {
    let server = support::nats::NatsServer::start();
    let (_folder, files) = folder();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let tables = ["--routes", &path(&files.routes), "--descriptors", &path(&files.descriptors)];
    let gateway = Program::start(&[&["serve", "--nats", server.url()], &tables[..]].concat());
    let reloads = async |outcome: &str| {
        let text = reqwest::get(format!("http://{}/metrics", gateway.admin)).await.unwrap().text().await.unwrap();
        let wanted = format!("tidegate_reloads_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&wanted)).map(|count| count.parse::<u64>().unwrap())
    };
    eventually("the count is there", async || reloads("applied").await == Some(0)).await;
    gateway.signal("HUP");
    eventually("unchanged tables are built again", async || reloads("applied").await == Some(1)).await;
    gateway.signal("HUP");
    eventually("and again", async || reloads("applied").await == Some(2)).await;
    assert_eq!(reloads("refused").await, Some(0));
}

/// Tables that a test numbers.
struct Numbered(tokio::sync::watch::Sender<u64>);

impl Numbered {
    fn material(number: u64) -> Material {
        let routes = format!("{}  # {number}\n", table("/a").trim_end());
        material(&routes.replace("[ {", "[ { route: 'GET /number', call: t.v1.Things/Get }, {"), PROTO)
    }
}

impl Source for Numbered {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        Ok(Numbered::material(*self.0.borrow()))
    }

    fn changes(&self) -> Changes {
        Changes::Counted(self.0.subscribe())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_fail_no_request() {
    let bus = Bus::embedded();
    support::calls::worker(&bus, "t.v1.Things.Get", |asked| vec![support::calls::answer(&asked, b"\x0a\x01x")]).await;
    let first = Numbered::material(0);
    let (running, live) = support::gateway(first.build(None).unwrap(), &bus, |_| {}).await;
    let source = Arc::new(Numbered(tokio::sync::watch::Sender::new(0)));
    let outcome = watch(live.clone(), source.clone(), first, Rules::default());
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, answered, url) = (is_over.clone(), answered.clone(), support::url(&running, "/a"));
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get(&url).send().await.unwrap();
                    let answer = (answer.status().as_u16(), answer.text().await.unwrap());
                    assert_eq!(answer, (200, r#"{"id":"x"}"#.to_owned()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for number in 1..=100 {
        let before = answered.load(Ordering::Relaxed);
        source.0.send_replace(number);
        eventually("the reload is applied", async || outcome.borrow().applied == number).await;
        eventually("requests go on", async || answered.load(Ordering::Relaxed) > before).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no request failed");
    }
    assert_eq!((live.pin().generation, outcome.borrow().refused), (101, 0));
}
