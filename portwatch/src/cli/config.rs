//! `portwatch config`: validates the file, or prints the effective settings.

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgMatches, Subcommand};

use super::{
    error::{Failure, SystemError, ended},
    settings, streams,
};
use crate::{
    config::{Settings, file},
    sinks,
    text::sanitize::printable,
};

/// Options of `config`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Validate a file
    Check {
        /// The file to validate [default: /etc/portwatch/config.toml]
        #[arg(value_name = "FILE", default_value = file::DEFAULT, hide_default_value = true)]
        file: PathBuf,
    },
    /// Print each setting, and whether it comes from flag, environment, file or default
    Show(Box<settings::Given>),
}

const EXAMPLES: &str = "\
Examples:
  portwatch config check && systemctl reload portwatch
      reload the running agent only if the file is valid
  PORTWATCH_PORT=8080 portwatch config show
      the settings of portwatch run in this environment

Exit codes: 0 valid, 2 invalid, 4 not permitted to read the file.";

/// Runs the verb. `given` are the matches of this verb.
pub fn run(args: &Args, given: &ArgMatches) -> Result<ExitCode, Failure> {
    let text = match &args.verb {
        Verb::Check { file } => {
            let (layer, _) = file::read(Some(file))?;
            sinks::check(&Settings::from(layer).sinks())?;
            format!("{} is valid\n", printable(&file.display().to_string()))
        }
        Verb::Show(args) => {
            let configured = args.read()?;
            let file = configured.path.as_ref().map(|path| path.display().to_string());
            let file = file.map(|path| format!("# file: {}\n", printable(&path)));
            let given = given.subcommand().map_or(given, |(_, given)| given);
            let settings = configured.show(given).map_err(SystemError::at("write TOML"))?;
            file.unwrap_or_default() + &settings
        }
    };
    ended(ExitCode::SUCCESS, streams::result(&text))
}
