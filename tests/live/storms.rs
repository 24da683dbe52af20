//! Many identical failures: one event at once and one with their count, and every failed bind
//! in exactly one of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    cgroup::Slice,
    log::Log,
    op::{Op, tcp},
    patience,
    process::resident_kib,
    say,
    scene::Scene,
    skip::in_guest,
};

const ADDRESS: &str = "127.0.0.1:8080";

fn agent(more: &[&str]) -> Agent {
    let arguments = [&["run", "--format", "json", "--port", "8080", "--port", "8081"], more];
    Agent::start(&arguments.concat()).unwrap()
}

fn told_and_lost(log: &Log, scene: &Scene) -> u64 {
    log.told_in(&scene.netns) + log.losses
}

/// A hundred thousand failed binds a second for ten seconds: all are accounted for, the agent
/// stays small and uses little processor time, and another port's event is reported.
#[test]
fn a_storm_is_counted_exactly() {
    let scene = Scene::alone();
    let agent = agent(&["--storm-window", "2s"]);
    let _holder =
        scene.helper().holds([tcp(ADDRESS).listening(), tcp("127.0.0.1:8081").listening()]);
    // In rounds, because waits for the helper have a time limit.
    let (seconds, processes, binds) = if in_guest() { (0, 4, 1_000) } else { (10, 4, 350_000) };
    let time = Duration::from_secs(seconds);
    let (memory, processor) = (resident_kib(agent.pid()), processor_ms(agent.pid()));
    let begin = Instant::now();
    let (other, refused) = std::thread::scope(|scope| {
        let storms: Vec<_> = (0..processes)
            .map(|_| {
                scope.spawn(|| {
                    let mut refused = 0;
                    while refused == 0 || begin.elapsed() < time {
                        let storm = Op::Storm(ADDRESS.parse().unwrap(), binds);
                        assert_eq!(scene.helper().runs([storm]).last().refused, binds);
                        refused += u64::from(binds);
                    }
                    refused
                })
            })
            .collect();
        let refused = scene.helper().is_refused(tcp("127.0.0.1:8081"));
        let event = agent.event_of(&refused);
        let all: u64 = storms.into_iter().map(|storm| storm.join().unwrap()).sum();
        (event.at_ns.saturating_sub(refused.last().at_ns) / 1_000_000, all)
    });
    let took = begin.elapsed();
    let all = refused + 1;
    agent.wait_until("all of the storm", patience(), |log| {
        (told_and_lost(log, &scene) >= all).then_some(())
    });
    let told_after = begin.elapsed();
    let busy = processor_ms(agent.pid()) - processor;
    let grown = resident_kib(agent.pid()).saturating_sub(memory);
    // Duplicates would have come by the end of the next window.
    let sentinel = scene.helper().is_refused(tcp(ADDRESS));
    agent.event_of(&sentinel);
    let (told, lost, lines) = agent
        .look(|log| (log.told_in(&scene.netns), log.losses, log.events_in(&scene.netns).count()));
    say(&format!(
        "storm: {all} refusals in {took:.1?} ({:.0}/s), {told} told in {lines} events, {lost} \
         counted as lost; the agent took {busy} ms of processor time and {grown} KiB more; the \
         other port's event after {other} ms",
        all as f64 / took.as_secs_f64()
    ));
    // Losses have no port, so another program's may be among them.
    assert!(told <= all + 1 && told + lost > all, "unaccounted for");
    assert!(u128::from(busy) < took.as_millis() || in_guest(), "{busy} ms in {took:?}");
    assert!(grown < 8 * 1024, "{grown} KiB");
    assert!(other < 1_000 || in_guest(), "{other} ms");
    // Each process has one event at its beginning, and a summary at the end of its last window
    // and of each full one before that. The two others are the other port's and the last.
    let started = usize::try_from(refused / u64::from(binds)).unwrap();
    let windows =
        usize::try_from(told_after.as_secs() / 2).unwrap() * usize::try_from(processes).unwrap();
    assert!(lines <= 2 * started + windows + 2, "{lines} events of {started} processes");
}

/// A unit that is started again and again: the first few events, then a summary.
#[test]
fn a_crash_loop_of_a_unit() {
    const PROCESSES: u64 = 20;
    let scene = Scene::new();
    let agent = agent(&["--storm-window", "1s"]);
    let slice = Slice::new();
    let group = slice.group("app.service");
    let _holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let pids: Vec<u32> =
        (0..PROCESSES).map(|_| scene.helper().within(&group).runs([tcp(ADDRESS)]).pid).collect();
    let events = agent.wait_until("the crash loop", patience(), |log| {
        let events: Vec<_> = log.events_in(&scene.netns).cloned().collect();
        (log.told_in(&scene.netns) >= PROCESSES).then_some(events)
    });
    let (single, summaries): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.count == 1);
    assert_eq!(single[0].pid, Some(pids[0]));
    assert!(single.len() < 12, "{}", single.len());
    let summary = summaries.last().unwrap();
    assert!(summary.text("/first_seen") < summary.text("/last_seen"), "{summary}");
    assert_eq!(summary.text("/process/unit"), "app.service", "{summary}");
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), PROCESSES);
}

/// The same process, blocked by another holder: a new event.
#[test]
fn another_holder_is_another_event() {
    let scene = Scene::new();
    let agent = agent(&[]);
    let first = scene.helper().holds([tcp(ADDRESS).listening()]);
    let mut failing = scene.helper().holds([tcp("127.0.0.1:9000")]);
    let holder_in = |agent: &Agent, holder: u32| {
        agent.wait_for("this holder", |event| {
            event.number("/diagnosis/holder/pid") == Some(u64::from(holder))
        })
    };
    for _ in 0..3 {
        failing.does(tcp(ADDRESS));
    }
    holder_in(&agent, first.pid());
    drop(first);
    let second = scene.helper().holds([tcp(ADDRESS).listening()]);
    failing.does(tcp(ADDRESS));
    let event = holder_in(&agent, second.pid());
    assert_eq!(event.count, 1, "{event}");
}

/// `utime` and `stime` (proc_pid_stat(5)), in ticks of 10 ms.
fn processor_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}
