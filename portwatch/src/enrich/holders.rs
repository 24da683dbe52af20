//! Who has a socket open: the processes with a descriptor of its inode.

use std::{
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use crate::{
    enrich::{cgroups, host::Host, processes},
    evidence::{Gap, Process, Socket},
    kernel::{files::Files, records::Records},
};

mod walk;

use walk::Walk;

/// Holders that are kept for one socket.
const MOST_HOLDERS: usize = 32;
/// Holders that are described for all sockets together.
const MOST_DESCRIBED: usize = 512;
/// Sockets whose holders are remembered.
const MOST_REMEMBERED: usize = 1024;
/// How long they are believed without another search. In a burst of refusals by
/// one socket, one search serves all.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long the likely places may be looked at.
const NEAR: Duration = Duration::from_millis(50);

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    pid: u32,
    /// The thread whose table it is in, where not all threads share one.
    tid: u32,
    fd: u32,
}

/// Who has it open, by the inode that is looked for.
type Wanted = HashMap<u64, Vec<Seat>>;

/// Searches, and remembers for a moment what was found.
pub struct Holders {
    files: Box<dyn Files>,
    remembered: HashMap<u64, (Instant, Vec<Seat>)>,
}

impl Holders {
    /// Searches with `files` where nothing nearer helps.
    pub fn new(files: Box<dyn Files>) -> Self {
        Self { files, remembered: HashMap::new() }
    }

    /// The search of all open files.
    pub fn files(&mut self) -> &mut dyn Files {
        &mut *self.files
    }

    /// Writes into each socket who has it open. Gives the inodes that were looked
    /// for everywhere and that nobody has.
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
    ) -> Vec<u64> {
        let mut known = Wanted::new();
        let mut wanted = Wanted::new();
        for inode in sockets.iter().filter_map(|socket| socket.inode) {
            match self.recall(host, inode) {
                Some(holders) => known.insert(inode, holders),
                None => wanted.insert(inode, Vec::new()),
            };
        }
        look_near(host, records, sockets, &mut wanted);
        self.settle(&mut wanted, &mut known);
        if !wanted.is_empty() {
            let missed = self.look_everywhere(host, &mut wanted, deadline);
            self.settle(&mut wanted, &mut known);
            if !missed.is_empty() {
                gaps.extend(missed);
                wanted.clear();
            }
        }
        gaps.extend(describe(host, sockets, &known));
        wanted.into_keys().collect()
    }

    /// All open files: one pass in the kernel, or else over /proc.
    fn look_everywhere(&mut self, host: &Host, wanted: &mut Wanted, deadline: Instant) -> Vec<Gap> {
        let inodes: Vec<u64> = wanted.keys().copied().collect();
        let searched = self.files.search(&inodes, deadline, &mut |file| {
            let seat = Seat { pid: file.pid, tid: file.tid, fd: file.fd };
            if let Some(holders) = wanted.get_mut(&file.inode)
                && !holders.iter().any(|holder| holder.pid == seat.pid)
            {
                holders.push(seat);
            }
        });
        let Err(why) = searched else { return Vec::new() };
        tracing::debug!(why, "searching /proc");
        let mut walk = Walk::until(deadline);
        walk.processes(host, wanted);
        if wanted.values().any(Vec::is_empty) {
            walk.threads(host, wanted);
        }
        if wanted.values().any(Vec::is_empty) { walk.gaps() } else { Vec::new() }
    }

    /// What a recent search has found, if every one of them still has the
    /// socket open.
    fn recall(&self, host: &Host, inode: u64) -> Option<Vec<Seat>> {
        let (at, holders) = self.remembered.get(&inode)?;
        let holds = |&Seat { pid, tid, fd }: &Seat| {
            let link = host.proc_file(pid, &format!("task/{tid}/fd/{fd}"));
            match walk::socket_inode(&link) {
                Ok(found) => found == Some(inode),
                // Only the kernel's search sees it; within a moment it stands.
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
            }
        };
        (at.elapsed() < BELIEVED && holders.iter().all(holds)).then(|| holders.clone())
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

/// Looks where a holder is likely to be, before everywhere: at the process on
/// record for the socket, and at those of the socket's own cgroup.
fn look_near(host: &Host, records: &dyn Records, sockets: &[Socket], wanted: &mut Wanted) {
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
    let deadline = Instant::now() + NEAR;
    let mut walk = Walk::until(deadline);
    for pid in near {
        if Instant::now() > deadline {
            break;
        }
        walk.table(pid, pid, &host.proc_file(pid, "fd"), wanted);
    }
}

/// Of many sockets fewer holders each are described, but all that are kept of one that
/// refused. Gives the gap for the others.
fn describe(host: &Host, sockets: &mut [Socket], known: &Wanted) -> Option<Gap> {
    let mut processes: HashMap<u32, Option<Process>> = HashMap::new();
    let each = (MOST_DESCRIBED / known.len().max(1)).clamp(1, MOST_HOLDERS);
    let mut left_out = 0;
    for socket in sockets {
        let Some(holders) = socket.inode.and_then(|inode| known.get(&inode)) else { continue };
        let most = if socket.refused == Some(true) { MOST_HOLDERS } else { each };
        left_out += holders.len().saturating_sub(most);
        for &Seat { pid, tid, fd } in holders.iter().take(most) {
            let process = processes.entry(pid).or_insert_with(|| processes::by_pid(host, pid));
            if let Some(process) = process {
                let tid = (tid != pid).then_some(tid);
                socket.holders.push(Process { fd: Some(fd), tid, ..process.clone() });
            }
        }
    }
    let why = format!("{left_out} more holders are not listed");
    (left_out > 0).then(|| Gap::new("sockets.holders.more", why))
}
