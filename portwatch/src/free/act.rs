//! Does what a step says: the manager is asked by its own API, by its own command where it has
//! none, and what nobody manages gets a signal.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _, Seek as _},
    process::{Command, Stdio},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    plan::Step,
    signals::{SignalError, Target},
};
use crate::{
    diagnose::act::Act,
    enrich::{
        containers::{self, Api, StopError},
        host::Host,
        managers::{Failure, Managers},
    },
    event::action::By,
    evidence::{Process, Sigterm},
};

/// Bytes of a command's output that are kept.
const MOST_SAID: u64 = 4096;

/// What a step did.
#[derive(Debug)]
pub struct Done {
    /// Who did it.
    pub by: By,
    /// What was done, as a sentence without a full stop.
    pub what: String,
    /// The processes that got a signal.
    pub targets: Vec<Target>,
}

/// Why a step was not done, or not whole.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// A signal could not be sent.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The process ignores SIGTERM.
    #[error("{comm}[{pid}] ignores SIGTERM: only --kill-after ends it")]
    Ignores {
        /// The pid.
        pid: u32,
        /// The name.
        comm: String,
    },
    /// systemd refuses.
    #[error("{unit}: {why}")]
    Systemd {
        /// The unit.
        unit: String,
        /// Its answer.
        why: Failure,
    },
    /// The job of systemd did not succeed.
    #[error("{unit}: the stop job ended with `{result}`")]
    Job {
        /// The unit.
        unit: String,
        /// The result (`org.freedesktop.systemd1(5)`, JobRemoved).
        result: String,
    },
    /// The engine refuses.
    #[error("{0}")]
    Engine(#[from] StopError),
    /// The command cannot be started, or waited for.
    #[error("failed to run `{command}`: {source}")]
    Run {
        /// The command.
        command: String,
        /// The error.
        source: io::Error,
    },
    /// The command failed.
    #[error("`{command}` ended with {status}: {said}")]
    Failed {
        /// The command.
        command: String,
        /// Its status, in words.
        status: String,
        /// The beginning of its output.
        said: String,
    },
}

impl ActError {
    /// Returns whether a right is missing.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Signal(error) => error.is_denied(),
            Self::Systemd { why, .. } => matches!(why, Failure::Denied { .. }),
            Self::Engine(error) => error.is_denied(),
            _ => false,
        }
    }
}

/// Does it, and returns when the manager says that it is done, or the signals are sent.
/// `kills` says that SIGKILL may follow.
///
/// # Errors
/// It was not done, or only a part of it: then the message says what.
pub fn carry_out(
    step: &Step,
    inodes: &BTreeSet<u64>,
    kills: bool,
    deadline: Instant,
) -> Result<Done, ActError> {
    let host = Host::current();
    match &step.act {
        Act::End(processes) => end(&host, processes, inodes, kills),
        Act::EndLoop { shell, process } => end_loop(&host, *shell, process, inodes, kills),
        Act::StopUnits { owner, units } => match stop_units(*owner, units, deadline) {
            // A user's bus is closed to root, and its own socket to the D-Bus library: systemctl
            // enters it as that user. A job that has begun is the same job to it.
            Err(ActError::Systemd {
                why: Failure::Unreachable { .. } | Failure::Broken { .. },
                ..
            }) => run(&step.command, deadline),
            done => done,
        },
        Act::StopContainer { engine, user, container } => {
            let api = Api { engine: *engine, user: *user };
            match containers::stop(&host, api, container, deadline) {
                Ok(()) => Ok(Done {
                    by: By::Engine,
                    what: format!("{} stopped container {container}", engine.spec().name),
                    targets: Vec::new(),
                }),
                Err(error) if error.is_absent() => run(&step.command, deadline),
                Err(error) => Err(error.into()),
            }
        }
        Act::Command => run(&step.command, deadline),
    }
}

/// All are opened before the first gets a signal, so that nothing is done by halves.
fn end(
    host: &Host,
    processes: &[Process],
    inodes: &BTreeSet<u64>,
    kills: bool,
) -> Result<Done, ActError> {
    let mut targets = Vec::new();
    for process in processes {
        targets.extend(opened(host, process, inodes, kills)?);
    }
    terminate(targets)
}

fn opened(
    host: &Host,
    process: &Process,
    inodes: &BTreeSet<u64>,
    kills: bool,
) -> Result<Option<Target>, ActError> {
    let target = Target::open(host, process, inodes)?;
    match target {
        Some(Target { pid, comm, .. }) if process.sigterm == Some(Sigterm::Ignored) && !kills => {
            Err(ActError::Ignores { pid, comm })
        }
        target => Ok(target),
    }
}

fn end_loop(
    host: &Host,
    shell: u32,
    process: &Process,
    inodes: &BTreeSet<u64>,
    kills: bool,
) -> Result<Done, ActError> {
    let Some(child) = opened(host, process, inodes, kills)? else { return terminate(Vec::new()) };
    let shell = Target::parent(host, shell, &child)?;
    terminate(shell.into_iter().chain([child]).collect())
}

fn terminate(targets: Vec<Target>) -> Result<Done, ActError> {
    for target in &targets {
        target.terminate()?;
    }
    let names = targets.iter().map(|target| format!("{}[{}]", target.comm, target.pid));
    let what = match targets.len() {
        0 => "the processes had exited by themselves".to_owned(),
        _ => format!("sent SIGTERM to {}", names.collect::<Vec<_>>().join(", ")),
    };
    Ok(Done { by: By::Signal, what, targets })
}

fn stop_units(owner: Option<u32>, units: &[String], deadline: Instant) -> Result<Done, ActError> {
    let managers = Managers::current();
    let results = managers.stop(owner, units, deadline).map_err(|why| {
        let unit = units.first().cloned().unwrap_or_default();
        ActError::Systemd { unit, why }
    })?;
    for (unit, result) in units.iter().zip(results) {
        if result != "done" {
            return Err(ActError::Job { unit: unit.clone(), result });
        }
    }
    let what = format!("systemd stopped {}", units.join(", "));
    Ok(Done { by: By::Systemd, what, targets: Vec::new() })
}

/// Runs a command in a shell until its end.
fn run(command: &str, deadline: Instant) -> Result<Done, ActError> {
    let failed = |source: io::Error| ActError::Run { command: command.to_owned(), source };
    let output =
        memfd_create("output", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut output = File::from(output);
    let copy = || output.try_clone().map(Stdio::from).map_err(failed);
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(copy()?)
        .stderr(copy()?)
        .spawn()
        .map_err(failed)?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let pidfd = pidfd.map_err(|errno| failed(errno.into()))?;
    let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    let _ = rustix::io::retry_on_intr(|| poll(&mut ended, left.as_ref()));
    let mut said = String::new();
    let status = child.try_wait().map_err(failed)?;
    let mut kept = Vec::new();
    if output.rewind().is_ok() && (&mut output).take(MOST_SAID).read_to_end(&mut kept).is_ok() {
        said = String::from_utf8_lossy(&kept).trim().to_owned();
    }
    match status {
        Some(status) if status.success() => {
            Ok(Done { by: By::Command, what: format!("ran {command}"), targets: Vec::new() })
        }
        Some(status) => {
            let status = status.to_string();
            Err(ActError::Failed { command: command.to_owned(), status, said })
        }
        None => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "it had not ended when the time was up, and goes on",
        ))),
    }
}
