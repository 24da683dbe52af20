//! `portwatch replay`: diagnoses recorded events again with the current rules.

use std::{
    io::{BufWriter, Write as _},
    process::ExitCode,
};

use super::{
    error::{Failure, SystemError, UsageError, unwritten},
    input::{Input, Tally},
    streams::{Stream, say},
};
use crate::{
    event::Record,
    replay::diff::Change,
    sinks::{Format, Placed, Table},
};

/// Options of `replay`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    input: Input,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Show only where the new diagnosis differs from the recorded one, as text or JSON
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
      where the current rules differ from those that recorded it
  grep -h portwatch/bind-failure *.log | portwatch replay -
      from any log that contains the records

replay reports lines that are not records on stderr and continues. It exits with code 1
if there were any.";

/// Reads, diagnoses and writes.
pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let tally = if args.diff {
        differences(args)
    } else if args.format == Format::Json {
        json(&args.input)
    } else {
        through_sink(args)
    }?;
    tally.end()
}

/// Copies unchanged bytes, which is the fast path.
fn json(input: &Input) -> Result<Tally, Failure> {
    const BUFFER: usize = 256 * 1024;
    let out = std::cell::RefCell::new(BufWriter::with_capacity(BUFFER, Stream::Stdout));
    let tally = input.read(
        |again| again.write(&mut *out.borrow_mut()).map_err(unwritten),
        |record| {
            let mut out = out.borrow_mut();
            serde_json::to_writer(&mut *out, record).map_err(unwritten)?;
            out.write_all(b"\n").map_err(unwritten)
        },
    )?;
    out.into_inner().flush().map_err(unwritten)?;
    Ok(tally)
}

fn through_sink(args: &Args) -> Result<Tally, Failure> {
    let out = Stream::Stdout;
    let Placed { sink, .. } = Table::from(args.format).open(out, out.colour())?;
    let sink = std::cell::RefCell::new(sink);
    let write = |record: &Record| sink.borrow_mut().write(record).map_err(unwritten);
    args.input.read(|again| write(&Record::BindFailure(Box::new(again.event()?))), write)
}

fn differences(args: &Args) -> Result<Tally, Failure> {
    let as_json = match args.format {
        Format::Json => true,
        Format::Human => false,
        other => return Err(UsageError::NoDiffAs(other.into()).into()),
    };
    let mut out = BufWriter::new(Stream::Stdout);
    let mut changed = 0u64;
    let tally = args.input.read(
        |again| {
            let change = Change::between(&again.recorded()?, &again.diagnosis)
                .map_err(SystemError::at("compare diagnoses"))?;
            if let Some(change) = change {
                changed += 1;
                change.write(as_json, &mut out).map_err(unwritten)?;
            }
            Ok(())
        },
        |_| Ok(()),
    )?;
    out.flush().map_err(unwritten)?;
    say(format_args!("portwatch: {changed} of {} diagnoses changed", tally.events));
    Ok(tally)
}
