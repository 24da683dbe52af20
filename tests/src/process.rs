//! A child process that is always ended by its own handle, with a time limit for every wait.

use std::{
    fs::{self, DirEntry},
    io::Write as _,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
    },
};

use crate::stream::{Gate, Gated, Manner, Stream, Worth};

/// How long a process has to exit after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A running child.
pub struct Process {
    child: Child,
    /// Identifies the process for good: a pid may be reused.
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    /// Its stdout.
    pub stdout: Arc<Stream>,
    /// Its stderr.
    pub stderr: Arc<Stream>,
}

/// A line for each thread of a process, for a failure's message: its name, its state, the system
/// call that it is in, and where in the kernel.
#[must_use]
pub fn threads(pid: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let line = |thread: DirEntry| {
        let part = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let stat = part("stat");
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| &rest[..rest.len().min(1)]);
        let (comm, call, stack) = (part("comm"), part("syscall"), part("stack"));
        let stack: Vec<_> = stack.lines().map(str::trim).collect();
        format!("{} {state} {} {}\n", comm.trim(), call.trim(), stack.join(" < "))
    };
    threads.map(line).collect()
}

/// How a process's output is read.
pub struct Gates {
    /// Its stdout.
    pub stdout: Gate,
    /// Its stderr.
    pub stderr: Gate,
}

impl Process {
    /// Starts `command` with pipes for all its streams. It gets the signal `on_our_end` when
    /// the calling *thread* ends (prctl(2), PR_SET_PDEATHSIG), so that it cannot outlive the
    /// test even if that is killed.
    pub fn start(command: &mut Command, on_our_end: Signal) -> anyhow::Result<Self> {
        Self::launch(command, on_our_end, Stream::of, Stream::of)
    }

    /// The same with the lines of its stdout alone that are `worth` it.
    pub fn start_keeping(
        command: &mut Command,
        on_our_end: Signal,
        worth: impl FnMut(&str) -> Worth + Send + 'static,
    ) -> anyhow::Result<Self> {
        Self::launch(command, on_our_end, |stdout| Stream::of_some(stdout, worth), Stream::of)
    }

    /// The same with its streams read as the gates say: stdout in this manner from the
    /// beginning, stderr freely.
    pub fn start_gated(
        command: &mut Command,
        on_our_end: Signal,
        stdout: Manner,
    ) -> anyhow::Result<(Self, Gates)> {
        let mut gates = (None, None);
        let process = Self::launch(
            command,
            on_our_end,
            |source| {
                let (gated, gate) = Gated::new(source, stdout);
                gates.0 = Some(gate);
                Stream::of(gated)
            },
            |source| {
                let (gated, gate) = Gated::new(source, Manner::Freely);
                gates.1 = Some(gate);
                Stream::of(gated)
            },
        )?;
        let (Some(stdout), Some(stderr)) = gates else { bail!("both are piped") };
        Ok((process, Gates { stdout, stderr }))
    }

    fn launch(
        command: &mut Command,
        on_our_end: Signal,
        read: impl FnOnce(ChildStdout) -> Arc<Stream>,
        hear: impl FnOnce(ChildStderr) -> Arc<Stream>,
    ) -> anyhow::Result<Self> {
        // SAFETY: system calls, which are safe between fork and exec. The signals are valid.
        unsafe {
            command.pre_exec(move || {
                // Ignored in what a shell runs in the background or nohup(1) runs.
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(set_parent_process_death_signal(Some(on_our_end))?)
            });
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {command:?}"))?;
        Ok(Self {
            // The child is not reaped yet, so its id is still its own.
            pidfd: pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?,
            stdin: child.stdin.take(),
            stdout: read(child.stdout.take().context("stdout is piped")?),
            stderr: hear(child.stderr.take().context("stderr is piped")?),
            child,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to its stdin.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open until the end");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the child reads its stdin");
    }

    /// Sends it a signal; does nothing once it has ended.
    pub fn signal(&self, signal: Signal) {
        // ESRCH is the only possible error: the process has already exited.
        pidfd_send_signal(&self.pidfd, signal).ok();
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let timeout = Timespec::try_from(timeout).ok()?;
        let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut ended, Some(&timeout)) {}
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, or panics with its output.
    pub fn wait_or_panic(&mut self, timeout: Duration) -> ExitStatus {
        self.wait(timeout).unwrap_or_else(|| {
            panic!("process {} did not end in {timeout:?}\n{}", self.pid(), self.said())
        })
    }

    /// Returns its output so far, for a failure's message.
    #[must_use]
    pub fn said(&self) -> String {
        format!("--- its stdout:\n{}--- its stderr:\n{}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.signal(Signal::TERM);
        if self.wait(GRACE).is_none() {
            self.signal(Signal::KILL);
            self.wait(GRACE);
        }
    }
}

/// The exit code, or the negated number of the signal that ended it.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// Returns a process's resident memory: `VmRSS` (proc_pid_status(5)).
#[must_use]
pub fn resident_kib(pid: u32) -> u64 {
    kib_of(pid, "VmRSS:")
}

/// Returns the most that it ever was: `VmHWM`.
#[must_use]
pub fn most_resident_kib(pid: u32) -> u64 {
    kib_of(pid, "VmHWM:")
}

fn kib_of(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let row = status.lines().find_map(|line| line.strip_prefix(field)).expect("it has memory");
    row.trim_end_matches("kB").trim().parse().expect("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let process = Process::start(&mut Command::new("cat"), Signal::KILL).unwrap();
        let proc = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&proc).exists());
        drop(process);
        assert!(!std::path::Path::new(&proc).exists());
    }

    #[test]
    fn output_and_status_are_had() {
        let mut process = Process::start(
            Command::new("sh").args(["-c", "read a; echo $a; exit 7"]),
            Signal::KILL,
        )
        .unwrap();
        process.tell("hello");
        assert_eq!(code(process.wait_or_panic(GRACE)), 7);
        assert_eq!(process.stdout.wait_for_end(GRACE), "hello\n");
    }
}
