//! A process that survives when this one is killed, and then kills the command and its
//! descendants.
//!
//! The kernel clears its own mechanism (PR_SET_PDEATHSIG) when credentials change:
//! `sudo -u app ./server` would survive. The guardian runs this program again, as a child of
//! this process in its own session, and inherits only the end of a pipe. The command writes its
//! own pid into the pipe before it executes the program. When the pipe is closed, this process
//! was killed; in all other cases it kills the guardian first.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, PipeReader, PipeWriter, Write, pipe},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::SigSet;
use procfs::process::{Process, Stat, all_processes};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal, setsid},
    stdio::stdin,
};

/// The hidden verb. Users do not call it.
pub const VERB: &str = "guardian";
/// The name of its process. It differs from the program's name, so that killing all processes
/// with that name does not kill the guardian.
const NAME: &str = "pw-guardian";
/// Interval between searches for orphans. They become children of the guarded process, and
/// children of another process when the guarded process is killed.
const INTERVAL: Duration = Duration::from_millis(250);
/// The most orphans that are remembered.
const MOST: usize = 4096;
/// Time limit for stopping processes that start new ones faster than they are found.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// This process's side. If it is dropped without [`release`](Self::release), the command is
/// killed.
pub struct Guardian {
    process: Child,
    words: PipeWriter,
    /// The reader is kept open so that writers do not get SIGPIPE.
    _reader: PipeReader,
}

impl Guardian {
    /// Starts a guardian.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start() -> io::Result<Self> {
        let (reader, words) = pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).args([VERB, &std::process::id().to_string()]);
        command.env_clear().current_dir("/");
        command.stdin(reader.try_clone()?).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: two system calls, which are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                SigSet::all().thread_set_mask()?;
                Ok(setsid().map(drop)?)
            });
        }
        Ok(Self { process: command.spawn()?, words, _reader: reader })
    }

    /// Returns its pid.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the pipe into which the command writes its pid, with [`tell`].
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn words(&self) -> io::Result<PipeWriter> {
        self.words.try_clone()
    }

    /// Ends the guardian, because the command has ended.
    pub fn release(mut self) {
        // If another process has killed it, it is reaped too.
        if self.process.kill().is_ok() {
            let _ended = self.process.wait();
        }
    }
}

/// Sends the guardian the command's pid. Safe between fork and exec.
///
/// # Errors
/// The pipe is full.
pub fn tell(mut words: impl Write, pid: u32) -> io::Result<()> {
    words.write_all(&pid.to_ne_bytes())
}

/// What identifies a process. A pid alone may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    pid: i32,
    started: u64,
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Self { pid: stat.pid, started: stat.starttime }
    }
}

/// Runs the guardian of the process `guarded`.
pub fn guard(guarded: u32) {
    close_inherited();
    if let Err(error) = rustix::thread::set_name(c"pw-guardian") {
        tracing::debug!(%error, "the guardian could not set its name");
    }
    let mut command = None;
    let mut orphans = Vec::new();
    loop {
        match next_word() {
            Word::None => orphans = children(guarded).unwrap_or(orphans),
            Word::Pid(pid) => command = identity(pid),
            Word::End => return kill_all(command.into_iter().chain(orphans).collect()),
        }
    }
}

