//! `portwatch schema`: what a reader of the stream may rely on.

use std::process::ExitCode;

use crate::event::schema;

/// Prints it.
pub fn run() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&schema::stream())?);
    Ok(ExitCode::SUCCESS)
}
