//! A sink as it is set, and which can be had together.

use std::{io::Write, os::fd::AsFd, path::PathBuf};

use anstream::ColorChoice;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::{
    Entry, Format, Keys, Kind, Placed,
    capture::{CaptureError, Limits},
};
use crate::{
    advice::{Advised, USAGE},
    values::{Size, Time},
};

/// A sink with keys that one of its kind has; what a `[[sink]]` table says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table(#[serde(deserialize_with = "fitting")] Keys);

/// Reads keys that fit the type. An error is about the table, so it has the table's line.
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
    /// A capture.
    pub fn capture(folder: PathBuf, file_size: Size, file_age: Time, size: Size) -> Self {
        Self(Keys {
            folder: Some(folder),
            file_size: Some(file_size),
            file_age: Some(file_age),
            size: Some(size),
            ..Keys::of(Kind::Capture)
        })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Opens it; one that would write to stdout writes to `out`.
    ///
    /// # Errors
    /// Its destination cannot be used.
    pub fn open<W: Write + AsFd + Send + 'static>(
        &self,
        out: W,
        colour: ColorChoice,
    ) -> Result<Placed, OpenError> {
        Ok((self.kind().entry().place, self.0.open_sink(out, colour)?))
    }

    /// Whether both can be had.
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
    /// No others than the type.
    fn of(kind: Kind) -> Self {
        Self { kind, folder: None, file_size: None, file_age: None, size: None }
    }

    /// What a capture keeps.
    pub(super) fn limits(&self) -> Limits {
        let Self { file_size, file_age, size, .. } = *self;
        Limits {
            file_size: file_size.map_or(Limits::DEFAULT.file_size, |Size(bytes)| bytes),
            file_age: file_age.map_or(Limits::DEFAULT.file_age, |Time(age)| age),
            total_size: size.map_or(Limits::DEFAULT.total_size, |Size(bytes)| bytes),
        }
    }
}

/// Whether all can be had together: each once, a capture once for each folder, and one on
/// stdout.
///
/// # Errors
/// The first two that cannot.
pub fn check(sinks: &[Table]) -> Result<(), Clash> {
    for (at, other) in sinks.iter().enumerate() {
        sinks.iter().take(at).try_for_each(|one| one.beside(other))?;
    }
    Ok(())
}

/// Sinks that cannot be had together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// They would be mixed.
    #[error("{0} and {1} both write to stdout")]
    TwiceOnStdout(Kind, Kind),
    /// Nobody wants each event twice.
    #[error("{0} is named twice")]
    Twice(Kind),
    /// They would remove each other's files.
    #[error("two captures are to be kept in {}", .0.display())]
    OneFolder(PathBuf),
}

impl Advised for Clash {
    fn hint(&self) -> &'static str {
        match self {
            Self::TwiceOnStdout(..) => {
                "choose one of them; journald and --capture do not use stdout"
            }
            Self::Twice(_) => "name each sink once: by a flag or key, or in a [[sink]] table",
            Self::OneFolder(_) => "give each capture a folder of its own",
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
