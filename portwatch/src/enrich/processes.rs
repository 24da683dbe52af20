//! Processes: who failed, and who has a socket open.

use std::{collections::HashMap, fs, path::Path, time::Instant};

use procfs::process;

use crate::{
    decode::RawTask,
    enrich::{cgroups, host::Host},
    evidence::{Cgroup, Gap, Process, Socket},
};

/// Clock ticks of /proc/PID/stat: USER_HZ is 100 on every architecture that is
/// supported.
const TICK_NS: u64 = 10_000_000;
/// How far up the parents are followed.
const MOST_ANCESTORS: usize = 32;
/// Holders that are kept for one socket.
const MOST_HOLDERS: usize = 32;

/// The process that failed. What the kernel saw comes first; /proc adds to it
/// if the process is still there, and still the same.
pub fn failing(host: &Host, task: &RawTask, gaps: &mut Vec<Gap>) -> Process {
    let mut found = Process {
        pid: task.pid,
        tid: Some(task.tid),
        ppid: task.ppid,
        comm: Some(task.comm.clone()),
        cmdline: task.cmdline.clone(),
        uid: Some(task.uid),
        started: task.started_ns.map(|ns| host.wall_clock(ns)),
        cgroup: Some(Cgroup { id: Some(task.cgroup_id), path: None }),
        ..Process::default()
    };
    match identified(host, task.pid) {
        Some(alive) if same_start(alive.started_ns, task.started_ns) => {
            found.exe = alive.process.exe;
            if !alive.process.cmdline.is_empty() {
                found.cmdline = alive.process.cmdline;
            }
            found.ppid = found.ppid.or(alive.process.ppid);
            found.started = found.started.or(alive.process.started);
            if let (Some(cgroup), Some(seen)) = (&mut found.cgroup, alive.process.cgroup) {
                cgroup.path = seen.path;
            }
        }
        _ => {
            gaps.push(Gap::new("process.exe", "the process was gone when it was looked at"));
            if task.cmdline_cut {
                gaps.push(Gap::new("process.cmdline", "only its first 512 bytes were seen"));
            }
        }
    }
    if let Some(cgroup) = &mut found.cgroup
        && cgroup.path.is_none()
    {
        let root = host.cgroup_root.as_deref();
        cgroup.path = root.and_then(|root| cgroups::path_of_id(root, task.cgroup_id));
    }
    found.ancestors = ancestors(host, found.ppid);
    name_owner(host, &mut found);
    found
}

/// A process that is there, with its start for telling it from a later one of
/// the same number.
struct Identified {
    process: Process,
    started_ns: u64,
}

/// Reads one process; `None` if it goes away, or its number goes to another,
/// while it is being read.
fn identified(host: &Host, pid: u32) -> Option<Identified> {
    let folder = host.proc_root.join(pid.to_string());
    let proc = process::Process::new_with_root(folder.clone()).ok()?;
    let stat = proc.stat().ok()?;
    let started_ns = stat.starttime.saturating_mul(TICK_NS);
    let mut found = Process {
        pid,
        ppid: u32::try_from(stat.ppid).ok(),
        exe: proc.exe().ok().map(|exe| exe.to_string_lossy().into_owned()),
        cmdline: fs::read(folder.join("cmdline"))
            .map(|bytes| crate::decode::arguments(&bytes))
            .unwrap_or_default(),
        uid: proc.status().ok().map(|status| status.ruid),
        started: Some(host.wall_clock(started_ns)),
        cgroup: cgroups::read(&folder).ok().flatten().map(|path| Cgroup { id: None, path: Some(path) }),
        comm: Some(stat.comm),
        ..Process::default()
    };
    let again = process::Process::new_with_root(folder).and_then(|proc| proc.stat()).ok()?;
    if again.starttime != stat.starttime {
        return None;
    }
    name_owner(host, &mut found);
    Some(Identified { process: found, started_ns })
}

