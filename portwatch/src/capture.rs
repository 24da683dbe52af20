//! The stream kept in a folder: JSON Lines in files that are only appended to
//! ([`writer`]), and compressed when they are closed ([`closer`]).
//!
//! `20260601T224009.123456Z.jsonl` is named after the moment it was begun, so that
//! the names' order is the stream's; `.jsonl.zst` is the same file, closed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};

use crate::advice::Advised;

mod closer;
mod folder;
pub mod writer;

/// Where the losses of a capture are counted.
pub const PLACE: &str = "sink.capture";

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When a file is closed, in bytes.
    pub file_size: u64,
    /// When a file is closed, by its age.
    pub file_age: Duration,
    /// All files together, in bytes.
    pub total_size: u64,
}

/// Why nothing can be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The folder cannot be made or used.
    #[error("failed to {step} {}", .path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// It has other files in it, and everybody may look into it.
    #[error("{} is open to other users and has files of others in it", .0.display())]
    Open(PathBuf),
    /// Another agent writes there.
    #[error("another portwatch captures into {}", .0.display())]
    InUse(PathBuf),
}

impl Advised for CaptureError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "name a folder that can be made or written with --capture",
            Self::Open(_) => "name a folder of the capture's own, or close it: chmod 700",
            Self::InUse(_) => "give each agent a folder of its own",
        }
    }
}

/// A file of a capture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its name without endings.
    pub stem: String,
    /// Whether it is compressed.
    pub closed: bool,
    /// Where it is.
    pub path: PathBuf,
}

const OPEN: &str = ".jsonl";
const CLOSED: &str = ".jsonl.zst";

impl Segment {
    /// The segment that `path` is, by its name.
    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (stem, closed) = match name.strip_suffix(CLOSED) {
            Some(stem) => (stem, true),
            None => (name.strip_suffix(OPEN)?, false),
        };
        Some(Self { stem: stem.to_owned(), closed, path })
    }

    /// Where it is when it is compressed.
    fn closed_path(&self) -> PathBuf {
        self.path.with_file_name(format!("{}{CLOSED}", self.stem))
    }
}

/// All segments of a folder, oldest first. One that is there twice, because the
/// agent ended while it was being closed, is given as the closed one.
///
/// # Errors
/// The folder cannot be listed.
pub fn segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut all = list(folder)?;
    all.sort();
    all.dedup_by(|later, earlier| {
        // Sorted, so the closed one comes later.
        let twice = later.stem == earlier.stem;
        if twice {
            std::mem::swap(later, earlier);
        }
        twice
    });
    Ok(all)
}

fn list(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        all.extend(Segment::at(entry?.path()));
    }
    Ok(all)
}

/// The name of a segment that is begun now: behind all that are there, also where
/// the clock has been set back.
fn new_stem(now: Timestamp, newest: Option<&str>) -> String {
    let form = |at: Timestamp| at.strftime("%Y%m%dT%H%M%S.%6fZ").to_string();
    let name = form(now);
    match newest {
        Some(newest) if *newest >= *name => {
            let newest = jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%.fZ", newest)
                .and_then(|parsed| TimeZone::UTC.to_timestamp(parsed.to_datetime()?));
            // A foreign name is nothing to follow.
            newest.map_or(name, |at| form(at.checked_add(Duration::from_micros(1)).unwrap_or(now)))
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_stream() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = new_stem(at("2026-06-01T22:40:09.123456789Z"), None);
        assert_eq!(first, "20260601T224009.123456Z");
        let set_back = new_stem(at("2026-06-01T21:00:00Z"), Some(&first));
        assert_eq!(set_back, "20260601T224009.123457Z");
        let later = new_stem(at("2026-06-02T00:00:00Z"), Some(&set_back));
        assert_eq!(later, "20260602T000000.000000Z");
    }

    #[test]
    fn only_segments_are_listed_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.jsonl", "b.jsonl.zst", "a.jsonl.zst", "c.jsonl", "lock", "d.jsonl.zst.tmp"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = segments(folder.path()).unwrap();
        let found: Vec<_> = found.iter().map(|s| (s.stem.as_str(), s.closed)).collect();
        assert_eq!(found, [("a", true), ("b", true), ("c", false)]);
    }
}
