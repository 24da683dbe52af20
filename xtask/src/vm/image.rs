//! The guest's root: busybox, the programs, the modules that are needed, and
//! the script that runs as pid 1.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::vm::{Args, Programs, kernels::Kernel};

/// What sock_diag and a tunnel need, each after what it needs itself; nothing
/// loads modules on its own in the guest.
const MODULES: [&str; 6] = [
    "net/ipv4/inet_diag",
    "net/ipv4/tcp_diag",
    "net/ipv4/udp_diag",
    "net/ipv4/udp_tunnel",
    "net/ipv6/ip6_udp_tunnel",
    "drivers/net/vxlan/vxlan",
];

const APPLETS: [&str; 14] = [
    "sh", "mount", "insmod", "ip", "mkdir", "dmesg", "grep", "reboot", "cat", "echo", "hostname",
    "sleep", "umount", "true",
];

/// The tests' output goes to the second serial port, so that the kernel's own
/// does not mix with it. The last line is the exit status.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/netns /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
hostname guest
for module in /modules/*.ko; do insmod "$module"; done
ip link set lo up
export PORTWATCH_BIN=/bin/portwatch BINDER_BIN=/bin/binder PORTWATCH_GUEST=1 RUST_BACKTRACE=0
export PORTWATCH_SCENARIOS=@SCENARIOS@
cd /
status=0
for suite in differential live; do
    echo "$suite:" > /dev/ttyS1
    "/bin/$suite" @ARGS@ > /dev/ttyS1 2>&1 || status=$?
done
echo "exit status: $status" > /dev/ttyS1
dmesg | grep -E 'WARNING:|BUG:|Oops' | while read -r line; do echo "kernel: $line"; done > /dev/ttyS1
echo "end of run" > /dev/ttyS1
reboot -f
"#;

/// Writes the initramfs and gives its path.
pub fn build(
    kernel: &Kernel,
    programs: &Programs,
    args: &Args,
    cache: &Path,
) -> anyhow::Result<PathBuf> {
    ensure!(
        args.filter.chars().all(|char| char.is_ascii_alphanumeric() || "_:".contains(char)),
        "a test's name has letters, digits, _ and : only"
    );
    let init =
        INIT.replace("@ARGS@", &args.filter).replace("@SCENARIOS@", &args.scenarios.to_string());
    let path = cache.join(format!("initrd-{}", kernel.version));
    let mut archive = Archive { out: BufWriter::new(File::create(&path)?), inode: 1 };
    for folder in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "var"] {
        archive.entry(folder, ModeFileType::Directory, 0o755, &[])?;
    }
    archive.file("init", init.as_bytes())?;
    archive.file(
        "etc/passwd",
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    archive.copy("bin/busybox", Path::new("/bin/busybox"))?;
    for applet in APPLETS {
        archive.entry(&format!("bin/{applet}"), ModeFileType::Symlink, 0o777, b"busybox")?;
    }
    archive.copy("bin/portwatch", &programs.portwatch)?;
    archive.copy("bin/binder", &programs.binder)?;
    archive.copy("bin/live", &programs.live)?;
    archive.copy("bin/differential", &programs.differential)?;
    for (place, module) in MODULES.iter().enumerate() {
        archive.file(&format!("modules/{place}.ko"), &unpacked(&kernel.modules, module)?)?;
    }
    trailer(archive.out)?.flush()?;
    Ok(path)
}

/// A kernel module's bytes: `.ko`, or `.ko.xz` on newer kernels.
fn unpacked(modules: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = |ending: &str| modules.join(format!("kernel/{name}.{ending}"));
    if path("ko").exists() {
        return Ok(fs::read(path("ko"))?);
    }
    let output = Command::new("xz").arg("-dc").arg(path("ko.xz")).output()?;
    ensure!(output.status.success(), "no module {name} in {}", modules.display());
    Ok(output.stdout)
}

struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(
        &mut self,
        name: &str,
        kind: ModeFileType,
        mode: u32,
        bytes: &[u8],
    ) -> anyhow::Result<()> {
        self.inode += 1;
        let size = u32::try_from(bytes.len()).context("a file of 4 GiB")?;
        let mut entry = Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .set_mode_file_type(kind)
            .write(&mut self.out, size);
        entry.write_all(bytes)?;
        entry.finish()?;
        Ok(())
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.entry(name, ModeFileType::Regular, 0o755, bytes)
    }

    fn copy(&mut self, name: &str, from: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
        self.file(name, &bytes)
    }
}
