//! Where records go.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

use crate::event::Record;

pub mod human;
pub mod journald;
pub mod json;
pub mod markdown;

/// A form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[derive(strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
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
