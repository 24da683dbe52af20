//! Sinks: the trait, and the registry of all sinks.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anstream::ColorChoice;
use serde::{Deserialize, Serialize};

use crate::{
    event::Record,
    values::{Size, Time},
};

pub mod became;
pub mod capture;
pub mod deed;
pub mod gate;
pub mod human;
pub mod journald;
pub mod json;
pub mod markdown;
mod table;

#[cfg(test)]
mod tests;

use capture::writer::Capture;
use gate::Gate;
use human::Human;
use journald::Journald;
use json::Json;
use markdown::Markdown;
pub use table::{Clash, OpenError, Table, check};

/// A form of the stream, which `--format` and `format` name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
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

/// What a sink is: a form of the stream, or what only a `[[sink]]` table can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Kind {
    /// [`Format::Human`].
    #[default]
    Human,
    /// [`Format::Json`].
    Json,
    /// [`Format::Markdown`].
    Markdown,
    /// [`Format::Journald`].
    Journald,
    /// The stream kept in a folder, for portwatch replay.
    Capture,
}

impl From<Format> for Kind {
    fn from(format: Format) -> Self {
        match format {
            Format::Human => Self::Human,
            Format::Json => Self::Json,
            Format::Markdown => Self::Markdown,
            Format::Journald => Self::Journald,
        }
    }
}

impl Kind {
    /// Returns the facts about the sink.
    pub fn entry(self) -> Entry {
        match self {
            Self::Human => Entry::format("sink.human", true),
            Self::Json => Entry::format("sink.json", true),
            Self::Markdown => Entry::format("sink.markdown", true),
            Self::Journald => Entry::format("sink.journald", false),
            Self::Capture => Entry {
                is_format: false,
                needs: &["folder"],
                takes: &["file-size", "file-age", "size"],
                ..Entry::format("sink.capture", false)
            },
        }
    }
}

impl Keys {
    fn open_sink<W: Write + AsFd + Send + 'static>(
        &self,
        out: W,
        colour: ColorChoice,
    ) -> Result<Box<dyn Sink>, OpenError> {
        Ok(match self.kind {
            Kind::Human => Box::new(Human::new(out, colour)),
            Kind::Json => Box::new(Json::new(out)),
            Kind::Markdown => Box::new(Markdown::new(out)),
            Kind::Journald => Box::new(Journald),
            Kind::Capture => {
                let folder = self.folder.as_deref().unwrap_or(Path::new(""));
                Box::new(Capture::open(folder, self.limits())?)
            }
        })
    }
}

/// The facts about a sink.
pub struct Entry {
    /// The name under which its losses are counted.
    pub place: Place,
    /// Whether `format` may name it.
    pub is_format: bool,
    /// Whether it writes to stdout.
    pub is_on_stdout: bool,
    /// The keys that its table must have.
    pub needs: &'static [&'static str],
    /// The keys that it may have.
    pub takes: &'static [&'static str],
}

impl Entry {
    /// Returns the entry of an output format, whose table has no keys except its type.
    const fn format(place: &'static str, is_on_stdout: bool) -> Self {
        Self { place: Place(place), is_format: true, is_on_stdout, needs: &[], takes: &[] }
    }
}

/// The keys of a `[[sink]]` table, of whatever sink they are.
#[derive(Default, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Keys {
    /// The sink's type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The directory of a capture.
    pub folder: Option<PathBuf>,
    /// The size at which a file is closed.
    pub file_size: Option<Size>,
    /// The age at which a file is closed.
    pub file_age: Option<Time>,
    /// The limit for all files together.
    pub size: Option<Size>,
}

/// An output. Each one is called from its own thread.
pub trait Sink: Send {
    /// Writes one record so that its reader can see it.
    ///
    /// # Errors
    /// The output rejects it. `BrokenPipe` means that the output is closed permanently; after
    /// any other error the next record is tried.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Does postponed work. It is called after each record, and when nothing waits to be
    /// written. Returns when it must be called again, or `None` if that is not necessary.
    ///
    /// # Errors
    /// The postponed work failed. It is tried again with the next record.
    fn rest(&mut self) -> io::Result<Option<Duration>> {
        Ok(None)
    }

    /// Returns the number of failed binds that were written and then lost, since the last call.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// The name under which a sink's losses are counted: `sink.` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub &'static str);

/// A sink that the pipeline can use.
pub struct Placed {
    /// The name under which its losses are counted.
    pub place: Place,
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// The gate that its thread is outside of while it waits for a reader.
    pub gate: Arc<Gate>,
}

impl Placed {
    /// Creates one whose output has no reader that it waits for.
    pub fn new(place: &'static str, sink: impl Sink + 'static) -> Self {
        Self { place: Place(place), sink: Box::new(sink), gate: Arc::default() }
    }
}
