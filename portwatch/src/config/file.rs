//! Reads the file: TOML, with errors that name the line and suggest a correction.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::Layer;
use crate::advice::{Advised, NOT_PERMITTED, USAGE};

/// The default path.
pub const DEFAULT: &str = "/etc/portwatch/config.toml";
/// A larger file was not written by hand.
const LARGEST: u64 = 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("failed to read {}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Its content is invalid.
    #[error("{}:{why}", .path.display())]
    Wrong {
        /// The path.
        path: PathBuf,
        /// The position and the reason.
        why: ParseError,
    },
}

/// Why its text is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {why}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// The error, and what was probably meant.
    pub why: String,
}

impl Advised for ConfigError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } if self.exit_code() == NOT_PERMITTED => {
                "run it as a user who may read the file"
            }
            Self::Io { .. } => "name a regular file of at most 1 MiB with --config",
            Self::Wrong { .. } => {
                "portwatch run --help lists the keys, with two dashes before each"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                NOT_PERMITTED
            }
            _ => USAGE,
        }
    }
}

/// Reads `named`, otherwise the default file, if it exists. Returns the path of the file that
/// was read.
///
/// # Errors
/// A named file cannot be read, or a file is invalid.
pub fn read(named: Option<&Path>) -> Result<(Layer, Option<PathBuf>), ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT));
    let text = match text(path) {
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok((Layer::default(), None));
        }
        text => text.map_err(|source| ConfigError::Io { path: path.to_owned(), source })?,
    };
    let layer = parse(&text);
    let layer = layer.map_err(|why| ConfigError::Wrong { path: path.to_owned(), why })?;
    Ok((layer, Some(path.to_owned())))
}

/// Reads regular files only: the open of a FIFO would block, and the open of a device may have
/// side effects. Links are followed, as a mounted ConfigMap requires.
fn text(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let regular = |about: fs::Metadata| match about.is_file() {
        true => Ok(()),
        false if about.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::other("not a regular file")),
    };
    regular(fs::metadata(path)?)?;
    // The path may have been replaced in the meantime.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    regular(file.metadata()?)?;
    let mut text = String::new();
    if file.take(LARGEST + 1).read_to_string(&mut text)? as u64 > LARGEST {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
}

/// Parses the text of the file.
///
/// # Errors
/// It is not TOML, or contains an unknown key or an invalid value.
pub fn parse(text: &str) -> Result<Layer, ParseError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let message = error.message().lines().next().unwrap_or_default();
        ParseError { line, why: with_suggestion(message) }
    })
}

/// Returns serde's message about an unknown name, with the name that was probably meant.
fn with_suggestion(message: &str) -> String {
    const LIKE: f64 = 0.7;
    let mut names = message.split('`').skip(1).step_by(2);
    let kind = match message {
        message if message.starts_with("unknown field") => "key",
        message if message.starts_with("unknown variant") => "value",
        message => return message.to_owned(),
    };
    let Some(unknown) = names.next() else { return message.to_owned() };
    let mut known: Vec<_> = names.map(|name| (strsim::jaro_winkler(unknown, name), name)).collect();
    known.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut words = format!("unknown {kind} `{unknown}`");
    match known.first() {
        Some((like, name)) if *like >= LIKE => {
            let _ = write!(words, ", did you mean `{name}`?");
        }
        _ => {
            let names: Vec<_> = known.iter().map(|(_, name)| *name).collect();
            let _ = write!(words, "; the known ones are {}", names.join(", "));
        }
    }
    words
}
