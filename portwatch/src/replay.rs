//! The stream read back, from wherever it went: files, folders of a capture,
//! stdin, the journal. Every event is diagnosed again, by today's rules, and goes
//! on to the same sinks.
//!
//! [`sources`] give bytes, [`lines`] makes lines of them, [`again`] reads them (its
//! parts by [`section`]) and diagnoses.
//! Nothing but the line in hand is kept, however long the stream is.

use std::path::PathBuf;

use crate::advice::Advised;

pub mod again;
pub mod diff;
pub mod filter;
pub mod lines;
mod section;
pub mod sources;

/// A line that is not a record, and where it stands.
#[derive(Debug, thiserror::Error)]
#[error("{name}:{line}: {why}")]
pub struct BadLine {
    /// The file, or `stdin`, or `journal`.
    pub name: String,
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Why a source cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or may not be read.
    #[error("failed to read {}", .path.display())]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// The folder has no capture in it.
    #[error("no capture files in {}", .0.display())]
    Empty(PathBuf),
    /// There is no `journalctl`, or it failed.
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
