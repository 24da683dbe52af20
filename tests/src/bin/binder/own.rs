//! Operations on the process itself.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{
        Resource, Rlimit, Signal, getrlimit, ioctl_tiocsctty, set_parent_process_death_signal,
        setrlimit, setsid,
    },
    pty::{self, OpenptFlags},
};

/// Makes it the leader of a session on a terminal of its own. Both ends stay open: a terminal
/// whose other end is closed hangs up.
pub fn terminal() -> anyhow::Result<[OwnedFd; 2]> {
    let ours = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    pty::grantpt(&ours)?;
    pty::unlockpt(&ours)?;
    let name = pty::ptsname(&ours, Vec::new())?;
    setsid()?;
    let theirs = open(&name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    ioctl_tiocsctty(&theirs)?;
    Ok([ours, theirs])
}

/// Crashes with so much memory that writing the core takes a noticeable time.
pub fn dump_core(folder: &Path) -> anyhow::Result<()> {
    // A guest has little memory, its disk included, and is slow enough.
    let bytes: usize = if portwatch_tests::skip::in_guest() { 64 << 20 } else { 512 << 20 };
    std::env::set_current_dir(folder)?;
    setrlimit(Resource::Core, Rlimit { current: None, maximum: None })?;
    let ballast = vec![1u8; bytes];
    std::hint::black_box(&ballast);
    std::process::abort();
}

/// Ignores a signal.
pub fn ignore(signal: i32) -> anyhow::Result<()> {
    // SAFETY: no handler is installed, the kernel itself drops the signal.
    match unsafe { libc::signal(signal, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(std::io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}

/// Blocks a signal in this thread, the only one.
pub fn block(signal: i32) -> anyhow::Result<()> {
    // SAFETY: the set is initialized by sigemptyset before it is used, and lives long enough.
    let result = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// Opens so many files, every second a socket.
pub fn files(many: u32) -> anyhow::Result<Vec<OwnedFd>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let mut open: Vec<OwnedFd> = Vec::new();
    for _ in 0..many / 4 {
        let (one, other) = UnixStream::pair()?;
        open.extend([one.into(), other.into(), File::open("/dev/null")?.into()]);
        open.push(File::open("/dev/null")?.into());
    }
    Ok(open)
}

/// Starts this many children that stay as long as this process does.
pub fn children(many: u32) -> anyhow::Result<()> {
    for _ in 0..many {
        // SAFETY: there is only one thread, so the child may run any code.
        match unsafe { libc::fork() } {
            0 => {
                // If the parent has already exited there is no reason to stay.
                while set_parent_process_death_signal(Some(Signal::KILL)).is_ok() {
                    // SAFETY: it waits for a signal.
                    unsafe { libc::pause() };
                }
                std::process::exit(0);
            }
            -1 => return Err(std::io::Error::last_os_error().into()),
            _ => {}
        }
    }
    Ok(())
}
