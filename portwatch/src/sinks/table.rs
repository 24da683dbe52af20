//! The settings of a sink, and which sinks exclude each other.

use std::{io::Write, os::fd::AsFd, path::PathBuf, sync::Arc};

use anstream::ColorChoice;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::{
    Entry, Format, Keys, Kind, Placed,
    capture::{CaptureError, Limits},
    gate::{Gate, Gated},
};
use crate::{
    advice::{Advised, USAGE},
    values::{Size, Time},
};

/// A sink with the keys of its type: a `[[sink]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table(#[serde(deserialize_with = "fitting")] Keys);

/// Parses keys that match the type. An error is about the whole table, so it has the line of
/// the table.
fn fitting<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
    let keys = Keys::deserialize(deserializer)?;
    let kind = keys.kind;
    let Entry { needs, takes, .. } = kind.entry();
    let Ok(Value::Object(said)) = serde_json::to_value(&keys) else {
        return Err(de::Error::custom("it is not UTF-8"));
    };
    let is_said = |key: &str| said.get(key).is_some_and(|value| !value.is_null());
    if let Some(missing) = needs.iter().find(|key| !is_said(key)) {
        let why = format_args!("a sink of type `{kind}` needs the key `{missing}`");
        return Err(de::Error::custom(why));
    }
    let fits = |key: &str| key == "type" || needs.iter().chain(takes).any(|&known| known == key);
    match said.keys().find(|key| is_said(key) && !fits(key)) {
        Some(key) => {
            let why = format_args!("a sink of type `{kind}` has no key `{key}`");
            Err(de::Error::custom(why))
        }
        None => Ok(keys),
    }
}

impl From<Format> for Table {
    fn from(format: Format) -> Self {
        Self(Keys::of(format.into()))
    }
}

impl Table {
    /// Creates the table of a capture.
    pub fn capture(folder: PathBuf, file_size: Size, file_age: Time, size: Size) -> Self {
        Self(Keys {
            folder: Some(folder),
            file_size: Some(file_size),
            file_age: Some(file_age),
            size: Some(size),
            ..Keys::of(Kind::Capture)
        })
    }

    /// Returns its type.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Opens the sink. A sink for stdout writes to `out`.
    ///
    /// # Errors
    /// Its output cannot be used.
    pub fn open<W: Write + AsFd + Send + 'static>(
        &self,
        out: W,
        colour: ColorChoice,
    ) -> Result<Placed, OpenError> {
        let gate = Arc::<Gate>::default();
        let sink = self.0.open_sink(Gated::new(out, Arc::clone(&gate)), colour)?;
        Ok(Placed { place: self.kind().entry().place, sink, gate })
    }

    /// Checks whether both can be used together.
    fn beside(&self, other: &Self) -> Result<(), Clash> {
        let (one, other) = (&self.0, &other.0);
        match &one.folder {
            None if one.kind == other.kind => Err(Clash::Twice(one.kind)),
            Some(folder) if one.folder == other.folder => Err(Clash::OneFolder(folder.clone())),
            _ if one.kind.entry().is_on_stdout && other.kind.entry().is_on_stdout => {
                Err(Clash::TwiceOnStdout(one.kind, other.kind))
            }
            _ => Ok(()),
        }
    }
}

impl Keys {
    /// Creates keys with only a type.
    fn of(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Returns the limits of a capture.
    pub(super) fn limits(&self) -> Limits {
        let Self { file_size, file_age, size, .. } = *self;
        Limits {
            file_size: file_size.map_or(Limits::DEFAULT.file_size, |Size(bytes)| bytes),
            file_age: file_age.map_or(Limits::DEFAULT.file_age, |Time(age)| age),
            total_size: size.map_or(Limits::DEFAULT.total_size, |Size(bytes)| bytes),
        }
    }
}

/// Checks that all sinks can be used together: each type once, a capture once for each
/// directory, and one sink on stdout.
///
/// # Errors
/// The first two sinks that cannot be used together.
pub fn check(sinks: &[Table]) -> Result<(), Clash> {
    for (at, other) in sinks.iter().enumerate() {
        sinks.iter().take(at).try_for_each(|one| one.beside(other))?;
    }
    Ok(())
}

/// Sinks that exclude each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Their outputs would be mixed.
    #[error("{0} and {1} both write to stdout")]
    TwiceOnStdout(Kind, Kind),
    /// Each event would be written twice.
    #[error("{0} is named twice")]
    Twice(Kind),
    /// They would remove each other's files.
    #[error("two captures use the directory {}", .0.display())]
    OneFolder(PathBuf),
}

impl Advised for Clash {
    fn hint(&self) -> &'static str {
        match self {
            Self::TwiceOnStdout(..) => {
                "choose one of them; journald and --capture do not use stdout"
            }
            Self::Twice(_) => "name each sink once: by a flag or key, or in a [[sink]] table",
            Self::OneFolder(_) => "give each capture a directory of its own",
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}

/// Why a sink cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

impl Advised for OpenError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Capture(error) => error.hint(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Capture(error) => error.exit_code(),
        }
    }
}
