//! Installs what is missing, says what and why, and does nothing the second
//! time.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    cargo, checked,
    packages::{self, Package},
    toolchain::{self, Compiler},
};

/// The version of bpf-linker that was proven with this code.
const BPF_LINKER: &str = "0.13.0";
/// The version of cargo-deb whose maintainer scripts were proven in a guest.
const CARGO_DEB: &str = "3.8.0";

/// What the live tests run: real servers, and a container engine.
const FOR_TESTS: [Package; 7] = [
    Package {
        name: "nginx-light",
        file: "/usr/sbin/nginx",
        why: "a real server that the tests start twice",
    },
    Package { name: "redis-server", file: "/usr/bin/redis-server", why: "another one" },
    Package {
        name: "docker.io",
        file: "/usr/sbin/dockerd",
        why: "a container engine of the tests' own; its service is not started",
    },
    Package { name: "busybox-static", file: "/bin/busybox", why: "all that is in a container" },
    Package {
        name: "systemd",
        file: "/usr/lib/systemd/systemd-journald",
        why: "a journal of the tests' own",
    },
    Package {
        name: "prometheus",
        file: "/usr/bin/promtool",
        why: "scrapes the agent and checks its alerts; its service is not started",
    },
    Package { name: "runit", file: "/usr/bin/runsv", why: "a supervisor for the tests" },
];

/// What portwatch is measured beside.
const FOR_BENCHMARKS: [Package; 3] = [
    Package { name: "iproute2", file: "/usr/bin/ss", why: "ss, to measure beside" },
    Package { name: "jq", file: "/usr/bin/jq", why: "to measure beside" },
    Package { name: "lsof", file: "/usr/bin/lsof", why: "to measure beside" },
];

/// What building and the benchmarks need.
pub fn for_benchmarks() -> anyhow::Result<()> {
    for_building()?;
    packages::install(&FOR_BENCHMARKS)
}

/// What building needs.
pub fn for_building() -> anyhow::Result<()> {
    packages::install(&[Package {
        name: "g++",
        file: "/usr/bin/c++",
        why: "links Rust programs, and bpf-linker against LLVM",
    }])?;
    let compiler = compiler()?;
    linker(&compiler)
}

/// What the Debian package needs beside a binary.
pub fn for_packaging() -> anyhow::Result<()> {
    let found =
        cargo().args(["deb", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    say(&format!("cargo-deb {CARGO_DEB}"), "packs the binary; built from source, some minutes");
    checked(cargo().args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked"]))
}

/// What building and testing need.
pub fn for_testing() -> anyhow::Result<()> {
    for_building()?;
    packages::install(&FOR_TESTS)
}

/// A compiler for the eBPF target: packaged with `core` precompiled where the
/// distribution has it, rustup's nightly with rust-src elsewhere.
fn compiler() -> anyhow::Result<Compiler> {
    if let Some(compiler) = toolchain::find_compiler() {
        return Ok(compiler);
    }
    let packaged = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
    if packages::are_available(&packaged) {
        say(
            "rustc-web, cargo-web, libstd-rust-web-dev-bpf",
            "compile the kernel side (Rust with core for eBPF)",
        );
        packages::apt_install(&packaged)?;
    } else {
        say("rustup's nightly with rust-src", "compiles the kernel side");
        checked(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))?;
    }
    toolchain::find_compiler().context(
        "there is still no Rust compiler for eBPF\nhint: install Debian's rustc-web, cargo-web and \
         libstd-rust-web-dev-bpf, or rustup's nightly with rust-src",
    )
}

/// bpf-linker, built against the LLVM that the compiler was built with.
fn linker(compiler: &Compiler) -> anyhow::Result<()> {
    if toolchain::find_linker().is_some() {
        return Ok(());
    }
    say(
        &format!("bpf-linker {BPF_LINKER}"),
        "links the kernel side; built from source, a minute or two",
    );
    let mut install = Command::new("cargo");
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    if let Compiler::Precompiled { rustc, .. } = compiler {
        let llvm = llvm_major(rustc)?;
        let package = format!("llvm-{llvm}-dev");
        let prefix = format!("/usr/lib/llvm-{llvm}");
        if !Path::new(&prefix).join("bin/llvm-config").exists() {
            say(&package, "bpf-linker is built against it");
            packages::apt_install(&[&package])?;
        }
        install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
        install.env("LLVM_PREFIX", prefix);
    }
    checked(&mut install)
}

/// The major version in rustc's own account of itself.
fn llvm_major(rustc: &Path) -> anyhow::Result<u32> {
    let output = toolchain::without_outer_cargo(&mut Command::new(rustc)).arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    match parse_llvm_major(&text) {
        Some(major) => Ok(major),
        None => bail!("{} does not say which LLVM it has", rustc.display()),
    }
}

fn parse_llvm_major(text: &str) -> Option<u32> {
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

/// One line for each thing that is installed.
pub fn say(what: &str, why: &str) {
    eprintln!("setup: installing {what}: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler_is_read_off_its_version() {
        let text =
            "rustc 1.96.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(parse_llvm_major(text), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.96.0"), None);
    }
}
