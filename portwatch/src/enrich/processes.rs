//! Processes: who failed, and who has a socket open.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytemuck::Zeroable as _;
use jiff::Timestamp;
use portwatch_common::{Arguments, COMM_LEN, Owner};
use procfs::process;

use crate::{
    decode::RawFailure,
    enrich::{
        cgroups,
        host::{Host, read_beginning},
    },
    evidence::{Cgroup, Gap, Process},
    kernel::{nsfs::Hidden, records::Records},
};

/// Clock ticks of /proc/PID/stat: USER_HZ is 100 on every architecture that is
/// supported.
const TICK_NS: u64 = 10_000_000;
/// How much is read of a command line: as much as execve(2) takes by default.
const MOST_ARGUMENTS: u64 = 2 * 1024 * 1024;
/// How much is read of a parent's arguments.
const MOST_OF_PARENT: u64 = 4096;
/// How far up the parents are followed.
const MOST_ANCESTORS: usize = 32;

/// The process that failed. What the kernel saw comes first; /proc adds to it
/// if the process is still there, and still the same.
pub fn failing(
    host: &Host,
    records: &dyn Records,
    raw: &RawFailure,
    gaps: &mut Vec<Gap>,
) -> Process {
    let task = &raw.task;
    let mut found = Process {
        pid: task.pid,
        tid: Some(task.tid),
        ppid: task.ppid,
        comm: Some(task.comm.clone()),
        cmdline: task.cmdline.clone(),
        uid: Some(task.uid),
        started: task.started_ns.map(|ns| start(host, ns)),
        cgroup: Some(Cgroup { id: Some(task.cgroup_id), path: None }),
        ..Process::default()
    };
    match identified(host, task.pid) {
        Some(alive) if is_same(alive.started_ns, task.started_ns, raw.at_ns) => {
            found.exe = alive.process.exe;
            found.tty = alive.process.tty;
            found.ns_pid = alive.process.ns_pid;
            if !alive.process.cmdline.is_empty() {
                found.cmdline = alive.process.cmdline;
            }
            found.ppid = found.ppid.or(alive.process.ppid);
            found.started = found.started.or(alive.process.started);
            if let (Some(cgroup), Some(seen)) = (&mut found.cgroup, alive.process.cgroup) {
                cgroup.path = seen.path;
            }
        }
        _ => {}
    }
    // A process that is ending has neither file nor arguments any more.
    if found.exe.is_none() {
        let gone = "the process was gone when it was looked at";
        let why = host.hidden().map_or(gone, Hidden::why);
        gaps.push(Gap::new("process.exe", why));
        if task.cmdline_cut {
            gaps.push(Gap::new("process.cmdline", "only its first 512 bytes were seen"));
        }
    }
    name_cgroup(host, records, &mut found);
    found.ancestors = ancestors(host, found.ppid);
    found
}

/// A process that is there, with its start for telling it from a later one of
/// the same number.
struct Identified {
    process: Process,
    started_ns: u64,
}

/// Whether the process on record is still there under its number.
pub fn is_alive(host: &Host, owner: &Owner) -> bool {
    process::Process::new_with_root(host.proc_root.join(owner.pid.to_string()))
        .and_then(|process| process.stat())
        .is_ok_and(|stat| {
            let started_ns = stat.starttime.saturating_mul(TICK_NS);
            let recorded = (owner.started_ns != 0).then_some(owner.started_ns);
            // A zombie has nothing open any more: it only waits for its parent.
            !matches!(stat.state, 'Z' | 'X') && is_same(started_ns, recorded, owner.at_ns)
        })
}

/// Reads one process by its number; `None` if there is none, or it changes
/// while it is being read.
pub fn by_pid(host: &Host, pid: u32) -> Option<Process> {
    identified(host, pid).map(|found| found.process)
}

