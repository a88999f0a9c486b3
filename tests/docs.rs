//! The pages for users, run as they stand there: each `console` block's commands in order, their output as printed,
//! `…` standing for anything. `curl` is spoken by this test, so that nothing has to be installed.

mod support;

use std::process::Command;

use support::program::Program;

/// One page: its name, its text, and what runs before its first command.
struct Page {
    name: &'static str,
    text: &'static str,
    first: &'static [&'static str],
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
    for header in &headers {
        let (name, value) = header.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
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

async fn run(page: Page) {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut running = (!page.first.is_empty()).then(|| Program::start(page.first));
    let mut count = 0;
    for step in steps(page.text) {
        let address = running.as_ref().map_or("127.0.0.1:8080", |program| program.address.as_str()).to_owned();
        let command = step.command.replace("127.0.0.1:8080", &address);
        let words = words(&command);
        let printed = match words[0].as_str() {
            "curl" => curl(&words[1..]).await,
            "tidegate" if words.last().is_some_and(|word| word == "&") => {
                let arguments: Vec<&str> = words[1..words.len() - 1].iter().map(String::as_str).collect();
                running = Some(Program::start(&arguments));
                String::new()
            }
            "tidegate" => {
                let program = env!("CARGO_BIN_EXE_tidegate");
                let output = Command::new(program).args(&words[1..]).current_dir(root).output().unwrap();
                let printed = String::from_utf8_lossy(&output.stdout).into_owned();
                printed + &String::from_utf8_lossy(&output.stderr)
            }
            other => panic!("{}: `{other}` is no command that this test knows", page.name),
        };
        assert!(
            is_like(&printed, &step.printed),
            "{}: `{}` printed\n{printed}\ninstead of\n{}",
            page.name,
            step.command,
            step.printed.join("\n")
        );
        count += 1;
    }
    assert!(count > 0, "{} has no commands", page.name);
}

#[tokio::test]
async fn the_readme_works_as_printed() {
    let first = &["dev", "--routes", "/no/such/file"];
    run(Page { name: "README.md", text: include_str!("../README.md"), first }).await;
}

#[tokio::test]
async fn the_guide_to_declared_operations_works_as_printed() {
    run(Page { name: "docs/declared.md", text: include_str!("../docs/declared.md"), first: &[] }).await;
}

#[tokio::test]
async fn the_page_on_the_api_reference_works_as_printed() {
    run(Page { name: "docs/api-reference.md", text: include_str!("../docs/api-reference.md"), first: &[] }).await;
}
