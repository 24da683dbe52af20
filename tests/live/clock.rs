//! The wall clock is set, as ntpd does after a boot: events have the time that it shows then,
//! and captured events stay in order and complete.

use std::time::Duration;

use portwatch_tests::{
    agent::Agent,
    command::{portwatch, run},
    event::Event,
    op::tcp,
    process::code,
    scene::Scene,
    skip::{in_guest, skip},
};
use rustix::{
    process::Signal,
    time::{ClockId, Timespec, clock_gettime, clock_settime},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A wall clock that is an hour slow until this is dropped.
struct Slow;

impl Slow {
    fn new() -> Self {
        step(|now, by| now - by);
        Self
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        step(|now, by| now + by);
    }
}

fn step(change: fn(i64, i64) -> i64) {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    let by = i64::try_from(HOUR.as_secs()).unwrap();
    let changed = Timespec { tv_sec: change(tv_sec, by), tv_nsec };
    clock_settime(ClockId::Realtime, changed).expect("root sets the clock");
}

#[test]
fn it_is_set_back() {
    if !in_guest() {
        return skip("clock", "this machine's clock is everybody's");
    }
    let scene = Scene::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    // Few events per file, and the files have their names from the clock.
    let arguments = "run --format json --port 8080 --storm-window 0s --capture-file-size 4KiB";
    let arguments: Vec<_> = arguments.split(' ').chain(["--capture", path]).collect();
    let mut agent = Agent::start(&arguments).unwrap();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let told = || agent.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
    let before = told();
    let slow = Slow::new();
    let meanwhile = told();
    drop(slow);
    let after = told();
    let time = |event: &Event| event.text("/time").to_owned();
    assert!(time(&meanwhile) < time(&before), "{before}\n{meanwhile}");
    assert!(time(&before) < time(&after), "{before}\n{after}");
    for event in [&before, &meanwhile, &after] {
        event.is_explained();
        assert!(event.text("/process/started") <= event.text("/time"), "{event}");
    }
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());

    let replayed = run(&mut portwatch(&["replay", path, "--format", "json"]));
    assert_eq!(replayed.code, 0, "{}", replayed.stderr);
    let ids = |event: &Event| event.text("/id").to_owned();
    let places = [&before, &meanwhile, &after].map(|event| replayed.stdout.find(&ids(event)));
    assert!(places.is_sorted() && places[0].is_some(), "{}", replayed.stdout);
}
