//! Appends records to the newest file of a capture.
//!
//! A record is written with one write, and is then in the kernel. So no written record is lost
//! when the agent ends, not even by SIGKILL. A power loss may lose what was written in the last
//! [`SYNC`]. After that time a record is on the disk, and the file was checked to be at its
//! path.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    CaptureError, LONGEST_LINE, Limits,
    closer::{Closer, Room, Round},
    folder::{Folder, being_written},
    new_stem,
};
use crate::{event::Record, sinks::Sink};

/// The longest time that a written record may not be on the disk.
const SYNC: Duration = Duration::from_secs(1);

/// A capture that is being written.
pub struct Capture {
    path: PathBuf,
    folder: Arc<Folder>,
    limits: Limits,
    longest: u64,
    /// The name of the newest file, whether it is open or not.
    newest: Option<String>,
    open: Option<Open>,
    line: Vec<u8>,
    closer: Closer,
    /// The round that the closer must still do.
    begun: Option<Round>,
    /// The number of failed binds in records that were written and then lost.
    lost: u64,
}

/// The file that is being written.
struct Open {
    file: File,
    size: u64,
    since: Instant,
    /// When it was last found at its path.
    seen: Instant,
    /// The number of failed binds that were written after that.
    unseen: u64,
    unsynced_since: Option<Instant>,
    /// The number of failed binds in records since the last sync, which may not be on the disk.
    unsynced: u64,
    /// Whether it ends with half a line that could not be removed.
    torn: bool,
}

impl Capture {
    /// Locks the directory for this process, and creates a file in it. This does not start a
    /// thread: the sink starts it when it runs.
    ///
    /// # Errors
    /// The directory cannot be created or written, belongs to another user, or is in use.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, CaptureError> {
        let io = |step| move |source| CaptureError::Io { step, path: path.to_owned(), source };
        let folder = Folder::take(path)?;
        let file_size = limits.file_size.min(limits.total_size / 4);
        let longest = LONGEST_LINE.min(limits.total_size / 4);
        // A file of one line may exceed the limit.
        let largest = file_size.max(longest);
        let room = Room {
            // The file that is being written, a file that is being closed, and the copy of that
            // file count too.
            kept: limits.total_size.saturating_sub(3 * largest),
            meanwhile: limits.total_size.saturating_sub(2 * largest),
        };
        let newest = folder.segments().map_err(io("list"))?.pop().map(|segment| segment.stem);
        let mut capture = Self {
            path: path.to_owned(),
            folder: Arc::new(folder),
            limits: Limits { file_size, ..limits },
            longest,
            newest,
            open: None,
            line: Vec::with_capacity(8192),
            closer: Closer::new(room),
            begun: None,
            lost: 0,
        };
        // A torn last line must stay the last line of its file, so nothing is appended to a
        // file that another process has created.
        capture.begin().map_err(io("write to"))?;
        Ok(capture)
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.folder.is_in_place() {
            self.folder = Arc::new(Folder::take(&self.path).map_err(io::Error::other)?);
            let newest = self.folder.segments()?.pop().map(|segment| segment.stem);
            self.newest = self.newest.take().max(newest);
        }
        let stem = new_stem(Timestamp::now(), self.newest.as_deref());
        let file = self.folder.create(&being_written(&stem))?;
        self.folder.sync()?;
        self.open = Some(Open {
            file,
            size: 0,
            since: Instant::now(),
            seen: Instant::now(),
            unseen: 0,
            unsynced_since: None,
            unsynced: 0,
            torn: false,
        });
        self.newest = Some(stem.clone());
        self.begun = Some(Round { folder: Arc::clone(&self.folder), active: stem });
        Ok(())
    }

    /// Returns the file to append to: a new one, if the last file is full or old.
    fn current(&mut self, length: u64) -> io::Result<&mut Open> {
        let file_size = self.limits.file_size;
        let is_full = |open: &Open| open.torn || (open.size > 0 && open.size + length > file_size);
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        if self.open.is_none() {
            self.begin()?;
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("no file is open"))
    }

    /// Closes this file.
    fn close(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let synced = open.file.sync_data();
        let unsynced = if synced.is_err() { open.unsynced } else { 0 };
        let unseen = if open.is_gone() { open.unseen } else { 0 };
        // Both count the records that were written last.
        self.lost += unsynced.max(unseen);
        synced
    }

    /// Writes to the disk what is only in the kernel. If that fails, the kernel may have
    /// dropped the data, and reports this only once (fsync(2)). So the file is closed, and its
    /// unsynced records are lost.
    fn sync(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Err(error) = open.file.sync_data() else {
            (open.unsynced_since, open.unsynced) = (None, 0);
            return Ok(());
        };
        self.lost += open.unsynced;
        self.open = None;
        // If no other file can be created either, this is tried again with the next record.
        self.begin().and(Err(error))
    }

    /// Creates a new file, if the file or its directory is no longer at its path.
    fn look_where_it_is(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let gone = open.is_gone();
        if !gone && self.folder.is_in_place() {
            open.seen = Instant::now();
            open.unseen = 0;
            return Ok(());
        }
        let what = if gone { "a file" } else { "the directory" };
        tracing::warn!("capture: {what} was removed: {}; creating a new one", self.path.display());
        // Records in a directory that was moved are not lost.
        let closed = self.close();
        self.begin().and(closed)
    }

    /// Does the work that is due. Returns when the next work is due.
    fn see_to(&mut self) -> io::Result<Option<Duration>> {
        let age = self.limits.file_age;
        let Some(open) = &mut self.open else { return Ok(None) };
        let unsynced = open.unsynced_since.map(|since| SYNC.saturating_sub(since.elapsed()));
        let aged = (open.size > 0).then(|| age.saturating_sub(open.since.elapsed()));
        if aged.is_some_and(|left| left.is_zero()) {
            self.close()?;
            self.begin()?;
            return Ok(None);
        }
        if unsynced.is_some_and(|left| left.is_zero()) {
            self.sync()?;
            self.look_where_it_is()?;
            return Ok(aged);
        }
        Ok(unsynced.into_iter().chain(aged).min())
    }
}

