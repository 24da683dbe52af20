//! Finds holders: the processes with a descriptor of a socket's inode.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use crate::{
    enrich::{
        cgroups, halfway,
        host::{self, Host},
        processes,
    },
    evidence::{Fact, Gap, Process, Socket},
    kernel::{
        files::{Files, Sought},
        records::Records,
    },
};

mod descriptors;
mod paced;
mod walk;

use descriptors::{Descriptor, Descriptors, MOST_HOLDERS};
use paced::Paced;
use walk::Walk;

/// The most holders of all sockets together that are checked again before a cached search is
/// used. Each check reads one link of /proc.
const MOST_RECALLED: usize = 64;
/// The most holders of all sockets together that are described.
const MOST_DESCRIBED: usize = 512;
/// The most sockets whose holders are cached.
const MOST_REMEMBERED: usize = 1024;
/// How long a search is cached. In a burst of failed binds because of one socket, one search
/// serves all of them.
const BELIEVED: Duration = Duration::from_secs(1);
/// Time limit for the likely places.
const NEAR: Duration = Duration::from_millis(50);

/// Descriptors by the inode that is searched.
type Wanted = HashMap<u64, Descriptors>;

/// Result of the search for one socket. It is `Nobody` only if every descriptor table was
/// searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    /// A process has it open.
    Found,
    /// No process has it open.
    Nobody,
    /// Not every descriptor table was searched; a gap says why.
    Incomplete,
}

/// Results by inode.
#[derive(Debug, Default)]
pub struct Searches(HashMap<u64, Searched>);

impl Searches {
    /// Returns the result for one socket; `None` if it has no inode to search for.
    pub fn of(&self, socket: &Socket) -> Option<Searched> {
        self.0.get(&socket.inode?).copied()
    }
}

/// Searches, and caches the results for a moment.
pub struct Holders {
    files: Paced,
    remembered: HashMap<u64, (Instant, Descriptors)>,
    /// Sockets that no process has open, by a complete search.
    nobodys: HashMap<u64, Instant>,
}

impl Holders {
    /// Creates a search that uses `files` if the holder is not in the likely places.
    pub fn new(files: Box<dyn Files>) -> Self {
        Self { files: Paced::new(files), remembered: HashMap::new(), nobodys: HashMap::new() }
    }

    /// Returns the search of all open files.
    pub fn files(&mut self) -> &mut dyn Files {
        &mut self.files
    }

    /// Adds the holders to each socket. Returns the result of the search for each socket. What
    /// was not searched becomes a gap.
    ///
    /// A socket that is found in a likely place is not searched everywhere, because that takes
    /// ten times as long on a busy machine. Its holders are then those in the likely places,
    /// and possibly not all: a process of another control group that inherited the socket
    /// appears only after those holders have closed it.
    pub fn name(
        &mut self,
        host: &Host,
        records: &dyn Records,
        sockets: &mut [Socket],
        deadline: Instant,
        gaps: &mut Vec<Gap>,
    ) -> Searches {
        let mut known = Wanted::new();
        let mut wanted = Wanted::new();
        let each = recalled_each(sockets.len());
        for inode in sockets.iter().filter_map(|socket| socket.inode) {
            match self.recall(host, inode, each, deadline) {
                Some(holders) => known.insert(inode, holders),
                None => wanted.insert(inode, Descriptors::default()),
            };
        }
        look_near(host, records, sockets, &mut wanted, deadline);
        self.settle(&mut wanted, &mut known);
        let mut searches = Searches::default();
        let now = Instant::now();
        self.nobodys.retain(|_, at| now.duration_since(*at) < BELIEVED);
        let nobodys = wanted.extract_if(|inode, _| self.nobodys.contains_key(inode));
        searches.0.extend(nobodys.map(|(inode, _)| (inode, Searched::Nobody)));
        if !wanted.is_empty() {
            let missed = self.look_everywhere(host, &mut wanted, deadline);
            self.settle(&mut wanted, &mut known);
            let left = match missed {
                Ok(()) => {
                    let room = MOST_REMEMBERED.saturating_sub(self.nobodys.len());
                    self.nobodys.extend(wanted.keys().take(room).map(|&inode| (inode, now)));
                    Searched::Nobody
                }
                Err(missed) => {
                    gaps.extend(missed.into_iter().filter(|_| !wanted.is_empty()));
                    Searched::Incomplete
                }
            };
            searches.0.extend(wanted.keys().map(|&inode| (inode, left)));
        }
        gaps.extend(describe(host, sockets, &known, deadline));
        searches.0.extend(known.into_keys().map(|inode| (inode, Searched::Found)));
        searches
    }

