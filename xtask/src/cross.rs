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
    apt::{Apt, codename},
    arch::Arch,
    cargo,
    packages::Package,
    quietly, root, setup, toolchain,
    versions::{CROSS_BUSYBOX, CROSS_STD, PACKAGED_COMPILER},
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

/// Where programs without dynamic libraries are built, separate from those of this machine.
pub const FOLDER: &str = "target/static";

/// What programs for an architecture are built with.
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
        ensure_possible(arch)?;
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
    pub fn programs(&self, profile: &str) -> PathBuf {
        root().join(FOLDER).join(self.triple()).join(profile)
    }

    /// A cargo that builds programs without dynamic libraries for it. The paths of this machine
    /// are not in them.
    pub fn cargo(&self, verb: &[&str]) -> Command {
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
        let mut c_flags = Vec::new();
        for renamed in toolchain::renamed(&root()) {
            flags.push(format!("--remap-path-prefix={renamed}"));
            c_flags.push(format!("-ffile-prefix-map={renamed}"));
        }
        let plain = self.triple().replace('-', "_");
        let mut command;
        if let Some(sysroot) = &self.sysroot {
            // The standard library is that of Debian's compiler.
            command = Command::new("/usr/bin/cargo");
            let compiler = format!("{}-gcc", self.arch.facts().gnu);
            toolchain::without_outer_cargo(&mut command)
                .current_dir(root())
                .env("RUSTC", rustc(self.arch))
                .env(format!("CC_{plain}"), &compiler)
                .env(format!("CARGO_TARGET_{}_LINKER", plain.to_uppercase()), &compiler);
            flags.push(format!("--sysroot={}", sysroot.join("usr").display()));
        } else {
            command = cargo();
            flags.extend(self.arch.facts().linking.iter().map(|&flag| flag.to_owned()));
        }
        command
            .args(verb)
            .args(["--target", self.triple(), "--target-dir", FOLDER])
            // Programs of the build itself, which are this machine's, do not get these.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env_remove("CFLAGS")
            .env_remove("TARGET_CFLAGS")
            .env(format!("CFLAGS_{plain}"), c_flags.join(" "));
        command
    }
}

/// Returns the compiler of programs for an architecture.
pub fn rustc(arch: Arch) -> &'static str {
    if arch.is_native() { "rustc" } else { "/usr/bin/rustc" }
}

/// Fails if programs for the architecture cannot be built on this machine.
pub fn ensure_possible(arch: Arch) -> anyhow::Result<()> {
    ensure!(
        arch.is_native() || arch == Arch::Arm64,
        "programs for amd64 are built on amd64 only\nhint: cargo xtask build there"
    );
    Ok(())
}

/// Downloads and unpacks the standard library of the installed compiler's version, and busybox,
/// unless they are there.
fn sysroot(arch: Arch) -> anyhow::Result<PathBuf> {
    let [compiler, ..] = PACKAGED_COMPILER;
    let version = quietly(Command::new("dpkg-query").args(["-W", "-f=${Version}", compiler]))?;
    let folder = root().join("target/cross").join(arch.facts().debian);
    let tree = folder.join(version.replace(['.', '/'], "_"));
    if !tree.exists() {
        let release = codename()?;
        let security = format!("{release}-security");
        let apt = Apt::prepare(&folder.join("apt"), &[&release], &security, arch)?;
        apt.unpack(&[format!("{CROSS_STD}={version}"), CROSS_BUSYBOX.to_owned()], &tree)?;
    }
    let std = tree.join("usr/lib/rustlib").join(arch.facts().target);
    ensure!(std.is_dir(), "{CROSS_STD} has no {}", std.display());
    fs::canonicalize(&tree).context("the cross compiler's folder")
}
