//! A whole Debian under QEMU: systemd as pid 1, the package installed in it, and scenarios
//! with real units (`tests/src/bin/guest`).

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use super::{
    archive::Archive,
    boot::{self, Clock},
    kernels,
    programs::{Programs, build_programs},
    scenario::TWO,
};
use crate::{
    arch::Arch,
    cross::Target,
    deb,
    dist::{commit::Commit, tree::Tree},
    packages::Package,
};

mod tree;

/// Options of `vm debian`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the scenarios whose name contains this text, or one of several separated by commas
    #[arg(long, default_value = "")]
    filter: String,
}

/// The release, and the series of its own kernel.
const SUITE: &str = "trixie";
const SERIES: &str = "6.12";

/// Besides what every guest needs.
const NEEDS: [Package; 3] = [
    Package::new("mmdebstrap", "/usr/bin/mmdebstrap", "makes the guest's root"),
    Package::new("e2fsprogs", "/usr/sbin/mke2fs", "makes the guest's disk"),
    Package::new("squashfs-tools", "/usr/bin/mksquashfs", "makes the system extension"),
];

/// The revisions of the package that are built: one to install, one to upgrade to.
const REVISIONS: [&str; 2] = ["1", "2"];

/// The disk's driver is a module; ext4 is not.
const MODULES: [&str; 1] = ["virtio_blk"];

/// Mounts the disk, copies what is tested onto it, and starts systemd as pid 1. The disk's
/// file does not change: QEMU keeps writes in a temporary file.
const INIT: &str = r#"#!/bin/sh
mount -t devtmpfs devtmpfs /dev
echo init > /dev/ttyS1
for module in /modules/*.ko; do insmod "$module"; done
mount -t ext4 /dev/vda /root
cp -r /payload /root/opt/payload
printf '%s' '@FILTER@' > /root/opt/payload/filter
exec switch_root /root /sbin/init
"#;

/// Builds, boots and prints the result; fails if a scenario failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.filter.chars().all(|char| char.is_ascii_alphanumeric() || "_,".contains(char)),
        "a scenario's name has letters, digits and _ only"
    );
    ensure!(Arch::native() == Arch::Amd64, "this guest is one for amd64 machines");
    let cache = super::prepare(Arch::Amd64, &NEEDS)?;
    let own = cache.join("debian");
    fs::create_dir_all(&own)?;
    let kernel = kernels::fetch(Arch::Amd64, SERIES, &cache)?;
    let disk = tree::disk(SUITE, &kernel, &own)?;
    let target = Target::prepare(Arch::Amd64)?;
    let programs = build_programs(&target)?;
    let packages = pack(&programs, &own)?;
    let initrd = own.join("initrd");
    lay_out(&initrd, &programs, &packages, &kernel, &args.filter)?;
    eprintln!("vm: booting Debian {SUITE} on {}", kernel.version);
    let said =
        boot::boot(Arch::Amd64, &kernel.vmlinuz, &initrd, Some(&disk), Clock::Real(TWO), "", &own)?;
    println!("{}", said.output);
    let word = outcome(&said.output);
    if word == "did not end" {
        println!("vm: its console:\n{}", said.console);
    }
    println!("vm: Debian {SUITE} on {} {word} in {} s", kernel.version, said.seconds);
    ensure!(word == "passed", "the whole guest did not pass");
    Ok(())
}

/// Returns the outcome: it passed only if it reported so to its end, and its kernel printed no
/// warnings.
fn outcome(output: &str) -> &'static str {
    let mut lines = output.lines().map(str::trim);
    match () {
        () if !lines.clone().any(|line| line == "end of run") => "did not end",
        () if lines.clone().any(|line| line.starts_with("kernel: ")) => "warned",
        () if lines.any(|line| line == "exit status: 0") => "passed",
        () => "failed",
    }
}

/// Builds the packages and the system extension, of the same binary.
fn pack(programs: &Programs, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let pack = |revision| {
        let made = deb::pack(&programs.portwatch, Arch::Amd64, revision, folder)?;
        let package = folder.join(format!("portwatch-{revision}.deb"));
        fs::rename(made, &package)?;
        Ok(package)
    };
    let mut made: Vec<_> = REVISIONS.into_iter().map(pack).collect::<anyhow::Result<_>>()?;
    let time = Commit::current()?.time;
    let tree = Tree::unpack(made.first().context("no package")?, &folder.join("package"), time)?;
    made.push(tree.extension(Arch::Amd64, "portwatch", folder)?);
    Ok(made)
}

fn lay_out(
    path: &Path,
    programs: &Programs,
    packages: &[PathBuf],
    kernel: &kernels::Kernel,
    filter: &str,
) -> anyhow::Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for folder in ["bin", "dev", "modules", "payload", "root"] {
        archive.folder(folder)?;
    }
    archive.file("init", INIT.replace("@FILTER@", filter).as_bytes())?;
    archive
        .busybox(&programs.busybox, &["sh", "mount", "insmod", "cp", "printf", "switch_root"])?;
    archive.modules(&kernel.modules, &MODULES)?;
    archive.copy("payload/guest", &programs.guest)?;
    archive.copy("payload/server", &programs.server)?;
    for package in packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&format!("payload/{name}"), package)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::outcome;

    #[test]
    fn a_run_passes_only_if_it_said_so_to_the_end() {
        assert_eq!(outcome("old_release ok\nexit status: 0\r\nend of run\n"), "passed");
        assert_eq!(outcome("exit status: 0\n"), "did not end");
        assert_eq!(outcome("exit status: 101\nend of run\n"), "failed");
        assert_eq!(outcome("exit status: 0\nkernel: WARNING: at x\nend of run\n"), "warned");
    }
}
