//! Signals that reach the process that was meant and no other: a pidfd is opened first, and then
//! start time and descriptor are compared with the evidence (pidfd_open(2)).

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{
    enrich::{
        host::{Host, numbered},
        stat,
    },
    evidence::Process,
    proc::Stat,
};

/// How far two readings of one start time differ at most: a tick of /proc, and the clocks.
const SAME_START: Duration = Duration::from_millis(20);
/// Descriptors of one process that are compared.
const MOST_FILES: usize = 1 << 20;

/// A process that will get a signal. The kernel does not give its number to another one for this.
#[derive(Debug)]
pub struct Target {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    pidfd: OwnedFd,
    is_stopped: bool,
}

/// Why a process gets no signal.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Another process has its number now.
    #[error("{pid} is another process now: nothing was sent to it")]
    Another {
        /// The number.
        pid: u32,
    },
    /// It has closed the socket, or its descriptors cannot be read any more.
    #[error("{comm}[{pid}] is not seen to have the socket open any more: nothing was sent to it")]
    Closed {
        /// The number.
        pid: u32,
        /// The name.
        comm: String,
    },
    /// Its parent is not the shell.
    #[error("{pid} is no longer the parent of {comm}[{child}]: nothing was sent to either")]
    NoParent {
        /// The shell's number.
        pid: u32,
        /// The child's number.
        child: u32,
        /// The child's name.
        comm: String,
    },
    /// The kernel refuses.
    #[error("failed to signal {pid}: {source}")]
    Refused {
        /// The number.
        pid: u32,
        /// The error.
        source: io::Error,
    },
}

impl SignalError {
    /// Returns whether a right is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl Target {
    /// Opens a process of the evidence, if it is still the same and still has one of the sockets
    /// open. `None` if it has exited. Without inodes the socket is not compared: the evidence
    /// says that no descriptor of the process has it.
    ///
    /// # Errors
    /// It is another process now, or has closed the socket.
    pub fn open(
        host: &Host,
        process: &Process,
        inodes: &BTreeSet<u64>,
    ) -> Result<Option<Self>, SignalError> {
        let pid = process.pid;
        let Some((target, stat)) = Self::by_number(host, pid)? else { return Ok(None) };
        // The process was there before the pidfd was opened, and is there now: the pidfd is its.
        if !is_same_start(process.started, host.wall_clock(stat.started_ns)) {
            return Err(SignalError::Another { pid });
        }
        if stat.is_zombie() && process.fd.is_some() {
            return Ok(None);
        }
        let has_it = || has_open(&host.proc_root.join(pid.to_string()), inodes);
        if process.fd.is_some() && !inodes.is_empty() && has_it() != Some(true) {
            return Err(SignalError::Closed { pid, comm: target.comm });
        }
        Ok(Some(target))
    }

    /// Opens the shell that is the parent of `child`.
    ///
    /// # Errors
    /// It is not, any more.
    pub fn parent(host: &Host, shell: u32, child: &Self) -> Result<Option<Self>, SignalError> {
        let Some((target, _)) = Self::by_number(host, shell)? else { return Ok(None) };
        // A child keeps its parent's number only as long as that one lives.
        match stat(host, child.pid) {
            Some(stat) if stat.ppid == shell => Ok(Some(target)),
            _ => Err(SignalError::NoParent {
                pid: shell,
                child: child.pid,
                comm: child.comm.clone(),
            }),
        }
    }

    fn by_number(host: &Host, pid: u32) -> Result<Option<(Self, Stat)>, SignalError> {
        let refused = |errno: Errno| SignalError::Refused { pid, source: errno.into() };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or(Errno::SRCH).map_err(refused)?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(refused(errno)),
        };
        let Some(stat) = stat(host, pid) else { return Ok(None) };
        let is_stopped = stat.state == b'T';
        Ok(Some((Self { pid, comm: stat.comm.clone(), pidfd, is_stopped }, stat)))
    }

    /// Sends SIGTERM, and SIGCONT after it to a process that is stopped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn terminate(&self) -> Result<(), SignalError> {
        self.send(Signal::TERM)?;
        if self.is_stopped { self.send(Signal::CONT) } else { Ok(()) }
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&self) -> Result<(), SignalError> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> Result<(), SignalError> {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It has exited.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(SignalError::Refused { pid: self.pid, source: errno.into() }),
        }
    }

    /// Returns whether it has exited.
    pub fn has_exited(&self) -> bool {
        let mut exited = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut exited, Some(&now)).is_ok_and(|count| count > 0)
    }
}

/// Without a start on record nothing shows that it is the same.
fn is_same_start(recorded: Option<Timestamp>, now: Timestamp) -> bool {
    let apart = |recorded: Timestamp| now.duration_since(recorded).unsigned_abs();
    recorded.is_some_and(|recorded| apart(recorded) <= SAME_START)
}

/// Returns whether a descriptor table of the process has one of the sockets; `None` if it cannot
/// be read.
fn has_open(process: &Path, inodes: &BTreeSet<u64>) -> Option<bool> {
    let links: Vec<PathBuf> =
        inodes.iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    let has = |folder: &Path| {
        fs::read_dir(folder).ok()?;
        let mut files = numbered(folder).take(MOST_FILES);
        Some(files.any(|(_, file)| fs::read_link(file).is_ok_and(|link| links.contains(&link))))
    };
    let own = has(&process.join("fd"))?;
    // A thread may have a table of its own.
    let mut threads = numbered(&process.join("task"));
    Some(own || threads.any(|(_, thread)| has(&thread.join("fd")) == Some(true)))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::linux::fs::MetadataExt as _};

    use super::*;
    use crate::enrich::this_process;

    fn inode(listener: &TcpListener) -> u64 {
        let fd = std::os::fd::AsRawFd::as_raw_fd(listener);
        fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().st_ino()
    }

    #[test]
    fn only_the_same_process_with_the_same_socket() {
        let host = Host::current();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inodes = BTreeSet::from([inode(&listener)]);
        let own = Process { fd: Some(3), ..this_process(&host).unwrap() };
        let target = Target::open(&host, &own, &inodes).unwrap().unwrap();
        assert_eq!(target.pid, std::process::id());
        assert!(!target.has_exited());

        let earlier = own.started.map(|at| at - Duration::from_secs(3600));
        for started in [earlier, None] {
            let another = Target::open(&host, &Process { started, ..own.clone() }, &inodes);
            assert!(matches!(another, Err(SignalError::Another { .. })), "{another:?}");
        }
        drop(listener);
        let closed = Target::open(&host, &own, &inodes);
        assert!(matches!(closed, Err(SignalError::Closed { .. })), "{closed:?}");
        // The evidence says that no descriptor has it.
        let in_flight = Process { fd: None, ..own };
        assert!(Target::open(&host, &in_flight, &inodes).unwrap().is_some());
    }

    #[test]
    fn a_shell_is_the_parent_of_what_it_started() {
        let host = Host::current();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let (target, _) = Target::by_number(&host, child.id()).unwrap().unwrap();
        let shell = Target::parent(&host, std::process::id(), &target).unwrap().unwrap();
        assert_eq!(shell.pid, std::process::id());
        let stranger = Target::parent(&host, 1, &target);
        assert!(matches!(stranger, Err(SignalError::NoParent { .. })), "{stranger:?}");
        target.terminate().unwrap();
        child.wait().unwrap();
        assert!(target.has_exited());
        assert!(Target::by_number(&host, child.id()).unwrap().is_none());
        target.kill().unwrap();
    }
}
