//! `portwatch completions`: the script that a shell runs when Tab is pressed.

use std::process::ExitCode;

use clap_complete::{Shell, generate};

use super::{
    error::{Failure, ended},
    streams,
};

/// Options of `completions`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  portwatch completions bash > /usr/share/bash-completion/completions/portwatch
  portwatch completions zsh > /usr/share/zsh/site-functions/_portwatch
  portwatch completions fish > /usr/share/fish/vendor_completions.d/portwatch.fish";

/// Prints the script.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut super::command(), "portwatch", &mut script);
    ended(ExitCode::SUCCESS, streams::result(&String::from_utf8_lossy(&script)))
}
