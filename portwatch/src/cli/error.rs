//! How an error is told: heading, causes, hint, exit code.

use std::{io::ErrorKind, process::ExitCode};

use super::{man::ManError, target::TargetError};
use crate::{
    capture::CaptureError, config::file::ConfigError, exec::child::StartError, kernel::KernelError,
    metrics::server::ServeError, replay::SourceError, sinks::Format, wait::WaitError,
};

/// What clap cannot see to be wrong.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Two outputs would be mixed.
    #[error("{} and {} both go to stdout", .0.name(), .1.name())]
    TwiceOnStdout(Format, Format),
    /// There is no input, and nobody types events.
    #[error("nothing to read")]
    NothingToRead,
    /// Limits of a capture that there is not.
    #[error("`{0}` is about a capture, and there is none")]
    NothingToLimit(&'static str),
    /// A secret might be shown.
    #[error("PORTWATCH_REDACT: {0}")]
    NotRedacted(String),
    /// A difference has other forms.
    #[error("a difference cannot be shown as {}", .0.name())]
    NoDiffAs(Format),
}

/// What was read is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// All others were read.
    #[error("{0} lines could not be read")]
    BadLines(u64),
}

/// A network namespace that cannot be looked into.
#[derive(Debug, thiserror::Error)]
#[error("network namespace `{place}` cannot be entered")]
pub struct NetnsError {
    /// As it was named.
    pub place: String,
    /// The answer.
    pub source: std::io::Error,
}

/// Prints the error on stderr and gives the exit code for its kind.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("caused by: {}", cause.to_string().trim_end());
    }
    let (code, hint) = classify(error);
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(code)
}

/// Exit code and hint, by kind.
fn classify(error: &anyhow::Error) -> (u8, Option<&'static str>) {
    if let Some(usage) = error.downcast_ref::<UsageError>() {
        return match usage {
            UsageError::TwiceOnStdout(..) => {
                (2, Some("choose one of them; journald and a capture go elsewhere"))
            }
            UsageError::NothingToRead => {
                (2, Some("name files or the folder of a capture, or use --journal"))
            }
            UsageError::NothingToLimit(_) => (2, Some("name its folder with --capture")),
            UsageError::NotRedacted(_) => (
                2,
                Some("correct the pattern, or unset the variable; nothing was shown or started"),
            ),
            UsageError::NoDiffAs(_) => (2, Some("use --format human or json")),
        };
    }
    if let Some(config) = error.downcast_ref::<ConfigError>() {
        return match config {
            ConfigError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                (4, Some("run it as the user who may read the file"))
            }
            ConfigError::Io { .. } => (2, Some("name a file that can be read with --config")),
            ConfigError::Wrong { .. } => {
                (2, Some("portwatch run --help has the keys, without the dashes"))
            }
        };
    }
    if let Some(serve) = error.downcast_ref::<ServeError>() {
        return match serve.source.kind() {
            ErrorKind::AddrInUse => (1, Some("portwatch explain says who has the port")),
            _ => (1, Some("name an address of this machine, or unix: and a path that can be made")),
        };
    }
    if let Some(netns) = error.downcast_ref::<NetnsError>() {
        return match netns.source.kind() {
            ErrorKind::PermissionDenied => (4, Some("run it as root")),
            _ => (2, Some("name a process, a namespace of ip netns list, a file, or all")),
        };
    }
    if let Some(target) = error.downcast_ref::<TargetError>() {
        return (2, Some(target.hint()));
    }
    if let Some(capture) = error.downcast_ref::<CaptureError>() {
        return (
            1,
            Some(match capture {
                CaptureError::Io { .. } => {
                    "name a folder that can be made or written with --capture"
                }
                CaptureError::Strange { .. } => {
                    "name a folder that is not there yet, or is empty: a capture removes files"
                }
                CaptureError::NotOwn { .. } => "name a folder of the user's that portwatch runs as",
                CaptureError::InUse(_) => "give each agent a folder of its own",
            }),
        );
    }
    if let Some(InputError::BadLines(_)) = error.downcast_ref() {
        return (1, Some("the messages above say which, and why; all others were read"));
    }
    if error.downcast_ref::<SourceError>().is_some() {
        return (1, Some("name files of a capture, or its folder"));
    }
    if error.downcast_ref::<ManError>().is_some() {
        return (1, Some("name a folder that can be made or written"));
    }
    if let Some(start) = error.downcast_ref::<StartError>() {
        return match start.source.kind() {
            ErrorKind::NotFound => (127, Some("name a program that is in PATH, or its path")),
            _ => (126, Some("name a program that may be run, and can be on this machine")),
        };
    }
    if error.downcast_ref::<WaitError>().is_some() {
        return (1, Some("portwatch doctor shows what this kernel and these rights allow"));
    }
    match error.downcast_ref::<KernelError>() {
        Some(KernelError::NotPermitted { .. }) => (
            4,
            Some(
                "run it as root, or give it CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and, to name \
                  other users' processes, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            ),
        ),
        Some(KernelError::NoBtf { .. }) => (
            1,
            Some(
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y, as every distribution's \
                  has been since 2021, and /sys must be mounted",
            ),
        ),
        Some(KernelError::Btf(_)) => {
            (1, Some("kernels from 5.10 on are supported; portwatch doctor shows what was found"))
        }
        Some(KernelError::NoHooks { .. }) => (
            1,
            Some(
                "mount a cgroup2 hierarchy (mount -t cgroup2 none /sys/fs/cgroup), or use a \
                  kernel that permits fexit programs; portwatch doctor shows what was found",
            ),
        ),
        Some(KernelError::NotThisSet { .. }) => (
            1,
            Some(
                "--hooks auto takes what this kernel permits; portwatch doctor shows what that is",
            ),
        ),
        Some(KernelError::Aya { .. }) => {
            (1, Some("portwatch doctor shows what this kernel and these rights allow"))
        }
        None => (1, None),
    }
}
