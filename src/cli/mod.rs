//! The commands. Each reads its arguments, calls the floors below, and talks to people.

mod admin;
mod bench;
mod call;
mod check;
mod completions;
mod cutover;
mod diff;
mod dlq;
mod explain;
mod fleet;
mod init;
mod man;
mod nats_url;
mod openapi;
mod plain;
mod routes;
mod serve;
mod settings;
mod streams;
mod table;
mod threads;
mod traces;
mod verify;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bus::{Bus, NatsOptions, Status};
use crate::config;
use crate::fault::{Code, Fault};
use crate::snapshot::problem::{Problem, render};
use crate::snapshot::{Material, Snapshot, Source};
use crate::telemetry;
use table::TableArgs;

/// Where a NATS server is, where nobody said.
const NATS_URL: &str = "nats://127.0.0.1:4222";
/// Longest wait for a connection of commands that do one thing.
const CONNECT: Duration = Duration::from_secs(5);

/// The game's tables, for `dev` without files beside it.
pub(crate) const BUILT_IN_ROUTES: &str = include_str!("../../routes.yaml");
macro_rules! built_in_descriptors {
    ($($path:literal,)*) => { &[$(($path, include_str!(concat!("../../descriptors/", $path)))),*] };
}

const BUILT_IN_DESCRIPTORS: &[(&str, &str)] = built_in_descriptors![
    "common/v1/common.proto",
    "ai_integration/v1/ai_integration.proto",
    "model_mgmt/v1/model_mgmt.proto",
    "state_manager/v1/state_manager.proto",
    "quest/v1/quest.proto",
    "npc_behavior/v1/npc_behavior.proto",
    "world_state/v1/world_state.proto",
    "orchestration/v1/orchestration.proto",
    "router/v1/router.proto",
    "event_bus/v1/event_bus.proto",
    "time_manager/v1/time_manager.proto",
    "weather_manager/v1/weather_manager.proto",
    "auth/v1/auth.proto",
    "settings/v1/settings.proto",
    "payment/v1/payment.proto",
    "performance_mode/v1/performance_mode.proto",
    "capability_registry/v1/capability_registry.proto",
    "ai_router/v1/ai_router.proto",
    "knowledge_base/v1/knowledge_base.proto",
    "language_system/v1/language_system.proto",
    "environmental_narrative/v1/environmental_narrative.proto",
    "story_teller/v1/story_teller.proto",
    "body_broker/v1/body_broker.proto",
    "ethelred/vision/v1/vision.proto",
    "ethelred/audio/audio.proto",
    "ethelred/engagement/engagement.proto",
];

/// REST/JSON and Server-Sent Events in front of NATS: one binary, one routes file, any protobuf schema.
#[derive(Parser)]
#[command(name = "tidegate", version, propagate_version = true)]
struct Cli {
    /// What to log, as `info`, `debug` or `tidegate=debug,warn`; without it `tidegate=info,warn` while something is
    /// served, else `error`.
    #[arg(long, env = "TIDEGATE_LOG", global = true)]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it: gateway and services in this process, nothing else needed.
    Dev(serve::DevArgs),
    /// Serve HTTP in front of a NATS server.
    Serve(serve::ServeArgs),
    /// Run services on a NATS server.
    Worker(worker::WorkerArgs),
    /// Make the streams, consumers and buckets of the game on a NATS server.
    Streams(streams::StreamsArgs),
    /// Look at dead letters, and send them again.
    Dlq(dlq::DlqArgs),
    /// Check the routes file, the descriptors and services.yaml; says everything that is wrong, and where.
    Check(check::CheckArgs),
    /// Show the route table as it would run; or put one into a bucket for a fleet, and look after it there.
    Routes(routes::RoutesArgs),
    /// Print the API description (OpenAPI 3.1) of the route table as it would run.
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApiArgs),
    /// Say why a request goes where it goes: routes tried, fields bound, the message as a worker gets it.
    Explain(explain::ExplainArgs),
    /// Compare two tables: routes added, removed and changed, and whether clients break.
    Diff(diff::DiffArgs),
    /// Look after routes that move from an old system: hold their shares, set them, roll them back.
    Cutover(cutover::CutoverArgs),
    /// Send one request to a method by hand: JSON in, JSON out, through the same tables.
    Call(call::CallArgs),
    /// Fire edge cases at workers, made from the descriptors, and say what breaks.
    Verify(verify::VerifyArgs),
    /// Put load on an HTTP address or a method, and see how long answers take.
    Bench(bench::BenchArgs),
    /// Make a starter folder: one .proto and a routes file.
    Init(init::InitArgs),
    /// Print the JSON Schema of the routes file, for editors, or all of its keys, for people.
    Schema(SchemaArgs),
    /// Print what a shell needs to complete commands and options.
    Completions(completions::CompletionsArgs),
    /// Print the manual, for `man`.
    Man(man::ManArgs),
}

#[derive(Args)]
struct SchemaArgs {
    /// Print that of the service settings instead.
    #[arg(long, conflicts_with = "format")]
    services: bool,
    /// How it is printed.
    #[arg(long, value_parser = ["json", "markdown"], default_value = "json")]
    format: String,
}

/// How to reach NATS.
#[derive(Args, Clone)]
struct NatsArgs {
    /// NATS servers, joined by commas: `nats://host:4222`, `tls://user:password@host`.
    #[arg(long, env = "NATS_URL")]
    nats: Option<String>,
    /// A .creds file.
    #[arg(long, env = "NATS_CREDS")]
    creds: Option<PathBuf>,
    /// PEM file of the authorities that may have signed the servers' certificates, beside the system's own.
    #[arg(long, env = "NATS_CA")]
    nats_ca: Option<PathBuf>,
    /// PEM file of our certificate, where servers ask for one.
    #[arg(long, env = "NATS_CERT", requires = "nats_key")]
    nats_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, env = "NATS_KEY", requires = "nats_cert")]
    nats_key: Option<PathBuf>,
}

