//! Keeps the stream in a directory: JSON Lines in files that are only appended to ([`writer`]),
//! and compressed when they are closed ([`closer`]).
//!
//! `20260601T224009.123456Z.jsonl` is named after the moment of its creation, so that the order
//! of names is the order of the stream. `.jsonl.zst` is the same file after it was closed.
//! Files with other names are never changed ([`folder`]).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{advice::Advised, event::read};

mod closer;
mod folder;
mod place;
pub mod writer;

/// The longest line that is written: four times the largest event.
const LONGEST_LINE: u64 = 1 << 20;
const _: () = assert!(LONGEST_LINE <= read::LONGEST as u64, "replay reads what is written");

/// Limits of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The size at which a file is closed, in bytes.
    pub file_size: u64,
    /// The age at which a file is closed.
    pub file_age: Duration,
    /// The limit for all files together, in bytes.
    pub total_size: u64,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self =
        Self { file_size: 64 << 20, file_age: Duration::from_hours(24), total_size: 1 << 30 };
}

/// Why a directory cannot be used for a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The directory cannot be created or used.
    #[error("failed to {step} {}", .path.display())]
    Io {
        /// The step that failed.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// It contains files that do not belong to a capture by this user.
    #[error("{} is not a capture directory: it contains {name}", .path.display())]
    Strange {
        /// The directory.
        path: PathBuf,
        /// The foreign file.
        name: String,
    },
    /// Its owner could change what is captured.
    #[error("{} belongs to user {owner}", .path.display())]
    NotOwn {
        /// The directory.
        path: PathBuf,
        /// The owner.
        owner: u32,
    },
    /// Another user could replace it.
    #[error("another user could replace {}: {} {why}", .path.display(), .above.display())]
    Replaceable {
        /// The directory.
        path: PathBuf,
        /// The directory above it.
        above: PathBuf,
        /// The users who may write to that directory.
        why: String,
    },
    /// It is a link.
    #[error("{} is a symbolic link", .0.display())]
    Link(PathBuf),
    /// Other users may write there, and it was not created for a capture.
    #[error("other users can write to {} (mode {mode:04o})", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another agent writes there.
    #[error("another portwatch writes its capture to {}", .0.display())]
    InUse(PathBuf),
}

impl Advised for CaptureError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => {
                "name a writable directory, or one that can be created, with --capture"
            }
            Self::Strange { .. } => "name a new or empty directory: a capture removes files",
            Self::NotOwn { .. } => "name a directory that belongs to the user who runs portwatch",
            Self::Replaceable { .. } => {
                "name a directory whose parent only root or portwatch's user can write to, such as \
                 /var/lib"
            }
            Self::Link(_) => "name the directory that the link points to",
            Self::Open { .. } => "name a new directory, or remove the write permission: chmod go-w",
            Self::InUse(_) => "use a separate directory for each agent",
        }
    }
}

const OPEN: &str = ".jsonl";
const CLOSED: &str = ".jsonl.zst";

/// Returns a segment's name without extensions, and whether it is closed.
fn parts(name: &str) -> Option<(&str, bool)> {
    let closed = name.strip_suffix(CLOSED).map(|stem| (stem, true));
    closed.or_else(|| name.strip_suffix(OPEN).map(|stem| (stem, false)))
}

/// Returns all segments of a directory, oldest first, for reading: the files with the
/// extensions of segments. If one exists twice, because the agent ended while it was being
/// closed, the closed one is returned.
///
/// # Errors
/// The directory cannot be listed.
pub fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // A link is not followed.
        if entry.file_type()?.is_file()
            && let Some((stem, closed)) = name.to_str().and_then(parts)
            && (closed || !all.contains_key(stem))
        {
            all.insert(stem.to_owned(), entry.path());
        }
    }
    Ok(all.into_values().collect())
}

/// Returns a segment's name without extensions.
fn stem_of(moment: Timestamp) -> String {
    moment.strftime("%Y%m%dT%H%M%S.%6fZ").to_string()
}

/// Returns the time of a name, or `None` if the name does not have exactly that format.
fn moment_of(stem: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%.fZ", stem).ok()?;
    let moment = TimeZone::UTC.to_timestamp(parsed.to_datetime().ok()?).ok()?;
    (stem_of(moment) == stem).then_some(moment)
}

/// Returns the name of a segment that is created now. It is later than all existing names, even
/// if the clock was set back.
fn new_stem(now: Timestamp, newest: Option<&str>) -> String {
    let name = stem_of(now);
    match newest {
        Some(newest) if *newest >= *name => {
            let next = |at: Timestamp| at.checked_add(Duration::from_micros(1)).unwrap_or(now);
            // A name in another format is ignored.
            moment_of(newest).map_or(name, |at| stem_of(next(at)))
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
        let names = ["a.jsonl.zst", "b.jsonl.zst", "c.jsonl"];
        assert_eq!(found, names.map(|name| folder.path().join(name)));
    }

    #[test]
    fn only_names_of_the_exact_form_are_a_captures_own() {
        let own = "20260601T224009.123456Z";
        assert!(moment_of(own).is_some());
        for strange in [
            "",
            "1",
            "20260601T224009.123456",
            "20260601T224009.12345Z",
            "20260601T224009.1234567Z",
            "20261301T224009.123456Z",
            "20260601T224060.123456Z",
            "020260601T224009.123456Z",
            "20260601t224009.123456z",
            " 20260601T224009.123456Z",
            "20260601T224009.123456Z ",
            "20260601T224009.123456Z.jsonl",
            "2026-06-01T22:40:09.123456Z",
        ] {
            assert_eq!(moment_of(strange), None, "{strange}");
        }
    }

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.jsonl"), "").unwrap();
        fs::create_dir(at("b.jsonl")).unwrap();
        std::os::unix::fs::symlink(at("a.jsonl"), at("c.jsonl")).unwrap();
        folder::tests::fifo(&at("d.jsonl"));
        let found = segments(folder.path()).unwrap();
        assert_eq!(found, [at("a.jsonl")]);
    }
}
