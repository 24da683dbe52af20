//! QEMU, new enough to emulate a kernel that changes its own code.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    packages,
    setup::say,
    versions::OLDEST_QEMU,
    vm::{apt::Apt, kernels::numbers, quietly},
};

/// What is started.
pub const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Installs it from the release's backports if the installed one is too old.
pub fn install(cache: &Path) -> anyhow::Result<()> {
    if version().is_some_and(|version| version >= OLDEST_QEMU) {
        return Ok(());
    }
    packages::ensure_apt(&[PACKAGE])?;
    let release = codename()?;
    say(&format!("about to install {PACKAGE} from {release}-backports: it boots the kernels"));
    say(packages::CHANGES);
    let (backports, security) = (format!("{release}-backports"), format!("{release}-security"));
    let lists = cache.join("apt").join(&backports);
    let apt = Apt::prepare(&lists, &[&release, &backports], &security)?;
    let mut command = apt.command("apt-get");
    command.args(["--target-release", &backports]);
    packages::apt_install_by(command, &[PACKAGE])?;
    ensure!(
        version().is_some_and(|version| version >= OLDEST_QEMU),
        "{backports} has no QEMU {OLDEST_QEMU}\nhint: install {OLDEST_QEMU} or newer as {PROGRAM}"
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
        .with_context(|| format!("QEMU {OLDEST_QEMU} or newer is needed\nhint: install {PROGRAM}"))
}
