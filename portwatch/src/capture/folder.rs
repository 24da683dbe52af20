//! The folder of a capture: nobody else's to look into, and one agent's to write.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::{CaptureError, Segment};

const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Held as long as an agent writes.
const LOCK: &str = "lock";

/// Makes the folder if it is not there, and takes it for this process.
pub fn take(folder: &Path) -> Result<File, CaptureError> {
    let io = |step| move |source| CaptureError::Io { step, path: folder.to_owned(), source };
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_FOLDER)
        .create(folder)
        .map_err(io("make the folder"))?;
    let open_to = fs::metadata(folder).map_err(io("look at"))?.permissions().mode() & 0o077;
    if open_to != 0 {
        if has_strangers(folder).map_err(io("list"))? {
            return Err(CaptureError::Open(folder.to_owned()));
        }
        let private = Permissions::from_mode(PRIVATE_FOLDER);
        fs::set_permissions(folder, private).map_err(io("close to other users"))?;
    }
    let lock = create(&folder.join(LOCK), false).map_err(io("lock"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(CaptureError::InUse(folder.to_owned())),
        Err(errno) => Err(io("lock")(errno.into())),
    }
}

/// Whether there is anything that no capture has written.
fn has_strangers(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        if path.file_name().is_some_and(|name| name != LOCK) && Segment::at(path).is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A file that only its owner can read. Never one behind somebody's link.
pub fn create(path: &Path, new: bool) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new()
        .append(true)
        .create(true)
        .create_new(new)
        .mode(PRIVATE_FILE)
        .custom_flags(flags.cast_signed())
        .open(path)
}

/// Makes names that have come and gone in the folder last beyond a power loss.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