/// A process as the record has it, without a port; `None` as [`by_pid`].
pub fn owner(host: &Host, pid: u32) -> Option<(Owner, Arguments)> {
    let Identified { process, started_ns } = identified(host, pid)?;
    let path = process.cgroup.and_then(|cgroup| cgroup.path);
    let mut owner = Owner {
        started_ns,
        cgroup_id: path.and_then(|path| cgroups::id_of(host, &path)).unwrap_or_default(),
        pid,
        ppid: process.ppid.unwrap_or_default(),
        uid: process.uid.unwrap_or_default(),
        ..Owner::zeroed()
    };
    // The last byte of the name stays its NUL.
    let comm = process.comm.unwrap_or_default();
    owner.comm.iter_mut().zip(comm.bytes().take(COMM_LEN - 1)).for_each(|(to, from)| *to = from);
    let mut arguments = Arguments { started_ns, pid, ..Arguments::zeroed() };
    let cmdline = process.cmdline.iter().flat_map(|argument| argument.bytes().chain([0]));
    let bytes = arguments.cmdline.iter_mut().zip(cmdline).map(|(to, from)| *to = from).count();
    arguments.len = u16::try_from(bytes).unwrap_or_default();
    Some((owner, arguments))
}

/// Reads one process; `None` if it goes away, or its number goes to another,
/// while it is being read.
fn identified(host: &Host, pid: u32) -> Option<Identified> {
    let folder = host.proc_root.join(pid.to_string());
    let proc = process::Process::new_with_root(folder.clone()).ok()?;
    let stat = proc.stat().ok()?;
    let started_ns = stat.starttime.saturating_mul(TICK_NS);
    let status = proc.status().ok();
    let inside = status.as_ref().and_then(|status| status.nspid.as_ref()?.last().copied());
    let mut found = Process {
        pid,
        ns_pid: inside.and_then(|inside| u32::try_from(inside).ok()).filter(|&own| own != pid),
        core_dumping: status.as_ref().is_some_and(|status| status.core_dumping == Some(true)),
        zombie: stat.state == 'Z',
        ppid: u32::try_from(stat.ppid).ok(),
        tty: tty_name(stat.tty_nr()),
        exe: proc.exe().ok().map(|exe| exe.to_string_lossy().into_owned()),
        cmdline: read_beginning(&folder.join("cmdline"), MOST_ARGUMENTS)
            .map(|bytes| crate::decode::arguments(&bytes))
            .unwrap_or_default(),
        uid: status.map(|status| status.ruid),
        started: Some(host.wall_clock(started_ns)),
        cgroup: cgroups::read(&folder)
            .ok()
            .flatten()
            .map(|path| Cgroup { id: None, path: Some(path) }),
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

/// The wall-clock time of a process's start, in ticks as /proc has it, so that
/// one process has one start.
pub fn start(host: &Host, started_ns: u64) -> Timestamp {
    host.wall_clock(started_ns / TICK_NS * TICK_NS)
}

/// Names the cgroup of a process by its id, if its path is not known, and who
/// that is. It may be gone.
pub fn name_cgroup(host: &Host, records: &dyn Records, process: &mut Process) {
    if let (Some(cgroup), Some(root)) = (&mut process.cgroup, &host.cgroup_root)
        && cgroup.path.is_none()
    {
        let path = |id| cgroups::path_of_id(root, id).or_else(|| records.gone_cgroup(id));
        cgroup.path = cgroup.id.and_then(path);
    }
    name_owner(host, process);
}

/// Whether a process that started at `seen_ns` is the one that was there at `at_ns`: by its
/// start on record, which /proc counts in ticks; without that, whoever came later under
/// the same number is another.
fn is_same(seen_ns: u64, recorded: Option<u64>, at_ns: u64) -> bool {
    match recorded {
        Some(recorded) => recorded / TICK_NS == seen_ns / TICK_NS,
        None => seen_ns <= at_ns,
    }
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
        process.session_user =
            process.session.as_ref().and(owner.slice_user).and_then(|uid| host.user_name(uid));
    }
    process.user = process.uid.and_then(|uid| host.user_name(uid));
}

/// A terminal's name in /dev by its major and minor number; `None` for 0, no
/// terminal (Documentation/admin-guide/devices.txt).
fn tty_name((major, minor): (i32, i32)) -> Option<String> {
    Some(match (major, minor) {
        (0, _) => return None,
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        // Unix98 ptys: the minor number goes beyond its 256 into the major.
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    })
}

/// The parents, nearest first, without pid 1.
fn ancestors(host: &Host, parent: Option<u32>) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = parent;
    while let Some(pid) = next.filter(|&pid| pid > 1 && found.len() < MOST_ANCESTORS) {
        found.push(pid);
        next = parent_of(host, pid).map(|parent| parent.ppid);
    }
    found
}

