//! How soon `portwatch wait` returns, compared with the usual shell loop, and after the last
//! TIME-WAIT has ended. Times are from before the listener's close, or bind, to the end of the
//! waiting process.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on says where"
)]

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    command::portwatch, helper::Helper, netns::Netns, op::tcp, process::Process,
};
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(90);
const RUNS: u32 = 100;
/// The loop is slow, and its time is known.
const LOOP_RUNS: u32 = 20;

fn main() {
    let netns = Netns::new();
    println!("{:52}{:>6}{:>10}{:>10}{:>10}", "", "runs", "p50 ms", "p99 ms", "max ms");
    let address = "127.0.0.1:8080".parse().unwrap();
    let waits = |arguments: &[&str]| portwatch(&[&["wait", "8080"], arguments].concat());
    row("close -> wait --free", RUNS, |run| closes(&netns, address, &mut waits(&["--free"]), run));
    for pause in ["0.1", "1"] {
        let name = format!("close -> until ! ss -ltn … sleep {pause}");
        row(&name, LOOP_RUNS, |run| closes(&netns, address, &mut looped("!", pause), run));
    }
    row("bind, listen -> wait --listening", RUNS, |run| {
        listens(&netns, address, &mut waits(&["--listening"]), 20 + run % 20)
    });
    // After a second the hook that reports it is attached, if permissions allow one.
    row("the same, after a second", LOOP_RUNS, |_| {
        listens(&netns, address, &mut waits(&["--listening"]), 1000)
    });
    for pause in ["0.1", "1"] {
        let name = format!("bind, listen -> until ss -ltn … sleep {pause}");
        row(&name, LOOP_RUNS, |run| listens(&netns, address, &mut looped("", pause), spread(run)));
    }
    time_wait(&netns);
}

/// A listener closes.
fn closes(netns: &Netns, address: SocketAddr, command: &mut Command, run: u32) -> Duration {
    let listener = netns.listen(address);
    let mut waits = started(netns, command);
    thread::sleep(Duration::from_millis(spread(run).into()));
    let begin = Instant::now();
    drop(listener);
    ended(&mut waits, begin)
}

/// A listener starts after this many milliseconds.
fn listens(netns: &Netns, address: SocketAddr, command: &mut Command, after: u32) -> Duration {
    let mut waits = started(netns, command);
    thread::sleep(Duration::from_millis(after.into()));
    let begin = Instant::now();
    let _listener = netns.listen(address);
    ended(&mut waits, begin)
}

/// Another moment of a loop's second each time, in milliseconds.
fn spread(run: u32) -> u32 {
    20 + run * 389 % 1000
}

/// `for i in …; do ss -ltn | grep … && break; sleep 1; done`
fn looped(not: &str, pause: &str) -> Command {
    let mut command = Command::new("sh");
    let text = format!(
        "echo waiting >&2; for i in $(seq 1 1000); do {not} ss -ltn | grep -q '127.0.0.1:8080 ' \
         && break; sleep {pause}; done"
    );
    command.args(["-c", &text]);
    command
}

/// A process that has started to wait.
fn started(netns: &Netns, command: &mut Command) -> Process {
    netns.confine(command);
    let process = Process::start(command, Signal::KILL).unwrap();
    let told = process.stderr.wait_for_text(PATIENCE, "waiting");
    assert!(told.is_ok(), "{}", process.said());
    process
}

fn ended(process: &mut Process, begin: Instant) -> Duration {
    let status = process.wait_or_panic(PATIENCE);
    let took = begin.elapsed();
    assert!(status.success(), "{}", process.said());
    took
}

fn row(name: &str, runs: u32, run: impl FnMut(u32) -> Duration) {
    let mut taken: Vec<f64> = (0..runs).map(run).map(|took| took.as_secs_f64() * 1e3).collect();
    taken.sort_by(f64::total_cmp);
    // The smallest that this share does not exceed.
    let at = |share: usize| taken[(taken.len() * share).div_ceil(100) - 1];
    println!("{name:52}{runs:>6}{:>10.2}{:>10.2}{:>10.2}", at(50), at(99), at(100));
}

/// Three ports with TIME-WAIT, also watched in /proc/net/tcp.
fn time_wait(netns: &Netns) {
    let watched: Vec<_> = (8081u16..8084)
        .map(|port| {
            Helper::new(netns).succeeds([tcp(&format!("127.0.0.1:{port}")).leaving_time_wait(3)]);
            let mut command = portwatch(&["wait", &port.to_string(), "--free", "--timeout", "2m"]);
            let mut waits = started(netns, &mut command);
            thread::spawn(move || {
                let rows = format!("/proc/{}/net/tcp", waits.pid());
                let own = format!("0100007F:{port:04X} ");
                // After the process has exited, its file cannot be read either.
                let own_rows = || fs::read_to_string(&rows).is_ok_and(|rows| rows.contains(&own));
                while own_rows() {
                    thread::sleep(Duration::from_millis(1));
                }
                ended(&mut waits, Instant::now())
            })
        })
        .collect();
    for thread in watched {
        let after = thread.join().unwrap().as_secs_f64() * 1e3;
        println!("{:52}{:>36.2}", "end of the last TIME-WAIT -> wait --free", after);
    }
}
