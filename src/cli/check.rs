//! `tidegate check`: the same build as at a start or a reload, and what is wrong with it; the service settings as well.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::TableArgs;
use super::settings::{Checked, SettingsArgs};
use crate::config;
use crate::fault::Fault;
use crate::snapshot::Material;
use crate::snapshot::problem::{Problem, render};

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    tables: TableArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    /// How problems are shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

/// Exit code 0 where everything is good, 1 where it is not.
pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, Fault> {
    // Files are checked in any case: without one there is something to say.
    let source = if args.tables.routes.is_some() { args.tables.source()? } else { Arc::new(args.tables.files()) };
    let (mut problems, material, routes) = match source.read() {
        Err(problems) => (problems, None, 0),
        Ok(material) => match material.build(None) {
            Ok(snapshot) => (Vec::new(), Some(material), snapshot.routes.len()),
            Err(problems) => (problems, Some(material), 0),
        },
    };
    let mut settings = args.settings.check();
    problems.extend(settings.iter_mut().flat_map(|settings| std::mem::take(&mut settings.problems)));
    if args.format == "json" {
        println!("{}", serde_json::to_string_pretty(&problems).unwrap_or_default());
    } else if problems.is_empty() {
        let settings = settings.map(|settings| format!(", service settings of {}", settings.name));
        println!("ok: {routes} routes{}", settings.unwrap_or_default());
    } else {
        show(&problems, material.as_ref(), settings.as_ref());
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(problems: &[Problem], material: Option<&Material>, settings: Option<&Checked>) {
    let report = render(problems, config::is_terminal(), |file| match settings {
        Some(settings) if settings.name == file => Some(settings.text.clone()),
        _ => material.and_then(|material| material.text_of(file)),
    });
    eprint!("{report}");
    eprintln!("{} problem{}", problems.len(), if problems.len() == 1 { "" } else { "s" });
}
