//! Opens the directory of a control group by its id, in microseconds: kernfs accepts the id as
//! a file handle (`kernfs_fh_to_dentry`, fs/kernfs/mount.c; 5.5 and later).

use std::{
    fs::{self, File},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

/// `FILEID_KERNFS` (include/linux/exportfs.h).
const FILEID_KERNFS: libc::c_int = 0xfe;

/// `struct file_handle` with space for a kernfs id.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

/// Returns the directory of the control group `id` in the hierarchy at `root`, or `None` if it
/// was removed, or without CAP_DAC_READ_SEARCH.
pub fn open(root: &Path, id: u64) -> Option<PathBuf> {
    let mount = File::open(root).ok()?;
    if mount.metadata().ok()?.ino() == id {
        return Some(root.to_owned());
    }
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    // SAFETY: the handle is laid out as `struct file_handle` with `bytes` bytes after its head,
    // and outlives the call, which only reads it.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return None;
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    let folder = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).ok()?;
    // A control group that was removed keeps its inode while something refers to it.
    path.starts_with(root).then_some(path).filter(|path| path.exists())
}
