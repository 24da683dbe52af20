//! Reads namespaces from their files, and detects whether this process sees all processes.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_PIDS: u32 = 0xefff_fffc;
/// The inode of the initial user namespace (`PROC_USER_INIT_INO`).
const INITIAL_USERS: u32 = 0xefff_fffd;

/// Returns the inode of a namespace's file, following the link.
///
/// # Errors
/// It does not exist, or access was denied.
pub fn inode(path: &Path) -> io::Result<u32> {
    let inode = fs::metadata(path)?.ino();
    // Where 5.10.y denies following the link, it returns a file of /proc instead of the
    // namespace's file (`proc_ns_get_link`, whose error is lost).
    if statfs(path)?.f_type == PROC_SUPER_MAGIC {
        return Err(ErrorKind::PermissionDenied.into());
    }
    u32::try_from(inode).map_err(|_| ErrorKind::NotFound.into())
}

/// A user namespace. Its creator has many user ids in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// Its inode.
    pub inode: u32,
    /// The user who created it, as an id outside of it.
    pub owner: u32,
}

/// Returns the outermost user namespace around the one of this file that is not this process's
/// own, or `None` if there is none, or access was denied (ioctl_ns(2)).
pub fn outermost_users(path: &Path) -> Option<UserNamespace> {
    /// The kernel's limit for nested namespaces.
    const MOST: usize = 33;
    if inode(path).ok()? == INITIAL_USERS {
        return None;
    }
    let mut namespace = File::open(path).ok()?;
    let mut outermost = None;
    for _ in 0..MOST {
        // The kernel rejects the request for the process's own namespace, and for one that is
        // not inside it.
        let Some(parent) = parent_of(&namespace) else { break };
        let inode = u32::try_from(namespace.metadata().ok()?.ino()).ok()?;
        outermost = Some(UserNamespace { inode, owner: owner_of(&namespace)? });
        namespace = parent;
    }
    outermost
}

fn parent_of(namespace: &File) -> Option<File> {
    // SAFETY: the request takes no argument, and the kernel returns a new descriptor.
    let parent = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_PARENT) };
    // SAFETY: nothing else owns it.
    (parent >= 0).then(|| unsafe { File::from_raw_fd(parent) })
}

fn owner_of(namespace: &File) -> Option<u32> {
    let mut uid: libc::uid_t = 0;
    let asked = namespace.as_raw_fd();
    // SAFETY: the kernel writes one uid_t to `uid`.
    let failed = unsafe { libc::ioctl(asked, libc::NS_GET_OWNER_UID, &raw mut uid) };
    (failed == 0).then_some(uid)
}

/// Why /proc does not show every process of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// It shows the processes of a pid namespace other than the initial one, with other pids
    /// than the kernel side reports.
    PidNamespace,
    /// It is mounted so that it shows only a user's own processes.
    OtherUsers,
}

impl Hidden {
    /// Returns the reason as text.
    pub fn why(self) -> &'static str {
        match self {
            Self::PidNamespace => {
                "processes outside this pid namespace are not visible (docker run --pid host)"
            }
            Self::OtherUsers => "processes of other users are not visible (hidepid)",
        }
    }
}

/// Returns why not every process is visible below `proc_root`, or `None` if all are.
pub fn hidden(proc_root: &Path) -> Option<Hidden> {
    let first = proc_root.join("1");
    match inode(&first.join("ns/pid")) {
        Ok(INITIAL_PIDS) => None,
        Ok(_) => Some(Hidden::PidNamespace),
        // The namespace of the mount cannot be read, so this process's namespace is used
        // instead.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            is_elsewhere(proc_root).then_some(Hidden::PidNamespace)
        }
        // A kernel without pid namespaces has a process 1 too.
        Err(_) if first.exists() => None,
        Err(_) => Some(Hidden::OtherUsers),
    }
}

/// Returns whether this process is not in the initial pid namespace. Then the kernel's walks
/// over processes (`init_seq_pidns`, kernel/bpf/task_iter.c) do not leave its namespace.
pub fn is_elsewhere(proc_root: &Path) -> bool {
    inode(&proc_root.join("self/ns/pid")).is_ok_and(|own| own != INITIAL_PIDS)
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// However deeply they are nested: each has ids of its own.
    #[test]
    fn whoever_made_the_outermost_of_several_is_found() {
        let own = Path::new("/proc/self/ns/user");
        assert_eq!(outermost_users(own), None);
        assert_eq!(outermost_users(Path::new("/proc/self/nothing")), None);
        let within = ["--user", "--map-root-user", "unshare", "--user", "sleep", "60"];
        let Ok(mut child) = Command::new("unshare").args(within).stdin(Stdio::null()).spawn()
        else {
            return;
        };
        let folder = format!("/proc/{}", child.id());
        let began = Instant::now();
        let runs =
            || fs::read_to_string(format!("{folder}/comm")).is_ok_and(|comm| comm == "sleep\n");
        while !runs() && began.elapsed() < Duration::from_secs(10) {
            if let Ok(Some(_)) = child.try_wait() {
                // Not every user may create one here.
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let path = format!("{folder}/ns/user");
        let (found, inner) = (outermost_users(Path::new(&path)), inode(Path::new(&path)));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = found.unwrap();
        assert_eq!(found.owner, rustix::process::geteuid().as_raw());
        assert_ne!(Some(found.inode), inner.ok(), "the outer one");
    }

    #[test]
    fn without_a_first_process_some_are_hidden() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(hidden(root.path()), Some(Hidden::OtherUsers));
        fs::create_dir_all(root.path().join("1/ns")).unwrap();
        assert_eq!(hidden(root.path()), None);
        // Any other file has another inode than the initial namespace.
        fs::write(root.path().join("1/ns/pid"), "").unwrap();
        assert_eq!(hidden(root.path()), Some(Hidden::PidNamespace));
    }
}
