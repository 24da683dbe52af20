//! The directory of a capture: private to its user, and written by one agent.
//!
//! All operations use its descriptor, so it stays the directory that was checked. A file is
//! changed only if its name has the exact format, and it is a regular file, belongs to this
//! user, and has no other name. All other files stay as they are.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, fsync,
        lstat, openat, renameat, statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use super::{
    CLOSED, CaptureError, OPEN, moment_of, parts,
    place::{PRIVATE, open_folder},
};

/// The file that is locked as long as an agent writes.
const LOCK: &str = "lock";
/// The file that marks the directory as a capture. Directories of older versions have no such
/// file, and contain only files with names of a capture.
const MARKER: &str = "portwatch-capture";
const MARKER_TEXT: &str = "portwatch keeps its stream here, and removes its oldest files.\n";
/// The directory that some file systems have at their root.
const NOBODYS: &str = "lost+found";
/// The extension after `.jsonl`, so that the file does not count as a segment.
const TEMPORARY: &str = ".jsonl.zst.tmp";

/// The directory, locked by this process.
pub struct Folder {
    fd: OwnedFd,
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

/// A segment, as a file of the directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name without extensions.
    pub stem: String,
    /// Whether it is closed and compressed.
    pub closed: bool,
    /// Its size on the disk.
    pub size: u64,
}

impl Entry {
    /// Returns its name.
    pub fn name(&self) -> String {
        if self.closed { closed(&self.stem) } else { being_written(&self.stem) }
    }
}

/// Returns the name of a segment that is being written.
pub fn being_written(stem: &str) -> String {
    format!("{stem}{OPEN}")
}

/// Returns the name of a closed segment.
pub fn closed(stem: &str) -> String {
    format!("{stem}{CLOSED}")
}

/// Returns the name of a segment that is being closed.
pub fn being_closed(stem: &str) -> String {
    format!("{stem}{TEMPORARY}")
}

impl Folder {
    /// Creates the directory if it does not exist, and locks it for this process.
    pub fn take(path: &Path) -> Result<Self, CaptureError> {
        let io = |step| move |source| CaptureError::Io { step, path: path.to_owned(), source };
        let no = |step| move |errno: Errno| io(step)(errno.into());
        let (fd, made) = open_folder(path)?;
        let found = fstat(&fd).map_err(no("inspect"))?;
        if found.st_uid != geteuid().as_raw() {
            return Err(CaptureError::NotOwn { path: path.to_owned(), owner: found.st_uid });
        }
        let marked = own(&fd, MARKER).map_err(io("inspect"))?.is_some();
        if !marked && let Some(name) = stranger(&fd).map_err(io("list"))? {
            return Err(CaptureError::Strange { path: path.to_owned(), name });
        }
        let mode = found.st_mode & 0o7777;
        // The files are private. Whether other users can see their names is up to the creator
        // of the directory.
        if mode & 0o022 != 0 {
            // An empty directory may be meant for something else: /srv, /mnt.
            if !made && !marked {
                return Err(CaptureError::Open { path: path.to_owned(), mode });
            }
            fchmod(&fd, Mode::from(PRIVATE)).map_err(no("remove other users' permissions on"))?;
        }
        let lock = lock(&fd).map_err(io("lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(CaptureError::InUse(path.to_owned())),
            Err(errno) => return Err(no("lock")(errno)),
        }
        let folder = Self { fd, path: path.to_owned(), _lock: lock };
        if !marked {
            let marking = folder.create(MARKER);
            let marked = marking.and_then(|mut file| file.write_all(MARKER_TEXT.as_bytes()));
            marked.and_then(|()| folder.sync()).map_err(io("write to"))?;
        }
        Ok(folder)
    }

    /// Creates a file that only its owner can read.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Opens a file of the capture for reading.
    pub fn open(&self, name: &str) -> io::Result<File> {
        // The open of a FIFO would block until there is a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = openat(&self.fd, name, flags, Mode::empty())?.into();
        match is_own(&fstat(&file)?) {
            true => Ok(file),
            false => Err(io::Error::other(format!("{name} does not belong to the capture"))),
        }
    }

    /// Returns whether the capture has a file of this name.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        Ok(own(&self.fd, name)?.is_some())
    }

