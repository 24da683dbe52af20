//! Searches /proc, where the kernel's own search is not available: the descriptors of every
//! process, until a deadline.

use std::{fs, io, path::Path, time::Instant};

use super::{Wanted, descriptors::Descriptor};
use crate::{
    enrich::host::{Host, numbered, read_beginning},
    evidence::{Fact, Gap},
    kernel::nsfs::Hidden,
    text::bounds,
};

/// Descriptors between two checks of the deadline: a process may have half a million.
const AT_ONCE: usize = 128;

/// Returns the inode of a descriptor's link, if it is a socket's.
///
/// # Errors
/// The link was removed, or access was denied.
pub fn socket_inode(link: &Path) -> io::Result<Option<u64>> {
    let target = fs::read_link(link)?;
    let inode = target
        .to_str()
        .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
    Ok(inode)
}

/// A walk over /proc that counts what it could not read.
pub struct Walk {
    deadline: Instant,
    refused: Vec<u32>,
    late: bool,
}

impl Walk {
    /// Creates a walk that ends at the deadline.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, refused: Vec::new(), late: false }
    }

    /// Searches every process's descriptor table.
    pub fn processes(&mut self, host: &Host, wanted: &mut Wanted) {
        for (pid, folder) in numbered(&host.proc_root) {
            if self.is_late() {
                return;
            }
            self.table(pid, pid, &folder.join("fd"), wanted);
        }
    }

    /// Searches every thread's own table: a thread created without CLONE_FILES has one that
    /// its process's directory does not show.
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

    /// Returns whether the deadline has passed; then the search is incomplete.
    pub fn is_late(&mut self) -> bool {
        self.late |= Instant::now() > self.deadline;
        self.late
    }

    /// Searches one descriptor table, until all wanted descriptors are found or the deadline
    /// has passed.
    pub fn table(&mut self, pid: u32, tid: u32, table: &Path, wanted: &mut Wanted) {
        let entries = match fs::read_dir(table) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                if !table.parent().is_some_and(is_of_kernel) {
                    self.refused.push(pid);
                }
                return;
            }
            // It was closed after the listing.
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

    /// Ends the walk.
    ///
    /// # Errors
    /// The gaps, if some descriptor tables were not searched.
    pub fn complete(self, host: &Host) -> Result<(), Vec<Gap>> {
        const MOST: usize = 8;
        let mut gaps = Vec::new();
        let mut pids = self.refused;
        pids.dedup();
        if !pids.is_empty() {
            let pids = bounds::first_of(&pids, MOST);
            let why = format!("access to the descriptors of pid {pids} was denied");
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

/// Returns whether a process is a kernel thread, which cannot have sockets on a port among its
/// files (`PF_KTHREAD`, include/linux/sched.h).
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
            // It only claims the name.
            ("9 (kthreadd) S 0 0 0 0 -1 4194560 0 0", false),
            ("9 (a", false),
            ("", false),
        ] {
            fs::write(folder.path().join("stat"), stat).unwrap();
            assert_eq!(is_of_kernel(folder.path()), expected, "{stat}");
        }
    }
}
