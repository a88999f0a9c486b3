//! `tidegate streams`: the logs, consumers and buckets of the game on a NATS server.

use clap::{Args, Subcommand};

use super::{NatsArgs, connected, runtime};
use crate::fault::{Code, Fault};
use crate::services::buckets::BUCKETS;
use crate::services::events::{LOGS, consumers};
use crate::store::{Replicas, Resource, Step, Store};

#[derive(Args)]
pub(super) struct StreamsArgs {
    #[command(subcommand)]
    command: StreamsCommand,
}

#[derive(Subcommand)]
enum StreamsCommand {
    /// Make streams, consumers and buckets as they should be; says first what it is going to do.
    ///
    /// What is missing is made, what differs is changed, and what would lose data is refused. A second run does
    /// nothing. The exit code is 1 where something was refused or failed.
    Apply(ApplyArgs),
}

#[derive(Args)]
struct ApplyArgs {
    /// Only say what would be done; the exit code is 3 where that is anything.
    #[arg(long)]
    dry_run: bool,
    /// Copies of each in a cluster, 1 to 5; without it 3 where there are three servers or more, else 1, and what has
    /// more keeps them.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
    #[command(flatten)]
    nats: NatsArgs,
}

/// Exit code of a dry run that found something to do.
const WOULD_CHANGE: u8 = 3;

pub(super) fn run(args: &StreamsArgs) -> Result<u8, Fault> {
    let StreamsCommand::Apply(args) = &args.command;
    runtime()?.block_on(async {
        let bus = connected(&args.nats, "tidegate streams", "provisioner").await?;
        let done = apply(args, &Store::of(&bus)).await;
        bus.close().await;
        done
    })
}

async fn apply(args: &ApplyArgs, store: &Store) -> Result<u8, Fault> {
    let replicas = match args.replicas {
        Some(count) => Replicas::Exactly(usize::from(count)),
        None => Replicas::AtLeast(store.replicas_default()),
    };
    let mut plan = Vec::new();
    for resource in resources() {
        let step = store.compare(&resource, replicas).await?;
        if let Some(line) = line(&resource, &step) {
            println!("{line}");
            plan.push((resource, step));
        }
    }
    let refused = plan.iter().filter(|(_, step)| step.is_refused()).count();
    let kept = resources().count() - plan.len();
    println!("{}", summary(&plan, kept));
    if args.dry_run {
        return Ok(if plan.is_empty() { 0 } else { WOULD_CHANGE });
    }
    for (resource, _) in plan.iter().filter(|(_, step)| !step.is_refused()) {
        store.apply(resource, replicas).await?;
    }
    match refused {
        0 => Ok(0),
        _ => Err(Fault::ours(
            Code::FailedPrecondition,
            format!("{refused} refused: change them by hand where you mean it, everything else is done"),
        )),
    }
}

/// Everything that the game keeps on a server; what others are part of comes first.
fn resources() -> impl Iterator<Item = Resource> {
    let logs = LOGS.iter().cloned().map(Resource::Log);
    logs.chain(consumers().map(Resource::Consumer)).chain(BUCKETS.iter().cloned().map(Resource::Bucket))
}

/// A line of the plan; none where nothing is to be done.
fn line(resource: &Resource, step: &Step) -> Option<String> {
    match step {
        Step::Keep => None,
        Step::Create => Some(format!("create {resource}")),
        Step::Change(differences) => {
            let verb = if step.is_refused() { "refuse" } else { "change" };
            let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
            Some(format!("{verb} {resource}: {}", differences.join(", ")))
        }
    }
}

fn summary(plan: &[(Resource, Step)], kept: usize) -> String {
    let count = |is: fn(&Step) -> bool| plan.iter().filter(|(_, step)| is(step)).count();
    let created = count(|step| *step == Step::Create);
    let refused = count(Step::is_refused);
    let changed = plan.len() - created - refused;
    format!("{created} to create, {changed} to change, {refused} refused, {kept} as they should be")
}