/// A process among the parents of others.
#[derive(Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its name.
    pub comm: String,
    /// Its own parent.
    pub ppid: u32,
    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub started_ns: Option<u64>,
    /// Its arguments, cut after [`MOST_OF_PARENT`] bytes.
    pub argv: Vec<String>,
}

/// Reads a process on the way up from another; `None` if it is gone. The failing
/// process and its holders have most of that way in common, and the kernel takes
/// its time over a `stat`, so what was read is believed for a moment.
pub fn parent_of(host: &Host, pid: u32) -> Option<Arc<Parent>> {
    /// As long as one refusal takes; no number comes round again so soon.
    const BELIEVED: Duration = Duration::from_millis(50);
    /// A `stat` has some 300 bytes.
    const MOST_STAT: u64 = 4096;
    const MOST_REMEMBERED: usize = 256;
    let mut parents = host.parents.borrow_mut();
    if let Some((read, parent)) = parents.get(&pid)
        && read.elapsed() < BELIEVED
    {
        return Some(Arc::clone(parent));
    }
    let stat = read_beginning(&host.proc_file(pid, "stat"), MOST_STAT).ok()?;
    let (comm, ppid, started_ns) = parse_stat(&stat)?;
    let argv = read_beginning(&host.proc_file(pid, "cmdline"), MOST_OF_PARENT).unwrap_or_default();
    let parent = Arc::new(Parent { comm, ppid, started_ns, argv: crate::decode::arguments(&argv) });
    if parents.len() >= MOST_REMEMBERED {
        parents.clear();
    }
    parents.insert(pid, (Instant::now(), Arc::clone(&parent)));
    Some(parent)
}

/// The real user of a process; `None` if it is gone.
pub fn real_uid(host: &Host, pid: u32) -> Option<u32> {
    // The line stands before those that can be long.
    let status = read_beginning(&host.proc_file(pid, "status"), 4096).ok()?;
    let text = String::from_utf8_lossy(&status);
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Name, parent and start in `/proc/PID/stat` (`proc_pid_stat(5)`): `PID (NAME) S PPID …`,
/// where the name may be any bytes, brackets too. Not by procfs, which panics on
/// what is not in this form.
fn parse_stat(stat: &[u8]) -> Option<(String, u32, Option<u64>)> {
    let text = String::from_utf8_lossy(stat);
    let (before, after) = text.rsplit_once(')')?;
    let (_, comm) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks = fields.nth(17).and_then(|ticks| ticks.parse::<u64>().ok());
    Some((comm.to_owned(), parent, ticks.map(|ticks| ticks.saturating_mul(TICK_NS))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_of_the_same_number_is_another() {
        assert!(is_same(3_330_000_000, Some(3_334_000_000), 0));
        assert!(!is_same(3_330_000_000, Some(3_344_000_000), u64::MAX));
        assert!(is_same(3_330_000_000, None, 3_331_000_000));
        assert!(!is_same(3_330_000_000, None, 3_320_000_000));
    }

    #[test]
    fn a_name_may_have_brackets() {
        let read = |stat: &[u8]| parse_stat(stat);
        assert_eq!(read(b"7 (a) b (c) S 3 7 7 0"), Some(("a) b (c".to_owned(), 3, None)));
        assert_eq!(read(b"7 (\xff) R 0 0"), Some(("\u{fffd}".to_owned(), 0, None)));
        let whole = b"9 (a) S 1 9 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 333 4 5";
        assert_eq!(read(whole), Some(("a".to_owned(), 1, Some(3_330_000_000))));
        for broken in [&b""[..], b"7 (a", b")(", b"7 (a) S", b"7 (a) S -1 0"] {
            assert_eq!(read(broken), None);
        }
    }

    #[test]
    fn terminals_have_the_names_of_their_device_files() {
        for (number, name) in [
            ((136, 3), "pts/3"),
            ((137, 1), "pts/257"),
            ((4, 2), "tty2"),
            ((4, 64), "ttyS0"),
            ((5, 1), "console"),
            ((204, 64), "204:64"),
        ] {
            assert_eq!(tty_name(number).as_deref(), Some(name));
        }
        assert_eq!(tty_name((0, 0)), None);
    }
}
