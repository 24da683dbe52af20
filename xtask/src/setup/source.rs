//! The compiler for the eBPF target, and what is built from source: bpf-linker,
//! cargo-cyclonedx.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    cargo, checked, packages,
    setup::say,
    toolchain::{self, Compiler},
    versions::{BPF_LINKER, CARGO_CYCLONEDX, NIGHTLY},
};

/// Installs rustup's nightly with rust-src.
pub fn install_nightly() -> anyhow::Result<()> {
    checked(
        Command::new("rustup")
            .args(["toolchain", "install", NIGHTLY, "--profile", "minimal"])
            .args(["--component", "rust-src"]),
    )
}

/// Builds bpf-linker against the LLVM that the compiler was built with.
pub fn install_linker() -> anyhow::Result<()> {
    let compiler = toolchain::find_compiler().context(
        "there is still no Rust compiler for eBPF\nhint: install Debian's rustc-web, cargo-web and \
         libstd-rust-web-dev-bpf, or rustup's nightly with rust-src",
    )?;
    let mut install = Command::new("cargo");
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    if let Compiler::Precompiled { rustc, .. } = compiler {
        let llvm = llvm_major(&rustc)?;
        let package = format!("llvm-{llvm}-dev");
        let prefix = format!("/usr/lib/llvm-{llvm}");
        if !Path::new(&prefix).join("bin/llvm-config").exists() {
            say(&format!("{} was built with LLVM {llvm}: installing {package}", rustc.display()));
            packages::apt_install(&[&package])?;
        }
        install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
        install.env("LLVM_PREFIX", prefix);
    }
    checked(&mut install)
}

/// Returns whether cargo-cyclonedx is installed, in the version that releases are made with.
pub fn has_cyclonedx() -> bool {
    let version = cargo().args(["cyclonedx", "--version"]).stderr(Stdio::null()).output();
    version.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace().any(|word| word == CARGO_CYCLONEDX)
    })
}

/// Builds cargo-cyclonedx.
pub fn install_cyclonedx() -> anyhow::Result<()> {
    let name = "cargo-cyclonedx";
    checked(cargo().args(["install", name, "--version", CARGO_CYCLONEDX, "--locked"]))
}

/// Returns the major version of LLVM that rustc reports.
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