/// /proc counts in ticks; without a start on record there is nothing to compare.
fn same_start(seen_ns: u64, recorded: Option<u64>) -> bool {
    recorded.is_none_or(|recorded| recorded / TICK_NS == seen_ns / TICK_NS)
}

/// Unit, container, session and user name, from cgroup path and uid.
fn name_owner(host: &Host, process: &mut Process) {
    if let Some(path) = process.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref()) {
        let owner = cgroups::owner(path);
        process.unit = owner.unit;
        process.unit_owner = owner.unit_owner;
        process.container = owner.container;
        process.pod = owner.pod;
        process.session = owner.session;
    }
    process.user = process.uid.and_then(|uid| user_name(&host.etc_root.join("passwd"), uid));
}

/// A user's name in passwd(5).
fn user_name(passwd: &Path, uid: u32) -> Option<String> {
    let text = fs::read_to_string(passwd).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The parents, nearest first, without pid 1.
fn ancestors(host: &Host, parent: Option<u32>) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = parent;
    while let Some(pid) = next.filter(|&pid| pid > 1 && found.len() < MOST_ANCESTORS) {
        found.push(pid);
        next = process::Process::new_with_root(host.proc_root.join(pid.to_string()))
            .and_then(|parent| parent.stat())
            .ok()
            .and_then(|stat| u32::try_from(stat.ppid).ok());
    }
    found
}

/// Finds who has the sockets open and writes it into them: one walk over all
/// descriptors for all sockets together, and a second one over the tables of
/// single threads only for what the first has not found.
pub fn name_holders(host: &Host, sockets: &mut [Socket], deadline: Instant, gaps: &mut Vec<Gap>) {
    let mut wanted: HashMap<u64, Vec<(u32, u32)>> =
        sockets.iter().filter_map(|socket| socket.inode).map(|inode| (inode, Vec::new())).collect();
    if wanted.is_empty() {
        return;
    }
    let mut walk = Walk { deadline, refused: Vec::new(), late: false };
    walk.all(&host.proc_root, "fd", &mut wanted);
    if wanted.values().any(Vec::is_empty) {
        walk.threads(&host.proc_root, &mut wanted);
    }
    let mut processes: HashMap<u32, Option<Process>> = HashMap::new();
    let mut nameless = false;
    for socket in sockets {
        let Some(holders) = socket.inode.and_then(|inode| wanted.get(&inode)) else { continue };
        nameless |= holders.is_empty();
        for &(pid, fd) in holders.iter().take(MOST_HOLDERS) {
            let known = processes
                .entry(pid)
                .or_insert_with(|| identified(host, pid).map(|found| found.process));
            if let Some(process) = known {
                socket.holders.push(Process { fd: Some(fd), ..process.clone() });
            }
        }
    }
    if nameless {
        gaps.extend(walk.gaps());
    }
}

/// A walk over /proc that knows what it was not let into.
struct Walk {
    deadline: Instant,
    refused: Vec<String>,
    late: bool,
}

impl Walk {
    /// Every process's table `table` (`fd`).
    fn all(&mut self, proc_root: &Path, table: &str, wanted: &mut HashMap<u64, Vec<(u32, u32)>>) {
        for (pid, folder) in numbered(proc_root) {
            if Instant::now() > self.deadline {
                self.late = true;
                return;
            }
            self.table(pid, &folder.join(table), wanted);
        }
    }

    /// Every thread's own table: a thread made without CLONE_FILES has one that
    /// its process's folder does not show.
    fn threads(&mut self, proc_root: &Path, wanted: &mut HashMap<u64, Vec<(u32, u32)>>) {
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

    fn table(&mut self, pid: u32, table: &Path, wanted: &mut HashMap<u64, Vec<(u32, u32)>>) {
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
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|target| target.strip_prefix("socket:["))
                .and_then(|rest| rest.strip_suffix(']'))
                .and_then(|inode| inode.parse::<u64>().ok());
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
fn numbered(folder: &Path) -> Vec<(u32, std::path::PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect()
}