/// Closes descriptors that were inherited from the guarded process, for example a pipe whose
/// reader waits until it is closed.
fn close_inherited() {
    // SAFETY: nothing in this process has opened anything so far.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// A message from the pipe.
enum Word {
    /// There was no message for a while.
    None,
    /// The command's pid.
    Pid(i32),
    /// The guarded process has exited.
    End,
}

fn next_word() -> Word {
    let timeout = Timespec::try_from(INTERVAL).ok();
    let mut ready = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
    if !matches!(poll(&mut ready, timeout.as_ref()), Ok(1..)) {
        return Word::None;
    }
    let mut word = [0; 4];
    match rustix::io::read(stdin(), &mut word) {
        // A message is written with one write.
        Ok(4) => Word::Pid(i32::from_ne_bytes(word)),
        Err(Errno::INTR | Errno::AGAIN) => Word::None,
        _ => Word::End,
    }
}

/// Returns the children of the guarded process, including the command, or `None` if the guarded
/// process has exited or cannot be read.
fn children(guarded: u32) -> Option<Vec<Identity>> {
    let is_there = || getppid().map(Pid::as_raw_pid) == i32::try_from(guarded).ok();
    let own = std::process::id();
    let tasks = is_there().then(|| Process::new(guarded.try_into().ok()?).ok()?.tasks().ok());
    let tasks = tasks.flatten()?;
    let pids = tasks.flatten().map(|task| task.children().ok()).collect::<Option<Vec<_>>>()?;
    let pids = pids.into_iter().flatten().filter(|&pid| pid != own).take(MOST);
    let found = pids.filter_map(|pid| identity(pid.try_into().ok()?)).collect();
    // The pid may have been reused in the meantime, but not the pid of this process's parent.
    is_there().then_some(found)
}

fn identity(pid: i32) -> Option<Identity> {
    Process::new(pid).and_then(|process| process.stat()).ok().as_ref().map(Identity::from)
}

/// Kills the processes and all their descendants. All are stopped first, so that none can start
/// another process, or exit and leave an orphan that is not found.
fn kill_all(roots: BTreeSet<Identity>) {
    let deadline = Instant::now() + STOP_DEADLINE;
    let mut all = roots.clone();
    roots.into_iter().for_each(|process| send(process, Signal::STOP));
    while Instant::now() < deadline {
        let new: Vec<_> = descendants(&all, &parents()).difference(&all).copied().collect();
        if new.is_empty() {
            break;
        }
        new.iter().for_each(|&process| send(process, Signal::STOP));
        all.extend(new);
    }
    all.into_iter().for_each(|process| send(process, Signal::KILL));
}

/// Returns every process, with its parent's pid.
fn parents() -> Vec<(Identity, i32)> {
    let all = all_processes().into_iter().flatten().flatten();
    let stats = all.filter_map(|process| process.stat().ok());
    stats.map(|stat| (Identity::from(&stat), stat.ppid)).collect()
}

/// Returns the running roots and all their descendants.
fn descendants(roots: &BTreeSet<Identity>, parents: &[(Identity, i32)]) -> BTreeSet<Identity> {
    let mut children: BTreeMap<i32, Vec<Identity>> = BTreeMap::new();
    for &(process, parent) in parents {
        children.entry(parent).or_default().push(process);
    }
    let there = parents.iter().map(|&(process, _)| process);
    let mut next: Vec<_> = there.filter(|process| roots.contains(process)).collect();
    let mut found = BTreeSet::new();
    while let Some(process) = next.pop() {
        if found.insert(process) {
            next.extend(children.get(&process.pid).into_iter().flatten());
        }
    }
    found
}

/// Sends a signal, if the process is still the same.
fn send(process: Identity, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if identity(process.pid) == Some(process)
        && let Err(error) = pidfd_send_signal(&descriptor, signal)
    {
        tracing::debug!(%error, pid = process.pid, "could not kill a process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> Identity {
        Identity { pid, started: u64::from(pid.unsigned_abs()) * 10 }
    }

    fn found(roots: &[i32], parents: &[(i32, i32)]) -> Vec<i32> {
        let parents: Vec<_> = parents.iter().map(|&(pid, of)| (process(pid), of)).collect();
        let roots = roots.iter().map(|&pid| process(pid)).collect();
        descendants(&roots, &parents).into_iter().map(|process| process.pid).collect()
    }

    #[test]
    fn those_that_come_of_the_roots_and_nobody_else() {
        let tree = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 8), (10, 6)];
        assert_eq!(found(&[6, 9], &tree), [6, 7, 9, 10]);
        assert_eq!(found(&[4], &tree), [0; 0]);
        // A process tree has no cycles, but /proc is not read in one moment.
        assert_eq!(found(&[2], &[(2, 3), (3, 2)]), [2, 3]);
    }

    #[test]
    fn a_number_that_is_anothers_by_now_is_no_root() {
        let roots = BTreeSet::from([Identity { pid: 5, started: 1 }]);
        assert!(descendants(&roots, &[(process(5), 1), (process(6), 5)]).is_empty());
    }
}
