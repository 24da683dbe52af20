//! Who has a socket open: the processes with a descriptor of its inode.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    enrich::{cgroups, host::Host, processes},
    evidence::{Gap, Process, Socket},
    kernel::records::Records,
};

/// Holders that are kept for one socket.
const MOST_HOLDERS: usize = 32;
/// Sockets whose holders are remembered.
const MOST_REMEMBERED: usize = 1024;
/// How long they are believed without another search. In a burst of refusals by
/// one socket, one search serves all.
const BELIEVED: Duration = Duration::from_secs(1);

/// How long the likely places may be looked at.
const NEAR: Duration = Duration::from_millis(50);

/// Process and descriptor, by the inode that is looked for.
type Wanted = HashMap<u64, Vec<(u32, u32)>>;

/// Searches, and remembers for a moment what was found.
#[derive(Default)]
pub struct Holders {
    remembered: HashMap<u64, (Instant, Vec<(u32, u32)>)>,
}

impl Holders {
    /// Writes into each socket who has it open. One walk over all descriptors
    /// serves all sockets, and a second one over the tables of single threads
    /// only those that the first has not found.
    pub fn name(
        &mut self,
        host: &Host,
        records: &dyn Records,
        sockets: &mut [Socket],
        deadline: Instant,
        gaps: &mut Vec<Gap>,
    ) {
        let mut known = Wanted::new();
        let mut wanted = Wanted::new();
        for socket in sockets.iter() {
            let Some(inode) = socket.inode else { continue };
            match self.recall(host, inode) {
                Some(holders) => known.insert(inode, holders),
                None => wanted.insert(inode, Vec::new()),
            };
        }
        self.look_near(host, records, sockets, &mut wanted, &mut known);
        if !wanted.is_empty() {
            let mut walk = Walk::until(deadline);
            walk.processes(&host.proc_root, &mut wanted);
            if wanted.values().any(Vec::is_empty) {
                walk.threads(&host.proc_root, &mut wanted);
            }
            if wanted.values().any(Vec::is_empty) {
                gaps.extend(walk.gaps());
            }
            self.remember(&wanted);
            known.extend(wanted);
        }
        describe(host, sockets, &known);
    }

    /// Looks where a holder is likely to be, before everywhere: at the process
    /// on record for the socket, and at those of the socket's own cgroup.
    fn look_near(
        &mut self,
        host: &Host,
        records: &dyn Records,
        sockets: &[Socket],
        wanted: &mut Wanted,
        known: &mut Wanted,
    ) {
        let mut near = Vec::new();
        for socket in sockets {
            if !socket.inode.is_some_and(|inode| wanted.contains_key(&inode)) {
                continue;
            }
            let owner = socket.cookie.and_then(|cookie| records.owner(cookie));
            near.extend(
                owner
                    .filter(|owner| processes::is_alive(host, owner.pid, owner.started_ns))
                    .map(|owner| owner.pid),
            );
            near.extend(socket.cgroup_id.into_iter().flat_map(|id| cgroups::members(host, id)));
        }
        near.sort_unstable();
        near.dedup();
        let mut walk = Walk::until(Instant::now() + NEAR);
        for pid in near {
            walk.table(pid, &host.proc_file(pid, "fd"), wanted);
        }
        let found: Wanted = wanted.extract_if(|_, holders| !holders.is_empty()).collect();
        self.remember(&found);
        known.extend(found);
    }

    /// What a recent search has found, if every one of them still has the
    /// socket open.
    fn recall(&self, host: &Host, inode: u64) -> Option<Vec<(u32, u32)>> {
        let (at, holders) = self.remembered.get(&inode)?;
        let holds = |&(pid, fd): &(u32, u32)| {
            let file = host.proc_file(pid, "fd").join(fd.to_string());
            socket_inode(&file) == Some(inode)
        };
        (at.elapsed() < BELIEVED && holders.iter().all(holds)).then(|| holders.clone())
    }

    fn remember(&mut self, found: &Wanted) {
        let now = Instant::now();
        if self.remembered.len() + found.len() > MOST_REMEMBERED {
            self.remembered.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        for (&inode, holders) in found.iter().filter(|(_, holders)| !holders.is_empty()) {
            if self.remembered.len() < MOST_REMEMBERED {
                self.remembered.insert(inode, (now, holders.clone()));
            }
        }
    }
}

fn describe(host: &Host, sockets: &mut [Socket], known: &Wanted) {
    let mut processes: HashMap<u32, Option<Process>> = HashMap::new();
    for socket in sockets {
        let holders = socket.inode.and_then(|inode| known.get(&inode));
        for &(pid, fd) in holders.into_iter().flatten().take(MOST_HOLDERS) {
            let process = processes.entry(pid).or_insert_with(|| processes::by_pid(host, pid));
            if let Some(process) = process {
                socket.holders.push(Process { fd: Some(fd), ..process.clone() });
            }
        }
    }
}

/// The inode behind a descriptor's link, if it is a socket's.
fn socket_inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A walk over /proc that knows what it was not let into.
struct Walk {
    deadline: Instant,
    refused: Vec<String>,
    late: bool,
}

impl Walk {
    fn until(deadline: Instant) -> Self {
        Self { deadline, refused: Vec::new(), late: false }
    }

    /// Every process's table.
    fn processes(&mut self, proc_root: &Path, wanted: &mut Wanted) {
        for (pid, folder) in numbered(proc_root) {
            if Instant::now() > self.deadline {
                self.late = true;
                return;
            }
            self.table(pid, &folder.join("fd"), wanted);
        }
    }

    /// Every thread's own table: a thread made without CLONE_FILES has one that
    /// its process's folder does not show.
    fn threads(&mut self, proc_root: &Path, wanted: &mut Wanted) {
        for (pid, folder) in numbered(proc_root) {
            for (thread, folder) in numbered(&folder.join("task")) {
                if Instant::now() > self.deadline {
                    self.late = true;
                    return;
                }
                if thread != pid {
                    self.table(pid, &folder.join("fd"), wanted);
                }
            }
        }
    }

    fn table(&mut self, pid: u32, table: &Path, wanted: &mut Wanted) {
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
            let inode = socket_inode(&entry.path());
            let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
            if let (Some(inode), Some(fd)) = (inode, fd)
                && let Some(holders) = wanted.get_mut(&inode)
                && !holders.iter().any(|&(holder, _)| holder == pid)
            {
                holders.push((pid, fd));
            }
        }
    }

    fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        if !self.refused.is_empty() {
            const MOST: usize = 8;
            let mut pids = self.refused.clone();
            pids.dedup();
            let more = pids.len().saturating_sub(MOST);
            pids.truncate(MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            gaps.push(Gap::new(
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
