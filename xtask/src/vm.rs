//! The live tests and the differential test on stock Debian kernels, under QEMU
//! without KVM. Nothing is installed on the host but QEMU and busybox.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, bail, ensure};

use crate::{
    cargo, checked,
    packages::{self, Package},
    root, setup,
};

mod boot;
mod image;
mod kernels;

/// Options of `vm`.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel series: 5.10, 6.1, 6.12, 6.16, 6.18
    #[arg(default_values_t = ["6.12".to_owned()])]
    series: Vec<String>,
    /// Only the tests whose name contains this
    #[arg(long, default_value = "")]
    filter: String,
    /// How many scenarios the differential test plays
    #[arg(long, default_value_t = 10_000)]
    scenarios: u32,
}

const NEEDS: [Package; 3] = [
    Package {
        name: "qemu-system-x86",
        file: "/usr/bin/qemu-system-x86_64",
        why: "boots the kernels",
    },
    Package { name: "busybox-static", file: "/bin/busybox", why: "is the guest's user space" },
    Package { name: "xz-utils", file: "/usr/bin/xz", why: "unpacks kernel modules" },
];

/// Boots each series in turn; fails if the suite failed on any.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::for_building()?;
    packages::install(&NEEDS)?;
    let cache = root().join("target/vm");
    fs::create_dir_all(&cache)?;
    let programs = build_static()?;
    let mut failed = Vec::new();
    for series in &args.series {
        let kernel = kernels::fetch(series, &cache)?;
        let initrd = image::build(&kernel, &programs, args, &cache)?;
        eprintln!("vm: booting {}", kernel.version);
        let start = Instant::now();
        let outcome = boot::run(&kernel.vmlinuz, &initrd, &cache)?;
        let seconds = start.elapsed().as_secs();
        println!("vm: {} {} in {seconds} s", kernel.version, outcome.word());
        if !outcome.passed() {
            failed.push(series.clone());
        }
    }
    ensure!(failed.is_empty(), "the suite failed on {}", failed.join(", "));
    Ok(())
}

/// The programs that run in the guest, linked statically because it has no
/// libraries.
pub struct Programs {
    pub portwatch: PathBuf,
    pub binder: PathBuf,
    pub live: PathBuf,
    pub differential: PathBuf,
}

fn build_static() -> anyhow::Result<Programs> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target_dir = root().join("target/static");
    let command = |verb: &[&str]| {
        let mut command = cargo();
        command
            .args(verb)
            .args(["--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            // Emulation is slow and the guest's memory small.
            .args(["--config", "profile.dev.opt-level=1", "--config", "profile.dev.strip=true"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static");
        command
    };
    checked(command(&["build", "--bins"]).args(["-p", "portwatch", "-p", "portwatch-tests"]))?;
    let output = command(&["test", "--no-run", "--message-format=json"])
        .args(["-p", "portwatch-tests", "--test", "live", "--test", "differential"])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tests do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let test = |name| {
        executable(&messages, name)
            .with_context(|| format!("cargo names no executable for the {name} test"))
    };
    let bin = target_dir.join(TARGET).join("debug");
    Ok(Programs {
        portwatch: bin.join("portwatch"),
        binder: bin.join("binder"),
        live: test("live")?,
        differential: test("differential")?,
    })
}

/// The executable of a test in cargo's messages.
fn executable(messages: &str, test: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message.pointer("/profile/test")?.as_bool()?;
        let is_named = message.pointer("/target/name")?.as_str()? == test;
        (is_test && is_named).then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    })
}

/// A shell command's success, its output hidden unless it fails.
fn quietly(command: &mut std::process::Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_executable_is_found_among_the_messages() {
        let messages = concat!(
            r#"{"profile":{"test":false},"target":{"name":"live"},"executable":"/a/binder"}"#,
            "\n",
            r#"{"profile":{"test":true},"target":{"name":"other"},"executable":"/a/other-1"}"#,
            "\n",
            r#"{"profile":{"test":true},"target":{"name":"live"},"executable":"/a/live-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "live"), Some(PathBuf::from("/a/live-1")));
        assert_eq!(executable(messages, "cli"), None);
    }
}
