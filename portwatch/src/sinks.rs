//! Where records go: what a sink is, and the registry of all.

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
        /// The stream kept in a folder, for portwatch replay
        Capture {
            name: "capture",
            stdout: false,
            needs: ["folder"],
            takes: ["file-size", "file-age", "size"],
            open: Capture::open(keys.folder.as_deref().unwrap_or(Path::new("")), keys.limits())?
        }
    }
}

/// What the registry says of a sink.
pub struct Entry {
    /// As it stands in the file and on the command line.
    pub name: &'static str,
    /// Where its losses are counted.
    pub place: Place,
    /// Whether `format` may name it.
    pub is_format: bool,
    /// Whether it writes to stdout.
    pub is_on_stdout: bool,
    /// The keys that its table must have.
    pub needs: &'static [&'static str],
    /// Those that it may have.
    pub takes: &'static [&'static str],
}

/// The keys of a `[[sink]]` table, of whatever sink they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Keys {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Where a capture is kept.
    pub folder: Option<PathBuf>,
    /// When its files are closed, by size.
    pub file_size: Option<Size>,
    /// When they are closed, by age.
    pub file_age: Option<Time>,
    /// What all of them may take.
    pub size: Option<Size>,
}

/// One destination. Called from a thread of its own.
pub trait Sink: Send {
    /// Writes one record and lets its reader see it.
    ///
    /// # Errors
    /// The destination does not take it. `BrokenPipe` means that it never will
    /// again; after any other error the next record is tried.
    fn write(&mut self, record: &Record) -> io::Result<()>;

    /// Called after each record, and when nothing waits to be written. Gives how soon
    /// it wants to be called again; `None` if there is no need.
    ///
    /// # Errors
    /// What was to be done did not succeed; it is tried again with the next record.
    fn rest(&mut self) -> io::Result<Option<Duration>> {
        Ok(None)
    }

    /// Refusals that were written and have not lasted, since the last time it was asked.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// The name under which a sink's losses are counted: `sink.` and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub &'static str);

/// A sink, and the place of its losses.
pub type Placed = (Place, Box<dyn Sink>);
