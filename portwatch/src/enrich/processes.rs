//! Processes: the one whose bind failed, and those that have a socket open.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytemuck::Zeroable as _;
use jiff::Timestamp;
use portwatch_common::{Arguments, COMM_LEN, Owner};

use crate::{
    decode::RawFailure,
    enrich::{
        aside::Who,
        cgroups,
        host::{Host, read_beginning},
    },
    evidence::{Cgroup, Fact, Gap, Process},
    kernel::{nsfs::Hidden, records::Records},
    proc::{self, MOST_STAT, MOST_STATUS, Stat, Status, TICK_NS},
    redact::{Cmdline, Unredacted},
};

mod state;

/// The most generations of parents that are followed.
const MOST_ANCESTORS: usize = 32;

/// Describes the failing process. What the kernel side saw comes first; /proc adds to it if the
/// process is still running and still the same.
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
        cmdline: host.redacted(&task.cmdline),
        uid: Some(task.uid),
        started: task.started_ns.map(|ns| start(host, ns)),
        cgroup: Some(Cgroup { id: Some(task.cgroup_id), path: None }),
        ..Process::default()
    };
    match identified(host, task.pid, &task.cmdline) {
        Some(alive) if is_same(alive.started_ns, task.started_ns, raw.bind.at_ns) => {
            found.exe = alive.process.exe;
            found.cwd = alive.process.cwd;
            found.tty = alive.process.tty;
            found.ns_pid = alive.process.ns_pid;
            found.state = alive.process.state;
            found.sigterm = alive.process.sigterm;
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
    // A process that is exiting no longer has an executable or arguments.
    if found.exe.is_none() {
        let gone = "the process had exited before it could be read";
        let why = host.hidden().map_or(gone, Hidden::why);
        gaps.push(Gap::new(Fact::Exe, why));
        if task.cmdline.is_cut() {
            gaps.push(Gap::new(Fact::Arguments, "only its first 512 bytes were seen"));
        }
    }
    name_cgroup(host, records, &mut found);
    found.ancestors = line(host, found.ppid);
    found
}

/// A running process, with its start time, which distinguishes it from a later process with the
/// same pid.
struct Identified {
    process: Process,
    started_ns: u64,
}

/// Returns whether the process in the owner record is still running under its pid.
pub fn is_alive(host: &Host, owner: &Owner) -> bool {
    let recorded = (owner.started_ns != 0).then_some(owner.started_ns);
    is_running(host, owner.pid, recorded, owner.at_ns)
}

/// Returns whether the process that was running at `at_ns`, with the recorded start time if
/// there is one, is still running. A zombie has nothing open any more: it only waits for its
/// parent.
pub fn is_running(host: &Host, pid: u32, recorded: Option<u64>, at_ns: u64) -> bool {
    let stat = stat(host, pid);
    stat.is_some_and(|stat| !stat.is_zombie() && is_same(stat.started_ns, recorded, at_ns))
}

/// Reads one process by its pid. Returns `None` if there is none, or if it changes while it is
/// being read.
pub fn by_pid(host: &Host, pid: u32) -> Option<Process> {
    identified(host, pid, &Unredacted::default()).map(|found| found.process)
}

/// Returns a process as an owner record, without a port, or `None` as [`by_pid`] does.
pub fn owner(host: &Host, pid: u32) -> Option<(Owner, Arguments)> {
    let Identified { process, started_ns } = identified(host, pid, &Unredacted::default())?;
    let path = process.cgroup.and_then(|cgroup| cgroup.path);
    let mut owner = Owner {
        started_ns,
        cgroup_id: path.and_then(|path| cgroups::id_of(host, &path)).unwrap_or_default(),
        pid,
        ppid: process.ppid.unwrap_or_default(),
        uid: process.uid.unwrap_or_default(),
        ..Owner::zeroed()
    };
    // The last byte of the name stays NUL.
    let comm = process.comm.unwrap_or_default();
    owner.comm.iter_mut().zip(comm.bytes().take(COMM_LEN - 1)).for_each(|(to, from)| *to = from);
    let mut arguments = Arguments { started_ns, pid, ..Arguments::zeroed() };
    let cmdline = process.cmdline.iter().flat_map(|argument| argument.bytes().chain([0]));
    let bytes = arguments.cmdline.iter_mut().zip(cmdline).map(|(to, from)| *to = from).count();
    arguments.len = u16::try_from(bytes).unwrap_or_default();
    Some((owner, arguments))
}

/// Reads one process. Returns `None` if it exits, or its pid is reused, while it is being read.
/// The arguments are read if `known` does not contain all of them.
fn identified(host: &Host, pid: u32, known: &Unredacted) -> Option<Identified> {
    let Stat { comm, state, ppid, tty, started_ns } = stat(host, pid)?;
    let Status { uid, ns_pid, core_dumping, signals } = status(host, pid);
    let folder = host.proc_root.join(pid.to_string());
    let mut found = Process {
        pid,
        ns_pid: ns_pid.filter(|&own| own != pid),
        core_dumping,
        zombie: state == b'Z',
        state: state::of(state),
        sigterm: signals.map(state::sigterm),
        ppid: Some(ppid),
        tty: tty_name(tty),
        exe: link(&folder.join("exe")),
        cwd: link(&folder.join("cwd")),
        cmdline: match known.is_whole() {
            true => host.redacted(known),
            false => host.cmdline(host.who(pid, started_ns, uid)),
        },
        uid,
        started: Some(host.wall_clock(started_ns)),
        cgroup: cgroups::read(&folder)
            .ok()
            .flatten()
            .map(|path| Cgroup { id: None, path: Some(path) }),
        comm: Some(comm),
        ..Process::default()
    };
    if stat(host, pid)?.started_ns != started_ns {
        return None;
    }
    name_owner(host, &mut found);
    Some(Identified { process: found, started_ns })
}

/// Returns the target of a process's link. The kernel itself writes it, without access to a
/// file system.
fn link(path: &Path) -> Option<String> {
    fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned())
}

