//! A terminal of a test's own (pty(7)): types text, and reads the screen.

use std::{
    fs::File,
    io::Write as _,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::Command,
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, ioctl_tiocsctty, setsid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
    termios::{Termios, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize},
};

use crate::stream::Stream;

/// Ctrl-C: SIGINT for the foreground process group.
pub const CTRL_C: &str = "\u{3}";
/// Ctrl-Z: SIGTSTP for it.
pub const CTRL_Z: &str = "\u{1a}";
/// Ctrl-D: the end of what it reads.
pub const CTRL_D: &str = "\u{4}";

/// A terminal.
pub struct Terminal {
    keyboard: File,
    line: OwnedFd,
    /// The screen.
    pub screen: Arc<Stream>,
}

impl Terminal {
    /// Creates a terminal.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it takes something from the machine")]
    pub fn new() -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let keyboard = keyboard.expect("a terminal can be had");
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = open(&name, flags, Mode::empty()).unwrap();
        let keyboard = File::from(keyboard);
        let screen = Stream::of(keyboard.try_clone().unwrap());
        Self { keyboard, line, screen }
    }

    /// Runs `command` as the leader of a session on it.
    pub fn confine(&self, command: &mut Command) {
        let line = self.line.try_clone().unwrap();
        // SAFETY: a few system calls, which are safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                setsid()?;
                ioctl_tiocsctty(&line)?;
                dup2_stdin(&line)?;
                dup2_stdout(&line)?;
                Ok(dup2_stderr(&line)?)
            });
        }
    }

    /// Types text.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("somebody is at the other end");
    }

    /// Sets the width of its window.
    pub fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 25, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.line, size).unwrap();
    }

    /// Returns its settings.
    #[must_use]
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.line).unwrap()
    }

    /// Returns its foreground process group.
    #[must_use]
    pub fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.keyboard).ok()
    }
}
