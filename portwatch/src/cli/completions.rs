//! `portwatch completions`: the script that a shell runs when Tab is pressed.

use std::process::ExitCode;

use clap_complete::{
    Generator, generate,
    shells::{Bash, Fish, Zsh},
};

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
    shell: Known,
}

/// Shells that servers have.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
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
    let script = match args.shell {
        Known::Bash => script(Bash),
        Known::Zsh => script(Zsh),
        Known::Fish => script(Fish),
    };
    ended(ExitCode::SUCCESS, streams::result(&script))
}

fn script(shell: impl Generator) -> String {
    let mut script = Vec::new();
    generate(shell, &mut super::command(), "portwatch", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
