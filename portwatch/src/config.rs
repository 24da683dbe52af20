//! What the agent is told to do: by a file, the environment and flags, in this order,
//! each over the one before.
//!
//! One type is all three: a key of the file is a flag's name, and the environment's is
//! the same in capitals after `PORTWATCH_`.

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub mod file;
pub mod filter;
pub mod values;

use values::{Deadline, Glob, Listen, Pattern, Size, Time};

use crate::{enrich, redact::Redaction, sinks::Format};

/// What one of the three says; `None` is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[command(next_help_heading = "Settings, also in the file and as PORTWATCH_…")]
pub struct Layer {
    /// Output format (repeatable; only one of them can use stdout) [default: human, unless
    /// there is a capture]
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        value_delimiter = ',',
        env = "PORTWATCH_FORMAT",
        hide_env_values = true
    )]
    pub format: Option<Vec<Format>>,
    /// Keep the stream in this directory, for portwatch replay
    #[arg(long, value_name = "DIR", env = "PORTWATCH_CAPTURE", hide_env_values = true)]
    pub capture: Option<PathBuf>,
    /// Start a new file at this size [default: 64MiB]
    #[arg(long, value_name = "SIZE", env = "PORTWATCH_CAPTURE_FILE_SIZE", hide_env_values = true)]
    pub capture_file_size: Option<Size>,
    /// Start a new file at this age [default: 24h]
    #[arg(long, value_name = "TIME", env = "PORTWATCH_CAPTURE_FILE_AGE", hide_env_values = true)]
    pub capture_file_age: Option<Time>,
    /// Remove the oldest files when all together exceed this size [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "PORTWATCH_CAPTURE_SIZE", hide_env_values = true)]
    pub capture_size: Option<Size>,
    /// Report only these ports (repeatable) [default: all]
    #[arg(
        long,
        value_name = "PORT",
        value_delimiter = ',',
        env = "PORTWATCH_PORT",
        hide_env_values = true
    )]
    pub port: Option<Vec<NonZeroU16>>,
    /// Do not report these ports (repeatable)
    #[arg(
        long,
        value_name = "PORT",
        value_delimiter = ',',
        env = "PORTWATCH_IGNORE_PORT",
        hide_env_values = true
    )]
    pub ignore_port: Option<Vec<NonZeroU16>>,
    /// Report only failed binds of processes in these units (repeatable) [default: all].
    /// Wildcards: * and ?. To match a user's unit, write user@UID.service/UNIT
    #[arg(
        long,
        value_name = "GLOB",
        value_delimiter = ',',
        env = "PORTWATCH_UNIT",
        hide_env_values = true
    )]
    pub unit: Option<Vec<Glob>>,
    /// Do not report failed binds of processes in these units (repeatable). To match a
    /// user's unit, write user@UID.service/UNIT
    #[arg(
        long,
        value_name = "GLOB",
        value_delimiter = ',',
        env = "PORTWATCH_IGNORE_UNIT",
        hide_env_values = true
    )]
    pub ignore_unit: Option<Vec<Glob>>,
    /// Report the first of identical failures at once and the rest within this time as one
    /// summary with a count; 0s reports each [default: 10s]
    #[arg(long, value_name = "TIME", env = "PORTWATCH_STORM_WINDOW", hide_env_values = true)]
    pub storm_window: Option<Time>,
    /// Time limit for collecting the evidence of one failed bind, 1ms to 5s [default: 250ms]
    #[arg(
        long,
        value_name = "TIME",
        env = "PORTWATCH_ENRICHMENT_DEADLINE",
        hide_env_values = true
    )]
    pub enrichment_deadline: Option<Deadline>,
    /// Redact what this regular expression matches in command lines, or its first group
    /// (repeatable). Secrets with common names and formats are always redacted
    #[arg(long, value_name = "REGEX", env = "PORTWATCH_REDACT", hide_env_values = true)]
    pub redact: Option<Vec<Pattern>>,
    /// Serve metrics for Prometheus at ADDRESS:PORT, PORT (on 127.0.0.1) or unix:PATH
    /// [default: no metrics]
    #[arg(long, value_name = "ADDR", env = "PORTWATCH_METRICS", hide_env_values = true)]
    pub metrics: Option<Listen>,
}

