//! `tidegate man`: the manual, as troff for `man`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::Cli;
use crate::fault::{Code, Fault};

#[derive(Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this folder, instead of the first page to standard output.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<(), Fault> {
    let written = match &args.out {
        Some(folder) => std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder)),
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.and_then(|()| std::io::stdout().write_all(&page))
        }
    };
    written.map_err(|error| Fault::ours(Code::Internal, format!("the manual cannot be written: {error}")))
}
