//! `portwatch history`: finds recurring holders.

use std::process::ExitCode;

use super::{
    error::{Failure, SystemError, unwritten},
    input::Input,
    streams,
};
use crate::{
    event::Record,
    history::{History, render},
};

/// Options of `history`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    input: Input,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  portwatch history /var/lib/portwatch --since 2026-06-01
      who blocked deploys since then, by port
  portwatch history --journal --port 8080 --format markdown
      only one port, to paste into a report";

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// A table
    Human,
    /// One JSON object
    Json,
    /// A Markdown table, ready to paste
    Markdown,
}

/// Reads all input, and then prints the result.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let history = std::cell::RefCell::new(History::default());
    let tally = args.input.read(
        |again| {
            history.borrow_mut().add(&again.id, again.evidence, &again.diagnosis, again.count);
            Ok(())
        },
        |other| {
            match other {
                Record::Outcome(outcome) => history.borrow_mut().became(outcome),
                Record::Action(action) => history.borrow_mut().acted(action),
                _ => {}
            }
            Ok(())
        },
    )?;
    let report = history.into_inner().report();
    let text = match args.format {
        Format::Human => render::table(&report),
        Format::Json => {
            serde_json::to_string(&report).map_err(SystemError::at("write JSON"))? + "\n"
        }
        Format::Markdown => render::markdown(&report),
    };
    streams::result(&text).map_err(unwritten)?;
    tally.end()
}
