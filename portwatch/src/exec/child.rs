//! Runs the command. It starts with this process's environment and limits, and receives this
//! process's signals. This process ends in the same way as the command.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use nix::{sys::signal::kill, unistd::Pid};
use rustix::process::{
    Resource, Rlimit, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal,
    setrlimit, wait,
};

use super::{
    descent,
    guardian::{self, Guardian},
    signals::{Received, Signals},
};
use crate::advice::Advised;

/// The command could not be started.
#[derive(Debug, thiserror::Error)]
#[error("failed to start {}", .program.display())]
pub struct StartError {
    /// The program.
    pub program: OsString,
    /// The error.
    pub source: io::Error,
}

impl Advised for StartError {
    fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::NotFound => "name a program in PATH, or its path",
            _ => "name an executable file for this machine's architecture",
        }
    }

    /// Returns the exit code by the convention of shells.
    fn exit_code(&self) -> u8 {
        match self.source.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        }
    }
}

/// A running command. Its pid cannot be reused before this process has reaped it.
pub struct Child {
    pid: Pid,
    guardian: Option<Guardian>,
    /// How many guardians may still be started.
    guardians_left: u8,
}

/// How often a killed guardian is replaced.
const GUARDIANS: u8 = 3;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
}

impl End {
    /// Returns the end of a command that was killed by this signal.
    pub fn of_signal(signal: nix::sys::signal::Signal) -> Self {
        Self::Killed(u8::try_from(signal as i32).unwrap_or(u8::MAX))
    }

    /// Returns whether the command succeeded.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl From<End> for ExitCode {
    /// Returns the exit code by the convention of shells: 128 plus the signal's number.
    fn from(end: End) -> Self {
        match end {
            End::Exited(status) => status.into(),
            End::Killed(signal) => signal.saturating_add(128).into(),
        }
    }
}

impl Child {
    /// Starts `program` in this process group. Its limit of locked memory is the one that this
    /// process had before it loaded maps (up to 5.10 they count). When this process is killed,
    /// the command and its descendants are killed too: a user who kills this process means the
    /// command, and a server that remained would still have its port open. A guardian does
    /// this. Without a guardian the kernel does it, but only for the command itself and only
    /// until the command changes its user.
    ///
    /// # Errors
    /// There is no such program, or it cannot be run.
    pub fn start(
        program: &OsString,
        arguments: &[OsString],
        signals: &Signals,
        locked_memory: Rlimit,
    ) -> Result<Self, StartError> {
        let error = |source| StartError { program: program.clone(), source };
        let (mask, parent) = (signals.before(), Some(getpid()));
        let guardian = guardian();
        let words = guardian.as_ref().map(Guardian::words).transpose().map_err(error)?;
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: system calls, which are safe between fork and exec; no memory is allocated.
        unsafe {
            command.pre_exec(move || {
                mask.thread_set_mask()?;
                setrlimit(Resource::Memlock, locked_memory)?;
                match &words {
                    Some(words) => guardian::tell(words, std::process::id())?,
                    None => set_parent_process_death_signal(Some(Signal::KILL))?,
                }
                // If the parent exited before this, the kernel sends no signal.
                if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            });
        }
        match command.spawn() {
            Ok(child) => {
                let pid = Pid::from_raw(child.id().cast_signed());
                Ok(Self { pid, guardian, guardians_left: GUARDIANS })
            }
            Err(source) => {
                guardian.into_iter().for_each(Guardian::release);
                Err(error(source))
            }
        }
    }

    /// Waits until the command ends. Meanwhile passes signals on to it, and reaps orphans that
    /// have become this process's children.
    ///
    /// # Errors
    /// Signals cannot be read, or children cannot be reaped.
    pub async fn end(mut self, signals: &Signals) -> io::Result<End> {
        loop {
            // This is checked before the first signal too, because the command may have exited
            // by now.
            if let Some(end) = self.reap()? {
                self.guardian.into_iter().for_each(Guardian::release);
                return Ok(end);
            }
            self.pass_on(signals.next().await?);
        }
    }

    /// Reaps every child that has exited.
    fn reap(&mut self) -> io::Result<Option<End>> {
        while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
            if pid.as_raw_pid() != self.pid.as_raw() {
                self.replace_guardian(pid.as_raw_pid().cast_unsigned());
                continue;
            }
            let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
            let exited = status.exit_status().map(|status| End::Exited(byte(status)));
            let killed = || status.terminating_signal().map(|signal| End::Killed(byte(signal)));
            if let Some(end) = exited.or_else(killed) {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Starts another guardian if `ended` was the guardian.
    fn replace_guardian(&mut self, ended: u32) {
        if self.guardian.as_ref().is_none_or(|guardian| guardian.pid() != ended) {
            return;
        }
        tracing::warn!("the guardian of the command was killed; starting another");
        self.guardian = (self.guardians_left > 0).then(guardian).flatten();
        self.guardians_left = self.guardians_left.saturating_sub(1);
        let words = self.guardian.as_ref().map(Guardian::words);
        let told = words.map(|words| guardian::tell(words?, self.pid.as_raw().cast_unsigned()));
        if let Some(Err(error)) = told {
            tracing::warn!(%error, "the command would survive if portwatch is killed");
        }
    }

    /// Passes a signal on. The command has already received the signals that the kernel sent to
    /// the terminal's whole process group. A signal that the command sent to its own group
    /// would return to it.
    fn pass_on(&self, received: Received) {
        let Some(sender) = received.sender else { return };
        if received.signal == nix::sys::signal::SIGCHLD || descent::is_ours(sender) {
            return;
        }
        if let Err(error) = kill(self.pid, received.signal) {
            tracing::warn!(%error, "{} could not be passed on to the command", received.signal);
        }
    }
}

/// Starts a guardian, if possible.
fn guardian() -> Option<Guardian> {
    let started = Guardian::start();
    started
        .inspect_err(|error| {
            tracing::warn!(%error, "no guardian: processes that change user may survive portwatch");
        })
        .ok()
}
