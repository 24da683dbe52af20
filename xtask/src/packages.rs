//! Distribution packages, by apt.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Once,
};

use anyhow::{anyhow, ensure};

use crate::{checked, setup::say};

/// A package, known to be there by a file of it.
pub struct Package {
    pub name: &'static str,
    pub file: &'static str,
    pub why: &'static str,
}

/// Installs those that are not there.
pub fn install(packages: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<_> =
        packages.iter().filter(|package| !Path::new(package.file).exists()).collect();
    for package in &missing {
        say(package.name, package.why);
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if names.is_empty() { Ok(()) } else { apt_install(&names) }
}

/// Whether apt knows the packages.
pub fn are_available(names: &[&str]) -> bool {
    has_apt() && update().is_ok() && {
        let mut show = Command::new("apt-cache");
        show.arg("show").args(names).stdout(Stdio::null()).stderr(Stdio::null());
        show.status().is_ok_and(|status| status.success())
    }
}

/// Installs packages out of the system's own sources.
pub fn apt_install(names: &[&str]) -> anyhow::Result<()> {
    ensure_apt(names)?;
    update()?;
    apt_install_by(Command::new("apt-get"), names)
}

/// Installs packages without recommendations, and starts none of their services. Whether
/// that can be done was asked before ([`ensure_apt`]).
pub fn apt_install_by(mut apt: Command, names: &[&str]) -> anyhow::Result<()> {
    let _quiet = NoServices::begin()?;
    checked(
        apt.args(["install", "--yes", "--no-install-recommends", "--quiet"])
            // Without a terminal of its own dpkg prints no percentages.
            .args(["-o", "Dpkg::Use-Pty=0"])
            .args(names)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null()),
    )
}

/// Fails where packages cannot be installed.
pub fn ensure_apt(names: &[&str]) -> anyhow::Result<()> {
    ensure!(
        has_apt() && rustix::process::geteuid().is_root(),
        "missing: {}\nhint: install them with your package manager, or run this as root on Debian \
         or Ubuntu",
        names.join(", ")
    );
    Ok(())
}

/// While this lives, packages that bring a service do not start it: invoke-rc.d
/// asks policy-rc.d, and 101 forbids (policy-rc.d(8)).
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("setup: {POLICY} is left behind and keeps services from starting: {error}");
        }
    }
}

fn has_apt() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

/// The package lists, once in a run and only when something is to be installed.
fn update() -> anyhow::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        eprintln!("setup: fetching the package lists");
        let status = Command::new("apt-get")
            .args(["update", "--quiet"])
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            result = Err(anyhow!("apt-get update failed"));
        }
    });
    result
}