impl Open {
    /// Writes the whole line or nothing, because half a line would damage the next one.
    fn append(&mut self, line: &[u8], refusals: u64) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            self.torn = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.size += line.len() as u64;
        self.unseen += refusals;
        self.unsynced += refusals;
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Returns whether the file no longer has a name. What is written to it then is lost.
    fn is_gone(&self) -> bool {
        self.file.metadata().is_ok_and(|data| data.nlink() == 0)
    }
}

impl Sink for Capture {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        let length = self.line.len() as u64;
        if length > self.longest {
            self.line = Vec::new();
            return Err(io::Error::other(format!(
                "a record of {length} bytes exceeds the limit of {}",
                self.longest
            )));
        }
        if self.open.as_ref().is_some_and(|open| open.seen.elapsed() >= SYNC) {
            self.look_where_it_is()?;
        }
        let line = std::mem::take(&mut self.line);
        let written = self.current(length).and_then(|open| open.append(&line, record.refusals()));
        self.line = line;
        written
    }

    fn rest(&mut self) -> io::Result<Option<Duration>> {
        if let Some(round) = self.begun.take() {
            self.closer.see_to(round);
        }
        let again = self.see_to()?;
        // The closer receives it the next time.
        Ok(if self.begun.is_some() { Some(Duration::ZERO) } else { again })
    }

    fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl Drop for Capture {
    /// Closes the last file like all other files.
    fn drop(&mut self) {
        if self.open.is_none() {
            return;
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "capture: the last records may not be on the disk");
        }
        if self.lost > 0 {
            tracing::error!("capture: {} failed binds are not on the disk", self.lost);
        }
        let active = new_stem(Timestamp::now(), self.newest.as_deref());
        self.closer.see_to(Round { folder: Arc::clone(&self.folder), active });
    }
}

#[cfg(test)]
mod tests;
