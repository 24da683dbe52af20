//! The agent's settings: from a file, the environment and flags, in this order. Later ones
//! override earlier ones.
//!
//! One type is used for all three: a key of the file has the name of the flag, and the
//! environment variable has the same name in capitals after `PORTWATCH_`.

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

mod define;
pub mod file;
pub mod filter;

use define::settings;

use crate::{
    enrich,
    redact::Redaction,
    sinks::{Format, Kind, Table, capture::Limits},
    values::{Deadline, Glob, Listen, Pattern, Size, Time},
};

settings! { said:
    /// Output format (repeatable; only one of them can use stdout) [default: human, unless
    /// there is a capture]
    format: Vec<Format> {
        flag: "FORMAT" (value_enum, value_delimiter = ','),
        variable: "PORTWATCH_FORMAT",
        default: (human_unless(said.capture.is_some() || said.sink.iter().flatten().next().is_some())) as "`human`, unless there is a capture",
        reload: no,
        values: tests::formats("`", "", ""),
        sample: tests::formats("", "Output formats: ", " (only one of them, on stdout)"),
    }
    /// Keep the stream in this directory, for portwatch replay
    capture: PathBuf {
        flag: "DIR",
        variable: "PORTWATCH_CAPTURE",
        default: none,
        reload: no,
        values: "directory",
        sample: "Directory in which to keep the stream, for portwatch replay.",
        example: "/var/lib/portwatch",
    }
    /// Start a new file at this size [default: 64MiB]
    capture_file_size: Size {
        flag: "SIZE",
        variable: "PORTWATCH_CAPTURE_FILE_SIZE",
        default: (Size(Limits::DEFAULT.file_size)),
        reload: no,
        values: "`64MiB`",
        sample: "Start a new file at this size or age; remove the oldest files when their total \
                 size exceeds the last value.",
    }
    /// Start a new file at this age [default: 24h]
    capture_file_age: Time {
        flag: "TIME",
        variable: "PORTWATCH_CAPTURE_FILE_AGE",
        default: (Time(Limits::DEFAULT.file_age)),
        reload: no,
        values: "`24h`",
        sample: "",
    }
    /// Remove the oldest files when their total size exceeds this [default: 1GiB]
    capture_size: Size {
        flag: "SIZE",
        variable: "PORTWATCH_CAPTURE_SIZE",
        default: (Size(Limits::DEFAULT.total_size)),
        reload: no,
        values: "`1GiB`",
        sample: "",
    }
    /// Report only these ports (repeatable) [default: all]
    port: Vec<NonZeroU16> {
        flag: "PORT" (value_delimiter = ','),
        variable: "PORTWATCH_PORT",
        default: (Vec::new()) as "all",
        reload: yes,
        values: "ports: only these",
        sample: "Report only these ports, or all but these.",
    }
    /// Do not report these ports (repeatable)
    ignore_port: Vec<NonZeroU16> {
        flag: "PORT" (value_delimiter = ','),
        variable: "PORTWATCH_IGNORE_PORT",
        default: (Vec::new()),
        reload: yes,
        values: "ports: all but these",
        sample: "",
    }
    /// Report only failed binds of processes in these units (repeatable) [default: all].
    /// Wildcards: * and ?. To match a user's unit, write user@UID.service/UNIT
    unit: Vec<Glob> {
        flag: "GLOB" (value_delimiter = ','),
        variable: "PORTWATCH_UNIT",
        default: (Vec::new()) as "all",
        reload: yes,
        values: "globs of the failing process's unit: only these",
        sample: "Report only failed binds of processes in these units, or of all but these; * \
                 matches any characters, ? one character: [\"app@*.service\"]. Patterns match units \
                 of the system; name the manager to match a user's unit: \
                 [\"user@1000.service/web.service\"].",
    }
    /// Do not report failed binds of processes in these units (repeatable). To match a
    /// user's unit, write user@UID.service/UNIT
    ignore_unit: Vec<Glob> {
        flag: "GLOB" (value_delimiter = ','),
        variable: "PORTWATCH_IGNORE_UNIT",
        default: (Vec::new()),
        reload: yes,
        values: "globs of the failing process's unit: all but these",
        sample: "",
    }
    /// Report the first of identical failures at once and the rest within this time as one
    /// summary with a count; 0s reports each [default: 10s]
    storm_window: Time {
        flag: "TIME",
        variable: "PORTWATCH_STORM_WINDOW",
        default: (Time(Duration::from_secs(10))),
        reload: yes but "not from or to 0s",
        values: "time, 0s for none",
        sample: "Report the first of identical failures at once and the rest within this time as one \
                 summary with a count; 0s reports each.",
    }
    /// Report what became of each failed bind when it is known, or after this time; 0s
    /// reports no outcomes [default: 10s]
    outcome_window: Time {
        flag: "TIME",
        variable: "PORTWATCH_OUTCOME_WINDOW",
        default: (Time(Duration::from_secs(10))),
        reload: yes but "not from or to 0s",
        values: "time, 0s for no outcomes",
        sample: "Report what became of each failed bind when it is known, or after this time; 0s \
                 reports no outcomes.",
    }
    /// Time limit for collecting the evidence of one failed bind, 1ms to 5s [default: 250ms]
    enrichment_deadline: Deadline {
        flag: "TIME",
        variable: "PORTWATCH_ENRICHMENT_DEADLINE",
        default: (Deadline(enrich::DEADLINE)),
        reload: yes,
        values: "1ms to 5s",
        sample: "Time limit for collecting the evidence of one failed bind.",
    }
    /// Redact what this regular expression matches in command lines, or its first group
    /// (repeatable). Secrets with common names and formats are always redacted
    redact: Vec<Pattern> {
        flag: "REGEX",
        variable: "PORTWATCH_REDACT",
        default: (Vec::new()),
        reload: yes,
        values: "regular expressions",
        sample: "Regular expressions: their match, or its first group, is redacted in command lines. \
                 Secrets with common names and formats are always redacted. Example:\n\
                 ['--pin[= ](\\d+)'].",
    }
    /// Serve metrics for Prometheus at ADDRESS:PORT, PORT (on 127.0.0.1) or unix:PATH
    /// [default: no metrics]
    metrics: Listen {
        flag: "ADDR",
        variable: "PORTWATCH_METRICS",
        default: none,
        reload: no,
        values: "`ADDRESS:PORT`, `PORT`, `unix:PATH`",
        sample: "Address at which to serve metrics for Prometheus: ADDRESS:PORT, or unix:PATH.",
        example: "127.0.0.1:9749",
    }
}

