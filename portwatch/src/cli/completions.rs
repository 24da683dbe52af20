//! `portwatch completions`: what a shell asks when Tab is pressed.

use std::{io, process::ExitCode};

use clap_complete::{Shell, generate};

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
pub fn run(args: &Args) -> ExitCode {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    generate(shell, &mut super::command(), "portwatch", &mut io::stdout());
    ExitCode::SUCCESS
}
