//! Sinks: the trait, and the registry of all.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use anstream::ColorChoice;
use serde::{Deserialize, Serialize};

use crate::{
    event::Record,
    values::{Size, Time},
};

pub mod capture;
mod define;
pub mod human;
pub mod journald;
pub mod json;
pub mod markdown;
mod table;

#[cfg(test)]
mod tests;

use capture::writer::Capture;
use human::Human;
use journald::Journald;
use json::Json;
use markdown::Markdown;
pub use table::{Clash, OpenError, Table, check};

define::sinks! { |keys, out, colour|
    format {
        /// A block of text per event
        Human { name: "human", stdout: true, open: Human::new(out, colour) }
        /// One JSON object per line (portwatch schema describes them)
        Json { name: "json", stdout: true, open: Json::new(out) }
        /// An incident note per event, ready to paste
        Markdown { name: "markdown", stdout: true, open: Markdown::new(out) }
        /// Entries in the systemd journal
        Journald { name: "journald", stdout: false, open: Journald }
    }
    table {
        /// The stream kept in a directory, for portwatch replay
        Capture {
            name: "capture",
            stdout: false,
            needs: ["folder"],
            takes: ["file-size", "file-age", "size"],
            open: Capture::open(keys.folder.as_deref().unwrap_or(Path::new("")), keys.limits())?
        }
    }
}

/// A sink's entry in the registry.
pub struct Entry {
    /// Its name in the file and on the command line.
    pub name: &'static str,
    /// The place of its losses.
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

/// The keys of a `[[sink]]` table, for all sinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// An output. Each is called from a thread of its own.
pub trait Sink: Send {
    /// Writes one record so that its reader can see it.
    ///
    /// # Errors
    /// The output rejects it. `BrokenPipe` means that the output is closed permanently; after
    /// any other error the next record is tried.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Called after each record, and when nothing waits to be written. Returns when it wants
    /// to be called again; `None` if it does not need to.
    ///
    /// # Errors
    /// The postponed work failed; it is tried again with the next record.
    fn rest(&mut self) -> io::Result<Option<Duration>> {
        Ok(None)
    }

    /// Returns the failed binds that were written and then lost, since the last call.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// The name under which a sink's losses are counted: `sink.` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub &'static str);

/// A sink, and the place of its losses.
pub type Placed = (Place, Box<dyn Sink>);