/// Reads the stat file; `None` if the process has exited.
pub fn stat(host: &Host, pid: u32) -> Option<Stat> {
    proc::stat(&read_beginning(&host.proc_file(pid, "stat"), MOST_STAT).ok()?)
}

/// Reads the status file. Returns unknown values if it cannot be read.
fn status(host: &Host, pid: u32) -> Status {
    let text = read_beginning(&host.proc_file(pid, "status"), MOST_STATUS);
    text.map(|text| proc::status(&text)).unwrap_or_default()
}

/// Returns a process for reading its memory, or `None` if it has exited.
pub fn who(host: &Host, pid: u32) -> Option<Who> {
    let started_ns = stat(host, pid)?.started_ns;
    Some(host.who(pid, started_ns, status(host, pid).uid))
}

/// Returns the wall-clock time of a process's start. It is rounded to ticks, as in /proc, so
/// that a process always has the same start time.
pub fn start(host: &Host, started_ns: u64) -> Timestamp {
    host.wall_clock(started_ns / TICK_NS * TICK_NS)
}

/// Adds the path of the control group by its id, if the path is unknown, and the owner that
/// follows from the path. The group may have been removed.
pub fn name_cgroup(host: &Host, records: &dyn Records, process: &mut Process) {
    if let (Some(cgroup), Some(root)) = (&mut process.cgroup, &host.cgroup_root)
        && cgroup.path.is_none()
    {
        let path = |id| cgroups::path_of_id(root, id).or_else(|| records.gone_cgroup(id));
        cgroup.path = cgroup.id.and_then(path);
    }
    name_owner(host, process);
}

/// Returns whether a process that started at `seen_ns` is the one that was running at `at_ns`.
/// The recorded start time decides, which /proc counts in ticks. Without it, a process that
/// started later under the same pid is a different one.
fn is_same(seen_ns: u64, recorded: Option<u64>, at_ns: u64) -> bool {
    match recorded {
        Some(recorded) => recorded / TICK_NS == seen_ns / TICK_NS,
        None => seen_ns <= at_ns,
    }
}

/// Fills in unit, container, session and user name, from the control group's path and the uid.
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

