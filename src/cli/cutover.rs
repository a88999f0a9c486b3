//! `tidegate cutover`: routes that move from an old system to their workers, through the admin port of a gateway.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::runtime;
use crate::config::{self, ADMIN};
use crate::fault::{Code, Fault};

/// Longest wait for the gateway.
const ANSWER: Duration = Duration::from_secs(10);
/// Differing fields that are shown of a route.
const FIELDS_SHOWN: usize = 5;

#[derive(Args)]
pub(super) struct CutoverArgs {
    #[command(subcommand)]
    command: CutoverCommand,
}

#[derive(Subcommand)]
enum CutoverCommand {
    /// Show every route that moves: its share, the evidence of this step, why it moved, what differs.
    Status(At),
    /// Stop a route's share where it is.
    Hold(Named),
    /// Let it move by itself again, from the step where it is.
    Go(Named),
    /// Put a share in force, and stop there.
    Set {
        #[command(flatten)]
        named: Named,
        /// Percent of the callers that the new side serves.
        share: f64,
    },
    /// Give everybody back to the old side, at once.
    RollBack(Named),
}

#[derive(Args)]
struct Named {
    /// The route, as `POST /state/get`.
    route: String,
    #[command(flatten)]
    at: At,
}

/// Which gateway. Each has its own share: of a fleet, ask every one.
#[derive(Args)]
struct At {
    /// The gateway's admin port: `127.0.0.1:9090`, or `https://gateway:9090`.
    #[arg(long, env = "TIDEGATE_ADMIN", default_value = ADMIN)]
    admin: String,
    /// File with its token (TIDEGATE_ADMIN_TOKEN is the token itself).
    #[arg(long, env = "TIDEGATE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

pub(super) fn run(args: &CutoverArgs) -> Result<(), Fault> {
    let order = |named: &Named, action: &str, share: Option<f64>| {
        Some(json!({ "route": named.route, "do": action, "share": share }))
    };
    let (at, order) = match &args.command {
        CutoverCommand::Status(at) => (at, None),
        CutoverCommand::Hold(named) => (&named.at, order(named, "hold", None)),
        CutoverCommand::Go(named) => (&named.at, order(named, "go", None)),
        CutoverCommand::Set { named, share } => (&named.at, order(named, "set", Some(*share))),
        CutoverCommand::RollBack(named) => (&named.at, order(named, "roll_back", None)),
    };
    let answer = runtime()?.block_on(ask(at, order))?;
    match answer["migrations"].as_array() {
        Some(rows) if rows.is_empty() => println!("no route has a `migrate`"),
        Some(rows) => rows.iter().for_each(|row| print!("{}", text(row))),
        None => print!("{}", text(&answer)),
    }
    Ok(())
}

async fn ask(at: &At, order: Option<Value>) -> Result<Value, Fault> {
    let base = if at.admin.contains("://") { at.admin.clone() } else { format!("http://{}", at.admin) };
    let url = format!("{}/admin/api/migrations", base.trim_end_matches('/'));
    let unreachable = |error: reqwest::Error| {
        let text = format!("the admin port at {base} does not answer");
        Fault::upstream(Code::Unavailable, text).internal(error.to_string())
    };
    let client = reqwest::Client::builder().timeout(ANSWER).no_proxy().build().map_err(unreachable)?;
    let mut request = match order {
        Some(order) => client.post(&url).body(order.to_string()),
        None => client.get(&url),
    };
    if let Some(token) = token(at)? {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.map_err(unreachable)?;
    let is_refused = !answer.status().is_success();
    let body: Value = serde_json::from_slice(&answer.bytes().await.map_err(unreachable)?).unwrap_or_default();
    if is_refused {
        let text = body["detail"].as_str().unwrap_or("the admin port refused it").to_owned();
        return Err(Fault::upstream(Code::FailedPrecondition, text));
    }
    Ok(body)
}

fn token(at: &At) -> Result<Option<String>, Fault> {
    let Some(file) = &at.admin_token_file else { return Ok(config::variable("TIDEGATE_ADMIN_TOKEN")) };
    let text = std::fs::read_to_string(file).map_err(|error| {
        Fault::ours(Code::Unavailable, format!("the admin token in `{}` cannot be read: {error}", file.display()))
    })?;
    Ok(Some(text.trim().to_owned()))
}

/// A route's migration, for people.
fn text(row: &Value) -> String {
    let mut out = String::new();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Writing to a text cannot fail.
    let _ = writeln!(out, "{}  {} % new, {}", word(&row["route"]), row["share"], word(&row["course"]));
    let _ = writeln!(out, "  old {} → new {}", word(&row["old"]), word(&row["new"]));
    let evidence = &row["evidence"];
    let _ = writeln!(
        out,
        "  this step: new {} requests, {} errors; old {} requests, {} errors; {} compared, {} different",
        evidence["new"]["requests"],
        evidence["new"]["errors"],
        evidence["old"]["requests"],
        evidence["old"]["errors"],
        evidence["compared"],
        evidence["different"]
    );
    for moved in row["moves"].as_array().into_iter().flatten().rev() {
        let ago = moved["ago_ms"].as_u64().unwrap_or_default() / 1_000;
        let _ = writeln!(out, "  {ago} s ago: {} % → {} %, {}", moved["from"], moved["to"], word(&moved["why"]));
    }
    let found = &row["shadow"]["found"];
    if found.is_object() {
        let _ = writeln!(
            out,
            "  copies: {} same, {} different, {} failed, {} dropped",
            found["same"], found["different"], found["failed"], found["dropped"]
        );
        let mut fields: Vec<(&String, u64)> = found["fields"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, count)| (field, count.as_u64().unwrap_or_default()))
            .collect();
        fields.sort_by_key(|row| std::cmp::Reverse(row.1));
        for (field, count) in fields.into_iter().take(FIELDS_SHOWN) {
            let _ = writeln!(out, "    {count:>6}  {field}");
        }
    }
    out
}