    /// Removes a file of the capture. Any other file stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        if self.has(name)? {
            unlinkat(&self.fd, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Renames a file, if the new name is free.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match statat(&self.fd, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(renameat(&self.fd, from, &self.fd, to)?),
            Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the creation and removal of names durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }

    /// Returns whether the directory is still at its path.
    pub fn is_in_place(&self) -> bool {
        let (Ok(held), Ok(there)) = (fstat(&self.fd), lstat(&self.path)) else { return false };
        (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino) && held.st_nlink > 0
    }

    /// Returns all segments, oldest first. One may exist twice; the closed one comes second.
    pub fn segments(&self) -> io::Result<Vec<Entry>> {
        let mut all = Vec::new();
        for name in names(&self.fd)? {
            if let Some((stem, closed)) = parts(&name)
                && moment_of(stem).is_some()
                && let Some(found) = own(&self.fd, &name)?
            {
                let size = u64::try_from(found.st_size).unwrap_or(0);
                all.push(Entry { stem: stem.to_owned(), closed, size });
            }
        }
        all.sort();
        Ok(all)
    }

    /// Removes files that were being closed when an agent was killed.
    pub fn remove_leftovers(&self) -> io::Result<()> {
        let is_one = |name: &str| name.strip_suffix(TEMPORARY).and_then(moment_of).is_some();
        names(&self.fd)?.iter().filter(|name| is_one(name)).try_for_each(|name| self.remove(name))
    }
}

/// Returns the lock file, created if it does not exist.
fn lock(folder: impl AsFd) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file: File = openat(folder, LOCK, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?.into();
    match is_own(&fstat(&file)?) {
        true => Ok(file),
        false => Err(io::Error::other(format!("{LOCK} does not belong to the capture"))),
    }
}

/// Returns the name of a file in the directory that no capture of this user has created.
fn stranger(folder: impl AsFd) -> io::Result<Option<String>> {
    let stem = |name: &str| {
        let endings = [CLOSED, OPEN, TEMPORARY];
        endings.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned)
    };
    for name in names(&folder)? {
        let known = name == LOCK || stem(&name).is_some_and(|stem| moment_of(&stem).is_some());
        if name != NOBODYS && !(known && own(&folder, &name)?.is_some()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Returns the file with a name, if it belongs to the capture.
fn own(folder: impl AsFd, name: &str) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found).filter(is_own)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns whether it is a file of this user that has no other name elsewhere.
fn is_own(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && found.st_uid == geteuid().as_raw()
        && found.st_nlink <= 1
}

/// Returns all names except `.` and `..`.
fn names(folder: impl AsFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    const STEM: &str = "20260601T224009.123456Z";

    /// Creates a FIFO without a reader or writer.
    pub fn fifo(path: &Path) {
        use rustix::fs::{CWD, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    fn refused(path: &Path) -> String {
        match Folder::take(path) {
            Ok(_) => panic!("{} was taken", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_new_one_is_private_and_marked_and_one_agents() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(path.join(MARKER).is_file());
        assert!(refused(&path).contains("another portwatch"));
        drop(folder);
        // Other files that appear later stay.
        fs::write(path.join("notes.txt"), "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        Folder::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_of_an_older_version_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        for ending in [OPEN, CLOSED, TEMPORARY] {
            fs::write(folder.path().join(format!("{STEM}{ending}")), "").unwrap();
        }
        fs::write(folder.path().join(LOCK), "").unwrap();
        fs::create_dir(folder.path().join(NOBODYS)).unwrap();
        let taken = Folder::take(folder.path()).unwrap();
        taken.remove_leftovers().unwrap();
        assert!(!folder.path().join(being_closed(STEM)).exists());
        let found = taken.segments().unwrap();
        let names: Vec<_> = found.iter().map(Entry::name).collect();
        assert_eq!(names, [being_written(STEM), closed(STEM)]);
    }

    #[test]
    fn one_with_anything_else_in_it_is_refused_and_stays_as_it_was() {
        for name in ["1.jsonl", "upload.zst.tmp", "notes.txt", "x.jsonl.zst", MARKER, ".hidden"] {
            let folder = tempfile::tempdir().unwrap();
            // The marker must be a file.
            match name {
                MARKER => fs::create_dir(folder.path().join(name)).unwrap(),
                _ => fs::write(folder.path().join(name), "mine").unwrap(),
            }
            assert!(refused(folder.path()).contains(name), "{name}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        fifo(&folder.path().join(closed(STEM)));
        assert!(refused(folder.path()).contains(STEM));
    }

    #[test]
    fn one_that_others_have_a_use_for_is_not_closed_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let mode = || fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777;
        let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode));
        set(0o775).unwrap();
        assert!(refused(folder.path()).contains("(mode 0775)"));
        assert_eq!((mode(), fs::read_dir(folder.path()).unwrap().count()), (0o775, 0));
        set(0o755).unwrap();
        Folder::take(folder.path()).unwrap();
        assert_eq!(mode(), 0o755);
    }

    #[test]
    fn a_link_in_its_place_is_not_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a");
        let folder = Folder::take(&path).unwrap();
        let moved = parent.path().join("b");
        fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        assert!(!folder.is_in_place());
        assert!(refused(&path).contains("is a symbolic link"));
    }

    #[test]
    fn one_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(folder.path(), Some(1000), None).is_err() {
            return; // Only root may give it away.
        }
        assert!(refused(folder.path()).contains("belongs to user 1000"));
    }

    #[test]
    fn what_is_not_a_file_of_this_user_s_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let taken = Folder::take(folder.path()).unwrap();
        let at = |name: &str| folder.path().join(name);
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let name = |n: u32| being_written(&format!("20260601T22400{n}.123456Z"));
        symlink(elsewhere.path(), at(&name(1))).unwrap();
        fifo(&at(&name(2)));
        fs::create_dir(at(&name(3))).unwrap();
        fs::hard_link(elsewhere.path(), at(&name(4))).ok();
        let strange: Vec<_> =
            (1..=4).map(name).filter(|name| at(name).symlink_metadata().is_ok()).collect();
        assert_eq!(taken.segments().unwrap(), []);
        for name in &strange {
            assert!(taken.open(name).is_err(), "{name}");
            taken.remove(name).unwrap();
            assert!(at(name).symlink_metadata().is_ok(), "{name}");
        }
        assert!(elsewhere.path().exists());
    }

    #[test]
    fn it_is_known_when_it_is_no_longer_there() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a");
        let folder = Folder::take(&path).unwrap();
        assert!(folder.is_in_place());
        fs::rename(&path, parent.path().join("b")).unwrap();
        assert!(!folder.is_in_place());
        Folder::take(&path).unwrap();
        assert!(!folder.is_in_place(), "another one");
        let folder = Folder::take(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert!(!folder.is_in_place());
    }
}
