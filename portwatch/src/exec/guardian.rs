//! A process beside the command that outlives this one when it is killed, and then
//! kills the command and all that comes of it.
//!
//! The kernel's own way (PR_SET_PDEATHSIG) ends with a change of credentials: `sudo -u
//! app ./server` would live on. The guardian is this program once more, a child of this
//! process in a session of its own, with nothing of it but the end of a pipe. Down the
//! pipe comes the command's number, written by the command itself before it becomes
//! another program. When the pipe ends, this process has been killed; after any other
//! end it has killed the guardian before.

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

/// The verb that is it; nobody calls it by hand.
pub const VERB: &str = "guardian";
/// What it is called: not after the program, since whoever kills all of that name must
/// not kill it too.
const NAME: &str = "pw-guardian";
/// How often it looks for those whose parents have ended. They become the guarded
/// process's children, and somebody else's as soon as that is killed.
const INTERVAL: Duration = Duration::from_millis(250);
/// Such orphans that it knows at most.
const MOST: usize = 4096;
/// How long it tries to stop what starts new processes faster than they are found.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// This process's side. Dropped without [`release`](Self::release), it has the command
/// killed.
pub struct Guardian {
    process: Child,
    words: PipeWriter,
    /// Kept so that nobody who writes gets SIGPIPE.
    _reader: PipeReader,
}

impl Guardian {
    /// Starts one.
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

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where the command says who it is, by [`tell`].
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn words(&self) -> io::Result<PipeWriter> {
        self.words.try_clone()
    }

    /// The command has ended: there is nothing to guard any more.
    pub fn release(mut self) {
        // It may have been killed by somebody else, and then it is gone as well.
        if self.process.kill().is_ok() {
            let _ended = self.process.wait();
        }
    }
}

/// Tells the guardian which process it is about. Safe between fork and exec.
///
/// # Errors
/// The pipe is full.
pub fn tell(mut words: impl Write, pid: u32) -> io::Result<()> {
    words.write_all(&pid.to_ne_bytes())
}

/// Which process, for good: its number may be another's by and by.
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

/// The guardian's life, beside the process `guarded`.
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

/// What was not closed around the guarded process: a pipe of somebody's who waits for
/// its end, for instance.
fn close_inherited() {
    // SAFETY: nothing in this process has opened anything so far.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// What came through the pipe.
enum Word {
    /// Nothing for a while.
    None,
    /// The command.
    Pid(i32),
    /// The guarded process is gone.
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
        // A word is written in one piece.
        Ok(4) => Word::Pid(i32::from_ne_bytes(word)),
        Err(Errno::INTR | Errno::AGAIN) => Word::None,
        _ => Word::End,
    }
}

/// The children of the guarded process, the command among them; `None` if it is gone,
/// or does not tell.
fn children(guarded: u32) -> Option<Vec<Identity>> {
    let is_there = || getppid().map(Pid::as_raw_pid) == i32::try_from(guarded).ok();
    let own = std::process::id();
    let tasks = is_there().then(|| Process::new(guarded.try_into().ok()?).ok()?.tasks().ok());
    let tasks = tasks.flatten()?;
    let pids = tasks.flatten().map(|task| task.children().ok()).collect::<Option<Vec<_>>>()?;
    let pids = pids.into_iter().flatten().filter(|&pid| pid != own).take(MOST);
    let found = pids.filter_map(|pid| identity(pid.try_into().ok()?)).collect();
    // The number may have been another's meanwhile, but not this process's parent's.
    is_there().then_some(found)
}

fn identity(pid: i32) -> Option<Identity> {
    Process::new(pid).and_then(|process| process.stat()).ok().as_ref().map(Identity::from)
}

/// Kills them and all that comes of them. All are stopped first, so that none can start
/// another, or end and leave one that is found no more.
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

/// Every process and its parent's number.
fn parents() -> Vec<(Identity, i32)> {
    let all = all_processes().into_iter().flatten().flatten();
    let stats = all.filter_map(|process| process.stat().ok());
    stats.map(|stat| (Identity::from(&stat), stat.ppid)).collect()
}

/// The roots that are there, and all that comes of them.
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
        // No tree is a circle, but /proc is not read at one moment.
        assert_eq!(found(&[2], &[(2, 3), (3, 2)]), [2, 3]);
    }

    #[test]
    fn a_number_that_is_anothers_by_now_is_no_root() {
        let roots = BTreeSet::from([Identity { pid: 5, started: 1 }]);
        assert!(descendants(&roots, &[(process(5), 1), (process(6), 5)]).is_empty());
    }
}
