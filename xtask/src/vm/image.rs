//! The guest's root: busybox, the programs, the required modules, and the script that runs as
//! pid 1.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use crate::{
    arch::Arch,
    vm::{
        archive::Archive,
        kernels::Kernel,
        modules,
        programs::{Programs, Tests},
    },
};

const APPLETS: [&str; 16] = [
    "sh", "mount", "insmod", "ip", "mkdir", "dmesg", "grep", "reboot", "cat", "echo", "hostname",
    "sleep", "umount", "true", "tr", "head",
];

/// The tests' output goes to the second serial port, so that the kernel's own does not mix
/// with it. Names in capitals come from the kernel's command line.
const INIT: &str = r#"#!/bin/sh
say() { echo "$@" > /dev/@OUTPUT@; }
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
say "init"
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
[ "$GUEST_LACKS" = cgroup2 ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/netns /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
hostname guest
for module in /modules/*.ko; do
    case "$GUEST_LACKS/$module" in
        sock_diag/*_diag.ko) ;;
        *) insmod "$module" ;;
    esac
done
ip link set lo up
export PORTWATCH_BIN=/bin/portwatch BINDER_BIN=/bin/binder PORTWATCH_GUEST=1 RUST_BACKTRACE=0
export PORTWATCH_SCENARIOS="$GUEST_DIFFERENTIAL"
cd /
status=0
suite() {
    say "$1:"
    "/bin/$@" > /dev/@OUTPUT@ 2>&1 || status=$?
}
say "lockdown: $(cat /sys/kernel/security/lockdown)"
if [ -n "$GUEST_OVERHEAD" ]; then
    for PORTWATCH_HOOKS in fexit kprobe tracepoint; do
        export PORTWATCH_HOOKS
        suite overhead --bench
    done
else
    [ "$GUEST_DIFFERENTIAL" = 0 ] || suite differential
    suite live $(echo "$GUEST_TESTS" | tr , ' ')
fi
say "exit status: $status"
dmesg | grep -E -A 20 'WARNING:|BUG:|Oops|Call Trace' | head -n 200 |
    while read -r line; do echo "kernel: $line"; done > /dev/@OUTPUT@
say "end of run"
reboot -f
"#;

/// Writes the initramfs and returns its path.
pub fn build(
    arch: Arch,
    kernel: &Kernel,
    programs: &Programs,
    tests: &Tests,
    cache: &Path,
) -> anyhow::Result<PathBuf> {
    let path = cache.join(format!("initrd-{}", kernel.version));
    let mut archive = Archive::new(BufWriter::new(File::create(&path)?));
    for folder in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp", "var"] {
        archive.folder(folder)?;
    }
    archive.file("init", INIT.replace("@OUTPUT@", arch.facts().serial.1).as_bytes())?;
    archive.file(
        "etc/passwd",
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    archive.busybox(&programs.busybox, &APPLETS)?;
    archive.copy("bin/portwatch", &programs.portwatch)?;
    archive.copy("bin/binder", &programs.binder)?;
    archive.copy("bin/server", &programs.server)?;
    archive.copy("bin/live", &tests.live)?;
    archive.copy("bin/differential", &tests.differential)?;
    archive.copy("bin/overhead", &tests.overhead)?;
    archive.modules(&kernel.modules, &modules::OF_TESTS)?;
    archive.finish()?;
    Ok(path)
}
