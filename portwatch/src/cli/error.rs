//! How a verb fails: heading, causes, hint, exit code.

use std::{error::Error, fmt, io, process::ExitCode};

use super::streams::say;
use crate::{
    advice::{Advised, FAILED, NOT_PERMITTED, USAGE},
    sinks::Kind,
    values::ValueError,
};

/// Why a verb ends early. Only an error with a hint can become one.
#[derive(Debug)]
pub enum Failure {
    /// The reader of the output has closed it, so there is nothing to report.
    Unread,
    /// Something failed.
    Failed {
        /// The error, with its causes.
        error: Box<dyn Error + Send + Sync>,
        /// What to do.
        hint: &'static str,
        /// The exit code.
        code: u8,
    },
}

impl<E: Advised> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed { hint: error.hint(), code: error.exit_code(), error: Box::new(error) }
    }
}

impl fmt::Display for Failure {
    /// Prints the error on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread => f.write_str("the reader of the results closed the pipe"),
            Self::Failed { error, hint, .. } => {
                f.write_str(error.to_string().trim_end())?;
                causes(&**error).try_for_each(|cause| write!(f, ": {cause}"))?;
                write!(f, "; {hint}")
            }
        }
    }
}

/// Returns the causes of an error, the nearest first.
fn causes(error: &dyn Error) -> impl Iterator<Item = String> {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.map(|cause| cause.to_string().trim_end().to_owned())
}

/// A usage error that clap cannot detect.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// There is no input: stdin is a terminal.
    #[error("nothing to read")]
    NothingToRead,
    /// Limits of a capture are set, but no capture.
    #[error("`{0}` limits a capture, but there is no capture")]
    NothingToLimit(&'static str),
    /// A pattern for secrets is invalid, so a secret might be printed.
    #[error("PORTWATCH_REDACT: {0}")]
    NotRedacted(ValueError),
    /// A time is invalid.
    #[error("PORTWATCH_OUTCOME_WINDOW: {0}")]
    NoWindow(ValueError),
    /// A difference has only other output formats.
    #[error("--diff cannot print {0}")]
    NoDiffAs(Kind),
    /// The command is missing.
    #[error("no command given")]
    NoCommand,
}

impl Advised for UsageError {
    fn hint(&self) -> &'static str {
        match self {
            Self::NothingToRead => "name files or a capture directory, or use --journal",
            Self::NothingToLimit(_) => "name its directory with --capture",
            Self::NotRedacted(_) => {
                "correct the pattern, or unset the variable; nothing was shown or started"
            }
            Self::NoWindow(_) => {
                "give a number with a unit, for example 10s, or unset the variable"
            }
            Self::NoDiffAs(_) => "use --format human or json",
            Self::NoCommand => "name the command and its arguments",
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}

/// An error in the input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Some lines are not records. All other lines were read.
    #[error("{0} lines could not be read")]
    BadLines(u64),
}

impl Advised for InputError {
    fn hint(&self) -> &'static str {
        "the messages above name the lines and the reasons; all other lines were read"
    }
}

/// A network namespace that cannot be examined.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It cannot be entered.
    #[error("cannot enter network namespace `{place}`")]
    Named {
        /// As the user named it.
        place: String,
        /// The error.
        source: io::Error,
    },
    /// It is this process's own.
    #[error("cannot read /proc/self/ns/net")]
    Own(#[source] io::Error),
}

impl Advised for NetnsError {
    fn hint(&self) -> &'static str {
        match (self, self.exit_code()) {
            (_, NOT_PERMITTED) => "run it as root",
            (Self::Named { .. }, _) => "name a pid, a namespace from ip netns list, a file, or all",
            (Self::Own(_), _) => "mount /proc: sockets and processes cannot be examined without it",
        }
    }

    fn exit_code(&self) -> u8 {
        let (Self::Named { source, .. } | Self::Own(source)) = self;
        match (source.kind(), self) {
            (io::ErrorKind::PermissionDenied, _) => NOT_PERMITTED,
            (_, Self::Named { .. }) => USAGE,
            (_, Self::Own(_)) => FAILED,
        }
    }
}

/// The operating system has rejected a request of a verb.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}")]
pub struct SystemError {
    step: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl SystemError {
    /// Wraps the error of `step`.
    pub fn at<E: Into<Box<dyn Error + Send + Sync>>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { step, source: source.into() }
    }
}

impl Advised for SystemError {
    fn hint(&self) -> &'static str {
        "check the limits of open files, processes and memory (ulimit -a, and the unit's); \
         PORTWATCH_LOG=debug prints more"
    }
}

/// A result cannot be written to stdout.
#[derive(Debug, thiserror::Error)]
#[error("failed to write to stdout")]
struct ResultError {
    source: io::Error,
}

impl Advised for ResultError {
    fn hint(&self) -> &'static str {
        "free space on the output's disk, or write the output elsewhere"
    }
}

/// Returns the failure for a result that cannot be written: `Unread` if the reader has closed
/// the output.
pub fn unwritten(error: impl Into<io::Error>) -> Failure {
    let source = error.into();
    match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::Unread,
        _ => ResultError { source }.into(),
    }
}

/// Returns the exit code of a verb that only has to write its result. The exit code is the
/// answer, so it stays the same if the reader has closed the output.
pub fn ended(code: impl Into<ExitCode>, written: io::Result<()>) -> Result<ExitCode, Failure> {
    match written.map_err(unwritten) {
        Ok(()) | Err(Failure::Unread) => Ok(code.into()),
        Err(failure) => Err(failure),
    }
}

/// Prints the failure on stderr and returns its exit code.
pub fn report(failure: &Failure) -> ExitCode {
    let Failure::Failed { error, hint, code } = failure else { return ExitCode::SUCCESS };
    let mut text = format!("error: {}", error.to_string().trim_end());
    for cause in causes(&**error) {
        text += &format!("\ncaused by: {cause}");
    }
    say(format_args!("{text}\nhint: {hint}"));
    ExitCode::from(*code)
}
