//! The counts that a stream accounts for: a long stream does not fit in memory.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::Path,
};

use serde_json::Value;

use crate::{event, log::is_anybodys};

/// Failed binds that a stream accounts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those in events.
    pub events: u64,
    /// Those that are counted as lost.
    pub losses: u64,
    /// Those among the losses that may be anybody's on the machine.
    pub losses_of_anybody: u64,
}

impl Told {
    /// Counts one record.
    pub fn count(&mut self, record: &Value) {
        let count = record["count"].as_u64().unwrap_or(0);
        match record["schema"].as_str() {
            Some(event::EVENT) => self.events += count,
            Some(event::LOSS) => {
                self.losses += count;
                self.losses_of_anybody += if is_anybodys(record) { count } else { 0 };
            }
            _ => {}
        }
    }

    /// Counts the complete lines in a capture's directory. A file that disappears meanwhile
    /// has been closed, and one that exists twice counts once: so it works while an agent
    /// writes there.
    #[must_use]
    pub fn in_capture(folder: &Path) -> Self {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut files = BTreeMap::new();
        for name in names.filter_map(|name| name.into_string().ok()) {
            // `.jsonl.zst` comes later in the order, and is complete.
            let stem = name.strip_suffix(".jsonl.zst").or_else(|| name.strip_suffix(".jsonl"));
            let Some(stem) = stem.map(str::to_owned) else { continue };
            let newer: &mut String = files.entry(stem).or_default();
            *newer = name.max(std::mem::take(newer));
        }
        let mut told = Self::default();
        for name in files.values() {
            let Ok(file) = File::open(folder.join(name)) else { continue };
            if name.ends_with(".zst") {
                told.count_lines(zstd::Decoder::new(file).unwrap());
            } else {
                told.count_lines(file);
            }
        }
        told
    }

    fn count_lines(&mut self, source: impl Read) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).unwrap() > 0 {
            // The last may not be complete yet.
            if line.ends_with(b"\n") {
                self.count(&serde_json::from_slice(&line).unwrap());
            }
            line.clear();
        }
    }

    /// All that is accounted for.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.events + self.losses
    }

    /// Returns whether these account for `refused` binds, and for no others but what may be
    /// anybody's.
    #[must_use]
    pub fn accounts_for(&self, refused: u64) -> bool {
        self.all() - self.losses_of_anybody <= refused && self.all() >= refused
    }
}
