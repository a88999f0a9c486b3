//! `tidegate routes`: the table as run; with a word behind it, tables in a bucket.

use clap::Args;
use serde::Serialize;

use super::fleet::{self, FleetCommand};
use super::{TableArgs, build};
use crate::fault::Fault;
use crate::snapshot::{Route, Streaming};

#[derive(Args)]
pub(super) struct RoutesArgs {
    #[command(subcommand)]
    command: Option<FleetCommand>,
    #[command(flatten)]
    tables: TableArgs,
    /// How the table is shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

#[derive(Serialize)]
struct Row<'a> {
    verb: &'a str,
    path: &'a str,
    method: &'a str,
    subject: &'a str,
    request: &'a str,
    reply: &'a str,
    stream: &'static str,
    timeout_ms: u64,
    style: &'a str,
    defined_at: &'a str,
}

impl<'a> Row<'a> {
    fn new(route: &'a Route) -> Row<'a> {
        let method = &route.method;
        Row {
            verb: &route.verb,
            path: &route.template,
            method: &method.name,
            subject: method.subject.as_str(),
            request: &method.request_name,
            reply: if method.streaming == Streaming::Server { &method.chunk_name } else { &method.reply_name },
            stream: method.streaming.word(),
            timeout_ms: route.policies.timeout.as_millis() as u64,
            style: &method.envelope.style.name,
            defined_at: &route.defined_at,
        }
    }
}

pub(super) fn run(args: &RoutesArgs) -> Result<(), Fault> {
    if let Some(command) = &args.command {
        return fleet::run(command);
    }
    let (_, snapshot) = build(args.tables.source()?.as_ref())?;
    let rows: Vec<Row> = snapshot.routes.iter().map(|route| Row::new(route)).collect();
    if args.format == "json" {
        println!("{}", serde_json::to_string_pretty(&rows).unwrap_or_default());
        return Ok(());
    }
    let width = rows.iter().map(|row| row.path.len()).max().unwrap_or(0);
    for row in &rows {
        println!("{:<6} {:<width$}  {}  {}", row.verb, row.path, row.subject, row.defined_at);
    }
    Ok(())
}
