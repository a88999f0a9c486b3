//! The structure, tested: floors, who may name whom, sizes, module docs.
//!
//! Reads the sources as text. A rule that has an exception lists it here, with its reason.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Floor of each room at the top of `src/`; arrows only go down.
const FLOORS: &[(&str, u8)] = &[
    ("fault", 0),
    ("config", 0),
    ("telemetry", 0),
    ("transcode", 1),
    ("schema", 1),
    ("written", 1),
    ("route", 2),
    ("envelope", 2),
    ("limits", 2),
    ("snapshot", 3),
    ("bus", 3),
    ("store", 3),
    ("gateway", 4),
    ("worker", 4),
    ("services", 5),
    ("cli", 6),
];

/// Rooms of one floor that never meet.
const APART: &[(&str, &str)] = &[("gateway", "worker"), ("worker", "gateway"), ("transcode", "schema")];

/// Outside names, and the only places that may use them.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("axum", &["gateway/"]),
    ("hyper", &["gateway/"]),
    ("hyper_util", &["gateway/"]),
    ("tower", &["gateway/"]),
    ("tokio_rustls", &["gateway/admin/tls"]),
    ("async_nats", &["bus/nats", "store/jetstream"]),
    ("nkeys", &["bus/nats"]),
    ("redb", &["store/embedded/disk"]),
    ("redis", &["store/redis_tier"]),
    ("prost_reflect", &["schema/"]),
    ("protox", &["schema/"]),
    ("serde_saphyr", &["written/yaml"]),
    ("governor", &["limits/"]),
    ("arc_swap", &["snapshot/"]),
    ("notify", &["snapshot/"]),
    ("annotate_snippets", &["written/problem"]),
    ("clap", &["cli", "main.rs"]),
    ("clap_complete", &["cli/completions"]),
    ("clap_mangen", &["cli/man"]),
    ("hdrhistogram", &["cli/bench"]),
    ("reqwest", &["services/", "gateway/migrate/http_old", "cli/traces", "cli/bench", "cli/cutover"]),
    ("aws_lc_rs", &["services/auth/"]),
];

/// Calls that belong to certain rooms only, and why.
const CALLS: &[(&str, &[&str], &str)] = &[
    ("std::env", &["config", "cli", "main.rs"], "settings are read in one place"),
    ("println!", &["cli", "main.rs"], "only commands talk to people"),
    ("tokio::spawn", &["snapshot", "bus", "store", "gateway", "worker", "services", "cli"], "floors 0–2 start no task"),
    ("Instant::now", &["snapshot", "bus", "store", "gateway", "worker", "services", "cli"], "floors 0–2 read no clock"),
    (
        "SystemTime::now",
        &["snapshot", "bus", "store", "gateway", "worker", "cli"],
        "a service's clock comes from its context",
    ),
    (
        "std::fs",
        &[
            "snapshot",
            "bus/nats/identity",
            "cli",
            "config",
            "gateway/access_log",
            "gateway/admin/access",
            "gateway/listener",
            "store",
            "services/settings",
        ],
        "floors 0–2 do no I/O",
    ),
];

/// The only file with `unsafe` in it.
const UNSAFE_FILE: &str = "transcode/raw.rs";

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the line limit, each with the reason.
const LONG_FILES: &[(&str, &str)] = &[];
/// Functions over the line limit (`file: name`), each with the reason.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

struct Source {
    /// Path below `src/`, with forward slashes.
    path: String,
    text: String,
    /// The text up to the tests at the end of the file.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for entry in entries {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let path = entry.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
                found.push(Source { path, text, code });
            }
        }
    }
    assert!(found.len() > 5, "tidy found only {} files: it looks in the wrong place", found.len());
    found
}

fn is_test_file(source: &Source) -> bool {
    source.path.ends_with("/tests.rs") || source.path.contains("/tests/")
}

fn room(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The lines of code, numbered from 1, comments left out.
fn code_lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn names_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_word(before) && !is_word(after)
    })
}

fn report(findings: &str) {
    assert!(findings.is_empty(), "\n{findings}");
}

