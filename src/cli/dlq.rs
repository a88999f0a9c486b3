//! `tidegate dlq`: what consumers gave up, to look at and to send again.

use clap::{Args, Subcommand};

use super::plain::{line, lines};
use super::{NatsArgs, TableArgs, build, connected, runtime};
use crate::fault::{Code, Fault};
use crate::snapshot::Snapshot;
use crate::store::{Logged, Store};
use crate::transcode::{JsonOut, Names, Scratch, wire_to_json};
use crate::worker::dead_letters::{self, LOG, Redriven};

#[derive(Args)]
pub(super) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Subcommand)]
enum DlqCommand {
    /// List dead letters, the oldest first.
    List {
        /// Begin behind this position.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Most lines.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        nats: NatsArgs,
    },
    /// Show a dead letter: its headers, and its body as JSON where the descriptors know its type.
    Show {
        /// Its position, as `list` shows it.
        sequence: u64,
        #[command(flatten)]
        nats: NatsArgs,
        #[command(flatten)]
        tables: TableArgs,
    },
    /// Send dead letters again to where they came from, and take them out of the log.
    ///
    /// All consumers of that subject get them, under a new id.
    Redrive {
        /// Their positions, as `list` shows them.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        sequences: Vec<u64>,
        /// All that are there now.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        nats: NatsArgs,
    },
}

pub(super) fn run(args: &DlqArgs) -> Result<(), Fault> {
    let (DlqCommand::List { nats, .. } | DlqCommand::Show { nats, .. } | DlqCommand::Redrive { nats, .. }) =
        &args.command;
    runtime()?.block_on(async {
        let bus = connected(nats, "tidegate dlq", "redrive").await?;
        let store = Store::of(&bus).without_creating();
        let done = match &args.command {
            DlqCommand::List { after, limit, .. } => list(&store, *after, *limit).await,
            DlqCommand::Show { sequence, tables, .. } => show(&store, *sequence, tables).await,
            DlqCommand::Redrive { all: true, .. } => redrive_all(&store).await,
            DlqCommand::Redrive { sequences, .. } => redrive(&store, sequences).await,
        };
        bus.close().await;
        done
    })
}

async fn list(store: &Store, after: u64, limit: usize) -> Result<(), Fault> {
    let mut position = after;
    let mut rows = Vec::new();
    while let Some(letter) = store.event_after(LOG, position).await? {
        position = letter.sequence;
        if rows.len() == limit {
            break;
        }
        rows.push(letter);
    }
    println!("{:>8}  {:<24}  {:<40}  {:>5}  REASON", "POSITION", "TIME", "STREAM/CONSUMER", "TRIES");
    for letter in &rows {
        let header = |name| line(letter.headers.get(name).unwrap_or("-"));
        let from = format!("{}/{}", header("Dlq-Stream"), header("Dlq-Consumer"));
        let (time, tries, reason) = (header("Dlq-Time"), header("Dlq-Deliveries"), header("Dlq-Reason"));
        println!("{:>8}  {time:<24}  {from:<40}  {tries:>5}  {reason}", letter.sequence);
    }
    if rows.is_empty() {
        println!("none");
    }
    if let Some(last) = rows.last().filter(|last| position > last.sequence) {
        println!("more behind: `tidegate dlq list --after {}`", last.sequence);
    }
    Ok(())
}

async fn show(store: &Store, sequence: u64, tables: &TableArgs) -> Result<(), Fault> {
    let letter = store.event(LOG, sequence).await?.ok_or_else(|| missing(sequence))?;
    println!("position: {}\nsubject: {}", letter.sequence, letter.subject);
    // What the copy says of itself comes first.
    let mut headers: Vec<(&str, &str)> = letter.headers.iter().collect();
    headers.sort_by_key(|(name, _)| (!name.starts_with("Dlq-"), *name));
    for (name, value) in headers {
        println!("{}: {}", line(name), line(value));
    }
    println!("body: {} bytes", letter.payload.len());
    let (_, snapshot) = build(tables.source()?.as_ref())?;
    if let Some(text) = body(&snapshot, &letter) {
        println!("{}", lines(&text));
    }
    Ok(())
}

/// The body as JSON; nothing where the descriptors do not know its type, or where it does not decode.
fn body(snapshot: &Snapshot, letter: &Logged) -> Option<String> {
    let message = snapshot.tables.message_id(letter.headers.get("message-type")?)?;
    let options = JsonOut { names: Names::Proto, ..JsonOut::default() };
    let mut json = Vec::new();
    wire_to_json(&snapshot.tables, message, &options, &letter.payload, &mut Scratch::default(), &mut json).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&json).ok()?;
    serde_json::to_string_pretty(&value).ok()
}

async fn redrive(store: &Store, sequences: &[u64]) -> Result<(), Fault> {
    for sequence in sequences {
        match dead_letters::redrive(store, *sequence).await? {
            Redriven::Sent { subject, sequence: there } => println!("{sequence} sent to {subject}, position {there}"),
            Redriven::Missing => return Err(missing(*sequence)),
            Redriven::Empty => {
                let text = format!("dead letter {sequence} has nothing to send: its event was gone before it was read");
                return Err(Fault::client(Code::FailedPrecondition, text));
            }
        }
    }
    Ok(())
}

/// Sends all that are there now; what comes back meanwhile stays.
async fn redrive_all(store: &Store) -> Result<(), Fault> {
    let mut all = Vec::new();
    while let Some(letter) = store.event_after(LOG, all.last().copied().unwrap_or(0)).await? {
        all.push(letter.sequence);
    }
    let (mut sent, mut empty) = (0, 0);
    for sequence in &all {
        match dead_letters::redrive(store, *sequence).await? {
            Redriven::Sent { subject, sequence: there } => {
                println!("{sequence} sent to {subject}, position {there}");
                sent += 1;
            }
            // Somebody else has sent it meanwhile.
            Redriven::Missing => {}
            Redriven::Empty => empty += 1,
        }
    }
    println!("{sent} sent, {empty} without anything to send");
    Ok(())
}

fn missing(sequence: u64) -> Fault {
    let text = format!("there is no dead letter at position {sequence}: see `tidegate dlq list`");
    Fault::client(Code::NotFound, text)
}
