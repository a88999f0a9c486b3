//! `tidegate openapi`: the API description of the table as run.

use clap::Args;

use super::{TableArgs, build};
use crate::fault::{Code, Fault};
use crate::gateway::describe;
use crate::written;

#[derive(Args)]
pub(super) struct OpenApiArgs {
    #[command(flatten)]
    tables: TableArgs,
    /// How it is written.
    #[arg(long, value_parser = ["json", "yaml"], default_value = "json")]
    format: String,
}

pub(super) fn run(args: &OpenApiArgs) -> Result<(), Fault> {
    let (_, snapshot) = build(args.tables.source()?.as_ref())?;
    let description = describe(&snapshot);
    let text = match args.format.as_str() {
        "yaml" => written::to_yaml(&description),
        _ => serde_json::to_string_pretty(&description).map(|text| text + "\n").map_err(|error| error.to_string()),
    };
    print!(
        "{}",
        text.map_err(|error| Fault::ours(Code::Internal, "the description cannot be written").internal(error))?
    );
    Ok(())
}
