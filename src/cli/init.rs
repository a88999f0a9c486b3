//! `tidegate init`: a starter folder that checks out.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::fault::{Code, Fault};

#[derive(Args)]
pub(super) struct InitArgs {
    /// The folder; made where it is not there.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

pub(super) fn run(args: &InitArgs) -> Result<(), Fault> {
    let files = [
        ("routes.yaml", include_str!("starter/routes.yaml").to_owned()),
        ("routes.schema.json", crate::snapshot::manifest::json_schema()),
        ("descriptors/hello.proto", include_str!("starter/hello.proto").to_owned()),
    ];
    for (name, _) in &files {
        if args.folder.join(name).exists() {
            let text = format!("`{}` is there already: choose an empty folder", args.folder.join(name).display());
            return Err(Fault::client(Code::AlreadyExists, text));
        }
    }
    for (name, text) in &files {
        write(&args.folder.join(name), text)?;
        println!("wrote {}", args.folder.join(name).display());
    }
    println!("next: cd {} && tidegate check", args.folder.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| Fault::ours(Code::Internal, format!("`{}` cannot be written: {error}", path.display())))
}
