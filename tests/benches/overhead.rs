//! The agent's cost for other processes: for a bind that succeeds, for any other system call,
//! and for a process's start and end, with outcomes and without them. The same loops with the
//! agent and without it, in turns, so that other work on the machine affects both.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on says where"
)]

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::{Duration, Instant},
};

use portwatch_tests::{agent::Agent, netns};
use rustix::{
    net::{AddressFamily, SocketType, bind, listen, socket, sockopt},
    process::getppid,
};

/// Pairs of measurements, one with the agent and one without.
const TURNS: usize = 15;
/// How long each loop runs in a turn.
const TURN: Duration = Duration::from_millis(300);
/// A port that nobody else has, in a namespace of the benchmark's own.
const PORT: u16 = 8080;
/// System calls of the loop around a bind.
const CALLS_PER_BIND: f64 = 5.0;
/// Of both processes.
const CALLS_PER_FORK: f64 = 3.0;

/// This program's argument for the loop of forks: in a process with nothing else, since the
/// threads and the memory of a harness are part of what a fork costs.
const FORKS: &str = "forks";

fn main() {
    if std::env::args().any(|argument| argument == FORKS) {
        println!("{}", rounds(20, fork));
        return;
    }
    netns::enter_fresh();
    let names = ["getppid", "socket, setsockopt, bind, listen, close", "fork, _exit, waitpid"];
    let mut without = [Vec::new(), Vec::new(), Vec::new()];
    let mut with = [Vec::new(), Vec::new(), Vec::new()];
    let mut with_no_outcomes = Vec::new();
    let mut hooks = String::new();
    // Fewer are enough where nothing else runs.
    let turns = std::env::var("OVERHEAD_TURNS").map_or(TURNS, |turns| turns.parse().unwrap());
    for _ in 0..turns {
        measure(&mut without);
        let agent = Agent::start(&["run", "--format", "json"]).expect("the agent starts");
        if hooks.is_empty() {
            hooks = agent.hooks();
        }
        measure(&mut with);
        drop(agent);
        let agent = Agent::start(&["run", "--format", "json", "--outcome-window", "0s"]);
        let _agent = agent.expect("the agent starts");
        with_no_outcomes.push(forks());
    }
    println!("hooks: {hooks}; {turns} turns of {} ms each\n", TURN.as_millis());
    println!(
        "{:44}{:>12}{:>12}{:>10}{:>10}{:>12}",
        "ns per round, median", "without", "with", "more ns", "more %", "ns a call"
    );
    for (at, (name, calls)) in names.iter().zip([1.0, CALLS_PER_BIND, CALLS_PER_FORK]).enumerate() {
        let (before, after) = (median(&mut without[at]), median(&mut with[at]));
        let more = after - before;
        println!(
            "{name:44}{before:>12.1}{after:>12.1}{more:>10.1}{:>10.1}{:>12.1}",
            100.0 * more / before,
            more / calls
        );
    }
    println!("{:44}{:>12}{:>12.1}", "the same without outcomes", "", median(&mut with_no_outcomes));
}

/// Adds what one round of each loop takes, in nanoseconds.
fn measure(taken: &mut [Vec<f64>; 3]) {
    taken[0].push(rounds(1_000, || {
        std::hint::black_box(getppid());
    }));
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    taken[1].push(rounds(20, || {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &address).unwrap();
        listen(&socket, 16).unwrap();
    }));
    taken[2].push(forks());
}

/// Returns nanoseconds for one process's start and end.
fn forks() -> f64 {
    let mut itself = Command::new(std::env::current_exe().unwrap());
    let output = itself.arg(FORKS).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn fork() {
    // SAFETY: there is only one thread. The child ends at once, without the parent's clean-up,
    // and the parent waits for its own child, into a writable status.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
    }
}

/// Returns nanoseconds for each of the rounds that fit into a turn; the clock is read after
/// each `at_once`.
fn rounds(at_once: u32, mut round: impl FnMut()) -> f64 {
    // With warm caches, and after the agent's start-up work.
    (0..at_once * 20).for_each(|_| round());
    let begin = Instant::now();
    let mut done = 0u32;
    loop {
        (0..at_once).for_each(|_| round());
        done += at_once;
        let taken = begin.elapsed();
        if taken >= TURN {
            return taken.as_secs_f64() * 1e9 / f64::from(done);
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
