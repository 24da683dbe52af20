//! Reads the stream back from its outputs: files, directories of a capture, stdin, the journal.
//! Every event is diagnosed again with the current rules, and goes to the same sinks.
//!
//! [`sources`] returns bytes, [`lines`] splits them into lines, [`again`] reads the lines
//! (their parts through [`section`]) and diagnoses, and [`same`] determines whether the
//! diagnosis has changed. Only the current line is kept, however long the stream is.

use std::path::PathBuf;

use crate::advice::Advised;

pub mod again;
pub mod diff;
pub mod filter;
pub mod lines;
mod same;
mod section;
pub mod sources;

/// A line that is not a record, and its position.
#[derive(Debug, thiserror::Error)]
#[error("{name}:{line}: {why}")]
pub struct BadLine {
    /// The file, or `stdin`, or `journal`.
    pub name: String,
    /// Counted from 1.
    pub line: u64,
    /// The error.
    pub why: String,
}

/// Why a source cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It does not exist, or access was denied.
    #[error("failed to read {}", .path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The directory does not contain a capture.
    #[error("no capture files in {}", .0.display())]
    Empty(PathBuf),
    /// `journalctl` is not available, or it failed.
    #[error("failed to read the journal")]
    Journal(#[source] std::io::Error),
}

impl Advised for SourceError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::Empty(_) => "name files of a capture, or its directory",
            Self::Journal(_) => "--journal needs journalctl and permission to read the journal",
        }
    }
}
