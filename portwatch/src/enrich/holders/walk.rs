//! The search in /proc, for where the kernel's own is not to be had: every
//! process's descriptors, within a deadline.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{Seat, Wanted};
use crate::{enrich::host::Host, evidence::Gap};

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
    refused: Vec<String>,
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
            if Instant::now() > self.deadline {
                self.late = true;
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
                if Instant::now() > self.deadline {
                    self.late = true;
                    return;
                }
                if thread != pid {
                    self.table(pid, thread, &folder.join("fd"), wanted);
                }
            }
        }
    }

    /// One table of descriptors.
    pub fn table(&mut self, pid: u32, tid: u32, table: &Path, wanted: &mut Wanted) {
        let entries = match fs::read_dir(table) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.refused.push(pid.to_string());
                return;
            }
            // Gone since the listing.
            Err(_) => return,
        };
        for entry in entries.flatten() {
            let inode = socket_inode(&entry.path()).ok().flatten();
            let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
            if let (Some(inode), Some(fd)) = (inode, fd)
                && let Some(holders) = wanted.get_mut(&inode)
                && !holders.iter().any(|holder| holder.pid == pid)
            {
                holders.push(Seat { pid, tid, fd });
            }
        }
    }

    /// What could not be looked at.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if !self.refused.is_empty() {
            const MOST: usize = 8;
            let mut pids = self.refused.clone();
            pids.dedup();
            let more = pids.len().saturating_sub(MOST);
            pids.truncate(MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            gaps.push(Gap::denied(
                "sockets.holders",
                format!("the descriptors of pid {}{more} may not be read", pids.join(", ")),
            ));
        }
        if self.late {
            gaps.push(Gap::new("sockets.holders", "the search took longer than its deadline"));
        }
        gaps
    }
}

/// The sub-folders that are numbers.
fn numbered(folder: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect()
}
