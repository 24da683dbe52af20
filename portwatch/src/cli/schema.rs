//! `portwatch schema`: what a reader of the stream may rely on.

use std::process::ExitCode;

use crate::event::schema;

/// How it is used.
pub const EXAMPLES: &str = "\
Examples:
  portwatch schema > stream.schema.json
      for a validator, or for types generated in another language";

/// Prints it.
pub fn run() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&schema::stream())?);
    Ok(ExitCode::SUCCESS)
}
