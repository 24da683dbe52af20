//! An unresponsive process, whose memory cannot be read in time, does not delay others.

use std::{
    fs,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    command::{portwatch, run},
    helper::EADDRINUSE,
    op::{Op, tcp},
    process::code,
    scene::Scene,
};
use rustix::process::Signal;

/// A reader must block, or the test proves nothing.
fn is_deaf(pid: u32) -> bool {
    let (say, said) = mpsc::channel();
    thread::spawn(move || say.send(fs::read(format!("/proc/{pid}/cmdline")).is_ok()));
    said.recv_timeout(Duration::from_millis(300)).is_err()
}

#[test]
fn others_are_answered_in_time() {
    let scene = Scene::undisturbed();
    // What is longer than what the hooks see has to be read.
    let name = format!("deaf {}", "x".repeat(600));
    let ops = [tcp("127.0.0.1:8080").listening().into(), Op::Deaf];
    let mut deaf = scene.helper().called(&name).holds(ops);
    let sound = scene.helper().called("sound").holds([tcp("127.0.0.1:8081").listening()]);
    let patience = Instant::now() + Duration::from_secs(10);
    while !is_deaf(deaf.pid()) {
        assert!(Instant::now() < patience, "its memory can be read");
    }
    assert_eq!(deaf.does(tcp("127.0.0.1:8081")).errno, EADDRINUSE);
    let failing = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let began = Instant::now();
    let other = scene.helper().is_refused(tcp("127.0.0.1:8081"));
    let event = scene.event_of(&other);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(event.text("/sockets/0/holders/0/cmdline/0"), "sound");
    assert_eq!(event.at("/sockets/0/holders/0/pid"), sound.pid());
    let event = scene.event_of(&failing);
    assert_eq!(event.at("/sockets/0/holders/0/pid"), deaf.pid());
    let gaps = event.at("/gaps").to_string();
    assert!(gaps.contains(&format!("the arguments of pid {}", deaf.pid())), "{gaps}");

    // It exists when another agent starts, and when `explain` runs.
    let began = Instant::now();
    let mut agent = Agent::start(&["run", "--format", "json"]).unwrap();
    let mut explain = portwatch(&["explain", "127.0.0.1:8080", "--format", "json"]);
    scene.netns.confine(&mut explain);
    let explained = run(&mut explain);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(explained.stdout.contains(&format!("\"pid\":{}", deaf.pid())), "{explained}");
    let again = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    assert_eq!(agent.event_of(&again).at("/sockets/0/holders/0/pid"), deaf.pid());
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
}
