//! `--wait-free`: starts the command again when the ports are free.

use portwatch_tests::{
    op::{Socket, tcp},
    patience,
    scene::Scene,
};
use rustix::process::Signal;

use super::{ADDRESS, EADDRINUSE, exec, start, taker, to_its_end};

const LONG: &[&str] = &["--wait-free", "10m", "--format", "json"];

#[test]
fn it_is_started_again_when_the_port_is_free() {
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let process = start(&mut exec(&scene.netns, LONG, &[&program, &take]));
    let waiting = process.stderr.wait_for_text(patience(), "waiting").unwrap();
    assert!(waiting.contains(ADDRESS), "{waiting}");
    drop(holder);
    let ran = to_its_end(process);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    assert_eq!(ran.events.len(), 1, "{}", ran.stderr);
}

/// The bind's own options decide what TIME-WAIT blocks.
#[test]
fn it_waits_for_what_is_in_its_way() {
    let scene = Scene::new();
    let listener = tcp(ADDRESS).reuseaddr().listening();
    scene.helper().succeeds([listener.clone().leaving_time_wait(3)]);
    let holder = scene.helper().holds([listener]);
    let program = taker()[0].clone();
    let start_with = |options, take: Socket| {
        let process = start(&mut exec(&scene.netns, options, &[&program, &take.to_string()]));
        process.stderr.wait_for_text(patience(), "waiting").unwrap();
        process
    };
    let with_it = start_with(LONG, tcp(ADDRESS).reuseaddr());
    let without_it = start_with(&["--wait-free", "3s"], tcp(ADDRESS));
    drop(holder);
    let ran = to_its_end(with_it);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = to_its_end(without_it);
    assert_eq!(ran.code, EADDRINUSE, "{}", ran.stderr);
    assert!(ran.stderr.contains("still held"), "{}", ran.stderr);
}

#[test]
fn it_does_not_wait_for_ever() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let options = ["--wait-free", "100ms"];
    let ran = to_its_end(start(&mut exec(&scene.netns, &options, &[&program, &take])));
    assert_eq!(ran.code, EADDRINUSE, "{}", ran.stderr);
    assert!(ran.stderr.contains("still held"), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 1, "it was started again\n{}", ran.stdout);
}

/// Waiting does not help with other failures.
#[test]
fn without_a_refused_bind_it_is_not_started_again() {
    let scene = Scene::new();
    let ran = to_its_end(start(&mut exec(&scene.netns, LONG, &["sh", "-c", "echo one; exit 6"])));
    assert_eq!((ran.code, ran.stdout.as_str()), (6, "one\n"), "{}", ran.stderr);
}

/// A command that found another port and succeeded is not started again.
#[test]
fn a_success_is_not_started_again() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let other = tcp("127.0.0.1:8081").to_string();
    let ran = to_its_end(start(&mut exec(&scene.netns, LONG, &[&program, &take, &other])));
    assert_eq!((ran.code, ran.events.len()), (0, 1), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
}

#[test]
fn a_signal_ends_the_wait() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let [program, take] = taker();
    let process = start(&mut exec(&scene.netns, LONG, &[&program, &take]));
    process.stderr.wait_for_text(patience(), "waiting").unwrap();
    process.signal(Signal::TERM);
    assert_eq!(to_its_end(process).code, 128 + 15);
}
