//! What the agent is told to do: by a file, the environment and flags, in this order,
//! each over the one before.
//!
//! One type is all three: a key of the file is a flag's name, and the environment's is
//! the same in capitals after `PORTWATCH_`.

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
    /// How events are told; may be given several times, one of them on stdout
    /// [default: human, unless there is a capture]
    format: Vec<Format> {
        flag: "FORMAT" (value_enum, value_delimiter = ','),
        variable: "PORTWATCH_FORMAT",
        default: (human_unless(said.capture.is_some() || said.sink.iter().flatten().next().is_some())) as "`human`, unless there is a capture",
        reload: no,
        values: tests::formats("`", "", ""),
        sample: tests::formats("", "How events are told: ", " (one of them, on stdout)"),
    }
    /// Keep the stream in this folder, for portwatch replay
    capture: PathBuf {
        flag: "DIR",
        variable: "PORTWATCH_CAPTURE",
        default: none,
        reload: no,
        values: "folder",
        sample: "The folder that keeps the stream for portwatch replay.",
        example: "/var/lib/portwatch",
    }
    /// Begin a new file when one is as large as this [default: 64MiB]
    capture_file_size: Size {
        flag: "SIZE",
        variable: "PORTWATCH_CAPTURE_FILE_SIZE",
        default: (Size(Limits::DEFAULT.file_size)),
        reload: no,
        values: "`64MiB`",
        sample: "A new file is begun when one is as large or as old as this; the oldest go \
                 when all together are larger.",
    }
    /// Begin a new file when one is as old as this [default: 24h]
    capture_file_age: Time {
        flag: "TIME",
        variable: "PORTWATCH_CAPTURE_FILE_AGE",
        default: (Time(Limits::DEFAULT.file_age)),
        reload: no,
        values: "`24h`",
        sample: "",
    }
    /// Remove the oldest files when all are larger than this [default: 1GiB]
    capture_size: Size {
        flag: "SIZE",
        variable: "PORTWATCH_CAPTURE_SIZE",
        default: (Size(Limits::DEFAULT.total_size)),
        reload: no,
        values: "`1GiB`",
        sample: "",
    }
    /// Report these ports only; may be given several times
    port: Vec<NonZeroU16> {
        flag: "PORT" (value_delimiter = ','),
        variable: "PORTWATCH_PORT",
        default: (Vec::new()) as "all",
        reload: yes,
        values: "ports: these only",
        sample: "These ports only, or all but those.",
    }
    /// Do not report these ports
    ignore_port: Vec<NonZeroU16> {
        flag: "PORT" (value_delimiter = ','),
        variable: "PORTWATCH_IGNORE_PORT",
        default: (Vec::new()),
        reload: yes,
        values: "ports: not those",
        sample: "",
    }
    /// Report only what processes of these units are refused; * stands for any
    /// characters, ? for any one; a user's unit only as user@UID.service/UNIT
    unit: Vec<Glob> {
        flag: "GLOB" (value_delimiter = ','),
        variable: "PORTWATCH_UNIT",
        default: (Vec::new()) as "all",
        reload: yes,
        values: "globs of the failing process's unit: these only",
        sample: "Only what processes of these units are refused, or of all but those; * stands \
                 for any characters, ? for any one: [\"app@*.service\"]. Units of the system; \
                 one of a user is written with its manager: [\"user@1000.service/web.service\"].",
    }
    /// Do not report what processes of these units are refused; a user's unit only as
    /// user@UID.service/UNIT
    ignore_unit: Vec<Glob> {
        flag: "GLOB" (value_delimiter = ','),
        variable: "PORTWATCH_IGNORE_UNIT",
        default: (Vec::new()),
        reload: yes,
        values: "globs of the failing process's unit: not those",
        sample: "",
    }
    /// Equal failures within this time are told once at their beginning and once
    /// with their number; 0s tells each of them [default: 10s]
    storm_window: Time {
        flag: "TIME",
        variable: "PORTWATCH_STORM_WINDOW",
        default: (Time(Duration::from_secs(10))),
        reload: yes but "not from or to 0s",
        values: "time, 0s for none",
        sample: "Equal failures within this time are told once at their beginning and once with \
                 their number; 0s tells each.",
    }
    /// How long one refusal may be looked into [default: 250ms]
    enrichment_deadline: Deadline {
        flag: "TIME",
        variable: "PORTWATCH_ENRICHMENT_DEADLINE",
        default: (Deadline(enrich::DEADLINE)),
        reload: yes,
        values: "1ms to 5s",
        sample: "How long one refusal may be looked into.",
    }
    /// Take what this regular expression matches out of command lines, or its first
    /// group; secrets of the usual names and forms are taken out in any case
    redact: Vec<Pattern> {
        flag: "REGEX",
        variable: "PORTWATCH_REDACT",
        default: (Vec::new()),
        reload: yes,
        values: "regular expressions",
        sample: "Regular expressions: what they match, or their first group, is taken out of \
                 command lines. Secrets of the usual names and forms are in any case: \
                 ['--pin[= ](\\d+)'].",
    }
    /// Serve metrics for Prometheus there: ADDRESS:PORT, PORT (of 127.0.0.1) or
    /// unix:PATH [default: nowhere]
    metrics: Listen {
        flag: "ADDR",
        variable: "PORTWATCH_METRICS",
        default: none,
        reload: no,
        values: "`ADDRESS:PORT`, `PORT`, `unix:PATH`",
        sample: "Where Prometheus finds metrics: ADDRESS:PORT, or unix:PATH.",
        example: "127.0.0.1:9749",
    }
}

/// Events are told to somebody, unless they are kept.
fn human_unless(kept: bool) -> Vec<Format> {
    if kept { Vec::new() } else { vec![Format::Human] }
}

impl Layer {
    /// The tables of the layer below that this leaves: `format` is over all of sinks that
    /// it could name, and `capture` over those of captures.
    fn tables_over(&self, below: Option<Vec<Table>>) -> Option<Vec<Table>> {
        let stays = |table: &Table| match table.kind() {
            Kind::Capture => self.capture.is_none(),
            kind => self.format.is_none() || !kind.entry().is_format,
        };
        below.map(|tables| tables.into_iter().filter(stays).collect())
    }
}

impl Settings {
    /// What is taken out of command lines.
    pub fn redaction(&self) -> Redaction {
        Redaction::with(self.redact.iter().map(|pattern| pattern.0.clone()).collect())
    }

    /// Where events go, by whatever key.
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
