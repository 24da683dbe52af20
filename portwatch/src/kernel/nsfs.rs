//! Namespaces by their files, and whether this process sees every process.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};

/// The initial pid namespace's inode (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PIDS: u32 = 0xefff_fffc;

/// The inode of a namespace's file, following the link.
///
/// # Errors
/// It does not exist or may not be read.
pub fn inode(path: &Path) -> io::Result<u32> {
    let inode = fs::metadata(path)?.ino();
    // Where 5.10.y denies that a link is followed, it gives a file of /proc in place of the
    // namespace's (`proc_ns_get_link`, whose error is lost).
    if statfs(path)?.f_type == PROC_SUPER_MAGIC {
        return Err(ErrorKind::PermissionDenied.into());
    }
    u32::try_from(inode).map_err(|_| ErrorKind::NotFound.into())
}

/// Why /proc does not show every process of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// It shows those of a pid namespace other than the initial one, and by other
    /// numbers than the kernel side sees.
    PidNamespace,
    /// It is mounted so that it shows a user's own only.
    OtherUsers,
}

impl Hidden {
    /// The reason in words.
    pub fn why(self) -> &'static str {
        match self {
            Self::PidNamespace => {
                "processes outside this pid namespace are not visible (docker run --pid host)"
            }
            Self::OtherUsers => "processes of other users are not visible (hidepid)",
        }
    }
}

/// Why not every process is below `proc_root`; `None` if all are.
pub fn hidden(proc_root: &Path) -> Option<Hidden> {
    let first = proc_root.join("1");
    match inode(&first.join("ns/pid")) {
        Ok(INITIAL_PIDS) => None,
        Ok(_) => Some(Hidden::PidNamespace),
        // The mount's own namespace cannot be asked for, so this process's is taken for it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            is_elsewhere(proc_root).then_some(Hidden::PidNamespace)
        }
        // A kernel without pid namespaces has a first process all the same.
        Err(_) if first.exists() => None,
        Err(_) => Some(Hidden::OtherUsers),
    }
}

/// Whether this process is in another than the initial pid namespace: the kernel's
/// walks over processes (`init_seq_pidns`, kernel/bpf/task_iter.c) end at its border.
pub fn is_elsewhere(proc_root: &Path) -> bool {
    inode(&proc_root.join("self/ns/pid")).is_ok_and(|own| own != INITIAL_PIDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_first_process_some_are_hidden() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(hidden(root.path()), Some(Hidden::OtherUsers));
        fs::create_dir_all(root.path().join("1/ns")).unwrap();
        assert_eq!(hidden(root.path()), None);
        // Any file has another inode than the initial namespace.
        fs::write(root.path().join("1/ns/pid"), "").unwrap();
        assert_eq!(hidden(root.path()), Some(Hidden::PidNamespace));
    }
}
