//! The pages for users, run as they stand there: each `console` block's commands in order, their output as printed,
//! `…` standing for anything. `curl` is spoken by this test, so that nothing has to be installed; ports are exchanged for
//! free ones. What a page makes lands in a folder of its own, beside links to what the project's folder holds.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::nats::NatsServer;
use support::program::Program;

/// Pages whose commands need a server in a certain state, or tools beside the program: the test that runs them.
const RUN_ELSEWHERE: &[(&str, &str)] =
    &[("events.md", "tests/provisioning.rs"), ("deploying.md", "tests/chart/run.py")];

/// What a page has started, and where it stands.
struct Session {
    folder: PathBuf,
    _home: tempfile::TempDir,
    nats: Option<NatsServer>,
    programs: Vec<Program>,
    /// Addresses as the page has them, and those that run.
    addresses: Vec<(String, String)>,
}

/// A command and what it prints.
struct Step {
    command: String,
    printed: Vec<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        match line {
            "```console" => is_inside = true,
            "```" => is_inside = false,
            _ if !is_inside => {}
            line => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), printed: Vec::new() }),
                (None, Some(step)) => step.printed.push(line.to_owned()),
                (None, None) => panic!("output without a command: {line}"),
            },
        }
    }
    steps
}

/// A command's words; quotes keep spaces.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut has_word) = (Vec::new(), String::new(), None, false);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => (quote, has_word) = (Some(c), true),
            (None, ' ') => {
                if has_word {
                    words.push(std::mem::take(&mut word));
                }
                has_word = false;
            }
            (_, c) => {
                word.push(c);
                has_word = true;
            }
        }
    }
    if has_word {
        words.push(word);
    }
    words
}

/// What `curl` would print.
async fn curl(arguments: &[String]) -> String {
    let (mut verb, mut url, mut body, mut headers) = (None, String::new(), None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-s" | "-N" => {}
            "-X" => verb = rest.next().cloned(),
            "-H" => headers.push(rest.next().unwrap().clone()),
            "--json" => body = rest.next().cloned(),
            text if text.starts_with("http") => text.clone_into(&mut url),
            other => panic!("the pages use `curl {other}`, which this test does not know"),
        }
    }
    let verb = verb.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    let mut request = reqwest::Client::new().request(verb.parse().unwrap(), url);
    // What `--json` says by itself, where `-H` does not say otherwise.
    let json = if body.is_some() { vec!["Content-Type: application/json", "Accept: application/json"] } else { vec![] };
    let is_given = |header: &&str| headers.iter().any(|given| given.split(": ").next() == header.split(": ").next());
    for header in json.into_iter().filter(|header| !is_given(header)).chain(headers.iter().map(String::as_str)) {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    request.send().await.unwrap().text().await.unwrap()
}

