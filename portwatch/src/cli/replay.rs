//! `portwatch replay`: what was recorded, diagnosed again by today's rules.

use std::{
    io::{self, BufWriter, Write as _},
    process::ExitCode,
};

use super::{
    error::UsageError,
    input::{Input, Tally},
    output::open_formats,
};
use crate::{event::Record, replay::diff::Change, sinks::Format};

/// Options of `replay`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    input: Input,
    /// How events are told
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Show only what the diagnosis says otherwise than the recorded one, as text or
    /// JSON
    #[arg(long)]
    diff: bool,
}

const EXAMPLES: &str = "\
Examples:
  portwatch replay /var/lib/portwatch --since 2h
      the last two hours of a capture
  portwatch replay --journal --unit app.service --format markdown
      incident notes about one service
  portwatch replay --diff capture.jsonl
      what today's rules say otherwise than those that recorded it
  grep -h portwatch/bind-failure *.log | portwatch replay -
      from any log that has the lines in it

Lines that are no records are named on stderr; exit code 1 if there were any.";

/// Reads, diagnoses, writes.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let written = if args.diff {
        differences(args)
    } else if args.format == Format::Json {
        json(&args.input)
    } else {
        through_sink(args)
    };
    match written {
        Ok(tally) => tally.end(),
        // Whoever read it has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// The quick way: bytes that stay as they are are copied.
fn json(input: &Input) -> anyhow::Result<Tally> {
    const BUFFER: usize = 256 * 1024;
    let out = std::cell::RefCell::new(BufWriter::with_capacity(BUFFER, io::stdout().lock()));
    let tally = input.read(
        |again| Ok(again.write(&mut *out.borrow_mut())?),
        |record| {
            let mut out = out.borrow_mut();
            serde_json::to_writer(&mut *out, record)?;
            Ok(out.write_all(b"\n")?)
        },
    )?;
    out.into_inner().flush()?;
    Ok(tally)
}

fn through_sink(args: &Args) -> anyhow::Result<Tally> {
    let mut sinks = open_formats(&[args.format])?;
    let sink = std::cell::RefCell::new(&mut sinks);
    let write = |record: &Record| -> anyhow::Result<()> {
        for (_, sink) in sink.borrow_mut().iter_mut() {
            sink.write(record)?;
        }
        Ok(())
    };
    args.input.read(|again| write(&Record::BindFailure(Box::new(again.event()?))), write)
}

fn differences(args: &Args) -> anyhow::Result<Tally> {
    let as_json = match args.format {
        Format::Json => true,
        Format::Human => false,
        other => return Err(UsageError::NoDiffAs(other).into()),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut changed = 0u64;
    let tally = args.input.read(
        |again| {
            if let Some(change) = Change::between(&again.recorded()?, &again.diagnosis)? {
                changed += 1;
                change.write(as_json, &mut out)?;
            }
            Ok(())
        },
        |_| Ok(()),
    )?;
    out.flush()?;
    eprintln!("portwatch: {changed} of {} diagnoses have changed", tally.events);
    Ok(tally)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        cause.downcast_ref::<io::Error>().map(io::Error::kind).or(json)
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}