    /// Searches all open files: by one pass in the kernel, otherwise through /proc.
    ///
    /// # Errors
    /// The gaps for what was not searched.
    fn look_everywhere(
        &mut self,
        host: &Host,
        wanted: &mut Wanted,
        deadline: Instant,
    ) -> Result<(), Vec<Gap>> {
        let inodes: Vec<u64> = wanted.keys().copied().collect();
        let searched = self.files.search(Sought::Sockets(&inodes), deadline, &mut |file| {
            let descriptor = Descriptor { pid: file.pid, tid: file.tid, fd: file.fd };
            if let Some(holders) = wanted.get_mut(&file.inode) {
                holders.add(descriptor);
            }
        });
        let Err(why) = searched else { return Ok(()) };
        tracing::debug!(%why, "searches /proc");
        // Holders found before the error stay, and no holder is counted twice.
        let mut left: Wanted = wanted.extract_if(|_, holders| holders.is_empty()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut walk = Walk::until(deadline);
        walk.processes(host, &mut left);
        if left.values().any(Descriptors::is_empty) {
            walk.threads(host, &mut left);
        }
        wanted.extend(left);
        walk.complete(host)
    }

    /// Returns what a recent search has found, if the first `each` holders still have the
    /// socket open.
    fn recall(
        &self,
        host: &Host,
        inode: u64,
        each: usize,
        deadline: Instant,
    ) -> Option<Descriptors> {
        let (at, holders) = self.remembered.get(&inode)?;
        let holds = |Descriptor { pid, tid, fd }: Descriptor| {
            let link = host.proc_file(pid, &format!("task/{tid}/fd/{fd}"));
            match walk::socket_inode(&link) {
                Ok(found) => found == Some(inode),
                // Only the kernel's search can see this process. The cached result remains
                // valid for a moment.
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
            }
        };
        let in_time = at.elapsed() < BELIEVED && Instant::now() < deadline;
        (in_time && holders.kept().take(each).all(holds)).then(|| holders.clone())
    }

    /// Moves the holders that were found to the known holders, and caches them.
    fn settle(&mut self, wanted: &mut Wanted, known: &mut Wanted) {
        let now = Instant::now();
        for (inode, holders) in wanted.extract_if(|_, holders| !holders.is_empty()) {
            if self.remembered.len() >= MOST_REMEMBERED {
                self.remembered.retain(|_, (at, _)| at.elapsed() < BELIEVED);
            }
            if self.remembered.len() < MOST_REMEMBERED {
                self.remembered.insert(inode, (now, holders.clone()));
            }
            known.insert(inode, holders);
        }
    }
}

/// Searches the descriptor tables of all processes for sockets, by inode, until the deadline.
/// Returns a process and its descriptor for each one that was found.
pub fn one_of_each(
    host: &Host,
    inodes: impl Iterator<Item = u64>,
    deadline: Instant,
) -> HashMap<u64, (u32, u32)> {
    let mut wanted: Wanted = inodes.map(|inode| (inode, Descriptors::default())).collect();
    let mut found = HashMap::new();
    let mut walk = Walk::until(deadline);
    for (pid, folder) in host::numbered(&host.proc_root) {
        if wanted.is_empty() || walk.is_late() {
            break;
        }
        walk.table(pid, pid, &folder.join("fd"), &mut wanted);
        let those = wanted.extract_if(|_, holders| !holders.is_empty());
        found.extend(those.filter_map(|(inode, holders)| {
            holders.kept().next().map(|Descriptor { pid, fd, .. }| (inode, (pid, fd)))
        }));
    }
    found
}

/// Returns how many holders of each socket are checked again, for this number of sockets.
fn recalled_each(sockets: usize) -> usize {
    (MOST_RECALLED / sockets.max(1)).clamp(1, MOST_HOLDERS)
}

/// Searches the likely places before all others: the process in the socket's owner record, and
/// the processes of the socket's own control group. A process may have so many descriptors that
/// it takes all of the time, so half of the time is reserved.
fn look_near(
    host: &Host,
    records: &dyn Records,
    sockets: &[Socket],
    wanted: &mut Wanted,
    deadline: Instant,
) {
    let mut walk = Walk::until(halfway(deadline).min(Instant::now() + NEAR));
    let mut groups = HashSet::new();
    let mut near = BTreeSet::new();
    for socket in sockets {
        if !socket.inode.is_some_and(|inode| wanted.contains_key(&inode)) {
            continue;
        }
        if walk.is_late() {
            break;
        }
        let owner = socket.cookie.and_then(|cookie| records.owner(cookie));
        near.extend(owner.filter(|owner| processes::is_alive(host, owner)).map(|owner| owner.pid));
        let group = socket.cgroup_id.filter(|&id| groups.insert(id));
        near.extend(group.into_iter().flat_map(|id| cgroups::members(host, id)));
    }
    for pid in near {
        if walk.is_late() {
            break;
        }
        walk.table(pid, pid, &host.proc_file(pid, "fd"), wanted);
    }
}

/// Describes the holders. With many sockets, fewer holders of each socket are described. Of the
/// blocking socket all kept holders are described, and those first. The very first holder is
/// described even after the deadline, because it is the most important one. Returns the gap for
/// the others.
fn describe(host: &Host, sockets: &mut [Socket], known: &Wanted, deadline: Instant) -> Option<Gap> {
    let mut processes: HashMap<u32, Option<Process>> = HashMap::new();
    let each = (MOST_DESCRIBED / known.len().max(1)).clamp(1, MOST_HOLDERS);
    let (mut left_out, mut late) = (0, 0);
    let mut sockets: Vec<&mut Socket> = sockets.iter_mut().collect();
    sockets.sort_by_key(|socket| socket.refused != Some(true));
    for socket in sockets {
        let Some(holders) = socket.inode.and_then(|inode| known.get(&inode)) else { continue };
        let most = if socket.refused == Some(true) { MOST_HOLDERS } else { each };
        left_out += holders.count().saturating_sub(most);
        for Descriptor { pid, tid, fd } in holders.kept().take(most) {
            if !processes.contains_key(&pid) && !processes.is_empty() && Instant::now() > deadline {
                late += 1;
                continue;
            }
            let process = processes.entry(pid).or_insert_with(|| processes::by_pid(host, pid));
            if let Some(process) = process {
                let tid = (tid != pid).then_some(tid);
                socket.holders.push(Process { fd: Some(fd), tid, ..process.clone() });
            }
        }
    }
    let why = match (left_out, late) {
        (0, 0) => return None,
        (_, 0) => format!("{left_out} more holders are not listed"),
        _ => {
            let all = left_out + late;
            format!("{all} more holders are not listed, {late} of them for lack of time")
        }
    };
    Some(Gap::new(Fact::MoreHolders, why))
}

#[cfg(test)]
mod tests;
