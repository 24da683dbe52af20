//! Who has a socket open: the processes with a descriptor of its inode.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use crate::{
    enrich::{cgroups, halfway, host::Host, processes},
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

/// Holders that are looked at again, of all sockets together, before what was found
/// is believed: a link of /proc each.
const MOST_RECALLED: usize = 64;
/// Holders that are described for all sockets together.
const MOST_DESCRIBED: usize = 512;
/// Sockets whose holders are remembered.
const MOST_REMEMBERED: usize = 1024;
/// How long they are believed without another search. In a burst of refusals by
/// one socket, one search serves all.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long the likely places may be looked at.
const NEAR: Duration = Duration::from_millis(50);

/// Who has it open, by the inode that is looked for.
type Wanted = HashMap<u64, Descriptors>;

/// What the search for one socket has come to. That nobody has it open is said only
/// where every table of files was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    /// Some process has it open.
    Found,
    /// No process has it open.
    Nobody,
    /// Not every table of files was looked at; a gap says why.
    Incomplete,
}

/// What came of it, by inode.
#[derive(Debug, Default)]
pub struct Searches(HashMap<u64, Searched>);

impl Searches {
    /// What came of the search for one socket; `None` if it has no inode to be found by.
    pub fn of(&self, socket: &Socket) -> Option<Searched> {
        self.0.get(&socket.inode?).copied()
    }
}

/// Searches, and remembers for a moment what was found.
pub struct Holders {
    files: Paced,
    remembered: HashMap<u64, (Instant, Descriptors)>,
    /// Sockets that were looked for everywhere and that nobody has open.
    nobodys: HashMap<u64, Instant>,
}

impl Holders {
    /// Searches with `files` where nothing nearer helps.
    pub fn new(files: Box<dyn Files>) -> Self {
        Self { files: Paced::new(files), remembered: HashMap::new(), nobodys: HashMap::new() }
    }

    /// The search of all open files.
    pub fn files(&mut self) -> &mut dyn Files {
        &mut self.files
    }

    /// Writes into each socket who has it open. Returns what came of the search for
    /// each; what was not looked at is a gap.
    ///
    /// A socket that is found near is not looked for everywhere, which would take
    /// ten times as long on a busy machine: its holders are then those near, and
    /// not necessarily all. A process of another cgroup that inherited it is not
    /// among them until those have let go of it.
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

    /// All open files: one pass in the kernel, or else over /proc.
    ///
    /// # Errors
    /// What was not looked at.
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
        // What it has shown until then stays, and nobody is counted twice.
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

    /// What a recent search has found, if the first `each` of them still have the
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
                // Only the kernel's search sees it; within a moment it stands.
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
            }
        };
        let in_time = at.elapsed() < BELIEVED && Instant::now() < deadline;
        (in_time && holders.kept().take(each).all(holds)).then(|| holders.clone())
    }

    /// Moves what has been found over to what is known, and remembers it.
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

/// Holders that are looked at again for each of so many sockets.
fn recalled_each(sockets: usize) -> usize {
    (MOST_RECALLED / sockets.max(1)).clamp(1, MOST_HOLDERS)
}

/// Looks where a holder is likely to be, before everywhere: at the process on
/// record for the socket, and at those of the socket's own cgroup. A holder may have so
/// many descriptors that all of the time would be lost on it, so half of it is left.
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

/// Of many sockets fewer holders each are described, but all that are kept of one that
/// refused, and those first. The first of all is described even late: nothing else says
/// as much. Gives the gap for the others.
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