/// The game's tables as they are part of the program.
pub(crate) fn built_in() -> Material {
    Material {
        routes_name: "routes.yaml (built in)".to_owned(),
        routes: BUILT_IN_ROUTES.to_owned(),
        descriptors: BUILT_IN_DESCRIPTORS
            .iter()
            .map(|(name, text)| crate::schema::SourceFile { name: (*name).to_owned(), bytes: text.as_bytes().to_vec() })
            .collect(),
        ..Material::default()
    }
}

/// Runs the program; 0 where all went well, 1 where something failed, 2 where the arguments are wrong.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let serves = matches!(cli.command, Command::Dev(_) | Command::Serve(_) | Command::Worker(_));
    let log = cli.log.as_deref().unwrap_or(if serves { "tidegate=info,warn" } else { "error" });
    telemetry::install_logs(log, !config::is_terminal());
    let result = match cli.command {
        Command::Dev(args) => serve::dev(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Streams(args) => match streams::run(&args) {
            Ok(code) => return ExitCode::from(code),
            Err(fault) => Err(fault),
        },
        Command::Dlq(args) => dlq::run(&args),
        Command::Check(args) => match check::run(&args) {
            Ok(code) => return code,
            Err(fault) => Err(fault),
        },
        Command::Routes(args) => routes::run(&args),
        Command::OpenApi(args) => openapi::run(&args),
        Command::Explain(args) => match explain::run(&args) {
            Ok(code) => return ExitCode::from(code),
            Err(fault) => Err(fault),
        },
        Command::Diff(args) => return diff::run(&args),
        Command::Cutover(args) => cutover::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Verify(args) => match verify::run(&args) {
            Ok(code) => return code,
            Err(fault) => Err(fault),
        },
        Command::Bench(args) => match bench::run(&args) {
            Ok(code) => return code,
            Err(fault) => Err(fault),
        },
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Schema(args) => {
            match (args.services, args.format.as_str()) {
                (true, _) => println!("{}", crate::services::Settings::json_schema()),
                (false, "markdown") => print!("{}", crate::snapshot::reference::markdown()),
                (false, _) => println!("{}", crate::snapshot::manifest::json_schema()),
            }
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {}", plain::lines(fault.message()));
            if let Some(text) = fault.internal_text() {
                eprintln!("{text}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Reads and builds, or shows every problem.
fn build(source: &dyn Source) -> Result<(Material, Snapshot), Fault> {
    let material = source.read().map_err(|problems| refused(&problems, None))?;
    let snapshot = material.build(None).map_err(|problems| refused(&problems, Some(&material)))?;
    Ok((material, snapshot))
}

fn refused(problems: &[Problem], material: Option<&Material>) -> Fault {
    let report = render(problems, config::is_terminal(), |file| material.and_then(|material| material.text_of(file)));
    let count = problems.len();
    let text = format!("the tables have {count} problem{}", if count == 1 { "" } else { "s" });
    Fault::ours(Code::InvalidArgument, text).internal(format!("\n{report}"))
}

/// A connection to the bus that was asked for.
async fn bus(args: &NatsArgs, name: &str, user: &str) -> Result<Bus, Fault> {
    connect(args, NatsOptions { name: name.to_owned(), user: user.to_owned(), ..NatsOptions::default() }).await
}

async fn connect(args: &NatsArgs, options: NatsOptions) -> Result<Bus, Fault> {
    let Some(url) = &args.nats else { return Ok(Bus::embedded()) };
    let (url, password) = nats_url::split(url);
    let options = NatsOptions {
        url,
        password,
        credentials: args.creds.clone(),
        tls_ca: args.nats_ca.clone(),
        tls_identity: args.nats_cert.clone().zip(args.nats_key.clone()),
        ..options
    };
    Ok(Bus::nats(options).await?)
}

/// A connection to a NATS server that answers, at its usual address where nobody named another.
async fn connected(args: &NatsArgs, name: &str, user: &str) -> Result<Bus, Fault> {
    let mut args = args.clone();
    let url = args.nats.get_or_insert_with(|| NATS_URL.to_owned()).clone();
    let bus = bus(&args, name, user).await?;
    let mut status = bus.status();
    match tokio::time::timeout(CONNECT, status.wait_for(|status| *status == Status::Connected)).await {
        Ok(Ok(_)) => Ok(bus),
        _ => {
            let text = format!("no NATS server takes a connection at {}", nats_url::split(&url).0);
            Err(Fault::upstream(Code::Unavailable, text))
        }
    }
}

/// An address from an argument.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address: expected one such as 127.0.0.1:8080"))
}

/// One thread for everything that this runtime does.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::ours(Code::Internal, format!("the runtime does not start: {error}")))
}

/// Runs services to their end on a thread's own runtime. Work of the pool that has outlived the drain holds nobody up.
fn run_services<T>(services: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let runtime = runtime()?;
    let result = runtime.block_on(services);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    fn add_files(folder: &Path, root: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add_files(&path, root, names);
            } else {
                names.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_descriptor_of_the_project_is_built_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("descriptors");
        let mut files = BTreeSet::new();
        add_files(&root, &root, &mut files);
        let built_in: BTreeSet<String> = super::built_in().descriptors.into_iter().map(|file| file.name).collect();
        assert_eq!(built_in, files);
    }
}
