//! Appends records to the newest file of a capture.
//!
//! A record goes out in one write and is in the kernel's hands then: the end of
//! the agent, by SIGKILL too, loses none that were written. What a power loss may
//! take is what was written in the last [`SYNC`]; after that it is on the disk.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{CaptureError, Limits, closer::Closer, folder, new_stem, segments};
use crate::{event::Record, sinks::Sink};

/// How long what has been written may not be on the disk.
const SYNC: Duration = Duration::from_secs(1);

/// A capture that is being written.
pub struct Capture {
    folder: PathBuf,
    limits: Limits,
    /// The newest file's name, whether it is still open or not.
    newest: Option<String>,
    open: Option<Open>,
    line: Vec<u8>,
    closer: Closer,
    /// Keeps others out as long as it is open.
    _lock: File,
}

/// The file that is being written.
struct Open {
    file: File,
    size: u64,
    since: Instant,
    unsynced_since: Option<Instant>,
    /// Half a line is at its end and could not be taken back.
    torn: bool,
}

impl Capture {
    /// Takes the folder for this process, and closes what an earlier one has left.
    ///
    /// # Errors
    /// The folder cannot be made or written, is open to others, or in use.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, CaptureError> {
        let lock = folder::take(folder)?;
        let io = |step| move |source| CaptureError::Io { step, path: folder.to_owned(), source };
        // The file that is written and the copy of the one that is being closed
        // count too.
        let file_size = limits.file_size.min(limits.total_size / 4);
        let limits = Limits { file_size, ..limits };
        let keep = limits.total_size.saturating_sub(2 * file_size);
        let mut capture = Self {
            newest: segments(folder).map_err(io("list"))?.pop().map(|segment| segment.stem),
            folder: folder.to_owned(),
            limits,
            open: None,
            line: Vec::with_capacity(8192),
            closer: Closer::start(folder.to_owned(), keep).map_err(io("start a thread for"))?,
            _lock: lock,
        };
        // A torn last line must stay the last of its file: never append to one
        // that another process has begun.
        capture.begin().map_err(io("write to"))?;
        Ok(capture)
    }

    fn begin(&mut self) -> io::Result<()> {
        let stem = new_stem(Timestamp::now(), self.newest.as_deref());
        let file = folder::create(&self.folder.join(format!("{stem}.jsonl")), true)?;
        folder::sync(&self.folder)?;
        self.open =
            Some(Open { file, size: 0, since: Instant::now(), unsynced_since: None, torn: false });
        self.newest = Some(stem.clone());
        self.closer.closed_before(stem);
        Ok(())
    }

    /// The file to append to, a new one if the last is full or old.
    fn current(&mut self, length: u64) -> io::Result<&mut Open> {
        let Limits { file_size, file_age, .. } = self.limits;
        let done = self.open.as_ref().is_some_and(|open| {
            let full = open.size + length > file_size || open.since.elapsed() >= file_age;
            open.torn || (open.size > 0 && full)
        });
        if done && let Some(open) = self.open.take() {
            open.file.sync_data()?;
        }
        if self.open.is_none() {
            self.begin()?;
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("no file is open"))
    }
}

impl Open {
    /// All of the line or nothing: half of one would spoil the next.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            self.torn = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.size += line.len() as u64;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Gives how soon there will be something to sync.
    fn sync_if_due(&mut self) -> io::Result<Option<Duration>> {
        let Some(since) = self.unsynced_since else { return Ok(None) };
        let left = SYNC.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Ok(Some(left));
        }
        self.unsynced_since = None;
        self.file.sync_data()?;
        Ok(None)
    }
}

impl Sink for Capture {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        let line = std::mem::take(&mut self.line);
        let written = self.current(line.len() as u64).and_then(|open| open.append(&line));
        self.line = line;
        written
    }

    fn rest(&mut self) -> io::Result<Option<Duration>> {
        self.open.as_mut().map_or(Ok(None), Open::sync_if_due)
    }
}

impl Drop for Capture {
    /// The last file is closed like all others.
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Err(error) = open.file.sync_data() {
            tracing::error!(%error, "capture: the last records may not be on the disk");
        }
        self.closer.closed_before(new_stem(Timestamp::now(), self.newest.as_deref()));
    }
}