/// True where a text has what a page shows, in that order; `…` is anything.
fn is_like(text: &str, page: &[String]) -> bool {
    let mut rest = text;
    for part in page.iter().flat_map(|line| line.split('…')).map(str::trim).filter(|part| !part.is_empty()) {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

impl Session {
    fn start() -> Session {
        let home = tempfile::tempdir().unwrap();
        for name in ["README.md", "routes.yaml", "descriptors", "docs", "charts", "tests"] {
            std::os::unix::fs::symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), home.path().join(name))
                .unwrap();
        }
        Session { folder: home.path().to_owned(), _home: home, nats: None, programs: Vec::new(), addresses: Vec::new() }
    }

    /// The address as the page has it, exchanged for the one that runs.
    fn ports(&self, command: &str) -> String {
        let mut command = command.to_owned();
        for (on_page, running) in self.addresses.iter().rev() {
            command = command.replace(on_page, running);
        }
        match &self.nats {
            Some(server) => command.replace("nats://127.0.0.1:4222", server.url()),
            None => command,
        }
    }

    /// Starts a program on free ports, whichever it names.
    fn start_program(&mut self, arguments: &[&str]) {
        let (mut kept, mut listen, mut admin) = (Vec::new(), "127.0.0.1:8080", "127.0.0.1:9090");
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--listen" => listen = rest.next().unwrap(),
                "--admin" => admin = rest.next().unwrap(),
                other => kept.push(other),
            }
        }
        let program = Program::start_in(&self.folder, &kept);
        if !program.address.is_empty() {
            self.addresses.push((listen.to_owned(), program.address.clone()));
            self.addresses.push((admin.to_owned(), program.admin.clone()));
        }
        self.programs.push(program);
    }

    /// Runs one command; what it printed.
    async fn run(&mut self, command: &str) -> String {
        let command = self.ports(command);
        let words = words(&command);
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        match (words[0].as_str(), arguments.as_slice()) {
            ("curl", _) => return curl(&words[1..]).await,
            ("cd", [folder]) => self.folder.push(folder),
            ("nats-server", [.., "&"]) => self.nats = Some(NatsServer::start()),
            ("tidegate", [arguments @ .., "&"]) => self.start_program(arguments),
            ("tidegate", arguments) => {
                let program = env!("CARGO_BIN_EXE_tidegate");
                return printed(Command::new(program).args(arguments).current_dir(&self.folder));
            }
            ("sed" | "cat" | "cp" | "mkdir" | "ls", _) => {
                return printed(Command::new("sh").args(["-c", &command]).current_dir(&self.folder));
            }
            (other, _) => panic!("`{other}` is no command that this test knows"),
        }
        String::new()
    }
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a page. What a change leads to may take a moment: a command that only reads is repeated until it prints what the
/// page says, for as long as a reader would wait.
async fn run(name: &str, text: &str, first: &str) {
    let mut session = Session::start();
    if !first.is_empty() {
        session.run(first).await;
    }
    let steps = steps(text);
    assert!(!steps.is_empty(), "{name} has no commands");
    for step in steps {
        let mut output = session.run(&step.command).await;
        let deadline = Instant::now() + support::PATIENCE;
        while !is_like(&output, &step.printed) {
            let is_read = step.command.starts_with("curl -s http") && !step.command.contains("--json");
            assert!(
                is_read && Instant::now() < deadline,
                "{name}: `{}` printed\n{output}\ninstead of\n{}",
                step.command,
                step.printed.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
            output = session.run(&step.command).await;
        }
    }
}

#[tokio::test]
async fn the_readme_works_as_printed() {
    run("README.md", include_str!("../README.md"), "tidegate dev &").await;
}

/// The pages in docs/, by name.
fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

#[test]
fn every_guide_works_as_printed() {
    let is_run_here = |name: &str| !RUN_ELSEWHERE.iter().any(|(page, _)| *page == name);
    std::thread::scope(|threads| {
        for (name, text) in pages().into_iter().filter(|(name, text)| text.contains("```console") && is_run_here(name))
        {
            threads.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(run(&name, &text, ""));
            });
        }
    });
}

#[test]
fn no_page_has_commands_that_nothing_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (page, test) in RUN_ELSEWHERE {
        let test_text = std::fs::read_to_string(root.join(test)).unwrap();
        assert!(test_text.contains(page), "{test} does not run docs/{page}");
    }
    let loose: Vec<String> = pages()
        .into_iter()
        .filter(|(name, _)| !RUN_ELSEWHERE.iter().any(|(page, _)| page == name))
        .filter(|(_, text)| text.lines().any(|line| matches!(line, "```sh" | "```bash" | "```shell")))
        .map(|(name, _)| name)
        .collect();
    assert!(loose.is_empty(), "commands belong into `console` blocks, which are run: {loose:?}");
}

#[test]
fn the_page_on_benchmarks_names_what_is_measured() {
    let program = include_str!("../benches/main.rs");
    let parts: Vec<&str> = program.split("    (\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let page = include_str!("../docs/benchmarks.md");
    let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("cargo bench")).collect();
    assert!(!parts.is_empty() && !commands.is_empty());
    for part in &parts {
        assert!(page.contains(part), "docs/benchmarks.md does not name the part `{part}`");
    }
    for command in commands {
        let command = command.split('#').next().unwrap();
        let named = command.split_whitespace().skip_while(|word| *word != "--").skip(1);
        for part in named.filter(|word| !word.starts_with('-')) {
            assert!(parts.contains(&part), "`{command}`: nothing is measured under `{part}`");
        }
    }
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let readme = ("../README.md".to_owned(), include_str!("../README.md").to_owned());
    for (name, text) in pages().into_iter().chain([readme]) {
        let folder = docs.join(&name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !link.contains("://") {
                assert!(folder.join(path).exists(), "docs/{name} links to {link}, which is not there");
            }
        }
    }
}
