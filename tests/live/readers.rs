//! Outputs that are slow, stuck, closed or read page by page, while binds keep failing: one
//! bad output does not affect the others, the endpoint or the end of the agent.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent,
    captured::Told,
    helper::Helper,
    http::{get, send},
    netns::Netns,
    op::tcp,
    patience,
    process::{Gates, code},
    programs::portwatch,
    say,
    scene::Scene,
    skip::in_guest,
    stream::Manner,
};
use rustix::process::Signal;
use tempfile::TempDir;

const METRICS: &str = "127.0.0.1:9749";
/// A port on which no other test fails: the capture has only this test's.
const PORT: &str = "8093";
const ADDRESS: &str = "127.0.0.1:8093";

/// How long a stop may take with any output (docs/stream.md).
const STOPS_WITHIN: Duration = Duration::from_secs(11);

/// Failed binds in a burst that exceeds all queues; then some for as long as the test runs.
const BURSTS: u32 = 5;
const BURST: u32 = 2_400;
const ROUNDS: u32 = 15;
/// Each fifth of a second.
const EACH: u32 = 50;

struct Place {
    scene: Scene,
    folder: TempDir,
    agent: Agent,
    gates: Gates,
}

impl Place {
    fn new(manner: Manner, log: &str) -> Self {
        let scene = Scene::alone();
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(portwatch().unwrap());
        command.args(["run", "--format", "json", "--storm-window", "0s", "--port", PORT]);
        command.args(["--metrics", METRICS, "--capture"]).arg(folder.path());
        command.env("PORTWATCH_LOG", log);
        scene.netns.confine(&mut command);
        let (agent, gates) = Agent::start_gated(&mut command, manner).unwrap();
        Self { scene, folder, agent, gates }
    }

    /// Makes binds fail in a burst and then steadily, 250 a second. Returns how many, and the
    /// longest time that the endpoint took meanwhile.
    fn storm(&self) -> (u64, Duration) {
        let _holder = self.scene.helper().holds([tcp(ADDRESS).listening()]);
        let (burst, rounds) = if in_guest() { (200, 3) } else { (BURST, ROUNDS) };
        let mut refused: u64 = (0..BURSTS).map(|_| refuse(&self.scene.netns, burst)).sum();
        let mut longest = Duration::ZERO;
        let begun = Instant::now();
        for round in 1..=rounds {
            refused += refuse(&self.scene.netns, EACH);
            longest = longest.max(self.scrape());
            let due = begun + Duration::from_millis(200) * round;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        (refused, longest)
    }

    /// Returns how long an answer takes.
    #[track_caller]
    fn scrape(&self) -> Duration {
        let begun = Instant::now();
        assert_eq!(get(connect(&self.scene.netns), "/metrics").status, 200);
        begun.elapsed()
    }

    /// Waits until the capture accounts for all failed binds.
    #[track_caller]
    fn captured(&self, refused: u64) {
        let deadline = Instant::now() + patience() * 4;
        loop {
            let kept = Told::in_capture(self.folder.path()).all();
            if kept == refused {
                return;
            }
            let talk = self.agent.talk();
            assert!(kept < refused, "{kept} of {refused} are accounted for\n{talk}");
            assert!(Instant::now() < deadline, "{kept} of {refused} are in the capture\n{talk}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it while more binds fail, and returns how long that took.
    #[track_caller]
    fn stops(&mut self) -> Duration {
        let _holder = self.scene.helper().holds([tcp(ADDRESS).listening()]);
        let netns = &self.scene.netns;
        let agent = &mut self.agent;
        let (status, took) = thread::scope(|scope| {
            let storm = scope.spawn(|| (0..BURSTS).map(|_| refuse(netns, BURST / 2)).sum::<u64>());
            let begun = Instant::now();
            let status = agent.end_unread_by(Signal::TERM);
            let took = begun.elapsed();
            storm.join().unwrap();
            (status, took)
        });
        assert_eq!(code(status), 0, "{}", self.agent.talk());
        assert!(took < STOPS_WITHIN + patience() / 5, "the stop took {took:?}");
        took
    }
}

fn refuse(netns: &Netns, binds: u32) -> u64 {
    let refused = Helper::new(netns).runs([tcp(ADDRESS).repeated(binds)]);
    assert_eq!(refused.last().refused, binds);
    u64::from(binds)
}

fn connect(netns: &Netns) -> std::net::TcpStream {
    netns.connect(METRICS.parse().unwrap()).expect("the agent listens")
}

/// A stdout that is read in this manner does not affect others.
#[track_caller]
fn is_survived(what: &str, manner: Manner) {
    let mut place = Place::new(manner, "warn");
    let (refused, longest) = place.storm();
    place.captured(refused);
    let stopped = place.stops();
    say(&format!(
        "readers: {what}: {refused} refusals, all in the capture; /metrics within {longest:.1?}; \
         stopped in {stopped:.1?}"
    ));
    drop(place.gates);
    place.agent.read_to_end();
}

#[test]
fn a_slow_one() {
    is_survived("slow", Manner::Pages(Duration::from_millis(20)));
}

#[test]
fn one_that_takes_a_page_now_and_then() {
    is_survived("a page each 4 s", Manner::Pages(Duration::from_secs(4)));
}

#[test]
fn one_that_is_stuck() {
    is_survived("stuck", Manner::Stuck);
}

/// Nobody reads the agent's log messages, of which there are many.
#[test]
fn one_of_stderr_that_is_stuck() {
    let mut place = Place::new(Manner::Freely, "trace");
    place.gates.stderr.set(Manner::Stuck);
    // More than a pipe holds: each failing reload is logged.
    for _ in 0..1_000 {
        let _answer = send(connect(&place.scene.netns), b"\x16\x03\x01\r\n\r\n");
    }
    let (refused, longest) = place.storm();
    place.captured(refused);
    let stopped = place.stops();
    say(&format!(
        "readers: stderr stuck: {refused} refusals, all in the capture; /metrics within \
         {longest:.1?}; stopped in {stopped:.1?}"
    ));
}

/// Its end of the pipe is closed, and the agent continues for the capture.
#[test]
fn one_that_is_gone() {
    let mut place = Place::new(Manner::Gone, "warn");
    let (refused, longest) = place.storm();
    place.captured(refused);
    let stopped = place.stops();
    say(&format!(
        "readers: gone: {refused} refusals, all in the capture; /metrics within {longest:.1?}; \
         stopped in {stopped:.1?}"
    ));
}
