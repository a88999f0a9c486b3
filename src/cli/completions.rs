//! `tidegate completions`: what a shell needs to complete commands and options.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::fault::{Code, Fault};

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Fault> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidegate", &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Fault::ours(Code::Internal, format!("the script cannot be written: {error}")))
}
