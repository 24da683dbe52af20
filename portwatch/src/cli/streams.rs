//! The process's two streams, and the only code that writes to them: results go to stdout,
//! messages go to stderr.
//!
//! Results are required: if the reader closes stdout, the program ends quietly, and any other
//! failure is an error. Messages are optional: what cannot be written at once is dropped,
//! because neither a closed pipe nor a stuck reader may block the program. Messages are plain
//! text, and texts from outside are escaped in them.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anstream::{AutoStream, ColorChoice};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open},
    io::{Errno, retry_on_intr},
};

use crate::{talk, text::sanitize::printable};

mod drawn;

pub use drawn::progress;

/// How long a message to a user waits for a slow reader.
const PATIENCE: Duration = Duration::from_millis(100);
/// The number of bytes that a pipe accepts atomically (PIPE_BUF), and for which it has space
/// when it is writable.
const PIECE: usize = 4096;

/// One of the two streams, unbuffered: a write has taken effect when it returns.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Results.
    Stdout,
    /// Events of `exec`. Its stdout is that of the command.
    Stderr,
}

impl Stream {
    /// Returns whether it can show colours: on a terminal that supports them, unless NO_COLOR
    /// is set, and always if CLICOLOR_FORCE is set.
    #[expect(clippy::disallowed_methods, reason = "this is the layer")]
    pub fn colour(self) -> ColorChoice {
        match self {
            Self::Stdout => AutoStream::choice(&io::stdout()),
            Self::Stderr => AutoStream::choice(&io::stderr()),
        }
    }

    /// Returns whether lines can be redrawn.
    pub fn is_terminal(self) -> bool {
        self.as_fd().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }
}

/// Waits until the stream can be written. Returns whether it can.
fn is_ready(stream: BorrowedFd<'_>, patience: Option<Duration>) -> bool {
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    let mut ready = [PollFd::from_borrowed_fd(stream, PollFlags::OUT)];
    retry_on_intr(|| poll(&mut ready, timeout.as_ref())).is_ok_and(|count| count > 0)
}

/// Returns the output of messages: the terminal of stderr, opened again, or stderr.
fn talked_to() -> BorrowedFd<'static> {
    static TERMINAL: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let stderr = rustix::stdio::stderr();
    TERMINAL.get_or_init(|| opened_again(stderr)).as_ref().map_or(stderr, AsFd::as_fd)
}

/// Opens the terminal again. A terminal reports that it is writable, but still blocks a write
/// for which it has too little space. The newly opened descriptor is nonblocking, and processes
/// that share the first one are not affected. Returns `None` if it is not a terminal, or cannot
/// be opened.
fn opened_again(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
    stream.is_terminal().then(|| open(path, flags, Mode::empty()).ok()).flatten()
}

impl AsFd for Stream {
    /// The runtime has opened /dev/null for streams that were closed at the start.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdout => rustix::stdio::stdout(),
            Self::Stderr => rustix::stdio::stderr(),
        }
    }
}

impl Write for Stream {
    /// Waits, if another program that shares the terminal has made it nonblocking.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match retry_on_intr(|| rustix::io::write(&self, bytes)) {
                Err(Errno::AGAIN) => {
                    is_ready(self.as_fd(), None);
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a result.
///
/// # Errors
/// stdout cannot be written.
pub fn result(text: &str) -> io::Result<()> {
    Stream::Stdout.write_all(text.as_bytes())
}

/// Prints one or several lines to the user who started the program.
pub fn say(text: impl Display) {
    talk(&text.to_string(), PATIENCE);
}

/// The output of log lines. It never blocks, because any thread may write a line.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        talk(String::from_utf8_lossy(line).trim_end(), Duration::ZERO);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as much as stderr accepts within `patience`, and drops the rest.
fn talk(text: &str, patience: Duration) {
    let text: String = text.lines().flat_map(|line| [printable(line), "\n".into()]).collect();
    if talk::takes(text.as_bytes()) {
        return;
    }
    put(talked_to(), text.as_bytes(), patience);
}

/// Writes as much as a stream accepts within `patience`, and drops the rest.
fn put(stream: BorrowedFd<'_>, text: &[u8], patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut rest = text;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if !is_ready(stream, Some(left)) {
            return;
        }
        let piece = rest.get(..PIECE).unwrap_or(rest);
        match rustix::io::write(stream, piece) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) if !left.is_zero() => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests;
