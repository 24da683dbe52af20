//! `portwatch guardian`: the process that starts the command of `exec`, and ends it.

use std::process::ExitCode;

use super::error::Failure;
use crate::exec::guardian;

/// Options of `guardian`.
#[derive(clap::Args)]
pub struct Args {
    /// The process to guard
    pid: u32,
}

/// Waits until the guarded process has exited.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    guardian::guard(args.pid);
    Ok(ExitCode::SUCCESS)
}
