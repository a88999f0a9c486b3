//! `tidegate routes push|pull|history|rollback|status`: a route table in a bucket on NATS, and the gateways that run it.

use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::plain::{line, lines};
use super::{NatsArgs, TableArgs, build, connected, refused, runtime};
use crate::bus::Bus;
use crate::fault::{Code, Fault};
use crate::snapshot::{Instance, Material, Revision, Stored, TableAddress, TableBucket, compat, instances};
use crate::store::{Expected, Store, StoreError};
use crate::transcode::rfc3339;

/// Where a table is when nobody says.
const TABLE: &str = "kv://tg_routes";
/// Pause between two looks at the gateways.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Subcommand)]
pub(super) enum FleetCommand {
    /// Check the files, and put them into a bucket as its next revision: every gateway that watches it takes it up.
    ///
    /// Nothing is put where the table does not build, where it breaks clients of the one that is there, or where
    /// somebody else has put one meanwhile. Then the gateways are asked how it went; the exit code is 1 where one of
    /// them has refused it.
    Push(PushArgs),
    /// Write a revision as files: routes.yaml and descriptors/.
    Pull(PullArgs),
    /// List the revisions that the bucket keeps, the newest first.
    History(At),
    /// Put an earlier revision in force again, as a new one.
    Rollback(RollbackArgs),
    /// Ask every gateway which table it runs; the exit code is 1 where one has refused a newer one.
    Status(StatusArgs),
}

/// Which table, and on which servers.
#[derive(Args)]
pub(super) struct At {
    /// The table: `kv://BUCKET` or `kv://BUCKET/KEY`.
    #[arg(default_value = TABLE, value_name = "TABLE", value_parser = str::parse::<TableAddress>)]
    table: TableAddress,
    #[command(flatten)]
    nats: NatsArgs,
}

#[derive(Args)]
pub(super) struct PushArgs {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    files: TableArgs,
    /// A word for those who read the history.
    #[arg(long, default_value = "")]
    note: String,
    /// Only where this revision is the newest; 0 where there is none yet.
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    /// Also where it breaks clients: it is said, and gateways do not refuse it for that.
    #[arg(long)]
    allow_breaking: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Args)]
struct WaitArgs {
    /// Longest wait for the gateways, in seconds; 0 does not ask them.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    wait: u64,
}

#[derive(Args)]
pub(super) struct PullArgs {
    #[command(flatten)]
    at: At,
    /// The revision; the newest without it.
    #[arg(long)]
    revision: Option<u64>,
    /// Where to.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    to: PathBuf,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    at: At,
    /// The revision; without it the newest that differs from the one in force.
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    nats: NatsArgs,
}

pub(super) fn run(command: &FleetCommand) -> Result<(), Fault> {
    let nats = match command {
        FleetCommand::Push(PushArgs { at, .. })
        | FleetCommand::Pull(PullArgs { at, .. })
        | FleetCommand::History(at)
        | FleetCommand::Rollback(RollbackArgs { at, .. }) => &at.nats,
        FleetCommand::Status(args) => &args.nats,
    };
    runtime()?.block_on(async {
        let bus = connected(nats, "tidegate routes", "routes").await?;
        let done = match command {
            FleetCommand::Push(args) => push(&bus, args).await,
            FleetCommand::Pull(args) => pull(&bus, args).await,
            FleetCommand::History(at) => history(&bus, at).await,
            FleetCommand::Rollback(args) => rollback(&bus, args).await,
            FleetCommand::Status(_) => status(&bus).await,
        };
        bus.close().await;
        done
    })
}

async fn push(bus: &Bus, args: &PushArgs) -> Result<(), Fault> {
    let (mut material, snapshot) = build(&args.files.files())?;
    material.allows_breaking = args.allow_breaking;
    let table = TableBucket::open(&Store::of(bus), &args.at.table).await?;
    let newest = table.newest().await?;
    let there = newest.as_ref().map_or(0, |revision| revision.number);
    if let Some(expected) = args.expect.filter(|expected| *expected != there) {
        return Err(other_is_there(&format!("revision {there} is there, not {expected}")));
    }
    if let Some(before) = newest.as_ref().and_then(|revision| revision.stored.as_ref().ok()) {
        if is_same(&before.material, &material) {
            println!("{} has this table already", args.at.table.revision(there));
            return Ok(());
        }
        if let Ok(before) = before.material.build(None) {
            let broken = compat::problems(&material, &compat::breaks(&before, &snapshot));
            if !broken.is_empty() && !args.allow_breaking {
                return Err(refused(&broken, Some(&material)));
            }
            for problem in &broken {
                println!("breaks: {}: {}", problem.place, problem.message);
            }
        }
    }
    let expected = newest.map_or(Expected::Absent, |revision| Expected::Revision(revision.number));
    let stored = Stored { material, note: args.note.clone() };
    let number = put(&table, &stored, expected).await?;
    println!("{}: {} routes", args.at.table.revision(number), snapshot.routes.len());
    taken_up(bus, &args.at.table, number, &args.wait).await
}

