//! Where recorded events come from: options that replay and history share.

use std::{
    collections::{HashSet, VecDeque},
    io::{IsTerminal as _, Read},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::{Span, Timestamp, ZonedDateTime};

use super::{
    error::{Failure, InputError, UsageError},
    streams::{Stream, progress as place, say},
};
use crate::{
    event::Record,
    replay::{
        BadLine,
        again::{Again, Line, Reader},
        filter::Filter,
        lines::Lines,
        sources,
    },
    values::ValueError,
};

/// Options.
#[derive(clap::Args)]
pub struct Input {
    /// Files, capture directories, or - for stdin; .zst files are decompressed
    #[arg(value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    /// Read portwatch's entries in the systemd journal
    #[arg(long)]
    journal: bool,
    /// Only events about this port (repeatable)
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<u16>,
    /// Only events in which this unit failed to bind or holds the port (repeatable)
    #[arg(long = "unit", value_name = "UNIT")]
    units: Vec<String>,
    /// Only events with this cause; time_wait matches all causes that begin with it
    /// (repeatable)
    #[arg(long = "cause", value_name = "CAUSE")]
    causes: Vec<String>,
    /// Only events since this time: 2026-06-08T10:00:00Z, 2026-06-08, or 2h for two
    /// hours ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only events until this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

/// What has been read.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events that matched the filters.
    pub events: u64,
    /// Lines that are not records.
    pub bad: u64,
}

impl Tally {
    /// Returns the exit code. Lines that are not records are an error, which is reported after
    /// everything else was read.
    pub fn end(&self) -> Result<ExitCode, Failure> {
        match self.bad {
            0 => Ok(ExitCode::SUCCESS),
            lines => Err(InputError::BadLines(lines).into()),
        }
    }
}

impl Input {
    /// Passes each matching event, diagnosed again, to `event`. Passes the outcomes of these
    /// events and matching actions to `other`, or all other records if there is no filter.
    /// Lines that are not records are reported on stderr.
    pub fn read(
        &self,
        mut event: impl FnMut(&Again) -> Result<(), Failure>,
        mut other: impl FnMut(&Record) -> Result<(), Failure>,
    ) -> Result<Tally, Failure> {
        let filter = self.filter();
        let sources = self.sources()?;
        let bar = progress(sources.iter().map(sources::Source::size).sum());
        let mut tally = Tally::default();
        let mut reader = Reader::default();
        let mut wanted = Recent::default();
        for source in sources {
            let watch = |bytes: Box<dyn Read>| -> Box<dyn Read> {
                match &bar {
                    Some(bar) => Box::new(bar.wrap_read(bytes)),
                    None => bytes,
                }
            };
            let mut lines = Lines::of(source.open(watch)?);
            while let Some(line) = lines.advance() {
                let line = match line {
                    Ok(line) => line,
                    Err(bad) => {
                        let torn = lines.ended_torn();
                        tell(&bad, torn, &mut tally, bar.as_ref());
                        continue;
                    }
                };
                match reader.read(line) {
                    Ok(Line::Event(recorded)) if filter.admits(recorded.evidence) => {
                        match recorded.again() {
                            Ok(again) if filter.admits_cause(&again.diagnosis) => {
                                tally.events += 1;
                                if !filter.is_open() {
                                    wanted.add(&again.id);
                                }
                                event(&again)?;
                            }
                            Ok(_) => {}
                            Err(error) => {
                                let bad = lines.bad(error.to_string());
                                tell(&bad, false, &mut tally, bar.as_ref());
                            }
                        }
                    }
                    Ok(Line::Event(_)) => {}
                    Ok(Line::Other(record)) => {
                        let belongs = match &record {
                            Record::Outcome(outcome) => wanted.has(&outcome.id),
                            Record::Action(action) => filter.admits_action(action),
                            _ => false,
                        };
                        if filter.is_open() || belongs {
                            other(&record)?;
                        }
                    }
                    Err(error) => {
                        let bad = lines.bad(error.to_string());
                        tell(&bad, false, &mut tally, bar.as_ref());
                    }
                }
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(tally)
    }

    fn filter(&self) -> Filter {
        Filter {
            ports: self.ports.clone(),
            units: self.units.clone(),
            causes: self.causes.clone(),
            since: self.since,
            until: self.until,
        }
    }

    fn sources(&self) -> Result<Vec<sources::Source>, Failure> {
        if self.paths.is_empty() && !self.journal {
            if std::io::stdin().is_terminal() {
                return Err(UsageError::NothingToRead.into());
            }
            return Ok(vec![sources::Source::Stdin]);
        }
        Ok(sources::resolve(&self.paths, self.journal)?)
    }
}

/// The ids of the last events that matched. Their outcomes follow soon.
#[derive(Default)]
struct Recent {
    ids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Recent {
    fn add(&mut self, id: &str) {
        const MOST: usize = 16_384;
        let id: Arc<str> = id.into();
        if self.ids.insert(Arc::clone(&id)) {
            self.order.push_back(id);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }
}

/// Reports each of the first few bad lines, and at the end their number.
fn tell(bad: &BadLine, torn: bool, tally: &mut Tally, bar: Option<&ProgressBar>) {
    const MOST: u64 = 20;
    let say = |text: String| match bar {
        Some(bar) => bar.suspend(|| say(text)),
        None => say(text),
    };
    if torn {
        say(format!("portwatch: {bad}"));
        return;
    }
    tally.bad += 1;
    if tally.bad <= MOST {
        say(format!("portwatch: {bad}"));
    } else if tally.bad == MOST + 1 {
        say("portwatch: … and more lines could not be read".to_owned());
    }
}

/// Returns a progress bar, if stderr is a terminal and the input has a known size.
fn progress(bytes: u64) -> Option<ProgressBar> {
    const WORTH_IT: u64 = 16 * 1024 * 1024;
    if bytes < WORTH_IT || !Stream::Stderr.is_terminal() || Stream::Stdout.is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), place());
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    Some(bar)
}

/// Parses a time, or how long ago it was.
fn moment(text: &str) -> Result<Timestamp, ValueError> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return Ok(jiff::tz::TimeZone::system().to_timestamp(local)?);
    }
    let ago: Span = text.parse().map_err(|source| ValueError::Moment { source })?;
    Ok(ZonedDateTime::now().checked_sub(ago.abs())?.timestamp())
}
