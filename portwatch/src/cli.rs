//! The command line: one file per verb, and one place for errors and exit codes.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind};

use crate::talk;

mod completions;
mod config;
mod doctor;
mod error;
mod exec;
mod explain;
mod free;
mod guardian;
mod history;
mod hooks;
mod input;
mod man;
mod replay;
mod run;
mod schema;
mod settings;
mod streams;
pub mod target;
mod wait;

use self::streams::{Stream, say};
use crate::{advice::USAGE, sinks::human::coloured};

/// Catches every failed bind (EADDRINUSE) and reports who holds the port, which
/// socket blocks the bind, and what to do.
#[derive(Parser)]
#[command(name = "portwatch", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Watch all binds, and report each one that fails
    Run(Box<run::Args>),
    /// Run a command, and explain its failed binds on stderr
    Exec(exec::Args),
    /// Show what would block a bind right now
    Explain(explain::Args),
    /// Stop what holds a port through its manager, and prove that the port is free
    Free(free::Args),
    /// Wait until ports are free, or until a socket is listening on them
    Wait(wait::Args),
    /// Diagnose recorded events again with the current rules
    Replay(replay::Args),
    /// Show recurring holders, by port
    History(history::Args),
    /// Print the JSON Schema of the stream, or of an explanation
    Schema(schema::Args),
    /// Show what the kernel and the permissions allow, and what is missing
    Doctor(doctor::Args),
    /// Validate the configuration, or print the effective settings
    Config(config::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Write manual pages, one for each verb
    #[command(hide = true)]
    Man(man::Args),
    /// Kill the command of exec if exec is killed
    #[command(hide = true)]
    Guardian(guardian::Args),
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 the tool failed, 2 bad usage, 3 the port is held, 4 not permitted. They
stay the same if the reader closes the pipe early (| head).
PORTWATCH_LOG=debug prints log messages about portwatch itself to stderr.";

/// Returns the definition of the command line, from which help, completions, manual pages and
/// docs/cli.md are generated.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments and runs the verb.
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|given| {
        let cli = Cli::from_arg_matches(&given)?;
        Ok((cli, given))
    });
    let (cli, given) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    log_to_stderr();
    let result = match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Exec(args) => exec::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Free(args) => free::run(&args),
        Verb::Wait(args) => wait::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::History(args) => history::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Config(args) => {
            let given = given.subcommand().map_or(&given, |(_, given)| given);
            config::run(&args, given)
        }
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::Guardian(args) => guardian::run(&args),
    };
    let code = match result {
        Ok(code) => code,
        Err(error) => error::report(&error),
    };
    // The messages of other threads would be lost when this thread ends.
    talk::settle();
    code
}

/// Prints clap's message. Requested help is a result. An error ends with a hint, like all other
/// errors.
fn usage(error: &clap::Error) -> ExitCode {
    let said = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = coloured(said.ansi().to_string(), Stream::Stdout.colour());
            error::ended(ExitCode::SUCCESS, streams::result(&text))
                .unwrap_or_else(|failure| error::report(&failure))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say(said);
            ExitCode::from(USAGE)
        }
        _ => {
            say(said);
            say("hint: run portwatch help for the verbs, portwatch help VERB for options");
            ExitCode::from(USAGE)
        }
    }
}

fn log_to_stderr() {
    use tracing_subscriber::{filter::Targets, fmt, prelude::*};
    let warnings = Targets::new().with_default(tracing::Level::WARN);
    let filter = match std::env::var("PORTWATCH_LOG").map(|text| text.parse()) {
        Ok(Ok(filter)) => filter,
        Ok(Err(error)) => {
            let error: tracing_subscriber::filter::ParseError = error;
            say(format_args!("portwatch: PORTWATCH_LOG: {error}"));
            say("hint: use a level (error, warn, info, debug, trace) or portwatch::enrich=debug");
            warnings
        }
        Err(_) => warnings,
    };
    // It has no colours, like all messages, and a failed write does not panic.
    let stderr =
        fmt::layer().with_ansi(false).with_writer(|| streams::Log).log_internal_errors(false);
    tracing_subscriber::registry().with(stderr).with(filter).init();
}