/// Puts a table; the whole size is said where it is too large.
async fn put(table: &TableBucket, stored: &Stored, expected: Expected) -> Result<u64, Fault> {
    table.put(stored, expected).await.map_err(|error| match error {
        StoreError::Conflict => other_is_there("somebody else has put a table meanwhile"),
        StoreError::TooLarge { size, max } => {
            let text = format!("the table has {size} bytes, and a revision takes {max}: leave out what no route needs");
            Fault::client(Code::InvalidArgument, text)
        }
        error => error.into(),
    })
}

fn other_is_there(text: &str) -> Fault {
    Fault::client(Code::Aborted, format!("{text}: look at `tidegate routes history`, and push again"))
}

fn is_same(one: &Material, other: &Material) -> bool {
    let files = |material: &Material| -> Vec<(String, Vec<u8>)> {
        material.descriptors.iter().map(|file| (file.name.clone(), file.bytes.clone())).collect()
    };
    one.routes == other.routes && files(one) == files(other)
}

async fn pull(bus: &Bus, args: &PullArgs) -> Result<(), Fault> {
    let revisions = kept(bus, &args.at.table).await?;
    let revision = chosen(&revisions, args.revision, &args.at.table)?;
    let stored = stored(revision)?;
    let mut files = vec![(args.to.join("routes.yaml"), stored.material.routes.as_bytes())];
    for file in &stored.material.descriptors {
        // Whoever may put a table may not choose where it lands here.
        if !Path::new(&file.name).components().all(|part| matches!(part, Component::Normal(_))) {
            let text = format!("the table has a file `{}`, which lies outside of its folder", file.name);
            return Err(Fault::client(Code::InvalidArgument, text));
        }
        files.push((args.to.join("descriptors").join(&file.name), file.bytes.as_slice()));
    }
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists() && !args.force) {
        let text = format!("`{}` is there already: choose another folder, or `--force`", path.display());
        return Err(Fault::client(Code::AlreadyExists, text));
    }
    for (path, bytes) in &files {
        let written =
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).and_then(|()| std::fs::write(path, bytes));
        written
            .map_err(|error| Fault::ours(Code::Internal, format!("`{}` cannot be written: {error}", path.display())))?;
    }
    println!("{}: wrote {} files into {}", args.at.table.revision(revision.number), files.len(), args.to.display());
    Ok(())
}

async fn history(bus: &Bus, at: &At) -> Result<(), Fault> {
    println!("{:>8}  {:<24}  {:>7}  {:>5}  NOTE", "REVISION", "TIME", "BYTES", "FILES");
    for revision in kept(bus, &at.table).await?.iter().rev() {
        let time =
            rfc3339(revision.created_ms.div_euclid(1_000), (revision.created_ms.rem_euclid(1_000) * 1_000_000) as i32);
        let (files, note) = match &revision.stored {
            Ok(stored) => ((stored.material.descriptors.len() + 1).to_string(), stored.note.clone()),
            Err(problems) => ("-".to_owned(), problems.iter().map(|problem| problem.message.clone()).collect()),
        };
        let (number, time, bytes) = (revision.number, time.unwrap_or_default(), revision.bytes);
        println!("{number:>8}  {time:<24}  {bytes:>7}  {files:>5}  {}", line(&note));
    }
    Ok(())
}

async fn rollback(bus: &Bus, args: &RollbackArgs) -> Result<(), Fault> {
    let address = &args.at.table;
    let revisions = kept(bus, address).await?;
    let newest = chosen(&revisions, None, address)?;
    let revision = match args.revision {
        Some(_) => chosen(&revisions, args.revision, address)?,
        None => {
            let in_force = newest.stored.as_ref().ok();
            let differs = |revision: &&Revision| match (&revision.stored, in_force) {
                (Ok(stored), Some(in_force)) => !is_same(&stored.material, &in_force.material),
                (stored, _) => stored.is_ok(),
            };
            revisions.iter().rev().find(differs).ok_or_else(|| {
                let text = format!("{address} keeps no other table to go back to");
                Fault::client(Code::NotFound, text)
            })?
        }
    };
    let stored = stored(revision)?;
    // Back to what has worked is meant, whatever has been added since.
    let material = Material { allows_breaking: true, ..stored.material.clone() };
    let snapshot = material.build(None).map_err(|problems| refused(&problems, Some(&material)))?;
    let table = TableBucket::open(&Store::of(bus), address).await?;
    let next = Stored { material, note: format!("back to revision {}", revision.number) };
    let number = put(&table, &next, Expected::Revision(newest.number)).await?;
    println!("{}: revision {} again, {} routes", address.revision(number), revision.number, snapshot.routes.len());
    taken_up(bus, address, number, &args.wait).await
}

