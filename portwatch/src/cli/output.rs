//! Where a verb's results go: the options, and the sinks that they stand for.

use std::{io, path::PathBuf};

use crate::{
    capture::{self, Limits, writer::Capture},
    sinks::{Place, Sink, human::Human, journald::Journald, json::Json, markdown::Markdown},
};

use super::error::UsageError;

/// A form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A block of text per event
    Human,
    /// One JSON object per line (portwatch schema describes them)
    Json,
    /// An incident note per event, ready to paste
    Markdown,
    /// Entries in the systemd journal
    Journald,
}

impl Format {
    /// As it stands on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
            Self::Markdown => "markdown",
            Self::Journald => "journald",
        }
    }
}

/// Options of `run`.
#[derive(clap::Args)]
pub struct Output {
    /// How events are told; may be given several times, one of them on stdout
    /// [default: human, unless there is a capture]
    #[arg(long = "format", value_enum, value_name = "FORMAT")]
    formats: Vec<Format>,
    /// Keep the stream in this folder, for portwatch replay
    #[arg(long, value_name = "DIR")]
    capture: Option<PathBuf>,
    /// Begin a new file when one is as large as this
    #[arg(long, value_name = "SIZE", default_value = "64MiB", requires = "capture")]
    capture_file_size: bytesize::ByteSize,
    /// Begin a new file when one is as old as this
    #[arg(long, value_name = "TIME", default_value = "24h", requires = "capture")]
    capture_file_age: jiff::SignedDuration,
    /// Remove the oldest files when all are larger than this
    #[arg(long, value_name = "SIZE", default_value = "1GiB", requires = "capture")]
    capture_size: bytesize::ByteSize,
}

impl Output {
    /// Opens what was asked for.
    pub fn open(&self) -> anyhow::Result<Vec<(Place, Box<dyn Sink>)>> {
        let mut formats = self.formats.clone();
        if formats.is_empty() && self.capture.is_none() {
            formats.push(Format::Human);
        }
        let mut sinks = open_formats(&formats)?;
        if let Some(folder) = &self.capture {
            let limits = Limits {
                file_size: self.capture_file_size.as_u64(),
                file_age: self.capture_file_age.unsigned_abs(),
                total_size: self.capture_size.as_u64(),
            };
            let capture = Capture::open(folder, limits)?;
            sinks.push((Place(capture::PLACE), Box::new(capture)));
        }
        Ok(sinks)
    }
}

/// One sink for each format, of which one at most may write to stdout.
pub fn open_formats(formats: &[Format]) -> anyhow::Result<Vec<(Place, Box<dyn Sink>)>> {
    let mut sinks: Vec<(Place, Box<dyn Sink>)> = Vec::new();
    let mut on_stdout = None;
    for &format in formats {
        if format != Format::Journald
            && let Some(other) = on_stdout.replace(format)
        {
            return Err(UsageError::TwiceOnStdout(other, format).into());
        }
        sinks.push(match format {
            Format::Human => (Place("sink.human"), Box::new(Human::new(io::stdout()))),
            Format::Json => (Place("sink.json"), Box::new(Json::new(io::stdout()))),
            Format::Markdown => (Place("sink.markdown"), Box::new(Markdown::new(io::stdout()))),
            Format::Journald => (Place("sink.journald"), Box::new(Journald)),
        });
    }
    Ok(sinks)
}
