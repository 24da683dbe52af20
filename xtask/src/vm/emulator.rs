//! QEMU, new enough to emulate a kernel that changes its own code.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    packages,
    setup::say,
    vm::{apt::Apt, kernels::numbers, quietly},
};

/// What is started.
pub const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// 7.2, which Debian 12 has, goes on running a translation of code that another
/// processor has changed since. Where that was the breakpoint by which the kernel
/// patches a function's entry, the guest dies of it (`Oops: int3` at `inet_bind+0x5`):
/// within 200 attachments to a function that is in use, and not within 1,400 with 10.0.
const OLDEST: u32 = 10;

/// Installs it out of the release's backports if what is there is too old.
pub fn install(cache: &Path) -> anyhow::Result<()> {
    if version().is_some_and(|version| version >= OLDEST) {
        return Ok(());
    }
    packages::ensure_apt(&[PACKAGE])?;
    say(PACKAGE, "boots the kernels");
    let release = codename()?;
    let (backports, security) = (format!("{release}-backports"), format!("{release}-security"));
    let lists = cache.join("apt").join(&backports);
    let apt = Apt::prepare(&lists, &[&release, &backports], &security)?;
    let mut command = apt.command("apt-get");
    command.args(["--target-release", &backports]);
    packages::apt_install_by(command, &[PACKAGE])?;
    ensure!(
        version().is_some_and(|version| version >= OLDEST),
        "{backports} has no QEMU {OLDEST}\nhint: install {OLDEST} or newer as {PROGRAM}"
    );
    Ok(())
}

/// The major version of the one that is installed.
fn version() -> Option<u32> {
    let said = quietly(Command::new(PROGRAM).arg("--version")).ok()?;
    numbers(&said).first().copied()
}

/// The release's name (os-release(5)).
fn codename() -> anyhow::Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("what system is this?")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .with_context(|| format!("QEMU {OLDEST} or newer is needed\nhint: install {PROGRAM}"))
}
