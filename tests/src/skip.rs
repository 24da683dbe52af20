//! Expected skips, and why. A test that cannot run and is not listed here fails: a skip must
//! not count as a success.

use std::env;

use crate::{agent::agent, kernel};

/// Where a test cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the emulated guest, whose root is an initramfs with busybox.
    Guest,
    /// On other machines, whose kernel may have any configuration.
    Machine,
    /// On kernels before this version.
    Before(u32, u32),
    /// On kernels with pages of more than 4 KiB.
    LargePages,
    /// With an agent that uses the tracepoint set.
    Tracepoint,
}

/// An expected skip.
struct Expected {
    test: &'static str,
    place: Place,
    why: &'static str,
}

const fn expected(test: &'static str, place: Place, why: &'static str) -> Expected {
    Expected { test, place, why }
}

const EXPECTED: &[Expected] = &[
    expected("runit_starts_it_again", Place::Guest, "the initramfs holds no supervisor"),
    expected("managers", Place::Guest, "the initramfs holds no managers"),
    expected("commands", Place::Guest, "the initramfs holds busybox only"),
    expected("a_tunnel_is_shown_by_its_device", Place::Machine, "a kernel may be built without it"),
    expected("pm2", Place::Guest, "the initramfs holds no Node"),
    expected("pm2", Place::Machine, "Debian has no package of it"),
    expected("clock", Place::Machine, "its clock is everybody's"),
    expected("containers_of_docker", Place::Guest, "the initramfs holds no container engine"),
    expected("journald", Place::Guest, "the initramfs holds no systemd"),
    expected("prometheus", Place::Guest, "the initramfs holds no Prometheus"),
    expected("nginx_started_twice", Place::Guest, "the initramfs holds no nginx"),
    expected("redis_started_twice", Place::Guest, "the initramfs holds no redis"),
    expected("exec_in_a_pid_namespace", Place::Guest, "the initramfs holds no unshare(1)"),
    expected("explain_in_a_pid_namespace", Place::Guest, "the initramfs holds no unshare(1)"),
    expected("outcomes_in_a_pid_namespace", Place::Guest, "the initramfs holds no unshare(1)"),
    expected("outcomes_of_services", Place::Guest, "the initramfs holds no systemd"),
    expected("exec_under_another_user", Place::Guest, "the initramfs holds no setpriv(1)"),
    expected("io_uring", Place::Before(6, 11), "io_uring binds from Linux 6.11 on"),
    expected("io_uring", Place::Machine, "a machine may refuse io_uring to everybody"),
    expected("io_uring", Place::Tracepoint, "it ends no system call bind(2) or listen(2)"),
    expected("sctp", Place::Machine, "a kernel may be built without SCTP"),
    expected("sctp", Place::Tracepoint, "SCTP does not ask cgroup/bind"),
    expected("arguments_of_the_gone", Place::Before(5, 11), "no program sees them, or a parent"),
    expected("what_was_before", Place::Before(5, 14), "a socket does not tell its namespace"),
    expected("sockets_of_another_namespace", Place::Before(5, 14), "no program can compare them"),
    expected("descriptors_under_way", Place::Before(5, 16), "no program sees them"),
    expected("groups_that_are_gone", Place::Before(5, 13), "no program can read their paths"),
    expected("programs_of_another_kind", Place::Machine, "a kernel may be built without them"),
    expected("programs_of_another_kind", Place::Guest, "Debian starts x32 only when asked to"),
    expected("programs_of_arm", Place::Machine, "a processor may run 64-bit programs only"),
    expected("programs_of_arm", Place::LargePages, "such kernels run 64-bit programs only"),
    expected("processors_come_and_go", Place::Machine, "its processors are everybody's"),
    expected("cgroup_v1", Place::Machine, "a machine may have control groups of version 2 only"),
    expected("an_empty_root", Place::Machine, "its binary has libraries"),
    expected("dist", Place::Machine, "cargo xtask dist makes one, and tries it"),
    expected("mptcp", Place::Before(6, 1), "Debian builds its 5.10 without MPTCP"),
    expected("mptcp", Place::Machine, "a kernel may be built without MPTCP"),
];

/// Returns whether this runs in the guest that `cargo xtask vm` boots.
#[must_use]
pub fn in_guest() -> bool {
    env::var_os("PORTWATCH_GUEST").is_some_and(|value| value == "1")
}

/// Reports that `test` is skipped because it `lacks` something, and fails if that is not
/// expected here.
pub fn skip(test: &str, lacks: &str) {
    match EXPECTED.iter().find(|expected| expected.test == test && expected.place.is_here()) {
        Some(expected) => crate::say(&format!("skipped: {test}: {lacks} ({})", expected.why)),
        None => panic!("{test} cannot run here, and is not expected to be skipped: {lacks}"),
    }
}

/// Returns whether `test` is skipped because the kernel is older than this.
#[must_use]
pub fn needs(test: &str, (major, minor): (u32, u32)) -> bool {
    let lacks = !kernel::is_at_least(major, minor);
    if lacks {
        skip(test, &format!("Linux {major}.{minor}"));
    }
    lacks
}

impl Place {
    fn is_here(self) -> bool {
        match self {
            Self::Guest => in_guest(),
            Self::Machine => !in_guest(),
            Self::Before(major, minor) => !kernel::is_at_least(major, minor),
            Self::LargePages => rustix::param::page_size() > 4096,
            Self::Tracepoint => !agent().hooks_functions(),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "not expected to be skipped")]
    fn an_unexpected_skip_fails() {
        super::skip("a_test_that_runs_everywhere", "nothing");
    }
}
