//! `tidegate diff`: two tables compared, and whether clients break.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::build;
use crate::fault::Fault;
use crate::snapshot::diff::{Change, Kind, Verdict, diff};
use crate::snapshot::{Files, Snapshot, folder_of};

/// Exit code where one of the sides cannot be read or built.
const NOT_COMPARED: u8 = 3;

#[derive(Args)]
#[command(after_help = "Exit codes: 0 nothing differs, 1 clients go on as before, 2 clients break, 3 not compared.")]
pub(super) struct DiffArgs {
    /// The routes file as it was, or the folder with routes.yaml and descriptors.
    old: PathBuf,
    /// The routes file as it is to be, or its folder.
    new: PathBuf,
    /// Descriptors of the old side; the folder `descriptors` beside its routes file without it.
    #[arg(long, value_name = "PATH")]
    old_descriptors: Option<PathBuf>,
    /// Descriptors of the new side.
    #[arg(long, value_name = "PATH")]
    new_descriptors: Option<PathBuf>,
    /// How differences are shown.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    format: String,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    let sides = side(&args.old, args.old_descriptors.as_deref())
        .and_then(|old| Ok((old, side(&args.new, args.new_descriptors.as_deref())?)));
    let (old, new) = match sides {
        Ok(sides) => sides,
        Err(fault) => {
            eprintln!("error: {}{}", fault.message(), fault.internal_text().unwrap_or_default());
            return ExitCode::from(NOT_COMPARED);
        }
    };
    let (verdict, changes) = diff(&old, &new);
    if args.format == "json" {
        let report = json!({ "verdict": verdict, "changes": changes });
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        print!("{}", text(verdict, &changes));
    }
    ExitCode::from(verdict as u8)
}

/// Reads and builds one side.
fn side(path: &Path, descriptors: Option<&Path>) -> Result<Snapshot, Fault> {
    let routes = if path.is_dir() { path.join("routes.yaml") } else { path.to_owned() };
    let descriptors = descriptors.map_or_else(|| folder_of(&routes).join("descriptors"), Path::to_owned);
    build(&Files { routes, descriptors }).map(|(_, snapshot)| snapshot)
}

fn text(verdict: Verdict, changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        let sign = match change.kind {
            Kind::Added => '+',
            Kind::Removed => '-',
            Kind::Changed => '~',
        };
        let breaking = if change.is_breaking { "  BREAKING" } else { "" };
        let _ = writeln!(out, "{sign} {}{breaking}", change.route);
        for detail in &change.details {
            let mark = if detail.is_breaking { '!' } else { ' ' };
            let values = match (detail.before.as_str(), detail.after.as_str()) {
                ("", after) => after.to_owned(),
                (before, "") => before.to_owned(),
                (before, after) => format!("{before} → {after}"),
            };
            let _ = writeln!(out, "  {mark} {}: {values}: {}", detail.what, detail.meaning);
        }
    }
    let count = |kind| changes.iter().filter(|change| change.kind == kind).count();
    let (added, removed, changed) = (count(Kind::Added), count(Kind::Removed), count(Kind::Changed));
    let breaking = changes.iter().filter(|change| change.is_breaking).count();
    let _ = match verdict {
        Verdict::Same => writeln!(out, "the tables do the same"),
        Verdict::Compatible => {
            writeln!(out, "{added} added, {removed} removed, {changed} changed: clients go on as before")
        }
        Verdict::Breaking => {
            writeln!(out, "{added} added, {removed} removed, {changed} changed: {breaking} of them break clients")
        }
    };
    out
}
