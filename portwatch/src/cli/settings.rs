//! Merges the layers of the configuration.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgMatches, parser::ValueSource};
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{Failure, UsageError};
use crate::{
    config::{Layer, Settings, file},
    redact::Redaction,
    sinks,
    values::{Pattern, ValueError},
};

/// The key of the tables.
const SINK: &str = "sink";

/// Options of `run` and of `config show`.
#[derive(Clone, clap::Args)]
pub struct Given {
    /// Read this file [default: /etc/portwatch/config.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "PORTWATCH_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    said: Layer,
}

/// The effective settings, and their sources.
pub struct Configured {
    /// The effective settings.
    pub settings: Settings,
    /// The file that was read.
    pub path: Option<PathBuf>,
    file: Layer,
}

impl Given {
    /// Reads the file, and applies the options over it.
    ///
    /// # Errors
    /// The file cannot be read, or the file or an option has an invalid value.
    pub fn read(&self) -> Result<Configured, Failure> {
        let (file, path) = file::read(self.config.as_deref())?;
        let settings = Settings::from(self.said.clone().over(file.clone()));
        sinks::check(&settings.sinks())?;
        if settings.capture.is_none() {
            let Layer { capture_file_size, capture_file_age, capture_size, .. } = &self.said;
            let limit = [
                ("capture-file-size", capture_file_size.is_some()),
                ("capture-file-age", capture_file_age.is_some()),
                ("capture-size", capture_size.is_some()),
            ];
            if let Some((name, _)) = limit.into_iter().find(|(_, said)| *said) {
                return Err(UsageError::NothingToLimit(name).into());
            }
        }
        Ok(Configured { settings, path, file })
    }
}

/// Returns what is redacted in command lines, for verbs that have no other settings: from the
/// environment, otherwise from the file. It must be called before anything is printed or
/// started.
///
/// # Errors
/// One of them is invalid, so a secret might be printed.
pub fn redaction() -> Result<Redaction, Failure> {
    let named = std::env::var_os("PORTWATCH_CONFIG").filter(|path| !path.is_empty());
    let (file, _) = file::read(named.map(PathBuf::from).as_deref())?;
    let said = std::env::var_os("PORTWATCH_REDACT").map(pattern).transpose()?;
    let said = Layer { redact: said.map(|pattern| vec![pattern]), ..Layer::default() };
    Ok(Settings::from(said.over(file)).redaction())
}

/// Returns how long to wait for outcomes, for verbs that have no option for it: from the
/// environment and the file.
///
/// # Errors
/// The file cannot be read, or the time is invalid.
pub fn outcome_window() -> Result<Duration, Failure> {
    let named = std::env::var_os("PORTWATCH_CONFIG").filter(|path| !path.is_empty());
    let (file, _) = file::read(named.map(PathBuf::from).as_deref())?;
    let said = std::env::var_os("PORTWATCH_OUTCOME_WINDOW").map(|said| {
        let text = said.into_string().map_err(|_| ValueError::NotUtf8);
        text.and_then(|text| text.parse()).map_err(UsageError::NoWindow)
    });
    let said = Layer { outcome_window: said.transpose()?, ..Layer::default() };
    Ok(Settings::from(said.over(file)).outcome_window.0)
}

fn pattern(said: OsString) -> Result<Pattern, UsageError> {
    let text = said.into_string().map_err(|_| ValueError::NotUtf8);
    text.and_then(|text| text.parse()).map_err(UsageError::NotRedacted)
}

impl Configured {
    /// Returns a line of TOML for each key, with the source of its value, and a table for each
    /// sink that has one.
    ///
    /// # Errors
    /// A value cannot be written as TOML. No such value is known.
    pub fn show(&self, given: &ArgMatches) -> Result<String, serde_json::Error> {
        let file = fields(&self.file)?;
        let from = |key: &str| match given.value_source(&key.replace('-', "_")) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            _ if file.get(key).is_some_and(|value| !value.is_null()) => "file",
            _ => "default",
        };
        let line = |(key, value): (String, Value)| {
            let said = match value {
                Value::Null => format!("# {key} is not set"),
                // Texts, numbers and lists of them have the same form in JSON and in TOML.
                value => format!("{key} = {value}"),
            };
            format!("{said:<40} # {}\n", from(&key))
        };
        let mut keys = fields(&self.settings)?;
        keys.remove(SINK);
        let mut text: String = keys.into_iter().map(line).collect();
        // All keys after the header of a table belong to that table.
        for sink in &self.settings.sink {
            let head = format!("[[{SINK}]]");
            text += &format!("\n{head:<40} # file\n");
            let said = fields(sink)?.into_iter().filter(|(_, value)| !value.is_null());
            text.extend(said.map(|(key, value)| format!("{key} = {value}\n")));
        }
        Ok(text)
    }
}

fn fields(value: &impl Serialize) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::to_value(value)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}
