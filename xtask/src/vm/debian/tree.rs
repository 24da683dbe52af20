//! The guest's root file system: a minimal Debian with what the scenarios need and the modules
//! of its kernel. Built once, and cached by its content.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    apt::{self, KEYRING},
    checked, quietly,
    vm::kernels::Kernel,
};

/// In addition to the essential ones.
const PACKAGES: [&str; 18] = [
    "at", "busybox-static", "cron", "dbus", "dbus-user-session", "docker-cli", "docker.io",
    "iproute2", "iptables", "kmod", "libpam-systemd", "passt", "podman", "procps", "systemd",
    "systemd-container", "systemd-sysv", "uidmap",
];

/// Services of those that scenarios start themselves.
const STARTED_LATER: [&str; 5] =
    ["docker.service", "docker.socket", "containerd.service", "cron.service", "atd.service"];

/// No documentation and no translations.
const LEFT_OUT: [&str; 3] = ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"];

/// Includes space for what is written while it runs.
const SIZE: &str = "1500M";

/// What the guest runs after its start. Its output goes to the second serial port, followed by
/// its exit status; then the kernel's own warnings.
const UNIT: &str = r#"[Unit]
Description=The investigation, played
After=dbus.service systemd-logind.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c '/opt/payload/guest > /dev/ttyS1 2>&1; echo "exit status: $?" > /dev/ttyS1'
ExecStart=/bin/sh -c 'dmesg | grep -E "WARNING:|BUG:|Oops" | sed "s/^/kernel: /" > /dev/ttyS1; echo "end of run" > /dev/ttyS1'
ExecStart=/bin/systemctl reboot --force --force
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"#;

/// Changes whenever this code does, so that no disk of another version is used.
const MAKING: u32 = 4;

/// The disk's path.
pub fn disk(suite: &str, kernel: &Kernel, cache: &Path) -> anyhow::Result<PathBuf> {
    let about = format!("{MAKING}\n{suite}\n{}\n{PACKAGES:?}\n{UNIT}", kernel.version);
    let (disk, described) = (cache.join("disk"), cache.join("disk.about"));
    if disk.exists() && fs::read_to_string(&described).is_ok_and(|text| text == about) {
        return Ok(disk);
    }
    fs::remove_file(&described).ok();
    let tree = cache.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    eprintln!("vm: making a Debian {suite}, for some minutes");
    bootstrap(suite, &tree)?;
    furnish(&tree, kernel)?;
    let part = cache.join("disk.part");
    File::create(&part)?;
    quietly(
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&part).arg(SIZE),
    )?;
    fs::rename(&part, &disk)?;
    fs::remove_dir_all(&tree)?;
    fs::write(described, about)?;
    Ok(disk)
}

fn bootstrap(suite: &str, tree: &Path) -> anyhow::Result<()> {
    let (archive, security) = apt::mirrors()?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--mode=root", "--variant=minbase"]);
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
    ]);
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.arg(format!("--keyring={KEYRING}"));
    command.arg(format!("--include={}", PACKAGES.join(",")));
    command.arg(suite).arg(tree);
    command.arg(format!("deb {archive} {suite} main"));
    command.arg(format!("deb {security} {suite}-security main"));
    checked(&mut command)
}

/// Configures a tree of packages as a machine.
fn furnish(tree: &Path, kernel: &Kernel) -> anyhow::Result<()> {
    let write = |name: &str, text: &str| {
        let path = tree.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("etc/hostname", "web-3\n")?;
    write("etc/fstab", "/dev/vda / ext4 defaults 0 0\n")?;
    write("etc/machine-id", "")?;
    // Packages that are installed in the guest keep their documentation.
    fs::remove_file(tree.join("etc/dpkg/dpkg.cfg.d/99mmdebstrap")).ok();
    write("etc/systemd/system/investigation.service", UNIT)?;
    let system = tree.join("etc/systemd/system");
    // A login at the console waits for a device that only udev would announce, and the
    // scenario that needs the engine starts it.
    for masked in ["serial-getty@ttyS0.service", "getty@tty1.service"] {
        symlink("/dev/null", system.join(masked))?;
    }
    let chroot = |arguments: &[&str]| quietly(Command::new("chroot").arg(tree).args(arguments));
    chroot(&["systemctl", "enable", "investigation.service"])?;
    // Scenarios start these themselves.
    chroot(&[&["systemctl", "disable"][..], &STARTED_LATER].concat())?;
    chroot(&["useradd", "--create-home", "--shell", "/bin/bash", "--uid", "1004", "deploy"])?;
    let modules = tree.join("usr/lib/modules");
    fs::create_dir_all(&modules)?;
    fs::set_permissions(&modules, fs::Permissions::from_mode(0o755))?;
    quietly(Command::new("cp").arg("-r").arg(&kernel.modules).arg(&modules))?;
    chroot(&["depmod", &kernel.version])?;
    Ok(())
}