/// Returns a terminal's name in /dev by its major and minor number, or `None` for 0, which
/// means no terminal (Documentation/admin-guide/devices.txt).
fn tty_name((major, minor): (u32, u32)) -> Option<String> {
    Some(match (major, minor) {
        (0, _) => return None,
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        // Unix98 ptys: a minor number above 255 continues in the next major number.
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    })
}

/// Returns a process and its ancestors, nearest first, without pid 1.
pub fn line(host: &Host, pid: Option<u32>) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = pid;
    while let Some(pid) = next.filter(|&pid| pid > 1 && found.len() < MOST_ANCESTORS) {
        found.push(pid);
        next = parent_of(host, pid).map(|parent| parent.ppid);
    }
    found
}

/// A process among the ancestors of others.
#[derive(Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its name.
    pub comm: String,
    /// Its own parent.
    pub ppid: u32,
    /// When it started, in nanoseconds since boot.
    pub started_ns: u64,
}

/// Reads an ancestor of a process. Returns `None` if it has exited. The failing process and its
/// holders share most of their ancestors, and reading `stat` takes the kernel some time, so the
/// result is cached for a moment.
pub fn parent_of(host: &Host, pid: u32) -> Option<Arc<Parent>> {
    /// About as long as one failed bind takes. No pid is reused within this time.
    const BELIEVED: Duration = Duration::from_millis(50);
    const MOST_REMEMBERED: usize = 256;
    let mut parents = host.parents.borrow_mut();
    if let Some((read, parent)) = parents.get(&pid)
        && read.elapsed() < BELIEVED
    {
        return Some(Arc::clone(parent));
    }
    let Stat { comm, ppid, started_ns, .. } = stat(host, pid)?;
    let parent = Arc::new(Parent { comm, ppid, started_ns });
    if parents.len() >= MOST_REMEMBERED {
        parents.clear();
    }
    parents.insert(pid, (Instant::now(), Arc::clone(&parent)));
    Some(parent)
}

/// Returns the arguments of such a process.
pub fn arguments_of(host: &Host, pid: u32, parent: &Parent) -> Cmdline {
    host.cmdline(host.who(pid, parent.started_ns, real_uid(host, pid)))
}

/// Returns the real user of a process, or `None` if it has exited.
pub fn real_uid(host: &Host, pid: u32) -> Option<u32> {
    status(host, pid).uid
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        enrich::tests::fake,
        evidence::{ProcessState, Sigterm},
    };

    #[test]
    fn state_and_signals_are_known_where_status_can_be_read() {
        let root = TempDir::new().unwrap();
        let host = fake::host(&root, &[]);
        fake::process(root.path(), 7, 1, 100, "/", &[]);
        let read = || by_pid(&host, 7).unwrap();
        assert_eq!((read().state, read().sigterm), (Some(ProcessState::Sleeping), None));
        let status = "Uid:\t1004\t1004\t1004\t1004\nSigBlk:\t0000000000000000\n\
                      SigIgn:\t0000000000001000\nSigCgt:\t0000000000004002\n";
        fs::write(root.path().join("proc/7/status"), status).unwrap();
        assert_eq!(read().sigterm, Some(Sigterm::Caught));
        assert_eq!(read().uid, Some(1004));
    }

    #[test]
    fn a_directory_is_known_where_it_can_be_read() {
        let root = TempDir::new().unwrap();
        let host = fake::host(&root, &[]);
        fake::process(root.path(), 7, 1, 100, "/", &[]);
        assert_eq!(by_pid(&host, 7).unwrap().cwd, None);
        symlink("/srv/shop", root.path().join("proc/7/cwd")).unwrap();
        assert_eq!(by_pid(&host, 7).unwrap().cwd.as_deref(), Some("/srv/shop"));
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another() {
        assert!(is_same(3_330_000_000, Some(3_334_000_000), 0));
        assert!(!is_same(3_330_000_000, Some(3_344_000_000), u64::MAX));
        assert!(is_same(3_330_000_000, None, 3_331_000_000));
        assert!(!is_same(3_330_000_000, None, 3_320_000_000));
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
