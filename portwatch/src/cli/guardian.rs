//! `portwatch guardian`: the process beside a command of `exec`'s, which starts it.

use std::process::ExitCode;

use super::error::Failure;
use crate::exec::guardian;

/// Options of `guardian`.
#[derive(clap::Args)]
pub struct Args {
    /// The process to guard
    pid: u32,
}

/// Guards until that process is gone.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    guardian::guard(args.pid);
    Ok(ExitCode::SUCCESS)
}
