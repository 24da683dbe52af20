//! The cost of an idle agent: processor time, wake-ups and memory in a minute in which no bind
//! fails, and the size of its file.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on says where"
)]

use std::{fs, process::Command, thread, time::Duration};

use portwatch_tests::{agent::Agent, process::resident_kib, programs};

const TIME: Duration = Duration::from_secs(60);

fn main() {
    let agent = Agent::start(&["run", "--format", "json"]).expect("the agent starts");
    // Work that it does once, after its start.
    thread::sleep(Duration::from_secs(2));
    let (before, woken) = threads(agent.pid());
    thread::sleep(TIME);
    let (after, woken_again) = threads(agent.pid());
    let file = programs::portwatch().unwrap();
    let stripped = tempfile::NamedTempFile::new().unwrap();
    let strip = Command::new("strip").arg("-o").arg(stripped.path()).arg(&file).status();
    println!("{:44}{:>12}", format!("idle for {} s", TIME.as_secs()), "");
    println!("{:44}{:>12.2}", "processor time, ms", (after - before) as f64 / 1e6);
    println!("{:44}{:>12}", "wake-ups", woken_again - woken);
    println!("{:44}{:>12.1}", "RSS, MiB", resident_kib(agent.pid()) as f64 / 1024.0);
    if strip.is_ok_and(|status| status.success()) {
        let size = fs::metadata(stripped.path()).unwrap().len();
        println!("{:44}{size:>12}", "stripped file, bytes");
    }
}

/// Returns nanoseconds on a processor (the first number of /proc/PID/task/TID/schedstat), and
/// how often a thread was scheduled (proc_pid_status(5)).
fn threads(pid: u32) -> (u64, u64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let one = |folder: std::path::PathBuf| {
        let schedstat = fs::read_to_string(folder.join("schedstat")).unwrap();
        let status = fs::read_to_string(folder.join("status")).unwrap();
        let switches = status.lines().filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.ends_with("ctxt_switches").then(|| value.trim().parse::<u64>().ok())?
        });
        let ran: u64 = schedstat.split(' ').next().unwrap().parse().unwrap();
        (ran, switches.sum::<u64>())
    };
    let sum = |all: (u64, u64), task: (u64, u64)| (all.0 + task.0, all.1 + task.1);
    tasks.map(|task| one(task.unwrap().path())).fold((0, 0), sum)
}
