//! Control groups of a test's own, named like systemd's, so that a process can be in a unit or
//! a login session on a machine without systemd.

use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{netns::Netns, ours};

/// A tree of control groups below one slice of the test's own.
pub struct Slice {
    root: PathBuf,
    mount: PathBuf,
}

/// One group in it.
pub struct Cgroup {
    directory: PathBuf,
    /// Its path below the hierarchy's root, as `/proc/PID/cgroup` has it.
    pub path: String,
    /// Its id, which is its directory's inode.
    pub id: u64,
}

impl Slice {
    /// Creates an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::below(mount_point())
    }

    /// Creates an empty one in the hierarchy that is mounted here.
    #[must_use]
    pub fn below(mount: PathBuf) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{OF_TESTS}-{}-{number}.slice", std::process::id());
        let root = mount.join(name);
        fs::create_dir(&root).expect("root may make a control group");
        Self { root, mount }
    }

    /// Creates the group `path` in it, for example `app-a.service`.
    #[must_use]
    pub fn group(&self, path: &str) -> Cgroup {
        let directory = self.root.join(path);
        fs::create_dir_all(&directory).unwrap();
        let below = directory.strip_prefix(&self.mount).unwrap();
        Cgroup {
            path: format!("/{}", below.display()),
            id: fs::metadata(&directory).unwrap().ino(),
            directory,
        }
    }
}

impl Slice {
    /// Removes it with all that is in it.
    ///
    /// # Panics
    /// A process still runs there.
    pub fn remove(self) {
        let root = self.root.clone();
        drop(self);
        assert!(!root.exists(), "{} is still there", root.display());
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Slice {
    /// The processes have been reaped, but the kernel may release a group a moment later,
    /// without a notification.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while remove_tree(&self.root).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The files of a group disappear with its directory; only directories are removed.
fn remove_tree(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

impl Cgroup {
    /// Moves a running process in here.
    pub fn adopt(&self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Runs `command`'s process in here.
    pub fn confine(&self, command: &mut Command) {
        let members = File::options().write(true).open(self.directory.join("cgroup.procs"));
        let members = members.unwrap();
        // SAFETY: one system call, which is safe between fork and exec; 0 means the process
        // that writes it.
        unsafe {
            command.pre_exec(move || {
                rustix::io::write(&members, b"0")?;
                Ok(())
            });
        }
    }
}

/// Puts the tests of this process, and all that they start later, into a control group of their
/// own, once: what others on the machine do is then another's to an agent, as it is where each
/// service has its own.
pub fn set_apart() {
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        let Some(mount) = mounted() else { return };
        // Those of runs before this are empty by now.
        for old in fs::read_dir(&mount).into_iter().flatten().flatten() {
            if old.file_name().to_string_lossy().starts_with(APART) {
                fs::remove_dir(old.path()).ok();
            }
        }
        let own = mount.join(format!("{APART}{}", std::process::id()));
        let enter = || fs::write(own.join("cgroup.procs"), std::process::id().to_string());
        // Without the right to do so the tests run where they are.
        if fs::create_dir(&own).and_then(|()| enter()).is_ok() {
            ours::add_mark(OF_TESTS);
            ours::add_place(Netns::host().place());
        }
    });
}

/// What the names of all control groups of tests begin with.
pub const OF_TESTS: &str = "portwatch-test";
/// What the name of such a group begins with.
const APART: &str = "portwatch-tests-";

/// Returns where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup`, or
/// `/sys/fs/cgroup/unified` if the old hierarchies exist too.
#[must_use]
pub fn mount_point() -> PathBuf {
    mounted().expect("cgroup2 is mounted")
}

/// Returns whether there is such a hierarchy.
#[must_use]
pub fn is_mounted() -> bool {
    mounted().is_some()
}

fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let path = mount.split(' ').nth(4).filter(|_| kind.starts_with("cgroup2 "));
        path.map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;
    use rustix::process::Signal;

    #[test]
    fn a_process_runs_in_its_group_and_nothing_is_left() {
        let slice = Slice::new();
        let group = slice.group("user.slice/user-1004.slice/session-91.scope");
        let mut command = Command::new("cat");
        group.confine(&mut command);
        let process = Process::start(&mut command, Signal::KILL).unwrap();
        let said = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
        assert!(said.contains(&format!("0::{}\n", group.path)), "{said}");
        drop(process);
        let root = slice.root.clone();
        drop(slice);
        assert!(!root.exists());
    }
}
