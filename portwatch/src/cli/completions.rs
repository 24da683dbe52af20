//! `portwatch completions`: what a shell asks when Tab is pressed.

use std::{io, process::ExitCode};

use clap_complete::{
    Generator, generate,
    shells::{Bash, Fish, Zsh},
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
pub fn run(args: &Args) -> ExitCode {
    match args.shell {
        Known::Bash => print(Bash),
        Known::Zsh => print(Zsh),
        Known::Fish => print(Fish),
    }
    ExitCode::SUCCESS
}

fn print(shell: impl Generator) {
    generate(shell, &mut super::command(), "portwatch", &mut io::stdout());
}