impl Layer {
    /// This, and `below` where this says nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            format: self.format.or(below.format),
            capture: self.capture.or(below.capture),
            capture_file_size: self.capture_file_size.or(below.capture_file_size),
            capture_file_age: self.capture_file_age.or(below.capture_file_age),
            capture_size: self.capture_size.or(below.capture_size),
            port: self.port.or(below.port),
            ignore_port: self.ignore_port.or(below.ignore_port),
            unit: self.unit.or(below.unit),
            ignore_unit: self.ignore_unit.or(below.ignore_unit),
            storm_window: self.storm_window.or(below.storm_window),
            enrichment_deadline: self.enrichment_deadline.or(below.enrichment_deadline),
            redact: self.redact.or(below.redact),
            metrics: self.metrics.or(below.metrics),
        }
    }
}

/// What holds in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// Where events go, beside the capture.
    pub format: Vec<Format>,
    /// The folder that keeps the stream.
    pub capture: Option<PathBuf>,
    /// When its files are closed, by size.
    pub capture_file_size: Size,
    /// When they are closed, by age.
    pub capture_file_age: Time,
    /// What all of them may take.
    pub capture_size: Size,
    /// These ports only, unless there are none.
    pub port: Vec<NonZeroU16>,
    /// Not these.
    pub ignore_port: Vec<NonZeroU16>,
    /// These units only, unless there are none.
    pub unit: Vec<Glob>,
    /// Not these.
    pub ignore_unit: Vec<Glob>,
    /// How long equal failures are counted together.
    pub storm_window: Time,
    /// How long one refusal may be looked into.
    pub enrichment_deadline: Deadline,
    /// What else is taken out of command lines.
    pub redact: Vec<Pattern>,
    /// Where metrics are served.
    pub metrics: Option<Listen>,
}

impl From<Layer> for Settings {
    fn from(said: Layer) -> Self {
        let human = || said.capture.is_none().then_some(Format::Human).into_iter().collect();
        Self {
            format: said.format.unwrap_or_else(human),
            capture: said.capture,
            capture_file_size: said.capture_file_size.unwrap_or(Size(64 << 20)),
            capture_file_age: said.capture_file_age.unwrap_or(Time(Duration::from_hours(24))),
            capture_size: said.capture_size.unwrap_or(Size(1 << 30)),
            port: said.port.unwrap_or_default(),
            ignore_port: said.ignore_port.unwrap_or_default(),
            unit: said.unit.unwrap_or_default(),
            ignore_unit: said.ignore_unit.unwrap_or_default(),
            storm_window: said.storm_window.unwrap_or(Time(Duration::from_secs(10))),
            enrichment_deadline: said.enrichment_deadline.unwrap_or(Deadline(enrich::DEADLINE)),
            redact: said.redact.unwrap_or_default(),
            metrics: said.metrics,
        }
    }
}

impl Settings {
    /// What is taken out of command lines.
    pub fn redaction(&self) -> Redaction {
        Redaction::with(self.redact.iter().map(|pattern| pattern.0.clone()).collect())
    }

    /// What only a new start can change: where things go. The rest is taken over by a
    /// running agent.
    pub fn same_outputs(&self, other: &Self) -> bool {
        let outputs = |settings: &Self| {
            let Self { format, capture, metrics, .. } = settings.clone();
            let Self { capture_file_size, capture_file_age, capture_size, .. } = settings.clone();
            (format, capture, metrics, capture_file_size, capture_file_age, capture_size)
        };
        outputs(self) == outputs(other)
    }
}

#[cfg(test)]
mod tests;
