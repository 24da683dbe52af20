//! `portwatch man`: the manual, for packages.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

/// Options of `man`.
#[derive(clap::Args)]
pub struct Args {
    /// The folder that the pages are written to
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes portwatch.1 and a page for each verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    let failed = || format!("failed to write the pages to {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(super::command(), folder).with_context(failed)?;
    Ok(ExitCode::SUCCESS)
}
