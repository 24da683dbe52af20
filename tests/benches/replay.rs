//! How many recorded events are diagnosed again in a second, on one processor and compared
//! with `jq -c .`, which reads and writes the same file; and the memory that it takes for a
//! file ten times as large.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on says where"
)]

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use portwatch::event::Event;
use portwatch_tests::{golden, programs};
use rustix::thread::{CpuSet, sched_setaffinity};

const EVENTS: usize = 100_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let listener = include_str!("../golden/listener.jsonl").trim_end().to_owned();
    let golden: Vec<String> = fs::read_dir(golden::folder())
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap().trim_end().to_owned())
        .collect();
    // The golden events have sorted keys, like those of many log stores.
    let as_written = |line: &String| {
        serde_json::to_string(&serde_json::from_str::<Event>(line).unwrap()).unwrap()
    };
    let written: Vec<String> = golden.iter().map(as_written).collect();
    // A crash loop has one holder; a crowd has another for each.
    write(&at("loop"), EVENTS, |n| of_process(&listener, n));
    write(&at("loop10"), EVENTS * 10, |n| of_process(&listener, n));
    write(&at("crowd"), EVENTS, |n| {
        of_process(&listener, n).replace("31550", &(100_000 + n).to_string())
    });
    write(&at("kinds"), EVENTS, |n| of_process(&written[n % written.len()], n));
    write(&at("sorted"), EVENTS, |n| golden[n % golden.len()].clone());
    // As a current agent captures them; unchanged, they have diagnoses of other rules.
    let replay = programs::portwatch().unwrap();
    fs::copy(at("loop"), at("other")).unwrap();
    for name in ["loop", "loop10", "crowd", "kinds"] {
        diagnose_again(&replay, &at(name));
    }

    println!("{:36}{:>12}{:>12}{:>12}", "one processor", "events/s", "MB/s", "RSS MiB");
    for (name, file, events) in [
        ("replay, a crash loop", "loop", EVENTS),
        ("replay, ten times as much", "loop10", EVENTS * 10),
        ("replay, another holder each", "crowd", EVENTS),
        ("replay, every kind of event", "kinds", EVENTS),
        ("replay, of other rules", "other", EVENTS),
        ("replay, keys in another order", "sorted", EVENTS),
    ] {
        row(name, &replay, &["replay", "--format", "json"], &at(file), events);
    }
    match programs::installed("jq") {
        Some(jq) => row("jq -c ., a crash loop", &jq, &["-c", "."], &at("loop"), EVENTS),
        None => println!("jq is not there"),
    }
}

/// The event with another failing process, like the next start of a service.
fn of_process(event: &str, number: usize) -> String {
    let mut event: Event = serde_json::from_str(event).unwrap();
    let pid = 1_000 + u32::try_from(number).unwrap();
    let later =
        |at: Timestamp| at + SignedDuration::from_millis(100) * i32::try_from(number).unwrap();
    event.id = format!("{number:08x}{}", event.id);
    event.time = later(event.time);
    event.failure.cookie = Some(u64::from(pid));
    event.process.pid = pid;
    event.process.tid = Some(pid);
    event.process.started = event.process.started.map(later);
    if let Some(supervisor) = &mut event.process.supervisor {
        supervisor.restarts = Some(pid);
    }
    serde_json::to_string(&event).unwrap()
}

fn write(path: &Path, events: usize, line: impl Fn(usize) -> String) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in 0..events {
        writeln!(file, "{}", line(number)).unwrap();
    }
    file.flush().unwrap();
}

/// Replaces the diagnoses in a file by current ones.
fn diagnose_again(replay: &Path, file: &Path) {
    let again = file.with_extension("again");
    let out = File::create(&again).unwrap();
    let mut command = Command::new(replay);
    command.args(["replay", "--format", "json"]).arg(file).stdout(out);
    assert!(command.status().unwrap().success());
    fs::rename(again, file).unwrap();
}

/// The best of three runs.
fn row(name: &str, program: &Path, arguments: &[&str], file: &Path, events: usize) {
    let run = || {
        let mut command = Command::new(program);
        command.args(arguments).arg(file).stdout(Stdio::null());
        // SAFETY: one system call, which is safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                let mut one = CpuSet::new();
                one.set(0);
                Ok(sched_setaffinity(None, &one)?)
            });
        }
        let begin = Instant::now();
        let child = command.spawn().unwrap();
        let peak = wait_for_peak_kib(child);
        (begin.elapsed().as_secs_f64(), peak)
    };
    let (seconds, peak) = (0..3).map(|_| run()).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let megabytes = fs::metadata(file).unwrap().len() as f64 / 1e6;
    println!(
        "{name:36}{:>12.0}{:>12.0}{:>12.1}",
        events as f64 / seconds,
        megabytes / seconds,
        peak as f64 / 1024.0
    );
}

/// Waits for its success, and returns its peak memory.
fn wait_for_peak_kib(child: std::process::Child) -> i64 {
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: the structure is plain data, and wait4(2) fills it in; nothing else waits for
    // the child.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid);
        usage
    };
    assert_eq!(status, 0, "it has failed");
    usage.ru_maxrss
}
