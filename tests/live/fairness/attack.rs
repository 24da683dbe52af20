//! How an attack is made, and how it affects others.

use std::{
    os::unix::net::UnixListener,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use portwatch_tests::{
    agent::Agent,
    helper::{Attempt, Helper, Holder},
    op::{Op, tcp},
    patience,
    process::most_resident_kib,
    say,
    scene::Scene,
    skip::in_guest,
    stopping::Stopping,
};
use tempfile::TempDir;

/// The user that floods.
pub const ATTACKER: u32 = 12_345;
/// The user that must not be affected.
const NEIGHBOUR: u32 = 12_346;
const NEIGHBOURS: u16 = 20;
/// Where the neighbours' binds fail; separate from the floods' addresses.
const FIRST: u16 = 9_000;
pub const FLOODED: u16 = 8_000;

pub const RUN: [&str; 5] = ["run", "--format", "json", "--storm-window", "2s"];

/// The operation of an attacker, which is repeated, and returns how many of its binds have
/// failed.
pub struct Flood<'a> {
    does: Box<dyn Fn() -> u64 + Sync + 'a>,
    pause: Duration,
}

impl<'a> Flood<'a> {
    /// As fast as it can.
    pub fn new(does: impl Fn() -> u64 + Sync + 'a) -> Self {
        Self { does: Box::new(does), pause: Duration::ZERO }
    }

    /// Repeats an operation in the attacker's processes.
    pub fn of(scene: &'a Scene, op: Op) -> Self {
        Self::new(move || refused(Helper::new(&scene.netns).by(ATTACKER), op.clone()))
    }

    /// Slowly enough that no rate limit applies.
    pub fn pausing(self, ms: u64) -> Self {
        Self { pause: Duration::from_millis(ms), ..self }
    }

    fn run(&self, stop: &AtomicBool) -> u64 {
        let mut refused = 0;
        while !stop.load(Relaxed) {
            refused += (self.does)();
            thread::sleep(self.pause);
        }
        refused
    }
}

pub fn refused(helper: Helper<'_>, op: Op) -> u64 {
    u64::from(helper.runs([op]).last().refused)
}

/// Runs the floods for as long as the neighbours need. Returns the delays of the neighbours'
/// events in milliseconds, and how many binds of the floods failed.
fn beside(scene: &Scene, agent: &Agent, floods: &[Flood]) -> (Vec<u64>, u64) {
    // Held by root, so that no neighbour's holder is the attacker's.
    let ports = (0..NEIGHBOURS).map(|port| format!("127.0.0.1:{}", FIRST + port));
    let _held = scene.helper().holds(ports.map(|address| tcp(&address).listening()));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let floods: Vec<_> = floods.iter().map(|flood| scope.spawn(|| flood.run(&stop))).collect();
        // The flood has started, and the agent has reported it.
        agent.wait_for("the flood", |event| {
            event.number("/process/uid").is_some_and(|uid| ours(uid) && uid != u64::from(NEIGHBOUR))
        });
        let delays = (0..NEIGHBOURS).map(|port| {
            let helper = Helper::new(&scene.netns).by(NEIGHBOUR);
            let attempt = helper.is_refused(tcp(&format!("127.0.0.1:{}", FIRST + port)));
            let delay = delay_ms(agent, &attempt);
            thread::sleep(Duration::from_millis(50));
            delay
        });
        let delays: Vec<u64> = delays.collect();
        drop(stopping);
        (delays, floods.into_iter().map(|flood| flood.join().unwrap()).sum())
    })
}

/// Returns how long its event took. A missing event fails the test.
fn delay_ms(agent: &Agent, attempt: &Attempt) -> u64 {
    let event = agent.event_of(attempt);
    event.at_ns.saturating_sub(attempt.last().at_ns) / 1_000_000
}

/// What an attack needs in addition to the floods, until this is dropped.
#[derive(Default)]
pub struct Prepared {
    pub _holders: Vec<Holder>,
    pub _engine: Option<(TempDir, UnixListener)>,
    pub agent: Option<Agent>,
}

impl Prepared {
    pub fn of(holders: impl IntoIterator<Item = Holder>) -> Self {
        Self { _holders: holders.into_iter().collect(), ..Self::default() }
    }

    /// Held by root.
    pub fn held(scene: &Scene, ports: u16, address: &str) -> Self {
        let ports = (FLOODED..FLOODED + ports).map(|port| format!("{address}:{port}"));
        Self::of([scene.helper().holds(ports.map(|address| tcp(&address).listening()))])
    }
}

/// All of the neighbours' failed binds are reported, and each of the flood's own is accounted
/// for.
pub fn an_attack(
    name: &str,
    prepare: impl Fn(&Scene) -> Prepared,
    floods: impl for<'a> Fn(&'a Scene) -> Vec<Flood<'a>>,
) {
    let runs = std::env::var("PORTWATCH_RUNS").ok().map(|runs| runs.parse().unwrap());
    let mut all_delays = Vec::new();
    for _ in 0..runs.unwrap_or(1) {
        let scene = Scene::alone();
        let mut prepared = prepare(&scene);
        let agent = prepared.agent.take().unwrap_or_else(|| Agent::start(&RUN).unwrap());
        let lost_before = agent.look(|log| log.losses);
        let (mut delays, flooded) = beside(&scene, &agent, &floods(&scene));
        let all = flooded + u64::from(NEIGHBOURS);
        let (told, lost) =
            agent.wait_until(&format!("all {all} binds of the flood"), patience() * 4, |log| {
                let own = log
                    .events
                    .iter()
                    .filter(|event| event.number("/process/uid").is_some_and(ours));
                let told: u64 = own.map(|event| event.count).sum();
                let lost = log.losses - lost_before;
                (told + lost >= all).then_some((told, lost))
            });
        delays.sort_unstable();
        let resident = most_resident_kib(agent.pid());
        say(&format!(
            "fairness, {name}: {flooded} failed binds, {told} reported, {lost} counted as lost; \
             the {NEIGHBOURS} others after {} ms (median), {} ms (the last); {resident} KiB \
             resident at most",
            delays[delays.len() / 2],
            delays[delays.len() - 1],
        ));
        // Losses have no namespace, so those of another process on this machine may be among
        // them.
        assert!(told <= all && told + lost >= all, "{told} reported and {lost} lost of {all}");
        // Records that do not fit in the ring could be anybody's.
        assert_eq!(agent.look(|log| log.losses_of_anybody), 0, "{}", agent.talk());
        assert!(resident < 64 * 1024, "{resident} KiB");
        all_delays.extend(delays);
    }
    if let Some(runs) = runs {
        all_delays.sort_unstable();
        let p99 = all_delays[all_delays.len() * 99 / 100];
        let last = all_delays[all_delays.len() - 1];
        say(&format!("fairness, {name}: {runs} runs: {p99} ms (p99), {last} ms (the last)"));
        assert!(p99 <= 1_000, "{all_delays:?}");
    }
}

/// Returns whether it is a user of this test; those of a namespace have ids from 100,000 on.
fn ours(uid: u64) -> bool {
    [ATTACKER, NEIGHBOUR].map(u64::from).contains(&uid) || (100_000..165_536).contains(&uid)
}

/// Returns the size of a flood; emulation is many times slower.
pub fn times(binds: u32) -> u32 {
    if in_guest() { binds / 100 } else { binds }
}

/// Returns a number of objects; a guest has little memory for them.
pub fn many(full: u32) -> u32 {
    if in_guest() { full / 10 } else { full }
}
