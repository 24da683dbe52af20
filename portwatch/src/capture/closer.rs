//! Sees to the files that are closed, on a thread of its own: compresses them and
//! removes the oldest. Each round looks at the whole folder, so that what one
//! could not do, because the disk was full or the agent was killed, the next does.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use super::{Segment, folder, list};

/// zstd's own default: 10 to 20 times smaller, and 200 MB/s.
const LEVEL: i32 = 3;

/// The thread; ends when this is dropped, after what it has been given.
pub struct Closer {
    /// The stem of the segment that is being written.
    rounds: Option<Sender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Closer {
    /// Starts the thread.
    pub fn start(folder: PathBuf, keep: u64) -> io::Result<Self> {
        let (rounds, wanted) = channel();
        let thread = thread::Builder::new()
            .name("capture-close".to_owned())
            .spawn(move || run(&folder, keep, &wanted))?;
        Ok(Self { rounds: Some(rounds), thread: Some(thread) })
    }

    /// Everything before `active` is closed.
    pub fn closed_before(&self, active: String) {
        // The thread is there until this is dropped.
        if let Some(rounds) = &self.rounds {
            let _ = rounds.send(active);
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        drop(self.rounds.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a capture's files are left uncompressed");
        }
    }
}

fn run(folder: &Path, keep: u64, wanted: &Receiver<String>) {
    for active in wanted {
        if let Err(error) = round(folder, keep, &active) {
            tracing::warn!(%error, "capture: a closed file is left as it is for now");
        }
    }
}

fn round(folder: &Path, keep: u64, active: &str) -> io::Result<()> {
    remove_leftovers(folder)?;
    // Room first: the disk may be full of what is to go.
    prune(folder, keep, active)?;
    let open =
        list(folder)?.into_iter().filter(|segment| !segment.closed && *segment.stem < *active);
    let results: Vec<_> = open.map(|segment| compress(folder, &segment)).collect();
    prune(folder, keep, active)?;
    results.into_iter().collect()
}

/// The open file goes when the closed one is safe on the disk under its name.
fn compress(within: &Path, segment: &Segment) -> io::Result<()> {
    let closed = segment.closed_path();
    if !closed.exists() {
        let temporary = closed.with_extension(TEMPORARY);
        let written = write_compressed(&segment.path, &temporary);
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &closed)) {
            // It takes room that may be what is lacking.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        folder::sync(within)?;
    }
    fs::remove_file(&segment.path)
}

/// Behind `.jsonl`, so that it is no segment.
const TEMPORARY: &str = "zst.tmp";

fn write_compressed(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut encoder = zstd::Encoder::new(folder::create(to, true)?, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()
}

/// What a round that was cut off has left behind.
fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(TEMPORARY)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Removes the oldest closed segments until the rest is no larger than `keep`.
fn prune(folder: &Path, keep: u64, active: &str) -> io::Result<()> {
    let mut segments = list(folder)?;
    segments.retain(|segment| *segment.stem < *active);
    segments.sort();
    let size = |segment: &Segment| fs::metadata(&segment.path).map_or(0, |data| data.len());
    let mut total: u64 = segments.iter().map(size).sum();
    for segment in &segments {
        if total <= keep {
            break;
        }
        total = total.saturating_sub(size(segment));
        fs::remove_file(&segment.path)?;
        tracing::info!(file = %segment.path.display(), "capture: removed to make room");
    }
    Ok(())
}