async fn kept(bus: &Bus, address: &TableAddress) -> Result<Vec<Revision>, Fault> {
    let table = TableBucket::open(&Store::of(bus).without_creating(), address).await.map_err(|error| match error {
        StoreError::NoBucket(_) => none_there(address),
        error => error.into(),
    })?;
    Ok(table.history().await?)
}

fn chosen<'r>(revisions: &'r [Revision], number: Option<u64>, address: &TableAddress) -> Result<&'r Revision, Fault> {
    match number {
        None => revisions.last().ok_or_else(|| none_there(address)),
        Some(number) => revisions.iter().find(|revision| revision.number == number).ok_or_else(|| {
            let text = format!("{address} keeps no revision {number}: see `tidegate routes history`");
            Fault::client(Code::NotFound, text)
        }),
    }
}

fn none_there(address: &TableAddress) -> Fault {
    Fault::client(Code::NotFound, format!("{address} has no table: `tidegate routes push` makes one"))
}

fn stored(revision: &Revision) -> Result<&Stored, Fault> {
    revision.stored.as_ref().map_err(|problems| refused(problems, None))
}

/// Waits until every gateway that watches the table has read a revision, and says how it went.
async fn taken_up(bus: &Bus, address: &TableAddress, number: u64, wait: &WaitArgs) -> Result<(), Fault> {
    if wait.wait == 0 {
        return Ok(());
    }
    let (revision, watches) = (address.revision(number), format!("{address}@"));
    let end = Instant::now() + Duration::from_secs(wait.wait);
    let gateways = loop {
        let mut gateways = instances(bus).await?;
        gateways.retain(|gateway| gateway.last_read.starts_with(&watches));
        if gateways.iter().all(|gateway| gateway.last_read == revision) || Instant::now() > end {
            break gateways;
        }
        tokio::time::sleep(LOOK).await;
    };
    if gateways.is_empty() {
        println!("no gateway watches this table now");
        return Ok(());
    }
    show(&gateways);
    let refusing = gateways.iter().filter(|gateway| gateway.is_stale && gateway.last_read == revision).count();
    let behind = gateways.iter().filter(|gateway| gateway.last_read != revision).count();
    match (refusing, behind) {
        (0, 0) => Ok(()),
        (0, behind) => {
            let text = format!("{behind} of {} gateways have not read {revision} in {} s", gateways.len(), wait.wait);
            Err(Fault::upstream(Code::DeadlineExceeded, text))
        }
        (refusing, _) => {
            let text = format!("{refusing} of {} gateways have refused {revision}", gateways.len());
            Err(Fault::upstream(Code::FailedPrecondition, text))
        }
    }
}

async fn status(bus: &Bus) -> Result<(), Fault> {
    let gateways = instances(bus).await?;
    if gateways.is_empty() {
        println!("no gateway answers: those with a table in a bucket do");
        return Ok(());
    }
    show(&gateways);
    match gateways.iter().filter(|gateway| gateway.is_stale).count() {
        0 => Ok(()),
        refusing => {
            let text = format!("{refusing} of {} gateways have refused what they read last", gateways.len());
            Err(Fault::upstream(Code::FailedPrecondition, text))
        }
    }
}

fn show(gateways: &[Instance]) {
    // What they say of themselves is theirs.
    let hosts: Vec<_> = gateways.iter().map(|gateway| line(&gateway.host)).collect();
    let width = hosts.iter().map(|host| host.chars().count()).max().unwrap_or(0).max("HOST".len());
    println!("{:<width$}  {:<8}  {:<8}  {:>6}  IN FORCE", "HOST", "INSTANCE", "LAST", "ROUTES");
    for (gateway, host) in gateways.iter().zip(&hosts) {
        let last = if gateway.is_stale { "refused" } else { "applied" };
        let instance = line(gateway.id.get(..8).unwrap_or(&gateway.id));
        let (routes, in_force) = (line(&gateway.routes), line(&gateway.in_force));
        println!("{host:<width$}  {instance:<8}  {last:<8}  {routes:>6}  {in_force}");
    }
    for (gateway, host) in gateways.iter().zip(&hosts).filter(|(gateway, _)| gateway.is_stale) {
        println!("\n{host} has refused {}:\n{}", line(&gateway.last_read), lines(gateway.report.trim_end()));
    }
}
