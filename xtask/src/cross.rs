//! Builds for another architecture: Debian's cross linker, and the standard library of Debian's
//! own Rust for that architecture, unpacked into a folder. Nothing of it is installed as a
//! foreign architecture.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    arch::Arch,
    cargo,
    packages::Package,
    root, setup,
    versions::{CROSS_BUSYBOX, CROSS_STD},
    vm::{apt::Apt, emulator::codename},
};

/// The cross linker for arm64, and the C library that it links.
const ARM64: [Package; 2] = [
    Package::new(
        "gcc-aarch64-linux-gnu",
        "/usr/bin/aarch64-linux-gnu-gcc",
        "links programs for arm64",
    ),
    Package::new(
        "libc6-dev-arm64-cross",
        "/usr/aarch64-linux-gnu/lib/libc.a",
        "the C library that they contain",
    ),
];

/// Where programs for an architecture are built.
pub struct Target {
    arch: Arch,
    /// The unpacked packages of another architecture.
    sysroot: Option<PathBuf>,
}

impl Target {
    /// Installs what building for the architecture needs besides what building needs at all.
    pub fn prepare(arch: Arch) -> anyhow::Result<Self> {
        if arch.is_native() {
            return Ok(Self { arch, sysroot: None });
        }
        ensure!(
            arch == Arch::Arm64,
            "programs for amd64 are built on amd64 only\nhint: cargo xtask build there"
        );
        setup::for_cross(&ARM64)?;
        Ok(Self { arch, sysroot: Some(sysroot(arch)?) })
    }

    /// Rust's name of the target.
    pub fn triple(&self) -> &'static str {
        self.arch.facts().target
    }

    /// busybox, linked statically.
    pub fn busybox(&self) -> PathBuf {
        let root = self.sysroot.as_deref().unwrap_or(Path::new("/"));
        root.join("bin/busybox")
    }

    /// The directory of a profile's programs.
    pub fn programs(&self, target_dir: &str, profile: &str) -> PathBuf {
        root().join(target_dir).join(self.triple()).join(profile)
    }

    /// A cargo that builds programs without dynamic libraries for it, into this directory.
    pub fn cargo(&self, verb: &[&str], target_dir: &str) -> Command {
        const STATIC: &str = "-C target-feature=+crt-static";
        let Some(sysroot) = &self.sysroot else {
            let mut command = cargo();
            command.args(verb).env("RUSTFLAGS", STATIC);
            command.args(["--target", self.triple(), "--target-dir", target_dir]);
            return command;
        };
        // The standard library is that of Debian's compiler.
        let mut command = Command::new("/usr/bin/cargo");
        crate::toolchain::without_outer_cargo(&mut command).current_dir(root());
        let compiler = format!("{}-gcc", self.arch.facts().gnu);
        let (shell, plain) = (self.triple().to_uppercase(), self.triple());
        let (shell, plain) = (shell.replace('-', "_"), plain.replace('-', "_"));
        command
            .args(verb)
            .args(["--target", self.triple(), "--target-dir", target_dir])
            .env("RUSTC", "/usr/bin/rustc")
            .env(format!("CC_{plain}"), &compiler)
            .env(format!("CARGO_TARGET_{shell}_LINKER"), &compiler)
            .env(
                format!("CARGO_TARGET_{shell}_RUSTFLAGS"),
                format!("--sysroot {} {STATIC}", sysroot.join("usr").display()),
            );
        command
    }
}

/// Downloads and unpacks the standard library and busybox, once for each of their versions.
fn sysroot(arch: Arch) -> anyhow::Result<PathBuf> {
    let folder = root().join("target/cross").join(arch.facts().debian);
    let release = codename()?;
    let security = format!("{release}-security");
    let apt = Apt::prepare(&folder.join("apt"), &[&release], &security, arch)?;
    let packages = [CROSS_STD, CROSS_BUSYBOX].map(str::to_owned);
    let tree = folder.join(apt.cached_as(&packages)?);
    if !tree.exists() {
        let part = tree.with_extension("part");
        fs::create_dir_all(&part)?;
        apt.unpack(&packages, &part)?;
        fs::rename(&part, &tree)?;
    }
    let std = tree.join("usr/lib/rustlib").join(arch.facts().target);
    ensure!(std.is_dir(), "{CROSS_STD} has no {}", std.display());
    fs::canonicalize(&tree).context("the cross compiler's folder")
}
