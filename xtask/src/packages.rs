//! Installs packages of the distribution with apt.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Once,
};

use anyhow::{Context as _, anyhow, ensure};
use rustix::fs::{FlockOperation, fcntl_lock};

use crate::{checked, setup::say};

/// A package, and a file that shows whether it is installed.
#[derive(Clone, Copy)]
pub struct Package {
    pub name: &'static str,
    pub file: &'static str,
    pub why: &'static str,
    /// The services that come with it.
    pub services: &'static [&'static str],
}

impl Package {
    /// A package without services.
    pub const fn new(name: &'static str, file: &'static str, why: &'static str) -> Self {
        Self { name, file, why, services: &[] }
    }

    /// The same with services.
    pub const fn with_services(mut self, services: &'static [&'static str]) -> Self {
        self.services = services;
        self
    }
}

/// What an installation changes on the machine besides the packages themselves.
pub const CHANGES: &str = "apt-get adds the packages and what they depend on, without \
                           recommendations, and keeps no downloads";

/// Returns the packages that are not installed.
pub fn missing(packages: &[Package]) -> Vec<Package> {
    packages.iter().filter(|package| !Path::new(package.file).exists()).copied().collect()
}

/// Returns whether apt knows the packages. Fetches the package lists if it does not at first.
pub fn are_available(names: &[&str]) -> bool {
    let known = || {
        let mut show = Command::new("apt-cache");
        show.arg("show").args(names).stdout(Stdio::null()).stderr(Stdio::null());
        show.status().is_ok_and(|status| status.success())
    };
    has_apt() && (known() || (update().is_ok() && known()))
}

/// Installs packages from the system's own sources.
pub fn apt_install(names: &[&str]) -> anyhow::Result<()> {
    ensure_apt(names)?;
    update()?;
    apt_install_by(Command::new("apt-get"), names)
}

/// Installs packages without recommendations, and starts none of their services.
/// [`ensure_apt`] has checked before whether that is possible.
pub fn apt_install_by(mut apt: Command, names: &[&str]) -> anyhow::Result<()> {
    apt.args(["install", "--yes", "--no-install-recommends", "--quiet"])
        // Without a terminal of its own dpkg prints no percentages.
        .args(["-o", "Dpkg::Use-Pty=0", "-o", "APT::Keep-Downloaded-Packages=false"])
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive");
    checked(without_services(&apt, Path::new(POLICY)).stdin(Stdio::null()))
        .with_context(|| format!("apt-get cannot install {}", names.join(", ")))
}

/// Fails if packages cannot be installed.
pub fn ensure_apt(names: &[&str]) -> anyhow::Result<()> {
    ensure!(
        has_apt() && rustix::process::geteuid().is_root(),
        "missing: {}\nhint: install them with your package manager, or run this as root on Debian \
         or Ubuntu",
        names.join(", ")
    );
    Ok(())
}

/// While this file exists and exits with 101, packages that bring a service do not start it
/// (policy-rc.d(8)).
pub const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Marks our policy, to distinguish it from the machine's own.
const OUR_POLICY: &str =
    "#!/bin/sh\n# Written by portwatch's set-up, which removes it again.\nexit 101\n";

/// Installs the policy, runs the rest of its arguments, removes the policy. A shell does it,
/// because it removes the file after Ctrl-C and after xtask's own end too.
const GUARD: &str = r#"policy=$1 text=$2; shift 2
trap 'rm -f "$policy"' EXIT
trap 'exit 130' INT TERM HUP
printf '%s' "$text" >"$policy" && chmod 755 "$policy" && "$@""#;

/// Returns a command that runs another without starting any package's service. A policy that
/// the machine already has stays, and decides.
fn without_services(command: &Command, policy: &Path) -> Command {
    let foreign = policy.exists() && !is_ours(policy);
    let mut guarded = if foreign {
        Command::new(command.get_program())
    } else {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD, "sh"]).arg(policy).arg(OUR_POLICY).arg(command.get_program());
        shell
    };
    guarded.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    guarded
}

fn is_ours(policy: &Path) -> bool {
    fs::read_to_string(policy).is_ok_and(|text| text == OUR_POLICY)
}

/// Removes the policy of a set-up that was killed.
pub fn remove_leftover() {
    let policy = Path::new(POLICY);
    if !is_ours(policy) || is_installing() {
        return;
    }
    match fs::remove_file(policy) {
        Ok(()) => say(&format!("removed {POLICY}, left behind by a set-up that was killed")),
        Err(error) => say(&format!("{POLICY} keeps services from starting, remove it: {error}")),
    }
}

/// Returns whether packages are being installed: then the policy may be in use.
fn is_installing() -> bool {
    let lock = fs::File::options().write(true).open("/var/lib/dpkg/lock-frontend");
    lock.is_ok_and(|lock| fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn has_apt() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

/// Fetches the package lists, once per run and only if something is to be installed.
fn update() -> anyhow::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        say("fetching the package lists (apt-get update)");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_policy_is_there_during_an_installation_only() {
        let folder = folder("policy");
        let (policy, seen) = (folder.join("policy-rc.d"), folder.join("seen"));
        let mut install = Command::new("/bin/sh");
        install.args(["-c", r#"sh "$1"; echo $? >"$2"; exit 3"#, "sh"]).arg(&policy).arg(&seen);
        let status = without_services(&install, &policy).status().unwrap();
        assert_eq!(status.code(), Some(3), "the installation's own exit code");
        assert_eq!(fs::read_to_string(&seen).unwrap(), "101\n");
        assert!(!policy.exists());
        // Left by a run that was killed: replaced, and removed this time.
        fs::write(&policy, OUR_POLICY).unwrap();
        without_services(&install, &policy).status().unwrap();
        assert!(!policy.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_policy_of_the_machine_stays() {
        let folder = folder("foreign");
        let policy = folder.join("policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
        without_services(&Command::new("true"), &policy).status().unwrap();
        assert_eq!(fs::read_to_string(&policy).unwrap(), "#!/bin/sh\nexit 0\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
