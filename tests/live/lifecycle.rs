//! The agent's start and end: ready means attached, and its end leaves nothing.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    op::tcp,
    patience,
    process::{Process, code},
    programs::portwatch,
    scene::Scene,
};
use rustix::process::Signal;

/// The ids of the BPF programs that process `pid` has open or attached
/// (proc_pid_fdinfo(5)).
fn programs_of(pid: u32) -> BTreeSet<u32> {
    fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .flat_map(|info| {
            let ids = info.lines().filter_map(|line| line.strip_prefix("prog_id:"));
            ids.map(|id| id.trim().parse().unwrap()).collect::<Vec<u32>>()
        })
        .collect()
}

/// The programs in the kernel, by id, of any process.
fn loaded_programs() -> Vec<(u32, String)> {
    aya::programs::loaded_programs()
        // A program that is freed between listing and opening is an error.
        .filter_map(Result::ok)
        .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// The kernel frees programs a moment after their last reference, without a notification: so
/// this polls.
fn assert_gone(programs: &BTreeSet<u32>) {
    let deadline = Instant::now() + patience();
    loop {
        let left: Vec<_> =
            loaded_programs().into_iter().filter(|(id, _)| programs.contains(id)).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "programs are left: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn killed_it_leaves_no_program() {
    let mut doomed = Agent::start(&["run", "--format", "json"]).unwrap();
    let programs = programs_of(doomed.pid());
    let loaded = loaded_programs();
    let named = |id: &u32| loaded.iter().any(|(i, name)| i == id && name.starts_with("pw_"));
    assert!(!programs.is_empty(), "no program is loaded\n{}", doomed.said());
    assert!(programs.iter().all(named), "{programs:?} are not all ours in {loaded:?}");

    assert_eq!(code(doomed.end_by(Signal::KILL)), -9);
    assert_gone(&programs);
}

#[test]
fn asked_to_end_it_ends_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut ending = Agent::start(&["run", "--format", "json"]).unwrap();
        let programs = programs_of(ending.pid());
        let status = ending.end_by(signal);
        assert_eq!(code(status), 0, "{}", ending.said());
        assert_gone(&programs);
    }
}

/// The first failed bind after `ready` is reported, by each of two agents.
#[test]
fn ready_means_attached() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let second = Agent::start(&["run", "--format", "json", "--port", "8080"]).unwrap();
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    second.event_of(&refused);
    scene.event_of(&refused);
}

/// `portwatch run | head -n 1` must not leave an agent without a reader behind.
#[test]
fn it_ends_when_its_reader_has_gone() {
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "\"$0\" run --format json --port 8080 | head -n 1"])
        .arg(portwatch().unwrap());
    let mut pipeline = Process::start(&mut command, Signal::KILL).unwrap();
    pipeline.stderr.wait_for_text(patience(), "ready").unwrap();
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    // The first is read; a closed reader is noticed when a later one is written.
    let deadline = Instant::now() + patience();
    while pipeline.wait(Duration::from_millis(100)).is_none() {
        assert!(Instant::now() < deadline, "it goes on\n{}", pipeline.said());
        scene.helper().is_refused(tcp("127.0.0.1:8080"));
    }
    let stderr = pipeline.stderr.wait_for_end(patience());
    let complaint = |line: &str| line.contains("panicked") || line.starts_with("error");
    assert!(!stderr.lines().any(complaint), "{stderr}");
}
