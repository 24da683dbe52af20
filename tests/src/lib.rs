//! The harness: real processes, real sockets, and the `portwatch` binary as a user runs it. It
//! knows only the event's documented format, so that the tests check the program from outside.
//!
//! A test creates a network namespace of its own ([`netns`]), lets the helper program take a
//! port and fail to take it again ([`helper`], [`op`]), and waits for the event of the one
//! shared agent ([`agent`], [`event`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a harness that cannot go on fails the test, and the panic says where"
)]

pub mod agent;
pub mod began;
pub mod captured;
pub mod cgroup;
pub mod command;
mod counted;
pub mod docker;
pub mod event;
pub mod forms;
pub mod golden;
pub mod helper;
pub mod http;
pub mod journal;
pub mod kernel;
pub mod log;
pub mod netns;
pub mod op;
pub mod ours;
pub mod paste;
pub mod process;
pub mod programs;
pub mod scene;
pub mod skip;
pub mod stopped;
pub mod stopping;
pub mod stream;
pub mod terminal;
pub mod turn;

use std::{io::Write as _, time::Duration};

/// Returns the longest wait: far above what is needed, so that only a missing answer takes as
/// long. An emulated guest is many times slower.
#[must_use]
pub fn patience() -> Duration {
    Duration::from_secs(if skip::in_guest() { 60 } else { 15 })
}

/// Prints something that is not a failure for the person at the terminal. It goes directly to
/// stderr, because the test runner captures what `eprintln!` prints.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    // A closed stderr is no reason to fail a test.
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// `CLOCK_MONOTONIC`, which is the same for all processes, so that times taken
/// by the helper program and by the harness can be compared.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}