/// Events go to stdout, unless a capture keeps them.
fn human_unless(kept: bool) -> Vec<Format> {
    if kept { Vec::new() } else { vec![Format::Human] }
}

impl Layer {
    /// Returns the tables of the lower layer that remain: `format` replaces all sinks that it
    /// could name, and `capture` replaces captures.
    fn tables_over(&self, below: Option<Vec<Table>>) -> Option<Vec<Table>> {
        let stays = |table: &Table| match table.kind() {
            Kind::Capture => self.capture.is_none(),
            kind => self.format.is_none() || !kind.entry().is_format,
        };
        below.map(|tables| tables.into_iter().filter(stays).collect())
    }
}

impl Settings {
    /// Returns what is redacted in command lines.
    pub fn redaction(&self) -> Redaction {
        Redaction::with(self.redact.iter().map(|pattern| pattern.0.clone()).collect())
    }

    /// Returns the sinks of all keys.
    pub fn sinks(&self) -> Vec<Table> {
        let Self { capture_file_size, capture_file_age, capture_size, .. } = *self;
        let capture = self.capture.clone().map(|folder| {
            Table::capture(folder, capture_file_size, capture_file_age, capture_size)
        });
        let formats = self.format.iter().copied().map(Table::from);
        formats.chain(capture).chain(self.sink.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
