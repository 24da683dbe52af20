//! `portwatch schema`: prints the JSON Schemas.

use std::process::ExitCode;

use super::{
    error::{Failure, SystemError, ended},
    streams,
};
use crate::event::schema;

/// Examples.
const EXAMPLES: &str = "\
Examples:
  portwatch schema > stream.schema.json
      for a validator, or for types generated in another language
  portwatch schema explanation
      the schema of portwatch explain --format json
  portwatch schema action
      the schema of portwatch free --format json";

/// Options of `schema`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to describe
    #[arg(value_enum, default_value_t = Of::Stream)]
    of: Of,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Of {
    /// A record of the stream, a capture or the journal
    Stream,
    /// A result of portwatch explain --format json
    Explanation,
    /// A result of portwatch free --format json
    Action,
}

/// Prints it.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let schema = match args.of {
        Of::Stream => schema::STREAM,
        Of::Explanation => schema::EXPLANATION,
        Of::Action => schema::ACTION,
    };
    let text = schema.text().map_err(SystemError::at("decompress the schema"))?;
    ended(ExitCode::SUCCESS, streams::result(&text))
}
