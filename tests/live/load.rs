//! No failed bind is lost without being counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use portwatch_tests::{
    agent::Agent, event::Event, helper::Attempt, op::tcp, patience, process::code, say,
    scene::Scene, skip::in_guest,
};
use rustix::process::Signal;

const PROCESSES: u64 = 50;
const BINDS_EACH: u32 = 20;
const TOTAL: u64 = PROCESSES * BINDS_EACH as u64;

/// 1,000 failed binds of 50 short-lived processes, ten at a time.
#[test]
fn a_thousand_refusals_are_accounted_for() {
    let scene = Scene::undisturbed();
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let losses_before = scene.agent.look(|log| log.losses);
    let loop_of_binds = || {
        let finished = scene.helper().runs([tcp("127.0.0.1:8080").repeated(BINDS_EACH)]);
        assert_eq!(finished.last().refused, BINDS_EACH);
        finished
    };
    let refused: Vec<Attempt> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| (0..PROCESSES / 10).map(|_| loop_of_binds()).collect()))
            .collect();
        threads.into_iter().flat_map(|t| -> Vec<Attempt> { t.join().unwrap() }).collect()
    });

    let losses = scene.agent.wait_until("1,000 refusals", patience() * 2, |log| {
        let losses = log.losses - losses_before;
        (log.told_in(&scene.netns) + losses >= TOTAL).then_some(losses)
    });
    // Duplicates would have come before this one.
    let sentinel = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    scene.event_of(&sentinel);
    let is_ours = |event: &&Arc<Event>| event.pid != Some(sentinel.pid);
    let events: Vec<Arc<Event>> =
        scene.agent.look(|log| log.events_in(&scene.netns).filter(is_ours).cloned().collect());

    let mut told: BTreeMap<u32, u64> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for event in &events {
        let holder_told = event.number("/diagnosis/holder/pid");
        assert_eq!(holder_told, Some(u64::from(holder.pid())), "{event}");
        assert!(ids.insert(event.text("/id")), "an id is used twice\n{event}");
        *told.entry(event.pid.unwrap()).or_default() += event.count;
    }
    let (all, lines) = (told.values().sum::<u64>(), events.len());
    say(&format!(
        "load: {TOTAL} refusals, {all} told in {lines} events, {losses} counted as lost; the \
         kernel skipped {} runs of programs",
        scene.agent.skipped_programs()
    ));
    let pids: BTreeSet<u32> = refused.iter().map(|finished| finished.pid).collect();
    assert_eq!(pids.len() as u64, PROCESSES, "a pid was used twice");
    assert!(told.keys().all(|pid| pids.contains(pid)), "a stranger is named: {told:?}");
    assert!(told.values().all(|count| *count <= u64::from(BINDS_EACH)), "{told:?}");
    // Losses have no port, so another program's may be among them.
    assert!(all <= TOTAL && all + losses >= TOTAL, "{told:?}");
}

/// More than the agent may keep, while nobody reads its output: it continues, and in the end
/// reports how much it had to drop.
#[test]
fn a_reader_that_stalls_is_told_what_it_missed() {
    let scene = Scene::alone();
    let arguments = ["run", "--format", "json", "--storm-window", "0s", "--port", "8080"];
    let (mut stalled, gate) = Agent::start_stalled(&arguments).unwrap();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let losses_before = scene.agent.look(|log| log.losses);
    // An emulated guest would take minutes for so much output.
    let binds = if in_guest() { 200 } else { 2_400 };
    let refused = scene.helper().runs([tcp("127.0.0.1:8080").repeated(binds)]);
    assert_eq!(refused.last().refused, binds);
    // The shared agent has had the same work, so both are done by now.
    scene.agent.wait_until("all refusals", patience() * 3, |log| {
        let lost = log.losses - losses_before;
        (log.told_in(&scene.netns) + lost >= u64::from(binds)).then_some(())
    });

    drop(gate);
    assert_eq!(code(stalled.end_by(Signal::TERM)), 0, "{}", stalled.said());
    let (told, lost) = stalled.look(|log| (log.told_in(&scene.netns), log.losses));
    say(&format!("stalled reader: {binds} refusals, {told} told, {lost} counted as lost"));
    let binds = u64::from(binds);
    assert!(told <= binds && told + lost >= binds, "lost in silence:\n{}", stalled.talk());
}

/// Nobody reads until it has ended: it does not wait forever, and reports how much it could
/// not write.
#[test]
fn a_reader_that_never_comes_does_not_keep_it() {
    let binds: u32 = if in_guest() { 200 } else { 1_200 };
    let scene = Scene::alone();
    let arguments = ["run", "--format", "json", "--storm-window", "0s", "--port", "8080"];
    let (mut stalled, gate) = Agent::start_stalled(&arguments).unwrap();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let losses_before = scene.agent.look(|log| log.losses);
    let refused = scene.helper().runs([tcp("127.0.0.1:8080").repeated(binds)]);
    assert_eq!(refused.last().refused, binds);
    scene.agent.wait_until("all refusals", patience() * 3, |log| {
        let lost = log.losses - losses_before;
        (log.told_in(&scene.netns) + lost >= u64::from(binds)).then_some(())
    });

    assert_eq!(code(stalled.end_unread_by(Signal::TERM)), 0, "{}", stalled.talk());
    drop(gate);
    stalled.read_to_end();
    let talk = stalled.talk();
    let unwritten: u64 = talk
        .lines()
        .find_map(|line| line.split_once("were not reported: ")?.1.split_once(" in sink.json"))
        .unwrap_or_else(|| panic!("it does not say what it has lost:\n{talk}"))
        .0
        .parse()
        .unwrap();
    let (told, lost) = stalled.look(|log| (log.told_in(&scene.netns), log.losses));
    say(&format!("no reader: {binds} refusals, {told} told, {lost} lost, {unwritten} unwritten"));
    let binds = u64::from(binds);
    assert!(told <= binds && told + lost + unwritten >= binds, "lost in silence:\n{talk}");
}
