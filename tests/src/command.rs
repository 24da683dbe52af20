//! One run of `portwatch` to its end: its output and its exit code.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    process::Command,
};

use rustix::process::Signal;

use crate::{
    netns::Netns,
    patience,
    process::{Process, code},
    programs,
};

/// The result of a run.
#[must_use]
pub struct Said {
    /// The arguments, for a failure's message.
    pub arguments: Vec<String>,
    /// Its exit code; a negative signal number if a signal ended it.
    pub code: i32,
    /// Its results.
    pub stdout: String,
    /// Its messages.
    pub stderr: String,
}

/// `portwatch` with `arguments`.
#[must_use]
pub fn portwatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(programs::portwatch().unwrap());
    // A backtrace is for the program's authors; even a user who requests them elsewhere must
    // not get one for a wrong flag.
    command.args(arguments).env("RUST_BACKTRACE", "1");
    command
}

/// A command whose program file must stay open until it is started.
pub struct ByDescriptor {
    command: Command,
    _program: File,
}

impl ByDescriptor {
    /// The command.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }
}

/// Returns `portwatch` run by a user that owns nothing, in `netns` or in the test's namespace.
/// That user may not be able to read the directories above the program, so it is run by its
/// descriptor.
#[must_use]
pub fn as_nobody(netns: Option<&Netns>, arguments: &[&str]) -> ByDescriptor {
    const NOBODY: libc::uid_t = 65534;
    let program = File::open(programs::portwatch().unwrap()).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0("portwatch").args(arguments).current_dir("/").env("RUST_BACKTRACE", "1");
    if let Some(netns) = netns {
        netns.confine(&mut command);
    }
    // SAFETY: two system calls, which are safe between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::setgid(NOBODY) | libc::setuid(NOBODY) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    ByDescriptor { command, _program: program }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Said {
    let mut process = Process::start(command, Signal::KILL).unwrap();
    let status = process.wait_or_panic(patience());
    Said {
        arguments: command.get_args().map(|a| a.to_string_lossy().into_owned()).collect(),
        code: code(status),
        stdout: process.stdout.wait_for_end(patience()),
        stderr: process.stderr.wait_for_end(patience()),
    }
}

impl Said {
    /// Asserts that it failed as every failure must: the documented exit code, one message
    /// that starts with `error:`, a `hint:` that says what to do, nothing on stdout, and no
    /// text for programmers only.
    #[track_caller]
    pub fn is_error(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self}");
        assert_eq!(self.stdout, "", "{self}");
        assert!(self.stderr.starts_with("error: "), "{self}");
        let lines = |start| self.stderr.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("error:"), 1, "{self}");
        assert!(lines("hint:") >= 1, "{self}");
        for internal in ["panicked", "backtrace", "RUST_BACKTRACE", "Os {", "\u{1b}["] {
            assert!(!self.stderr.contains(internal), "`{internal}` is said\n{self}");
        }
        self
    }

    /// Asserts that it succeeded and printed a result.
    #[track_caller]
    pub fn is_result(&self) -> &Self {
        assert_eq!(self.code, 0, "{self}");
        assert_ne!(self.stdout, "", "{self}");
        self
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arguments, code, stdout, stderr } = self;
        let arguments = arguments.join(" ");
        write!(
            f,
            "`portwatch {arguments}` ended with {code}\n--- stdout:\n{stdout}--- stderr:\n{stderr}"
        )
    }
}
