//! Ends the writes of one output at a known point, although its reader is slow or stuck.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, fstat},
    io::retry_on_intr,
};

/// PIPE_BUF: a writable pipe has space for this many bytes, so that writing them does not wait
/// (pipe(7)).
const PIECE: usize = 4096;

const OPEN: u8 = 0;
const BUSY: u8 = 1;
const CLOSED: u8 = 2;

/// A gate that the thread of one sink passes whenever it is about to change what was written,
/// or the count of it. While the thread only waits for a reader, it is outside. So the gate can
/// be closed at such a moment, and afterwards nothing is written that was counted as unwritten.
#[derive(Debug, Default)]
pub struct Gate(AtomicU8);

impl Gate {
    /// Passes in. Does not return if the gate is closed: the process is about to exit.
    pub fn enter(&self) {
        while self.0.compare_exchange(OPEN, BUSY, SeqCst, SeqCst) == Err(CLOSED) {
            thread::park();
        }
    }

    /// Passes out.
    pub fn leave(&self) {
        self.0.store(OPEN, SeqCst);
    }

    /// Closes it, if nobody is inside. Returns whether it is closed.
    pub fn close(&self) -> bool {
        self.0.compare_exchange(OPEN, CLOSED, SeqCst, SeqCst) != Err(BUSY)
    }
}

/// An output that waits for its reader outside its gate.
pub struct Gated<W> {
    out: W,
    gate: Arc<Gate>,
    /// Whether its reader can make a write wait, and poll(2) says when it does not: the output
    /// is a pipe or a socket. What is written to a terminal is not divided.
    has_reader: bool,
}

impl<W: AsFd> Gated<W> {
    /// Creates one. It is written to inside the gate only.
    pub fn new(out: W, gate: Arc<Gate>) -> Self {
        let kind = fstat(&out).map(|stat| FileType::from_raw_mode(stat.st_mode));
        Self { out, gate, has_reader: matches!(kind, Ok(FileType::Fifo | FileType::Socket)) }
    }
}

impl<W: Write + AsFd> Write for Gated<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.has_reader {
            return self.out.write(bytes);
        }
        let mut ready = [PollFd::new(&self.out, PollFlags::OUT)];
        self.gate.leave();
        let waited = retry_on_intr(|| poll(&mut ready, None));
        self.gate.enter();
        waited?;
        self.out.write(bytes.get(..PIECE).unwrap_or(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: AsFd> AsFd for Gated<W> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.out.as_fd()
    }
}
