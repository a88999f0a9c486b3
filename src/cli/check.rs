//! `tidegate check`: the same build as at a start or a reload, and what is wrong with it.

use std::process::ExitCode;

use clap::Args;

use super::TableArgs;
use crate::config;
use crate::snapshot::problem::{Problem, render};
use crate::snapshot::{Material, Source as _};

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    tables: TableArgs,
    /// How problems are shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

/// Exit code 0 where the tables are good, 1 where they are not.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let (problems, material, routes) = match args.tables.source().read() {
        Err(problems) => (problems, None, 0),
        Ok(material) => match material.build(None) {
            Ok(snapshot) => (Vec::new(), Some(material), snapshot.routes.len()),
            Err(problems) => (problems, Some(material), 0),
        },
    };
    if args.format == "json" {
        println!("{}", serde_json::to_string_pretty(&problems).unwrap_or_default());
    } else {
        show(&problems, material.as_ref(), routes);
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(problems: &[Problem], material: Option<&Material>, routes: usize) {
    if problems.is_empty() {
        println!("ok: {routes} routes");
        return;
    }
    let report = render(problems, config::is_terminal(), |file| material.and_then(|material| material.text_of(file)));
    eprint!("{report}");
    eprintln!("{} problem{}", problems.len(), if problems.len() == 1 { "" } else { "s" });
}
