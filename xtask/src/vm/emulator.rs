//! QEMU, new enough to emulate a kernel that changes its own code.

use std::{path::Path, process::Command};

use anyhow::ensure;

use crate::{
    apt::{Apt, codename},
    arch::Arch,
    packages, quietly,
    setup::say,
    versions::OLDEST_QEMU,
    vm::kernels::numbers,
};

/// Installs it from the release's backports if the installed one is too old.
pub fn install(cache: &Path, arch: Arch) -> anyhow::Result<()> {
    let (program, package) = arch.facts().qemu;
    if version(program).is_some_and(|version| version >= OLDEST_QEMU) {
        return Ok(());
    }
    packages::ensure_apt(&[package])?;
    let release = codename()?;
    say(&format!("about to install {package} from {release}-backports: it boots the kernels"));
    say(packages::CHANGES);
    let (backports, security) = (format!("{release}-backports"), format!("{release}-security"));
    let lists = cache.join("apt").join(&backports);
    let apt = Apt::prepare(&lists, &[&release, &backports], &security, Arch::native())?;
    let mut command = apt.command("apt-get");
    command.args(["--target-release", &backports]);
    packages::apt_install_by(command, &[package])?;
    ensure!(
        version(program).is_some_and(|version| version >= OLDEST_QEMU),
        "{backports} has no QEMU {OLDEST_QEMU}\nhint: install {OLDEST_QEMU} or newer as {program}"
    );
    Ok(())
}

/// The major version of the one that is installed.
fn version(program: &str) -> Option<u32> {
    let said = quietly(Command::new(program).arg("--version")).ok()?;
    numbers(&said).first().copied()
}
