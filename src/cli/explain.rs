//! `tidegate explain`: why a request goes where it goes.

use std::fmt::Write as _;

use bytes::Bytes;
use clap::Args;
use http::Request;

use super::{TableArgs, build};
use crate::fault::{Code, Fault};
use crate::gateway::explain::{Candidate, Explanation, LimitRow, RouteFacts, explain};

#[derive(Args)]
pub(super) struct ExplainArgs {
    /// HTTP method, as `GET`.
    verb: String,
    /// Path and query, as `/v1/players/p1/state?version=3`.
    path: String,
    /// A request header, as `Name: value`; may be given more than once.
    #[arg(long, short = 'H', value_name = "HEADER")]
    header: Vec<String>,
    /// The request's body.
    #[arg(long, short = 'd', default_value = "")]
    body: String,
    /// How it is shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
    #[command(flatten)]
    tables: TableArgs,
}

/// Exit code 0 where the request reaches a worker, 1 where the gateway refuses it.
pub(super) fn run(args: &ExplainArgs) -> Result<u8, Fault> {
    let request = request(args)?;
    let (_, snapshot) = build(args.tables.source()?.as_ref())?;
    let told = explain(&snapshot, request);
    if args.format == "json" {
        println!("{}", serde_json::to_string_pretty(&told).unwrap_or_default());
    } else {
        print!("{}", text(&told));
    }
    Ok(u8::from(told.refused.is_some()))
}

fn request(args: &ExplainArgs) -> Result<Request<Bytes>, Fault> {
    let wrong = |text: String| Fault::client(Code::InvalidArgument, text);
    let mut request = Request::builder().method(args.verb.to_ascii_uppercase().as_str()).uri(args.path.as_str());
    if !args.path.starts_with('/') {
        return Err(wrong(format!("`{}` is no path: it begins with `/`", args.path)));
    }
    for header in &args.header {
        let pair = header.split_once(':').ok_or_else(|| wrong(format!("`{header}`: expected `Name: value`")))?;
        request = request.header(pair.0.trim(), pair.1.trim());
    }
    let body = Bytes::from(args.body.clone());
    request.body(body).map_err(|error| wrong(format!("this is no HTTP request: {error}")))
}

fn text(told: &Explanation) -> String {
    let mut out = format!("{} {}\n", told.verb, told.target);
    if let Some(refused) = &told.refused {
        let reason = if refused.reason.is_empty() { "" } else { " " };
        let _ = writeln!(out, "→ {} {}{reason}{}: {}", refused.status, refused.code, refused.reason, refused.message);
        if let Some(allow) = &refused.allow {
            let _ = writeln!(out, "  Allow: {allow}");
        }
    } else if let Some(route) = &told.route {
        let how = if told.wants_stream { ", as a stream" } else { "" };
        let _ = writeln!(out, "→ {} on {}{how}", route.method, route.subject);
    }
    candidates("routes that take this path, in the order in which they are tried", &told.candidates, &mut out);
    candidates("no route takes this path; the nearest", &told.nearest, &mut out);
    if let Some(route) = &told.route {
        facts(route, &mut out);
    }
    if !told.bindings.is_empty() {
        out.push_str("\nfields of the request message\n");
        let width = told.bindings.iter().map(|row| row.field.chars().count()).max().unwrap_or_default();
        for row in &told.bindings {
            let value = row.value.as_ref().map_or_else(String::new, |value| format!(" = {value}"));
            let _ = writeln!(out, "  {:<width$}  {:<7}  {}{value}", row.field, row.from, row.source);
        }
    }
    if let Some(message) = &told.message {
        let json = serde_json::to_string_pretty(message).unwrap_or_default();
        let _ = writeln!(out, "\nthe message as the worker gets it, ids and times made up\n{json}");
    }
    out
}

fn candidates(title: &str, rows: &[Candidate], out: &mut String) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    let width = rows.iter().map(|row| row.route.chars().count()).max().unwrap_or_default();
    for row in rows {
        let mark = if row.is_taken { '*' } else { ' ' };
        let _ = writeln!(out, "{mark} {:<width$}  {}  ({})", row.route, row.why, row.defined_at);
    }
}

fn facts(route: &RouteFacts, out: &mut String) {
    let slots = |row: &Option<LimitRow>| row.as_ref().map_or_else(|| "unlimited".to_owned(), |row| row.max.to_string());
    let rate = route.rate.as_ref().map_or_else(
        || "unlimited".to_owned(),
        |rate| format!("{} per {} ms a {}, burst {}", rate.requests, rate.per_ms, rate.key, rate.burst),
    );
    let breaker = route.breaker.as_ref().map_or_else(
        || "none".to_owned(),
        |row| {
            let state = if row.is_open { "open" } else { "closed" };
            format!("{} time-outs in a row, open for {} ms; {state}", row.failures, row.open_ms)
        },
    );
    let credential = route.credential.as_ref().map_or_else(String::new, |method| format!(", checked by {method}"));
    let chunk = route.chunk.as_ref().map_or_else(String::new, |chunk| format!(", events {chunk}"));
    let [names, defaults, enums] = route.json;
    let unknown = if route.ignores_unknown { "ignored" } else { "rejected" };
    let rows = [
        ("method", route.method.clone()),
        ("subject", route.subject.clone()),
        ("queue group", route.queue_group.clone().unwrap_or_else(|| "none".to_owned())),
        ("messages", format!("{} → {}{chunk}", route.request, route.reply)),
        ("stream", route.stream.to_owned()),
        ("house style", format!("{}, errors {}", route.style, route.errors)),
        ("json", format!("names {names}, defaults {defaults}, enums {enums}, unknown {unknown}")),
        ("auth", format!("{}{credential}", route.auth)),
        ("deadline", format!("{} ms, silence of a stream {} ms", route.timeout_ms, route.stream_idle_ms)),
        ("body", format!("at most {} bytes", route.body_max_bytes)),
        ("rate", rate),
        ("calls", slots(&route.calls)),
        ("streams", slots(&route.streams)),
        ("retries", route.retries.to_string()),
        ("breaker", breaker),
        ("origins", route.cors.clone().unwrap_or_else(|| "the gateway's own".to_owned())),
        ("migration", route.migration.clone().unwrap_or_else(|| "none".to_owned())),
        ("written at", route.defined_at.clone()),
    ];
    out.push_str("\nthe route\n");
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:<11}  {value}");
    }
}
