//! Processes closed files on a thread of its own: compresses them and removes the oldest. Each
//! round checks the whole directory. So what one round could not do, because the disk was full
//! or the agent was killed, is done by the next round.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use super::folder::{Folder, being_closed, being_written, closed};

/// zstd's own default level: 10 to 20 times smaller, and 200 MB/s.
const LEVEL: i32 = 3;

/// The most bytes that the files may use on the disk, without the file that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// When all files are compressed.
    pub kept: u64,
    /// While a file is being compressed, not counting its compressed copy.
    pub meanwhile: u64,
}

/// A round, because a segment was created.
pub struct Round {
    /// The directory.
    pub folder: Arc<Folder>,
    /// The segment's name without extensions. All segments before it are closed.
    pub active: String,
}

/// The thread. Dropping this ends the thread after it has done its work.
pub struct Closer {
    room: Room,
    thread: Option<(Sender<Round>, JoinHandle<()>)>,
}

impl Closer {
    /// Creates it. The thread starts with the first round: by then the agent has dropped its
    /// capabilities.
    pub fn new(room: Room) -> Self {
        Self { room, thread: None }
    }

    /// Requests a round, because all segments before this one are closed.
    pub fn see_to(&mut self, round: Round) {
        if self.thread.is_none() {
            let (rounds, wanted) = channel();
            let room = self.room;
            let thread = thread::Builder::new()
                .name("capture-close".to_owned())
                .spawn(move || run(room, &wanted));
            match thread {
                Ok(thread) => self.thread = Some((rounds, thread)),
                Err(error) => tracing::error!(%error, "capture: closed files are not compressed"),
            }
        }
        if let Some((rounds, _)) = &self.thread {
            // The thread runs until this is dropped.
            let _ = rounds.send(round);
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        let Some((rounds, thread)) = self.thread.take() else { return };
        drop(rounds);
        if thread.join().is_err() {
            tracing::error!("capture: closed files are not compressed");
        }
    }
}

fn run(room: Room, wanted: &Receiver<Round>) {
    for Round { folder, active } in wanted {
        if let Err(error) = round(&folder, room, &active) {
            tracing::warn!(%error, "capture: a closed file is not compressed for now");
        }
    }
}

/// Does one round. The limit applies to the compressed files. The oldest files are removed
/// before the compression only if there is not enough space to compress them.
fn round(folder: &Folder, room: Room, active: &str) -> io::Result<()> {
    folder.remove_leftovers()?;
    let all = folder.segments()?;
    let mut result = Ok(());
    for segment in all.iter().filter(|segment| !segment.closed && *segment.stem < *active) {
        prune(folder, room.meanwhile, active)?;
        let mut done = compress(folder, &segment.stem);
        if done.as_ref().is_err_and(is_full) {
            prune(folder, room.kept, active)?;
            done = compress(folder, &segment.stem);
        }
        result = result.and(done);
    }
    prune(folder, room.kept, active)?;
    result
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Compresses a segment. The open file is removed after the closed one is safely on the disk
/// under its name.
fn compress(folder: &Folder, stem: &str) -> io::Result<()> {
    let (from, to) = (being_written(stem), closed(stem));
    if !folder.has(&from)? {
        return Ok(()); // It was the oldest, and there was no room.
    }
    if !folder.has(&to)? {
        let temporary = being_closed(stem);
        let written = write_compressed(folder, &from, &temporary);
        if let Err(error) = written.and_then(|()| folder.rename(&temporary, &to)) {
            // The temporary file uses space, and there may be too little.
            let _ = folder.remove(&temporary);
            return Err(error);
        }
        folder.sync()?;
    }
    folder.remove(&from)
}

fn write_compressed(folder: &Folder, from: &str, to: &str) -> io::Result<()> {
    let mut source = folder.open(from)?;
    let mut encoder = zstd::Encoder::new(folder.create(to)?, LEVEL)?;
    encoder.include_checksum(true)?;
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()
}

/// Removes the oldest segments until the remaining ones are within `most` bytes.
fn prune(folder: &Folder, most: u64, active: &str) -> io::Result<()> {
    let mut segments = folder.segments()?;
    segments.retain(|segment| *segment.stem < *active);
    let mut total: u64 = segments.iter().map(|segment| segment.size).sum();
    for segment in &segments {
        if total <= most {
            break;
        }
        let name = segment.name();
        folder.remove(&name)?;
        total = total.saturating_sub(segment.size);
        tracing::info!(file = name, "capture: removed the oldest file to free space");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn stem(number: u32) -> String {
        format!("20260601T2240{number:02}.000000Z")
    }

    fn names(folder: &Folder) -> Vec<String> {
        folder.segments().unwrap().iter().map(super::super::folder::Entry::name).collect()
    }

    /// Bytes that cannot be compressed.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_gets_small_pushes_nothing_out() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::take(path.path()).unwrap();
        for number in 1..=3 {
            fs::write(path.path().join(closed(&stem(number))), noise(10_000)).unwrap();
        }
        fs::write(path.path().join(being_written(&stem(4))), vec![b'x'; 100_000]).unwrap();
        let room = Room { kept: 35_000, meanwhile: 135_000 };
        round(&folder, room, &stem(5)).unwrap();
        let all: Vec<_> = (1..=4).map(|number| closed(&stem(number))).collect();
        assert_eq!(names(&folder), all);
        // A file that stays as large does.
        fs::write(path.path().join(being_written(&stem(5))), noise(10_000)).unwrap();
        round(&folder, room, &stem(6)).unwrap();
        assert_eq!(
            names(&folder),
            all[1..].iter().cloned().chain([closed(&stem(5))]).collect::<Vec<_>>()
        );
    }

    #[test]
    fn there_is_never_more_than_there_is_room_for() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::take(path.path()).unwrap();
        for number in 1..=9 {
            fs::write(path.path().join(being_written(&stem(number))), noise(10_000)).unwrap();
        }
        round(&folder, Room { kept: 25_000, meanwhile: 45_000 }, &stem(9)).unwrap();
        assert_eq!(names(&folder), [closed(&stem(7)), closed(&stem(8)), being_written(&stem(9))]);
    }

    #[test]
    fn what_strangers_have_put_there_stays() {
        let path = tempfile::tempdir().unwrap();
        let folder = Folder::take(path.path()).unwrap();
        let secret = tempfile::NamedTempFile::new().unwrap();
        let at = |name: &str| path.path().join(name);
        fs::write(at("1.jsonl"), "x").unwrap();
        fs::write(at("upload.zst.tmp"), "x").unwrap();
        std::os::unix::fs::symlink(secret.path(), at(&being_written(&stem(1)))).unwrap();
        super::super::folder::tests::fifo(&at(&being_written(&stem(2))));
        fs::write(at(&being_written(&stem(3))), "{}\n").unwrap();
        // A link under the name of the closed file.
        std::os::unix::fs::symlink(secret.path(), at(&closed(&stem(3)))).unwrap();
        assert!(round(&folder, Room { kept: 0, meanwhile: 1_000 }, &stem(4)).is_err());
        for name in
            ["1.jsonl", "upload.zst.tmp", &being_written(&stem(1)), &being_written(&stem(2))]
        {
            assert!(at(name).symlink_metadata().is_ok(), "{name}");
        }
        assert_eq!(fs::read(secret.path()).unwrap(), b"");
        assert!(secret.path().exists());
    }
}
