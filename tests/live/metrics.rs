//! Metrics: what is counted, and whether the agent says that it is well.

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::Agent, cgroup::Slice, http::get, kernel, netns::Netns, op::tcp, patience,
    programs::portwatch, scene::Scene, stopped::Stopped,
};
use rustix::process::Signal;

mod endpoint;
mod prometheus;

use prometheus::{lacks_prometheus, promtool};

/// In a namespace of the test's own, so that no neighbour has it.
const METRICS: &str = "127.0.0.1:9749";
/// The agent watches the machine: a port that no other test is refused, so that all
/// that is counted is told.
const OWN_PORT: &str = "9748";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An agent in `netns` that watches the machine.
fn agent_in(netns: &Netns, arguments: &[&str]) -> Agent {
    let mut command = Command::new(portwatch().unwrap());
    command.args(["run", "--format", "json"]).args(arguments);
    netns.confine(&mut command);
    Agent::start_command(&mut command).unwrap()
}

fn connect(netns: &Netns) -> TcpStream {
    netns.connect(address(METRICS)).expect("the agent listens")
}

/// The value of the sample that is written so.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until `name` has `value`; the agent counts a moment after it tells.
#[track_caller]
fn wait_for_sample(netns: &Netns, name: &str, value: f64) {
    let deadline = Instant::now() + patience();
    loop {
        let text = get(connect(netns), "/metrics").body;
        if sample(&text, name) == Some(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not {value}:\n{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_refusal_is_counted_and_the_text_is_right() {
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", OWN_PORT]);
    let own = format!("127.0.0.1:{OWN_PORT}");
    let _holder = scene.helper().holds([tcp(&own).listening()]);
    let before = get(connect(&scene.netns), "/metrics").body;
    let name = "portwatch_bind_failures_total{cause=\"listener\",protocol=\"tcp\",stage=\"bind\"}";
    let counted = sample(&before, name).unwrap_or_else(|| panic!("{before}"));
    assert_eq!(sample(&before, "portwatch_config_last_reload_successful"), Some(1.0));
    let refused = scene.helper().is_refused(tcp(&own));
    let event = agent.event_of(&refused);
    wait_for_sample(&scene.netns, name, counted + 1.0);

    let text = get(connect(&scene.netns), "/metrics");
    assert!(text.head.contains("text/plain; version=0.0.4"), "{}", text.head);
    let build = format!("hooks=\"{}\"", event.text("/host/hooks"));
    assert!(text.body.contains(&build), "{}", text.body);
    let attached = text.body.lines().filter(|line| line.starts_with("portwatch_probe_attached{"));
    assert!(attached.clone().count() >= 3, "{}", text.body);
    assert!(attached.clone().any(|line| line.ends_with(" 1")), "{}", text.body);
    if kernel::is_at_least(5, 12) {
        let name = "portwatch_probe_skipped_total{";
        let skipped = text.body.lines().filter(|line| line.starts_with(name));
        let is_attached = |line: &&str| line.ends_with(" 1");
        assert_eq!(skipped.count(), attached.filter(is_attached).count(), "{}", text.body);
    }
    let started = sample(&text.body, "portwatch_start_time_seconds").unwrap();
    assert!(started > 1_700_000_000.0, "{started}");
    for name in ["portwatch_enrichment_seconds_count", "portwatch_queue_length{queue=\"enrich\"}"] {
        assert!(sample(&text.body, name).is_some(), "{name} in {}", text.body);
    }
    if lacks_prometheus() {
        return;
    }
    let (fine, said) = promtool(&["check", "metrics"], Some(&text.body));
    assert!(fine && said.trim().is_empty(), "{said}");
}

/// What the configuration leaves out is counted, and said at the end.
#[test]
fn what_is_ignored_is_counted() {
    let scene = Scene::new();
    let slice = Slice::new();
    let group = slice.group("quiet.service");
    let arguments = [
        "--metrics", METRICS, "--ignore-port", "8081", "--ignore-unit", "quiet*", "--port", "8080",
    ];
    let mut agent = agent_in(&scene.netns, &[&arguments[..], &["--port", "8081"]].concat());
    let holders = [tcp("127.0.0.1:8080").listening(), tcp("127.0.0.1:8081").listening()];
    let _holder = scene.helper().holds(holders);
    let port = "portwatch_ignored_total{by=\"port\"}";
    let before = sample(&get(connect(&scene.netns), "/metrics").body, port).unwrap();
    let _port = scene.helper().is_refused(tcp("127.0.0.1:8081"));
    let quiet = scene.helper().within(&group).runs([tcp("127.0.0.1:8080").repeated(3)]);
    wait_for_sample(&scene.netns, "portwatch_ignored_total{by=\"unit\"}", 3.0);
    let told = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    agent.event_of(&told);
    // Other tests' refusals are of other ports.
    let after = sample(&get(connect(&scene.netns), "/metrics").body, port).unwrap();
    assert!(after > before, "{after}");
    let of_quiet = agent.look(|log| log.events.iter().any(|event| event.pid == Some(quiet.pid)));
    assert!(!of_quiet, "{}", agent.said());
    agent.end_by(Signal::TERM);
    assert!(agent.talk().contains("3 failed binds were ignored by unit"), "{}", agent.talk());
}

/// Waits until the agent's health is this, and gives what it says.
#[track_caller]
fn wait_for_health(netns: &Netns, status: u16) -> String {
    let deadline = Instant::now() + patience() * 2;
    loop {
        let answer = get(connect(netns), "/healthz");
        if answer.status == status {
            return answer.body;
        }
        assert!(Instant::now() < deadline, "{answer:?}, not {status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A thread that is stopped by a debugger does not move.
#[test]
fn health_says_when_nothing_is_looked_into() {
    let scene = Scene::new();
    let agent = agent_in(&scene.netns, &["--metrics", METRICS, "--port", "8080"]);
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    assert_eq!(get(connect(&scene.netns), "/healthz").status, 200);
    let stopped = Stopped::thread(agent.pid(), "enrich");
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let unwell = wait_for_health(&scene.netns, 503);
    assert!(unwell.starts_with("enrich: "), "{unwell}");
    drop(stopped);
    agent.event_of(&refused);
    // It is taken for done a moment after it is told.
    wait_for_health(&scene.netns, 200);
}
