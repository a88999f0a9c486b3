//! The commands. Each reads its arguments, calls the floors below, and talks to people.

mod call;
mod check;
mod init;
mod routes;
mod serve;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::bus::{Bus, NatsOptions};
use crate::config;
use crate::fault::{Code, Fault};
use crate::snapshot::problem::{Problem, render};
use crate::snapshot::{BuiltIn, Files, Material, Snapshot, Source};
use crate::telemetry;

/// The game's tables, for `dev` without files beside it.
pub(crate) const BUILT_IN_ROUTES: &str = include_str!("../../routes.yaml");
const BUILT_IN_DESCRIPTORS: &[(&str, &str)] = &[
    ("common/v1/common.proto", include_str!("../../descriptors/common/v1/common.proto")),
    (
        "ai_integration/v1/ai_integration.proto",
        include_str!("../../descriptors/ai_integration/v1/ai_integration.proto"),
    ),
    ("state_manager/v1/state_manager.proto", include_str!("../../descriptors/state_manager/v1/state_manager.proto")),
    ("quest/v1/quest.proto", include_str!("../../descriptors/quest/v1/quest.proto")),
    ("event_bus/v1/event_bus.proto", include_str!("../../descriptors/event_bus/v1/event_bus.proto")),
];

/// REST/JSON and Server-Sent Events in front of NATS: one binary, one routes file, any protobuf schema.
#[derive(Parser)]
#[command(name = "tidegate", version, propagate_version = true)]
struct Cli {
    /// What to log, as `info`, `debug` or `tidegate=debug,warn`.
    #[arg(long, env = "TIDEGATE_LOG", default_value = "tidegate=info,warn", global = true)]
    log: String,
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
    /// Check the routes file and the descriptors; says everything that is wrong, and where.
    Check(check::CheckArgs),
    /// Show the route table as it would run.
    Routes(routes::RoutesArgs),
    /// Send one request by hand: JSON in, JSON out, through the same tables.
    Call(call::CallArgs),
    /// Make a starter folder: one .proto and a routes file.
    Init(init::InitArgs),
    /// Print the JSON Schema of the routes file, for editors.
    Schema,
}

/// Where the tables are.
#[derive(Args, Clone)]
struct TableArgs {
    /// The routes file.
    #[arg(long, env = "TIDEGATE_ROUTES", default_value = "routes.yaml")]
    routes: PathBuf,
    /// Folder of .proto files and descriptor sets, or one such file.
    #[arg(long, env = "TIDEGATE_DESCRIPTORS", default_value = "descriptors")]
    descriptors: PathBuf,
}

/// How to reach NATS.
#[derive(Args, Clone)]
struct NatsArgs {
    /// NATS servers, joined by commas.
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

impl TableArgs {
    fn source(&self) -> Files {
        Files { routes: self.routes.clone(), descriptors: self.descriptors.clone() }
    }

    /// The files where they are there, the built-in set where nobody named any.
    fn source_or_built_in(&self) -> Arc<dyn Source> {
        if self.routes.exists() { Arc::new(self.source()) } else { Arc::new(BuiltIn(built_in())) }
    }
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
    }
}

/// Runs the program; 0 where all went well, 1 where something failed, 2 where the arguments are wrong.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    telemetry::install_logs(&cli.log, !config::is_terminal());
    let result = match cli.command {
        Command::Dev(args) => serve::dev(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Check(args) => return check::run(&args),
        Command::Routes(args) => routes::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Schema => {
            println!("{}", crate::snapshot::manifest::json_schema());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {}", fault.message());
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
    let Some(url) = &args.nats else { return Ok(Bus::embedded()) };
    let options = NatsOptions {
        url: url.clone(),
        name: name.to_owned(),
        user: user.to_owned(),
        credentials: args.creds.clone(),
        tls_ca: args.nats_ca.clone(),
        tls_identity: args.nats_cert.clone().zip(args.nats_key.clone()),
        ..NatsOptions::default()
    };
    Ok(Bus::nats(options).await?)
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
