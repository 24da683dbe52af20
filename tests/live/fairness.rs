//! What one user does to the agent costs that user, not the others: their failed binds are
//! reported beside any flood, and the flood's own are counted exactly.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use portwatch_tests::{
    agent::Agent,
    helper::{Attempt, Helper},
    op::{Op, tcp},
    patience,
    process::resident_kib,
    say,
    scene::Scene,
    skip::in_guest,
};

/// Who floods.
const ATTACKER: u32 = 12_345;
/// Who must not notice.
const NEIGHBOUR: u32 = 12_346;
const NEIGHBOURS: u16 = 20;
/// Where the neighbours' binds fail; not among what the floods are at.
const FIRST: u16 = 9_000;
const FLOODED: u16 = 8_000;

/// What is held, by root: so that nobody's holder is the attacker's.
fn held() -> Vec<Op> {
    let ports = (0..NEIGHBOURS).map(|port| format!("127.0.0.1:{}", FIRST + port));
    ports.map(|address| tcp(&address).listening().into()).collect()
}

/// Runs `floods`, each again and again, for as long as the neighbours need, and returns what
/// came of the neighbours' binds in milliseconds, with how many binds of the floods failed.
fn beside(scene: &Scene, agent: &Agent, floods: &[Op]) -> (Vec<u64>, u64) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let floods: Vec<_> = floods
            .iter()
            .map(|flood| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut refused = 0;
                    while !stop.load(Relaxed) {
                        let ran = Helper::new(&scene.netns).by(ATTACKER).runs([flood.clone()]);
                        refused += u64::from(ran.last().refused);
                    }
                    refused
                })
            })
            .collect();
        // The floods are under way, and the agent has noticed.
        agent.wait_for("the flood", |event| event.at("/process/uid") == ATTACKER);
        let delays = (0..NEIGHBOURS).map(|port| {
            let helper = Helper::new(&scene.netns).by(NEIGHBOUR);
            let attempt = helper.is_refused(tcp(&format!("127.0.0.1:{}", FIRST + port)));
            let delay = delay_ms(agent, &attempt);
            thread::sleep(Duration::from_millis(50));
            delay
        });
        let delays: Vec<u64> = delays.collect();
        stop.store(true, Relaxed);
        (delays, floods.into_iter().map(|flood| flood.join().unwrap()).sum())
    })
}

/// How long its event took. That there is none fails the test.
fn delay_ms(agent: &Agent, attempt: &Attempt) -> u64 {
    let event = agent.event_of(attempt);
    event.at_ns.saturating_sub(attempt.last().at_ns) / 1_000_000
}

/// All of the neighbours' and each of the flood's own are accounted for.
fn a_flood(name: &str, holds: Vec<Op>, floods: &[Op]) {
    let scene = Scene::alone();
    let agent = Agent::start(&["run", "--format", "json", "--storm-window", "2s"]).unwrap();
    let _holder = scene.helper().holds([held(), holds].concat());
    let lost_before = agent.look(|log| log.losses);
    let (mut delays, flooded) = beside(&scene, &agent, floods);
    let all = flooded + u64::from(NEIGHBOURS);
    let (told, lost) = agent.wait_until("all of the flood", patience() * 4, |log| {
        let (told, lost) = (log.told_in(&scene.netns), log.losses - lost_before);
        (told + lost >= all).then_some((told, lost))
    });
    delays.sort_unstable();
    say(&format!(
        "fairness, {name}: {flooded} failed binds, {told} reported, {lost} counted as lost; the \
         {NEIGHBOURS} others after {} ms (median), {} ms (the last); {} KiB resident",
        delays[delays.len() / 2],
        delays[delays.len() - 1],
        resident_kib(agent.pid()),
    ));
    // Losses have no namespace, so a neighbour's on this machine may be among them.
    assert!(told <= all && told + lost >= all, "{told} reported and {lost} lost of {all}");
    assert!(resident_kib(agent.pid()) < 64 * 1024, "{} KiB", resident_kib(agent.pid()));
}

/// How many binds a round of a flood has; emulation is many times slower.
fn times(binds: u32) -> u32 {
    if in_guest() { binds / 100 } else { binds }
}

#[test]
fn beside_one_process_at_every_address_of_127_8() {
    let holds = vec![tcp(&format!("0.0.0.0:{FLOODED}")).listening().into()];
    a_flood("addresses", holds, &[Op::Spray(FLOODED, times(200_000))]);
}

#[test]
fn beside_a_crash_loop_of_processes() {
    let address = format!("127.0.0.1:{FLOODED}");
    let holds = vec![tcp(&address).listening().into()];
    let fork = Op::Fork(address.parse().unwrap(), times(2_000));
    a_flood("processes", holds, &[fork.clone(), fork]);
}

#[test]
fn beside_six_hundred_ports() {
    // More than there are groups of storms, but where each takes a while to be looked into.
    let ports: u16 = if in_guest() { 60 } else { 600 };
    let holds = (FLOODED..FLOODED + ports)
        .map(|port| tcp(&format!("127.0.0.1:{port}")).listening().into())
        .collect();
    let first = format!("127.0.0.1:{FLOODED}").parse().unwrap();
    a_flood("ports", holds, &[Op::Ports(first, ports, times(100_000))]);
}
