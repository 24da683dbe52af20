//! The search in /proc, for where the kernel's own is not to be had: every
//! process's descriptors, within a deadline.

use std::{fs, io, path::Path, time::Instant};

use super::{Wanted, descriptors::Descriptor};
use crate::{
    enrich::host::{Host, numbered, read_beginning},
    evidence::{Fact, Gap},
    kernel::nsfs::Hidden,
    text::bounds,
};

/// Descriptors between two looks at the clock: a process may have half a million.
const AT_ONCE: usize = 128;

/// The inode behind a descriptor's link, if it is a socket's.
///
/// # Errors
/// The link is gone, or may not be read.
pub fn socket_inode(link: &Path) -> io::Result<Option<u64>> {
    let target = fs::read_link(link)?;
    let inode = target
        .to_str()
        .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
    Ok(inode)
}

/// A walk over /proc that knows what it was not let into.
pub struct Walk {
    deadline: Instant,
    refused: Vec<u32>,
    late: bool,
}

impl Walk {
    /// Nothing looked at yet.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, refused: Vec::new(), late: false }
    }

    /// Every process's table.
    pub fn processes(&mut self, host: &Host, wanted: &mut Wanted) {
        for (pid, folder) in numbered(&host.proc_root) {
            if self.is_late() {
                return;
            }
            self.table(pid, pid, &folder.join("fd"), wanted);
        }
    }

    /// Every thread's own table: a thread made without CLONE_FILES has one that
    /// its process's folder does not show.
    pub fn threads(&mut self, host: &Host, wanted: &mut Wanted) {
        for (pid, folder) in numbered(&host.proc_root) {
            for (thread, folder) in numbered(&folder.join("task")) {
                if self.is_late() {
                    return;
                }
                if thread != pid {
                    self.table(pid, thread, &folder.join("fd"), wanted);
                }
            }
        }
    }

    /// Whether the deadline has passed; then not everything was looked at.
    pub fn is_late(&mut self) -> bool {
        self.late |= Instant::now() > self.deadline;
        self.late
    }

    /// One table of descriptors, as far as to the last that is wanted or to the deadline.
    pub fn table(&mut self, pid: u32, tid: u32, table: &Path, wanted: &mut Wanted) {
        let entries = match fs::read_dir(table) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                if !table.parent().is_some_and(is_of_kernel) {
                    self.refused.push(pid);
                }
                return;
            }
            // Gone since the listing.
            Err(_) => return,
        };
        let mut left = wanted.len();
        for (number, entry) in entries.flatten().enumerate() {
            if number % AT_ONCE == 0 && self.is_late() {
                return;
            }
            let inode = socket_inode(&entry.path()).ok().flatten();
            let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
            if let (Some(inode), Some(fd)) = (inode, fd)
                && let Some(holders) = wanted.get_mut(&inode)
                && holders.add(Descriptor { pid, tid, fd })
            {
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
    }

    /// Whether every table was looked at.
    ///
    /// # Errors
    /// What was not, and why.
    pub fn complete(self, host: &Host) -> Result<(), Vec<Gap>> {
        const MOST: usize = 8;
        let mut gaps = Vec::new();
        let mut pids = self.refused;
        pids.dedup();
        if !pids.is_empty() {
            let pids = bounds::first_of(&pids, MOST);
            let why = format!("the descriptors of pid {pids} may not be read");
            gaps.push(Gap::denied(Fact::Holders, why));
        }
        if self.late {
            gaps.push(Gap::new(Fact::Holders, "the search took longer than its deadline"));
        }
        gaps.extend(host.hidden().map(|hidden| match hidden {
            Hidden::PidNamespace => Gap::new(Fact::Holders, hidden.why()),
            Hidden::OtherUsers => Gap::denied(Fact::Holders, hidden.why()),
        }));
        if gaps.is_empty() { Ok(()) } else { Err(gaps) }
    }
}

/// Whether a process is a thread of the kernel's own, which has no files that could be
/// sockets on a port (`PF_KTHREAD`, include/linux/sched.h).
fn is_of_kernel(proc_folder: &Path) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let Ok(bytes) = read_beginning(&proc_folder.join("stat"), 4096) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    let flags = text
        .rsplit_once(')')
        .and_then(|(_, after)| after.split_ascii_whitespace().nth(6)?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_the_kernels_own_is_known_by_its_flags() {
        let folder = tempfile::tempdir().unwrap();
        for (stat, expected) in [
            ("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0", true),
            ("9 (a) S) R 1 9 9 0 -1 4194304 0 0", false),
            // It only calls itself so.
            ("9 (kthreadd) S 0 0 0 0 -1 4194560 0 0", false),
            ("9 (a", false),
            ("", false),
        ] {
            fs::write(folder.path().join("stat"), stat).unwrap();
            assert_eq!(is_of_kernel(folder.path()), expected, "{stat}");
        }
    }
}
