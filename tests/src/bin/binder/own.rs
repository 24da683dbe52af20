//! The process's own circumstances.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Resource, Rlimit, ioctl_tiocsctty, setrlimit, setsid},
    pty::{self, OpenptFlags},
};

/// Makes it the leader of a session on a terminal of its own. Both ends stay
/// open: a terminal whose other end is closed hangs up.
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

/// Crashes with so much memory that the writing of its core can be looked at.
pub fn dump_core(folder: &Path) -> anyhow::Result<()> {
    // A guest has little memory, its disk included, and is slow enough.
    let bytes: usize = if portwatch_tests::skip::in_guest() { 64 << 20 } else { 512 << 20 };
    std::env::set_current_dir(folder)?;
    setrlimit(Resource::Core, Rlimit { current: None, maximum: None })?;
    let ballast = vec![1u8; bytes];
    std::hint::black_box(&ballast);
    std::process::abort();
}
