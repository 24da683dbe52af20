//! Skips that are expected, and why. A test that cannot run and does not stand
//! here fails: a skip must never pass for a success.

use std::env;

/// Where a test cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the emulated guest, whose root is an initramfs with busybox.
    Guest,
}

/// A skip that is no surprise.
struct Expected {
    test: &'static str,
    place: Place,
    why: &'static str,
}

const EXPECTED: &[Expected] = &[
    Expected {
        test: "runit_starts_it_again",
        place: Place::Guest,
        why: "the initramfs holds the tests' own programs only, not a supervisor",
    },
    Expected {
        test: "containers_of_docker",
        place: Place::Guest,
        why: "the initramfs holds the tests' own programs only, not a container engine",
    },
    Expected {
        test: "journald",
        place: Place::Guest,
        why: "the initramfs holds the tests' own programs only, not systemd",
    },
    Expected {
        test: "nginx_started_twice",
        place: Place::Guest,
        why: "the initramfs holds the tests' own programs only, not nginx and its libraries",
    },
    Expected {
        test: "exec_in_a_pid_namespace",
        place: Place::Guest,
        why: "the initramfs holds the tests' own programs only, not unshare(1)",
    },
    Expected {
        test: "redis_started_twice",
        place: Place::Guest,
        why: "the initramfs holds the tests' own programs only, not redis and its libraries",
    },
];

/// Whether this runs in the guest that `cargo xtask vm` boots.
#[must_use]
pub fn in_guest() -> bool {
    env::var_os("PORTWATCH_GUEST").is_some_and(|value| value == "1")
}

/// Says that `test` is skipped because it `lacks` something, and fails if it is
/// not expected to be skipped here.
pub fn skip(test: &str, lacks: &str) {
    let expected = in_guest()
        .then(|| EXPECTED.iter().find(|e| e.test == test && e.place == Place::Guest))
        .flatten();
    match expected {
        Some(expected) => crate::say(&format!("skipped: {test}: {lacks} ({})", expected.why)),
        None => panic!("{test} cannot run here, and is not expected to be skipped: {lacks}"),
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
