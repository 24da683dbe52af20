//! `portwatch man`: writes the manual pages, for packages.

use std::{fs, io, path::PathBuf, process::ExitCode};

use super::error::Failure;
use crate::advice::Advised;

/// Options of `man`.
#[derive(clap::Args)]
pub struct Args {
    /// Directory for the pages
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// The pages cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the manual pages to {}", .folder.display())]
pub struct ManError {
    folder: PathBuf,
    source: io::Error,
}

impl Advised for ManError {
    fn hint(&self) -> &'static str {
        "name a writable directory, or one that can be created"
    }
}

/// Writes portwatch.1 and a page for each verb.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let folder = args.folder.clone();
    fs::create_dir_all(&folder)
        .and_then(|()| clap_mangen::generate_to(super::command(), &folder))
        .map_err(|source| ManError { folder, source })?;
    Ok(ExitCode::SUCCESS)
}