#[test]
fn arrows_only_go_down() {
    let mut findings = String::new();
    let floor = |room: &str| FLOORS.iter().find(|row| row.0 == room).map(|row| row.1);
    for source in sources().iter().filter(|s| !is_test_file(s)) {
        let from = room(&source.path);
        let Some(from_floor) = floor(from) else {
            if !matches!(from, "lib" | "main") {
                writeln!(findings, "src/{}: this room has no floor in tests/tidy.rs", source.path).unwrap();
            }
            continue;
        };
        for (number, line) in code_lines(&source.code) {
            for (to, to_floor) in FLOORS.iter().filter(|row| row.0 != from) {
                let is_named = line.contains(&format!("crate::{to}::")) || line.contains(&format!("crate::{to};"));
                let is_apart = APART.contains(&(from, to));
                if is_named && (*to_floor > from_floor || is_apart) {
                    writeln!(
                        findings,
                        "src/{}:{number}: `{from}` (floor {from_floor}) names `{to}` (floor {to_floor})",
                        source.path
                    )
                    .unwrap();
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn services_name_neither_http_nor_bus_nor_each_other() {
    let mut findings = String::new();
    // The settings are no service but a file, which is followed as the tables are.
    let is_service = |path: &str| path.starts_with("services/") && !path.starts_with("services/settings/");
    for source in sources().iter().filter(|s| is_service(&s.path) && !is_test_file(s)) {
        for (number, line) in code_lines(&source.code) {
            for name in ["crate::gateway", "crate::bus", "crate::snapshot", "http::"] {
                if line.contains(name) {
                    writeln!(findings, "src/{}:{number}: a service names `{name}`", source.path).unwrap();
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn outside_names_stay_in_their_rooms() {
    let mut findings = String::new();
    for source in sources().iter().filter(|s| !is_test_file(s)) {
        for (number, line) in code_lines(&source.code) {
            for (name, allowed) in OUTSIDE {
                let is_path = line.contains(&format!("{name}::")) || line.contains(&format!("use {name};"));
                if is_path && names_word(line, name) && !allowed.iter().any(|place| source.path.starts_with(place)) {
                    writeln!(findings, "src/{}:{number}: names `{name}`, which belongs to {allowed:?}", source.path)
                        .unwrap();
                }
            }
            for (call, allowed, why) in CALLS {
                if line.contains(call) && !allowed.iter().any(|place| source.path.starts_with(place)) {
                    writeln!(findings, "src/{}:{number}: `{call}` outside {allowed:?}: {why}", source.path).unwrap();
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn unsafe_stays_in_one_file_with_its_proofs() {
    let mut findings = String::new();
    for source in sources() {
        for (number, line) in code_lines(&source.code) {
            if names_word(line, "unsafe") && source.path != UNSAFE_FILE && !line.contains("unsafe_code") {
                writeln!(findings, "src/{}:{number}: `unsafe` outside src/{UNSAFE_FILE}", source.path).unwrap();
            }
        }
        if source.path == UNSAFE_FILE {
            let blocks = source.code.matches("unsafe {").count();
            let proofs = source.code.matches("SAFETY:").count();
            if proofs < blocks {
                writeln!(findings, "src/{UNSAFE_FILE}: {blocks} unsafe blocks, {proofs} proofs").unwrap();
            }
        }
    }
    report(&findings);
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut findings = String::new();
    for source in sources() {
        let is_listed = LONG_FILES.iter().any(|row| row.0 == source.path);
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX && !is_listed {
            writeln!(findings, "src/{}: {lines} lines (at most {FILE_LINES_MAX})", source.path).unwrap();
        }
        let is_inline_doc = source
            .text
            .lines()
            .find(|l| !l.trim().is_empty() && !l.starts_with("#!["))
            .is_some_and(|l| l.starts_with("//!"))
            || source.text.starts_with("#![doc = include_str!");
        if !is_inline_doc {
            writeln!(findings, "src/{}: no module doc in its first line", source.path).unwrap();
        }
    }
    for (path, _) in LONG_FILES {
        let is_long = sources().iter().any(|s| s.path == *path && s.text.lines().count() > FILE_LINES_MAX);
        if !is_long {
            writeln!(findings, "src/{path}: listed as long, but it is not").unwrap();
        }
    }
    report(&findings);
}

#[test]
fn functions_stay_on_one_screen() {
    let mut findings = String::new();
    for source in sources().iter().filter(|s| !is_test_file(s)) {
        for (name, start, lines) in functions(&source.code) {
            let key = format!("{}: {name}", source.path);
            if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(|row| row.0 == key) {
                writeln!(
                    findings,
                    "src/{}:{start}: `{name}` has {lines} lines (at most {FUNCTION_LINES_MAX})",
                    source.path
                )
                .unwrap();
            }
        }
    }
    report(&findings);
}

/// Name, first line and length of each function; rustfmt's layout is relied on: a body ends with a `}` that is
/// indented like its `fn`.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let Some(at) = body.find("fn ").filter(|at| {
            let head = &body[..*at];
            head.is_empty()
                || head.ends_with(' ')
                    && head.split_whitespace().all(|w| {
                        w.starts_with("pub")
                            || matches!(w, "const" | "async" | "unsafe" | "extern" | "in")
                            || w.starts_with('"')
                            || w.ends_with(')')
                    })
        }) else {
            continue;
        };
        let name: String = body[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() || line.trim_end().ends_with(';') || line.trim_end().ends_with('}') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[start + 1..].iter().position(|l| *l == close || l.starts_with(&format!("{close} ")));
        if let Some(end) = end {
            found.push((name, start + 1, end + 2));
        }
    }
    found
}

#[test]
fn nothing_is_left_half_done() {
    let mut findings = String::new();
    for source in sources().iter().filter(|s| !is_test_file(s)) {
        for (number, line) in source.code.lines().enumerate() {
            for word in ["TODO", "FIXME", "todo!", "unimplemented!"] {
                if line.contains(word) {
                    writeln!(findings, "src/{}:{}: `{word}`", source.path, number + 1).unwrap();
                }
            }
            let is_comment = line.trim_start().starts_with("//");
            for call in [".unwrap()", ".expect(", "panic!(", "unreachable!(", "dbg!("] {
                if !is_comment && line.contains(call) && !line.contains(".expect(b") {
                    writeln!(findings, "src/{}:{}: `{call}`", source.path, number + 1).unwrap();
                }
            }
        }
    }
    report(&findings);
}
